"""Recipes for housekeeping: who may run which chore, and when it is due again."""

from datetime import datetime

import msgspec

from perdure.grammar import Steps, execute, fetch_all, op
from perdure.values.clock import Micros, to_datetime

_HORIZON = 86_400_000_000
"""No chore is planned further ahead than a day."""


class ChoreState(msgspec.Struct, frozen=True):
    """A chore: when it last ran and how it went, when it is due, whether it is overdue."""

    name: str
    running: bool
    due_at: datetime
    ran_at: datetime | None
    outcome: str | None
    overdue: bool


@op
def lease(name: str, owner: str, now: Micros, seconds: int) -> Steps[bool]:
    """Whether the chore is due and was given to ``owner``, for at most that many seconds."""
    yield from execute("chores.plan", name=name, now=now)
    taken = yield from execute(
        "chores.lease", name=name, owner=owner, now=now, lease_until=now + seconds * 1_000_000, horizon=now + _HORIZON
    )
    return bool(taken)


@op
def finish(name: str, owner: str, now: Micros, due_at: Micros, outcome: str) -> Steps[bool]:
    """Whether the chore was given back (false: the lease had run out and somebody else has it)."""
    return bool((yield from execute("chores.finish", name=name, owner=owner, now=now, due_at=due_at, outcome=outcome)))


@op(reads=True)
def states(now: Micros, grace_seconds: int) -> Steps[list[ChoreState]]:
    """Every chore that was ever planned."""
    rows = yield from fetch_all("chores.all")
    return [
        ChoreState(
            row[0], row[2] > now, to_datetime(row[3]), None if row[4] is None else to_datetime(row[4]), row[5],
            row[3] + grace_seconds * 1_000_000 < now,
        )
        for row in rows
    ]  # fmt: skip
