"""Which checkpoints of a thread stay, and why. Pure: the caller deletes.

A checkpoint has the first of these that is true of it:

1. ``head``: it is the newest of a branch.
2. ``fork_point``: a branch begins at it.
3. ``tagged``: it has a tag.
4. ``failed``: its state failed, and the policy keeps failed ones.
5. ``minimum``: it is among the ``keep_minimum`` newest of the thread, whatever their kind.
6. ``too_old``: it is older than ``retention_days``. It goes.
7. ``too_many``: with those above, which stay in any case, ``max_checkpoints_per_thread`` stay without it, all of them
   newer or protected. It goes.
8. ``within_limits``: it stays.

So the maximum is one of the whole thread: the protected count towards it, and alone they may exceed it, as may
``keep_minimum``. What is newer is told by position: the clock may have jumped between two checkpoints.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from perdure.rooms.checkpoints.values import Status
from perdure.values.clock import Micros

Reason = Literal["head", "fork_point", "tagged", "failed", "minimum", "within_limits", "too_old", "too_many"]
_DAY = 86_400_000_000
"""Microseconds."""


class Policy(Protocol):
    """What retention is told; a ``CheckpointConfig`` is one."""

    @property
    def max_checkpoints_per_thread(self) -> int | None: ...  # noqa: D102
    @property
    def retention_days(self) -> float | None: ...  # noqa: D102
    @property
    def keep_minimum(self) -> int: ...  # noqa: D102
    @property
    def keep_failed_states(self) -> bool: ...  # noqa: D102


class Candidate(msgspec.Struct, frozen=True):
    """What retention needs to know of one checkpoint; ``tags`` is whether it has any."""

    id: str
    created_at: Micros
    status: Status
    tags: bool
    is_head: bool
    is_fork_point: bool


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of one checkpoint."""

    id: str
    keep: bool
    reason: Reason


def choose(candidates: Sequence[Candidate], policy: Policy, now: Micros) -> list[Verdict]:
    """One verdict for each checkpoint of a thread, in their order: newest first, by position."""
    sheltered: list[Reason | None] = [_shelter(candidate, rank, policy) for rank, candidate in enumerate(candidates)]
    most = policy.max_checkpoints_per_thread
    room = None if most is None else most - sum(reason is not None for reason in sheltered)
    oldest = None if policy.retention_days is None else now - round(policy.retention_days * _DAY)
    verdicts: list[Verdict] = []
    for candidate, shelter in zip(candidates, sheltered, strict=True):
        if shelter is not None:
            verdicts.append(Verdict(candidate.id, True, shelter))
        elif oldest is not None and candidate.created_at < oldest:
            verdicts.append(Verdict(candidate.id, False, "too_old"))
        elif room is not None and room <= 0:
            verdicts.append(Verdict(candidate.id, False, "too_many"))
        else:
            verdicts.append(Verdict(candidate.id, True, "within_limits"))
            room = None if room is None else room - 1
    return verdicts


def _shelter(candidate: Candidate, rank: int, policy: Policy) -> Reason | None:
    """Why a checkpoint stays whatever its age and the number of others, or None."""
    if candidate.is_head:
        return "head"
    if candidate.is_fork_point:
        return "fork_point"
    if candidate.tags:
        return "tagged"
    if policy.keep_failed_states and candidate.status == "failed":
        return "failed"
    return "minimum" if rank < policy.keep_minimum else None
