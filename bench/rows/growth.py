"""P19: what every verb costs in stores of ten times the size, and the exponent of its growth.

Two ways to grow: a store with ever more conversations of 50 messages, and one conversation with ever more messages.
A cost of ``a * size ** k`` is a line of slope k on doubly logarithmic paper. k is fitted to all points, and to the last two:
the greater counts, as what grows with size hides behind fixed costs while the store is small.
"""

import gc
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
"""A verb is called until it was called so often or took so long, at least four times."""
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
        """The slope on doubly logarithmic paper: that of all points, or of the last two where the line bends upwards."""
        points = [(math.log(size), math.log(cost)) for size, cost in self.costs.items()]
        return max(_slope(points), _slope(points[-2:]))


def _slope(points: list[tuple[float, float]]) -> float:
    """The slope of the straight line that fits the points best."""
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def log_exponent(sizes: tuple[int, ...]) -> float:
    """What the exponent of a cost of log n would be fitted to over the same sizes."""
    return Growth("", "", {size: math.log(size) for size in sizes}).exponent()


def _user(number: int) -> str:
    """Whose conversation it is: one user has as many in a small store as in a large one."""
    return "user-7" if number < 15 else f"other-{number % _USERS}"


@contextmanager
def _filled(path: Path, size: int, each: int) -> Iterator[tuple[Filled, dict[str, float]]]:
    """A store with ``size`` messages, ``each`` a conversation, and what adding and indexing one of them took."""
    corpus = data.messages(2_000)
    talks = size // each
    with perdure.sync.open(lanes.url(path)) as store:
        drafts = [one.draft for one in corpus]
        started = time.process_time()
        for number in range(talks):
            tags = ["rare"] if number % 50 == 0 else ["usual"]
            store.create_conversation("agent", _user(number), {"tags": tags}, id=lanes.talk(number))
            left = each
            while left:
                shift = (number * each + left) % 1_000
                part = drafts[shift : shift + min(left, 1_000)]
                store.add_messages(lanes.talk(number), part)
                left -= len(part)
        loaded = time.process_time()
        for _ in range(5):
            store.add_message(lanes.talk(0), "user", f"A {data.RARE_WORD} was seen")
        store.absorb_text()
        absorbed = time.process_time()
        store.upkeep()
        yield Filled(store, talks, each), {
            "bulk load, a message": (loaded - started) / size, "text index, a message": (absorbed - loaded) / size,
        }  # fmt: skip


def _costs(stores: dict[int, Filled], verb: Verb) -> dict[int, float]:
    """The median CPU seconds of a call in each store; the stores take turns, so that noise meets all alike."""
    name, _, target, call = verb
    calls = _FEW if name.startswith(_BULKY) else _CALLS
    spent: dict[int, list[float]] = {size: [] for size in stores}
    began = time.perf_counter()
    for turn in range(calls + 1):
        if turn > 3 and time.perf_counter() - began > _SECONDS * len(stores):
            break
        for size, filled in stores.items():
            given = target(filled)
            started = time.process_time()
            call(filled.store, given)
            spent[size].append(time.process_time() - started)
    return {size: median(found[1:]) for size, found in spent.items()}


def _measure(verbs: list[Verb], sizes: tuple[int, ...], each: int | None) -> list[Growth]:
    """Every verb at every size; ``each`` messages a conversation, or all in one."""
    found: dict[str, Growth] = {}
    stores: dict[int, Filled] = {}
    with memory_folder() as folder, ExitStack() as open_ones:
        for size in sizes:
            stores[size], per_message = open_ones.enter_context(_filled(folder / f"{size}.db", size, each or size))
            for name, cost in per_message.items():
                found.setdefault(name, Growth(name, "")).costs[size] = cost
        for verb in verbs:
            gc.collect()
            found[verb[0]] = Growth(verb[0], verb[1], _costs(stores, verb))
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
        title = f"perdure: microseconds of CPU a call, by messages in the {label}"
        drawn.append(pictures.growth(file, title, [(v.name, v.linear, v.costs, v.exponent()) for v in grown], limit))
    setting = (
        f"{place}, NORMAL, blocking; sizes {', '.join(f'{size:,}' for size in mode.sizes)} messages, in conversations of "
        f"{EACH} and in one conversation; median CPU time of up to {_CALLS} calls, the sizes in turns. The exponent is fitted to all sizes and to the last two, and the greater counts. A cost of log n has the exponent "
        f"{log_exponent(mode.sizes):.2f} over these sizes; {_SLACK} more is allowed for caches and noise. Beside each "
        "exponent stand the microseconds of a call at the largest size"
    )
    return Row("P19", "Growth", setting, checks, pictures=drawn)
