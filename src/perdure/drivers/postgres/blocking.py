# Generated from perdure/drivers/postgres/aio.py by tools/generate_sync.py; change that file and run `make sync`.
"""The PostgreSQL driver for threads: each recipe is one transaction on a pooled connection.

``:tenant`` is bound in every statement and set for the transaction too (``perdure.tenant``), which forced row-level
security compares with every row. Both settings are local to the transaction, so a pooled connection carries no tenant
to its next user, and poolers in transaction mode do no harm.

Deadlocks and serialization failures are retried here, in one place. A connection that breaks before COMMIT was sent has
changed nothing and the recipe is run again on another one; one that breaks while COMMIT is under way is
``OutcomeUnknown``: nobody guesses.
"""

import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, TypeVar

import psycopg
import psycopg_pool
from psycopg.pq import PipelineStatus
from psycopg_pool import ConnectionPool

from perdure.drivers.postgres import versions_blocking as versions
from perdure.drivers.postgres.errors import RETRY, is_broken, translate
from perdure.drivers.postgres.listening_blocking import Announcer, Listener
from perdure.drivers.postgres.statements_blocking import (
    Connection,
    Statements,
    errand_on,
    hold,
    prepare_connection,
    settings,
    trusted,
)
from perdure.grammar import Op, Scope, StartOver
from perdure.kit import blocking as kit
from perdure.schema.plan import missing_columns, missing_steps, objects, schema_sql, steps
from perdure.values.clock import system_clock
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Busy, Misused, OutcomeUnknown, SchemaBehind, Unavailable

T = TypeVar("T")

_WRITE = "begin"
_READ = "begin isolation level repeatable read read only"
_TRIES = 8
_CONNECT_SECONDS = 10
_TRANSACTION_SECONDS = 5.0
_RAISED = (psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed)
_log = logging.getLogger("perdure.postgres")


