# Generated from perdure/drivers/postgres/statements.py by tools/generate_sync.py; change that file and run `make sync`.
"""How a statement of the book is put to PostgreSQL, and how one connection drives a recipe.

Questions that do not depend on each other share a round trip (pipeline); many rows of a plain insert go as one statement over arrays.
"""

import logging
import re
from functools import cache
from typing import Any, LiteralString, TypeVar, cast

import psycopg
from psycopg.types.string import TextLoader

from perdure.drivers.book import Statement, book
from perdure.drivers.postgres.filters import render
from perdure.grammar import Ask, Mode, Op, Params, Scope
from perdure.schema.plan import schema_sql
from perdure.values.config import PersistenceConfig

T = TypeVar("T")
Connection = psycopg.Connection[Any]
Cursor = psycopg.Cursor[Any]

ARRAY_ROWS = 20
_log = logging.getLogger("perdure.postgres")


@cache
def column_types() -> dict[str, dict[str, str]]:
    """The type of each column of each table, as the readable schema gives it."""
    types: dict[str, dict[str, str]] = {}
    for table, body in re.findall(
        r"^create table (\w+) \(.*?$\n(.*?)^\);", schema_sql("postgres"), re.MULTILINE | re.DOTALL
    ):
        types[table] = dict(re.findall(r"^  (\w+) (text|bigint|integer|json)\b", body, re.MULTILINE))
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


def trusted(text: str) -> LiteralString:
    """A statement of the book (or of the schema), for psycopg, which takes only text that no caller wrote."""
    return cast("LiteralString", text)


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

    def enter(self, connection: Connection, scope: Scope, begin: str) -> None:
        """Opens a transaction as the scope's tenant; its answer is awaited with the first question's."""
        connection.execute(trusted(begin))
        self.set_scope(connection, scope)

    def set_scope(self, connection: Connection, scope: Scope) -> None:
        """Sets the tenant, and whatever else is set for each transaction."""
        connection.execute(trusted(self._enter), {**self._enter_values, "tenant": scope.tenant})

    def drive(self, connection: Connection, op: Op[T], scope: Scope, begin: str | None, *, enter: bool = False) -> T:
        """Drives a recipe to its end.

        ``begin`` is sent before its first question when given; ``enter`` sets the scope's tenant in an open transaction.
        """
        if enter:
            self.set_scope(connection, scope)
        steps = op.start()
        answer: Any = None
        try:
            while True:
                ask = steps.send(answer)
                answer = self.answer(connection, ask, scope, begin)
                begin = None
        except StopIteration as stop:
            return stop.value
        finally:
            steps.close()

    def answer(self, connection: Connection, ask: Ask, scope: Scope, begin: str | None) -> Any:
        """The answer to one question."""
        if ask.mode is Mode.MANY:
            if begin is not None:
                self.enter(connection, scope, begin)
            self.many(connection, ask, scope)
            return None
        asks = ask.asks if ask.mode is Mode.TOGETHER else (ask,)
        with connection.pipeline() as pipeline:
            if begin is not None:
                self.enter(connection, scope, begin)
            cursors = [self.send(connection, one, scope) for one in asks]
            pipeline.sync()
            answers = [self.receive(cursor, one) for cursor, one in zip(cursors, asks, strict=True)]
        return answers if ask.mode is Mode.TOGETHER else answers[0]

    def send(self, connection: Connection, ask: Ask, scope: Scope) -> Cursor:
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
        return connection.execute(trusted(text), params)

    def receive(self, cursor: Cursor, ask: Ask) -> Any:
        """The answer that a sent statement brought."""
        if ask.mode is Mode.RUN:
            return cursor.rowcount
        rows = cursor.fetchall()
        if ask.mode is Mode.ALL:
            return rows
        return rows[0] if rows else None

    def many(self, connection: Connection, ask: Ask, scope: Scope) -> None:
        """Runs one statement for many rows."""
        statement = self.book[ask.name]
        if self.config.echo_sql:
            _log.info("%s for %d rows: %s", statement.name, len(ask.rows), statement.variant(ask.flags).text)
        rows = [bound(row, scope) for row in ask.rows]
        if len(rows) < ARRAY_ROWS or statement.insert is None:
            cursor = connection.cursor()
            cursor.executemany(trusted(statement.variant(ask.flags).text), rows)
            return
        text, names = self._in_arrays(statement)
        arrays = {name: array_literal([row[name] for row in rows]) for name in names if name != "tenant"}
        connection.execute(trusted(text), {**arrays, "tenant": scope.tenant}, prepare=True)

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


def array_literal(values: list[Any]) -> str:
    """The values of one column as PostgreSQL writes an array: three times as quick as dumping each on its own."""
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + str.replace(str.replace(value, "\\", "\\\\"), '"', '\\"') + '"'
    assert isinstance(value, int), f"a column holds text or integers, not {type(value).__name__}"
    return str(value)


def bound(params: Params, scope: Scope) -> Params:
    """The parameters with the scope's own bound over whatever a recipe may have put there."""
    params["tenant"] = scope.tenant
    params["actor"] = scope.actor
    params["reason"] = scope.reason
    return params
