"""The walk over every statement that the rooms ever say: it parses, stays in its tenant, reads no big table whole, is used."""

import asyncio
import itertools
import re
from collections import defaultdict
from pathlib import Path

import apsw
import psycopg
import pytest

import perdure
from perdure.drivers.book import Statement, book
from perdure.drivers.postgres.filters import render as render_postgres
from perdure.drivers.sqlite.filters import render as render_sqlite
from perdure.rooms.checkpoints import codec, tree
from perdure.rooms.checkpoints.frames import TaskWrite
from perdure.rooms.items.values import Near, Vector
from perdure.rooms.items.vectors import pack
from perdure.schema.plan import schema_sql
from perdure.services.checkpoint_frames import FrameCheckpoints
from perdure.services.items import ItemStore
from perdure.values import filters
from perdure.values.config import PersistenceConfig

SOURCE = Path(perdure.__file__).parent
DIALECTS = ("sqlite", "postgres")
BIG = re.compile(
    r"messages|conversations|changes|text_documents|text_postings|text_terms|message_versions|items|item_vectors"
    r"|checkpoints|checkpoint_threads|checkpoint_tags|checkpoint_items|checkpoint_segments|checkpoint_runs"
    r"|checkpoint_writes"
)
NAMES = sorted({*book("sqlite"), *book("postgres")})

_ORDERS = ("last_message_at", "created_at", "message_count", "cost")
_CONDITIONS = (
    "user_id", "agent_id", "created_after", "created_before", "min_messages", "max_messages", "title_contains",
    "participant", "any_tags", "tags", "where",
)  # fmt: skip


_SEED = """
insert into conversations (tenant, id, agent_id, user_id, metadata, created_at, updated_at, active_at)
  select 'default', 'c' || n, 'a' || n % 7, 'u' || n % 50, '{}', n, n, n from generate_series(1, 2000) n;
insert into messages (tenant, conversation, seq, id, role, body, form, created_at)
  select 'default', 1 + n % 2000, 1 + n / 2000, 'm' || n, 'user', 'text', 0, n from generate_series(0, 9999) n;
insert into changes (tenant, kind, verb, object, at)
  select 'default', 'message', 'add', 'm' || n, n from generate_series(0, 9999) n;
insert into message_versions (tenant, message, version, role, body, form, verb, at)
  select 'default', 1 + n, 1, 'user', 'text', 0, 'edit', n from generate_series(0, 1999) n;
insert into forks (tenant, conversation, low_seq, high_seq, source)
  select 'default', n, 1, 5, n - 1 from generate_series(2, 200) n;
insert into text_documents (doc, tenant, scope, conversation, version, length, terms)
  select n, 'default', 1 + n % 50, 1 + n % 2000, 1, 3, ' a:3 ' from generate_series(1, 10000) n;
insert into text_postings (tenant, term, scope, doc)
  select 'default', 't' || n % 700, 1 + n % 50, n from generate_series(1, 10000) n;
insert into text_terms (tenant, scope, term, documents)
  select 'default', n % 51, 't' || n / 51, 1 from generate_series(0, 19999) n;
insert into items (tenant, namespace, key, value, created_at, updated_at, expires_at)
  select 'default', 'n' || n % 500, 'k' || n, '{}', n, n, case n % 9 when 0 then n end from generate_series(1, 9999) n;
insert into item_vectors (tenant, item, space, path, vector)
  select 'default', n, 's', '$', '\\x00' from generate_series(1, 9999) n;
insert into checkpoint_threads
  (tenant, id, space, version, domain, next_position, next_log, in_order, created_at, updated_at, mac)
  select 'default', 't' || n, '', 1, 'plain', 9, 9, 1, n, n, '' from generate_series(1, 2000) n;
insert into checkpoints (tenant, thread, position, id, branch, status, run_id, size, created_at, mac)
  select 'default', 1 + n % 2000, n / 2000, 'p' || n, 0, 0, 'r' || n % 900, 9, n, '' from generate_series(0, 9999) n;
insert into checkpoint_tags (tenant, thread, tag, position)
  select 'default', 1 + n % 2000, 'g' || n % 7, n / 2000 from generate_series(0, 9999) n;
insert into checkpoint_items (tenant, thread, log, ordinal, payload)
  select 'default', 1 + n % 2000, 0, n / 2000, '' from generate_series(0, 9999) n;
insert into checkpoint_segments (tenant, domain, hash, payload)
  select 'default', 'plain', decode(md5(n::text), 'hex'), '' from generate_series(1, 9999) n;
insert into checkpoint_runs (tenant, thread, log, low, high, segment, mac)
  select 'default', 1 + n % 2000, 0, n / 2000 * 64, n / 2000 * 64 + 64, n, '' from generate_series(1, 9999) n;
insert into checkpoint_writes (tenant, thread, checkpoint, task_id, idx, task_path, payload)
  select 'default', 1 + n % 2000, 'p' || n, 'k', 0, '', '' from generate_series(0, 9999) n;
analyze
"""
"""Enough rows for the planner to see that a tenant is no choice."""


