"""The store: one database with everything an agent remembers, and the verbs on it."""

import os
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from perdure.grammar import Scope
from perdure.rooms.chores.ops import ChoreState
from perdure.rooms.conversations import ops as conversations
from perdure.rooms.conversations.usage import cost_of_nanos
from perdure.schema import plan as schema
from perdure.services import engines
from perdure.services.chores import Chores
from perdure.services.conversations import ConversationVerbs
from perdure.services.feed import FeedVerbs
from perdure.services.handle import Block, config_for, inside_of
from perdure.services.messages import MessageVerbs
from perdure.services.search import SearchVerbs
from perdure.services.tracking import TrackingVerbs
from perdure.services.transfer import TransferVerbs
from perdure.values.clock import Clock, system_clock, to_datetime
from perdure.values.config import PersistenceConfig, seconds
from perdure.values.errors import Damaged, Forbidden, Invalid, Misused

_NAMED = 20
"""Overdue chores that a report names."""


class Store(ConversationVerbs, MessageVerbs, SearchVerbs, FeedVerbs, TransferVerbs, TrackingVerbs):
    """What ``perdure.open`` returns: conversations, search, accounts and the change feed in one database.

    Building one does no I/O; ``initialize`` (or the first verb, or ``async with``) opens it.
    """

    def __init__(
        self,
        where: PersistenceConfig | str | os.PathLike[str] | None = None,
        *,
        chores: bool = False,
        clock: Clock = system_clock,
    ) -> None:
        super().__init__(config_for(where), clock=clock)
        self._runs_chores = chores

    # -- life ------------------------------------------------------------------------------------------------------------

    async def initialize(
        self, create_schema: bool = True, run_migrations: bool = True, check_version: bool = True
    ) -> Self:
        """The store, connected and with the library's schema; calling it again does no harm.

        Raises ``SchemaBehind`` when the schema is missing (older) and ``create_schema`` (``run_migrations``) is false,
        ``SchemaAhead`` for a database newer than the library, which is left untouched. ``check_version=False`` looks at
        nothing.
        """
        self._initialize_on_use = False
        try:
            driver = await self._ready()
        finally:
            self._initialize_on_use = True
        if check_version:
            try:
                await driver.initialize(create=create_schema, migrate_steps=run_migrations)
            except BaseException:
                await self.close()
                raise
        if self._runs_chores and self._shared.chores is None:
            self._shared.chores = Chores(self)
            self._shared.chores.start()
        return self

    async def close(self) -> None:
        """Lets what was asked for finish and closes every connection; later calls raise ``Closed``."""
        shared = self._shared
        if not self._is_root:
            raise Misused("this handle does not own the store's connections; close the store itself")
        if self._is_inside():
            raise Misused("the store was closed inside its transaction block", hint="close it after the block")
        self._check_process()
        if shared.chores is not None:
            await shared.chores.stop()
            shared.chores = None
        shared.closed = True
        if shared.driver is not None:
            await shared.driver.close()
            shared.driver = None  # kept until it is closed: a close that was cancelled can be repeated

    async def __aenter__(self) -> Self:
        return await self.initialize()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- transactions ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def transaction(self, timeout: float | str | None = None) -> AsyncIterator[Self]:
        """A handle whose verbs commit together when the block ends, or leave nothing when it raises.

        Verbs of the store itself inside the block are ``Misused``. The time limit (5 s unless ``timeout`` or
        ``idle_in_transaction_session_timeout`` says otherwise) takes the transaction back and raises ``Busy``.
        """
        if self._session is not None:
            raise Misused("a transaction is open already; its handle takes every verb")
        if self._is_inside():
            raise Misused("a transaction of this store is open already in this task")
        limit = None if timeout is None else seconds(timeout, "timeout")
        driver = await self._ready()
        born: list[tuple[str, str]] = []
        async with driver.transaction(limit) as session:
            handle = self._with(self._scope)
            handle._session = session
            handle._born = born
            handle._news = set()
            block = Block(self._shared, inside_of.get())
            token = inside_of.set(block)
            try:
                yield handle
            finally:
                block.over = True
                inside_of.reset(token)
        for key in born:
            self._shared.ensured.pop(key, None)
        for tenant in sorted(handle._news):
            await self._with(Scope(tenant))._tell_chores(driver)

    def within(self, connection: Any) -> Self:
        """A handle that works inside the transaction of a psycopg connection of yours (PostgreSQL only).

        What it does is committed or taken back by you, together with your own statements.
        """
        if self.config.engine != "postgres":
            raise Misused("within() takes a PostgreSQL connection; on SQLite use store.transaction()")
        handle = self._with(self._scope)
        handle._session = engines.guest_driver(connection, self.config)
        handle._told = dict(self._told)  # of its own: what it tells is taken back with the owner's transaction
        return handle

    # -- administration ------------------------------------------------------------------------------------------------------

    async def execute(self, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
        """The rows of an administrator's SQL statement, in a transaction of its own.

        Parameters are written as the engine's driver takes them (``?``/``:name``, ``%s``/``%(name)s``). A handle of
        one tenant may not: ``Forbidden``.
        """
        if self._confined:
            raise Forbidden("a tenant's handle may not run SQL of its own", hint="use the store that opened it")
        if not isinstance(sql, str) or not sql.strip():
            raise Invalid("sql must not be blank", field="sql")
        driver = await self._administered()
        return await driver.execute(sql, params, self._scope)

    async def verify(self) -> list[str]:
        """What the schema lacks, in words; empty when all is there. It changes nothing."""
        driver = await self._administered()
        return await driver.verify()

    def schema_sql(self) -> str:
        """The schema as an SQL script, for people who run their own migration tool.

        It records the steps it stands for, so the store is then opened with ``create_schema=False``.
        """
        return schema.schema_script(self.config.engine, self.config.schema)

    async def upkeep(self) -> None:
        """Moves SQLite's write-ahead log into the file; nothing on PostgreSQL."""
        driver = await self._administered()
        await driver.upkeep()

    async def run_chores(self) -> list[str]:
        """Runs the housekeeping that is due now and that no other process has taken; returns the names.

        The store does that of every tenant (another's goes by ``tenant/name``), a tenant's handle its own only.
        """
        await self._administered()
        return await Chores(self).run_due()

    async def stats(self) -> dict[str, Any]:
        """Counts and sizes of this tenant: conversations, messages, tokens, cost, first and latest activity.

        ``overdue_chores`` counts those of every tenant, unless this is a tenant's handle.
        """
        count, messages, tokens, cost, first, latest = await self._run(conversations.counts())
        return {
            "tenant": self.tenant,
            "conversations": count,
            "messages": messages,
            "tokens": tokens,
            "cost": cost_of_nanos(cost),
            "first_created_at": None if first is None else to_datetime(first),
            "latest_message_at": None if latest is None else to_datetime(latest),
            "tracking_failures": self._shared.tracking_failures,
            "overdue_chores": await Chores(self).overdue(),
        }

    async def doctor(self, repair: bool = False) -> dict[str, Any]:
        """What is known about the store's health: engine, versions, schema, totals, chores.

        ``problems`` says in words what is wrong, ``advice`` which settings to look at.

        It reads every page and row. With ``repair`` what is derived (the text index) is built anew.
        """
        driver = await self._administered()
        report: dict[str, Any] = await driver.inspect()
        report["address"] = self.config.safe_url
        report["schema_version"] = len(schema.steps(self.config.engine))
        problems: list[str] = report["problems"]
        report.setdefault("advice", [])
        chores: list[ChoreState] = []
        try:
            problems += await driver.verify()
            broken = await self._run(conversations.broken_totals())
            problems += [f"the totals or seqs of conversation {name!r} do not add up" for name in broken]
            chores = await Chores(self).states()
        except Damaged as error:  # the rest cannot be examined
            problems.append(error.message)
        _judge(chores, problems, report["advice"])
        report["chores"] = {chore.name: chore.outcome or "never ran" for chore in sorted(chores, key=_name)}
        if repair:
            await self.rebuild_text()
            report["repaired"] = ["text index"]
        return report

    def __repr__(self) -> str:
        shared = self._shared
        state = "closed" if shared.closed else "open" if shared.driver is not None else "not open"
        return f"{type(self).__name__}({shared.config.safe_url!r}, tenant={self.tenant!r}, {state})"

    def __del__(self) -> None:
        shared = getattr(self, "_shared", None)
        if (
            shared is not None
            and getattr(shared, "driver", None) is not None
            and self._is_root
            and shared.process == os.getpid()
        ):
            warnings.warn(f"a store at {shared.config.safe_url} was not closed", ResourceWarning, stacklevel=2)


def _name(chore: ChoreState) -> str:
    return chore.name


def _judge(chores: list[ChoreState], problems: list[str], advice: list[str]) -> None:
    """Says which chores are overdue: a problem where somebody does them, advice where nobody ever did."""
    overdue = [chore for chore in chores if chore.overdue]
    if not overdue:
        return
    if all(chore.ran_at is None for chore in chores):
        advice.append("nobody does the chores; open the store with chores=True somewhere, or run `perdure chores`")
        return
    problems += [f"chore {chore.name} is overdue since {chore.due_at:%Y-%m-%d %H:%M}" for chore in overdue[:_NAMED]]
    if len(overdue) > _NAMED:
        problems.append(f"{len(overdue) - _NAMED} more chores are overdue")


class PostgresStore(Store):
    """A store on PostgreSQL."""

    def __init__(
        self, config: PersistenceConfig | str | None = None, *, chores: bool = False, clock: Clock = system_clock
    ) -> None:
        super().__init__(config, chores=chores, clock=clock)
        if self.config.engine != "postgres":
            raise Invalid("PostgresStore takes a postgresql:// address", field="connection_string")


class SQLiteStore(Store):
    """A store in an SQLite file (or ``":memory:"``)."""

    def __init__(
        self,
        config_or_path: PersistenceConfig | str | os.PathLike[str] | None = None,
        *,
        chores: bool = False,
        clock: Clock = system_clock,
    ) -> None:
        super().__init__(config_or_path, chores=chores, clock=clock)
        if self.config.engine != "sqlite":
            raise Invalid("SQLiteStore takes a path or an sqlite:// address", field="connection_string")
