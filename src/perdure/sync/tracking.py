# Generated from perdure/services/tracking.py by tools/generate_sync.py; change that file and run `make sync`.
"""Placeholder until the tracking helper lands."""

from perdure.sync.handle import Handle


class TrackingVerbs(Handle):
    """Record model calls."""
