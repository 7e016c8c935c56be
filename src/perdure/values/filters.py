"""Filters of callers: one closed algebra that gives the same answer in Python, SQLite and PostgreSQL.

``parse`` turns what a caller writes into a tree of frozen structs; ``evaluate`` answers it over plain Python
values; the renderers in the drivers write it as SQL. What the tree means, in all three:

**Names.** A field of the entity goes by its name. Any other name is a path of metadata keys parted by dots, and
``metadata.x`` is one whatever the fields are called; ``field.x`` steps into a field of kind ``json``. Paths step
through objects only (``tags.0`` is the key "0", never the first tag), and a key that itself holds a dot cannot
be named.

**Types.** Values of different types are never equal and in no order: ``$eq``, ``$in``, ``$contains`` and the
orderings are false. bool is not a number; an int and a float are both numbers. Two integers are compared
exactly, otherwise both are taken as IEEE doubles (always, for a field of kind ``number``). Text is compared by
code point. Times order by their moment. A Decimal or bytes in metadata only exists: nothing equals it.

**Absence.** ``$exists`` tells presence; JSON null is present. In metadata ``$eq: None`` matches only a present
null. A field of the entity that is NULL is absent and matches ``$eq: None``.

**Negation.** Every condition is true or false, never unknown: ``$ne`` is exactly not ``$eq``, ``$nin`` not
``$in``, ``$not`` the opposite; all three are true of what is absent. ``$in: []`` matches nothing, ``{}``
everything.

**$contains** asks a list for an equal element, or text (a field of kind ``text`` too) for a part of itself.
"""

import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias, cast
from uuid import UUID

from msgspec import Struct

from perdure.values import limits
from perdure.values.clock import to_micros
from perdure.values.errors import Invalid, OverLimit
from perdure.values.tagged import finite, integer

Kind = Literal["text", "integer", "number", "time", "boolean", "json"]
Order = Literal["eq", "gt", "gte", "lt", "lte"]
Scalar = None | bool | int | float | str | datetime | UUID

OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$contains")
CONNECTIVES = ("$and", "$or", "$not")


class Field(Struct, frozen=True):
    """A field of an entity: text, integer (64 bits), number (a double), time (microseconds), boolean or json."""

    kind: Kind


class Target(Struct, frozen=True):
    """What a condition looks at: a field of the entity (None: the metadata) and the keys to step through in it."""

    field: str | None
    kind: Kind
    path: tuple[str, ...] = ()


class And(Struct, frozen=True):
    """All of the parts; true when there are none."""

    parts: "tuple[Filter, ...]"


class Or(Struct, frozen=True):
    """One of the parts at least."""

    parts: "tuple[Filter, ...]"


class Not(Struct, frozen=True):
    """The opposite of the part."""

    part: "Filter"


class Compare(Struct, frozen=True):
    """A value against one operand."""

    target: Target
    order: Order
    value: Scalar


class In(Struct, frozen=True):
    """A value that equals one of the operands."""

    target: Target
    values: tuple[Scalar, ...]


class Exists(Struct, frozen=True):
    """Something is there."""

    target: Target


class Contains(Struct, frozen=True):
    """A list with an equal element, or text with that part."""

    target: Target
    value: Scalar


Filter: TypeAlias = And | Or | Not | Compare | In | Exists | Contains


class Operands(Struct, frozen=True):
    """The operands of one equality test on JSON, sorted by the type of value they can equal."""

    null: bool
    booleans: tuple[bool, ...]
    integers: tuple[int, ...]
    floats: tuple[float, ...]
    texts: tuple[str, ...]
    times: tuple[int, ...]  # microseconds
    uuids: tuple[str, ...]

    @property
    def doubles(self) -> tuple[float, ...]:
        """All numbers as doubles: what a stored float is compared with."""
        return tuple(dict.fromkeys((*self.floats, *map(float, self.integers))))


def sort_operands(values: tuple[Scalar, ...]) -> Operands:
    """``values`` by type, each once."""
    unique = list({(type(value), value): value for value in values}.values())
    return Operands(
        null=None in unique,
        booleans=tuple(value for value in unique if isinstance(value, bool)),
        integers=tuple(value for value in unique if isinstance(value, int) and not isinstance(value, bool)),
        floats=tuple(value for value in unique if isinstance(value, float)),
        texts=tuple(value for value in unique if isinstance(value, str)),
        times=tuple(to_micros(value) for value in unique if isinstance(value, datetime)),
        uuids=tuple(str(value) for value in unique if isinstance(value, UUID)),
    )


