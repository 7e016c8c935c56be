"""Settings: each takes effect on every connection, a malformed one is refused by name, and no password gets out."""

import asyncio
import contextlib
import logging
import threading
import time
import traceback

import apsw
import psycopg
import pytest

import perdure
import perdure.sync
from perdure.grammar import fetch_one, op
from perdure.testing.drivers import Awaitable
from perdure.testing.suite.apart import on_postgres, on_sqlite, started
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Busy, Closed, Invalid, Unavailable


def _store(opener, where=None, **options):
    """A store that nobody has opened yet."""
    return Awaitable(perdure.sync.Store(where, **options)) if opener.blocking else perdure.Store(where, **options)


@contextlib.asynccontextmanager
async def _open(opener, where=None):
    """A store at an address of its own."""
    store = _store(opener, where)
    await store.initialize()
    try:
        yield store
    finally:
        await store.close()


# -- PostgreSQL --------------------------------------------------------------------------------------------------------------

_GIVEN = {
    "statement_timeout": ("7s", "7s"),
    "lock_timeout": ("1500ms", "1500ms"),
    "idle_in_transaction_session_timeout": (11, "11s"),
    "work_mem": ("5MB", "5MB"),
    "maintenance_work_mem": (33 * 1024 * 1024, "33MB"),
    "effective_cache_size": ("77mb", "77MB"),
}
_SHOW = ", ".join(f"current_setting('{name}')" for name in _GIVEN)


@on_postgres
@pytest.mark.parametrize("prepare_threshold", [5, None])
async def test_settings_hold_on_every_connection_of_the_pool(opener, prepare_threshold):
    """Read back on as many connections at once as there may be."""
    given = {name: value for name, (value, _) in _GIVEN.items()}
    async with opener(pool_size=2, max_overflow=2, prepare_threshold=prepare_threshold, **given) as store:
        look = f"select pg_backend_pid(), pg_sleep(0.2), current_setting('search_path'), {_SHOW}"
        rows = await asyncio.gather(*(started(store, "execute", look) for _ in range(6)))
        assert len({row[0] for ((row),) in rows}) == 4
        for (row,) in rows:
            assert row[2:] == ("perdure", *(shown for _, shown in _GIVEN.values()))


@on_postgres
async def test_durability_decides_about_synchronous_commit(opener):
    """Full waits for the disk whatever the database says; normal leaves it to the database."""
    async with await psycopg.AsyncConnection.connect(opener.url, autocommit=True) as owner:
        name = opener.url.rsplit("/", 1)[1]
        await owner.execute(f"alter database {name} set synchronous_commit to off")
    for durability, shown in (("normal", "off"), ("full", "on")):
        for prepare_threshold in (5, None):
            async with opener(durability=durability, prepare_threshold=prepare_threshold) as store:
                assert await store.execute("select current_setting('synchronous_commit')") == [(shown,)]


@on_postgres
async def test_a_schema_is_a_store_of_its_own(opener):
    """Two in one database do not see each other, and neither touches public."""
    async with opener() as one, opener(schema="other_one") as two:
        await one.create_conversation("agent", "ann", id="c")
        assert await two.get_conversation("c") is None
        await two.create_conversation("agent", "bob", id="c")
        assert (await one.get_conversation("c")).user_id == "ann"
        assert await two.verify() == []
        tables = "select count(*) from information_schema.tables where table_schema = 'public'"
        assert await two.execute(tables) == [(0,)]


@on_postgres
async def test_statements_are_prepared_or_not(opener):
    """``prepare_threshold=None`` prepares nothing, as poolers in transaction mode need it."""
    prepared = "select count(*) > 0 from pg_prepared_statements"
    for threshold, expected in ((0, True), (5, True), (None, False)):
        async with opener(pool_size=1, max_overflow=0, prepare_threshold=threshold) as store:
            await store.create_conversation("agent", "ann", id=f"c{threshold}")
            for _ in range(7):
                await store.add_message(f"c{threshold}", "user", "x")
                await store.get_messages(f"c{threshold}")
            await store.add_messages(f"c{threshold}", [{"role": "user", "content": "x"}] * 50)
            assert await store.execute(prepared) == [(expected,)], threshold


