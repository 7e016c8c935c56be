"""Recipes for housekeeping: who may run which chore, and when it is due again."""

from datetime import datetime

import msgspec

from perdure.grammar import Params, Steps, asking, execute, fetch_all, fetch_one, fetch_value, op, together
from perdure.values.clock import Micros, to_datetime

SECOND = 1_000_000
HORIZON = 86_400 * SECOND
"""No chore is planned further ahead than a day."""
GRACE = 3_600 * SECOND
"""A chore is overdue when it should have run an hour ago and is not running."""
LEASE = 300 * SECOND
"""After this a runner that has not given a chore back is taken for dead."""

Place = tuple[Micros, str]
"""Where a chore stands in the line: when it is due, and its name."""
FRONT: Place = (-(2**63), "")


class ChoreState(msgspec.Struct, frozen=True):
    """A chore: when it last ran and how it went, when it is due, whether it is overdue."""

    name: str
    running: bool
    due_at: datetime
    ran_at: datetime | None
    outcome: str | None
    overdue: bool


def _named(names: list[str] | None) -> Params:
    return {} if names is None else {"names": names}


@op
def plan(names: list[str], now: Micros) -> Steps[None]:
    """Nothing; those chores that are not known yet are due now."""
    yield from together(*(asking("chores.plan", name=name, now=now) for name in names))


@op
def news(hastened: list[str], planned: list[str], now: Micros) -> Steps[None]:
    """Nothing; a tenant was written to: some of its chores are due now, others are planned if they are not yet."""
    yield from together(
        *(asking("chores.hasten", name=name, now=now) for name in hastened),
        *(asking("chores.plan", name=name, now=now) for name in planned),
    )


@op(reads=True)
def due(names: list[str] | None, now: Micros, after: Place, limit: int) -> Steps[list[Place]]:
    """When they were due and the names of chores that may be leased, due longest first, after such a place.

    Of all tenants, or only those named.
    """
    params = _named(names)
    return (
        yield from fetch_all(
            "chores.due", flags=frozenset(params), after_due=after[0], after_name=after[1], now=now,
            horizon=now + HORIZON, beyond=now + 2 * LEASE, limit=limit, **params,
        )
    )  # fmt: skip


@op
def lease(name: str, owner: str, now: Micros) -> Steps[Micros | None]:
    """When the chore's tenant last had news, if the chore is due and was given to ``owner`` for some minutes."""
    news_at: Micros | None = yield from fetch_value(
        "chores.lease",
        name=name,
        owner=owner,
        now=now,
        horizon=now + HORIZON,
        lease_until=now + LEASE,
        beyond=now + 2 * LEASE,  # not LEASE: another may have looked at its clock a moment after us, and come first
    )
    return news_at


@op
def finish(name: str, owner: str, news_at: Micros, now: Micros, due_at: Micros, outcome: str) -> Steps[bool]:
    """Whether the chore was given back (false: the lease had run out and somebody else has it).

    It is due again at ``due_at``, or at once if its tenant has had news since ``news_at``.
    """
    touched = yield from execute(
        "chores.finish", name=name, owner=owner, news_at=news_at, now=now, due_at=due_at, outcome=outcome
    )
    return bool(touched)


@op(reads=True)
def states(names: list[str] | None, now: Micros, limit: int) -> Steps[list[ChoreState]]:
    """Chores that were ever planned, due longest first; of all tenants, or of those named."""
    params = _named(names)
    rows = yield from fetch_all("chores.states", flags=frozenset(params), limit=limit, **params)
    return [
        ChoreState(
            row[0], row[1] > now, to_datetime(row[2]), None if row[3] is None else to_datetime(row[3]), row[4],
            row[2] < now - GRACE and row[1] <= now,
        )
        for row in rows
    ]  # fmt: skip


@op(reads=True)
def overdue(names: list[str] | None, now: Micros) -> Steps[int]:
    """How many chores are overdue; of all tenants, or of those named."""
    params = _named(names)
    row = yield from fetch_one("chores.overdue", flags=frozenset(params), now=now, moment=now - GRACE, **params)
    return 0 if row is None else int(row[0])
