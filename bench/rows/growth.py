"""P19: what every verb costs in stores of ten times the size, and the exponent of its growth.

Two ways to grow: a store with ever more conversations of 50 messages, and one conversation with ever more messages.
A cost of ``a * size ** k`` is a line of slope k on doubly logarithmic paper; k is fitted to the measured points.
"""

import gc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec

import perdure
import perdure.sync
from bench import data, lanes, pictures
from bench.places import describe, memory_folder
from bench.rounds import Check, Row
from bench.rows import Mode
from bench.rows.verbs import CONVERSATION, EACH, STORE, Filled, Verb

_USERS = 100
_CALLS, _FEW = 40, 6
_SECONDS = 1.5
"""A verb is called until it was called so often or took so long, at least three times."""
_BULKY = ("import_conversations", "delete_conversation", "erase_conversation", "add_messages")
"""Each call of these adds many messages (to delete them again), which would make a small store a larger one."""
_SLACK = 0.1
"""Of an exponent: caches that no longer hold everything, and noise."""


class Growth(msgspec.Struct):
    """A verb in one of the two ways to grow, and why it may grow with its scope (or "")."""

    name: str
    linear: str
    costs: dict[int, float] = msgspec.field(default_factory=dict)

    def exponent(self) -> float:
        """The slope of the measured points on doubly logarithmic paper."""
        xs = [math.log(size) for size in self.costs]
        ys = [math.log(cost) for cost in self.costs.values()]
        mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
        return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum(
            (x - mean_x) ** 2 for x in xs
        )


def log_exponent(sizes: tuple[int, ...]) -> float:
    """What the exponent of a cost of log n would be fitted to over the same sizes."""
    return Growth("", "", {size: math.log(size) for size in sizes}).exponent()


@contextmanager
def _filled(path: Path, size: int, each: int) -> Iterator[tuple[Filled, dict[str, float]]]:
    """A store with ``size`` messages, ``each`` a conversation, and what adding and indexing one of them took."""
    corpus = data.messages(2_000)
    talks = size // each
    with perdure.sync.open(lanes.url(path)) as store:
        drafts = [one.draft for one in corpus]
        started = time.perf_counter()
        for number in range(talks):
            tags = ["rare"] if number % 50 == 0 else ["usual"]
            store.create_conversation("agent", f"user-{number % _USERS}", {"tags": tags}, id=lanes.talk(number))
            left = each
            while left:
                shift = (number * each + left) % 1_000
                part = drafts[shift : shift + min(left, 1_000)]
                store.add_messages(lanes.talk(number), part)
                left -= len(part)
        loaded = time.perf_counter()
        store.absorb_text()
        absorbed = time.perf_counter()
        store.upkeep()
        yield Filled(store, talks, each), {
            "bulk load, a message": (loaded - started) / size, "text index, a message": (absorbed - loaded) / size,
        }  # fmt: skip


def _cost(filled: Filled, verb: Verb) -> float:
    """The median seconds of a call."""
    name, _, target, call = verb
    calls = _FEW if name.startswith(_BULKY) else _CALLS
    spent: list[float] = []
    began = time.perf_counter()
    while len(spent) < 3 or (len(spent) < calls and time.perf_counter() - began < _SECONDS):
        given = target(filled)
        started = time.perf_counter()
        call(filled.store, given)
        spent.append(time.perf_counter() - started)
    return median(spent[1:])


def _measure(verbs: list[Verb], sizes: tuple[int, ...], each: int | None) -> list[Growth]:
    """Every verb at every size; ``each`` messages a conversation, or all in one."""
    found: dict[str, Growth] = {}
    for size in sizes:
        with memory_folder() as folder, _filled(folder / "grown.db", size, each or size) as (filled, per_message):
            for name, cost in per_message.items():
                found.setdefault(name, Growth(name, "")).costs[size] = cost
            for verb in verbs:
                gc.collect()
                found.setdefault(verb[0], Growth(verb[0], verb[1])).costs[size] = _cost(filled, verb)
    return list(found.values())


def growing(mode: Mode) -> Row:
    """P19: the exponent of each verb's growth, and pictures of it."""
    with memory_folder() as folder:
        place = describe(folder)
    limit = log_exponent(mode.sizes) + _SLACK
    checks: list[Check] = []
    drawn: list[str] = []
    for label, file, verbs, each in (
        ("store", "growth-store", STORE, EACH), ("one conversation", "growth-conversation", CONVERSATION, None),
    ):  # fmt: skip
        grown = _measure(verbs, mode.sizes, each)
        checks += [
            Check(
                f"{label}: {verb.name}" + (f" ({verb.linear})" if verb.linear else ""), verb.exponent(),
                verb.costs[mode.sizes[-1]] * 1e6, unit="exponent", goal=None if verb.linear else round(limit, 2),
                key=f"P19.{verb.name}",
            )
            for verb in grown
        ]  # fmt: skip
        title = f"perdure: microseconds a call, by messages in the {label}"
        drawn.append(pictures.growth(file, title, [(v.name, v.linear, v.costs, v.exponent()) for v in grown], limit))
    setting = (
        f"{place}, NORMAL, blocking; sizes {', '.join(f'{size:,}' for size in mode.sizes)} messages, in conversations of "
        f"{EACH} and in one conversation; medians of up to {_CALLS} calls. A cost of log n has the exponent "
        f"{log_exponent(mode.sizes):.2f} over these sizes; {_SLACK} more is allowed for caches and noise. Beside each "
        "exponent stand the microseconds of a call at the largest size"
    )
    return Row("P19", "Growth", setting, checks, pictures=drawn)
