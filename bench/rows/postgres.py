"""P4: adding and loading on PostgreSQL."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection

import perdure
from bench import data, lanes
from bench.data import Said
from bench.places import describe, memory_folder
from bench.rounds import Check, Lane, Row, Spent, Watch, faster, interleave, times
from bench.rows import Mode
from perdure.drivers.book import book
from perdure.testing.postgres import PostgresServer

_TASKS = 64
_EACH = 8
_LOADED = 10_000
_DAY = 86_400_000_000
_ENTER = "select set_config('perdure.tenant', %s, true)"
_BEGIN = "begin"


def adds_and_loads(mode: Mode) -> Row:
    """P4: 64 tasks that add beside 64 connections that do the same statements; ``add_messages`` beside COPY."""
    corpus = data.messages(512)
    with memory_folder() as folder, PostgresServer(folder / "cluster", fsync=True) as server, ExitStack() as open_ones:
        enter = open_ones.enter_context
        urls = [server.create_database() for _ in range(5)]
        found = interleave({
            "perdure, 64 tasks": enter(_awaited(urls[0], corpus)),
            "psycopg, 64 connections": enter(_raw(urls[1], corpus, _transaction)),
            "psycopg, 64 connections, pipelines": enter(_raw(urls[2], corpus, _pipelined)),
        }, mode.rounds)  # fmt: skip
        loaded = interleave({
            "perdure add_messages": enter(_loading(urls[3], corpus)),
            "raw COPY": enter(_copying(urls[4], server.admin_url(urls[4]), corpus)),
        }, min(mode.rounds, 11))  # fmt: skip
        _check_alike(server, urls[0], urls[1])
        _check_alike(server, urls[3], urls[4])
        place = describe(folder)
        version = _version(server)
    mine = "perdure, 64 tasks"
    checks = [
        Check("64 tasks, times as fast as psycopg with 64 connections", *faster(found, mine, "psycopg, 64 connections")[:2], goal=1.2, sense="at least", key="P4.adds"),
        Check("the same beside psycopg with pipelines", *faster(found, mine, "psycopg, 64 connections, pipelines")[:2]),
        Check("bulk load, speed as a part of raw COPY's", *faster(loaded, "perdure add_messages", "raw COPY")[:2], goal=0.8, sense="at least", key="P4.bulk"),
    ]  # fmt: skip
    setting = (
        f"PostgreSQL {version} on the same machine, data {place}, fsync on; {mode.rounds} rounds of {_TASKS * _EACH} messages "
        f"in {_TASKS} conversations of different users, so that the connections never wait for each other's rows; "
        f"loads of {_LOADED:,} messages; COPY runs as superuser, as row-level security refuses it to others"
    )
    notes = [
        "perdure and the raw limit were compared after the run: the same messages, totals, entries and report rows."
    ]
    return Row("P4", "PostgreSQL", setting, checks, times(found | loaded), notes)


def _version(server: PostgresServer) -> str:
    with psycopg.connect(server.admin_url()) as connection:
        return str(connection.info.parameter_status("server_version")).split()[0]


# -- perdure -------------------------------------------------------------------------------------------------------------


async def _opened(url: str, talks: int) -> perdure.Store:
    store = await perdure.Store(url).initialize()
    for number in range(talks):
        await store.create_conversation("agent", f"user-{number}", id=lanes.talk(number))
    return store


async def _prepared(url: str, talks: int) -> None:
    await (await _opened(url, talks)).close()


@contextmanager
def _awaited(url: str, corpus: list[Said]) -> Iterator[Lane]:
    said = data.cycle(corpus)

    async def agent(store: perdure.Store, number: int, batch: list[Said]) -> None:
        for one in batch:
            await store.add_message(lanes.talk(number), one.role, one.text, token_usage=one.usage)

    async def work(store: perdure.Store) -> Spent:
        batches = [[next(said) for _ in range(_EACH)] for _ in range(_TASKS)]
        watch = Watch()
        await asyncio.gather(*(agent(store, number, batch) for number, batch in enumerate(batches)))
        return watch.each(_TASKS * _EACH)

    with asyncio.Runner() as runner:
        store = runner.run(_opened(url, _TASKS))
        try:
            yield lambda: runner.run(work(store))
        finally:
            runner.run(store.close())


@contextmanager
def _loading(url: str, corpus: list[Said]) -> Iterator[Lane]:
    said = data.cycle(corpus)

    async def work(store: perdure.Store) -> Spent:
        drafts = [next(said).draft for _ in range(_LOADED)]
        watch = Watch()
        await store.add_messages("talk-0", drafts)
        return watch.each(_LOADED)

    with asyncio.Runner() as runner:
        store = runner.run(_opened(url, 1))
        try:
            yield lambda: runner.run(work(store))
        finally:
            runner.run(store.close())


# -- psycopg by hand -------------------------------------------------------------------------------------------------------


def _text(name: str) -> str:
    return book("postgres")[name].variant(frozenset()).text


_TAKE = _text("conversations.take_seqs")
_ADD = _text("conversations.add_message")
_NOTE = _text("changes.note")
_REPORT = _text("conversations.add_to_report")


def _spent(one: Said, now: int) -> dict[str, Any]:
    return {
        "tenant": "default", "now": now, "input_tokens": one.input_tokens, "output_tokens": one.output_tokens,
        "total_tokens": one.total_tokens, "cost": one.cost_nanos,
    }  # fmt: skip


def _message(one: Said, message_id: str, taken: Any, now: int) -> dict[str, Any]:
    return {
        **_spent(one, now), "conversation": taken[0], "seq": taken[1], "id": message_id, "role": one.role,
        "name": None, "body": one.text, "form": 0, "metadata": None, "model": one.model, "parent_id": None, "created_at": now,
    }  # fmt: skip


def _entry(name: str, message_id: str, now: int) -> dict[str, Any]:
    return {
        "tenant": "default", "kind": "message", "verb": "add", "object": message_id, "parent": name,
        "actor": None, "reason": None, "now": now,
    }  # fmt: skip


def _reported(one: Said, taken: Any, now: int) -> dict[str, Any]:
    return {
        **_spent(one, now), "user_id": taken[2], "agent_id": taken[3], "model": one.model, "day": now // _DAY,
        "messages": 1,
    }  # fmt: skip


async def _transaction(connection: AsyncConnection[Any], name: str, message_id: str, one: Said) -> None:
    """One message in one transaction, a round trip for each statement."""
    now = time.time_ns() // 1_000
    await connection.execute(_BEGIN)
    await connection.execute(_ENTER, ("default",))
    cursor = await connection.execute(_TAKE, {**_spent(one, now), "id": name, "count": 1, "latest": now})
    taken = await cursor.fetchone()
    await connection.execute(_ADD, _message(one, message_id, taken, now))
    await connection.execute(_NOTE, _entry(name, message_id, now))
    await connection.execute(_REPORT, _reported(one, taken, now))
    await connection.execute("commit")


async def _pipelined(connection: AsyncConnection[Any], name: str, message_id: str, one: Said) -> None:
    """The same in two round trips: what does not need an answer is sent together."""
    now = time.time_ns() // 1_000
    async with connection.pipeline() as pipeline:
        await connection.execute(_BEGIN)
        await connection.execute(_ENTER, ("default",))
        cursor = await connection.execute(_TAKE, {**_spent(one, now), "id": name, "count": 1, "latest": now})
        await pipeline.sync()
        taken = await cursor.fetchone()
        await connection.execute(_ADD, _message(one, message_id, taken, now))
        await connection.execute(_NOTE, _entry(name, message_id, now))
        await connection.execute(_REPORT, _reported(one, taken, now))
        await connection.execute("commit")


@contextmanager
def _raw(url: str, corpus: list[Said], add: Any) -> Iterator[Lane]:
    said = data.cycle(corpus)
    connections: list[AsyncConnection[Any]] = []

    async def connect() -> None:
        await _prepared(url, _TASKS)
        for _ in range(_TASKS):
            connection = await AsyncConnection.connect(url, autocommit=True)
            await connection.execute("set search_path to perdure")
            connections.append(connection)

    async def agent(number: int, todo: list[tuple[str, Said]]) -> None:
        for message_id, one in todo:
            await add(connections[number], lanes.talk(number), message_id, one)

    async def work() -> Spent:
        todo = [[(id, next(said)) for id in data.ids(_EACH)] for _ in range(_TASKS)]
        watch = Watch()
        await asyncio.gather(*(agent(number, batch) for number, batch in enumerate(todo)))
        return watch.each(_TASKS * _EACH)

    async def disconnect() -> None:
        for connection in connections:
            await connection.close()

    with asyncio.Runner() as runner:
        runner.run(connect())
        try:
            yield lambda: runner.run(work())
        finally:
            runner.run(disconnect())


_COPY_MESSAGES = (
    "copy messages (tenant, conversation, seq, id, role, body, form, input_tokens, output_tokens, total_tokens, model, "
    "cost, created_at) from stdin"
)
_COPY_ENTRIES = "copy changes (tenant, kind, verb, object, parent, at) from stdin"


@contextmanager
def _copying(url: str, admin_url: str, corpus: list[Said]) -> Iterator[Lane]:
    """The same rows by COPY, and the totals by one update and one upsert, in one transaction."""
    asyncio.run(_prepared(url, 1))
    said = data.cycle(corpus)
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute("set search_path to perdure")

        def lane() -> Spent:
            todo = [(id, next(said)) for id in data.ids(_LOADED)]
            watch = Watch()
            with connection.transaction():
                _copy(connection, todo)
            return watch.each(_LOADED)

        yield lane


def _copy(connection: Connection[Any], todo: list[tuple[str, Said]]) -> None:
    now = time.time_ns() // 1_000
    sums = {
        "input_tokens": sum(one.input_tokens for _, one in todo), "cost": sum(one.cost_nanos for _, one in todo),
        "output_tokens": sum(one.output_tokens for _, one in todo),
    }  # fmt: skip
    sums["total_tokens"] = sums["input_tokens"] + sums["output_tokens"]
    given = {**sums, "tenant": "default", "now": now}
    cursor = connection.execute(_TAKE, {**given, "id": "talk-0", "count": len(todo), "latest": now})
    owner, seq, user_id, agent_id = cursor.fetchone() or ()
    with connection.cursor().copy(_COPY_MESSAGES) as copy:
        for place, (message_id, (role, text, made, out, cost, _, model)) in enumerate(todo, seq):
            copy.write_row(
                ("default", owner, place, message_id, role, text, 0, made, out, made + out, model, cost, now)
            )  # fmt: skip
    with connection.cursor().copy(_COPY_ENTRIES) as copy:
        for message_id, _ in todo:
            copy.write_row(("default", "message", "add", message_id, "talk-0", now))
    connection.execute(_REPORT, {
        **given, "user_id": user_id, "agent_id": agent_id, "model": "large-1", "day": now // _DAY, "messages": len(todo),
    })  # fmt: skip


# -- did both write the same? ------------------------------------------------------------------------------------------------

_COMPARED = (
    """select c.id, m.role, m.body, m.form, m.metadata, m.input_tokens, m.output_tokens, m.total_tokens, m.model, m.cost,
    count(*) from perdure.messages m join perdure.conversations c on c.ord = m.conversation and c.tenant = m.tenant
    group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 order by 1, 3, 2""",
    "select id, next_seq, message_count, input_tokens, output_tokens, total_tokens, cost from perdure.conversations order by id",
    "select kind, verb, parent, count(*) from perdure.changes group by 1, 2, 3 order by 1, 2, 3",
    """select user_id, agent_id, model, sum(messages), sum(input_tokens), sum(cost) from perdure.token_totals
    group by 1, 2, 3 order by 1, 2, 3""",
)


def _check_alike(server: PostgresServer, first: str, second: str) -> None:
    """Raises when two databases do not hold the same but for ids and times."""
    with psycopg.connect(server.admin_url(first)) as one, psycopg.connect(server.admin_url(second)) as other:
        for sql in _COMPARED:
            if one.execute(sql).fetchall() != other.execute(sql).fetchall():
                raise AssertionError(f"perdure and the raw limit did not write the same: {sql}")