class BlockingPostgres:
    """Runs recipes on a PostgreSQL database."""

    dialect: Literal["postgres"] = "postgres"

    def __init__(self, config: PersistenceConfig) -> None:
        self.config = config
        self.statements = Statements(config)
        self.where = config.safe_url
        self._pool: ConnectionPool[Any] | None = None
        self._bell = kit.Bell()
        self._announcer = Announcer(self._connection_soon, self._bell.ring, config.schema)
        self._listener = Listener(config, self._bell.ring)

    # -- life ----------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connects, and warns about servers with known holes and about roles that row-level security does not bind."""
        pool: ConnectionPool[Any] = ConnectionPool(
            self.config.connection_string,
            kwargs={"autocommit": True},
            min_size=1,
            max_size=self.config.pool_size + self.config.max_overflow,
            timeout=self.config.pool_timeout,
            configure=self._configure,
            check=None,
            open=False,
            name="perdure",
        )
        try:
            # One connection first: the pool would try again until pool_timeout and not say what is wrong.
            (psycopg.Connection.connect(self.config.connection_string, connect_timeout=_CONNECT_SECONDS)).close()
            pool.open(wait=True, timeout=self.config.pool_timeout)
            self._pool = pool
            with pool.connection() as connection:
                for problem in versions.problems(connection):
                    warnings.warn(problem, RuntimeWarning, stacklevel=2)
        except _RAISED as error:
            pool.close()
            raise translate(error, self.where) from error

    def close(self) -> None:
        """Closes every connection."""
        self._bell.close()
        if self._pool is not None:
            self._announcer.stop()
            self._listener.stop(self._announcer.announce)
            self._pool.close()

    def _configure(self, connection: psycopg.Connection[Any]) -> None:
        prepare_connection(connection, self.config)
        if self.config.prepare_threshold is not None:
            for name, value in settings(self.config).items():
                connection.execute("select set_config(%s, %s, false)", (name, value))

    def _opened(self) -> ConnectionPool[Any]:
        if self._pool is None:
            raise Misused("this store was not opened", hint="with perdure.open(url) as store: …")
        return self._pool

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        pool = self._opened()
        taken: list[Connection] = []

        def take() -> None:
            taken.append(pool.getconn())

        try:
            kit.Errand().run(take)
            yield taken[0]
        finally:
            if taken:
                errand_on(taken[0]).run(lambda: self._give_back(taken[0]))

    def _give_back(self, connection: Connection) -> None:
        """Gives a connection back to the pool, which would lose it if it were cancelled meanwhile."""
        if connection.pgconn.pipeline_status != PipelineStatus.OFF:  # left in the middle: nobody knows its state
            connection.close()
        self._opened().putconn(connection)

    def _connection_soon(self) -> AbstractContextManager[Connection]:
        assert self._pool is not None
        return self._pool.connection(timeout=_CONNECT_SECONDS / 10)

    @contextmanager
    def watching(self) -> Iterator[kit.Bell]:
        """A bell that rings after commits, this store's and others', as long as the block lasts."""
        self._listener.start()
        yield self._bell

    # -- schema ----------------------------------------------------------------------------------------------------------

    def initialize(self, *, create: bool, migrate_steps: bool) -> int:
        """The schema's version after the needed steps were applied, in one transaction; openers wait for each other."""
        schema = self.config.schema
        try:
            with self._connection() as connection, connection.transaction():
                applied = self._applied(connection)
                if applied is not None and not missing_steps("postgres", applied):
                    return len(applied)
                connection.execute("select pg_advisory_xact_lock(hashtext(%s))", (f"perdure {schema}",))
                applied = self._applied(connection)
                needed = missing_steps("postgres", applied or [])
                if needed and not (create if applied is None else migrate_steps):
                    raise SchemaBehind(
                        f"{self.where} lacks {len(needed)} steps of the schema", hint="run: perdure init"
                    )
                if applied is None and not self._schema_exists(connection):
                    connection.execute(trusted(f'create schema "{schema}"'))
                connection.execute("select set_config('search_path', %s, true)", (schema,))
                for step in needed:
                    connection.execute(trusted(step.text))
                    connection.execute(
                        "insert into perdure_steps (number, name, hash, applied_at) values (%s, %s, %s, %s)",
                        (step.number, step.name, step.hash, system_clock()),
                    )
                return len(steps("postgres"))
        except _RAISED as error:
            raise translate(error, self.where) from error

    def _schema_exists(self, connection: Connection) -> bool:
        cursor = connection.execute("select 1 from pg_namespace where nspname = %s", (self.config.schema,))
        return cursor.fetchone() is not None

    def _applied(self, connection: Connection) -> list[tuple[int, str]] | None:
        # Not to_regclass: it may answer from a cache of the session that another process's CREATE has not reached yet.
        known = connection.execute(
            "select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where n.nspname = %s and c.relname = 'perdure_steps' and c.relkind = 'r'",
            (self.config.schema,),
        )
        if known.fetchone() is None:
            return None
        cursor = connection.execute(trusted(f'select number, hash from "{self.config.schema}".perdure_steps'))
        return [(number, digest) for number, digest in cursor.fetchall()]

    def verify(self) -> list[str]:
        """What is missing from the schema, in words; it changes nothing."""
        with self._connection() as connection:
            applied = self._applied(connection) or []
            cursor = connection.execute(
                "select c.relkind, c.relname, c.relrowsecurity and c.relforcerowsecurity from pg_class c "
                "join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s",
                (self.config.schema,),
            )
            found = {(kind, name): secured for kind, name, secured in cursor.fetchall()}
            cursor = connection.execute(
                "select table_name, column_name from information_schema.columns where table_schema = %s",
                (self.config.schema,),
            )
            held = {(table, name) for table, name in cursor.fetchall()}
            cursor = connection.execute(
                "select tablename from pg_policies where schemaname = %s and policyname = 'tenant_rows'",
                (self.config.schema,),
            )
            guarded = {name for (name,) in cursor.fetchall()}
        text = schema_sql("postgres")
        letters = {"table": "r", "index": "i"}
        problems = [f"{kind} {name} is missing" for kind, name in objects(text) if (letters[kind], name) not in found]
        problems += [
            f"table {name} is not under forced row-level security"
            for kind, name in objects(text)
            if kind == "table" and f"alter table {name} force row" in text and found.get(("r", name)) is False
        ]
        problems += missing_columns(text, held)
        problems += [
            f"table {name} has no policy for tenants"
            for name in re.findall(r"^create policy tenant_rows on (\w+)", text, re.MULTILINE)
            if ("r", name) in found and name not in guarded
        ]
        problems += [f"step {step.number} ({step.name}) was not applied" for step in missing_steps("postgres", applied)]
        return problems

    def inspect(self) -> dict[str, Any]:
        """Facts about the server and what is wrong with it, in words."""
        with self._connection() as connection:
            return versions.report(connection)

    def upkeep(self) -> None:
        """Nothing: the server does its own."""

    # -- recipes -----------------------------------------------------------------------------------------------------------

    def run(self, op: Op[T], scope: Scope) -> T:
        """The answer of a recipe, run in one transaction, again when it lost a race."""
        for attempt in range(_TRIES):
            try:
                return self._once(op, scope)
            except (*RETRY, StartOver) as error:
                if attempt == _TRIES - 1:
                    raise error if isinstance(error, StartOver) else translate(error, self.where) from error
            except _RAISED as error:
                if not (isinstance(error, psycopg.Error) and is_broken(error)) or attempt >= 2:
                    raise translate(error, self.where) from error
                self._drop_broken()
            kit.nap(0.002 * 2**attempt)
        raise AssertionError("unreachable")

    def _drop_broken(self) -> None:
        """After a restart of the server every idle connection is broken: they go at once, not one by one."""
        if self._pool is not None:
            kit.Errand().run(self._pool.check)  # the pool swallows cancellations there

    def _once(self, op: Op[T], scope: Scope) -> T:
        opening = _READ if op.traits.reads else _WRITE
        return self._whole(
            lambda errand, connection: self.statements.drive(errand, connection, op, scope, opening),
            changes=not op.traits.reads,
        )

    def _whole(self, work: Callable[[kit.Errand, Connection], T], *, changes: bool) -> T:
        """The result of work in a transaction, which is over then, whatever happens."""
        errand = kit.Errand()

        def whole() -> T:
            connection = self._opened().getconn()
            try:
                hold(errand, connection)
                try:
                    answer = work(errand, connection)
                    errand.heed()
                except BaseException:
                    errand.settle()
                    self.roll_back(connection)
                    raise
                self.commit(connection, changes=changes)
                return answer
            finally:
                errand.let_go()
                self._give_back(connection)

        return errand.run(whole)

    def commit(self, connection: Connection, *, changes: bool) -> None:
        """Commits; a connection that breaks meanwhile leaves the outcome unknown."""
        try:
            ended = connection.execute("commit")
        except psycopg.OperationalError as error:
            if changes and is_broken(error):
                raise OutcomeUnknown(
                    f"the connection to {self.where} broke while committing", retry_after=0.5,
                    hint="ask again with the same idempotency_key",
                ) from error  # fmt: skip
            raise
        if ended.statusmessage != "COMMIT":  # the server ends a failed transaction with ROLLBACK, and without an error
            raise Unavailable(f"{self.where} took the transaction back instead of committing it")
        if changes:
            self._announcer.tell()

    def roll_back(self, connection: Connection) -> None:
        """Takes the transaction back; a connection on which that fails is closed, and the server does it."""
        if connection.closed or connection.broken:
            return
        try:
            connection.rollback()  # it also forgets what was to be prepared in a pipeline that failed before
        except psycopg.Error:
            _log.warning("rollback failed on %s; the connection is closed", self.where)
            connection.close()

    def execute(self, sql: str, params: Any, scope: Scope) -> list[tuple[Any, ...]]:
        """The rows of an administrator's statement, under the scope's tenant."""

        def work(errand: kit.Errand, connection: Connection) -> list[tuple[Any, ...]]:
            errand.expose()
            self.statements.enter(connection, scope, _WRITE)
            cursor = connection.execute(trusted(sql), params)
            return cursor.fetchall() if cursor.description else []

        try:
            return self._whole(work, changes=True)
        except _RAISED as error:
            raise translate(error, self.where) from error

    @contextmanager
    def transaction(self, seconds: float | None = None) -> "Iterator[BlockingPostgresSession]":
        """A session whose recipes commit together when the block ends without an error."""
        limit = seconds or self.config.idle_in_transaction_session_timeout or _TRANSACTION_SECONDS
        try:
            with self._connection() as connection:
                session = BlockingPostgresSession(self, connection, limit)
                try:
                    session.begin()
                    yield session
                    session.check()
                except BaseException:
                    session.finish(keep=False)
                    raise
                session.finish(keep=True)
        except _RAISED as error:
            if isinstance(error, psycopg.errors.IdleInTransactionSessionTimeout):
                raise Busy(f"the transaction was idle for longer than its limit of {limit:g} s") from error
            raise translate(error, self.where) from error


