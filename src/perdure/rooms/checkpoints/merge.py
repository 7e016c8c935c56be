"""Two states that were made from one, put together: what one side changed is taken, what both changed must be settled.

Of a value in all three states: when both sides have the same, or one side has what the base has, the answer is clear.
Otherwise it is looked into:

- **Mappings** are merged key by key. When both sides added one, its keys count as added.
- **Sets** have what one side added and lack what one side removed.
- **Lists of items with ids** (each has one, none has it twice, in all three) are merged item by item: an item that one
  side removed and the other changed is a conflict at that item. Additions stand behind the item of the base that they
  stand behind on their side, ours first; the others keep the order of the side that changed it. When both sides
  changed the order, and not in the same way, the list is a conflict.
- **Other lists** to which both sides only appended are the base, then what both appended in the same way from there on
  (once: the change was the same), then the rest of ours and the rest of theirs (all of it: an item may be meant twice).
- Anything else, objects of registered types too, is a conflict at its path. An absent value is ``MISSING`` in it.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, cast

import msgspec

from perdure.rooms.checkpoints.align import trim, unique_ids
from perdure.rooms.checkpoints.diff import LazyPart, loaded
from perdure.rooms.checkpoints.equality import frozen_all, same
from perdure.rooms.checkpoints.paths import id_step, joined, key_step
from perdure.values.errors import Invalid


class Missing(Enum):
    """The type of ``MISSING``."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING
"""Stands where there is no value."""


class MergeConflict(msgspec.Struct, frozen=True):
    """A path that both sides changed, each in its own way; ``MISSING`` where there is no value."""

    path: str
    base: Any
    ours: Any
    theirs: Any


Resolve = Literal["ours", "theirs"] | Callable[[MergeConflict], Any]


class MergeReport(msgspec.Struct, frozen=True):
    """How a merge of branches ended: the checkpoint it made, or (None then) the conflicts that nobody resolved."""

    checkpoint_id: str | None
    base_id: str | None
    conflicts: tuple[MergeConflict, ...] = ()


class Merged(msgspec.Struct, frozen=True):
    """The merged state, or None when there are conflicts that nobody settled; else those that ``resolve`` settled."""

    state: dict[str, Any] | None
    conflicts: tuple[MergeConflict, ...]


def merge(
    base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any], resolve: Resolve | None = None
) -> Merged:
    """The state that has what ``ours`` and ``theirs`` changed of ``base``; values may be ``LazyPart``.

    ``resolve`` settles conflicts: "ours" or "theirs" takes that side's value, a callable gets each ``MergeConflict``
    and answers the value to take, or ``MISSING`` for none. Raises ``Invalid`` when it is anything else, or a state is
    no mapping.
    """
    for name, state in (("base", base), ("ours", ours), ("theirs", theirs)):
        if not isinstance(state, Mapping):
            raise Invalid(f"{name} must be a mapping of channels, not {type(state).__name__}", field=name)
    if not (resolve is None or callable(resolve) or resolve in ("ours", "theirs")):
        raise Invalid(f'resolve is "ours", "theirs" or a callable, not {resolve!r}', field="resolve")
    work = _Merge(resolve)
    state = work.mappings("", base, ours, theirs)
    return Merged(None if resolve is None and work.conflicts else state, tuple(work.conflicts))