def parse(
    filters: Mapping[str, Any], fields: Mapping[str, Field], field: str = "filters", *, prefixed: bool = True
) -> Filter:
    """The tree of a caller's filter over an entity with these ``fields``.

    With ``prefixed`` false there is no entity, only one value: ``metadata`` is a key of it like any other.

    Raises Invalid for what is not of the algebra and OverLimit for more than 256 clauses, 16 levels or 1,000
    values in one ``$in``; both name the place, as in ``filters.$or[1].age.$gt``.

    >>> parse({"age": {"$gte": 18}}, {"age": Field("integer")})
    Compare(target=Target(field='age', kind='integer', path=()), order='gte', value=18)
    """
    return _Parser(fields, prefixed=prefixed).mapping(filters, field, 1)


class _Parser:
    """One pass over a caller's filter; counts its clauses."""

    def __init__(self, fields: Mapping[str, Field], *, prefixed: bool) -> None:
        self.fields = fields
        self.prefixed = prefixed
        self.clauses = 0

    def mapping(self, value: Any, place: str, depth: int) -> Filter:
        if not isinstance(value, Mapping):
            raise Invalid(f"{place} must be a mapping, not {type(value).__name__}", field=place)
        if depth > limits.FILTER_DEPTH:
            raise _over(f"{place} is nested deeper than {limits.FILTER_DEPTH}", place, limits.FILTER_DEPTH)
        items = cast("Mapping[object, Any]", value)
        if not items:
            self.count(place)
        parts: list[Filter] = []
        for key, operand in items.items():
            if not isinstance(key, str):
                raise Invalid(f"names in {place} must be text, not {type(key).__name__}", field=place)
            limits.text(key, place, limits.METADATA_BYTES, blank=True)
            inner = f"{place}.{key[:80]}"
            if key in ("$and", "$or"):
                branches = self.branches(operand, inner, depth + 1)
                parts.append(And(branches) if key == "$and" else Or(branches))
            elif key == "$not":
                parts.append(Not(self.mapping(operand, inner, depth + 1)))
            elif key.startswith("$"):
                raise _unknown(inner, CONNECTIVES, "operators stand under the name of a field")
            else:
                parts.extend(self.conditions(key, operand, inner))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def branches(self, value: Any, place: str, depth: int) -> tuple[Filter, ...]:
        if not isinstance(value, (list, tuple)):
            raise Invalid(f"{place} must be a list of filters, not {type(value).__name__}", field=place)
        branches = cast("Sequence[Any]", value)
        if not branches:
            raise Invalid(f"{place} must hold one filter at least", field=place)
        return tuple(self.mapping(part, f"{place}[{number}]", depth) for number, part in enumerate(branches))

    def conditions(self, key: str, operand: Any, place: str) -> list[Filter]:
        target = self.target(key, place)
        if not isinstance(operand, Mapping):
            return [self.condition(target, "$eq", operand, place)]
        operators = cast("Mapping[object, Any]", operand)
        for name in operators:
            if name not in OPERATORS:
                raise _unknown(f"{place}.{str(name)[:80]}", OPERATORS, "a key inside an object goes by a dotted name")
        if not operators:
            raise _unknown(place, OPERATORS, "an empty object cannot be compared")
        return [self.condition(target, str(name), value, f"{place}.{name}") for name, value in operators.items()]

    def target(self, key: str, place: str) -> Target:
        if key in self.fields:
            return Target(key, self.fields[key].kind)
        first, *rest = path = key.split(".")
        field, known = None, self.fields.get(first)
        if rest and first == "metadata" and self.prefixed:
            path = rest
        elif rest and known is not None and known.kind == "json":
            field, path = first, rest
        if len(path) > limits.METADATA_DEPTH:
            raise _over(f"{place} names more than {limits.METADATA_DEPTH} keys", place, limits.METADATA_DEPTH)
        return Target(field, "json", tuple(path))

    def condition(self, target: Target, name: str, value: Any, place: str) -> Filter:
        self.count(place)
        read = _READERS[target.kind]
        match name:
            case "$eq":
                return Compare(target, "eq", _or_none(read, value, place))
            case "$ne":
                return Not(Compare(target, "eq", _or_none(read, value, place)))
            case "$gt" | "$gte" | "$lt" | "$lte":
                return Compare(target, cast("Order", name[1:]), _ordered(read(value, place), place))
            case "$in":
                return In(target, _values(read, value, place))
            case "$nin":
                return Not(In(target, _values(read, value, place)))
            case "$exists":
                wanted = _boolean(value, place)
                return Exists(target) if wanted else Not(Exists(target))
            case _:
                return Contains(target, _part(target, value, place))

    def count(self, place: str) -> None:
        self.clauses += 1
        if self.clauses > limits.FILTER_CLAUSES:
            raise _over(f"{place} is one clause more than {limits.FILTER_CLAUSES}", place, limits.FILTER_CLAUSES)


def _over(message: str, place: str, limit: int) -> OverLimit:
    return OverLimit(message, field=place, limit=limit)


def _unknown(place: str, known: tuple[str, ...], hint: str) -> Invalid:
    return Invalid(f"{place} is none of {', '.join(known)}", field=place, hint=hint)


Reader = Callable[[Any, str], Scalar]