def _subsets(flags):
    flags = sorted(flags)
    return [frozenset(chosen) for size in range(len(flags) + 1) for chosen in itertools.combinations(flags, size)]


def _combinations(statement):
    """The sets of flags to try: all of them, except where flags exclude each other."""
    name, flags = statement.name, statement.flags
    if name == "conversations.page":
        kinds = itertools.product(_ORDERS, ("ascending", "descending"), ((), ("cursor",)))
        extras = [(), *((condition,) for condition in _CONDITIONS), ("user_id", "tags"), _CONDITIONS]
        return [frozenset({order, way, *cursor, *extra}) for order, way, cursor in kinds for extra in extras]
    if name == "conversations.report":
        groups = itertools.product(*((f"by_{group}", f"no_{group}") for group in ("user", "agent", "model", "day")))
        extras = _subsets({"user_id", "agent_id", "model", "since", "until"})
        return [frozenset({*group, *extra}) for group in groups for extra in (extras[0], *extras[1:6], extras[-1])]
    if name == "conversations.messages":
        return [frozenset({way, *roles}) for way in ("ascending", "descending") for roles in ((), ("roles",))]
    if name == "checkpoints.put_write":
        return [frozenset({way}) for way in ("keep", "replace")]
    assert len(flags) <= 5, f"{name} has many flags: say here which go together"
    return _subsets(flags)


def _texts(statement, flags):
    """The text as it is sent, with a caller's filter in its place."""
    text = statement.variant(flags).text
    if "{where}" in text:
        tree = filters.parse({"a": {"$gt": 1}, "b": {"$in": ["x", "y"]}}, {}, "f")
        place = "i.value" if statement.name.startswith("items.") else "(c.metadata -> 'context')"
        if statement.dialect == "sqlite":
            fragment, _ = render_sqlite(tree, {}, place, "w")
        else:
            fragment, _ = render_postgres(tree, {}, f"cast({place} as jsonb)", "w")
        text = text.replace("{where}", fragment)
    return text


@pytest.fixture(scope="module")
def sqlite():
    """A connection with the schema in memory."""
    connection = apsw.Connection(":memory:")
    connection.execute(schema_sql("sqlite"))
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def postgres(postgres_server, postgres_template_name):
    """A connection as the stores' role; the planner may read a table whole only where it has no other way."""
    with psycopg.connect(postgres_server.create_database(postgres_template_name), autocommit=True) as connection:
        connection.execute("set search_path to perdure")
        connection.execute("set perdure.tenant to 'default'")
        connection.execute(_SEED)
        connection.execute("set enable_seqscan to off")
        yield connection


def _sqlite_plan(connection, text):
    names = set(re.findall(r"(?<![:\w]):(\w+)", text))
    return [row[3] for row in connection.execute("explain query plan " + text, dict.fromkeys(names))]


def _postgres_plan(connection, text):
    places: dict[str, int] = {}

    def number(found):
        return f"${places.setdefault(found[1], len(places) + 1)}"

    numbered = re.sub(r"%\((\w+)\)s", number, text).replace("%%", "%")
    if re.match(r"\s*(select|insert|update|delete|with)", numbered) is None:
        raise AssertionError(f"what kind of statement is this? {numbered}")
    (plan,) = connection.execute("explain (generic_plan, format json) " + numbered).fetchone()
    return plan[0]["Plan"]


