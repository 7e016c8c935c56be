# Generated from perdure/services/transfer.py by tools/generate_sync.py; change that file and run `make sync`.
"""Placeholder until the transfer helper lands."""

from perdure.sync.handle import Handle


class TransferVerbs(Handle):
    """Import and export."""