def _or_none(read: Reader, value: Any, place: str) -> Scalar:
    return None if value is None else read(value, place)


def _ordered(value: Scalar, place: str) -> Scalar:
    if value is None or isinstance(value, (bool, UUID)):
        raise Invalid(f"{place} must be a number, text or a time, which have an order", field=place)
    return value


def _values(read: Reader, value: Any, place: str) -> tuple[Scalar, ...]:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise Invalid(f"{place} must be a list of values, not {type(value).__name__}", field=place)
    values = cast("Collection[Any]", value)
    if len(values) > limits.FILTER_VALUES:
        raise _over(
            f"{place} holds {len(values):,} values; the limit is {limits.FILTER_VALUES:,}", place, limits.FILTER_VALUES
        )
    return tuple(_or_none(read, item, f"{place}[{number}]") for number, item in enumerate(values))


def _part(target: Target, value: Any, place: str) -> Scalar:
    if target.kind not in ("text", "json"):
        raise Invalid(f"{place} works on text and lists, not on a field of kind {target.kind}", field=place)
    return _text(value, place) if target.kind == "text" else _or_none(_json, value, place)


def _text(value: Any, place: str) -> str:
    return str.__str__(limits.text(value, place, limits.METADATA_BYTES, blank=True))


def _integer(value: Any, place: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid(f"{place} must be a number, not {type(value).__name__}", field=place, hint=_hint(value))
    return integer(value, place) if isinstance(value, int) else finite(value, place)


def _number(value: Any, place: str) -> float:
    return float(_integer(value, place))


def _boolean(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"{place} must be True or False, not {type(value).__name__}", field=place)
    return value


def _json(value: Any, place: str) -> Scalar:
    if value is None:
        return None  # only the orderings come here with it, and refuse it
    if isinstance(value, (bool, datetime, UUID)):
        return value
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, (int, float)):
        return _integer(value, place)
    message = f"{place} must be None, bool, int, float, text, a datetime or a UUID, not {type(value).__name__}"
    raise Invalid(message, field=place, hint=_hint(value))


def _hint(value: Any) -> str:
    return "Decimals cannot be compared; give an int or a float" if isinstance(value, Decimal) else ""


_READERS: dict[Kind, Reader] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "time": to_micros,
    "boolean": _boolean,
    "json": _json,
}


_ABSENT = object()
_ORDERS: dict[Order, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def evaluate(tree: Filter, record: Mapping[str, Any], metadata: Any) -> bool:
    """Whether a row matches: ``record`` holds the entity's fields as plain values, ``metadata`` the decoded value.

    Times in ``record`` may be datetimes or microseconds. This is what both engines must agree with.
    """
    match tree:
        case And(parts):
            return all(evaluate(part, record, metadata) for part in parts)
        case Or(parts):
            return any(evaluate(part, record, metadata) for part in parts)
        case Not(part):
            return not evaluate(part, record, metadata)
        case Compare(target, order, operand):
            return _holds(_found(target, record, metadata), order, operand, target.kind)
        case In(target, operands):
            value = _found(target, record, metadata)
            return any(_holds(value, "eq", operand, target.kind) for operand in operands)
        case Exists(target):
            value = _found(target, record, metadata)
            return value is not _ABSENT and not (value is None and _is_column(target))
        case Contains(target, operand):
            return _contains(_found(target, record, metadata), operand)


def _is_column(target: Target) -> bool:
    return target.field is not None and not target.path


def _found(target: Target, record: Mapping[str, Any], metadata: Any) -> Any:
    value = metadata if target.field is None else record.get(target.field)
    for key in target.path:
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = cast("Mapping[str, Any]", value)[key]
    return value


def _holds(value: Any, order: Order, operand: Scalar, kind: Kind) -> bool:
    """Whether ``value`` stands in that order to ``operand``; false between different types."""
    if operand is None or isinstance(operand, bool):
        return value is operand
    if isinstance(operand, UUID):
        return isinstance(value, UUID) and value == operand
    if isinstance(operand, datetime) or kind == "time":
        if kind == "time" and isinstance(value, int):
            return _ORDERS[order](value, operand)
        if not isinstance(value, datetime):
            return False
        return _ORDERS[order](to_micros(value), to_micros(operand) if isinstance(operand, datetime) else operand)
    if isinstance(operand, str):
        return isinstance(value, str) and _ORDERS[order](value, operand)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    exact = isinstance(value, int) and isinstance(operand, int)
    return _ORDERS[order](value, operand) if exact else _ORDERS[order](_double(value), float(operand))


def _double(value: float) -> float:
    """The nearest double; of an integer beyond all of them infinity (metadata cannot hold one, states can)."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _contains(value: Any, operand: Scalar) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds(item, "eq", operand, "json") for item in cast("Sequence[Any]", value))
    return isinstance(value, str) and isinstance(operand, str) and operand in value
