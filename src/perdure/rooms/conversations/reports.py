"""What an import or an export tells, while it runs and when it is done."""

from typing import Literal

import msgspec


class TransferProgress(msgspec.Struct, frozen=True):
    """How far an import or an export is. ``total_bytes`` is None where nobody knows it."""

    stage: Literal["check", "load", "export"]
    bytes: int
    total_bytes: int | None
    conversations: int
    messages: int


class LineError(msgspec.Struct, frozen=True):
    """A line (or, in a JSON document, a record; both counted from 1) that was not loaded, and why."""

    line: int
    reason: str


class ExportReport(msgspec.Struct, frozen=True):
    """What was written."""

    conversations: int
    messages: int
    bytes: int


class ImportReport(msgspec.Struct, frozen=True):
    """What was loaded.

    ``conversations`` and ``messages`` are new ones; ``skipped`` counts messages that were stored already, ``broken``
    lines that were not loaded, of which ``errors`` lists the first hundred.
    """

    conversations: int
    messages: int
    skipped: int
    broken: int
    errors: list[LineError]
