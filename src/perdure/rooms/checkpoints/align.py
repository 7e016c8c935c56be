"""Which item of one list has become which of another.

Items with an ``id`` that no other item of its list has are the same item as the one with that id in the other list,
wherever it stands. What is equal at both ends is the same too. The others are matched by position, between those
neighbours that are known: equal ones at the ends of such a gap first, then one by one. An item without an id never
becomes one that has one.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, cast
from uuid import UUID

import msgspec

from perdure.rooms.checkpoints.equality import attributes, same

Match = tuple[int, int]
"""A position in the first list and one in the second."""


_ID_KINDS: frozenset[type] = frozenset({str, int, UUID})
"""Types of ids, no two of which have equal values; a bool is none, nor is an enum's member."""


class Alignment(msgspec.Struct, frozen=True):
    """Matches of two lists, without those at equal ends; ``moved`` are those that stand elsewhere among the others.

    ``ids_a`` and ``ids_b`` hold for each position the id that the item is known by, or None.
    """

    matches: tuple[Match, ...]
    moved: tuple[Match, ...]
    removed: tuple[int, ...]
    added: tuple[int, ...]
    ids_a: tuple[Any, ...]
    ids_b: tuple[Any, ...]


def align(a: Sequence[Any], b: Sequence[Any]) -> Alignment:
    """The matches of two lists."""
    head, tail = trim(len(a), len(b), lambda i, j: same(a[i], b[j]))
    high_a, high_b = len(a) - tail, len(b) - tail
    ids_a, ids_b = unique_ids(a, b)
    places = {ids_b[j]: j for j in range(head, high_b) if ids_b[j] is not None}
    by_id = [(i, places[key]) for i in range(head, high_a) if (key := ids_a[i]) in places]
    spine = _increasing(by_id)
    held = set(spine)
    matches = list(by_id)
    for (i, j), (next_i, next_j) in pairwise([(head - 1, head - 1), *spine, (high_a, high_b)]):
        left = [at for at in range(i + 1, next_i) if ids_a[at] is None]
        right = [at for at in range(j + 1, next_j) if ids_b[at] is None]
        matches += _by_position(a, b, left, right)
    found_a, found_b = {i for i, _ in matches}, {j for _, j in matches}
    return Alignment(
        matches=tuple(sorted(matches)),
        moved=tuple(match for match in by_id if match not in held),
        removed=tuple(i for i in range(head, high_a) if i not in found_a),
        added=tuple(j for j in range(head, high_b) if j not in found_b),
        ids_a=ids_a,
        ids_b=ids_b,
    )


def trim(count_a: int, count_b: int, equal: Callable[[int, int], object]) -> tuple[int, int]:
    """How many items are equal at the beginning of two sequences, and then at their end."""
    shorter = min(count_a, count_b)
    head = next((at for at in range(shorter) if not equal(at, at)), shorter)
    rest = shorter - head
    tail = next((at for at in range(rest) if not equal(count_a - 1 - at, count_b - 1 - at)), rest)
    return head, tail


def id_of(item: Any) -> str | int | UUID | None:
    """The ``id`` of a mapping or an object, when it is text, an integer or a UUID."""
    found: Any = None
    if type(item) is dict:
        found = cast("dict[Any, Any]", item).get("id")
    elif isinstance(getattr(item, "id", None), str | int | UUID):  # before the fields are looked up, which costs more
        found = (attributes(item) or {}).get("id")
    return found if cast("type[Any]", type(found)) in _ID_KINDS else None


def unique_ids(*lists: Sequence[Any]) -> tuple[tuple[Any, ...], ...]:
    """For each list the id of each item, None for one that has none or shares it with another item of some list."""
    ids = [[id_of(item) for item in items] for items in lists]
    shared = {name for names in ids for name, times in Counter(names).items() if times > 1}
    return tuple(tuple(None if name in shared else name for name in names) for names in ids)


def _by_position(a: Sequence[Any], b: Sequence[Any], left: list[int], right: list[int]) -> Iterator[Match]:
    """Matches within one gap: equal ends, then one by one as far as both go."""
    _, tail = trim(len(left), len(right), lambda i, j: same(a[left[i]], b[right[j]]))
    middle = min(len(left), len(right)) - tail
    yield from zip(left[:middle], right[:middle], strict=True)
    for at in range(1, tail + 1):
        yield left[-at], right[-at]


def _increasing(matches: list[Match]) -> list[Match]:
    """The longest chain of matches, sorted by their first position, whose second positions rise too."""
    ends: list[int] = []  # the lowest last position of a chain of each length
    chains: list[int] = []  # the match that it belongs to
    before: list[int] = []
    for at, (_, j) in enumerate(matches):
        length = bisect_left(ends, j)
        before.append(chains[length - 1] if length else -1)
        ends[length:] = [j, *ends[length + 1 :]]
        chains[length:] = [at, *chains[length + 1 :]]
    found: list[Match] = []
    at = chains[-1] if chains else -1
    while at >= 0:
        found.append(matches[at])
        at = before[at]
    return found[::-1]
