"""Full and failing disks: typed errors, reading goes on, nothing acknowledged is lost, no sync is tried twice.

Two kinds of disk: one written in Python beneath SQLite, which fails at the n-th call (``disk_worker.py``), and small
file systems that are really full (Linux, root only).
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from zygote import Zygote

import perdure
import perdure.sync
from perdure.drivers.sqlite import connection
from perdure.values.config import PersistenceConfig

EVERY, EVERY_FULL = 60, 1
"""A fault at each of every so many I/O calls of a life."""
FILLS, FILLS_FULL = 12, 200
Result = dict[str, Any]


@pytest.fixture(scope="module")
def zygote():
    if connection.checksum_vfs() is None:
        pytest.skip("apsw brings no checksum VFS for this platform")
    with Zygote("disk_worker") as mother:
        yield mother


def live(zygote: Zygote, folder: Path, plans: list[Result]) -> list[Result]:
    """What became of each plan, tried in two processes."""
    for number in range(2):
        out = folder / f"out{number}"
        out.unlink(missing_ok=True)
    workers = [
        zygote.start(folder=str(folder), out=str(folder / f"out{number}"), plans=plans[number::2])
        for number in range(2)
    ]
    assert [zygote.wait(worker) for worker in workers] == [0, 0]
    return [json.loads(line) for n in range(2) for line in (folder / f"out{n}").read_text().splitlines()]


def plan(at: int, durability: str, *, full: bool = False, calls: int = 1, pass_pages: int = 1_000) -> Result:
    """A fault: where it begins, for how many calls it stays, and how often the log is moved into the file."""
    return {"at": at, "durability": durability, "full": full, "for": calls, "pass_pages": pass_pages}


def judge(results: list[Result], **more: int) -> dict[str, int]:
    """The figures of many faults, after all that must hold was asserted."""
    sums: Counter[str] = Counter()
    for one in results:
        broken = {name: one.get(name) for name in ("lost", "unsettled", "twice", "doctor", "hits") if one.get(name)}
        assert broken == {}, one
        assert one["synced_again"] == [], one
        if one["durability"] == "full":
            assert not one["acknowledged_after_failed_sync"], one
        sums["typed_errors"] += len(one["errors"])
        sums["reads_went_on"] += one.get("reads_went_on", 0)
        sums["faults"] += one["failed"] > 0
    return {
        "lives": len(results), **more, **sums, "lost": 0, "twice": 0, "synced_again": 0,
        "acknowledged_after_failed_sync": 0,
    }  # fmt: skip


def fail_everywhere(zygote: Zygote, folder: Path, every: int) -> dict[str, int]:
    """One I/O error at each of every so many calls, with both durabilities, and with a log that is moved often."""
    results: list[Result] = []
    for durability in ("normal", "full"):
        for pass_pages in (1_000, 10):
            (sound,) = live(zygote, folder, [plan(0, durability, pass_pages=pass_pages)])
            assert sound["errors"] == []
            start = 1 + len(results) % max(1, every - 1)
            plans = [plan(at, durability, pass_pages=pass_pages) for at in range(start, sound["calls"] + 1, every)]
            results += live(zygote, folder, plans)
    return judge(results)


def test_an_io_error_at_any_call(zygote, tmp_path, tell):
    tell("disk_eio", **fail_everywhere(zygote, tmp_path, EVERY))


@pytest.mark.full
@pytest.mark.timeout(0)
def test_an_io_error_at_every_call(zygote, tmp_path, tell):
    tell("disk_eio_full", **fail_everywhere(zygote, tmp_path, EVERY_FULL))


def test_every_sync_that_fails(zygote, tmp_path, tell):
    """A sync that failed is not tried again on the same handle, and what it was for is not acknowledged."""
    results: list[Result] = []
    for pass_pages, every in ((1_000, 2), (10, 4)):
        (sound,) = live(zygote, tmp_path, [plan(0, "full", pass_pages=pass_pages)])
        syncs = range(1, sound["kinds"]["sync"] + 1, every)
        plans = [{**plan(at, "full", pass_pages=pass_pages), "only": "sync"} for at in syncs]
        results += live(zygote, tmp_path, plans)
    tell("disk_failed_syncs", **judge(results))


def test_a_full_disk_at_any_call(zygote, tmp_path, tell):
    """Space runs out for a while; when there is some again, the same store goes on."""
    (sound,) = live(zygote, tmp_path, [plan(0, "normal")])
    starts = range(1, sound["calls"], EVERY)
    plans = [plan(at, "normal", full=True, calls=25, pass_pages=pages) for at in starts for pages in (1_000, 10)]
    results = live(zygote, tmp_path, plans)
    assert all(one["reads_went_on"] for one in results if one["errors"])
    tell("disk_full_simulated", **judge(results))


@pytest.mark.parametrize("full", [False, True], ids=["eio", "enospc"])
def test_a_fault_inside_a_transaction_leaves_nothing_of_it(zygote, tmp_path, tell, full):
    """Also when the block catches the error and goes on: its later verbs are refused, not committed on their own."""
    sound = live(zygote, tmp_path, [{**plan(0, "normal"), "transaction": True}])[0]
    assert sound["stored"] == sound["kept"] == 40
    plans = [{**plan(at, "normal", full=full), "transaction": True} for at in range(1, sound["calls"] + 1, 9)]
    results = live(zygote, tmp_path, plans)
    for one in results:
        assert one["stored"] in {one["kept"], 40 if one["errors"] == 1 else one["kept"]}, one
        assert one["seqs_whole"], one
    tell(f"disk_transactions_{'enospc' if full else 'eio'}", lives=len(results), partial=0)


# -- disks that are really full ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mount refuses a tmpfs here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_and_free(folder: Path, ballast: int) -> dict[str, int]:
    """Writes until the disk is full, reads on it, frees space, and goes on: what was acknowledged is all there."""
    stone = folder / "ballast"
    stone.write_bytes(b"x" * ballast)
    told: list[str] = []
    refused = 0
    with perdure.sync.Store(PersistenceConfig(f"sqlite:///{folder}/store.db", pool_size=1)) as store:
        store.create_conversation("agent", "ann", id="c")
        while refused < 3:
            assert len(told) < 20_000, "the disk does not fill"
            try:
                told.append(store.add_message("c", "user", f"word {len(told)} " + "x" * 700).id)
            except perdure.Unavailable:
                refused += 1
                assert [message.id for message in store.get_messages("c", last=5)] == told[-5:]
                assert store.get_conversation("c").message_count == len(told)
        stone.unlink()
        told += [store.add_message("c", "user", f"after {number}").id for number in range(20)]
        store.upkeep()
    with perdure.sync.Store(f"sqlite:///{folder}/store.db") as store:
        assert [message.id for message in store.get_conversation("c", include_messages=True).messages] == told
        assert store.doctor()["problems"] == []
    for file in folder.iterdir():
        file.unlink()
    return {"acknowledged": len(told), "refused": refused}


def fill_often(folder: Path, fills: int) -> dict[str, int]:
    """Disks with more and less room, so that they run full at different points."""
    figures: Counter[str] = Counter(fills=0, lost=0)
    for number in range(fills):
        figures.update(fill_and_free(folder, 2_700_000 + number * (900_000 // fills) + number * 37))
        figures["fills"] += 1
    return figures


def test_a_disk_that_is_really_full(small_disk, tell):
    tell("disk_full", **fill_often(small_disk, FILLS))


@pytest.mark.full
@pytest.mark.timeout(0)
def test_a_disk_that_is_really_full_at_200_points(small_disk, tell):
    tell("disk_full_full", **fill_often(small_disk, FILLS_FULL))
