"""Opening, failing and closing, again and again: no file descriptor, thread or task stays behind.

``PERDURE_ROUNDS`` sets the number of rounds of the full run (1,000 unless given).
"""

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.testing.drivers import Opener

ROUNDS = {"sqlite": 200, "sqlite-blocking": 100, "postgres": 30, "postgres-blocking": 30}
ROUNDS_FULL = int(os.environ.get("PERDURE_ROUNDS", "1000"))

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="open descriptors are counted in /proc/self/fd, on Linux"
)


def _own_threads() -> int:
    """Threads, without those of asyncio's own pool: the loop keeps them, at most a handful, and starts them lazily."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


def held() -> tuple[int, int]:
    """Open file descriptors and threads of this process."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), _own_threads()


def resident_kilobytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


async def one_round(opener: Opener, number: int) -> None:
    """A store is opened, used, made to fail in every way that needs no broken disk, and closed."""
    async with opener() as store:
        made = await store.create_conversation("agent", "ann")
        await store.add_message(made.id, "user", f"words {number}")
        await store.search_messages("words")
        for failing in (
            store.add_message("nowhere", "user", "words"),
            store.create_conversation("agent", "ann", id=made.id),
            store.add_message(made.id, "nobody", "words"),
            store.execute("select * from nothing"),
            store.update_conversation(made.id, {}, expected_version=9),
        ):
            await _fails(failing)
        await _fails(_transaction(store, made.id))
        if not opener.blocking:
            given_up = asyncio.create_task(store.add_message(made.id, "user", "never mind"))
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
    await _fails(store.add_message(made.id, "user", "too late"))


async def _transaction(store: Any, conversation: str) -> None:
    async with store.transaction() as inside:
        await inside.add_message(conversation, "user", "taken back")
        await inside.add_message("nowhere", "user", "words")


async def _fails(call: Awaitable[Any]) -> None:
    try:
        await call
    except perdure.PerdureError:
        return
    raise AssertionError("it did not fail")


async def rounds_leave_nothing(
    opener: Opener, rounds: int, work: Callable[[Opener, int], Awaitable[None]]
) -> dict[str, Any]:
    """The figures of many rounds, after a few that warm up caches and pools of threads."""
    for number in range(5):
        await work(opener, number)
    before, memory = held(), resident_kilobytes()
    for number in range(rounds):
        await work(opener, number)
    after = held()
    tasks = len(asyncio.all_tasks()) - 1
    grown = {"descriptors": after[0] - before[0], "threads": after[1] - before[1], "tasks": tasks}
    assert grown["descriptors"] <= 0
    assert grown["threads"] <= 0
    assert tasks == 0
    return {"rounds": rounds, **grown, "memory_kb": resident_kilobytes() - memory}


async def test_rounds_leave_nothing_behind(opener, tell):
    tell(f"leaks_{opener.driver}", **await rounds_leave_nothing(opener, ROUNDS[opener.driver], one_round))


@pytest.mark.full
@pytest.mark.timeout(0)
async def test_rounds_leave_nothing_behind_full(opener, tell):
    figures = await rounds_leave_nothing(opener, ROUNDS_FULL, one_round)
    tell(f"leaks_{opener.driver}_full", **figures)
    assert figures["memory_kb"] < 20_000


async def test_stores_that_cannot_be_opened_leave_nothing_behind(tmp_path, tell):
    """A missing folder, a file that is no database, a folder in place of a file, a server that is not there."""
    (tmp_path / "text.db").write_text("this is no database, " * 500)
    (tmp_path / "folder.db").mkdir()
    addresses = [
        f"sqlite:///{tmp_path}/nowhere/store.db", f"sqlite:///{tmp_path}/text.db", f"sqlite:///{tmp_path}/folder.db",
    ]  # fmt: skip

    async def attempt(_opener: Opener, number: int) -> None:
        await _fails(perdure.Store(addresses[number % 3]).initialize())

    figures = await rounds_leave_nothing(Opener("sqlite", addresses[0]), 90, attempt)
    tell("leaks_failed_opens", **figures)
