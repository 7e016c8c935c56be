"""The steps lead to the readable schema; opening is safe beside other openers, kills, newer and older databases."""

import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import apsw
import psycopg
import pytest

import perdure.sync
from perdure.schema import plan
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Damaged, SchemaAhead, SchemaBehind

ENGINES = ("sqlite", "postgres")


class Database:
    """An empty database of one engine, and what the tests do to it behind the store's back."""

    def __init__(self, url):
        self.url = url
        self.engine = "sqlite" if url.startswith("sqlite") else "postgres"
        self.path = Path(url.removeprefix("sqlite:///"))

    def script(self, text):
        """Runs an SQL script and commits it."""
        if self.engine == "sqlite":
            connection = apsw.Connection(str(self.path))
            connection.execute(text)
            connection.close()
        else:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("set search_path to perdure, public")
                connection.execute(text)

    def catalog(self):
        """Everything the database says about its schema, without positions, comments and white space."""
        return _sqlite_catalog(self.path) if self.engine == "sqlite" else _postgres_catalog(self.url)

    def store(self):
        """A store that nobody has opened yet."""
        return perdure.sync.Store(PersistenceConfig(self.url, pool_size=2))


def _sqlite_catalog(path):
    connection = apsw.Connection(str(path))
    try:
        rows = connection.execute("select type, name, tbl_name, sql from sqlite_schema order by type, name").fetchall()
        tables = [row[1] for row in rows if row[0] == "table"]
        facts = [
            (table, pragma, connection.execute(f"pragma {pragma}('{table}')").fetchall())
            for table in tables
            for pragma in ("table_xinfo", "index_list", "foreign_key_list")
        ]
        return [(*row[:3], re.sub(r"\s+", " ", re.sub(r"--.*", "", row[3] or "")).strip()) for row in rows], facts
    finally:
        connection.close()


_POSTGRES_CATALOG = [
    "\nselect c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,\n  a.attcollation::regcollation::text, pg_get_expr(d.adbin, d.adrelid)\nfrom pg_attribute a join pg_class c on c.oid = a.attrelid\nleft join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum\nwhere c.relnamespace = 'perdure'::regnamespace and a.attnum > 0 and c.relkind in ('r', 'S')",
    "\nselect conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint\nwhere connamespace = 'perdure'::regnamespace",
    "\nselect indexname, indexdef from pg_indexes where schemaname = 'perdure'",
    "\nselect tablename, policyname, permissive, roles::text, cmd, qual, with_check from pg_policies where schemaname = 'perdure'",
    "\nselect relname, relkind::text, relrowsecurity, relforcerowsecurity from pg_class\nwhere relnamespace = 'perdure'::regnamespace\n",
]


def _postgres_catalog(url):
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("select to_regnamespace('perdure') is null").fetchone()[0]:
            return []
        return [sorted(connection.execute(query).fetchall(), key=repr) for query in _POSTGRES_CATALOG]


@pytest.fixture(params=ENGINES)
def database(request, tmp_path):
    """An empty database."""
    if request.param == "postgres":
        return Database(request.getfixturevalue("empty_postgres_url"))
    return Database(f"sqlite:///{tmp_path / 'store.db'}")


def _run(script, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True, **options)


# -- one schema --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_all_steps_together_are_the_readable_schema(engine, tmp_path, postgres_server):
    """To the last column, constraint, index and policy."""
    urls = {
        "sqlite": [f"sqlite:///{tmp_path / name}.db" for name in ("steps", "read")],
        "postgres": [postgres_server.create_database() for _ in range(2)],
    }[engine]
    steps, read = Database(urls[0]), Database(urls[1])
    if engine == "postgres":
        for one in (steps, read):
            with psycopg.connect(one.url, autocommit=True) as connection:
                connection.execute("create schema perdure")
    for step in plan.steps(engine):
        steps.script(step.text)
    read.script(plan.schema_sql(engine))
    assert steps.catalog() == read.catalog()
    assert len(str(steps.catalog())) > 3_000


@pytest.mark.parametrize("engine", ENGINES)
def test_the_readable_schema_begins_with_what_it_is(engine):
    """A comment for readers, and a table of steps first."""
    text = plan.schema_sql(engine)
    assert text.startswith("-- The whole schema on ")
    assert plan.objects(text)[0] == ("table", "perdure_steps")


