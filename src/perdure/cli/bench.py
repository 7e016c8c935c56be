"""``perdure bench``: how close to raw SQLite it comes on this machine, in one run, side by side.

Speeds of one run say little by themselves (a laptop on battery is slower), so both sides take turns in short rounds
and what counts is their ratio.
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from perdure.cli.common import Call, command
from perdure.cli.progress import Activity
from perdure.cli.screen import Column

if TYPE_CHECKING:
    from perdure.sync.store import Store

ROUNDS = 5
BATCH = 100
PAGE = 50
"""Messages that one read returns."""
_WORDS = ("harbour", "ferry", "tide", "buoy", "swell", "pilot", "deck", "cabin", "wind", "chart", "rope", "light")


class Task(msgspec.Struct, frozen=True):
    """One kind of work: what it is called, how often a round does it, and how each side does it."""

    name: str
    times: int
    ours: Callable[[int], Any]
    raw: Callable[[int], Any]


def add_to(parent: typer.Typer) -> None:
    """Makes this a part of the ``perdure`` command."""
    command(parent, "bench")(bench)


def bench(
    call: Call,
    count: Annotated[
        int,
        typer.Option("--count", "-n", min=100, max=1_000_000, metavar="N", help="Messages that are added one by one."),
    ] = 5_000,
) -> None:
    """Measure speed as ratios to raw sqlite3.

    Adds, reads and searches, both sides in the same run. It works on files in a temporary folder and touches no store.
    """
    from perdure.sync.store import Store

    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        raw = _Raw(Path(folder) / "raw.db")
        try:
            with Store(Path(folder) / "perdure.db") as store, Activity(call.screen, "Measuring", ROUNDS) as activity:
                rows = _measure(_tasks(store, raw, count // ROUNDS), activity)
        finally:
            raw.close()
    if call.screen.json:
        call.screen.document({"count": count, "sqlite3_version": sqlite3.sqlite_version, "operations": rows})
        return
    call.screen.table(
        [
            Column("OPERATION"), Column("PERDURE/S", right=True, rank=1), Column("RAW SQLITE3/S", right=True, rank=1),
            Column("RATIO", right=True),
        ],
        [
            (
                row["operation"], f"{row['perdure_per_second']:,.0f}", f"{row['sqlite3_per_second']:,.0f}",
                f"{row['ratio']:.2f}",
            )
            for row in rows
        ],
    )  # fmt: skip
    call.screen.say()
    call.screen.say(
        "Ratio: 1.00 is as fast as Python's sqlite3 on one plain table (WAL, synchronous=normal) with nothing else: no "
        "accounts, no feed, no checks. Its search is FTS5. The speeds are this machine's, in this minute.",
        style="dim",
    )


def _measure(tasks: list[Task], activity: Activity) -> list[dict[str, Any]]:
    """Both sides take turns in each round, and who goes first changes."""
    spent = {task.name: [0.0, 0.0] for task in tasks}
    for number in range(ROUNDS):
        for task in tasks:
            sides = [(0, task.ours), (1, task.raw)]
            for side, work in sides if number % 2 else reversed(sides):
                began = time.perf_counter()
                for place in range(number * task.times, (number + 1) * task.times):
                    work(place)
                spent[task.name][side] += time.perf_counter() - began
        activity.update(number + 1)
    rows: list[dict[str, Any]] = []
    for task in tasks:
        ours, raw = spent[task.name]
        total = task.times * ROUNDS
        rows.append({
            "operation": task.name, "times": total, "perdure_per_second": round(total / ours, 1),
            "sqlite3_per_second": round(total / raw, 1), "ratio": round(raw / ours, 3),
        })  # fmt: skip
    return rows


def _text(place: int) -> str:
    """A message of twelve words; one word of it is rare."""
    words = [_WORDS[(place * 7 + step * step) % len(_WORDS)] for step in range(11)]
    return " ".join([*words, f"number{place % 997}"])


def _texts(place: int) -> list[str]:
    return [_text(place * BATCH + step) for step in range(BATCH)]


def _tasks(store: "Store", raw: "_Raw", times: int) -> list[Task]:
    from perdure.rooms.conversations.draft import Draft

    for name in ("one", "many"):
        store.create_conversation("bench", "bench", id=name)
    usage = {"input_tokens": 40, "output_tokens": 12}
    store.search_messages("harbour")
    tasks: list[Task] = [
        Task(
            "add a message", times,
            lambda place: store.add_message("one", "assistant", _text(place), token_usage=usage),
            lambda place: raw.add("one", [_text(place)]),
        ),
        Task(
            f"add {BATCH} messages", max(1, times // BATCH),
            lambda place: store.add_messages("many", [Draft("assistant", text) for text in _texts(place)]),
            lambda place: raw.add("many", _texts(place)),
        ),
        Task(
            f"read the newest {PAGE}", max(1, times // 4),
            lambda _: store.get_messages("one", last=PAGE), lambda _: raw.newest("one"),
        ),
        Task(
            "search, 10 best", max(1, times // 20),
            lambda place: store.search_messages(f"number{place * 13 % 997} tide", limit=10),
            lambda place: raw.search(f"number{place * 13 % 997} OR tide"),
        ),
    ]  # fmt: skip
    return tasks if raw.searches else tasks[:-1]


class _Raw:
    """What the ratio is against: one table, and an FTS5 index where this Python's SQLite has it."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._seqs: dict[str, int] = {}
        self._indexed: dict[str, int] = {}
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = normal")
        self._db.execute(
            "create table messages (conversation text, seq integer, role text, body text, at integer, tokens integer, "
            "primary key (conversation, seq)) without rowid"
        )
        options = {row[0] for row in self._db.execute("pragma compile_options")}
        self.searches = "ENABLE_FTS5" in options
        if self.searches:
            self._db.execute("create virtual table words using fts5 (body)")

    def add(self, conversation: str, bodies: list[str]) -> None:
        """Messages at the next places, in one transaction."""
        at = self._seqs.get(conversation, 0)
        rows = [(conversation, at + i, "assistant", body, time.time_ns(), 52) for i, body in enumerate(bodies, 1)]
        self._db.execute("begin immediate")
        self._db.executemany("insert into messages values (?, ?, ?, ?, ?, ?)", rows)
        self._db.execute("commit")
        self._seqs[conversation] = at + len(bodies)

    def newest(self, conversation: str) -> list[Any]:
        """The newest page."""
        query = "select * from messages where conversation = ? order by seq desc limit ?"
        return self._db.execute(query, (conversation, PAGE)).fetchall()

    def search(self, query: str) -> list[Any]:
        """The ten best by FTS5, which takes in what is new first, as ours does."""
        for conversation, last in self._seqs.items():
            done = self._indexed.get(conversation, 0)
            if done < last:
                self._db.execute(
                    "insert into words select body from messages where conversation = ? and seq > ?",
                    (conversation, done),
                )
                self._indexed[conversation] = last
        sql = "select snippet(words, 0, '**', '**', '...', 20) from words where words match ? order by rank limit 10"
        return self._db.execute(sql, (query,)).fetchall()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()