class _Merge:
    """One merge under way: what settles its conflicts, and those it met."""

    def __init__(self, resolve: Resolve | None) -> None:
        self.conflicts: list[MergeConflict] = []
        self._resolve = resolve

    def values(self, path: str, base: Any, ours: Any, theirs: Any) -> Any:
        """One value of three; any may be ``MISSING``, and so may the answer."""
        if _same(ours, theirs) or _same(base, theirs):
            return loaded(ours)
        if _same(base, ours):
            return loaded(theirs)
        base, ours, theirs = loaded(base), loaded(ours), loaded(theirs)
        kind: type[Any] = type(ours)  # pyright: ignore[reportUnknownVariableType]
        if kind is type(theirs):
            if kind is dict and (base is MISSING or type(base) is dict):
                return self.mappings(path, {} if base is MISSING else cast("dict[Any, Any]", base), ours, theirs)
            if kind is list and (base is MISSING or type(base) is list):
                return self._lists(path, base, ours, theirs)
            if kind in {set, frozenset} and type(base) is kind:
                return _sets(base, ours, theirs)
        return self._settle(path, base, ours, theirs)

    def mappings(
        self, path: str, base: Mapping[Any, Any], ours: Mapping[Any, Any], theirs: Mapping[Any, Any]
    ) -> dict[Any, Any]:
        """A mapping of three, in the order of ours and then of theirs."""
        names = [frozen_all(side) for side in (base, ours, theirs)]
        made: dict[Any, Any] = {}
        for name, key in {**names[1], **names[2], **names[0]}.items():
            three = [
                side[known[name]] if name in known else MISSING
                for side, known in zip((base, ours, theirs), names, strict=True)
            ]
            value = self.values(joined(path, key_step(key)), *three)
            if value is not MISSING:
                made[key] = value
        return made

    def _lists(self, path: str, base: Any, ours: list[Any], theirs: list[Any]) -> Any:
        old: list[Any] = [] if base is MISSING else base
        ids = unique_ids(old, ours, theirs)
        if not any(name is None for names in ids for name in names):
            sides = [_by_id(names, items) for names, items in zip(ids, (old, ours, theirs), strict=True)]
            spine = _spine(*(list(side) for side in sides))
            if spine is not None:
                return self._items(path, spine, *sides)
        elif base is not MISSING and _begins(ours, old) and _begins(theirs, old):
            mine, its = ours[len(old) :], theirs[len(old) :]
            both, _ = trim(len(mine), len(its), lambda i, j: same(mine[i], its[j]))
            return [*old, *mine, *its[both:]]
        return self._settle(path, base, ours, theirs)

    def _items(
        self, path: str, spine: list[Any], base: dict[Any, Any], ours: dict[Any, Any], theirs: dict[Any, Any]
    ) -> list[Any]:
        """A list of three by id; ``spine`` are the ids that all three have, in the order to keep."""
        made: dict[Any, Any] = {}
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            three = [side.get(key, MISSING) for side in (base, ours, theirs)]
            value = self.values(joined(path, id_step(key)), *three)
            if value is not MISSING:
                made[key] = value
        held = {key for key in spine if key in made}
        behind, its_behind = _behind(ours, held), _behind(theirs, held)
        order: dict[Any, None] = {}
        for key in [None, *(key for key in spine if key in held)]:
            order |= dict.fromkeys([key, *behind.get(key, ()), *its_behind.get(key, ())])
        return [made[key] for key in order if key in made]

    def _settle(self, path: str, base: Any, ours: Any, theirs: Any) -> Any:
        conflict = MergeConflict(path, base, ours, theirs)
        self.conflicts.append(conflict)
        if callable(self._resolve):
            return self._resolve(conflict)
        return theirs if self._resolve == "theirs" else ours


def _same(a: Any, b: Any) -> bool:
    """Whether two values are the same, without loading them where that is known."""
    if isinstance(a, LazyPart) and isinstance(b, LazyPart):
        known = a.same(b)
        if known is not None:
            return known
    if a is MISSING or b is MISSING:
        return a is b
    return same(loaded(a), loaded(b))


def _begins(items: Sequence[Any], beginning: Sequence[Any]) -> bool:
    return len(items) >= len(beginning) and all(map(same, items, beginning))


def _by_id(ids: Sequence[Any], items: Sequence[Any]) -> dict[Any, Any]:
    return dict(zip(ids, items, strict=True))


def _spine(base: list[Any], ours: list[Any], theirs: list[Any]) -> list[Any] | None:
    """The keys that all three have, in the order of the side that changed it; None when both did, differently."""
    common = set(base) & set(ours) & set(theirs)
    old, mine, its = ([key for key in side if key in common] for side in (base, ours, theirs))
    if mine == old:
        return its
    return mine if its in (old, mine) else None


def _behind(side: Mapping[Any, Any], held: set[Any]) -> dict[Any, list[Any]]:
    """The keys of one side that are not held, by the held one before them (None: they come first)."""
    found: dict[Any, list[Any]] = {}
    last = None
    for key in side:
        if key in held:
            last = key
        else:
            found.setdefault(last, []).append(key)
    return found


def _sets(base: Any, ours: Any, theirs: Any) -> Any:
    """Members that both have, or that one side added."""
    old, mine, its = frozen_all(base), frozen_all(ours), frozen_all(theirs)
    kept = [item for name, item in mine.items() if name in its or name not in old]
    added = [item for name, item in its.items() if name not in mine and name not in old]
    kind: type[Any] = type(ours)  # pyright: ignore[reportUnknownVariableType]
    return kind([*kept, *added])