def test_a_schema_made_by_hand_is_taken_as_it_is(database):
    """``schema_sql`` records its steps, so that nothing is missing afterwards; the same as a store makes."""
    store = database.store()
    by_hand = store.schema_sql()
    if database.engine == "sqlite":
        with sqlite3.connect(database.path) as plain:  # Python's own module, as any tool would
            plain.executescript(by_hand)
        plain.close()
    else:
        with psycopg.connect(database.url, autocommit=True) as plain:
            plain.execute(by_hand)
    made = database.catalog()
    store.initialize(create_schema=False, run_migrations=False)
    try:
        assert store.verify() == []
        store.create_conversation("agent", "ann", id="c")
        store.add_message("c", "user", "zebra")
        assert len(store.search_messages("zebra")) == 1
        assert database.catalog() == made
        applied = store.execute("select number, hash, applied_at from perdure_steps")
        assert [row[:2] for row in applied] == [(step.number, step.hash) for step in plan.steps(database.engine)]
        assert all(row[2] > 1_700_000_000_000_000 for row in applied)
    finally:
        store.close()


# -- many openers ------------------------------------------------------------------------------------------------------------

_OPENER = """
import sys
import perdure.sync
with perdure.sync.open(sys.argv[1]) as store:
    assert store.verify() == []
    store.create_conversation("agent", "ann", id=sys.argv[2])
"""


def test_many_processes_may_create_one_store_at_once(database):
    """All succeed, each step is applied once."""
    running = [_run(_OPENER, database.url, f"c{number}") for number in range(8)]
    assert [process.wait(60) for process in running] == [0] * 8
    for process in running:
        process.stdout.close()
    with database.store() as store:
        assert store.stats()["conversations"] == 8
        assert store.execute("select count(*) from perdure_steps") == [(len(plan.steps(database.engine)),)]
        assert store.verify() == []


# -- kills -------------------------------------------------------------------------------------------------------------------

_KILLED = """
import os, signal, sys
import perdure.sync
from perdure.drivers.postgres import blocking
from perdure.drivers.sqlite import migrate
from perdure.schema import plan

def die():  # the clock is looked at when a step's statements have run and before they are recorded
    os.kill(os.getpid(), signal.SIGKILL)

migrate.system_clock = blocking.system_clock = die
if len(sys.argv) > 2:
    known = plan.steps
    step = plan.Step(len(known("sqlite")) + 1, "more", sys.argv[2], "hash")
    plan.steps = lambda dialect: (*known(dialect), step)
perdure.sync.open(sys.argv[1])
"""
_MORE = "create table more_of_it (a integer); insert into more_of_it values (1)"


def _killed(database, *arguments):
    process = _run(_KILLED, database.url, *arguments)
    assert process.wait(60) == -signal.SIGKILL
    process.stdout.close()


def test_a_kill_while_the_schema_is_made_leaves_nothing(database):
    """The next open makes it."""
    _killed(database)
    assert database.catalog() in ([], ([], []))
    with database.store() as store:
        assert store.verify() == []
        store.create_conversation("agent", "ann")


def _with_another_step(monkeypatch, text=_MORE):
    known = plan.steps
    monkeypatch.setattr(
        plan, "steps", lambda dialect: (*known(dialect), plan.Step(len(known(dialect)) + 1, "more", text, "hash"))
    )


def test_a_kill_while_a_step_is_applied_leaves_the_older_schema(database, monkeypatch):
    """With its data; the next open finishes the step, once."""
    with database.store() as store:
        store.create_conversation("agent", "ann", id="c")
    before = database.catalog()
    _killed(database, _MORE)
    assert database.catalog() == before
    with database.store() as store:
        assert store.get_conversation("c") is not None
    _with_another_step(monkeypatch)
    for _ in range(2):
        with database.store() as store:
            assert store.execute("select a from more_of_it") == [(1,)]
            assert store.get_conversation("c") is not None
            assert store.execute("select number, name from perdure_steps order by number desc limit 1") == [
                (len(plan.steps(database.engine)), "more")
            ]


def test_a_step_that_fails_leaves_the_older_schema(database, monkeypatch):
    """All of it is one transaction."""
    with database.store() as store:
        store.create_conversation("agent", "ann", id="c")
    before = database.catalog()
    with monkeypatch.context() as patch:
        _with_another_step(patch, "create table more_of_it (a integer); select no_such_function()")
        with pytest.raises(perdure.PerdureError):
            database.store().initialize()
    assert database.catalog() == before
    with database.store() as store:
        assert store.get_conversation("c") is not None


# -- older and newer ---------------------------------------------------------------------------------------------------------


def test_an_empty_database_is_not_filled_against_the_callers_will(database):
    """``create_schema=False`` says what is missing and makes nothing."""
    for _ in range(2):
        with pytest.raises(SchemaBehind, match=r"lacks [0-9]+ step"):
            database.store().initialize(create_schema=False)
    assert database.catalog() in ([], ([], []))


