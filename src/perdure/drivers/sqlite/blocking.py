"""The SQLite driver for threads: each call runs on the caller's own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from perdure.drivers.sqlite import inspect, migrate
from perdure.drivers.sqlite.engine import SqliteEngine
from perdure.grammar import Op, Scope
from perdure.kit import blocking as kit
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Busy, Misused

T = TypeVar("T")
_TRANSACTION_SECONDS = 5.0


class BlockingSqlite:
    """Runs recipes on an SQLite database, blocking."""

    dialect: Literal["sqlite"] = "sqlite"

    def __init__(self, config: PersistenceConfig) -> None:
        self._bell = kit.Bell()
        self.engine = SqliteEngine(config, self._bell.ring)

    def open(self) -> None:
        """Opens the database."""
        self.engine.open()

    def close(self) -> None:
        """Closes every connection."""
        self._bell.close()
        self.engine.close()

    @contextmanager
    def watching(self) -> "Iterator[kit.Bell]":
        """A bell that rings after commits, this store's and others', as long as the block lasts."""
        with self.engine.watched():
            yield self._bell

    def initialize(self, *, create: bool, migrate_steps: bool) -> int:
        """The schema's version, after what was missing was applied."""
        return migrate.initialize(self.engine, create=create, migrate=migrate_steps)

    def verify(self) -> list[str]:
        """What is missing from the schema."""
        return migrate.verify(self.engine)

    def inspect(self) -> dict[str, Any]:
        """Facts about the engine, the file and its integrity."""
        return inspect.report(self.engine)

    def run(self, op: Op[T], scope: Scope) -> T:
        """The answer of a recipe, run in one transaction."""
        if op.traits.reads:
            return self.engine.read(op, scope)
        with self.engine.writer_lock:
            return self.engine.write([(op, scope)])[0][0]

    def execute(self, sql: str, params: Any, scope: Scope) -> list[tuple[Any, ...]]:
        """The rows of an administrator's statement."""
        del scope
        with self.engine.writer_lock:
            return self.engine.execute(sql, params)

    def upkeep(self) -> None:
        """Moves the write-ahead log into the file."""
        self.engine.checkpoint_log()

    @contextmanager
    def transaction(self, seconds: float | None = None) -> "Iterator[BlockingSqliteSession]":
        """A session whose recipes commit together when the block ends without an error."""
        session = BlockingSqliteSession(self.engine, seconds)
        session.begin()
        alarm = threading.Timer(session.seconds, session.expire)
        alarm.daemon = True
        alarm.start()
        keep = False
        try:
            yield session
            keep = True
        finally:
            alarm.cancel()
            session.finish(keep=keep)


class BlockingSqliteSession:
    """The inside of a transaction. It holds the writer's lock from ``begin`` to its end, and ends at its time limit."""

    dialect: Literal["sqlite"] = "sqlite"

    def __init__(self, engine: SqliteEngine, seconds: float | None) -> None:
        self.seconds = seconds or engine.config.idle_in_transaction_session_timeout or _TRANSACTION_SECONDS
        self._engine = engine
        self._turn = threading.Lock()
        self._over = True  # until it has begun
        self._expired = False

    def begin(self) -> None:
        """Takes the writer's lock and opens the transaction."""
        self._engine.writer_lock.acquire()
        try:
            self._engine.begin()
        except BaseException:
            self._engine.writer_lock.release()
            raise
        self._over = False

    def run(self, op: Op[T], scope: Scope) -> T:
        """The answer of a recipe inside the transaction."""
        with self._turn:
            self._check()
            return self._engine.run_inside(op, scope)

    def finish(self, *, keep: bool) -> None:
        """Commits or takes back; raises ``Busy`` when there is nothing left to commit because time ran out."""
        with self._turn:
            if keep:
                self._check()
            if not self._over:
                self._end(keep=keep)

    def expire(self) -> None:
        """Takes the transaction back, so that others can write again."""
        with self._turn:
            if not self._over:
                self._expired = True
                self._end(keep=False)

    def _end(self, *, keep: bool) -> None:
        self._over = True
        try:
            self._engine.end(keep=keep)
        finally:
            self._engine.writer_lock.release()

    def _check(self) -> None:
        if self._expired:
            raise Busy(f"the transaction was open for longer than its limit of {self.seconds:g} s and was taken back")
        if self._over:
            raise Misused("this transaction is over; open another with store.transaction()")
