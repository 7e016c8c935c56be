"""Fixtures for the contract suite: ``opener`` on each of the four drivers, and real PostgreSQL databases."""

import asyncio
import inspect
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perdure.sync
from perdure.testing.drivers import DRIVERS, Opener
from perdure.testing.postgres import PostgresServer


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a coroutine test on a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One real server per run, or per worker of pytest-xdist. A test that stops or kills a server makes its own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template_name(postgres_server: PostgresServer) -> str:
    """A database with the schema in it, from which fresh ones are copied."""
    url = postgres_server.create_database()
    with perdure.sync.open(url):
        pass
    return postgres_server.make_template(url)


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """An empty database shared by the tests that need just some database."""
    return postgres_server.create_database()


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database for one test, with nothing in it."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def fresh_postgres_url(postgres_server: PostgresServer, postgres_template_name: str) -> Iterator[str]:
    """A database for one test, with the schema in it; it goes with the test, open sessions or not."""
    url = postgres_server.create_database(postgres_template_name)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def tmp_store_path(tmp_path: Path) -> Path:
    """Where a test may put its SQLite file; nothing is there yet."""
    return tmp_path / "store.db"


@pytest.fixture(params=DRIVERS)
def opener(request: pytest.FixtureRequest, tmp_store_path: Path) -> Opener:
    """A fresh database and one of the four drivers: ``async with opener() as store``."""
    driver: str = request.param
    if driver.startswith("postgres"):
        return Opener(driver, request.getfixturevalue("fresh_postgres_url"))
    return Opener(driver, f"sqlite:///{tmp_store_path}")


@pytest.fixture
def seeded_random(request: pytest.FixtureRequest) -> random.Random:
    """Randomness that is the same in each run of a test and differs between tests."""
    return random.Random(request.node.nodeid)
