"""``perdure demo``."""

import typer


def add_to(parent: typer.Typer) -> None:
    """Makes this a part of the ``perdure`` command."""
