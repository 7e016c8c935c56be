"""Which values a filter means, in plain Python, and as much of it as an engine can answer for us.

A filter names keys of the value and what they must hold::

    {"color": "red", "price": {"$gte": 3, "$lt": 9}, "size": {"width": 2}, "tags": ["a", "b"]}

A plain object matches an object that holds at least its keys, a list a list of the same length, ``$eq`` exactly what
is given; ``None`` matches null and what is absent; ``$ne`` is the opposite of ``$eq``. The orderings are false between
values of different types, and for what is absent. A name with dots that is no key of the value is a path of keys.

``evaluate`` of the common algebra decides between two scalars, so types mean the same as in every other filter. The
common algebra itself has no lists and no objects as operands. So the engine is given the part of the filter that it
knows (``narrow``), which lets through too many items, never too few; Python has the last word on each. ``exact`` says
that nothing was left to Python, so that the engine may count off a page by itself.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Any, cast
from uuid import UUID

import msgspec

from perdure.values import limits
from perdure.values.errors import Invalid, OverLimit
from perdure.values.filters import And, Compare, Exists, Filter, Not, Or, Order, Scalar, Target, evaluate
from perdure.values.tagged import INTEGER_MAX, INTEGER_MIN

_ORDERINGS: dict[str, Order] = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
_OPERATORS = ("$eq", "$ne", *_ORDERINGS)
_ITSELF = Target(None, "json")
_NEVER = Or(())

Path = tuple[str, ...]
Test = Callable[[Any], bool]


class Matcher(msgspec.Struct, frozen=True):
    """A filter, ready to be used."""

    test: Callable[[Mapping[str, Any]], bool]
    narrow: Filter | None
    exact: bool


class _Part(msgspec.Struct, frozen=True):
    """What one condition asks: in Python, of the value that stands there, and in the algebra, by its path."""

    test: Test
    narrow: Callable[[Path], Filter] | None
    exact: bool
    """Whether both say the same, and not only that what matches is let through."""
    of_absent: bool = False
    """Whether it is true of nothing."""


def matcher(filters: Mapping[str, Any] | None) -> Matcher:
    """The filter, read and checked; None and ``{}`` match everything.

    Raises Invalid for an unknown operator or an operand without an order, OverLimit for more than 256 conditions or
    16 levels.
    """
    if filters is None:
        filters = {}
    if not isinstance(filters, Mapping):
        raise Invalid(f"filter must be a mapping, not {type(filters).__name__}", field="filter")
    reader = _Reader()
    tests: list[tuple[str, Test]] = []
    narrows: list[Filter] = []
    exact = True
    for key, operand in cast("Mapping[object, Any]", filters).items():
        if not isinstance(key, str):
            raise Invalid(f"names in filter must be text, not {type(key).__name__}", field="filter")
        if key.startswith("$"):
            raise Invalid(
                f"filter.{key[:80]} is no name", field="filter", hint="operators stand under the name of a key"
            )
        part = reader.part(operand, f"filter.{key[:80]}", 1)
        tests.append((key, part.test))
        narrow = _named(key, part)
        exact = exact and part.exact and narrow is not None
        if narrow is not None:
            narrows.append(narrow)

    def test(value: Mapping[str, Any]) -> bool:
        return all(holds(_at(value, key)) for key, holds in tests)

    return Matcher(test, And(tuple(narrows)) if narrows else None, exact)


def _at(value: Mapping[str, Any], name: str) -> Any:
    """What stands under a name; None when nothing does."""
    if name in value:
        return value[name]
    found: Any = value
    for key in name.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = cast("Mapping[str, Any]", found)[key]
    return found


def _named(key: str, part: _Part) -> Filter | None:
    """The condition on a name as the algebra has it: on the key, or else on the path that the name spells."""
    if part.narrow is None or not _storable(key):
        return None
    keys = tuple(key.split("."))
    if len(keys) == 1:
        return part.narrow(keys)
    if len(keys) > limits.METADATA_DEPTH:
        return None
    here = Exists(_target((key,)))
    return Or((And((here, part.narrow((key,)))), And((Not(here), part.narrow(keys)))))


def _target(path: Path) -> Target:
    return Target(None, "json", path)


def _storable(text: str) -> bool:
    """Whether text can stand in a value at all: what cannot equals none, and no engine takes it as a parameter."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


