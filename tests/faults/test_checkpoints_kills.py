"""SIGKILL at random moments under every verb on checkpoints: nothing acknowledged is lost, nothing is there by half.

``PERDURE_KILLS`` sets the number of kills of the full run (10,000 unless given).
"""

import json
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from checkpoint_worker import KEYS, SHARED, checkpointer_of, perform
from conftest import Tell
from zygote import Zygote

import perdure.sync
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Invalid, WrongKey

WRITERS = 3
KILLS = 90
KILLS_ON_POSTGRES = 8
ROTATIONS, ROTATIONS_ON_POSTGRES = 20, 3
KILLS_FULL = int(os.environ.get("PERDURE_KILLS", "10000"))
KILLS_PER_FILE = 45


class Log:
    """What a worker was about to do, and what it was told."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        self.calls: dict[int, dict[str, Any]] = {}
        self.answers: dict[int, dict[str, Any]] = {}
        for line in lines:
            entry = json.loads(line)
            if "try" in entry:
                self.calls[entry["try"]["number"]] = entry["try"]
            elif "done" in entry:
                self.answers[entry["done"]] = entry["answer"]
            else:
                self.calls.pop(entry["refused"])

    @property
    def open(self) -> dict[str, Any] | None:
        """The call that nobody heard the answer of."""
        last = max(self.calls, default=None)
        return None if last is None or last in self.answers else self.calls[last]


class Expected:
    """What a thread must hold, by what its only writer was told."""

    def __init__(self) -> None:
        self.made: dict[str, int] = {}
        self.gone: set[str] = set()
        self.branches: set[str] = set()
        self.alive = True
        self.copies = 0
        self.runs: dict[str, str] = {}


def expected_of(log: Log) -> dict[str, Expected]:
    """Each thread of a worker."""
    found: dict[str, Expected] = {}
    for number, answer in sorted(log.answers.items()):
        call = log.calls[number]
        verb, thread = call["verb"], call["thread"]
        if thread == SHARED:
            continue
        one = found.setdefault(thread, Expected())
        if verb == "save":
            one.made[answer["id"]] = number
            if "run" in call:
                one.runs[answer["id"]] = call["run"]
        elif verb == "create_branch":
            one.branches.add(call["name"])
        elif verb == "merge" and answer["id"] is not None:
            one.made[answer["id"]] = -1
        elif verb == "retain":
            one.gone |= set(answer["removed"])
        elif verb in {"copy", "import"}:
            other = found.setdefault(call["target"], Expected())
            other.branches = set(one.branches)
            other.copies = answer.get("count", 1)
            other.runs = {f"copy of {name}": run for name, run in one.runs.items()}
        elif verb == "delete":
            found[thread] = Expected()
            found[thread].alive = False
        elif verb == "delete_for_runs":
            for each in found.values():
                taken = {name for name, run in each.runs.items() if run in call["runs"]}
                each.gone |= taken
                each.copies = min(each.copies, 1) if taken else each.copies
    return found


class Field:
    """A database, the processes that write to it, and what was found wrong so far."""

    def __init__(self, zygote: Zygote, folder: Path, url: str, rng: random.Random, key: int | None = 0) -> None:
        self.url, self.key = url, key
        self.figures: Counter[str] = Counter(kills=0, acknowledged=0, open=0, lost=0, half=0, unsound=0)
        self.wrong: list[str] = []
        self._zygote, self._folder, self._rng = zygote, folder, rng
        self._logs: list[Log] = []
        self._started = 0
        folder.mkdir(exist_ok=True)
        with self.store() as store:
            checkpointer_of(store, key).save(SHARED, {"n": 0})

    def store(self) -> Any:
        return perdure.sync.Store(PersistenceConfig(self.url, pool_size=2, busy_timeout="20s"))

    def start(self, task: str = "write", **given: Any) -> tuple[int, Path]:
        name = f"w{self._started}"
        self._started += 1
        log = self._folder / f"{name}.log"
        pid = self._zygote.start(
            url=self.url, log=str(log), task=task, name=name, seed=self._rng.getrandbits(32), **given
        )
        return pid, log

    def wait_for_news(self, log: Path, size: int = 300) -> None:
        wanted = (log.stat().st_size if log.exists() else 0) + size
        deadline = time.monotonic() + 60
        while not log.exists() or log.stat().st_size < wanted:
            assert time.monotonic() < deadline, "a writer does not write"
            time.sleep(0.002)

    def kill(self, worker: tuple[int, Path]) -> None:
        """Ends a writer and looks at once for what it was told."""
        assert self._zygote.kill(worker[0]) == -9
        self.figures["kills"] += 1
        log = Log(worker[1])
        self._logs.append(log)
        self.figures["acknowledged"] += len(log.answers)
        self.figures["open"] += log.open is not None
        self._look(log)

    def _look(self, log: Log, *, everything: bool = False) -> None:
        with self.store() as store:
            checkpointer = checkpointer_of(store, self.key)
            doing = log.open or {"verb": "", "thread": ""}
            recent = {log.calls[number]["thread"] for number in sorted(log.calls)[-6:]} | {doing["thread"]}
            for thread, one in expected_of(log).items():
                if thread not in recent and not everything:
                    continue
                touched = thread == doing["thread"] or doing["verb"] == "delete_for_runs"
                self._look_at(checkpointer, thread, one, doing if touched else {"verb": ""})

    def _look_at(self, checkpointer: Any, thread: str, one: Expected, doing: dict[str, Any]) -> None:
        ids = [made.id for made in checkpointer.get_history(thread, include_failed=True, limit=1_000)]
        if not one.alive:
            if ids and doing["verb"] != "save":
                self.note("lost", f"{thread} was deleted and is there")
            return
        if not ids and doing["verb"] == "delete":
            return  # it was done before the kill
        missing = {name for name in one.made if name not in one.gone} - set(ids)
        if missing and doing["verb"] not in {"retain", "delete_for_runs"}:
            self.note("lost", f"{thread} lacks {len(missing)} of {len(one.made)}")
        if set(ids) & one.gone and not one.copies:
            self.note("lost", f"{thread} still has what was taken away")
        extra = set(ids) - set(one.made)
        if not one.copies and len(extra) > (doing["verb"] in {"save", "merge"}):
            self.note("half", f"{thread} has {len(extra)} that nobody made")
        if one.copies and len(ids) < 1:
            self.note("lost", f"{thread} is a copy and is not there")
        for name in [name for name in ids if one.made.get(name, -1) > 0][:3]:
            if checkpointer.restore(name)["n"] != one.made[name]:
                self.note("half", f"{thread} answers another state for {name}")
        names = {branch.name for branch in checkpointer.branches(thread)}
        if not one.branches <= names:
            self.note("lost", f"{thread} lacks branches {one.branches - names}")

    def note(self, what: str, words: str) -> None:
        self.figures[what] += 1
        self.wrong.append(f"{what}: {words}")

    def examine(self) -> None:
        """The whole examination, while nobody writes."""
        for log in self._logs:
            self._look(log, everything=True)
        with self.store() as store:
            checkpointer = checkpointer_of(store, self.key)
            for log in self._logs:
                call = log.open
                if call is not None and call.get("key"):
                    one, again = (perform(checkpointer, call)["id"] for _ in range(2))
                    if one != again:
                        self.note("half", "an idempotency key made two checkpoints")
            report = checkpointer.verify()
            for problem in report.problems:
                self.note("unsound", problem)
            told = Counter(
                (call["thread"], call["token"]) for log in self._logs for number, call in log.calls.items()
                if call["verb"] == "save" and call["thread"] == SHARED and number in log.answers
            )  # fmt: skip
            shared = list(checkpointer.get_history(SHARED, limit=1_000))
            while shared and shared[-1].position:
                shared += checkpointer.get_history(SHARED, limit=1_000, cursor=str(shared[-1].position))
            there = Counter((SHARED, made.metadata["token"]) for made in shared if made.metadata)
            if [made.position for made in shared] != list(range(len(shared)))[::-1]:
                self.note("half", "positions of the shared thread have gaps")
            if any(count > 1 for count in there.values()) or told - there:
                self.note("lost", f"the shared thread: {told - there}, {there.most_common(1)}")
            problems = store.doctor()["problems"]
            for problem in problems:
                self.note("unsound", problem)

    def verdict(self, tell: Tell, name: str) -> None:
        tell(name, **self.figures)
        assert self.wrong == []
        assert self.figures["acknowledged"] > self.figures["kills"]


@pytest.fixture
def zygote():
    with Zygote("checkpoint_worker") as mother:
        yield mother


def kill_on_sqlite(zygote: Zygote, folder: Path, rng: random.Random, kills: int, tell: Tell, name: str) -> None:
    figures: Counter[str] = Counter()
    wrong: list[str] = []
    field: Field | None = None
    while figures["kills"] < kills:
        place = folder / f"round{figures['kills']}"
        place.mkdir()
        field = Field(zygote, place, f"sqlite:///{place}/store.db", rng, key=rng.choice((None, 0)))
        for _ in range(KILLS_PER_FILE // WRITERS):
            workers = [field.start(key=field.key) for _ in range(WRITERS)]
            for worker in rng.sample(workers, WRITERS):
                field.wait_for_news(worker[1])
                time.sleep(rng.uniform(0, 0.03))
                field.kill(worker)
        field.examine()
        figures.update(field.figures)
        wrong += field.wrong
    assert field is not None
    field.figures, field.wrong = figures, wrong
    field.verdict(tell, name)


def test_writers_killed_on_sqlite(zygote, tmp_path, seeded_random, tell):
    kill_on_sqlite(zygote, tmp_path, seeded_random, KILLS, tell, "checkpoint_kills_sqlite")


@pytest.mark.full
@pytest.mark.timeout(0)
def test_writers_killed_on_sqlite_full(zygote, tmp_path, seeded_random, tell):
    kill_on_sqlite(zygote, tmp_path, seeded_random, KILLS_FULL, tell, "checkpoint_kills_sqlite_full")


def kill_on_postgres(
    zygote: Zygote, folder: Path, url: str, rng: random.Random, kills: int, tell: Tell, name: str
) -> None:
    field = Field(zygote, folder, url, rng)
    workers = [field.start(key=0) for _ in range(WRITERS)]
    for _ in range(kills - WRITERS):
        victim = workers.pop(rng.randrange(len(workers)))
        field.wait_for_news(victim[1])
        time.sleep(rng.uniform(0, 0.03))
        field.kill(victim)
        workers.append(field.start(key=0))
    for worker in workers:
        field.kill(worker)
    field.examine()
    field.verdict(tell, name)


def test_writers_killed_on_postgres(zygote, tmp_path, seeded_random, fresh_postgres_url, tell):
    kill_on_postgres(
        zygote, tmp_path, fresh_postgres_url, seeded_random, KILLS_ON_POSTGRES, tell, "checkpoint_kills_postgres"
    )


@pytest.mark.full
@pytest.mark.timeout(0)
def test_writers_killed_on_postgres_full(zygote, tmp_path, seeded_random, fresh_postgres_url, tell):
    kill_on_postgres(
        zygote, tmp_path, fresh_postgres_url, seeded_random, KILLS_FULL // 20, tell, "checkpoint_kills_postgres_full"
    )


# -- rotation ------------------------------------------------------------------------------------------------------------------


def rotate_and_kill(
    zygote: Zygote, folder: Path, url: str, rng: random.Random, kills: int, tell: Tell, name: str
) -> None:
    """Rotations that are killed and gone on with, by the old key or the new one, from key to key."""
    field = Field(zygote, folder, url, rng, key=None)
    key: int | None = None
    figures: Counter[str] = Counter(kills=0, not_begun=0, broken_off=0, finished=0)
    with field.store() as store:
        first = checkpointer_of(store, None)
        truth = {f"t{at}": [first.save(f"t{at}", {"n": n, "list": [at] * 70}) for n in range(3)] for at in range(10)}
        while figures["kills"] < kills:
            target = 0 if key is None else (key + 1) % len(KEYS)
            worker = field.start("rotate", old=key, new=target)
            field.wait_for_news(worker[1], 1)
            time.sleep(rng.uniform(0, 0.06))
            assert zygote.kill(worker[0]) in {-9, 0}
            figures["kills"] += 1
            told = "rotated" in worker[1].read_text()
            opening = [one for one in (key, target) if one is not None and opens(store, one, truth)]
            assert opening == [target] if told or key is None else opening, "no key opens the store"
            how = (
                "finished"
                if opening == [target] and key is not None
                else "broken_off"
                if target in opening
                else "not_begun"
            )
            figures[how] += 1
            if how != "finished" or key is None:
                chosen = rng.choice([*opening, *([None] if key is None else [])])
                finish(store, chosen, target, told=told)
            assert opens(store, target, truth)
            assert not any(opens(store, one, truth) for one in range(len(KEYS)) if one != target)
            assert checkpointer_of(store, target).verify().ok
            if rng.random() < 0.2:  # some of the next rotations are of threads that were saved since
                thread = f"t{rng.randrange(10)}"
                truth[thread].append(checkpointer_of(store, target).save(thread, {"n": len(truth[thread])}))
            key = target
    tell(name, **figures)
    assert figures["broken_off"] > 0
    assert kills < 10 or figures["not_begun"] + figures["finished"] > 0


def finish(store: Any, key: int | None, target: int, *, told: bool) -> None:
    """Goes on with a rotation, with any key that opens the store."""
    try:
        checkpointer_of(store, key).rotate_keys(KEYS[target])
    except (Invalid, WrongKey):  # there was nothing left to do
        assert told or key == target


def opens(store: Any, key: int | None, truth: dict[str, list[str]]) -> bool:
    """Whether a key opens every state of every thread; one that opens some must open all."""
    checkpointer = checkpointer_of(store, key)
    opened = 0
    for thread, ids in truth.items():
        try:
            assert [checkpointer.restore(name)["n"] for name in ids] == list(range(len(ids)))
            assert checkpointer.latest(thread).id == ids[-1]
            opened += 1
        except WrongKey:
            assert opened == 0
            return False
    return True


def test_rotations_killed_on_sqlite(zygote, tmp_path, seeded_random, tell):
    url = f"sqlite:///{tmp_path}/store.db"
    rotate_and_kill(zygote, tmp_path, url, seeded_random, ROTATIONS, tell, "checkpoint_rotations_sqlite")


def test_rotations_killed_on_postgres(zygote, tmp_path, seeded_random, fresh_postgres_url, tell):
    rotate_and_kill(
        zygote,
        tmp_path,
        fresh_postgres_url,
        seeded_random,
        ROTATIONS_ON_POSTGRES,
        tell,
        "checkpoint_rotations_postgres",
    )


@pytest.mark.full
@pytest.mark.timeout(0)
def test_rotations_killed_on_sqlite_full(zygote, tmp_path, seeded_random, tell):
    url = f"sqlite:///{tmp_path}/store.db"
    rotate_and_kill(zygote, tmp_path, url, seeded_random, KILLS_FULL // 10, tell, "checkpoint_rotations_sqlite_full")