class BlockingPostgresSession:
    """The inside of a transaction: each recipe runs under a savepoint, so a failing one takes back its own changes."""

    dialect: Literal["postgres"] = "postgres"

    def __init__(self, driver: BlockingPostgres, connection: Connection, seconds: float) -> None:
        self.over = False
        self._driver = driver
        self._connection = connection
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._lock = kit.Lock()

    def check(self) -> None:
        """Raises when the transaction is over, or has been open for longer than its limit."""
        if self.over:
            raise Misused("this transaction is over; open another with store.transaction()")
        if time.monotonic() > self._deadline:
            raise Busy(f"the transaction was open for longer than its limit of {self._seconds:g} s and was taken back")

    def begin(self) -> None:
        """Opens the transaction; the server ends it, too, when it is left alone for too long."""

        def work() -> None:
            self._connection.execute(_WRITE)
            self._connection.execute(
                "select set_config('idle_in_transaction_session_timeout', %s, true)",
                (f"{round(self._seconds * 1000)}ms",),
            )

        errand_on(self._connection).run(work)

    def finish(self, *, keep: bool) -> None:
        """Ends the transaction, after the verb that still runs; no other comes in any more."""
        self.over = True
        errand = errand_on(self._connection)

        def work() -> None:
            errand.expose()  # so that a verb that runs is ended, too, when the block's task is cancelled meanwhile
            with self._lock:
                if keep and not errand.stopping:
                    self._driver.commit(self._connection, changes=True)
                else:
                    errand.settle()
                    self._driver.roll_back(self._connection)

        errand.run(work)

    def run(self, op: Op[T], scope: Scope) -> T:
        """The answer of a recipe inside the transaction."""
        with self._lock:
            self.check()
            errand = errand_on(self._connection)
            try:
                return errand.run(lambda: self._under_savepoint(errand, op, scope))
            except psycopg.Error as error:
                if self._connection.closed or self._connection.broken:
                    raise Unavailable(
                        f"the transaction is gone, nothing of it was kept: {translate(error, self._driver.where)}"
                    ) from error
                raise translate(error, self._driver.where) from error

    def _under_savepoint(self, errand: kit.Errand, op: Op[T], scope: Scope) -> T:
        with self._connection.transaction():  # a savepoint, inside a transaction
            try:
                answer = self._driver.statements.drive(errand, self._connection, op, scope, None, enter=True)
                errand.heed()
                return answer
            finally:
                errand.settle()
