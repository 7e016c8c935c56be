"""Checkpoints: what an agent was doing, kept so that it can go on from there."""
