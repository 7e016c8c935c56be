"""Lanes measured in turns, and what the turns say: medians and worst rounds of ratios."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Literal

import msgspec

Lane = Callable[[], float]
"""Does a slice of work and returns the seconds that one operation took."""
Rounds = dict[str, list[float]]
"""Seconds per operation of each lane in each round."""


class Check(msgspec.Struct):
    """One figure of a row, with the goal that it is held against (or none: it is only information)."""

    what: str
    value: float
    worst: float | None = None
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


def interleave(lanes: Mapping[str, Lane], rounds: int, *, warm_up: int = 1) -> Rounds:
    """Every lane once a round, each round beginning with another of them; the first rounds only warm up."""
    names = list(lanes)
    found: Rounds = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            with quiet():
                seconds = lanes[name]()
            if number >= 0:
                found[name].append(seconds)
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Leaves no lane the garbage of another."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def slower(found: Rounds, lane: str, limit: str) -> tuple[float, float]:
    """How many times as long ``lane`` takes as ``limit``: the median of the rounds, and the worst."""
    ratios = [mine / theirs for mine, theirs in zip(found[lane], found[limit], strict=True)]
    return median(ratios), max(ratios)


def faster(found: Rounds, lane: str, peer: str) -> tuple[float, float]:
    """How many times as fast ``lane`` is as ``peer``: the median of the rounds, and the worst."""
    ratios = [theirs / mine for mine, theirs in zip(found[lane], found[peer], strict=True)]
    return median(ratios), min(ratios)


def times(found: Rounds) -> list[Time]:
    """The median microseconds per operation of each lane."""
    return [Time(name, median(values) * 1e6) for name, values in found.items()]


def percentile(values: list[float], share: float) -> float:
    """The value that ``share`` of the values stay below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
