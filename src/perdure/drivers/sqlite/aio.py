"""The SQLite driver for asyncio: concurrent awaits share a commit.

A write is queued and gives the loop a turn; the first that gets its own back works off the queue, so that everything
that was asked for in one turn is one transaction. With ``durability="normal"`` a commit waits for no disk and costs less than handing the work
to a thread would, so a short batch runs right on the loop's thread (docs/decisions/0003); when another process
holds the file, when the batch is long or slow, or when each commit waits for the disk, the batch goes to the writer's thread and the
next one forms behind it. Short reads run on the loop's thread too, long ones on a thread.
"""

import asyncio
import time
import types
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

from perdure.drivers.sqlite import inspect, migrate
from perdure.drivers.sqlite.blocking import BlockingSqliteSession
from perdure.drivers.sqlite.engine import Job, SqliteEngine
from perdure.grammar import Op, Outcome, Scope
from perdure.kit import aio as kit
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Busy, Closed, Misused

T = TypeVar("T")

_INLINE_JOBS = 256
_INLINE_MS_TOO_SLOW = 25.0
_BATCH_JOBS = 1_000


class AsyncSqlite:
    """Runs recipes on an SQLite database for one event loop."""

    dialect: Literal["sqlite"] = "sqlite"

    def __init__(self, config: PersistenceConfig) -> None:
        self._bell = kit.Bell()
        self.engine = SqliteEngine(config, self._bell.ring)
        self._queue: deque[_Job] = deque()
        self._away: object | None = None  # the batch on the writer's thread, or the transaction that holds the writer
        self._inline = config.durability == "normal"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="perdure-writer")
        self._readers = ThreadPoolExecutor(config.pool_size, thread_name_prefix="perdure-reader")

    async def open(self) -> None:
        """Opens the database and binds the driver to the running loop."""
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(self._writer, self.engine.open)

    async def close(self) -> None:
        """Lets what was asked for finish, then closes every connection."""
        self._bell.close()
        last = _Job(None, Scope())  # takes the writer when all that was asked for before is done
        self._queue.append(last)
        await self._wait_for_turn(last)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.engine.close)
        self._writer.shutdown(wait=True)
        self._readers.shutdown(wait=True)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[kit.Bell]:
        """A bell that rings after commits, this store's and others', as long as the block lasts."""
        with self.engine.watched():
            yield self._bell

    async def initialize(self, *, create: bool, migrate_steps: bool) -> int:
        """The schema's version, after what was missing was applied."""
        return await self._on_writer(lambda: migrate.initialize(self.engine, create=create, migrate=migrate_steps))

    async def verify(self) -> list[str]:
        """What is missing from the schema."""
        return await self._on_writer(lambda: migrate.verify(self.engine))

    async def inspect(self) -> dict[str, Any]:
        """Facts about the engine, the file and its integrity."""
        return await self._on_writer(lambda: inspect.report(self.engine))

    async def execute(self, sql: str, params: Any, scope: Scope) -> list[tuple[Any, ...]]:
        """The rows of an administrator's statement."""
        del scope

        def locked() -> list[tuple[Any, ...]]:
            with self.engine.writer_lock:
                return self.engine.execute(sql, params)

        return await self._on_writer(locked)

    async def upkeep(self) -> None:
        """Moves the write-ahead log into the file."""
        await self._on_writer(self.engine.checkpoint_log)

    async def _on_writer(self, work: Callable[[], T]) -> T:
        """The result of work with the writer's connection, done on its thread when no transaction holds it."""
        self._loop_of()
        turn = _Job(None, Scope())
        self._queue.append(turn)
        await self._wait_for_turn(turn)
        done = self._loop_of().run_in_executor(self._writer, work)
        done.add_done_callback(lambda _: self._release(turn))  # not before, also when nobody waits for it any more
        return await asyncio.shield(done)

    def _loop_of(self) -> asyncio.AbstractEventLoop:
        """The loop that the driver is bound to, which must be the one that runs."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise Misused("a store belongs to the event loop that opened it", hint="open one store for each loop")
        return loop

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    # -- recipes ---------------------------------------------------------------------------------------------------

    async def run(self, op: Op[T], scope: Scope) -> T:
        """The answer of a recipe, run in one transaction (maybe with others', each failing alone)."""
        loop = self._loop_of()
        if op.traits.reads and not self.engine.place.memory:
            if op.traits.long or not self.engine.has_free_reader():
                return await loop.run_in_executor(self._readers, self.engine.read, op, scope)
            return self.engine.read(op, scope)
        job = _Job(op, scope)
        self._queue.append(job)
        try:
            await _next_turn()  # everything that is asked for in this turn joins the batch
            if not job.taken:
                self._drain()
            if not job.done:
                job.future = loop.create_future()
                await job.future
        except asyncio.CancelledError:
            job.cancelled = True
            raise
        if job.error is not None:
            raise job.error
        return job.answer

    def _take(self) -> "list[_Job]":
        """The next batch: everything that waits, up to a limit, and not past a transaction."""
        batch: list[_Job] = []
        while self._queue and len(batch) < _BATCH_JOBS:
            if self._queue[0].op is None and batch:
                break
            job = self._queue.popleft()
            if job.cancelled:
                continue
            job.taken = True
            batch.append(job)
            if job.op is None:
                break
        return batch

    def _drain(self) -> None:
        """Works off what waits, as far as that is possible on the loop's own thread."""
        while self._away is None:
            batch = self._take()
            if not batch:
                return
            if batch[0].op is None:  # a transaction takes the writer
                self._away = batch[0]
                batch[0].finish(None, None)
            elif not self._inline or len(batch) > _INLINE_JOBS or not self._drain_here(batch):
                self._send_away(batch)

    def _drain_here(self, batch: "list[_Job]") -> bool:
        """Whether the batch could run on the loop's own thread: it could not when someone else holds the file."""
        if any(job.op is not None and job.op.traits.long for job in batch):
            return False
        if not self.engine.writer_lock.acquire(blocking=False):
            return False
        started = time.perf_counter()
        try:
            self._answer(batch, self.engine.write([job.pair for job in batch], wait=False))
        except Busy:
            return False
        except Exception as error:  # broad: every caller that waits is told; nothing is swallowed
            self._fail(batch, error)
        finally:
            self.engine.writer_lock.release()
        if (time.perf_counter() - started) * 1e3 > _INLINE_MS_TOO_SLOW:
            self._inline_pause()
        return True

    def _inline_pause(self) -> None:
        """A slow disk: the next batches go to the thread, for a second, so that the loop stays free."""
        assert self._loop is not None
        self._inline = False
        self._loop.call_later(1.0, self._inline_resume)

    def _inline_resume(self) -> None:
        self._inline = self.engine.config.durability == "normal"

    def _send_away(self, batch: "list[_Job]") -> None:
        assert self._loop is not None
        self._away = batch

        def work() -> list[Outcome]:
            with self.engine.writer_lock:
                return self.engine.write([job.pair for job in batch])

        sent = self._loop.run_in_executor(self._writer, work)
        sent.add_done_callback(lambda done: self._came_back(batch, done))

    def _came_back(self, batch: "list[_Job]", done: "asyncio.Future[list[Outcome]]") -> None:
        error = None if done.cancelled() else done.exception()
        if done.cancelled():
            self._fail(batch, Closed("the store was closed while a change was waiting"))
        elif error is not None:
            self._fail(batch, error)
        else:
            self._answer(batch, done.result())
        self._release(batch)

    def _release(self, holder: object) -> None:
        if self._away is holder:  # else it lost the writer before, when its time ran out
            self._away = None
            self._drain()

    @staticmethod
    def _answer(batch: "list[_Job]", outcomes: list[Outcome]) -> None:
        for job, (answer, error) in zip(batch, outcomes, strict=True):
            job.finish(answer, error)

    @staticmethod
    def _fail(batch: "list[_Job]", error: BaseException) -> None:
        for job in batch:
            job.finish(None, error)

    # -- transactions ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def transaction(self, seconds: float | None = None) -> "AsyncIterator[AsyncSqliteSession]":
        """A session whose recipes commit together when the block ends without an error."""
        loop = self._loop_of()
        turn = _Job(None, Scope())
        self._queue.append(turn)
        await self._wait_for_turn(turn)
        inside = BlockingSqliteSession(self.engine, seconds)
        try:
            await self._on_thread(inside.begin)
        except BaseException:
            self._expire(inside, turn)  # a cancelled caller's transaction may begin yet; it ends at once
            raise
        alarm = loop.call_later(inside.seconds, self._expire, inside, turn)
        keep = False
        try:
            yield AsyncSqliteSession(inside, self._writer)
            keep = True
        finally:
            alarm.cancel()
            try:
                await asyncio.shield(self._on_thread(lambda: inside.finish(keep=keep)))
            finally:
                self._release(turn)

    def _expire(self, inside: BlockingSqliteSession, turn: object) -> None:
        """Time ran out: the block may hang for ever, so the writer is freed without it."""
        assert self._loop is not None
        self._loop.run_in_executor(self._writer, inside.expire).add_done_callback(lambda _: self._release(turn))

    async def _wait_for_turn(self, turn: "_Job") -> None:
        assert self._loop is not None
        try:
            await _next_turn()
            self._drain()
            if not turn.done:
                turn.future = self._loop.create_future()
                await turn.future
        except asyncio.CancelledError:
            turn.cancelled = True
            self._release(turn)  # the turn may have come while nobody was left to use it
            raise


class _Job:
    """A recipe that waits for the writer; a transaction that does has no recipe."""

    __slots__ = ("answer", "cancelled", "done", "error", "future", "op", "scope", "taken")

    def __init__(self, op: Op[Any] | None, scope: Scope) -> None:
        self.op = op
        self.scope = scope
        self.taken = self.done = self.cancelled = False
        self.answer: Any = None
        self.error: BaseException | None = None
        self.future: asyncio.Future[None] | None = None

    @property
    def pair(self) -> Job:
        """The recipe and its scope."""
        assert self.op is not None
        return self.op, self.scope

    def finish(self, answer: Any, error: BaseException | None) -> None:
        """Tells whoever waits."""
        self.answer, self.error, self.done = answer, error, True
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


@types.coroutine
def _next_turn() -> Generator[None, None, None]:
    """Gives the loop's other tasks their turn."""
    yield


class AsyncSqliteSession:
    """The inside of a transaction."""

    dialect: Literal["sqlite"] = "sqlite"

    def __init__(self, inside: BlockingSqliteSession, writer: ThreadPoolExecutor) -> None:
        self._inside = inside
        self._writer = writer

    async def run(self, op: Op[T], scope: Scope) -> T:
        """The answer of a recipe inside the transaction."""
        if op.traits.long:
            return await asyncio.get_running_loop().run_in_executor(self._writer, self._inside.run, op, scope)
        return self._inside.run(op, scope)
