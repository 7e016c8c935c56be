"""Races on checkpoints: of two writers with the same parent one wins, and nothing that is shared is taken away.

``PERDURE_RACES`` sets the number of races of the full run (10,000 unless given).
"""

import contextlib
import json
import os
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from checkpoint_worker import KEYS, checkpointer_of
from conftest import Tell
from zygote import Zygote

import perdure.sync
from perdure.crypto.keys import parse_key
from perdure.rooms.checkpoints import copying, keyrows
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Conflict, Invalid, WrongKey

RACES = {"sqlite": 300, "postgres": 120}
RACES_FULL = int(os.environ.get("PERDURE_RACES", "10000"))
ENGINES = ("sqlite", "postgres")


@pytest.fixture(scope="module")
def zygote():
    with Zygote("checkpoint_worker") as mother:
        yield mother


@pytest.fixture(params=ENGINES)
def place(request, tmp_path) -> tuple[str, str]:
    """An engine and the address of a fresh database."""
    if request.param == "postgres":
        return "postgres", request.getfixturevalue("fresh_postgres_url")
    return "sqlite", f"sqlite:///{tmp_path}/store.db"


def opened(url: str) -> Any:
    return perdure.sync.Store(PersistenceConfig(url, pool_size=9, busy_timeout="20s"))


