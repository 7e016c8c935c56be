"""Many processes change one thing at the same time: exact results, and nobody is ever told that the database is busy.

``PERDURE_STEPS`` sets the read-modify-writes of each process in the full runs (5,000 unless given).
"""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from contention_worker import COUNTED, count_up
from zygote import Zygote

import perdure.sync
from perdure.values.config import PersistenceConfig

STEPS, STEPS_FULL = 200, int(os.environ.get("PERDURE_STEPS", "5000"))
WORST_WAIT_SECONDS = 5.0
"""The default busy_timeout: above it the caller would have been told."""


@pytest.fixture(scope="module")
def zygote():
    with Zygote("contention_worker") as mother:
        yield mother


def race(zygote: Zygote, url: str, folder: Path, processes: int, steps: int) -> dict[str, Any]:
    """Lets processes count at once; the figures, once the count and everything beside it was found exact."""
    with perdure.sync.open(url) as store:
        store.create_conversation("agent", "ann", {"context": {"count": 0}}, COUNTED)
    outs = [folder / f"out{number}" for number in range(processes)]
    go = folder / "go"
    workers = [
        zygote.start(url=url, name=f"p{number}", times=steps, out=str(out), go=str(go))
        for number, out in enumerate(outs)
    ]
    deadline = time.monotonic() + 60
    while not all(Path(f"{out}.ready").exists() for out in outs):
        assert time.monotonic() < deadline, "not every process got ready"
        time.sleep(0.005)
    began = time.perf_counter()
    go.touch()
    assert [zygote.wait(worker) for worker in workers] == [0] * processes
    seconds = time.perf_counter() - began
    told = [json.loads(out.read_text()) for out in outs]
    with perdure.sync.open(url) as store:
        exact(store, [f"p{number}" for number in range(processes)], steps)
    return figures(told, processes, steps, seconds)


def exact(store: Any, names: list[str], steps: int) -> None:
    """The count is the number of steps; every message is there once, in its writer's order, with its tokens."""
    total = len(names) * steps
    known = store.get_conversation(COUNTED, include_messages=True)
    assert known.metadata.context == {"count": total}
    assert known.version == total + 1
    assert [message.seq for message in known.messages] == list(range(1, total + 1))
    by_name: dict[str, list[str]] = {name: [] for name in names}
    for message in known.messages:
        by_name[message.text.split()[0]].append(message.text)
    assert by_name == {name: [f"{name} {number}" for number in range(steps)] for name in names}
    assert (known.message_count, known.token_usage.total_tokens) == (total, 7 * total)
    assert [row.messages for row in store.token_report()] == [total]


def figures(told: list[dict[str, float]], writers: int, steps: int, seconds: float) -> dict[str, Any]:
    """What is told: nobody was refused, and the longest waits."""
    worst = max(one["worst_write"] for one in told)
    assert worst < WORST_WAIT_SECONDS * 2
    return {
        "writers": writers, "steps_each": steps, "lost": 0, "busy": 0,
        "conflicts_retried": sum(int(one["conflicts"]) for one in told), "worst_write_ms": round(worst * 1e3, 1),
        "worst_step_ms": round(max(one["worst_step"] for one in told) * 1e3, 1), "seconds": round(seconds, 2),
    }  # fmt: skip


def test_eight_processes_on_one_file(zygote, tmp_path, tell):
    tell("contention_sqlite", **race(zygote, f"sqlite:///{tmp_path}/store.db", tmp_path, 8, STEPS))


@pytest.mark.full
@pytest.mark.timeout(0)
def test_eight_processes_on_one_file_full(zygote, tmp_path, tell):
    tell("contention_sqlite_full", **race(zygote, f"sqlite:///{tmp_path}/store.db", tmp_path, 8, STEPS_FULL))


def test_sixteen_processes_on_one_file(zygote, tmp_path, tell):
    tell("contention_sqlite_16", **race(zygote, f"sqlite:///{tmp_path}/store.db", tmp_path, 16, STEPS // 4))


def test_sixteen_processes_on_postgres(zygote, tmp_path, fresh_postgres_url, tell):
    tell("contention_postgres", **race(zygote, fresh_postgres_url, tmp_path, 16, STEPS // 20))


@pytest.mark.full
@pytest.mark.timeout(0)
def test_sixteen_processes_on_postgres_full(zygote, tmp_path, fresh_postgres_url, tell):
    tell("contention_postgres_full", **race(zygote, fresh_postgres_url, tmp_path, 16, STEPS_FULL // 10))


def test_threads_on_one_blocking_store(tmp_path, tell):
    """Eight threads share one store, its writer and its readers."""
    told: list[dict[str, float]] = []
    with perdure.sync.Store(PersistenceConfig(f"sqlite:///{tmp_path}/store.db", pool_size=4)) as store:
        store.create_conversation("agent", "ann", {"context": {"count": 0}}, COUNTED)
        threads = [
            threading.Thread(target=lambda name=f"t{number}": told.append(count_up(store, name, STEPS)))
            for number in range(8)
        ]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        exact(store, [f"t{number}" for number in range(8)], STEPS)
    assert len(told) == 8
    tell("contention_threads", **figures(told, 8, STEPS, seconds))
