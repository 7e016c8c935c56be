"""Checkpoints, branches and reports as people see them, and how a row becomes one."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from perdure.grammar import Row
from perdure.values.clock import to_datetime

Status = Literal["ok", "failed", "completed"]
STATUSES: tuple[Status, ...] = ("ok", "failed", "completed")
MAIN = "main"
"""The branch that every thread has."""
NATIVE = ""
"""The space of checkpoints that ``Checkpointer`` saved itself."""


class Checkpoint(msgspec.Struct, frozen=True):
    """A saved state without the state. ``position`` counts from 0 in its thread, whatever the branch.

    ``size`` is what it added to the store, in bytes; ``node`` is the step that made it, when it was given.
    """

    id: str
    thread_id: str
    position: int
    parent_id: str | None
    branch: str
    status: Status
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    node: str | None
    run_id: str | None
    size: int
    created_at: datetime


class CheckpointBranch(msgspec.Struct, frozen=True):
    """A branch: its newest checkpoint, and the one it began at (None for ``main``)."""

    id: str
    name: str
    thread_id: str
    head_id: str | None
    forked_from_id: str | None
    metadata: Mapping[str, Any]
    created_at: datetime


class CheckpointThread(msgspec.Struct, frozen=True):
    """A thread that has checkpoints. ``space`` is "" or the framework whose they are; ``saved`` counts the deleted too."""

    id: str
    space: str
    saved: int
    created_at: datetime
    updated_at: datetime


class RetentionReport(msgspec.Struct, frozen=True):
    """What retention took, or would take, and why; ``kept`` names the reasons for what stayed."""

    thread_id: str
    removed: Mapping[str, str]
    kept: Mapping[str, str]
    dry_run: bool


class VerifyReport(msgspec.Struct, frozen=True):
    """What ``verify`` looked at, and in words what is wrong."""

    threads: int
    checkpoints: int
    segments: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class RowOf(msgspec.Struct, frozen=True):
    """A checkpoint's row."""

    thread: int
    position: int
    id: str
    parent: int | None
    branch: int
    status: int
    run_id: str | None
    size: int
    created_at: int
    mac: bytes
    parent_id: str | None
    parent_mac: bytes | None


class BranchRow(msgspec.Struct, frozen=True):
    """A branch's row."""

    number: int
    name: str
    id: str
    head: int
    fork_of: int
    metadata: str
    created_at: int
    mac: bytes


def checkpoint_of(
    row: RowOf, thread_id: str, branch: str, tags: tuple[str, ...], metadata: Mapping[str, Any], node: str | None
) -> Checkpoint:
    """A checkpoint from its row and what its entry says."""
    return Checkpoint(
        row.id, thread_id, row.position, row.parent_id, branch, STATUSES[row.status], tags, metadata, node,
        row.run_id, row.size, to_datetime(row.created_at),
    )  # fmt: skip


def row_of(row: Row) -> RowOf:
    """A checkpoint's row by name."""
    return RowOf(*row)
