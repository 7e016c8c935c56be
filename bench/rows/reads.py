"""P5: reading from a store with a million messages."""

import asyncio
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

import perdure
import perdure.sync
from bench import data, lanes
from bench.places import describe, memory_folder
from bench.rounds import Check, Rounds, Row, Spent, Watch, percentile, slower, times
from bench.rows import Mode
from perdure.drivers.book import book

_EACH = 100
"""Messages in a conversation."""
_LAST = 50
_CALLS = 500


def reading(mode: Mode) -> Row:
    """P5: one conversation by its id, and its last 50 messages, decoded, beside sqlite3 fetching the same columns."""
    with memory_folder() as folder:
        path = folder / "million.db"
        talks = fill(path, mode.stored)
        place = describe(folder)
        waits, found = asyncio.run(_measure(path, talks, mode.rounds))
    checks: list[Check] = []
    goals = {"get_conversation": 6.0, f"the last {_LAST} messages": 2.0}
    for what, goal in goals.items():
        key = "P5.get" if what == "get_conversation" else "P5.last"
        p50, p99 = percentile(waits[what], 0.5) * 1e3, percentile(waits[what], 0.99) * 1e3
        checks += [
            Check(f"{what} / raw sqlite3", *slower(found, f"awaited: {what}", f"raw: {what}"), goal=goal, key=key),
            Check(f"{what}, blocking / raw sqlite3", *slower(found, f"blocking: {what}", f"raw: {what}")),
            Check(f"{what}: p50", p50, unit="ms", goal=1, sense="below", key=f"{key}_p50"),
            Check(f"{what}: p99", p99, unit="ms", goal=10, sense="below", key=f"{key}_p99"),
        ]
    setting = (
        f"{place}; {mode.stored:,} messages in {talks:,} conversations; {mode.rounds} rounds of {_CALLS} random ones; "
        "raw fetches the same columns with the same statements as plain tuples"
    )
    return Row(
        "P5",
        "Reading one conversation of many",
        setting,
        checks,
        times(found),
        ["Cached rows (goal: <= 2 us): not built."],
    )


def fill(path: Path, stored: int) -> int:
    """Writes a store with conversations of 100 messages each; returns how many conversations there are."""
    corpus = data.messages(5_000)
    drafts = [[one.draft for one in corpus[first : first + _EACH]] for first in range(0, len(corpus), _EACH)]
    talks = stored // _EACH
    with perdure.sync.open(lanes.url(path)) as store:
        for number in range(talks):
            store.create_conversation("agent", f"user-{number % 1000}", id=lanes.talk(number))
            store.add_messages(lanes.talk(number), drafts[number % len(drafts)])
        store.upkeep()
    return talks


class RawReads:
    """The same two questions by hand."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("pragma cache_size = -16384")  # as perdure has it
        statements = book("sqlite")
        self._get = lanes.numbered(statements["conversations.by_id"].variant(frozenset()).text, ("tenant", "id"))
        descending = statements["conversations.messages"].variant(frozenset({"descending"})).text
        self._last = lanes.numbered(descending, ("tenant", "conversation", "low", "high", "limit"))

    def get(self, name: str) -> list[Any]:
        return self.db.execute(self._get, ("default", name)).fetchall()

    def last(self, name: str) -> list[Any]:
        found = self.get(name)
        return self.db.execute(self._last, ("default", found[0][0], 1, found[0][8] - 1, _LAST)).fetchall()[::-1]


async def _measure(path: Path, talks: int, rounds: int) -> tuple[dict[str, list[float]], Rounds]:
    """Waits of each awaited call, and seconds per call of each lane and round."""
    rng = random.Random(11)
    waits: dict[str, list[float]] = {"get_conversation": [], f"the last {_LAST} messages": []}
    raw = RawReads(path)
    config = perdure.PersistenceConfig(lanes.url(path))
    last = f"the last {_LAST} messages"
    with perdure.sync.open(config) as blocking:
        async with perdure.open(config) as store:
            calls: dict[str, Callable[[str], Any]] = {
                "raw: get_conversation": raw.get,
                f"raw: {last}": raw.last,
                "blocking: get_conversation": blocking.get_conversation,
                f"blocking: {last}": lambda name: blocking.get_messages(name, last=_LAST),
                "awaited: get_conversation": store.get_conversation,
                f"awaited: {last}": lambda name: store.get_messages(name, last=_LAST),
            }
            _check_alike(raw, await store.get_messages(lanes.talk(3), last=_LAST))
            found: Rounds = {name: [] for name in calls}
            for number in range(-1, rounds):
                names = [lanes.talk(rng.randrange(talks)) for _ in range(_CALLS)]
                order = [*calls][number % len(calls) :] + [*calls][: number % len(calls)]
                for lane in order:
                    watch = Watch()
                    if lane.startswith("awaited: "):
                        spent = await _await_each(calls[lane], names)
                        if number >= 0:
                            waits[lane.removeprefix("awaited: ")] += spent
                    else:
                        spent = _call_each(calls[lane], names)
                    cpu = watch.each(_CALLS).cpu
                    if number >= 0:
                        found[lane].append(Spent(median(spent), cpu))
    raw.db.close()
    return waits, found


def _check_alike(raw: RawReads, messages: perdure.Page[perdure.Message]) -> None:
    rows = raw.last(lanes.talk(3))
    assert [row[3] for row in rows] == [message.id for message in messages]
    assert len(rows) == _LAST


def _call_each(call: Callable[[str], Any], names: list[str]) -> list[float]:
    spent: list[float] = []
    for name in names:
        started = time.perf_counter()
        call(name)
        spent.append(time.perf_counter() - started)
    return spent


async def _await_each(call: Callable[[str], Awaitable[Any]], names: list[str]) -> list[float]:
    spent: list[float] = []
    for name in names:
        started = time.perf_counter()
        await call(name)
        spent.append(time.perf_counter() - started)
    return spent
