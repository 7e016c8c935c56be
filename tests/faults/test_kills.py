"""SIGKILL at random moments under writers of every verb: nothing acknowledged is lost, nothing is there by half.

``PERDURE_KILLS`` sets the number of kills of the full run (10,000 unless given).
"""

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Tell
from examiner import Log, Rows, half_groups, index_faults, inexact, lost, settle
from kill_worker import SHARED
from zygote import Zygote

import perdure.sync
from perdure.testing.postgres import PostgresServer
from perdure.values.config import PersistenceConfig

WRITERS = 3
KILLS = 120
KILLS_FULL = int(os.environ.get("PERDURE_KILLS", "10000"))
KILLS_PER_FILE = 30
ROUNDS_FULL = max(1, KILLS_FULL // 100)


class Battlefield:
    """A database, the processes that write to it, and what was found wrong so far."""

    def __init__(self, zygote: Zygote, folder: Path, url: str, rng: random.Random, **settings: Any) -> None:
        self.url = url
        self.figures: Counter[str] = Counter(kills=0, acknowledged=0, open=0, settled=0, lost=0)
        self.wrong: list[str] = []
        self._zygote = zygote
        self._folder = folder
        self._rng = rng
        self._settings = settings
        self._logs: list[Log] = []
        self._started = 0
        folder.mkdir()
        with self.store() as store:
            if store.get_conversation(SHARED) is None:
                store.create_conversation("agent", "user-0", id=SHARED)

    def store(self) -> Any:
        """The database, opened by this process."""
        return perdure.sync.Store(PersistenceConfig(self.url, pool_size=2, busy_timeout="20s"))

    def start(self, number: int) -> list[tuple[int, Path]]:
        """Processes that write: pid and log of each."""
        started: list[tuple[int, Path]] = []
        for _ in range(number):
            name = f"w{self._started}"
            self._started += 1
            log = self._folder / f"{name}.log"
            pid = self._zygote.start(
                url=self.url, log=str(log), name=name, seed=self._rng.getrandbits(32), **self._settings
            )
            started.append((pid, log))
        return started

    def wait_for_news(self, workers: list[tuple[int, Path]]) -> None:
        """Until each of these writers has made some calls more than now."""
        wanted = {log: _size(log) + 1_000 for _, log in workers}
        deadline = time.monotonic() + 30
        while any(_size(log) < size for log, size in wanted.items()):
            assert time.monotonic() < deadline, "a writer does not write"
            time.sleep(0.002)

    def kill(self, worker: tuple[int, Path]) -> None:
        """Ends one writer, at once reopens the database beside the others, and looks for what that one was told."""
        assert self._zygote.kill(worker[0]) == -9
        self.figures["kills"] += 1
        self._check_told(Log(worker[1]))

    def end(self, worker: tuple[int, Path]) -> None:
        """Waits for a writer whose time is over."""
        assert self._zygote.wait(worker[0]) == 0, worker[1].read_text()[-2_000:]
        self._check_told(Log(worker[1]))

    def _check_told(self, log: Log) -> None:
        self._logs.append(log)
        self.figures["acknowledged"] += len(log.answers)
        self.figures["open"] += len(log.open)
        ids = [answer["id"] for call, answer in log.done() if call["verb"] == "add_message"][-20:]
        changed = {call.get("id") for call in log.calls.values() if call["verb"] in {"delete_message", "erase_message"}}
        with self.store() as store:
            self.note("lost", [name for name in ids if name not in changed and store.get_message(name) is None])

    def note(self, what: str, found: list[str]) -> None:
        """Counts what is wrong and keeps the first few words about it."""
        self.figures[what] += len(found)
        self.wrong += [f"{what}: {one}" for one in found[:5]]

    def examine(self, *, expected: frozenset[str] = frozenset()) -> None:
        """The whole examination, while nobody writes."""
        with self.store() as store:
            for log in self._logs:
                asked, twice = settle(store, log)
                self.figures["settled"] += asked
                self.note("twice", twice)
            rows = Rows(store)
            for log in self._logs:
                self.note("lost", lost(log, rows))
            self.note("half", half_groups(self._logs, rows))
            self.note("inexact", inexact(rows))
            self.note("index", index_faults(store, rows))
            self.note("doctor", [one for one in store.doctor()["problems"] if one not in expected])
            keys = [key for log in self._logs for call, _ in log.done() if (key := call.get("key"))]
            known = {row[1] for row in rows.keys}
            self.note("lost", [f"key {key}" for key in keys if key not in known])

    def verdict(self, tell: Tell, name: str) -> None:
        """Tells the figures; every fault fails the test."""
        for fault in ("half", "twice", "inexact", "index", "doctor"):
            self.figures.setdefault(fault, 0)
        tell(name, **self.figures)
        assert self.wrong == []
        assert self.figures["acknowledged"] > self.figures["kills"]


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


@pytest.fixture
def zygote():
    with Zygote("kill_worker") as mother:
        yield mother


def kill_on_sqlite(zygote: Zygote, folder: Path, rng: random.Random, kills: int) -> Battlefield:
    """Kills under writers on one file after another."""
    total: Battlefield | None = None
    done = 0
    while done < kills:
        place = folder / f"round{done}"
        field = Battlefield(zygote, place, f"sqlite:///{place}/store.db", rng)
        for _ in range(KILLS_PER_FILE // WRITERS):
            workers = field.start(WRITERS)
            field.wait_for_news(workers)
            rng.shuffle(workers)
            for worker in workers:
                time.sleep(rng.uniform(0, 0.04))
                field.kill(worker)
        field.examine()
        done += field.figures["kills"]
        if total is not None:
            field.figures.update(total.figures)
            field.wrong += total.wrong
        total = field
    assert total is not None
    return total


def test_writers_killed_on_sqlite(zygote, tmp_path, seeded_random, tell):
    """Nothing acknowledged is lost, groups are whole or absent, nothing is there twice, totals and index are exact."""
    kill_on_sqlite(zygote, tmp_path, seeded_random, KILLS).verdict(tell, "kills_sqlite")


@pytest.mark.full
@pytest.mark.timeout(0)
def test_writers_killed_on_sqlite_full(zygote, tmp_path, seeded_random, tell):
    """The same, 10,000 times."""
    kill_on_sqlite(zygote, tmp_path, seeded_random, KILLS_FULL).verdict(tell, "kills_sqlite_full")


@pytest.fixture
def own_server():
    """A server to be killed; it waits for the disk, as a real one does."""
    with PostgresServer(fsync=True) as server:
        yield server


def strike(server: PostgresServer, field: Battlefield, how: str, rng: random.Random) -> None:
    """Ends a backend that serves a writer, or the postmaster, and waits until the server answers again."""
    if how == "postmaster":
        server.kill_postmaster()
        server.start()
        field.figures[how] += 1
        return
    with psycopg.connect(server.admin_url(field.url), autocommit=True) as admin:
        busy = admin.execute(
            "select pid from pg_stat_activity where datname = current_database() and usename = 'perdure_app'"
        ).fetchall()
        if not busy:
            return
        (pid,) = rng.choice(busy)
        field.figures[how] += 1
        if how == "terminate":
            admin.execute("select pg_terminate_backend(%s)", (pid,))
            return
        os.kill(pid, 9)  # the server throws every session out, this one too, and recovers
        deadline = time.monotonic() + 30
        with pytest.raises(psycopg.OperationalError):
            while time.monotonic() < deadline:
                admin.execute("select 1")
    while time.monotonic() < deadline:
        try:
            psycopg.connect(server.admin_url(field.url)).close()
        except psycopg.OperationalError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError("the server does not recover")


def kill_on_postgres(
    zygote: Zygote, folder: Path, rng: random.Random, server: PostgresServer, strikes: dict[str, int], rounds: int
) -> Battlefield:
    """Writers are killed, their backends too, and the postmaster, in random order."""
    field = Battlefield(zygote, folder / "field", server.create_database(), rng, retries=True, seconds=60)
    for _ in range(rounds):
        plan = [how for how, number in strikes.items() for _ in range(number)]
        rng.shuffle(plan)
        workers = field.start(WRITERS)
        for how in plan:
            field.wait_for_news(workers)
            time.sleep(rng.uniform(0, 0.03))
            if how == "client":
                victim = workers.pop(rng.randrange(len(workers)))
                field.kill(victim)
                workers += field.start(1)
            else:
                strike(server, field, how, rng)
        for worker in workers:
            field.kill(worker)
    field.examine()
    return field


def test_writers_backends_and_the_postmaster_killed(zygote, tmp_path, seeded_random, own_server, tell):
    """PostgreSQL: the same promises, whichever side of a connection dies."""
    strikes = {"client": 12, "terminate": 10, "backend": 2, "postmaster": 1}
    field = kill_on_postgres(zygote, tmp_path, seeded_random, own_server, strikes, rounds=1)
    field.verdict(tell, "kills_postgres")


@pytest.mark.full
@pytest.mark.timeout(0)
def test_writers_backends_and_the_postmaster_killed_full(zygote, tmp_path, seeded_random, own_server, tell):
    """The same, a round for each hundred kills of the full run."""
    strikes = {"client": 10, "terminate": 10, "backend": 2, "postmaster": 1}
    field = kill_on_postgres(zygote, tmp_path, seeded_random, own_server, strikes, rounds=ROUNDS_FULL)
    field.verdict(tell, "kills_postgres_full")
