"""Concurrent awaits share a commit on PostgreSQL too.

Recipes that can be merged and wait at the same time become one, in one transaction on one connection: a few statements
over many rows, and one COMMIT. While one group is under way the next one forms, so nobody waits on purpose. Groups of one
process follow each other, so they cannot deadlock among themselves.

When a group fails, each of its recipes runs alone and gets its own answer or error.
"""

import asyncio
from collections import deque
from typing import Any, TypeVar

from perdure.drivers.postgres.aio import AsyncPostgres
from perdure.grammar import Op, Outcome, Scope, outcomes_of
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Closed, Misused, OutcomeUnknown

T = TypeVar("T")
_GROUP = 256
_Queued = tuple[Op[Any], Scope, "asyncio.Future[Any]"]


class GroupingPostgres(AsyncPostgres):
    """The asyncio driver with shared commits for small writes."""

    def __init__(self, config: PersistenceConfig) -> None:
        super().__init__(config)
        self._queue: deque[_Queued] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Connects, and binds the driver to the running loop."""
        self._loop = asyncio.get_running_loop()
        await super().open()

    async def run(self, op: Op[T], scope: Scope) -> T:
        """The answer of a recipe, run in one transaction (maybe with others', each failing alone)."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            raise Misused("a store belongs to the event loop that opened it", hint="open one store for each loop")
        if op.traits.merge is None:
            return await super().run(op, scope)
        future: asyncio.Future[T] = loop.create_future()
        self._queue.append((op, scope, future))
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return await future

    async def close(self) -> None:
        """Lets what was asked for finish, then closes every connection."""
        try:
            if self._worker is not None:
                await self._worker
        finally:
            await super().close()

    async def _work(self) -> None:
        try:
            while self._queue:
                group = self._take()
                if len(group) == 1:
                    await self._alone(group[0])
                elif group:
                    await self._together(group)
        except asyncio.CancelledError:  # the loop is going down: nobody may wait for ever
            while self._queue:
                _tell(self._queue.popleft(), None, Closed("the event loop ended while a change was waiting"))
            raise

    def _take(self) -> list[_Queued]:
        """The next group: what waits under the same scope and can be merged, in order, up to a limit."""
        group: list[_Queued] = []
        while self._queue and len(group) < _GROUP:
            op, scope, future = self._queue[0]
            if group and (scope != group[0][1] or op.traits.merge is not group[0][0].traits.merge):
                break
            self._queue.popleft()
            if not future.cancelled():
                group.append((op, scope, future))
        return group

    async def _alone(self, item: _Queued) -> None:
        try:
            answer = await super().run(item[0], item[1])
        except BaseException as error:
            _tell(item, None, error if isinstance(error, Exception) else Closed("the event loop ended"))
            if not isinstance(error, Exception):  # else the worker goes on with the next
                raise
        else:
            _tell(item, answer, None)

    async def _together(self, group: list[_Queued]) -> None:
        merge = group[0][0].traits.merge
        assert merge is not None
        outcomes: list[Outcome]
        try:
            outcomes = outcomes_of(await super().run(merge([op for op, _, _ in group]), group[0][1]))
        except OutcomeUnknown as error:
            outcomes = [(None, error)] * len(group)
        except Exception:  # broad: each runs alone and is told its own outcome
            await asyncio.gather(*(self._alone(item) for item in group))
            return
        except BaseException:
            for item in group:
                _tell(item, None, Closed("the event loop ended while a change was under way"))
            raise
        for item, (answer, error) in zip(group, outcomes, strict=True):
            _tell(item, answer, error)


def _tell(item: _Queued, answer: Any, error: BaseException | None) -> None:
    future = item[2]
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
