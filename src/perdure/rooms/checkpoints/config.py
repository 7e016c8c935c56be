"""Settings of a checkpointer, each checked where it is given."""

from typing import Literal

import msgspec
from msgspec.structs import force_setattr

from perdure.values import limits
from perdure.values.config import seconds
from perdure.values.errors import Invalid, OverLimit

Compression = Literal["zstd", "none"]
COMPRESSIONS: tuple[Compression, ...] = ("zstd", "none")
MOST = 1_000_000
"""Checkpoints, or steps, that a setting may count to."""
MOST_DAYS = 36_525
"""Days that retention may look back: a century."""
SECRET_BYTES = 4_096
"""An encryption key or passphrase."""


class CheckpointConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a checkpointer saves and what it keeps. A value out of its range is ``Invalid`` and names the field.

    With ``auto_checkpoint`` false, ``step()`` counts and saves nothing. ``checkpoint_interval`` is in calls of
    ``step()`` (1 to 1,000,000), ``checkpoint_seconds`` in seconds (above 0, at most a year).

    ``max_checkpoints_per_thread`` (1 to 1,000,000), ``retention_days`` (0 to 36,525, parts of a day too),
    ``keep_minimum`` (0 to 1,000,000) and ``keep_failed_states`` say what retention leaves; saving never removes
    anything. None in one of the first two turns that rule off.

    ``encryption_key`` is base64 text of exactly 32 bytes, or 32 raw bytes: a key. Anything else is a passphrase of
    at most 4,096 bytes. ``repr`` does not show it.
    """

    auto_checkpoint: bool = True
    checkpoint_interval: int = 5
    checkpoint_seconds: float = 60
    max_checkpoints_per_thread: int | None = 50
    compression: Compression = "zstd"
    encryption_key: str | bytes | None = None
    retention_days: float | None = 30
    keep_minimum: int = 10
    keep_failed_states: bool = True

    def __post_init__(self) -> None:
        _flag(self.auto_checkpoint, "auto_checkpoint")
        limits.count(self.checkpoint_interval, "checkpoint_interval", 1, MOST)
        force_setattr(self, "checkpoint_seconds", seconds(self.checkpoint_seconds, "checkpoint_seconds"))
        if self.max_checkpoints_per_thread is not None:
            limits.count(self.max_checkpoints_per_thread, "max_checkpoints_per_thread", 1, MOST)
        if self.compression not in COMPRESSIONS:
            raise Invalid(f'compression is "zstd" or "none", not {self.compression!r}', field="compression")
        _secret(self.encryption_key)
        _days(self.retention_days)
        limits.count(self.keep_minimum, "keep_minimum", 0, MOST)
        _flag(self.keep_failed_states, "keep_failed_states")

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        if self.encryption_key is not None:
            shown["encryption_key"] = "***"
        return f"CheckpointConfig({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def _flag(value: object, field: str) -> None:
    if not isinstance(value, bool):
        raise Invalid(f"{field} is True or False, not {value!r}", field=field)


def _days(value: object) -> None:
    field = "retention_days"
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(f"{field} must be a number of days or None, not {type(value).__name__}", field=field)
    if value > MOST_DAYS:
        raise OverLimit(f"{field} is {value}; the limit is {MOST_DAYS:,}", field=field, limit=MOST_DAYS)
    if not value >= 0:  # NaN is neither
        raise Invalid(f"{field} must be at least 0, not {value}", field=field, limit=0)


def _secret(value: object) -> None:
    """Refuses what can be no key, without saying what it was."""
    field = "encryption_key"
    if value is None:
        return
    if isinstance(value, str):
        limits.text(value, field, SECRET_BYTES)
    elif not isinstance(value, bytes):
        raise Invalid(f"{field} must be text, bytes or None, not {type(value).__name__}", field=field)
    elif not value:
        raise Invalid(f"{field} must not be empty", field=field)
    elif len(value) > SECRET_BYTES:
        raise OverLimit(
            f"{field} has {len(value):,} bytes; the limit is {SECRET_BYTES:,}", field=field, limit=SECRET_BYTES
        )
