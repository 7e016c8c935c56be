"""Filters as SQL of PostgreSQL: the metadata is ``jsonb``, stepped through with ``->`` and bound keys.

Four habits of PostgreSQL shape the SQL:

- it may evaluate a cast before the test that guards it, except under CASE;
- ``#>`` with a path would let "0" index a list, ``->`` with text steps through objects only;
- it would parse and step through the JSON anew for each mention, so a subquery (which OFFSET 0 keeps one) does
  it once a row;
- a number in jsonb is a decimal that keeps its point: scale 0 means an integer, anything else a double.

Every fragment is true or false, never NULL, so NOT in front of it says the opposite. Text is ordered under
COLLATE "C", which on a UTF-8 database is the order of code points. Parameters are cast with CAST(), because
``-9223372036854775808::bigint`` would negate too late where a client writes the values into the SQL itself.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

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


def render(tree: Filter, columns: Mapping[str, str], metadata: str, prefix: str = "f") -> tuple[str, dict[str, Any]]:
    """The SQL of ``tree`` and its parameters ``%(f0)s``, ``%(f1)s``, ...

    ``columns`` maps each field of the entity to its SQL expression, ``metadata`` is that of the jsonb; both
    should be qualified (``c.metadata``). ``prefix`` begins the names of the parameters.
    """
    writer = _Writer(columns, metadata, prefix)
    return writer.write(tree), writer.parameters


class _Writer:
    """Writes one tree; collects its parameters."""

    def __init__(self, columns: Mapping[str, str], metadata: str, prefix: str) -> None:
        self.columns = columns
        self.metadata = metadata
        self.prefix = prefix
        self.parameters: dict[str, Any] = {}

    def bind(self, value: Any, kind: str) -> str:
        name = f"{self.prefix}{len(self.parameters)}"
        self.parameters[name] = value
        return f"CAST(%({name})s AS {kind})"

    def write(self, tree: Filter) -> str:
        match tree:
            case And(parts):
                return f"({' AND '.join(map(self.write, parts))})" if parts else "(TRUE)"
            case Or(parts):
                return f"({' OR '.join(map(self.write, parts))})" if parts else "(FALSE)"
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
                tests = self.any_of(f"CAST({column} AS float8)", operands.floats, "float8")
            case "text":
                tests = self.any_of(column, operands.texts, "text")
            case "boolean":
                tests = self.any_of(f"CAST({column} AS integer)", tuple(map(int, operands.booleans)), "integer")
            case _:
                tests = self.any_of(column, operands.integers, "bigint")
                tests += self.any_of(f"CAST({column} AS float8)", operands.floats, "float8")
        found = f"({column} IS NOT NULL AND ({' OR '.join(tests)}))" if tests else "(FALSE)"
        if not operands.null:
            return found
        return f"({column} IS NULL OR {found})" if tests else f"({column} IS NULL)"

    def any_of(self, value: str, operands: tuple[Any, ...], kind: str) -> list[str]:
        """No test or one: ``value`` is one of ``operands``, which are one parameter however many they are."""
        if not operands:
            return []
        if len(operands) == 1:
            return [f"{value} = {self.bind(operands[0], kind)}"]
        return [f"{value} = ANY({self.bind(list(operands), f'{kind}[]')})"]

    def ordered(self, target: Target, sign: str, value: Scalar) -> str:
        if target.kind == "json":
            return self.json_ordered(target, sign, value)
        column = self.column(target)
        if isinstance(value, float):
            test = f"CAST({column} AS float8) {sign} {self.bind(value, 'float8')}"
        elif isinstance(value, str):
            test = f'{column} COLLATE "C" {sign} {self.bind(value, "text")}'
        else:
            test = f"{column} {sign} {self.bind(value, 'bigint')}"
        return f"({column} IS NOT NULL AND {test})"

    def exists(self, target: Target) -> str:
        if target.kind != "json":
            return f"({self.column(target)} IS NOT NULL)"
        slot = self.steps(target)
        if target.field is not None and not target.path:
            return f"(coalesce(jsonb_typeof({slot}), 'null') <> 'null')"
        return f"({slot} IS NOT NULL)"

    def contains(self, target: Target, value: Scalar) -> str:
        if target.kind == "json":
            return self.json_contains(target, value)
        column = self.column(target)
        return f"({column} IS NOT NULL AND strpos({column}, {self.bind(value, 'text')}) > 0)"

    # --- JSON; a slot is the SQL of one jsonb value, NULL where there is none

    def steps(self, target: Target) -> str:
        """The SQL that steps to the target's value."""
        steps = [self.metadata if target.field is None else self.columns[target.field]]
        steps += [self.bind(stored_key(key), "text") for key in target.path]
        return f"({' -> '.join(steps)})"

    @property
    def slot(self) -> str:
        """The target's value inside ``once``."""
        return f"{self.prefix}_slot.value"

    def once(self, target: Target, test: str) -> str:
        """``test`` over ``self.slot``, the value of the target."""
        return f"(SELECT {test} FROM (SELECT {self.steps(target)} AS value OFFSET 0) AS {self.prefix}_slot)"

    def json_equals(self, target: Target, operands: Operands) -> str:
        found = self.slot_equals(self.slot, operands)
        if operands.null and target.field is not None and not target.path:
            found = f"({self.slot} IS NULL OR {found})"
        return self.once(target, found)

    def slot_equals(self, slot: str, operands: Operands) -> str:
        cases: list[str] = []

        def when(kind: str, tests: list[str]) -> None:
            if tests:
                cases.append(f"WHEN '{kind}' THEN {' OR '.join(tests)}")

        when("null", ["TRUE"] if operands.null else [])
        when("boolean", self.any_of(f"CAST({slot} AS boolean)", operands.booleans, "boolean"))
        when("number", self.number_equals(slot, operands))
        when("string", self.any_of(f"({slot} #>> '{{}}')", operands.texts, "text"))
        times = self.tag_equals(slot, DATETIME_TAG, operands.times)
        when("object", times + self.tag_equals(slot, UUID_TAG, operands.uuids))
        return f"(CASE jsonb_typeof({slot}) {' '.join(cases)} ELSE FALSE END)" if cases else "(FALSE)"

    def number_equals(self, slot: str, operands: Operands) -> list[str]:
        decimal, double = f"CAST({slot} AS numeric)", f"CAST({slot} AS float8)"
        real = self.any_of(double, operands.doubles, "float8")
        if not real:
            return []
        exact = self.any_of(decimal, operands.integers, "bigint") + self.any_of(double, operands.floats, "float8")
        return [f"(CASE WHEN scale({decimal}) = 0 THEN {' OR '.join(exact)} ELSE {real[0]} END)"]

    def tag_equals(self, slot: str, tag: str, operands: tuple[Any, ...]) -> list[str]:
        tagged = f"({slot} -> '{tag}')"
        if tag == DATETIME_TAG:
            kind, tests = "number", self.any_of(f"CAST({tagged} AS numeric)", operands, "bigint")
        else:
            kind, tests = "string", self.any_of(f"({tagged} #>> '{{}}')", operands, "text")
        return [f"(CASE jsonb_typeof({tagged}) WHEN '{kind}' THEN {test} ELSE FALSE END)" for test in tests]

    def json_ordered(self, target: Target, sign: str, value: Scalar) -> str:
        slot = self.slot
        kind = "number"
        match value:
            case str():
                kind = "string"
                test = f"(({slot} #>> '{{}}') COLLATE \"C\") {sign} {self.bind(value, 'text')}"
            case int():
                test = (
                    f"CASE WHEN scale(CAST({slot} AS numeric)) = 0 "
                    f"THEN CAST({slot} AS numeric) {sign} {self.bind(value, 'bigint')} "
                    f"ELSE CAST({slot} AS float8) {sign} {self.bind(float(value), 'float8')} END"
                )
            case float():
                test = f"CAST({slot} AS float8) {sign} {self.bind(value, 'float8')}"
            case datetime():
                slot = f"({slot} -> '{DATETIME_TAG}')"
                test = f"CAST({slot} AS numeric) {sign} {self.bind(to_micros(value), 'bigint')}"
            case _:
                raise AssertionError(f"{value!r} has no order")
        return self.once(target, f"CASE jsonb_typeof({slot}) WHEN '{kind}' THEN {test} ELSE FALSE END")

    def json_contains(self, target: Target, value: Scalar) -> str:
        alias = f"{self.prefix}_item"
        equal = self.slot_equals(f"{alias}.value", sort_operands((value,)))
        each = f"SELECT 1 FROM jsonb_array_elements({self.slot}) AS {alias}(value) WHERE {equal}"
        cases = f"WHEN 'array' THEN EXISTS ({each}) "
        if isinstance(value, str):
            cases += f"WHEN 'string' THEN strpos({self.slot} #>> '{{}}', {self.bind(value, 'text')}) > 0 "
        return self.once(target, f"CASE jsonb_typeof({self.slot}) {cases}ELSE FALSE END")
