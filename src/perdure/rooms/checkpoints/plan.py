"""What a new state adds to the logs, given the state it was made from. Pure: no question to a database.

Items that the parent holds already are referred to, wherever they stand in it now: a common beginning and a common end
are found first, what is between by its content. Only the rest is written.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from perdure.rooms.checkpoints.tree import INLINE, LIST, Branching, Items, Leaf, Part, Run, ends_of

VALUES = 1
"""The log of single values of a thread."""
MANY_RUNS = 64
"""Runs from which a sequence that has become a patchwork is written anew as one, see ``_scattered``."""


class Writer(Protocol):
    """Takes new items for a log."""

    def new_log(self) -> int:
        """A log that nobody wrote to yet."""
        ...

    def next_of(self, log: int) -> int:
        """The ordinal that the next item of a log gets."""
        ...

    def append(self, log: int, items: list[bytes]) -> int:
        """The ordinal of the first of these items."""
        ...


def place(new: Branching, base: Branching | None, writer: Writer) -> None:
    """Gives every part of ``new`` its reference: the parent's where it holds the same, a new item's otherwise."""
    for name, part in new.children.items():
        _place(part, None if base is None else base.children.get(name), writer)


def _place(part: Part, base: Part | None, writer: Writer) -> None:
    if isinstance(part, Branching):
        place(part, base if isinstance(base, Branching) else None, writer)
    elif isinstance(part, Leaf):
        if len(part.data) <= INLINE:
            part.ref = None
        elif isinstance(base, Leaf) and base.data == part.data:
            part.ref = base.ref
        else:
            part.ref = (VALUES, writer.append(VALUES, [part.data]))
    elif isinstance(base, Items) and base.kind == part.kind and base.count:
        _place_items(part, base, writer)
    elif part.count:
        _place_anew(part, writer)


def _place_anew(part: Items, writer: Writer) -> None:
    log = writer.new_log()
    first = writer.append(log, part.slices(0, part.count))
    part.runs = ((log, first, first + part.count),)


def _place_items(part: Items, base: Items, writer: Writer) -> None:
    if part.kind == LIST and part.count >= base.count and part.body.startswith(base.body):
        added = part.count - base.count
        if not added:
            part.runs, part.ends = base.runs, base.ends
            return
        size = len(base.body)
        ends = ends_of(part.body[size:], added, size)
        part.ends = base.offsets() + ends
        start = size
        rest: list[bytes] = []
        for end in ends:
            rest.append(part.body[start:end])
            start = end
        part.runs = (*base.runs, *_append(rest, base, writer))
        part.runs = joined(part.runs)
        return
    _match(part, base, writer)
    if _scattered(part):
        _place_anew(part, writer)


def _append(items: list[bytes], base: Items, writer: Writer) -> list[Run]:
    """Writes items to the log that ``base`` ends in when nobody went on from there, else to a new one.

    Two branches that append in turn must not share a log: each would be a patchwork of runs.
    """
    log, _, _ = base.runs[-1]
    last = max(high for run_log, _, high in base.runs if run_log == log)
    if writer.next_of(log) != last:
        log = writer.new_log()
    first = writer.append(log, items)
    return [(log, first, first + len(items))]


def _match(part: Items, base: Items, writer: Writer) -> None:
    """The runs of a sequence whose items are partly the parent's."""
    new, old = part.slices(0, part.count), base.slices(0, base.count)
    shorter = min(len(new), len(old))
    head = next((at for at in range(shorter) if new[at] != old[at]), shorter)
    tail = next((at for at in range(shorter - head) if new[-1 - at] != old[-1 - at]), shorter - head)
    middle = new[head : len(new) - tail]
    places: dict[bytes, list[int]] = {}
    for at in range(len(old) - tail - 1, head - 1, -1):  # reversed: the list is popped from its end
        places.setdefault(old[at], []).append(at)
    sources: list[int | bytes] = []
    for item in middle:
        found = places.get(item)
        sources.append(item if not found else found.pop() if len(found) > 1 else found[0])
    fresh = [source for source in sources if isinstance(source, bytes)]
    runs = list(_cut(base, 0, head))
    written = iter(_ordinals(_append(fresh, base, writer))) if fresh else iter(())
    locate = _locator(base)
    for source in sources:
        log, ordinal = next(written) if isinstance(source, bytes) else locate(source)
        runs.append((log, ordinal, ordinal + 1))
    runs += _cut(base, base.count - tail, base.count)
    part.runs = joined(tuple(runs))


def _ordinals(runs: list[Run]) -> Iterator[tuple[int, int]]:
    for log, low, high in runs:
        for ordinal in range(low, high):
            yield log, ordinal


def _cut(items: Items, low: int, high: int) -> Iterator[Run]:
    """The runs that items ``low`` to ``high - 1`` are in."""
    at = 0
    for log, first, end in items.runs:
        size = end - first
        start, stop = max(low - at, 0), min(high - at, size)
        if start < stop:
            yield log, first + start, first + stop
        at += size


def _locator(items: Items) -> Callable[[int], tuple[int, int]]:
    known: list[tuple[int, int]] = []

    def locate(index: int) -> tuple[int, int]:
        if not known:
            known.extend(_ordinals(list(items.runs)))
        return known[index]

    return locate


def joined(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """The same runs with those that follow each other made one."""
    found: list[Run] = []
    for log, low, high in runs:
        if found and found[-1][0] == log and found[-1][2] == low:
            found[-1] = (log, found[-1][1], high)
        else:
            found.append((log, low, high))
    return tuple(found)


def _scattered(part: Items) -> bool:
    """Whether the runs have become more than one for eight items: the entry would cost more than the items save.

    Writing all anew then costs at most some eight times what the edits since the last time did.
    """
    return len(part.runs) > MANY_RUNS and len(part.runs) * 8 > part.count