@on_postgres
async def test_a_lock_is_waited_for_no_longer_than_lock_timeout(opener):
    """Then it is ``Busy``, and nothing was changed."""
    async with opener(lock_timeout="200ms") as store, await psycopg.AsyncConnection.connect(opener.url) as holder:
        await store.create_conversation("agent", "ann", id="c")
        await holder.execute("select set_config('perdure.tenant', 'default', true)")
        await holder.execute("select 1 from perdure.conversations for update")
        began = time.monotonic()
        with pytest.raises(Busy):
            await asyncio.wait_for(started(store, "add_message", "c", "user", "x"), 20)
        assert 0.2 <= time.monotonic() - began < 10
        await holder.rollback()
        assert (await store.get_conversation("c")).message_count == 0


@on_postgres
async def test_a_connection_is_waited_for_no_longer_than_pool_timeout(opener):
    """Once, not once for each try."""
    async with opener(pool_size=1, max_overflow=0, pool_timeout=0.4) as store:
        await store.create_conversation("agent", "ann", id="c")
        holder = started(store, "execute", "select pg_sleep(1.5)")
        await asyncio.sleep(0.05)
        began = time.monotonic()
        waiting = [started(store, "get_conversation", "c"), started(store, "add_message", "c", "user", "x")]
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert 0.4 <= time.monotonic() - began < 1.1
        assert [type(error) for error in errors] == [Unavailable, Unavailable]
        assert all("pool_timeout" in str(error) for error in errors)
        await holder
        assert (await store.get_conversation("c")).message_count == 0


# -- SQLite ------------------------------------------------------------------------------------------------------------------


def _pragmas(connection):
    names = ("foreign_keys", "journal_mode", "synchronous", "cache_size", "query_only", "wal_autocheckpoint")
    return {name: next(iter(connection.execute(f"pragma {name}")))[0] for name in names}


def _engine(store):
    return getattr(store, "_store", store)._shared.driver.engine


@op(reads=True, long=True)
def _held(begun, release):
    """A read that keeps its connection until it is told to go on."""
    yield from fetch_one("texts.progress")
    begun.release()
    release.wait(20)


async def _with_readers(store, number):
    """Reads on so many connections at once."""
    begun, release = threading.Semaphore(0), threading.Event()
    reading = [started(store, "_run", _held(begun, release)) for _ in range(number)]
    for _ in range(number):
        assert await asyncio.to_thread(begun.acquire, timeout=20)
    return reading, release


@on_sqlite
@pytest.mark.parametrize(("durability", "synchronous"), [("normal", 1), ("full", 2)])
async def test_pragmas_hold_on_every_connection(opener, durability, synchronous):
    """The writer's and each reader's; only readers are read-only."""
    async with opener(pool_size=3, durability=durability, effective_cache_size="4MB") as store:
        reading, release = await _with_readers(store, 3)
        release.set()
        await asyncio.gather(*reading)
        readers = _engine(store)._readers
        assert len(readers) == 3
        expected = {
            "foreign_keys": 1, "journal_mode": "wal", "synchronous": synchronous, "cache_size": -4096,
            "wal_autocheckpoint": 0,
        }  # fmt: skip
        assert [_pragmas(reader) for reader in readers] == [{**expected, "query_only": 1}] * 3
        shown = {name: (await store.execute(f"pragma {name}"))[0][0] for name in expected}
        assert shown == expected
        assert await store.execute("pragma query_only") == [(0,)]


@on_sqlite
async def test_another_process_is_waited_for_no_longer_than_busy_timeout(opener):
    """Then it is ``Busy``, says when to come back, and nothing was changed."""
    async with opener(busy_timeout="300ms") as store:
        await store.create_conversation("agent", "ann", id="c")
        holder = apsw.Connection(opener.url.removeprefix("sqlite:///"))
        holder.execute("begin immediate")
        for call in (("add_message", "c", "user", "x"), ("execute", "select 1")):
            began = time.monotonic()
            with pytest.raises(Busy) as busy:
                await asyncio.wait_for(started(store, *call), 20)
            assert 0.3 <= time.monotonic() - began < 5
            assert busy.value.retry_after
        holder.execute("rollback")
        holder.close()
        assert (await store.add_message("c", "user", "x")).seq == 1


