"""Copied beside LangGraph's tests of its graphs as their root conftest: their SQLite savers are perdure's from here on.

``PERDURE_HOST_ENGINE`` says on which engine; with ``official`` they stay theirs.
"""

import atexit
import importlib
import json
import os
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

ENGINE = os.environ["PERDURE_HOST_ENGINE"]
REPORT = Path(os.environ["PERDURE_HOST_REPORT"])


class Databases:
    """A database for each test."""

    def __init__(self):
        self._server = None
        self._template = None

    def url(self):
        """The address of another one."""
        if ENGINE == "sqlite":
            return ":memory:"
        import perdure.sync
        from perdure.testing.postgres import PostgresServer

        if self._server is None:
            self._server = PostgresServer().__enter__()
            atexit.register(self._server.__exit__, None, None, None)
            first = self._server.create_database()
            with perdure.sync.open(first):
                pass
            self._template = self._server.make_template(first)
        return self._server.create_database(self._template)


def pytest_configure():
    """Puts ours in the place of theirs, before their conftest takes them by name."""
    if ENGINE == "official":
        return
    theirs = importlib.import_module("tests.conftest_checkpointer")
    from perdure.adapters.langgraph import PerdureSaver

    databases = Databases()

    @contextmanager
    def blocking():
        with PerdureSaver.from_conn_string(databases.url()) as saver:
            theirs._apply_strict_msgpack(saver)
            yield saver

    @asynccontextmanager
    async def awaited():
        async with PerdureSaver.from_conn_string(databases.url()) as saver:
            theirs._apply_strict_msgpack(saver)
            yield saver

    theirs._checkpointer_sqlite = blocking
    theirs._checkpointer_sqlite_aio = awaited


def pytest_runtest_logreport(report):
    """One line for each outcome, for the script that runs this; workers tell the process that began them."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    if report.when == "call" or report.outcome != "passed":
        with REPORT.open("a", encoding="utf-8") as file:
            file.write(json.dumps([report.nodeid, report.outcome, str(report.longrepr or "")[-1500:]]) + "\n")