def run(zygote: Zygote, url: str, folder: Path, jobs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What each of these workers told, once all have ended."""
    started = [
        (zygote.start(url=url, log=str(folder / f"w{number}.log"), name=f"w{number}", seed=number, **job), folder / f"w{number}.log")
        for number, job in enumerate(jobs)
    ]  # fmt: skip
    codes = [zygote.wait(pid) for pid, _ in started]
    assert codes == [0] * len(jobs)
    return [[json.loads(line) for line in log.read_text().splitlines()] for _, log in started]


def every(checkpointer: Any, thread: str, branch: str | None = None) -> list[Any]:
    """All checkpoints of a thread, oldest first."""
    found: list[Any] = []
    cursor = None
    while True:
        page = checkpointer.get_history(thread, include_failed=True, branch=branch, limit=1_000, cursor=cursor)
        found += page
        cursor = page.next_cursor
        if cursor is None:
            return found[::-1]


def race_processes(
    zygote: Zygote, place: tuple[str, str], folder: Path, races: int, tell: Tell, name: str, branch: str = "main"
) -> None:
    """Processes that load the newest and save upon it: each checkpoint has one successor, and all are reachable."""
    engine, url = place
    with opened(url) as store:
        checkpointer = checkpointer_of(store, None)
        roots = {f"race{at}": checkpointer.save(f"race{at}", {"n": -1}) for at in range(2)}
        if branch != "main":
            for root in roots.values():
                checkpointer.create_branch(root, branch)
        job = {"task": "race", "threads": 2, "races": races // 4, "branch": branch}
        told = [entry for log in run(zygote, url, folder, [job] * 4) for entry in log]
        won = [entry for entry in told if "won" in entry]
        parents = Counter(entry["won"] for entry in won)
        figures = {"races": len(told), "won": len(won), "conflicts": len(told) - len(won)}
        figures["forks"] = sum(count - 1 for count in parents.values())
        figures["unreachable"] = 0
        for thread, root in roots.items():
            made = every(checkpointer, thread)
            line = [one.id for one, _ in checkpointer.replay(thread, branch=branch)]
            figures["unreachable"] += len(made) - len(line)
            assert line == [one.id for one in made]
            assert line[0] == root
            assert [one.position for one in made] == list(range(len(made)))
            assert {one.id for one in made[1:]} <= {entry["made"] for entry in won}
        tell(f"{name}_{engine}", **figures)
        assert sum(len(every(checkpointer, thread)) - 1 for thread in roots) == len(won)
        assert (figures["forks"], figures["unreachable"]) == (0, 0)
        assert figures["conflicts"] > 0
        assert checkpointer.verify().ok


def test_writers_with_the_same_parent_in_processes(zygote, place, tmp_path, tell):
    race_processes(zygote, place, tmp_path, RACES[place[0]], tell, "checkpoint_races")


def test_writers_with_the_same_parent_on_a_branch(zygote, place, tmp_path, tell):
    race_processes(zygote, place, tmp_path, RACES[place[0]] // 3, tell, "checkpoint_races_on_a_branch", "side")


@pytest.mark.full
@pytest.mark.timeout(0)
def test_writers_with_the_same_parent_in_processes_full(zygote, place, tmp_path, tell):
    race_processes(zygote, place, tmp_path, RACES_FULL, tell, "checkpoint_races_full")


def race_pairs(url: str, races: int) -> Counter[str]:
    """Two threads at a time, which start together with the same parent."""
    outcomes: Counter[str] = Counter()
    with opened(url) as store:
        checkpointer = checkpointer_of(store, None)
        newest = checkpointer.save("pair", {"n": -1})
        for number in range(races):
            start, found = threading.Barrier(2), []

            def save(
                who: int, number: int = number, parent: str = newest, start: Any = start, found: list[str] = found
            ) -> None:
                mine = checkpointer if who else checkpointer_of(store, None)
                start.wait()
                try:
                    found.append(
                        mine.save("pair", {"n": number, "who": who, "list": list(range(number % 80))}, parent=parent)
                    )
                except Conflict:
                    outcomes["conflict"] += 1

            pair = [threading.Thread(target=save, args=(who,)) for who in range(2)]
            for one in pair:
                one.start()
            for one in pair:
                one.join()
            outcomes[f"{len(found)} won"] += 1
            newest = found[0]
        made = every(checkpointer, "pair")
        assert [one.parent_id for one in made[1:]] == [one.id for one in made[:-1]]
        assert len(made) == races + 1
        assert checkpointer.verify().ok
    return outcomes


def test_one_of_each_pair_of_threads_wins(place, tell):
    races = RACES[place[0]] // 3
    outcomes = race_pairs(place[1], races)
    tell(f"checkpoint_pairs_{place[0]}", **outcomes)
    assert outcomes == {"1 won": races, "conflict": races}


@pytest.mark.full
@pytest.mark.timeout(0)
def test_one_of_each_pair_of_threads_wins_full(place, tell):
    outcomes = race_pairs(place[1], RACES_FULL)
    tell(f"checkpoint_pairs_full_{place[0]}", **outcomes)
    assert outcomes == {"1 won": RACES_FULL, "conflict": RACES_FULL}


@pytest.mark.parametrize("key", [None, 0], ids=["plain", "key"])
def test_saves_without_a_parent_from_four_processes_are_all_kept(zygote, place, tmp_path, tell, key):
    """Also when all begin with a store that knows no key yet."""
    count = 40 if place[0] == "sqlite" else 15
    logs = run(zygote, place[1], tmp_path, [{"task": "append", "count": count, "key": key}] * 4)
    made = [entry["made"] for log in logs for entry in log]
    with opened(place[1]) as store:
        checkpointer = checkpointer_of(store, key)
        found = [one for at in range(3) for one in every(checkpointer, f"many{at}")]
        for at in range(3):
            there = every(checkpointer, f"many{at}")
            assert [one.position for one in there] == list(range(len(there)))
        assert sorted(one.id for one in found) == sorted(made)
        assert len(made) == 4 * count
        for one in found[::7]:
            state = checkpointer.restore(one.id)
            assert (state["who"], state["number"], len(state["list"])) == (
                one.metadata["who"], one.metadata["number"], one.metadata["number"],
            )  # fmt: skip
        report = checkpointer.verify()
        tell(f"checkpoint_appends_{place[0]}", saves=len(made), lost=0, problems=len(report.problems))
        assert report.ok


def share(zygote: Zygote, place: tuple[str, str], folder: Path, rounds: int, tell: Tell, name: str) -> None:
    """Processes that save equal segments in many threads, prune, copy and delete: none is lost that one refers to."""
    engine, url = place
    run(
        zygote,
        url,
        folder,
        [{"task": "share", "rounds": rounds, "key": 0 if number < 4 else None} for number in range(4)],
    )
    with opened(url) as store:
        checkpointer = checkpointer_of(store, 0)
        report = checkpointer.verify()
        left = store.execute("select count(*) from checkpoint_segments")
        tell(f"{name}_{engine}", threads=report.threads, checkpoints=report.checkpoints, problems=len(report.problems))
        assert report.problems == ()
        assert report.threads > 4
        for thread in [one.id for one in checkpointer.list_threads()]:
            checkpointer.delete_thread(thread)
        assert left
        for table in ("segments", "runs", "items", "tags", "branches"):
            assert list(store.execute(f"select count(*) from checkpoint_{table}")) == [(0,)]


def test_segments_that_others_share_are_not_taken_away(zygote, place, tmp_path, tell):
    share(zygote, place, tmp_path, 40 if place[0] == "sqlite" else 25, tell, "checkpoint_sharing")


@pytest.mark.full
@pytest.mark.timeout(0)
def test_segments_that_others_share_are_not_taken_away_full(zygote, place, tmp_path, tell):
    share(zygote, place, tmp_path, 2_000, tell, "checkpoint_sharing_full")


def test_everything_is_readable_while_keys_rotate(place, tell):
    """Readers and writers with the old key and the new one, before, during and after."""
    figures: Counter[str] = Counter(reads=0, writes=0, refused_before=0, refused_after=0)
    wrong: list[str] = []
    rng = random.Random(4)
    with opened(place[1]) as store:
        old = checkpointer_of(store, 0)
        last = {f"t{at}": old.save(f"t{at}", {"n": at, "list": [at] * 70}) for at in range(25)}
        state = {"begun": False, "over": False}
        stop = threading.Event()

        def use(key: int, *, writes: bool) -> None:
            mine = checkpointer_of(store, key)
            while not stop.is_set():
                thread = rng.choice(list(last))
                over, begun = state["over"], state["begun"]
                try:
                    found = mine.latest_state(thread)
                    if found is None or found["n"] != int(thread[1:]):
                        wrong.append(f"{thread} is {found}")
                    figures["reads"] += 1
                    if writes:
                        mine.save(thread, {"n": int(thread[1:]), "list": [1] * rng.randrange(90)})
                        figures["writes"] += 1
                except WrongKey:
                    if key == 1 and not state["begun"]:
                        figures["refused_before"] += 1
                        mine = checkpointer_of(store, key)
                    elif key == 0 and state["over"]:
                        figures["refused_after"] += 1
                    elif over or begun:
                        wrong.append(f"key {key} does not open {thread}, {begun=} {over=}")

        users = [threading.Thread(target=use, args=(0,), kwargs={"writes": writes}) for writes in (True, False)]
        for one in users:
            one.start()
        rotating = checkpointer_of(store, 0)
        state["begun"] = True
        rotating.rotate_keys(KEYS[1])
        state["over"] = True
        late = threading.Thread(target=use, args=(1,), kwargs={"writes": True})
        late.start()
        late.join(0.3)
        stop.set()
        for one in (*users, late):
            one.join()
        tell(f"checkpoint_rotation_reads_{place[0]}", **figures)
        assert wrong == []
        new = checkpointer_of(store, 1)
        assert new.verify().ok
        assert all(new.latest_state(thread)["n"] == int(thread[1:]) for thread in last)
        with pytest.raises(WrongKey):
            checkpointer_of(store, 0).latest("t0")
        assert figures["reads"] > 10
        assert figures["writes"] > 5


def test_two_rotations_at_once_lose_nothing(place):
    """To one key or to two: whoever loses is told, and one of the keys opens everything."""
    for keys in ((1, 1), (1, 2)):
        with opened(place[1]) as store:
            thread = f"t{keys[1]}"
            start = threading.Barrier(2)
            current = next(one for one in range(5) if opens(store, one))
            targets = [(current + key) % 5 for key in keys]
            checkpointer_of(store, current).save(thread, {"n": 1, "list": [1] * 70})
            for at in range(12):
                checkpointer_of(store, current).save(f"more{at}", {"n": at})

            def rotate(target: int, start: Any = start, current: int = current) -> None:
                mine = checkpointer_of(store, current)
                mine.latest("more0")
                start.wait()
                with contextlib.suppress(WrongKey, Conflict):
                    mine.rotate_keys(KEYS[target])

            pair = [threading.Thread(target=rotate, args=(target,)) for target in targets]
            for one in pair:
                one.start()
            for one in pair:
                one.join()
            opening = [one for one in range(5) if opens(store, one)]
            assert opening
            for one in opening:
                found = checkpointer_of(store, one)
                assert found.verify().ok
                assert found.latest_state(thread)["n"] == 1
                assert [found.latest_state(f"more{at}")["n"] for at in range(12)] == list(range(12))


@pytest.mark.parametrize("first", [None, 0], ids=["plain", "key"])
@pytest.mark.parametrize("by", ["old", "new"])
def test_a_rotation_that_broke_off_is_gone_on_with_by_either_key(place, first, by):
    """Some threads are in the new domain, some in the old one; those of another tenant keep their key."""
    with opened(place[1]) as store:
        old = checkpointer_of(store, first)
        for at in range(4):
            old.save(f"more{at}", {"n": at})
        other = old.using(store.for_tenant("beta"))
        other.save("more0", {"n": 7})
        ring, kek = old._ring, parse_key(KEYS[1])
        rows = store._run(keyrows.read())
        domain, seal = ring._begin(store, kek, rows)
        assert store._run(copying.reseal("more1", "", {**ring.seals(store), domain: seal}, seal, compress=True))
        for key in {first, 1} - {None}:
            assert [checkpointer_of(store, key).latest_state(f"more{at}")["n"] for at in range(4)] == [0, 1, 2, 3]
        going = checkpointer_of(store, first if by == "old" else 1)
        assert going.rotate_keys(KEYS[1]) == 3
        assert [going.latest_state(f"more{at}")["n"] for at in range(4)] == [0, 1, 2, 3]
        assert opens(store, 1)
        assert not opens(store, 0)
        assert going.verify().ok
        with pytest.raises(Invalid):
            going.rotate_keys(KEYS[1])
        if by == "old":
            assert going.using(store.for_tenant("beta")).latest_state("more0")["n"] == 7


def test_keys_are_not_rotated_without_the_key_they_are_sealed_with(place):
    with opened(place[1]) as store:
        checkpointer_of(store, 0).save("more0", {"n": 0})
        for key in (None, 2):
            with pytest.raises(WrongKey):
                checkpointer_of(store, key).rotate_keys(KEYS[3])
        assert [key for key in range(5) if opens(store, key)] == [0]


def opens(store: Any, key: int) -> bool:
    try:
        checkpointer_of(store, key).latest("more0")
    except WrongKey:
        return False
    return True