# -- each statement ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_parses_on_both_engines(name, sqlite, postgres):
    """With every set of flags, on the real schema."""
    for dialect in DIALECTS:
        statement = book(dialect)[name]
        for flags in _combinations(statement):
            text = _texts(statement, flags)
            if dialect == "sqlite":
                assert _sqlite_plan(sqlite, text) is not None
            else:
                assert _postgres_plan(postgres, text)


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_says_what_it_is_for(name):
    """In one line that is a sentence."""
    for dialect in DIALECTS:
        statement = book(dialect)[name]
        assert re.fullmatch(r"[A-Z].{8,}\.", statement.does), f"{name} ({dialect}): {statement.does!r}"


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_stays_in_its_tenant(name):
    """Each table that has a tenant is bound to it, or the statement is one of the system's."""
    for dialect in DIALECTS:
        statement = book(dialect)[name]
        for flags in _combinations(statement):
            variant = statement.variant(flags)
            assert ("tenant" in variant.params) is not statement.system, f"{name} ({dialect}) {sorted(flags)}"


def _sqlite_wholes(statement, flags, connection):
    """The big tables that SQLite would read whole."""
    text = _texts(statement, flags)
    tables = {
        alias or table: table
        for table, alias in re.findall(
            r"(?:from|join|update|into) (\w+)(?: (?!where|set|on|join|left|order|limit)(\w+))?", text
        )
    }
    found = []
    for step in _sqlite_plan(connection, text):
        verb = re.match(r"(SCAN|SEARCH) (\w+)(.*)", step)
        table = verb and tables.get(verb[2], verb[2])
        if verb and BIG.fullmatch(table) and (verb[1] == "SCAN" or _only_tenant(verb[3], text)):
            found.append(f"{table}: {step}")
    return found


def _only_tenant(condition, text):
    """Whether an index is used for the tenant alone, and not to read the first few rows in its order."""
    bound = re.findall(r"\(?(\w+)[=<>]", condition)
    first_few = "limit :" in text or "limit 1" in text or "max(" in text
    return set(bound) == {"tenant"} and not first_few and "_deleted" not in condition


def _postgres_wholes(statement, flags, connection):
    """The big tables that PostgreSQL would read whole."""
    limited = "limit " in statement.variant(flags).text

    def walk(node):
        table = node.get("Relation Name", "")
        used = " ".join(node.get(part, "") for part in ("Index Cond", "Recheck Cond"))
        columns = set(re.findall(r"\b([a-z_]+)\b(?:\)*::\w+)? (?:=|<|>|<=|>=|= ANY)", used))
        if BIG.fullmatch(table) and node["Node Type"] != "ModifyTable" and "_deleted" not in node.get("Index Name", ""):
            whole = node["Node Type"] == "Seq Scan" or (columns <= {"tenant"} and "ROW" not in used and not limited)
            if whole:
                yield f"{table}: {node['Node Type']} {node.get('Index Name', '')} {used}"
        for inner in node.get("Plans", []):
            yield from walk(inner)

    return list(walk(_postgres_plan(connection, _texts(statement, flags))))


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_reads_no_big_table_whole(name, sqlite, postgres):
    """Nor all of a tenant's rows, unless it says why."""
    wholes = defaultdict(set)
    for dialect in DIALECTS:
        statement = book(dialect)[name]
        look = _sqlite_wholes if dialect == "sqlite" else _postgres_wholes
        for flags in _combinations(statement):
            for whole in look(statement, flags, sqlite if dialect == "sqlite" else postgres):
                wholes[dialect].add(whole)
    if book("sqlite")[name].scan or book("postgres")[name].scan:
        return
    assert dict(wholes) == {}, name


# -- all of them -------------------------------------------------------------------------------------------------------------


def _names_in_source():
    """Names of statements in string literals of the package, and patterns of f-strings that make some."""
    literals, patterns = set(), []
    rooms = {name.split(".")[0] for name in NAMES}
    for path in SOURCE.rglob("*.py"):
        if "testing" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        for prefix, name in re.findall(r'(f?)"((?:' + "|".join(rooms) + r')\.[\w{}]+)"', text):
            if prefix and "{" in name:
                patterns.append(re.compile(re.sub(r"\\{\w+\\}", r"\\w+", re.escape(name))))
            else:
                literals.add(name)
    return literals, patterns


