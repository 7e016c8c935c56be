"""Housekeeping: what has to be done now and then, by one runner at a time, for every tenant.

*Who has chores.* A tenant's rows are hidden from everybody else: PostgreSQL's row-level security is forced, and a store
does not connect as somebody who may pass it. So no statement can ask which tenants have work to do; that would take a hole
in the wall that holds tenants apart. Instead the tenants say so. The table of chores belongs to the store and knows tenants
by name only, and whoever writes for a tenant enters its chores there: with its first write, and again at most once a minute
(``Handle._tell_chores``), after the write was committed and in a transaction of its own, so that no write is slower for it
and nobody waits for another's. A process that dies in between leaves that to the tenant's next write.

*When they are due.* A tenant that had news in the last two minutes is looked after every few seconds, one that is quiet
once an hour; its next write hastens that. So a thousand tenants that sleep cost a thousand looks an hour.

*Fairness.* Chores run in the order in which they became due, each for a bounded piece of work at a time; one with more to
do goes to the end of the line. One that fails is logged with its error, noted in its row, and tried again at its next turn.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from perdure.kit import aio as kit
from perdure.rooms.chores import ops as recipes
from perdure.rooms.chores.ops import SECOND, ChoreState
from perdure.rooms.keys import ops as keys
from perdure.rooms.texts import ops as texts
from perdure.services.handle import TENANT_CHORES
from perdure.services.search import text_of
from perdure.values.clock import Micros
from perdure.values.errors import PerdureError
from perdure.values.ids import new_id

_ROUND_SECONDS = 5.0
_PAGE = 100
"""Chores looked up at once."""
_STATES = 1_000
_PIECES = 20
"""Transactions that one chore may take before it lets others go first."""
_KEYS = 1_000
"""Keys forgotten in one transaction."""
_LIVELY = 120 * SECOND
_QUIET = 3_600 * SECOND
"""How long a tenant without news is left alone."""
_log = logging.getLogger("perdure.chores")


class Turn(msgspec.Struct, frozen=True):
    """A chore's turn: when it began, and when the tenant last had news."""

    now: Micros
    news_at: Micros


class Chore(msgspec.Struct, frozen=True):
    """A piece of housekeeping: how long to wait after a failure, and what it does.

    ``work`` is given a handle of the tenant; it answers in how many microseconds to come again, 0 for more to do.
    """

    every: Micros
    work: Callable[[Any, Turn], Awaitable[Micros]]


async def _absorb(handle: Any, turn: Turn) -> Micros:
    cursor = None
    if await handle._run(texts.behind()):
        for _ in range(_PIECES):
            cursor = await handle._run(texts.absorb(cursor, text_of))
            if cursor is None:
                break
        else:
            return 0
    lively = 0 <= turn.now - turn.news_at < _LIVELY
    return 10 * SECOND if lively else _QUIET


async def _forget_keys(handle: Any, turn: Turn) -> Micros:
    for _ in range(_PIECES):
        forgotten, next_at = await handle._run(keys.expire(turn.now, _KEYS))
        if forgotten < _KEYS:
            # A key that is not there yet lives for a day, so nothing is missed until then.
            wait = recipes.HORIZON if next_at is None else next_at - turn.now
            return min(max(wait, 600 * SECOND), recipes.HORIZON)
    return 0


async def _upkeep(handle: Any, turn: Turn) -> Micros:
    del turn
    await handle.upkeep()
    return 60 * SECOND


CHORES = {
    "text_index": Chore(10 * SECOND, _absorb),
    "idempotency": Chore(600 * SECOND, _forget_keys),
    "upkeep": Chore(60 * SECOND, _upkeep),
}
"""By name. Those of a tenant are in ``TENANT_CHORES``; any other is the store's own."""


class Chores:
    """Runs chores, in the background or once over: a tenant's handle its own, the store itself those of all tenants."""

    def __init__(self, store: Any) -> None:
        self._store = store._working_for(store.tenant)
        self._owner = new_id()
        self._background = kit.Background()
        self._stopping = False
        own = TENANT_CHORES if store._confined else CHORES
        self._own = [f"{store.tenant}/{name}" for name in own]
        self._named = self._own if store._confined else None

    def start(self) -> None:
        """Begins to look for due chores every few seconds."""
        self._background.start(self._loop)

    async def stop(self) -> None:
        """Lets the chore that runs finish and looks no more."""
        self._stopping = True
        await self._background.stop()

    async def _loop(self) -> None:
        while True:
            try:
                await self.run_due()
            except PerdureError as error:
                _log.warning("chores could not be looked up: %s", error.code)
            if not await self._background.pause(_ROUND_SECONDS):
                return

    async def run_due(self) -> list[str]:
        """The chores that were due when this began, were free, and were run.

        Those of the handle's own tenant go by their names, others have their tenant before it.
        """
        store = self._store
        began = store._clock()
        await store._run(recipes.plan(self._own, began))
        ran: dict[str, None] = {}
        while await self._walk(began, ran):
            pass
        return list(ran)

    async def _walk(self, began: Micros, ran: dict[str, None]) -> bool:
        """Whether, after every chore that was due had its turn, some have more to do."""
        store = self._store
        more = False
        place = recipes.FRONT
        while page := await store._run(recipes.due(self._named, began, place, _PAGE)):
            for place in page:
                if self._stopping:
                    return False
                name = place[1]
                wait = await self._run_one(name, began)
                if wait is not None:
                    ran[name.removeprefix(f"{store.tenant}/")] = None
                    more = more or wait == 0
        return more

    async def _run_one(self, name: str, began: Micros) -> Micros | None:
        """In how many microseconds the chore wants its next turn; None when it was taken by somebody else."""
        store = self._store
        tenant, _, short = name.rpartition("/")
        chore = CHORES.get(short)
        if chore is None:  # of a newer version, which shares this database
            return None
        now = store._clock()
        news_at = await store._run(recipes.lease(name, self._owner, now))
        if news_at is None:
            return None
        outcome = "ok"
        wait = chore.every
        try:
            wait = await chore.work(store._working_for(tenant), Turn(now, news_at))
        except Exception as error:  # broad: logged and noted; the chores of other tenants go on
            outcome = f"failed: {error.code if isinstance(error, PerdureError) else type(error).__name__}"
            _log.warning("chore %s failed: %s", name, error)
        now = store._clock()
        due_at = now + wait if wait else began  # more to do: after all others that were due
        await store._run(recipes.finish(name, self._owner, news_at, now, due_at, outcome))
        return wait

    async def states(self) -> list[ChoreState]:
        """Chores: when each last ran and how it went, when it is due, whether it is overdue by an hour.

        A tenant sees its own; the store itself those of every tenant, at most 1,000, due longest first.
        """
        store = self._store
        return await store._run(recipes.states(self._named, store._clock(), _STATES))

    async def overdue(self) -> int:
        """How many are overdue by an hour."""
        store = self._store
        return await store._run(recipes.overdue(self._named, store._clock()))
