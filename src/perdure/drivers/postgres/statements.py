"""How a statement of the book is put to PostgreSQL, and how one connection drives a recipe. Blocking twin: generated.

Questions that do not depend on each other share a round trip (pipeline); many rows of a plain insert go as one statement over arrays.
"""

import logging
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, LiteralString, NamedTuple, TypeVar, cast

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.pq import TransactionStatus
from psycopg.types.string import TextLoader

from perdure.drivers.book import Statement, book
from perdure.drivers.postgres.filters import render
from perdure.grammar import Ask, Mode, Op, Params, Scope, Steps
from perdure.kit import aio as kit
from perdure.schema.plan import schema_sql
from perdure.values.config import PersistenceConfig

T = TypeVar("T")
Connection = AsyncConnection[Any]
Cursor = AsyncCursor[Any]

ARRAY_ROWS = 20
_ROWS_QUICKLY_WRITTEN = 1_000
_CANCEL_SECONDS = 5
_log = logging.getLogger("perdure.postgres")


@cache
def column_types() -> dict[str, dict[str, str]]:
    """The type of each column of each table, as the readable schema gives it."""
    types: dict[str, dict[str, str]] = {}
    for table, body in re.findall(
        r"^create table (\w+) \(.*?$\n(.*?)^\);", schema_sql("postgres"), re.MULTILINE | re.DOTALL
    ):
        types[table] = dict(re.findall(r"^  (\w+) (text|bigint|integer|json|bytea)\b", body, re.MULTILINE))
    return types


def prepare_connection(connection: Any, config: PersistenceConfig) -> None:
    """Settings of the client's side: JSON comes back as it was written, statements are prepared or not."""
    connection.adapters.register_loader("json", TextLoader)
    connection.adapters.register_loader("jsonb", TextLoader)
    connection.prepare_threshold = config.prepare_threshold


def settings(config: PersistenceConfig) -> dict[str, str]:
    """The server's settings that the configuration asks for, as SET takes them."""
    wanted: dict[str, str] = {"search_path": config.schema}
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        value: float | None = getattr(config, name)
        if value is not None:
            wanted[name] = f"{max(1, round(value * 1000))}ms"
    for name in ("work_mem", "maintenance_work_mem", "effective_cache_size"):
        size: int | None = getattr(config, name)
        if size is not None:
            wanted[name] = f"{max(64, size // 1024)}kB"
    if config.durability == "full":
        wanted["synchronous_commit"] = "on"
    return wanted


class Turn(NamedTuple):
    """What a recipe came to: its next question, or, when it is over, its answer."""

    value: Any
    over: bool


def advance(steps: Steps[Any], answer: Any) -> Turn:
    """A recipe's next turn; ``StopIteration`` cannot leave a thread, so the end is a value."""
    try:
        return Turn(steps.send(answer), over=False)
    except StopIteration as stop:
        return Turn(stop.value, over=True)


def trusted(text: str) -> LiteralString:
    """A statement of the book (or of the schema), for psycopg, which takes only text that no caller wrote."""
    return cast("LiteralString", text)


async def interrupt(connection: Connection) -> None:
    """Asks the server to cancel the statement under way, if there is one."""
    if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
        try:
            await connection.cancel_safe(timeout=_CANCEL_SECONDS)
        except psycopg.Error as error:
            _log.warning("a statement could not be cancelled: %s", error)


def cut(connection: Connection) -> None:
    """Breaks a connection whose server does not answer: whoever waits for it sees it end."""
    if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
        _log.warning("the server does not end a cancelled statement; its connection is cut")
        with suppress(OSError), socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as line:
            line.shutdown(socket.SHUT_RDWR)


def hold(errand: kit.Errand, connection: Connection) -> None:
    """From here on, psycopg does not see that the errand's caller is cancelled.

    It would lose its bearings: a pipeline that is left while it opens stays open, for one, and every later statement,
    COMMIT too, is queued in it without being sent.
    """
    errand.begin(partial(interrupt, connection), partial(cut, connection))


def errand_on(connection: Connection) -> kit.Errand:
    """An errand on a connection that the caller holds."""
    errand = kit.Errand()
    hold(errand, connection)
    return errand


