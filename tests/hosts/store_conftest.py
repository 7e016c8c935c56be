"""Copied beside LangGraph's tests of its SQLite stores as their conftest: their stores are perdure's from here on.

``PERDURE_HOST_ENGINE`` says on which engine. What they call a path names an SQLite file, or a database of its own.
"""

import asyncio
import atexit
import json
import os
from pathlib import Path

import langgraph.store.sqlite
import langgraph.store.sqlite.aio

from perdure.adapters.langgraph import PerdureStore
from perdure.testing.postgres import PostgresServer

ENGINE = os.environ["PERDURE_HOST_ENGINE"]
REPORT = Path(os.environ["PERDURE_HOST_REPORT"])


class Databases:
    """A database for each path; each ``:memory:`` is another."""

    def __init__(self):
        self._server = None
        self._urls = {}

    def url(self, path):
        if ENGINE == "sqlite":
            return path
        if self._server is None:
            self._server = PostgresServer().__enter__()
            atexit.register(self._server.__exit__, None, None, None)
        if path == ":memory:":
            return self._server.create_database()
        return self._urls.setdefault(path, self._server.create_database())


_databases = Databases()


class SyncStore(PerdureStore):
    """The store under the name of their blocking one."""

    @classmethod
    def from_conn_string(cls, conn_string, **options):
        return super().from_conn_string(_databases.url(conn_string), **options)


class AsyncStore(SyncStore):
    """Their async store awaits what ours does at once; its other verbs are the same object's."""

    async def sweep_ttl(self):
        return await self.asweep_ttl()

    async def start_ttl_sweeper(self, sweep_interval_minutes=None):
        return asyncio.wrap_future(super().start_ttl_sweeper(sweep_interval_minutes))

    async def stop_ttl_sweeper(self, timeout=None):
        return await asyncio.to_thread(super().stop_ttl_sweeper, timeout)


langgraph.store.sqlite.SqliteStore = SyncStore
langgraph.store.sqlite.AsyncSqliteStore = AsyncStore
langgraph.store.sqlite.aio.AsyncSqliteStore = AsyncStore


def pytest_runtest_logreport(report):
    """One line for each outcome, for the script that runs this."""
    if report.when == "call" or report.outcome != "passed":
        with REPORT.open("a", encoding="utf-8") as file:
            file.write(json.dumps([report.nodeid, report.outcome, str(report.longrepr or "")[-800:]]) + "\n")
