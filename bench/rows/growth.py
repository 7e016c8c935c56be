"""P19: what every verb costs in stores of ten times the size, and the exponent of its growth.

Two ways to grow: a store with ever more conversations of 50 messages, and one conversation with ever more messages.
A cost of ``a * size ** k`` is a line of slope k on doubly logarithmic paper; k is fitted to the measured points.
"""

import gc
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

import perdure
import perdure.sync
from bench import data, lanes, pictures
from bench.places import describe, memory_folder
from bench.rounds import Check, Row
from bench.rows import Mode

_EACH = 50
_USERS = 100
_CALLS = 40
_SECONDS = 1.5
"""A verb is called until it was called so often or took so long, at least three times."""
_SLACK = 0.1
"""Of an exponent: caches that no longer hold everything, and noise."""

Call = Callable[[], Any]


class Verb(msgspec.Struct):
    """A verb in one of the two ways to grow, and why it may grow with its scope (or "")."""

    name: str
    linear: str
    costs: dict[int, float] = msgspec.field(default_factory=dict)

    def exponent(self) -> float:
        """The slope of the measured points on doubly logarithmic paper."""
        xs = [math.log(size) for size in self.costs]
        ys = [math.log(cost) for cost in self.costs.values()]
        mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
        return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)


def log_exponent(sizes: tuple[int, ...]) -> float:
    """What the exponent of a cost of log n would be fitted to over the same sizes."""
    return Verb("", "", {size: math.log(size) for size in sizes}).exponent()


