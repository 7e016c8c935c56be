"""``perdure bench``."""

import typer


def add_to(parent: typer.Typer) -> None:
    """Makes these a part of the ``perdure`` command."""
