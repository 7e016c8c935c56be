"""Where each public name lives. Names are loaded on first use, so that ``import perdure`` stays quick."""

import importlib
from typing import Any

VALUES = {
    "perdure.rooms.changes.ops": ("Change",),
    "perdure.rooms.checkpoints.config": ("CheckpointConfig",),
    "perdure.rooms.checkpoints.diff": ("StateDiff",),
    "perdure.rooms.checkpoints.merge": ("MISSING", "MergeConflict", "MergeReport"),
    "perdure.rooms.checkpoints.strategy": ("CheckpointStrategy", "RecoveryPolicy"),
    "perdure.rooms.checkpoints.values": (
        "Checkpoint", "CheckpointBranch", "CheckpointThread", "RetentionReport", "VerifyReport",
    ),
    "perdure.rooms.chores.ops": ("ChoreState",),
    "perdure.rooms.conversations.content": (
        "FilePart", "OpaquePart", "ReasoningPart", "TextPart", "ToolCallPart", "ToolResultPart",
    ),
    "perdure.rooms.conversations.draft": ("Draft", "MessageRole"),
    "perdure.rooms.conversations.reports": ("ExportReport", "ImportReport", "LineError", "TransferProgress"),
    "perdure.rooms.conversations.usage": ("TokenUsage",),
    "perdure.rooms.conversations.values": (
        "Conversation", "ConversationMetadata", "Message", "MessageVersion", "Page", "TokenReportRow",
    ),
    "perdure.values.config": ("PersistenceConfig",),
    "perdure.values.errors": (
        "Busy", "ChecksumMismatch", "Closed", "Conflict", "Damaged", "Disconnected", "EmbedderDown", "Forbidden",
        "Invalid", "MissingExtra", "Misused", "NotFound", "OutcomeUnknown", "OverLimit", "PerdureError",
        "QuotaExceeded", "Refused", "SchemaAhead", "SchemaBehind", "Unavailable", "Undecodable", "WrongKey",
    ),
}  # fmt: skip
"""Names that are the same in both packages, by module."""

SERVICES = {
    "checkpoints": ("Checkpointer",),
    "search": ("SearchHit",),
    "store": ("PostgresStore", "SQLiteStore", "Store"),
    "tracking": ("Tracker",),
}
"""Names with an async and a blocking half, by module of ``perdure.services`` and ``perdure.sync``."""

_HOME = {name: module for module, names in VALUES.items() for name in names}
_SERVICE = {name: module for module, names in SERVICES.items() for name in names}


def load(name: str, *, blocking: bool) -> Any:
    """The object behind a public name; ``AttributeError`` when there is none."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    package = "perdure.sync" if blocking else "perdure.services"
    if name in _SERVICE:
        return getattr(importlib.import_module(f"{package}.{_SERVICE[name]}"), name)
    raise AttributeError(f"module 'perdure{'.sync' if blocking else ''}' has no attribute {name!r}")


def names() -> list[str]:
    """Every public name but ``open``."""
    return sorted(_HOME.keys() | _SERVICE.keys())