class _Reader:
    """One pass over a filter; counts its conditions."""

    def __init__(self) -> None:
        self.count = 0

    def part(self, operand: Any, place: str, depth: int) -> _Part:
        """What an operand asks of the value that stands at its place."""
        self.count += 1
        if self.count > limits.FILTER_CLAUSES:
            raise OverLimit(
                f"{place} is one condition more than {limits.FILTER_CLAUSES}", field=place, limit=limits.FILTER_CLAUSES
            )
        if depth > limits.FILTER_DEPTH:
            raise OverLimit(
                f"{place} is nested deeper than {limits.FILTER_DEPTH}", field=place, limit=limits.FILTER_DEPTH
            )
        if isinstance(operand, Mapping):
            wanted = cast("Mapping[object, Any]", operand)
            for name in wanted:
                if not isinstance(name, str):
                    raise Invalid(f"names in {place} must be text, not {type(name).__name__}", field=place)
            named = cast("Mapping[str, Any]", wanted)
            if any(name.startswith("$") for name in named):
                return _all([self.operator(name, value, f"{place}.{name[:80]}") for name, value in named.items()])
            return self.within(named, place, depth)
        if isinstance(operand, list | tuple):
            items = cast("Sequence[Any]", operand)
            parts = [self.part(item, f"{place}[{number}]", depth + 1) for number, item in enumerate(items)]
            return _Part(lambda value: _each(value, parts), None, exact=False)
        return _equal(operand)

    def operator(self, name: str, operand: Any, place: str) -> _Part:
        """One operator."""
        if name not in _OPERATORS:
            raise Invalid(f"{place} is none of {', '.join(_OPERATORS)}", field=place)
        if name in _ORDERINGS:
            return _ordered(_ORDERINGS[name], operand, place)
        equal = _equal(operand)
        return equal if name == "$eq" else _opposite(equal)

    def within(self, wanted: Mapping[str, Any], place: str, depth: int) -> _Part:
        """An object that holds at least these keys."""
        parts = {name: self.part(value, f"{place}.{name[:80]}", depth + 1) for name, value in wanted.items()}

        def test(value: Any) -> bool:
            if not isinstance(value, Mapping):
                return False
            found = cast("Mapping[str, Any]", value)
            return all(part.test(found.get(name)) for name, part in parts.items())

        known = [(name, part.narrow) for name, part in parts.items() if part.narrow is not None and _storable(name)]
        # That the value is an object at all only follows for the algebra from a key that must be there.
        sure = any(not part.of_absent for part in parts.values())
        exact = sure and len(known) == len(parts) and all(part.exact for part in parts.values())
        if not known:
            return _Part(test, None, exact=False)
        return _Part(test, lambda path: And(tuple(narrow((*path, name)) for name, narrow in known)), exact=exact)


def _all(parts: Sequence[_Part]) -> _Part:
    narrows = [part.narrow for part in parts if part.narrow is not None]
    return _Part(
        lambda value: all(part.test(value) for part in parts),
        (lambda path: And(tuple(narrow(path) for narrow in narrows))) if narrows else None,
        exact=len(narrows) == len(parts) and all(part.exact for part in parts),
        of_absent=all(part.of_absent for part in parts),
    )


def _opposite(part: _Part) -> _Part:
    narrow = part.narrow
    absent = not part.of_absent
    if narrow is None or not part.exact:
        return _Part(lambda value: not part.test(value), None, exact=False, of_absent=absent)
    return _Part(lambda value: not part.test(value), lambda path: Not(narrow(path)), exact=True, of_absent=absent)


def _each(value: Any, parts: Sequence[_Part]) -> bool:
    if not isinstance(value, list | tuple):
        return False
    items = cast("Sequence[Any]", value)
    return len(items) == len(parts) and all(part.test(item) for part, item in zip(parts, items, strict=True))


def _equal(operand: Any) -> _Part:
    if operand is None:
        return _Part(lambda value: value is None, _null, exact=True, of_absent=True)
    if isinstance(operand, str) and not _storable(operand):
        return _Part(lambda value: False, lambda path: _NEVER, exact=True)  # noqa: ARG005 - the path does not matter
    scalar = _scalar(operand)
    if scalar is None:
        return _Part(lambda value: same(value, operand), None, exact=False)
    compare = Compare(_ITSELF, "eq", scalar)
    return _Part(
        lambda value: evaluate(compare, {}, value), lambda path: Compare(_target(path), "eq", scalar), exact=True
    )


def _null(path: Path) -> Filter:
    target = _target(path)
    return Or((Not(Exists(target)), Compare(target, "eq", None)))


def _ordered(order: Order, operand: Any, place: str) -> _Part:
    if isinstance(operand, bool | UUID) or not isinstance(operand, int | float | str | datetime):
        raise Invalid(f"{place} must be a number, text or a time, which have an order", field=place)
    compare = Compare(_ITSELF, order, operand)
    scalar = _scalar(operand)
    if scalar is None or (isinstance(scalar, str) and not _storable(scalar)):  # infinity, or a number beyond 64 bits
        return _Part(lambda value: _compared(compare, value), None, exact=False)
    return _Part(
        lambda value: evaluate(compare, {}, value), lambda path: Compare(_target(path), order, scalar), exact=True
    )


def _compared(compare: Compare, value: Any) -> bool:
    """The comparison with a number of any size: integers exactly, others as doubles, infinite where they must be."""
    try:
        return evaluate(compare, {}, value)
    except OverflowError:  # the operand is no double, so it lies beyond every value that is stored
        above = cast("int", compare.value) > 0
        return isinstance(value, float) and above is (compare.order in ("lt", "lte"))


def _scalar(operand: Any) -> Scalar:
    """The operand when the common algebra has it, else None."""
    if isinstance(operand, str):
        return str.__str__(operand)
    if isinstance(operand, bool | datetime | UUID):
        return operand
    if isinstance(operand, int):
        return int(operand) if INTEGER_MIN <= operand <= INTEGER_MAX else None
    if isinstance(operand, float):
        return float(operand) if isfinite(operand) else None
    return None


def same(value: Any, operand: Any) -> bool:
    """Whether both are equal, at any depth; values of different types are not, but for an int and a float."""
    if isinstance(operand, Mapping):
        wanted = cast("Mapping[str, Any]", operand)
        if not isinstance(value, Mapping):
            return False
        found = cast("Mapping[str, Any]", value)
        return found.keys() == wanted.keys() and all(same(found[key], item) for key, item in wanted.items())
    if isinstance(operand, list | tuple):
        items = cast("Sequence[Any]", operand)
        if not isinstance(value, list | tuple):
            return False
        held = cast("Sequence[Any]", value)
        return len(held) == len(items) and all(same(one, other) for one, other in zip(held, items, strict=True))
    scalar = _scalar(operand)
    if scalar is not None:
        return evaluate(Compare(_ITSELF, "eq", scalar), {}, value)
    return type(value) is type(operand) and value == operand
