"""Concurrent awaits share a commit on PostgreSQL too.

Recipes marked ``groups`` that wait at the same time run in lock-step on one connection, in one transaction: the first
questions of all of them go out in one round trip, then the second ones, and one COMMIT ends the lot. While one group is
under way the next one forms, so nobody waits on purpose. Groups of one process follow each other, so they cannot
deadlock among themselves.

When anything in a group fails after something was changed, the whole group is taken back and each recipe runs alone.
"""

import asyncio
from collections import deque
from typing import Any, TypeVar

import psycopg

from perdure.drivers.postgres.aio import AsyncPostgres
from perdure.drivers.postgres.statements import Connection
from perdure.grammar import Ask, Mode, Op, Scope, Steps
from perdure.values.config import PersistenceConfig
from perdure.values.errors import OutcomeUnknown, PerdureError

T = TypeVar("T")
_GROUP = 128
_Queued = tuple[Op[Any], Scope, "asyncio.Future[Any]"]


class _Apart(Exception):  # noqa: N818 - a signal, not an error
    """The group cannot be kept together."""


class GroupingPostgres(AsyncPostgres):
    """The asyncio driver with shared commits for small writes."""

    def __init__(self, config: PersistenceConfig) -> None:
        super().__init__(config)
        self._queue: deque[_Queued] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def run(self, op: Op[T], scope: Scope) -> T:
        """The answer of a recipe, run in one transaction (maybe with others', each failing alone)."""
        if not op.traits.groups:
            return await super().run(op, scope)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((op, scope, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work())
        return await future

    async def close(self) -> None:
        """Lets what was asked for finish, then closes every connection."""
        if self._worker is not None:
            await self._worker
        await super().close()

    async def _work(self) -> None:
        while self._queue:
            group = self._take()
            if len(group) == 1:
                await self._alone(group[0])
            elif group:
                await self._together(group)

    def _take(self) -> list[_Queued]:
        """The next group: what waits for the same tenant, in order, up to a limit."""
        group: list[_Queued] = []
        while self._queue and len(group) < _GROUP:
            if group and self._queue[0][1].tenant != group[0][1].tenant:
                break
            item = self._queue.popleft()
            if not item[2].cancelled():
                group.append(item)
        return group

    async def _alone(self, item: _Queued) -> None:
        op, scope, future = item
        try:
            answer = await super().run(op, scope)
        except BaseException as error:  # noqa: BLE001 - the waiting caller is told
            if not future.cancelled():
                future.set_exception(error)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            if not future.cancelled():
                future.set_result(answer)

    async def _together(self, group: list[_Queued]) -> None:
        try:
            outcomes = await self._try_together(group)
        except OutcomeUnknown as error:
            for _, _, future in group:
                if not future.cancelled():
                    future.set_exception(error)
            return
        except (_Apart, psycopg.Error, PerdureError):
            await asyncio.gather(*(self._alone(item) for item in group))
            return
        for (_, _, future), (answer, error) in zip(group, outcomes, strict=True):
            if future.cancelled():
                continue
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)

    async def _try_together(self, group: list[_Queued]) -> list[tuple[Any, BaseException | None]]:
        async with self._connection() as connection:
            try:
                outcomes = await self._lock_step(connection, group)
            except BaseException:
                await self.roll_back(connection)
                raise
            await self.commit(connection, changes=True)
            return outcomes

    async def _lock_step(
        self, connection: Connection, group: list[_Queued]
    ) -> list[tuple[Any, BaseException | None]]:
        """The outcomes of all recipes, round by round."""
        steps: list[Steps[Any]] = [op.start() for op, _, _ in group]
        outcomes: list[tuple[Any, BaseException | None]] = [(None, None)] * len(group)
        answers: dict[int, Any] = dict.fromkeys(range(len(group)))
        changed: set[int] = set()
        first = True
        while answers:
            asks: dict[int, Ask] = {}
            for index, answer in answers.items():
                try:
                    asks[index] = steps[index].send(answer)
                except StopIteration as stop:
                    outcomes[index] = (stop.value, None)
                except PerdureError as error:
                    if index in changed:  # its own changes must go, and only they
                        raise _Apart from error
                    outcomes[index] = (None, error)
            answers = await self._round(connection, group, asks, first=first) if asks else {}
            first = False
            changed |= {index for index, answer in answers.items() if self.statements.changed(asks[index], answer)}
        return outcomes

    async def _round(
        self, connection: Connection, group: list[_Queued], asks: dict[int, Ask], *, first: bool
    ) -> dict[int, Any]:
        """The answers to one question of each recipe, in one round trip."""
        statements = self.statements
        flat: list[tuple[int, Ask]] = []
        for index, ask in asks.items():
            if ask.mode is Mode.MANY:
                raise _Apart
            flat += [(index, one) for one in (ask.asks if ask.mode is Mode.TOGETHER else (ask,))]
        async with connection.pipeline() as pipeline:
            if first:
                await statements.enter(connection, group[0][1], "begin")
            cursors = [await statements.send(connection, ask, group[index][1]) for index, ask in flat]
            await pipeline.sync()
            parts: dict[int, list[Any]] = {index: [] for index in asks}
            for (index, ask), cursor in zip(flat, cursors, strict=True):
                parts[index].append(await statements.receive(cursor, ask))
        return {index: parts[index] if asks[index].mode is Mode.TOGETHER else parts[index][0] for index in asks}
