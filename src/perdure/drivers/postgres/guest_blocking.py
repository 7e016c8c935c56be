# Generated from perdure/drivers/postgres/guest.py by tools/generate_sync.py; change that file and run `make sync`.
"""Recipes on a psycopg connection that somebody else owns.

What a verb does becomes part of the owner's transaction; tenant, search path and the connection's
factories and loaders are set for the verb only and put back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import psycopg
from psycopg.rows import tuple_row
from psycopg.types.string import TextLoader

from perdure.drivers.postgres.errors import translate
from perdure.drivers.postgres.statements_blocking import Statements, errand_on
from perdure.grammar import Op, Scope
from perdure.kit import blocking as kit
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Misused

T = TypeVar("T")


class BlockingGuest:
    """Runs recipes inside the transaction of a given connection."""

    dialect: Literal["postgres"] = "postgres"

    def __init__(self, connection: psycopg.Connection[Any], config: PersistenceConfig) -> None:
        if not isinstance(connection, psycopg.Connection):
            raise Misused(f"within() takes a psycopg Connection, not {type(connection).__name__}")
        self.config = config
        self.statements = Statements(config)
        self._connection = connection
        self._lock = kit.Lock()

    def run(self, op: Op[T], scope: Scope) -> T:
        """The answer of a recipe, as a part of the owner's transaction (or in one of its own when none is open)."""
        with self._lock:
            errand = errand_on(self._connection)
            return errand.run(lambda: self._run(errand, op, scope))

    def _run(self, errand: kit.Errand, op: Op[T], scope: Scope) -> T:
        connection = self._connection
        factories = connection.row_factory, connection.cursor_factory
        loaders = {name: connection.adapters.get_loader(psycopg.adapters.types[name].oid, psycopg.pq.Format.TEXT)
                   for name in ("json", "jsonb")}  # fmt: skip
        try:
            connection.row_factory, connection.cursor_factory = tuple_row, psycopg.Cursor
            with connection.transaction():
                cursor = connection.execute(
                    "select coalesce(current_setting('perdure.tenant', true), ''), current_setting('search_path')"
                )
                row = cursor.fetchone()
                assert row is not None
                for name in loaders:
                    connection.adapters.register_loader(name, TextLoader)
                self._set(scope.tenant, self.config.schema)
                try:
                    answer = self.statements.drive(errand, connection, op, scope, None)
                    errand.heed()
                finally:
                    errand.settle()
                self._set(row[0], row[1])
                return answer
        except psycopg.Error as error:
            raise translate(error, "the given connection") from error
        finally:
            connection.row_factory, connection.cursor_factory = factories
            for name, loader in loaders.items():
                if loader is not None:
                    connection.adapters.register_loader(name, loader)

    def _set(self, tenant: str, search_path: str) -> None:
        self._connection.execute(
            "select set_config('perdure.tenant', %s, true), set_config('search_path', %s, true)", (tenant, search_path)
        )

    @contextmanager
    def transaction(self, seconds: float | None = None) -> "Iterator[BlockingGuest]":
        """Refused: the transaction belongs to the connection's owner."""
        del seconds
        raise Misused("the connection's owner opens and commits its transactions")
        yield self

    def close(self) -> None:
        """Nothing: the connection belongs to somebody else."""
