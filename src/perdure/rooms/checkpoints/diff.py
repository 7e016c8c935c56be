"""What is different between two states, path by path.

Values are compared to the type (see ``equality``), list items by id or position (see ``align``). A caller that has
states in parts gives ``LazyPart`` in place of values: equal ones are passed over without being loaded.

``changes_between`` finds a tree of changes, ``apply`` makes the second state of the first by it, and ``compare`` tells
it as a flat report of paths. In a path, a position is that in the second list; only where the item itself was removed
it is that in the first.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from perdure.rooms.checkpoints.align import Alignment, align, trim
from perdure.rooms.checkpoints.equality import approximate_size, attributes, frozen_all, same
from perdure.rooms.checkpoints.paths import id_step, index_step, joined, key_step
from perdure.values.errors import Invalid


class LazyPart(ABC):
    """A value that is not decoded until someone needs it."""

    @abstractmethod
    def same(self, other: "LazyPart") -> bool | None:
        """Whether the values are the same: True and False for sure, None for not known without loading."""

    @abstractmethod
    def load(self) -> Any:
        """The value."""

    def children(self) -> "Mapping[str, LazyPart] | None":
        """The values of a mapping whose keys are all text, or None when it is no such mapping or not in parts."""
        return None

    def items(self) -> "Sequence[LazyPart] | None":
        """The items of a list, or None when it is none or not in parts."""
        return None

    def size(self) -> int | None:
        """Its size in bytes, or None when not known without loading."""
        return None


# -- the tree ----------------------------------------------------------------------------------------------------------


class Replaced(msgspec.Struct, frozen=True):
    """Another value stands in the place; either may be a ``LazyPart``."""

    before: Any
    after: Any


class Spot(msgspec.Struct, frozen=True):
    """Something at a key of a mapping, a position of a list or a field of an object; a path tells it by ``step``."""

    key: Any
    step: str
    what: Any


class Move(msgspec.Struct, frozen=True):
    """An item's positions in the two lists."""

    before: int
    after: int


class Changed(msgspec.Struct, frozen=True):
    """A mapping, list, tuple or object of which parts are different.

    ``removed`` and ``inside`` are keyed as in the first value, ``added`` as in the second; ``inside`` holds trees.
    ``length`` is that of the second list; an object is not put together again but taken whole, from ``whole``.
    """

    kind: type
    removed: tuple[Spot, ...]
    added: tuple[Spot, ...]
    inside: tuple[Spot, ...]
    moved: tuple[Spot, ...] = ()
    length: int = 0
    whole: Any = None


Difference = Replaced | Changed


def loaded(value: Any) -> Any:
    """The value, loaded when it is a ``LazyPart``."""
    return value.load() if isinstance(value, LazyPart) else value


def changes_between(a: Any, b: Any) -> Difference | None:
    """What is different between two values, either of them a ``LazyPart`` or not; None when they are the same."""
    if isinstance(a, LazyPart) and isinstance(b, LazyPart):
        if a is b or a.same(b):
            return None
        names, its_names = a.children(), b.children()
        if names is not None and its_names is not None:
            return _mappings(names, its_names)
        items, its_items = a.items(), b.items()
        if items is not None and its_items is not None:
            return _lazy_lists(items, its_items)
    a, b = loaded(a), loaded(b)
    if a is b:
        return None
    kind: type[Any] = type(a)  # pyright: ignore[reportUnknownVariableType]
    if kind is type(b):
        if kind is dict:
            return _mappings(cast("dict[Any, Any]", a), b)
        if kind is list or kind is tuple:
            return _lists(cast("Sequence[Any]", a), b, kind, 0, len(b))
        fields = attributes(a)
        if fields is not None:
            found = _mappings(fields, attributes(b) or {})
            return None if found is None else msgspec.structs.replace(found, kind=object, whole=b)
    return None if same(a, b) else Replaced(a, b)