class Store:
    """A filled store, with endless fresh ids of what is in it."""

    def __init__(self, store: perdure.sync.Store, talks: int, each: int) -> None:
        self.store = store
        self.rng = random.Random(5)
        self.talks = talks
        self.each = each
        self.corpus = data.messages(200, seed=9)
        self.said = data.cycle(self.corpus)
        self._doomed = iter(range(talks))
        self._numbers = itertools.count()

    def talk(self) -> str:
        """A random conversation."""
        return lanes.talk(self.rng.randrange(self.talks // 2, self.talks))

    def doomed(self) -> str:
        """A conversation that is not in use elsewhere, each but once."""
        return lanes.talk(next(self._doomed))

    def message(self) -> str:
        """A random message."""
        page = self.store.get_messages(self.talk(), 1, after=self.rng.randrange(self.each))
        return page[0].id

    def add(self, name: str) -> perdure.Message:
        one = next(self.said)
        return self.store.add_message(name, one.role, one.text, token_usage=one.usage)

    def fresh(self) -> str:
        """An id that nothing has."""
        return f"fresh-{next(self._numbers)}"


# Each verb: its name, why it may be linear, and what makes a call of it (so that finding an id is not measured).
Maker = tuple[str, str, Callable[[Store], Call]]

_WHOLE = "reads its whole scope by contract"
_OWN = "linear in the messages of its conversation"


def _store_verbs() -> list[Maker]:
    """The verbs in a store with ever more conversations."""
    return [
        ("add_message", "", lambda s: lambda name=s.talk(): s.add(name)),
        ("add_messages, 20", "", lambda s: lambda name=s.talk(): s.store.add_messages(name, [next(s.said).draft for _ in range(20)])),
        ("create_conversation", "", lambda s: lambda: s.store.create_conversation("agent", "user-1")),
        ("ensure_conversation + add", "", lambda s: lambda name=s.fresh(): (s.store.ensure_conversation(name, "agent", "user-1"), s.add(name))),
        ("get_conversation", "", lambda s: lambda name=s.talk(): s.store.get_conversation(name)),
        ("get_conversation, messages", "", lambda s: lambda name=s.talk(): s.store.get_conversation(name, include_messages=True)),
        ("get_messages, last 50", "", lambda s: lambda name=s.talk(): s.store.get_messages(name, last=50)),
        ("get_message", "", lambda s: lambda id=s.message(): s.store.get_message(id)),
        ("update_conversation", "", lambda s: lambda name=s.talk(): s.store.update_conversation(name, {"title": "Another title"})),
        ("edit_message", "", lambda s: lambda id=s.message(): s.store.edit_message(id, "Other words")),
        ("message_history", "", lambda s: lambda id=s.message(): s.store.message_history(id)),
        ("fork_conversation", "", lambda s: lambda name=s.talk(): s.store.fork_conversation(name, 25)),
        ("flush, 1 new", "", _flush),
        ("context_window", "", lambda s: lambda name=s.talk(): s.store.context_window(name, 2_000)),
        ("to_openai", "", lambda s: lambda name=s.talk(): s.store.to_openai(name, max_tokens=2_000)),
        ("transaction, 2 adds", "", _transaction),
        ("query_conversations, user", "", lambda s: lambda: s.store.query_conversations(user_id="user-7")),
        ("query_conversations, all", "", lambda s: lambda: s.store.query_conversations()),
        ("query_conversations, tag", "looks at the conversations of its scope: filters are checked row by row",
         lambda s: lambda: s.store.query_conversations(filters={"tags": ["rare"]})),
        ("query_conversations, by count", "sorts the conversations of its scope", lambda s: lambda: s.store.query_conversations(order_by="message_count")),
        ("token_report, model", "adds up one row a day for each user, agent and model", lambda s: lambda: s.store.token_report("model")),
        ("search_messages, rare word", "", lambda s: lambda: s.store.search_messages(data.word(15_000))),
        ("search_messages, common word", "", lambda s: lambda: s.store.search_messages(data.COMMON_WORD)),
        ("search_messages, user", "", lambda s: lambda: s.store.search_messages(data.COMMON_WORD, user_id="user-7")),
        ("search_messages after an add", "", _search_fresh),
        ("changes, 100", "", lambda s: lambda cursor=f"0.{s.rng.randrange(s.talks * s.each)}": s.store.changes(cursor, limit=100)),
        ("latest_change", "", lambda s: lambda: s.store.latest_change()),
        ("trail", "the trail of one object is an administrator's question: it reads the feed", lambda s: lambda id=s.message(): s.store.trail("message", id)),
        ("stats", _WHOLE, lambda s: lambda: s.store.stats()),
        ("export_conversations", _WHOLE, lambda s: lambda: s.store.export_conversations(lambda chunk: None)),
        ("doctor", _WHOLE, lambda s: lambda: s.store.doctor()),
        ("delete_message", "", lambda s: lambda id=s.message(): s.store.delete_message(id)),
        ("erase_message", "finds every entry of the feed that names it", lambda s: lambda id=s.message(): s.store.erase_message(id)),
        ("delete_conversation", "", lambda s: lambda name=s.doomed(): s.store.delete_conversation(name)),
        ("erase_conversation", "finds every entry of the feed that names it", lambda s: lambda name=s.doomed(): s.store.erase_conversation(name)),
    ]  # fmt: skip


def _talk_verbs() -> list[Maker]:
    """The verbs on one conversation that has ever more messages."""
    name = lanes.talk(0)
    return [
        ("add_message", "", lambda s: lambda: s.add(name)),
        ("get_conversation", "", lambda s: lambda: s.store.get_conversation(name)),
        ("get_conversation, messages", _OWN, lambda s: lambda: s.store.get_conversation(name, include_messages=True)),
        ("get_messages, last 50", "", lambda s: lambda: s.store.get_messages(name, last=50)),
        ("get_messages, 50 in the middle", "", lambda s: lambda: s.store.get_messages(name, 50, after=s.each // 2)),
        ("get_message", "", lambda s: lambda id=s.message(): s.store.get_message(id)),
        ("edit_message", "", lambda s: lambda id=s.message(): s.store.edit_message(id, "Other words")),
        ("context_window", "", lambda s: lambda: s.store.context_window(name, 2_000)),
        ("fork_conversation", "adds up the messages that the fork inherits", lambda s: lambda: s.store.fork_conversation(name, s.each)),
        ("flush, 1 new", "compares the whole history", _flush_one),
        ("search_messages, conversation", "", lambda s: lambda: s.store.search_messages(data.word(15_000), conversation_id=name)),
        ("search_messages, conversation, common", _OWN, lambda s: lambda: s.store.search_messages(data.COMMON_WORD, conversation_id=name)),
        ("delete_message", "", lambda s: lambda id=s.message(): s.store.delete_message(id)),
    ]  # fmt: skip


def _history(store: Store, name: str) -> list[perdure.Draft]:
    talk = store.store.get_conversation(name, include_messages=True)
    assert talk is not None
    told = [perdure.Draft(one.role, one.content) for one in talk.messages]
    return [*told, perdure.Draft("user", f"Something new: {store.fresh()}")]


def _flush(store: Store) -> Call:
    name = store.talk()
    return lambda history=_history(store, name): store.store.flush(name, history)


def _flush_one(store: Store) -> Call:
    history = _history(store, lanes.talk(0))[:10_000]
    return lambda: store.store.flush(lanes.talk(0), history)


def _transaction(store: Store) -> Call:
    first, second = store.talk(), store.talk()
    one = next(store.said)

    def call() -> None:
        with store.store.transaction() as together:
            together.add_message(first, one.role, one.text)
            together.add_message(second, one.role, one.text)

    return call


def _search_fresh(store: Store) -> Call:
    store.add(store.talk())
    return lambda: store.store.search_messages(data.word(15_000))


@contextmanager
def _filled(path: Path, size: int, each: int) -> Iterator[tuple[Store, dict[str, float]]]:
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
        yield Store(store, talks, each), {
            "bulk load, a message": (loaded - started) / size, "text index, a message": (absorbed - loaded) / size,
        }  # fmt: skip


def _cost(store: Store, maker: Callable[[Store], Call]) -> float:
    """The median seconds of a call."""
    spent: list[float] = []
    began = time.perf_counter()
    while len(spent) < 3 or (len(spent) < _CALLS and time.perf_counter() - began < _SECONDS):
        call = maker(store)
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return median(spent[1:])


def _measure(makers: list[Maker], sizes: tuple[int, ...], each: int | None) -> list[Verb]:
    """Every verb at every size; ``each`` messages a conversation, or all in one."""
    found: dict[str, Verb] = {}
    for size in sizes:
        with memory_folder() as folder, _filled(folder / "grown.db", size, each or size) as (store, per_message):
            for name, cost in per_message.items():
                found.setdefault(name, Verb(name, "")).costs[size] = cost
            for name, linear, maker in makers:
                gc.collect()
                found.setdefault(name, Verb(name, linear)).costs[size] = _cost(store, maker)
    return list(found.values())


def growing(mode: Mode) -> Row:
    """P19: the exponent of each verb's growth, and pictures of it."""
    with memory_folder() as folder:
        place = describe(folder)
    limit = log_exponent(mode.sizes) + _SLACK
    checks: list[Check] = []
    drawn: list[str] = []
    for label, file, makers, each in (
        ("store", "growth-store", _store_verbs(), _EACH), ("one conversation", "growth-conversation", _talk_verbs(), None),
    ):  # fmt: skip
        verbs = _measure(makers, mode.sizes, each)
        checks += [
            Check(
                f"{label}: {verb.name}" + (f" ({verb.linear})" if verb.linear else ""), verb.exponent(),
                verb.costs[mode.sizes[-1]] * 1e6, unit="exponent", goal=None if verb.linear else round(limit, 2),
                key=f"P19.{verb.name}",
            )
            for verb in verbs
        ]  # fmt: skip
        title = f"perdure: microseconds a call, by messages in the {label}"
        drawn.append(pictures.growth(file, title, [(v.name, v.linear, v.costs, v.exponent()) for v in verbs], limit))
    setting = (
        f"{place}, NORMAL, blocking; sizes {', '.join(f'{size:,}' for size in mode.sizes)} messages, in conversations of "
        f"{_EACH} and in one conversation; medians of up to {_CALLS} calls. A cost of log n has the exponent "
        f"{log_exponent(mode.sizes):.2f} over these sizes; {_SLACK} more is allowed for caches and noise. Beside each "
        "exponent stand the microseconds of a call at the largest size"
    )
    return Row("P19", "Growth", setting, checks, pictures=drawn)
