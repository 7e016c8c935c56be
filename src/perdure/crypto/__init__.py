"""Sealing bytes: compression, encryption, and the keys for it."""
