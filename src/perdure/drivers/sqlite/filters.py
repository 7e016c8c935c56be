"""Filters as SQL of SQLite: the metadata is JSON text, read with ``json_type`` and ``json_extract``.

Three habits of SQLite shape the SQL:

- ``json_extract`` gives true and 1 alike, so each test first branches on ``json_type``;
- an integer and a real are compared exactly, where the algebra says "as doubles", hence the casts;
- a key in a JSON path may be any JSON string, so a path quotes each key as JSON and is bound like a value.

Every fragment is 0 or 1, never NULL, so NOT in front of it says the opposite. Text operands compare as UTF-8
bytes, which is the order of code points.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from perdure.values.clock import to_micros
from perdure.values.filters import (
    And,
    Compare,
    Contains,
    Exists,
    Filter,
    In,
    Not,
    Operands,
    Or,
    Order,
    Scalar,
    Target,
    sort_operands,
)
from perdure.values.tagged import DATETIME_TAG, UUID_TAG, stored_key

_SIGNS: dict[Order, str] = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def render(
    tree: Filter, columns: Mapping[str, str], metadata: str, prefix: str = "f"
) -> tuple[str, dict[str, int | float | str]]:
    """The SQL of ``tree`` and its parameters ``:f0``, ``:f1``, ...

    ``columns`` maps each field of the entity to its SQL expression, ``metadata`` is that of the JSON text; both
    should be qualified (``c.metadata``). ``prefix`` begins the names of the parameters.
    """
    writer = _Writer(columns, metadata, prefix)
    return writer.write(tree), writer.parameters


class _Slot(msgspec.Struct, frozen=True):
    """A place in JSON: the SQL of its type and of its value, and the document, path and keys that lead to it."""

    type: str
    value: str
    document: str
    path: str
    keys: tuple[str, ...]


class _Writer:
    """Writes one tree; collects its parameters."""

    def __init__(self, columns: Mapping[str, str], metadata: str, prefix: str) -> None:
        self.columns = columns
        self.metadata = metadata
        self.prefix = prefix
        self.parameters: dict[str, int | float | str] = {}

    def bind(self, value: float | str) -> str:
        name = f"{self.prefix}{len(self.parameters)}"
        self.parameters[name] = int(value) if isinstance(value, bool) else value
        return f":{name}"

    def write(self, tree: Filter) -> str:
        match tree:
            case And(parts):
                return f"({' AND '.join(map(self.write, parts))})" if parts else "(1)"
            case Or(parts):
                return f"({' OR '.join(map(self.write, parts))})" if parts else "(0)"
            case Not(part):
                return f"(NOT {self.write(part)})"
            case Compare(target, "eq", value):
                return self.equals(target, (value,))
            case Compare(target, order, value):
                return self.ordered(target, _SIGNS[order], value)
            case In(target, values):
                return self.equals(target, values)
            case Exists(target):
                return self.exists(target)
            case Contains(target, value):
                return self.contains(target, value)

    # --- fields of the entity

    def column(self, target: Target) -> str:
        assert target.field is not None
        return f"({self.columns[target.field]})"

    def equals(self, target: Target, values: tuple[Scalar, ...]) -> str:
        operands = sort_operands(values)
        if target.kind == "json":
            return self.json_equals(target, operands)
        column = self.column(target)
        match target.kind:
            case "number":
                tests = self.any_of(f"CAST({column} AS REAL)", operands.floats)
            case "text":
                tests = self.any_of(column, operands.texts)
            case "boolean":
                tests = self.any_of(column, operands.booleans)
            case _:
                tests = self.any_of(column, operands.integers)
                tests += self.any_of(f"CAST({column} AS REAL)", operands.floats)
        found = f"({column} IS NOT NULL AND ({' OR '.join(tests)}))" if tests else "(0)"
        if not operands.null:
            return found
        return f"({column} IS NULL OR {found})" if tests else f"({column} IS NULL)"

    def any_of(self, value: str, operands: tuple[Any, ...]) -> list[str]:
        """No test or one: ``value`` is one of ``operands``, which are one parameter however many they are."""
        if not operands:
            return []
        if len(operands) == 1:
            return [f"{value} = {self.bind(operands[0])}"]
        together = msgspec.json.encode([int(item) if isinstance(item, bool) else item for item in operands])
        return [f"{value} IN (SELECT value FROM json_each({self.bind(together.decode())}))"]

    def ordered(self, target: Target, sign: str, value: Scalar) -> str:
        if target.kind == "json":
            return self.json_ordered(target, sign, value)
        assert isinstance(value, (int, float, str))
        column = self.column(target)
        if isinstance(value, float):
            compared = f"CAST({column} AS REAL)"
        elif isinstance(value, str):
            compared = f"{column} COLLATE BINARY"
        else:
            compared = column
        return f"({column} IS NOT NULL AND {compared} {sign} {self.bind(value)})"

    def exists(self, target: Target) -> str:
        if target.kind != "json":
            return f"({self.column(target)} IS NOT NULL)"
        slot = self.slot(target)
        if target.field is not None and not target.path:
            return f"(coalesce({slot.type}, 'null') <> 'null')"
        return f"({slot.type} IS NOT NULL)"

    def contains(self, target: Target, value: Scalar) -> str:
        if target.kind == "json":
            return self.json_contains(target, value)
        assert isinstance(value, str)
        column = self.column(target)
        return f"({column} IS NOT NULL AND instr({column}, {self.bind(value)}) > 0)"

    # --- JSON

    def slot(self, target: Target) -> _Slot:
        document = self.metadata if target.field is None else self.columns[target.field]
        return self.inside(document, tuple(map(stored_key, target.path)))

    def inside(self, document: str, keys: tuple[str, ...]) -> _Slot:
        path = self.bind("$" + "".join(f".{msgspec.json.encode(key).decode()}" for key in keys))
        return _Slot(f"json_type({document}, {path})", f"json_extract({document}, {path})", document, path, keys)

    def json_equals(self, target: Target, operands: Operands) -> str:
        slot = self.slot(target)
        found = self.slot_equals(slot, operands)
        if operands.null and target.field is not None and not target.path:
            return f"({slot.type} IS NULL OR {found})"
        return found

    def slot_equals(self, slot: _Slot, operands: Operands) -> str:
        cases: list[str] = []

        def when(kind: str, tests: list[str]) -> None:
            if tests:
                cases.append(f"WHEN '{kind}' THEN {' OR '.join(tests)}")

        when("null", ["1"] if operands.null else [])
        when("true", ["1"] if True in operands.booleans else [])
        when("false", ["1"] if False in operands.booleans else [])
        exact = self.any_of(slot.value, operands.integers)
        when("integer", exact + self.any_of(f"CAST({slot.value} AS REAL)", operands.floats))
        when("real", self.any_of(slot.value, operands.doubles))
        when("text", self.any_of(slot.value, operands.texts))
        times = self.tag_equals(slot, DATETIME_TAG, "integer", operands.times)
        when("object", times + self.tag_equals(slot, UUID_TAG, "text", operands.uuids))
        return f"(CASE {slot.type} {' '.join(cases)} ELSE 0 END)" if cases else "(0)"

    def tag_equals(self, slot: _Slot, tag: str, kind: str, operands: tuple[Any, ...]) -> list[str]:
        if not operands:
            return []
        tagged = self.inside(slot.document, (*slot.keys, tag))
        (test,) = self.any_of(tagged.value, operands)
        return [f"(CASE {tagged.type} WHEN '{kind}' THEN {test} ELSE 0 END)"]

    def json_ordered(self, target: Target, sign: str, value: Scalar) -> str:
        slot = self.slot(target)
        match value:
            case str():
                cases = f"WHEN 'text' THEN {slot.value} {sign} {self.bind(value)}"
            case int():
                cases = (
                    f"WHEN 'integer' THEN {slot.value} {sign} {self.bind(value)} "
                    f"WHEN 'real' THEN {slot.value} {sign} {self.bind(float(value))}"
                )
            case float():
                operand = self.bind(value)
                cases = (
                    f"WHEN 'integer' THEN CAST({slot.value} AS REAL) {sign} {operand} "
                    f"WHEN 'real' THEN {slot.value} {sign} {operand}"
                )
            case datetime():
                slot = self.inside(slot.document, (*slot.keys, DATETIME_TAG))
                cases = f"WHEN 'integer' THEN {slot.value} {sign} {self.bind(to_micros(value))}"
            case _:
                raise AssertionError(f"{value!r} has no order")
        return f"(CASE {slot.type} {cases} ELSE 0 END)"

    def json_contains(self, target: Target, value: Scalar) -> str:
        slot = self.slot(target)
        alias = f"{self.prefix}_item"
        item = _Slot(f"{alias}.type", f"{alias}.value", f"{alias}.value", "", ())
        equal = self.slot_equals(item, sort_operands((value,)))
        each = f"EXISTS (SELECT 1 FROM json_each({slot.document}, {slot.path}) AS {alias} WHERE {equal})"
        text = f"WHEN 'text' THEN instr({slot.value}, {self.bind(value)}) > 0 " if isinstance(value, str) else ""
        return f"(CASE {slot.type} WHEN 'array' THEN {each} {text}ELSE 0 END)"