@on_sqlite
async def test_readers_connections_are_as_many_as_pool_size(opener):
    """What comes on top waits; a thread no longer than pool_timeout, the event loop never."""
    async with opener(pool_size=2, pool_timeout="200ms") as store:
        await store.create_conversation("agent", "ann", id="c")
        reading, release = await _with_readers(store, 2)
        began = time.monotonic()
        waiting = started(store, "get_conversation", "c")
        await asyncio.sleep(0)
        assert time.monotonic() - began < 0.15
        if opener.blocking:
            with pytest.raises(Unavailable, match="pool_timeout"):
                await waiting
            assert 0.2 <= time.monotonic() - began < 10
            release.set()
        else:
            release.set()
            assert (await waiting).id == "c"
        await asyncio.gather(*reading)
        assert len(_engine(store)._readers) <= 2
        assert (await store.get_conversation("c")).id == "c"


@on_sqlite
async def test_memory_is_one_database_for_readers_and_writer(opener):
    """And another one for another store."""
    async with _open(opener, ":memory:") as store, _open(opener, "sqlite://:memory:") as other:
        await store.create_conversation("agent", "ann", id="c")
        adding = [started(store, "add_message", "c", "user", f"zebra {n}") for n in range(10)]
        reading = [started(store, "get_messages", "c") for _ in range(10)]
        await asyncio.gather(*adding, *reading)
        assert len(await store.get_messages("c")) == 10
        assert len(await store.search_messages("zebra")) == 10
        async with store.transaction() as t:
            await t.add_message("c", "user", "x")
            assert len(await t.get_messages("c")) == 11
        assert (await store.stats())["messages"] == 11
        assert (await store.doctor())["problems"] == []
        assert await other.get_conversation("c") is None


# -- both --------------------------------------------------------------------------------------------------------------------


async def test_a_statement_runs_no_longer_than_statement_timeout(opener):
    """Then it is ``Busy``, and the connection is as good as before."""
    endless = "with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n"
    async with opener(statement_timeout="300ms") as store:
        await store.create_conversation("agent", "ann", id="c")
        with pytest.raises(Busy):
            await store.execute(endless)
        assert (await store.add_message("c", "user", "x")).seq == 1


async def test_echo_names_statements_and_never_shows_values(opener, caplog):
    """Off unless asked for."""
    for echo in (False, True):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="perdure"):
            async with opener(echo_sql=echo) as store:
                await store.create_conversation("agent", "secret-user", id=f"c{echo}")
                await store.get_conversation(f"c{echo}")
        assert ("conversations.by_id" in caplog.text) is echo
        assert "secret-user" not in caplog.text


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *(("connection_string", value) for value in ("", "  ", None, 5, "mysql://x/y", "sqlite:/x", "sqlite://x.db", "a\0b", "sqlite:///")),
        *(("schema", value) for value in ("", "Has Capitals", "x; drop", "1x", "x" * 64, None, 'a"b')),
        *(("pool_size", value) for value in (0, -1, True, "5", 1.5, 10_001, None)),
        *(("max_overflow", value) for value in (-1, True, "5", None)),
        *(("echo_sql", value) for value in (1, "yes", None)),
        *(("durability", value) for value in ("none", "FULL", None, True)),
        *(("prepare_threshold", value) for value in (-1, True, "5")),
        *(
            (name, value)
            for name in (
                "pool_timeout", "busy_timeout", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
            )
            for value in ("soon", "", "5 parsecs", "-1s", 0, -1, True, float("nan"), float("inf"), "1e3s", [])
        ),
        *(
            (name, value)
            for name in ("work_mem", "maintenance_work_mem", "effective_cache_size")
            for value in ("lots", "", "1.5MB", "-1MB", 0, -1, True, 1.5, "5XB", [])
        ),
        *((name, None) for name in ("pool_timeout", "busy_timeout")),
    ],
)  # fmt: skip
def test_a_malformed_value_is_invalid_and_names_its_field(field, wrong):
    """Before anything is opened."""
    values = {"connection_string": "sqlite:///x.db", field: wrong}
    with pytest.raises(Invalid) as refused:
        PersistenceConfig(**values)
    assert refused.value.field == field


