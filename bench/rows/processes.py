"""P15: sixteen processes that write to one SQLite file."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from bench import lanes
from bench.places import describe, describe_disk, disk_folder, memory_folder
from bench.rounds import Check, Row, Time, percentile
from bench.rows import Mode

_PROCESSES = 16
_SECONDS = 2.0


class Turn(msgspec.Struct):
    """What sixteen processes did in one round."""

    rate: float
    worst_ms: float
    p99_ms: float
    errors: list[str]


class Crowd:
    """Sixteen processes that write to one file when they are told to."""

    def __init__(self, library: str, path: Path, durability: lanes.Durability) -> None:
        command = [sys.executable, "-m", "bench.worker", "one_of_many", library, str(path)]
        self._workers = [
            subprocess.Popen(
                [*command, str(number), durability], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for number in range(_PROCESSES)
        ]
        for worker in self._workers:
            if self._line(worker) != "ready":
                raise RuntimeError(f"a process of {library} did not start")

    @staticmethod
    def _line(worker: subprocess.Popen[str]) -> str:
        assert worker.stdout is not None
        return worker.stdout.readline().strip()

    def turn(self) -> Turn:
        """Lets all of them write for some seconds."""
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{_SECONDS}\n")
            worker.stdin.flush()
        done: list[dict[str, Any]] = [json.loads(self._line(worker)) for worker in self._workers]
        waits = [wait for one in done for wait in one["waits"]]
        elapsed = max(one["ended"] for one in done) - min(one["started"] for one in done)
        errors = [error for one in done for error in one["errors"]]
        return Turn(len(waits) / elapsed, max(waits) * 1e3, percentile(waits, 0.99) * 1e3, errors)

    def close(self) -> None:
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.close()
        for worker in self._workers:
            worker.wait()


@contextmanager
def _crowd(library: str, path: Path, durability: lanes.Durability) -> Iterator[Crowd]:
    crowd = Crowd(library, path, durability)
    try:
        yield crowd
    finally:
        crowd.close()


def many_processes(mode: Mode) -> Row:
    """P15: errors, writes a second in total and the worst wait, beside openai-agents in the same rounds."""
    rounds = 5 if mode.rounds < 11 else 7
    with memory_folder() as memory, disk_folder() as disk, ExitStack() as open_ones:
        for folder in (memory, disk):
            lanes.create(folder / "perdure.db", _PROCESSES)
            lanes.create(folder / "raw.db", _PROCESSES)
        crowds = {
            "perdure": ("perdure", memory, "normal"), "openai-agents": ("agents", memory, "full"),
            "raw, the same rows": ("raw", memory, "normal"),
            "perdure FULL on disk": ("perdure", disk, "full"), "openai-agents FULL on disk": ("agents", disk, "full"),
            "raw, the same rows FULL on disk": ("raw", disk, "full"),
        }  # fmt: skip
        running = {
            name: open_ones.enter_context(_crowd(library, folder / f"{library}.db", durability))
            for name, (library, folder, durability) in crowds.items()
        }
        turns: dict[str, list[Turn]] = {name: [] for name in running}
        for number in range(rounds):
            for name in [*running][number:] + [*running][:number]:
                turns[name].append(running[name].turn())
        place = f"{describe(memory)}, NORMAL, and {describe_disk(disk)}, FULL"
    setting = f"{place}; {rounds} rounds of {_SECONDS:.0f} s, each process one awaited add after another"
    return Row("P15", "16 processes on one SQLite file", setting, _checks(turns), _times(turns), _errors(turns))


def _checks(turns: dict[str, list[Turn]]) -> list[Check]:
    checks: list[Check] = []
    for suffix in ("", " FULL on disk"):
        mine, theirs, raw = (turns[f"{name}{suffix}"] for name in ("perdure", "openai-agents", "raw, the same rows"))
        rates = [one.rate for one in mine]
        ratios, limits = (
            [one.rate / other.rate for one, other in zip(mine, others, strict=True)] for others in (theirs, raw)
        )  # fmt: skip
        waits = [one.worst_ms for one in mine]
        enough = median(ratios) >= 1  # the goal is either of the two
        where, disk = suffix.strip() or "tmpfs", "_disk" if suffix else ""
        checks += [
            Check(f"{where}: errors", sum(len(one.errors) for one in mine), unit="", goal=0, key=f"P15.errors{disk}"),
            Check(
                f"{where}: writes a second in total", median(rates), min(rates), unit="/s", goal=None if enough else 1_600,
                sense="at least", key=f"P15.rate{disk}",
            ),
            Check(
                f"{where}: times as many as openai-agents (or the rate above)", median(ratios), min(ratios),
                goal=1.0 if enough else None, sense="at least",
            ),
            Check(f"{where}: times as many as raw, the same rows, with sqlite3's own waiting", median(limits), min(limits)),
            Check(
                f"{where}: worst wait", median(waits), max(waits), unit="ms", goal=1_000, sense="below", every_round=True,
                key=f"P15.wait{disk}",
            ),
        ]  # fmt: skip
    return checks


def _times(turns: dict[str, list[Turn]]) -> list[Time]:
    found: list[Time] = []
    for name, done in turns.items():
        found.append(Time(f"{name}, writes a second", median(one.rate for one in done), unit="/s"))
        found.append(Time(f"{name}, p99 wait", median(one.p99_ms for one in done), "ms"))
        found.append(Time(f"{name}, worst wait", max(one.worst_ms for one in done), "ms"))
    return found


def _errors(turns: dict[str, list[Turn]]) -> list[str]:
    """Errors of the peer are facts to know; perdure's own would be a miss."""
    notes: list[str] = []
    for name, done in turns.items():
        errors = [error for one in done for error in one.errors]
        if errors:
            notes.append(f"{name}: {len(errors)} errors, the first: {errors[0]}")
    return notes
