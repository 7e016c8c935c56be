"""Housekeeping: what has to be done now and then, by one runner at a time.

A chore that fails is logged with its error, noted in its row, and tried again at its next turn.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from perdure.kit import aio as kit
from perdure.rooms.chores import ops as recipes
from perdure.rooms.chores.ops import ChoreState
from perdure.rooms.keys import ops as keys
from perdure.values.errors import PerdureError
from perdure.values.ids import new_id

_LEASE_SECONDS = 300
_ROUND_SECONDS = 5.0
GRACE_SECONDS = 3600
_log = logging.getLogger("perdure.chores")


class Chore(msgspec.Struct, frozen=True):
    """A piece of housekeeping: its name, how often it is due, and what it does."""

    name: str
    every_seconds: int
    work: Callable[[], Awaitable[Any]]


class Chores:
    """Runs the chores of a store, in the background or once over."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._owner = new_id()
        self._background = kit.Background()
        self.chores = [
            Chore("text_index", 10, store.absorb_text),
            Chore("idempotency", 600, self._expire_keys),
            Chore("upkeep", 60, store.upkeep),
        ]

    async def _expire_keys(self) -> int:
        return await self._store._run(keys.expire(self._store._clock()))

    def start(self) -> None:
        """Begins to look for due chores every few seconds."""
        self._background.start(self._loop)

    async def stop(self) -> None:
        """Lets the chore that runs finish and looks no more."""
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
        """The names of the chores that were due, free, and were run now."""
        return [chore.name for chore in self.chores if await self._run_one(chore)]

    async def _run_one(self, chore: Chore) -> bool:
        store = self._store
        name = f"{store.tenant}/{chore.name}"
        if not await store._run(recipes.lease(name, self._owner, store._clock(), _LEASE_SECONDS)):
            return False
        outcome = "ok"
        try:
            await chore.work()
        except PerdureError as error:
            outcome = f"failed: {error.code}"
            _log.warning("chore %s failed: %s", name, error)
        now = store._clock()
        due_at = now + chore.every_seconds * 1_000_000
        await store._run(recipes.finish(name, self._owner, now, due_at, outcome))
        return True

    async def states(self) -> list[ChoreState]:
        """Every chore: when it last ran and how it went, when it is due, whether it is overdue by an hour.

        A tenant sees its own; the store itself, which administers all, sees those of every tenant.
        """
        store = self._store
        states = await store._run(recipes.states(store._clock(), GRACE_SECONDS))
        own = {f"{store.tenant}/{chore.name}" for chore in self.chores}
        return [state for state in states if not store._confined or state.name in own]