class Statements:
    """Puts the book's statements to a connection."""

    def __init__(self, config: PersistenceConfig) -> None:
        self.config = config
        self.book = book("postgres")
        every = settings(config) if config.prepare_threshold is None else {"search_path": config.schema}
        local = ", ".join(f"set_config('{name}', %({name})s, true)" for name in every)
        self._enter = f"select set_config('perdure.tenant', %(tenant)s, true), {local}"
        self._enter_values = every
        self._arrays: dict[str, tuple[str, tuple[str, ...]]] = {}

    async def enter(self, connection: Connection, scope: Scope, begin: str) -> None:
        """Opens a transaction as the scope's tenant; its answer is awaited with the first question's."""
        await connection.execute(trusted(begin))
        await self.set_scope(connection, scope)

    async def set_scope(self, connection: Connection, scope: Scope) -> None:
        """Sets the tenant, and whatever else is set for each transaction."""
        await connection.execute(trusted(self._enter), {**self._enter_values, "tenant": scope.tenant})

    async def drive(
        self,
        errand: kit.Errand,
        connection: Connection,
        op: Op[T],
        scope: Scope,
        begin: str | None,
        *,
        enter: bool = False,
    ) -> T:
        """Drives a recipe to its end, or to the first question after its caller was cancelled.

        ``begin`` is sent before its first question when given; ``enter`` sets the scope's tenant in an open transaction.
        """
        errand.expose()
        if enter:
            await self.set_scope(connection, scope)
        steps = op.start()
        answer: Any = None
        try:
            while True:
                if op.traits.long:  # what it does between two questions may take a while: texts are analysed, say
                    turn = await kit.off_loop(partial(advance, steps, answer))
                    if turn.over:
                        return turn.value
                    ask = turn.value
                else:
                    ask = steps.send(answer)
                errand.heed()
                answer = await self.answer(connection, ask, scope, begin)
                begin = None
        except StopIteration as stop:
            return stop.value
        finally:
            steps.close()

    async def answer(self, connection: Connection, ask: Ask, scope: Scope, begin: str | None) -> Any:
        """The answer to one question."""
        if ask.mode is Mode.MANY:
            if begin is not None:
                await self.enter(connection, scope, begin)
            await self.many(connection, ask, scope)
            return None
        asks = ask.asks if ask.mode is Mode.TOGETHER else (ask,)
        async with connection.pipeline() as pipeline:
            if begin is not None:
                await self.enter(connection, scope, begin)
            cursors = [await self.send(connection, one, scope) for one in asks]
            await pipeline.sync()
            answers = [await self.receive(cursor, one) for cursor, one in zip(cursors, asks, strict=True)]
        return answers if ask.mode is Mode.TOGETHER else answers[0]

    async def send(self, connection: Connection, ask: Ask, scope: Scope) -> Cursor:
        """Sends one statement; in a pipeline nobody waits for it yet."""
        statement = self.book[ask.name]
        variant = statement.variant(ask.flags)
        text = variant.text
        params = bound(ask.params, scope)
        if ask.where is not None:
            metadata = f"cast({ask.where.metadata} as jsonb)"
            fragment, values = render(ask.where.filter, ask.where.columns, metadata, "w")
            text = text.replace("{where}", fragment)
            params.update(values)
        if self.config.echo_sql:
            _log.info("%s: %s", statement.name, text)
        return await connection.execute(trusted(text), params)

    async def receive(self, cursor: Cursor, ask: Ask) -> Any:
        """The answer that a sent statement brought."""
        if ask.mode is Mode.RUN:
            return cursor.rowcount
        rows = await cursor.fetchall()
        if ask.mode is Mode.ALL:
            return rows
        return rows[0] if rows else None

    async def many(self, connection: Connection, ask: Ask, scope: Scope) -> None:
        """Runs one statement for many rows."""
        statement = self.book[ask.name]
        if self.config.echo_sql:
            _log.info("%s for %d rows: %s", statement.name, len(ask.rows), statement.variant(ask.flags).text)
        if len(ask.rows) < ARRAY_ROWS or statement.insert is None:
            cursor = connection.cursor()
            rows = [bound(row, scope) for row in ask.rows]
            await cursor.executemany(trusted(statement.variant(ask.flags).text), rows)
            return
        text, names = self._in_arrays(statement)
        writing = partial(written, ask.rows, names, scope)
        params = writing() if len(ask.rows) < _ROWS_QUICKLY_WRITTEN else await kit.off_loop(writing)
        await connection.execute(trusted(text), params, prepare=True)

    def _in_arrays(self, statement: Statement) -> tuple[str, tuple[str, ...]]:
        """A plain insert rewritten to take one array for each column, and their names.

        COPY would be quicker still, but PostgreSQL refuses it on tables with row-level security.
        """
        found = self._arrays.get(statement.name)
        if found is None:
            assert statement.insert is not None
            table, columns, names, rest = statement.insert
            types = column_types()[table]
            given = [(column, name) for column, name in zip(columns, names, strict=True) if name != "tenant"]
            order = ["tenant", *(column for column, _ in given)]
            arrays = ", ".join(f"%({name})s::{types[column]}[]" for column, name in given)
            text = f"insert into {table} ({', '.join(order)}) select %(tenant)s, u.* from unnest({arrays}) u {rest}"
            found = self._arrays[statement.name] = (text, names)
        return found


def written(rows: Sequence[Params], names: tuple[str, ...], scope: Scope) -> Params:
    """The rows as one array for each column, and the tenant."""
    for row in rows:
        bound(row, scope)
    arrays: Params = {name: array_literal([row[name] for row in rows]) for name in names if name != "tenant"}
    arrays["tenant"] = scope.tenant
    return arrays


def array_literal(values: list[Any]) -> str:
    """The values of one column as PostgreSQL writes an array: three times as quick as dumping each on its own."""
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + str.replace(str.replace(value, "\\", "\\\\"), '"', '\\"') + '"'
    if isinstance(value, bytes):
        return '"\\\\x' + value.hex() + '"'
    assert isinstance(value, int), f"a column holds text, bytes or integers, not {type(value).__name__}"
    return str(value)


def bound(params: Params, scope: Scope) -> Params:
    """The parameters with the scope's own bound over whatever a recipe may have put there."""
    params["tenant"] = scope.tenant
    params["actor"] = scope.actor
    params["reason"] = scope.reason
    return params
