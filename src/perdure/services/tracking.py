"""Placeholder until the tracking helper lands."""

from perdure.services.handle import Handle


class TrackingVerbs(Handle):
    """Record model calls."""