def test_an_older_database_is_not_migrated_against_the_callers_will(database, monkeypatch):
    """``run_migrations=False`` neither; ``create_schema=False`` is about new ones only."""
    with database.store() as store:
        store.create_conversation("agent", "ann", id="c")
    before = database.catalog()
    _with_another_step(monkeypatch)
    with pytest.raises(SchemaBehind):
        database.store().initialize(run_migrations=False)
    assert database.catalog() == before
    store = database.store().initialize(check_version=False)
    assert store.verify() == [f"step {len(plan.steps(database.engine))} (more) was not applied"]
    store.close()
    database.store().initialize(create_schema=False).close()
    assert database.catalog() != before


def test_a_newer_database_is_left_untouched(database):
    """To the last byte, however it is opened."""
    with database.store() as store:
        store.create_conversation("agent", "ann", id="c")
    later = len(plan.steps(database.engine)) + 1
    database.script(f"insert into perdure_steps (number, name, hash, applied_at) values ({later}, 'later', 'x', 1)")
    before = database.path.read_bytes() if database.engine == "sqlite" else database.catalog()
    for options in ({}, {"create_schema": False}, {"run_migrations": False}):
        with pytest.raises(SchemaAhead, match=f"schema {later}") as ahead:
            database.store().initialize(**options)
        assert "install" in ahead.value.hint
    with pytest.raises(SchemaAhead):
        perdure.sync.open(database.url)
    with pytest.raises(SchemaAhead):
        database.store().get_conversation("c")
    if database.engine == "sqlite":
        assert database.path.read_bytes() == before
        assert [file.name for file in database.path.parent.iterdir()] == [database.path.name]
    else:
        assert database.catalog() == before


def test_a_database_with_other_steps_is_damaged(database):
    """Somebody else's schema is not built upon."""
    with database.store():
        pass
    database.script("update perdure_steps set hash = 'other' where number = 1")
    with pytest.raises(Damaged, match="step 1"):
        database.store().initialize()


# -- verify ------------------------------------------------------------------------------------------------------------------


def test_verify_names_what_is_missing_and_changes_nothing(database):
    """Tables, indexes, steps, and on PostgreSQL row-level security."""
    with database.store() as store:
        assert store.verify() == []
        database.script("drop index messages_by_id; drop table token_totals; drop index forks_by_source")
        expected = {
            "index messages_by_id is missing",
            "table token_totals is missing",
            "index forks_by_source is missing",
        }
        if database.engine == "postgres":
            database.script(
                "alter table messages no force row level security; alter table forks disable row level security"
            )
            expected |= {f"table {name} is not under forced row-level security" for name in ("messages", "forks")}
        broken = database.catalog()
        assert set(store.verify()) == expected
        assert set(store.doctor()["problems"]) >= expected
        database.script("delete from perdure_steps")
        steps = {f"step {step.number} ({step.name}) was not applied" for step in plan.steps(database.engine)}
        assert set(store.verify()) == {*expected, *steps}
        assert database.catalog() == broken


def test_verify_of_an_empty_database_names_everything(database):
    """Without making any of it."""
    store = database.store().initialize(check_version=False)
    text = plan.schema_sql(database.engine)
    found = store.verify()
    store.close()
    assert len(found) == len(plan.objects(text)) + len(plan.steps(database.engine))
    assert database.catalog() in ([], ([], []))


def test_a_missing_table_is_reported_by_verbs_and_doctor(database):
    """As a schema that lacks a part, not as a slip in a statement."""
    with database.store() as store:
        store.create_conversation("agent", "ann", id="c")
        store.add_message("c", "user", "zebra")
        database.script("drop table text_documents" + (" cascade" if database.engine == "postgres" else ""))
        with pytest.raises(SchemaBehind):
            store.search_messages("zebra")
        assert "table text_documents is missing" in store.doctor()["problems"]
        database.script("drop table messages" + (" cascade" if database.engine == "postgres" else ""))
        assert "table messages is missing" in store.doctor()["problems"]


def test_nothing_of_a_store_remains_beside_its_file(tmp_path):
    """One file after the last close."""
    with perdure.sync.open(tmp_path / "one.db") as store:
        store.create_conversation("agent", "ann")
    assert [file.name for file in tmp_path.iterdir()] == ["one.db"]


def test_verify_names_a_missing_column(tmp_store_path):
    with perdure.sync.open(tmp_store_path) as store:
        store.execute("alter table message_versions drop column actor")
        assert store.verify() == ["column actor of message_versions is missing"]


def test_verify_names_a_missing_column_and_a_missing_policy(fresh_postgres_url):
    with perdure.sync.open(fresh_postgres_url) as store:
        store.execute("alter table message_versions drop column actor")
        store.execute("drop policy tenant_rows on forks")
        assert store.verify() == [
            "column actor of message_versions is missing",
            "table forks has no policy for tenants",
        ]