def test_durations_and_sizes_are_read_in_any_unit():
    """And kept in seconds and bytes."""
    config = PersistenceConfig(
        "sqlite:///x.db", busy_timeout="1.5min", statement_timeout="250ms", lock_timeout=2, work_mem="2 MB"
    )
    assert (config.busy_timeout, config.statement_timeout, config.lock_timeout) == (90.0, 0.25, 2.0)
    assert config.work_mem == 2 * 1024 * 1024


_PASSWORDS = (
    "postgresql://ann:hunter2@127.0.0.1:1/x",
    "postgres+asyncpg://ann:hunter2@127.0.0.1:1/x",
    "postgresql://ann:%40hunter2@127.0.0.1:1/x",
    "postgresql://127.0.0.1:1/x?user=ann&password=hunter2",
    "postgresql://127.0.0.1:1/x?password=hunter2&user=ann",
    "postgresql://127.0.0.1:1/x?PASSWORD=hunter2",
    "postgresql://127.0.0.1:1/x?sslpassword=hunter2",
)


@pytest.mark.parametrize("url", _PASSWORDS)
@pytest.mark.parametrize("opener", ["postgres", "postgres-blocking"], indirect=True)
async def test_a_password_gets_out_nowhere(opener, url, caplog):
    """Neither by repr and str nor by an error with its causes, a log line or a warning."""
    config = PersistenceConfig(url, pool_timeout="50ms")
    store = _store(opener, config)
    with caplog.at_level(logging.DEBUG), pytest.raises((Unavailable, Invalid, perdure.Misused)) as failed:
        await store.create_conversation("agent", "ann")
    shown = [
        repr(config), str(config), config.safe_url, repr(store), str(vars(failed.value)), caplog.text,
        "".join(traceback.format_exception_only(failed.value)),
    ]  # fmt: skip
    assert [text for text in shown if "hunter2" in text] == []
    await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:/ann:hunter2@host/x", "ann:hunter2@host/x", "postgresql://ann:hunter2@[::1/x", "postgresql://ann:p@hunter2@host/x",
        "mysql://ann:hunter2@host/x",
        "postgresql:ann:hunter2@host", "http+x://ann:hunter2@host",
    ],
)  # fmt: skip
def test_a_refused_address_does_not_show_its_password(url):
    """It is the likeliest one to be pasted into a ticket."""
    with pytest.raises(Invalid) as refused:
        PersistenceConfig(url)
    assert refused.value.field == "connection_string"
    assert (
        "hunter2" not in f"{refused.value} {refused.value.details} {''.join(traceback.format_exception(refused.value))}"
    )


# -- addresses ---------------------------------------------------------------------------------------------------------------


async def test_perdure_url_is_the_default(opener, monkeypatch):
    """A store built without an address takes it from the environment, and says so when there is none."""
    monkeypatch.setenv("PERDURE_URL", opener.url)
    async with _open(opener) as store:
        await store.create_conversation("agent", "ann", id="c")
    async with opener() as store:
        assert await store.get_conversation("c") is not None
    for unset in (None, ""):
        monkeypatch.delenv("PERDURE_URL") if unset is None else monkeypatch.setenv("PERDURE_URL", unset)
        with pytest.raises(Invalid, match="PERDURE_URL"):
            _store(opener)


async def test_the_driver_part_of_an_address_is_ignored(opener):
    """URLs of other libraries work as they are."""
    scheme, rest = opener.url.split("://", 1)
    kinds = {
        "sqlite": ("sqlite+aiosqlite", "sqlite+pysqlite"),
        "postgresql": ("postgresql+asyncpg", "postgres", "postgres+psycopg"),
    }
    for kind in kinds[scheme]:
        async with _open(opener, f"{kind}://{rest}") as store:
            await store.create_conversation("agent", "ann", id=kind)
    async with opener() as store:
        assert (await store.stats())["conversations"] == len(kinds[scheme])


