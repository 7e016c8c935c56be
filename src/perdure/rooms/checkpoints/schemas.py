"""What the states of threads must look like, and every path at which one does not."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from perdure.rooms.checkpoints.paths import index_step, joined, key_step
from perdure.values.errors import Invalid, MissingExtra

_MAPPINGS = (
    msgspec.inspect.StructType,
    msgspec.inspect.DataclassType,
    msgspec.inspect.TypedDictType,
    msgspec.inspect.DictType,
)


class SchemaBook:
    """Schemas by thread, or by the beginning of threads' names."""

    def __init__(self) -> None:
        self._schemas: dict[str, Any] = {}

    def register(self, name: str, schema: Mapping[str, Any] | type) -> None:
        """Keeps a schema. ``Invalid`` for what is none."""
        if isinstance(schema, Mapping):
            _json_schema_check(schema)
            self._schemas[name] = dict(schema)
            return
        try:
            info = msgspec.inspect.type_info(schema)
        except (TypeError, NameError) as error:
            raise Invalid(f"states cannot be checked by this type: {error}", field="schema") from None
        if not isinstance(info, _MAPPINGS):
            raise Invalid("a schema is a JSON Schema, or a struct, dataclass or TypedDict", field="schema")
        self._schemas[name] = schema

    def schema_for(self, thread_id: str) -> Any:
        """The schema of a thread: its own, else that of the longest beginning; None when there is none."""
        if thread_id in self._schemas:
            return self._schemas[thread_id]
        fitting = [name for name in self._schemas if not name[-1].isalnum() and thread_id.startswith(name.rstrip("*"))]
        return self._schemas[max(fitting, key=len)] if fitting else None

    def check(self, thread_id: str, state: Mapping[str, Any]) -> None:
        """Nothing, when the state fits its thread's schema. ``Invalid`` with every path that does not."""
        schema = self.schema_for(thread_id)
        if schema is None:
            return
        problems = (
            _against_json(cast("dict[str, Any]", schema), state)
            if isinstance(schema, dict)
            else _against_type(schema, dict(state))
        )
        if problems:
            raise Invalid(
                f"the state does not fit the schema of thread {thread_id!r}: {'; '.join(problems[:20])}", field="state",
                paths=[problem.split(": ", 1)[0] for problem in problems],
            )  # fmt: skip


def _jsonschema() -> tuple[Any, Any]:
    try:
        import jsonschema
        import referencing
    except ImportError:
        raise MissingExtra(
            "checking a JSON Schema needs the package jsonschema", hint='pip install "perdure[schema]"'
        ) from None
    return jsonschema, referencing


def _json_schema_check(schema: Mapping[str, Any]) -> None:
    jsonschema, _ = _jsonschema()
    try:
        jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator).check_schema(dict(schema))
    except jsonschema.SchemaError as error:
        raise Invalid(f"this is no JSON Schema: {error.message}", field="schema") from None


def _against_json(schema: dict[str, Any], state: Mapping[str, Any]) -> list[str]:
    jsonschema, referencing = _jsonschema()
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    # A registry of its own, which is empty: a reference is never looked up on the network.
    found = kind(schema, registry=referencing.Registry()).iter_errors(dict(state))
    try:
        return sorted(f"{_path(error.absolute_path)}: {error.message}" for error in found)
    except referencing.exceptions.Unresolvable as error:
        raise Invalid(f"the schema refers to what is not in it: {error}", field="schema") from None


def _path(steps: Iterable[Any]) -> str:
    path = ""
    for step in steps:
        path = joined(path, index_step(step) if isinstance(step, int) else key_step(step))
    return path or "state"


# -- against a type ------------------------------------------------------------------------------------------------------------


class _Part(msgspec.Struct, frozen=True):
    """A part of a value, the step to it, and the type that it must have."""

    step: str
    kind: Any
    value: Any


def _against_type(kind: Any, value: Any, path: str = "") -> list[str]:
    """What of a value is not of a type. msgspec names the first problem only, so each part is asked by itself."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$")
    else:
        return []
    fields = _fields(kind)
    problems: list[str] = []
    if fields is not None and isinstance(value, Mapping):
        missing = [name for name, (_, required) in fields.items() if required and name not in value]
        problems = [f"{joined(path, key_step(name))}: is missing" for name in missing]
    for part in _parts(kind, fields, value):
        problems += _against_type(part.kind, part.value, joined(path, part.step) if part.step else path)
    return problems or [
        f"{path + place.rstrip('`') if path else place.rstrip('`').removeprefix('.') or 'state'}: {text}"
    ]


def _parts(kind: Any, fields: "dict[str, tuple[Any, bool]] | None", value: Any) -> list[_Part]:
    """The parts of a value that have a type of their own."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):  # of several types none is the one that was meant
        others = [arg for arg in args if arg is not type(None)]
        return [_Part("", others[0], value)] if len(others) == 1 and value is not None else []
    if fields is not None and isinstance(value, Mapping):
        held = cast("Mapping[str, Any]", value)
        return [_Part(key_step(name), part, held[name]) for name, (part, _) in fields.items() if name in held]
    if origin is dict and isinstance(value, dict):
        return [_Part(key_step(key), args[1], item) for key, item in cast("dict[Any, Any]", value).items()]
    if origin in (list, Sequence) and isinstance(value, list):
        return [_Part(index_step(at), args[0], item) for at, item in enumerate(cast("list[Any]", value))]
    return []


def _fields(kind: Any) -> dict[str, tuple[Any, bool]] | None:
    """The names that a struct, dataclass or TypedDict has, the type of each, and whether it must be there."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {field.encode_name: (field.type, field.required) for field in msgspec.structs.fields(kind)}
    if is_typeddict(cast("Any", kind)):
        hints = get_type_hints(cast("Any", kind))
        return {name: (hint, name in kind.__required_keys__) for name, hint in hints.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints, none = get_type_hints(kind, include_extras=True), dataclasses.MISSING
        return {
            field.name: (hints[field.name], field.default is none and field.default_factory is none)
            for field in dataclasses.fields(kind)
        }
    return None
