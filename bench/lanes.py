"""perdure and the raw limit as lanes that add messages to SQLite.

The raw limit is Python's own sqlite3 with perdure's own statements and perdure's own schema: the same rows, totals and
index entries, but no checks, no objects, no ids made, nothing but the writing.
"""

import asyncio
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import perdure
import perdure.sync
from bench import data
from bench.data import Said
from bench.rounds import Lane, Spent, Watch
from perdure.drivers.book import book

Durability = Literal["normal", "full"]
_NAME = re.compile(r"(?<![:\w]):([a-z_]+)")
_DAY = 86_400_000_000
_TAKE = (
    "count", "input_tokens", "output_tokens", "total_tokens", "cost", "latest", "now", "tenant", "id",
)  # fmt: skip


def talk(number: int) -> str:
    """The id of a conversation."""
    return f"talk-{number}"


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def create(path: Path, talks: int) -> None:
    """A fresh store with conversations, each of its own user when there are several."""
    with perdure.sync.open(url(path)) as store:
        for number in range(talks):
            store.create_conversation("agent", f"user-{number}", id=talk(number))


# -- perdure -------------------------------------------------------------------------------------------------------------


@contextmanager
def blocking(path: Path, corpus: list[Said], slice_: int) -> Iterator[Lane]:
    """One ``add_message`` after another, blocking."""
    create(path, 1)
    said = data.cycle(corpus)
    with perdure.sync.open(url(path)) as store:

        def lane() -> Spent:
            batch = [next(said) for _ in range(slice_)]
            watch = Watch()
            for one in batch:
                store.add_message("talk-0", one.role, one.text, token_usage=one.usage)
            return watch.each(slice_)

        yield lane


@contextmanager
def awaited(
    path: Path, corpus: list[Said], slice_: int, *, tasks: int = 1, talks: int = 1, durability: Durability = "normal"
) -> Iterator[Lane]:
    """``tasks`` tasks that each await one ``add_message`` after another, spread over some conversations."""
    create(path, talks)
    said = data.cycle(corpus)
    store = perdure.Store(perdure.PersistenceConfig(url(path), durability=durability))
    each = slice_ // tasks

    async def agent(number: int, batch: list[Said]) -> None:
        name = talk(number % talks)
        for one in batch:
            await store.add_message(name, one.role, one.text, token_usage=one.usage)

    async def work() -> Spent:
        batches = [[next(said) for _ in range(each)] for _ in range(tasks)]
        watch = Watch()
        if tasks == 1:
            await agent(0, batches[0])
        else:
            await asyncio.gather(*(agent(number, batch) for number, batch in enumerate(batches)))
        return watch.each(each * tasks)

    with asyncio.Runner() as runner:
        runner.run(store.initialize())
        try:
            yield lambda: runner.run(work())
        finally:
            runner.run(store.close())


# -- the raw limit ---------------------------------------------------------------------------------------------------------


def numbered(text: str, names: tuple[str, ...]) -> str:
    """A statement of the book with ``?1`` in place of ``:name``: sqlite3 binds tuples quicker than mappings."""
    return _NAME.sub(lambda found: f"?{names.index(found[1]) + 1}", text)


def statement(name: str, names: tuple[str, ...]) -> str:
    """A statement of perdure's book, for a tuple of the parameters named."""
    return numbered(book("sqlite")[name].variant(frozenset()).text, names)