@on_sqlite
async def test_three_slashes_are_relative_and_four_absolute(opener, tmp_path, monkeypatch):
    """Paths may also be given as they are, with any character in them."""
    monkeypatch.chdir(tmp_path)
    for where, file in (
        ("sqlite:///three.db", "three.db"), (f"sqlite:///{tmp_path}/four.db", "four.db"), ("plain.db", "plain.db"),
        (tmp_path / "path.db", "path.db"), ("with space % ? # ä.db", "with space % ? # ä.db"), ("sqlite:///with%20space.db", "with space.db"),
    ):  # fmt: skip
        async with _open(opener, where) as store:
            await store.create_conversation("agent", "ann")
        assert (tmp_path / file).is_file(), where


@on_sqlite
async def test_a_folder_that_does_not_exist_is_said_so(opener, tmp_path):
    """And nothing is made."""
    store = _store(opener, tmp_path / "nowhere" / "x.db")
    with pytest.raises(Invalid, match="folder"):
        await store.create_conversation("agent", "ann")
    await store.close()
    assert not (tmp_path / "nowhere").exists()


# -- life --------------------------------------------------------------------------------------------------------------------


async def test_a_store_opens_on_first_use(opener):
    """Once, however many ask first; building one does nothing."""
    store = _store(opener, PersistenceConfig(opener.url, pool_size=2))
    asking = [started(store, "create_conversation", "agent", "ann") for _ in range(8)]
    await asyncio.gather(*asking)
    assert (await store.stats())["conversations"] == 8
    await store.close()


async def test_initializing_again_does_no_harm(opener):
    """Nor does entering a store that was opened before."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c")
        await store.initialize()
        await store.initialize(create_schema=False, run_migrations=False)
        await store.initialize(check_version=False)
        assert await store.get_conversation("c") is not None
        assert await store.verify() == []


async def test_a_closed_store_says_so(opener):
    """To every verb and every handle; closing it again is fine."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c")
        tenant = store.for_tenant("acme")
        await store.close()
        await store.close()
        calls = [
            ("get_conversation", "c"), ("create_conversation", "agent", "ann"), ("add_message", "c", "user", "x"),
            ("search_messages", "x"), ("changes",), ("execute", "select 1"), ("verify",), ("doctor",), ("upkeep",), ("stats",),
            ("initialize",), ("run_chores",), ("rebuild_text",),
        ]  # fmt: skip
        for verb, *arguments in calls:
            with pytest.raises(Closed):
                await getattr(store, verb)(*arguments)
        with pytest.raises(Closed):
            await tenant.get_conversation("c")
        with pytest.raises(Closed):
            async with store.transaction():
                pytest.fail("entered")


async def test_a_store_that_was_never_used_can_be_closed(opener):
    """Nothing was opened, nothing is."""
    store = _store(opener, opener.url)
    await store.close()
    with pytest.raises(Closed):
        await store.stats()


async def test_closing_waits_for_what_was_asked_for(opener):
    """Each call is either done or told that the store is closed."""
    async with opener() as store, opener() as other:
        await store.create_conversation("agent", "ann", id="c")
        asked = [started(store, "add_message", "c", "user", f"{n}") for n in range(20)]
        await asyncio.sleep(0)
        await asyncio.wait_for(started(store, "close"), 20)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(answer) for answer in answers} <= {perdure.Message, Closed}
        added = [answer for answer in answers if isinstance(answer, perdure.Message)]
        assert (await other.get_conversation("c")).message_count == len(added)


async def test_an_unclosed_store_warns(opener):
    """With its address, and without its password."""
    store = _store(opener, opener.url)
    await store.stats()
    driver = getattr(store, "_store", store)._shared.driver
    gone = [store]
    del store
    with pytest.warns(ResourceWarning, match="was not closed"):
        gone.clear()
    closing = driver.close()
    if closing is not None:
        await closing
