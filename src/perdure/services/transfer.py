"""Placeholder until the transfer helper lands."""

from perdure.services.handle import Handle


class TransferVerbs(Handle):
    """Import and export."""
