"""Recipes on items: many reads from one snapshot, many writes in one transaction.

Whoever searches gets the latest change first, then by namespace and key: one order on both engines. A filter that an
engine knows wholly is answered page by page by the engine. Any other is answered by Python, over all that the engine
let through, in order of the index (``matching.py``).

A search by nearness compares every vector of the range; an item counts as near as the nearest of its vectors. Items
that match and have no vector follow those that have one.
"""

from collections.abc import Callable, Sequence
from heapq import nsmallest

import msgspec

from perdure.grammar import (
    NO_FLAGS,
    Ask,
    Mode,
    Params,
    Row,
    Steps,
    Where,
    asking,
    execute,
    execute_many,
    fetch_all,
    op,
    together,
)
from perdure.rooms.items.matching import Matcher
from perdure.rooms.items.values import Condition, Entry, Item, Namespace, Range, item_of, namespace_of
from perdure.rooms.items.vectors import Scorer
from perdure.values import tagged
from perdure.values.clock import Micros

PAGE = 512
"""Rows fetched at once where many are looked through."""
SWEPT = 1_000
"""Items deleted in one transaction of a sweep."""
_VECTORS = 256
"""Vectors sent at once."""
_VALUE = "i.value"


class Look(msgspec.Struct, frozen=True):
    """A search as it is run."""

    span: Range
    matcher: Matcher
    limit: int
    offset: int
    scorer: Scorer | None = None
    space: str = ""


class Listing(msgspec.Struct, frozen=True):
    """A question for namespaces as it is run."""

    span: Range
    conditions: tuple[Condition, ...]
    max_depth: int | None
    limit: int
    offset: int


Reading = tuple[str, str] | Look | Listing
"""What can be read: the item at a namespace and key, the items of a search, namespaces."""


class Found(msgspec.Struct, frozen=True):
    """An item that was read, and its number, by which it is given a new lifetime."""

    ord: int
    item: Item


Answer = Found | list[Found] | list[Namespace] | None


# -- reading ---------------------------------------------------------------------------------------------------------------


@op(reads=True)
def read(readings: Sequence[Reading], living: Micros | None) -> Steps[list[Answer]]:
    """The answers in order, all from one snapshot; with ``living`` only of items whose life is not over then."""
    answers: list[Answer] = [None] * len(readings)
    singles = [(place, reading) for place, reading in enumerate(readings) if isinstance(reading, tuple)]
    for start in range(0, len(singles), PAGE):
        part = singles[start : start + PAGE]
        rows = yield from together(*[_asking_for(reading, living) for _, reading in part])
        for (place, _), row in zip(part, rows, strict=True):
            answers[place] = None if row is None else Found(row[0], item_of(row))
    for place, reading in enumerate(readings):
        if isinstance(reading, Look):
            answers[place] = yield from _search(reading, living)
        elif isinstance(reading, Listing):
            answers[place] = yield from _list(reading, living)
    return answers


def _asking_for(place: tuple[str, str], living: Micros | None) -> Ask:
    flags = NO_FLAGS if living is None else frozenset({"living"})
    return Ask(Mode.ONE, "items.get", {"namespace": place[0], "key": place[1], "now": living}, flags)


def _bounds(span: Range, living: Micros | None) -> tuple[frozenset[str], Params]:
    flags = {"high"} if span.high is not None else set[str]()
    if living is not None:
        flags.add("living")
    return frozenset(flags), {"high": span.high, "now": living}


def _where(matcher: Matcher) -> tuple[frozenset[str], Where | None]:
    if matcher.narrow is None:
        return NO_FLAGS, None
    return frozenset({"where"}), Where(matcher.narrow, {}, _VALUE)


def _search(look: Look, living: Micros | None) -> Steps[list[Found]]:
    if look.limit == 0:
        return []
    if look.scorer is not None:
        return (yield from _nearest(look, look.scorer, living))
    if look.matcher.exact:
        return (yield from _page(look, living))
    return (yield from _filtered(look, living))


def _page(look: Look, living: Micros | None) -> Steps[list[Found]]:
    flags, bounds = _bounds(look.span, living)
    asked, where = _where(look.matcher)
    rows = yield from fetch_all(
        "items.page", flags=flags | asked, where=where, after=look.span.after, limit=look.limit, offset=look.offset,
        **bounds,
    )  # fmt: skip
    return [Found(row[0], item_of(row)) for row in rows]


def _each_page(
    name: str, look: Look, living: Micros | None, take: Callable[[list[Row]], None], *flags: str
) -> Steps[None]:
    """Nothing; calls ``take`` with the rows of one page of items after another."""
    given, bounds = _bounds(look.span, living)
    asked, where = _where(look.matcher)
    after, key = look.span.after, ""
    while True:
        rows = yield from fetch_all(
            name, flags=given | asked | frozenset(flags), where=where, after=after, key=key, limit=PAGE,
            space=look.space, **bounds,
        )  # fmt: skip
        take(rows)
        if len({row[0] for row in rows}) < PAGE:
            return
        after, key = rows[-1][1], rows[-1][2]