def test_each_statement_is_used_and_each_used_one_is_there():
    """No dead SQL, no misspelt name."""
    literals, patterns = _names_in_source()
    unused = [name for name in NAMES if name not in literals and not any(p.fullmatch(name) for p in patterns)]
    assert unused == []
    assert sorted(literals - set(NAMES)) == []
    for pattern in patterns:
        assert any(pattern.fullmatch(name) for name in NAMES), pattern


def test_both_engines_have_every_statement():
    """One name, one meaning."""
    assert sorted(book("sqlite")) == sorted(book("postgres"))


def test_less_than_a_third_of_the_statements_differ_between_engines(capsys):
    """Else the portable subset would have failed."""
    different = [
        name
        for name in NAMES
        if book("sqlite")[name].lines != book("postgres")[name].lines
        or any({"sqlite", "postgres"} & needs for _, needs in book("sqlite")[name].lines)
    ]
    share = len(different) / len(NAMES)
    with capsys.disabled():
        print(f"\n{len(different)} of {len(NAMES)} statements ({share:.0%}) have lines of one engine only")
    assert share < 1 / 3


# -- what the suite executes -------------------------------------------------------------------------------------------------


async def _items(store, clock):
    """The part of the scenario that keeps documents under namespaces."""
    items = ItemStore(store)
    vector = Vector("$", pack([1.0, 2.0], 2, "vector"))
    await items.put(("a", "b"), "k", {"x": 1}, minutes=1, space="s", vectors=[vector])
    await items.get(("a", "b"), "k")
    await items.search(("a",), filter={"x": 1})
    await items.search(("a",), filter={"x": {"$lt": float("inf")}})
    await items.search(("a",), near=Near("s", vector.data))
    await items.namespaces()
    await items.delete(("a", "b"), "other")
    clock["now"] += 60_000_000
    assert await items.sweep() == 1


async def _checkpoints(store):
    """The part of the scenario that saves states: on branches, under runs, sealed with a key that is changed."""
    c = perdure.Checkpointer(store, perdure.CheckpointConfig(max_checkpoints_per_thread=1, keep_minimum=0))
    states = [{"list": [f"{n} {at}" for at in range(70)], "text": "x" * 50 + str(n)} for n in range(8)]
    ids = [await c.save("t", state, tags=["a"], run_id="r1" if n > 5 else None) for n, state in enumerate(states)]
    await c.create_branch(ids[7], "side")
    await c.save("t", {"n": 1}, branch="side", idempotency_key="k", run_id="r2")
    await c.save("t", {"n": 1}, branch="side", idempotency_key="k", run_id="r2")
    await c.latest_state("t")
    await c.find_checkpoint("t", ["a"])
    await c.restore_at("t", "2100-01-01")
    await c.list_threads()
    assert len([one async for one in perdure.Checkpointer(store).replay("t")]) == 8
    assert (await c.merge("t", "main", "side", resolve="ours")).base_id == ids[7]
    assert await c.delete_for_runs(["r2"]) == 1
    for checkpoint_id in ids:
        await c.untag(checkpoint_id, "a")
    await c.tag(ids[0], "b")
    await c.copy_thread("t", "u")
    assert (await c.apply_retention("t"))[0].removed
    await c.import_thread(await c.export_thread("t"), "v")
    await c.delete_thread("t")
    assert (await c.verify()).problems == ()
    sealed = perdure.Checkpointer(store, perdure.CheckpointConfig(encryption_key=b"1" * 32))
    await sealed.save("u", {"n": 1})
    await sealed.rotate_keys(b"2" * 32)
    assert (await sealed.verify()).problems == ()


async def _frames(store):
    """The part of the scenario that keeps the checkpoints of a framework."""
    frames = FrameCheckpoints(store)
    parts = tree.take_apart({"a": "x" * 40}, codec.Registry())
    write = TaskWrite("task", 0, "", b"payload")
    for number, namespace in enumerate(("", "", "", "inner")):
        parent = f"c{number - 1}" if number else None
        await frames.put("f", namespace, f"c{number}", parent, {}, lambda _: (parts, []), "run")
        await frames.put_writes("f", namespace, f"c{number}", [write], replace=number % 2 == 0)
    await frames.put("f", "", "c1", "c0", {}, lambda _: (parts, []), "run")
    assert (await frames.get("f", "", "c1")).writes == (write,)
    found = [one.found.row.id async for one in frames.list(None, None, None, lambda *_: True, None)]
    assert sorted(found) == ["c0", "c1", "c2", "c3"]
    await frames.ancestors("f", "", "c2", ["a"])
    await frames.copy_thread("f", "g")
    await frames.keep_newest("g", lambda *_: set())
    await frames.delete_for_runs(["run"], lambda *_: set())
    await frames.delete_thread("g")