def _mappings(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> Changed | None:
    mine, its = frozen_all(a), frozen_all(b)
    removed = tuple(Spot(key, key_step(key), a[key]) for name, key in mine.items() if name not in its)
    added = tuple(Spot(key, key_step(key), b[key]) for name, key in its.items() if name not in mine)
    inside: list[Spot] = []
    for name, key in mine.items():
        if name in its:
            found = changes_between(a[key], b[its[name]])
            if found is not None:
                inside.append(Spot(key, key_step(key), found))
    return Changed(dict, removed, added, tuple(inside)) if removed or added or inside else None


def _lazy_lists(a: Sequence[LazyPart], b: Sequence[LazyPart]) -> Changed | None:
    """Lists of which the equal ends are not loaded."""
    head, tail = trim(len(a), len(b), lambda i, j: a[i].same(b[j]))
    middle = [part.load() for part in a[head : len(a) - tail]]
    its_middle = [part.load() for part in b[head : len(b) - tail]]
    return _lists(middle, its_middle, list, head, len(b))


def _lists(a: Sequence[Any], b: Sequence[Any], kind: type, offset: int, length: int) -> Changed | None:
    """Lists whose first items stand at ``offset``; ``length`` is the whole second list's."""
    found = align(a, b)
    matched = [(i, j, changes_between(a[i], b[j])) for i, j in found.matches]
    inside = tuple(Spot(i + offset, _step(found, j, offset), edit) for i, j, edit in matched if edit is not None)
    moved = tuple(Spot(i + offset, _step(found, j, offset), Move(i + offset, j + offset)) for i, j in found.moved)
    removed = tuple(Spot(i + offset, _step(found, i, offset, removed=True), a[i]) for i in found.removed)
    added = tuple(Spot(j + offset, _step(found, j, offset), b[j]) for j in found.added)
    return Changed(kind, removed, added, inside, moved, length) if removed or added or inside or moved else None


def _step(found: Alignment, index: int, offset: int, *, removed: bool = False) -> str:
    name = (found.ids_a if removed else found.ids_b)[index]
    return index_step(index + offset) if name is None else id_step(name)


# -- there again -------------------------------------------------------------------------------------------------------


def apply(value: Any, difference: Difference | None) -> Any:
    """The second of the two values that the difference was found between, from the first.

    It shares with both what they share with it: treat all three as values. ``LazyPart`` is loaded where it is needed.
    """
    value = loaded(value)
    if difference is None:
        return value
    if isinstance(difference, Replaced):
        return loaded(difference.after)
    if difference.kind is object:
        return difference.whole
    return _applied_to_mapping(value, difference) if difference.kind is dict else _applied_to_list(value, difference)


def _applied_to_mapping(value: Mapping[Any, Any], difference: Changed) -> dict[Any, Any]:
    made = {key: loaded(item) for key, item in value.items()}
    for spot in difference.removed:
        del made[spot.key]
    for spot in difference.inside:
        made[spot.key] = apply(made[spot.key], spot.what)
    for spot in difference.added:
        made[spot.key] = loaded(spot.what)
    return made


def _applied_to_list(value: Sequence[Any], difference: Changed) -> Any:
    """What is added or moved takes its place, and the others keep their order in what is left."""
    old = dict(enumerate(value))
    for spot in difference.inside:
        old[spot.key] = apply(old[spot.key], spot.what)
    for spot in difference.removed:
        del old[spot.key]
    placed = {spot.what.after: old.pop(spot.key) for spot in difference.moved}
    placed |= {spot.key: loaded(spot.what) for spot in difference.added}
    rest = iter(old.values())
    return difference.kind(placed[at] if at in placed else next(rest) for at in range(difference.length))


# -- the report --------------------------------------------------------------------------------------------------------


class Change(msgspec.Struct, frozen=True):
    """What stood at a path and what stands there now."""

    before: Any
    after: Any


class Sizes(msgspec.Struct, frozen=True):
    """Bytes at a path before and after; 0 where there was nothing."""

    before: int
    after: int


class StateDiff(msgspec.Struct, frozen=True):
    """What is different between two states, by path.

    ``moved`` are list items known by their id that stand elsewhere among the others, whether they changed or not.
    ``sizes`` has every path of ``added``, ``removed`` and ``changed``, in bytes of the encoded value where those are
    known, and about that otherwise; should an item be removed where another is changed now, it has both together.
    Without details the values are all None.
    """

    added: Mapping[str, Any]
    removed: Mapping[str, Any]
    changed: Mapping[str, Change]
    moved: Mapping[str, Move]
    sizes: Mapping[str, Sizes]

    @property
    def equal(self) -> bool:
        """Whether nothing is different."""
        return not (self.added or self.removed or self.changed or self.moved)


def compare(
    a: Mapping[str, Any] | LazyPart,
    b: Mapping[str, Any] | LazyPart,
    include_details: bool = True,
    size_of: Callable[[Any], int] = approximate_size,
) -> StateDiff:
    """What is different between two states, each a mapping of channels to values (or ``LazyPart``), or a ``LazyPart``.

    Raises ``Invalid`` when a state is no mapping. ``size_of`` tells the bytes of a value that is no ``LazyPart``.
    """
    report = StateDiff({}, {}, {}, {}, {})
    if not (isinstance(a, LazyPart) and isinstance(b, LazyPart) and a.same(b)):
        difference = _mappings(_channels(a, "a"), _channels(b, "b"))
        if difference is not None:
            _tell(report, "", difference, include_details, size_of)
    return report


def _channels(state: Any, field: str) -> Mapping[str, Any]:
    if isinstance(state, LazyPart):
        children = state.children()
        state = state.load() if children is None else children
    if not isinstance(state, Mapping):
        raise Invalid(f"a state is a mapping of channels, not {type(state).__name__}", field=field)
    return cast("Mapping[str, Any]", state)


def _tell(report: StateDiff, path: str, found: Difference, details: bool, size_of: Callable[[Any], int]) -> None:
    """Adds what a tree says about a path to a report that is being made."""

    def note(at: str, before: int = 0, after: int = 0) -> None:
        old = sizes.get(at, Sizes(0, 0))
        sizes[at] = Sizes(old.before + before, old.after + after)

    def shown(value: Any) -> Any:
        return loaded(value) if details else None

    def size(value: Any) -> int:
        known = value.size() if isinstance(value, LazyPart) else None
        return size_of(loaded(value)) if known is None else known

    added, removed, changed, moved, sizes = (
        cast("dict[str, Any]", part)
        for part in (report.added, report.removed, report.changed, report.moved, report.sizes)
    )
    if isinstance(found, Replaced):
        changed[path] = Change(shown(found.before), shown(found.after))
        note(path, size(found.before), size(found.after))
        return
    for spot in found.removed:
        removed[joined(path, spot.step)] = shown(spot.what)
        note(joined(path, spot.step), before=size(spot.what))
    for spot in found.added:
        added[joined(path, spot.step)] = shown(spot.what)
        note(joined(path, spot.step), after=size(spot.what))
    for spot in found.moved:
        moved[joined(path, spot.step)] = spot.what
    for spot in found.inside:
        _tell(report, joined(path, spot.step), spot.what, details, size_of)