def _filtered(look: Look, living: Micros | None) -> Steps[list[Found]]:
    most = look.offset + look.limit
    best: list[Row] = []

    def take(rows: list[Row]) -> None:
        matching = [row for row in rows if look.matcher.test(tagged.decode(row[3]))]
        best[:] = nsmallest(most, [*best, *matching], key=lambda row: (-row[5], row[1], row[2]))

    yield from _each_page("items.scan", look, living, take)
    return [Found(row[0], item_of(row)) for row in best[look.offset :]]


_Ranked = tuple[float, Micros, str, str, int]
"""Score and time of change, both negative, namespace, key, number."""


def _nearest(look: Look, scorer: Scorer, living: Micros | None) -> Steps[list[Found]]:
    most = look.offset + look.limit
    scored: list[_Ranked] = []
    others: list[_Ranked] = []
    whole = not look.matcher.exact

    def take(rows: list[Row]) -> None:
        if whole:
            fit = {row[0]: row[5] for row in rows}
            fitting = {ord for ord, value in fit.items() if look.matcher.test(tagged.decode(value))}
            rows = [row for row in rows if row[0] in fitting]
        near: dict[int, float] = {}
        held = [row for row in rows if row[4] is not None]
        for row, score in zip(held, scorer([row[4] for row in held]), strict=True):
            near[row[0]] = max(score, near.get(row[0], score))
        items = {row[0]: row for row in rows}.values()
        ranked: list[_Ranked] = [(-near.get(row[0], 0.0), -row[3], row[1], row[2], row[0]) for row in items]
        scored[:] = nsmallest(most, [*scored, *(one for one in ranked if one[4] in near)])
        others[:] = nsmallest(most, [*others, *(one for one in ranked if one[4] not in near)])

    yield from _each_page("items.vectors", look, living, take, *(("whole",) if whole else ()))
    scores: dict[int, float | None] = {one[4]: -one[0] for one in scored}
    scores.update((one[4], None) for one in others)
    wanted = [one[4] for one in [*scored, *others]][look.offset : most]
    found = {row[0]: row for row in (yield from _by_ord(wanted))}
    return [Found(ord, item_of(found[ord], scores[ord])) for ord in wanted if ord in found]


def _by_ord(ords: list[int]) -> Steps[list[Row]]:
    rows: list[Row] = []
    for start in range(0, len(ords), PAGE):
        rows += yield from fetch_all("items.by_ord", ords=ords[start : start + PAGE])
    return rows


def _list(listing: Listing, living: Micros | None) -> Steps[list[Namespace]]:
    flags, bounds = _bounds(listing.span, living)
    most = listing.offset + listing.limit
    found: list[Namespace] = []
    after = listing.span.after
    while len(found) < most:
        rows = yield from fetch_all("items.namespaces", flags=flags, after=after, limit=PAGE, **bounds)
        for (text,) in rows:
            namespace = namespace_of(text)
            if all(condition.holds(namespace) for condition in listing.conditions):
                shown = namespace if listing.max_depth is None else namespace[: listing.max_depth]
                if not found or found[-1] != shown:  # those that are cut alike follow each other
                    found.append(shown)
        if len(rows) < PAGE:
            break
        after = rows[-1][0]
    return found[listing.offset : most]


# -- writing ---------------------------------------------------------------------------------------------------------------


@op
def write(entries: Sequence[Entry], refreshed: Sequence[int], now: Micros) -> Steps[None]:
    """Nothing; keeps and deletes items, each key once, and gives those with these numbers their lifetime anew.

    Rows are taken in one order, so that two writers wait for each other and do not deadlock.
    """
    yield from execute_many("items.refresh", [{"ord": ord, "now": now} for ord in sorted(set(refreshed))])
    ordered = sorted(entries, key=lambda entry: (entry.namespace, entry.key))
    gone = [entry for entry in ordered if entry.value is None]
    kept = [entry for entry in ordered if entry.value is not None]
    yield from execute_many("items.delete", [_place(entry) for entry in gone])
    yield from execute_many("items.put", [_row(entry, now) for entry in kept])
    yield from execute_many("items.drop_vectors", [_place(entry) for entry in kept])
    added = [
        asking("items.add_vector", **_place(entry), space=entry.space, path=vector.path, vector=vector.data)
        for entry in kept
        for vector in entry.vectors
    ]
    for start in range(0, len(added), _VECTORS):
        yield from together(*added[start : start + _VECTORS])


def _place(entry: Entry) -> Params:
    return {"namespace": entry.namespace, "key": entry.key}


def _row(entry: Entry, now: Micros) -> Params:
    expires_at = None if entry.lifetime is None else now + entry.lifetime
    return {
        "namespace": entry.namespace, "key": entry.key, "value": entry.value, "created_at": now, "updated_at": now,
        "expires_at": expires_at, "lifetime": entry.lifetime,
    }  # fmt: skip


@op
def expire(now: Micros, limit: int = SWEPT) -> Steps[int]:
    """How many items were deleted because their life was over; at most ``limit``."""
    return (yield from execute("items.expire", now=now, limit=limit))
