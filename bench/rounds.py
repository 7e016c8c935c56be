"""Lanes measured in turns, and what the turns say: medians and worst rounds of ratios."""

import gc
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Literal, NamedTuple

import msgspec


class Spent(NamedTuple):
    """Seconds that one operation took: by the clock on the wall, and of this process's processors."""

    wall: float
    cpu: float


Lane = Callable[[], Spent]
"""Does a slice of work and says what one operation took."""
Rounds = dict[str, list[Spent]]
"""What one operation of each lane took in each round."""


class Watch:
    """Begins to count when it is made."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._wall = time.perf_counter()

    def each(self, operations: int) -> Spent:
        """What one of the operations took that were done since."""
        wall = time.perf_counter() - self._wall
        return Spent(wall / operations, (time.process_time() - self._cpu) / operations)


class Check(msgspec.Struct):
    """One figure of a row, with the goal that it is held against (or none: it is only information)."""

    what: str
    value: float
    worst: float | None = None
    cpu: float | None = None
    """The median of the same ratio in CPU time, which other work on the machine disturbs less."""
    unit: str = "x"
    goal: float | None = None
    sense: Literal["at most", "at least", "below"] = "at most"
    every_round: bool = False
    """Whether the worst round must meet the goal, not the median."""
    key: str = ""
    """What `why.toml` calls it."""

    @property
    def met(self) -> bool | None:
        """Whether the goal was met; None without one."""
        if self.goal is None:
            return None
        value = self.worst if self.every_round and self.worst is not None else self.value
        if self.sense == "at most":
            return value <= self.goal
        return value < self.goal if self.sense == "below" else value >= self.goal


class Time(msgspec.Struct):
    """An absolute figure: information, as it depends on the machine and its other work."""

    what: str
    value: float
    unit: str = "us"


class Row(msgspec.Struct):
    """What one numbered goal was measured to be."""

    name: str
    title: str
    setting: str
    checks: list[Check] = msgspec.field(default_factory=list)
    times: list[Time] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    pictures: list[str] = msgspec.field(default_factory=list)
    date: str = ""
    mode: str = ""
    load: str = ""
    """How busy the machine was before."""


def interleave(lanes: Mapping[str, Lane], rounds: int, *, warm_up: int = 2) -> Rounds:
    """Every lane once a round, each round beginning with another of them; the first rounds only warm up."""
    names = list(lanes)
    found: Rounds = {name: [] for name in names}
    gc.collect()
    gc.freeze()  # what the libraries brought along; no lane pays for looking through it
    for number in range(-warm_up, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()  # no lane pays for the garbage of another
            spent = lanes[name]()
            if number >= 0:
                found[name].append(spent)
    gc.unfreeze()
    return found


def slower(found: Rounds, lane: str, limit: str) -> tuple[float, float, float]:
    """How many times as long ``lane`` takes as ``limit``: the median of the rounds, the worst, the median in CPU time."""
    pairs = list(zip(found[lane], found[limit], strict=True))
    ratios = [mine.wall / theirs.wall for mine, theirs in pairs]
    return median(ratios), max(ratios), median(mine.cpu / theirs.cpu for mine, theirs in pairs)


def faster(found: Rounds, lane: str, peer: str) -> tuple[float, float, float]:
    """How many times as fast ``lane`` is as ``peer``: the median of the rounds, the worst, the median in CPU time."""
    pairs = list(zip(found[lane], found[peer], strict=True))
    ratios = [theirs.wall / mine.wall for mine, theirs in pairs]
    return median(ratios), min(ratios), median(theirs.cpu / mine.cpu for mine, theirs in pairs)


def times(found: Rounds) -> list[Time]:
    """The median microseconds per operation of each lane."""
    return [Time(name, median(spent.wall for spent in values) * 1e6) for name, values in found.items()]


def percentile(values: list[float], share: float) -> float:
    """The value that ``share`` of the values stay below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
