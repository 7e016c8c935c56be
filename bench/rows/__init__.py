"""The numbered goals, each measured by a function that returns a :class:`bench.rounds.Row`."""

from collections.abc import Callable
from importlib import import_module

import msgspec

from bench.rounds import Row


class Mode(msgspec.Struct, frozen=True):
    """How much is measured."""

    name: str
    rounds: int
    stored: int
    """Messages in the store that reads are measured on."""
    sizes: tuple[int, ...]
    """Messages in the stores that growth is measured on."""


QUICK = Mode("quick", 5, 100_000, (1_000, 10_000))
USUAL = Mode("usual", 11, 1_000_000, (1_000, 10_000, 100_000))
FULL = Mode("full", 21, 1_000_000, (1_000, 10_000, 100_000, 1_000_000))

_PLACES = {
    "P1": ("adds", "one_at_a_time"),
    "P2": ("adds", "durable_together"),
    "P3": ("adds", "together"),
    "P4": ("postgres", "adds_and_loads"),
    "P5": ("reads", "reading"),
    "P6": ("checkpoints", "sizes"),
    "P7": ("checkpoints", "saving"),
    "P8": ("langgraph", "running"),
    "P9": ("checkpoints", "listing"),
    "P14": ("checkpoints", "protected"),
    "P15": ("processes", "many_processes"),
    "P17": ("imports", "importing"),
    "P19": ("growth", "growing"),
}


def names() -> list[str]:
    """The rows there are, in order."""
    return list(_PLACES)


def measuring(name: str) -> Callable[[Mode], Row]:
    """The function that measures a row; what it needs is imported only now."""
    module, function = _PLACES[name]
    found: Callable[[Mode], Row] = getattr(import_module(f"bench.rows.{module}"), function)
    return found