async def _live(config, clock):
    """A scenario that comes by every statement."""
    async with perdure.Store(config, clock=lambda: clock["now"]) as store:
        await store.create_conversation("agent", "ann", {"title": "t", "tags": ["a"], "participants": ["p"]}, id="c")
        await store.create_conversation("agent", "ann", id="k", idempotency_key="k")
        await store.update_conversation("c", {"title": "u", "tags": ["b"]})
        usage = {"input_tokens": 1, "model": "m"}
        await store.add_message("c", "user", "zebra one", id="m1", token_usage=usage, idempotency_key="k")
        await store.add_messages("c", [{"role": "user", "content": f"zebra {n}", "id": f"x{n}"} for n in range(25)])
        await store.flush(
            "c", [{"role": "user", "content": "zebra one", "id": "m1"}, {"role": "user", "content": "new"}]
        )
        await store.ensure_conversation("later", "agent", "ann")
        await store.add_message("later", "user", "x")
        await store.get_messages("c", roles=["user"], last=3)
        await store.get_message("m1")
        await store.search_messages("zebra", user_id="ann")
        await store.edit_message("m1", "giraffe", token_usage=usage)
        await store.message_history("m1")
        await store.fork_conversation("c", 5, "fork")
        await store.get_messages("fork")
        await store.add_message("fork", "user", "zebra fork")
        await store.search_messages("zebra", conversation_id="fork")
        await store.query_conversations("ann", filters={"tags": ["b"], "context": {"x": {"$exists": False}}})
        await store.token_report("model")
        await store.import_conversations([chunk async for chunk in store.export_lines()])
        await store.delete_message("x1")
        await store.erase_message("x2")
        await store.delete_conversation("c")
        await store.get_message("m1")
        await store.search_messages("zebra", limit=2)
        await store.create_conversation("agent", "ann", id="e")
        await store.add_messages("e", [{"role": "user", "content": "same"}] * 50)
        await store.search_messages("same", limit=2)
        await store.fork_conversation("e", 2, "e2")
        await store.erase_conversation("e")
        await store.delete_conversation("fork")
        [change async for change in store.all_changes()]
        await store.latest_change()
        await store.trail("conversation", "c")
        await store.rebuild_text()
        await store.stats()
        await _items(store, clock)
        await _checkpoints(store)
        await _frames(store)
        clock["now"] += 90_000 * 1_000_000
        await store.run_chores()
        await store.doctor()


def test_each_statement_is_executed(tmp_path, fresh_postgres_url, monkeypatch):
    """On both engines, by the verbs."""
    executed = {dialect: set() for dialect in DIALECTS}
    original = Statement.variant

    def recording(statement, flags):
        executed[statement.dialect].add(statement.name)
        return original(statement, flags)

    monkeypatch.setattr(Statement, "variant", recording)
    for url in (f"sqlite:///{tmp_path / 'walk.db'}", fresh_postgres_url):
        asyncio.run(_live(PersistenceConfig(url, pool_size=2), {"now": 1_700_000_000_000_000}))
    for dialect in DIALECTS:
        assert sorted(set(NAMES) - executed[dialect]) == [], f"never executed on {dialect}"


@pytest.mark.parametrize(
    ("flags", "index"),
    [
        ({"user_id"}, "conversations_by_user"),
        ({"agent_id"}, "conversations_by_agent"),
        (set(), "conversations_by_recency"),
    ],
)
def test_a_page_by_recency_is_read_from_its_index_in_order(sqlite, postgres, flags, index):
    """The most asked question of all: no sort and no look at conversations that are not on the page."""
    asked = frozenset({*flags, "last_message_at", "descending"})
    plan = str(_sqlite_plan(sqlite, _texts(book("sqlite")["conversations.page"], asked)))
    assert index in plan
    assert "TEMP B-TREE" not in plan
    plan = str(_postgres_plan(postgres, _texts(book("postgres")["conversations.page"], asked)))
    assert index in plan
    assert "'Sort'" not in plan