class Raw:
    """The statements of one added message, put by hand."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self.db = db = sqlite3.connect(path, isolation_level=None)
        db.execute("pragma journal_mode = wal")
        db.execute(f"pragma synchronous = {durability}")
        db.execute("pragma foreign_keys = on")
        db.execute("pragma cache_size = -16384")  # as perdure has it
        self._take = statement("conversations.take_seqs", _TAKE)
        self._add = statement("conversations.add_message", (
            "tenant", "conversation", "seq", "id", "role", "name", "body", "form", "metadata", "input_tokens",
            "output_tokens", "total_tokens", "model", "cost", "parent_id", "created_at",
        ))  # fmt: skip
        self._note = statement(
            "changes.note", ("tenant", "kind", "verb", "object", "parent", "actor", "reason", "now")
        )  # fmt: skip
        self._report = statement("conversations.add_to_report", (
            "tenant", "user_id", "agent_id", "model", "day", "messages", "input_tokens", "output_tokens",
            "total_tokens", "cost",
        ))  # fmt: skip

    def add(self, conversation_id: str, message_id: str, one: Said) -> None:
        """The rows, totals and entries of one message."""
        execute = self.db.execute
        role, text, given, made, cost, _, model = one
        total = given + made
        now = time.time_ns() // 1_000
        owner, seq, user_id, agent_id = execute(
            self._take, (1, given, made, total, cost, now, now, "default", conversation_id)
        ).fetchone()
        execute(self._add, (
            "default", owner, seq, message_id, role, None, text, 0, None, given, made, total, model, cost, None, now,
        ))  # fmt: skip
        execute(self._note, ("default", "message", "add", message_id, conversation_id, None, None, now))
        execute(self._report, ("default", user_id, agent_id, model, now // _DAY, 1, given, made, total, cost))


@contextmanager
def raw(
    path: Path, corpus: list[Said], slice_: int, *, batch: int = 1, durability: Durability = "normal", talks: int = 1
) -> Iterator[Lane]:
    """The same rows by hand, ``batch`` messages a transaction."""
    create(path, talks)
    said = data.cycle(corpus)
    by_hand = Raw(path, durability)
    names = [talk(number) for number in range(talks)]

    def lane() -> Spent:
        todo = [(names[i % talks], id, next(said)) for i, id in enumerate(data.ids(slice_))]
        execute, add = by_hand.db.execute, by_hand.add
        watch = Watch()
        for first in range(0, slice_, batch):
            execute("begin immediate")
            for name, message_id, one in todo[first : first + batch]:
                add(name, message_id, one)
            execute("commit")
        return watch.each(slice_)

    try:
        yield lane
    finally:
        by_hand.db.close()


@contextmanager
def bare(path: Path, corpus: list[Said], slice_: int) -> Iterator[Lane]:
    """The least that can be called a stored message: one row of one table, one transaction each."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode = wal")
    db.execute("pragma synchronous = normal")
    db.execute(
        "create table messages (id integer primary key, conversation text not null, role text not null, "
        "body text not null, created_at integer not null)"
    )
    said = data.cycle(corpus)

    def lane() -> Spent:
        batch = [next(said) for _ in range(slice_)]
        execute = db.execute
        watch = Watch()
        for one in batch:
            execute(
                "insert into messages (conversation, role, body, created_at) values (?, ?, ?, ?)",
                ("talk-0", one.role, one.text, time.time_ns() // 1_000),
            )
        return watch.each(slice_)

    try:
        yield lane
    finally:
        db.close()


# -- did both write the same? ------------------------------------------------------------------------------------------------

_COMPARED = {
    "messages": (
        "select c.id, m.role, m.name, m.body, m.form, m.metadata, m.input_tokens, m.output_tokens, m.total_tokens, "
        "m.model, m.cost, m.parent_id, m.version, m.state, count(*), sum(m.seq) > 0 "
        "from messages m join conversations c on c.ord = m.conversation group by c.id, m.body order by c.id, m.body"
    ),
    "conversations": (
        "select id, agent_id, user_id, next_seq, message_count, input_tokens, output_tokens, total_tokens, cost "
        "from conversations order by id"
    ),
    "entries": "select kind, verb, parent, count(*) from changes group by kind, verb, parent order by 1, 2, 3",
    "report": (
        "select user_id, agent_id, model, sum(messages), sum(input_tokens), sum(cost) from token_totals "
        "group by user_id, agent_id, model order by 1, 2, 3"
    ),
}


def same_rows(first: Path, second: Path) -> str:
    """A sentence that says so when two stores hold the same but for ids and times; an error when they do not."""
    for what, sql in _COMPARED.items():
        mine, theirs = _rows(first, sql), _rows(second, sql)
        if mine != theirs:
            raise AssertionError(f"{first.name} and {second.name} did not write the same {what}")
    return "perdure and the raw limit were compared after the run: the same messages, totals, entries and report rows."


def _rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()
