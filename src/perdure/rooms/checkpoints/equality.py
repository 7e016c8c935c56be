"""When two values of a state are the same, to the type: what is told apart here would be stored as different bytes.

1, 1.0 and True are three values, and so are 0.0 and -0.0, ``Decimal("1")`` and ``Decimal("1.0")``, and the same moment
in two time zones. NaN is the same as NaN. The order of a mapping's keys says nothing. Classes of other packages are
looked up among the modules that are loaded; none is imported.
"""

import dataclasses
import sys
from collections.abc import Hashable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any
from uuid import UUID

import msgspec

_PLAIN: frozenset[type] = frozenset({str, int, bool, bytes, NoneType, UUID, date, timedelta})
"""Types of which == already means the same."""
_STOOD_FOR: frozenset[type] = frozenset({float, Decimal, datetime, time})
"""Types of which ``frozen`` says what is the same."""
_WORD = 8
"""Bytes that a number, or the frame of a value, is taken to have."""


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same in type and content, at every depth."""
    if a is b:
        return True
    kind: type[Any] = type(a)  # pyright: ignore[reportUnknownVariableType]
    if kind is not type(b):
        return False
    if kind in _PLAIN:
        return a == b
    if kind is dict:
        return _same_mappings(a, b)
    if kind is list or kind is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    if kind is set or kind is frozenset:
        return len(a) == len(b) and frozen_all(a).keys() == frozen_all(b).keys()
    if kind in _STOOD_FOR:
        return frozen(a) == frozen(b)
    if is_array(a):
        return _same_arrays(a, b)
    fields = attributes(a)
    if fields is not None:
        return _same_mappings(fields, attributes(b) or {})
    return bool(a == b)


def _same_mappings(a: dict[Any, Any], b: dict[Any, Any]) -> bool:
    if len(a) != len(b):
        return False
    its = frozen_all(b)
    return all(name in its and same(a[key], b[its[name]]) for name, key in frozen_all(a).items())


def _same_arrays(a: Any, b: Any) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return same(a.tolist(), b.tolist()) if a.dtype.hasobject else a.tobytes() == b.tobytes()


def frozen(value: Any) -> Hashable:
    """A stand-in for a key or a member of a set: two are equal exactly when the values are the same.

    Text stands for itself, so that mappings with text for keys cost nothing more.
    """
    kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind is str:
        return value
    if kind is float or kind is Decimal:
        return kind, repr(value)
    if kind is datetime or kind is time:
        return kind, value.isoformat(), value.fold
    if kind is tuple:
        return kind, tuple(map(frozen, value))
    if kind is frozenset:
        return kind, frozenset(map(frozen, value))
    if is_array(value):  # a number of numpy's
        return kind, value.tobytes()
    return kind, value


def frozen_all(values: Iterable[Any]) -> dict[Hashable, Any]:
    """Keys or members by their stand-ins, in their order."""
    return {frozen(value): value for value in values}


def is_array(value: Any) -> bool:
    """Whether a value is numpy's: an array or one of its numbers."""
    numpy: Any = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray | numpy.generic)


def attributes(value: Any) -> dict[str, Any] | None:
    """The fields of a msgspec struct, a dataclass or a pydantic model by name; None for anything else."""
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name) for name in names if hasattr(value, name)}
    pydantic: Any = sys.modules.get("pydantic")
    model = getattr(pydantic, "BaseModel", None)
    if model is not None and isinstance(value, model):
        return {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}
    return None


def approximate_size(value: Any) -> int:
    """About how many bytes a value takes when encoded; it is not encoded for that."""
    kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind is str:
        return 1 + (len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass")))
    if value is None or kind is bool:
        return 1
    if kind is int:
        return 1 + (value.bit_length() + 7) // 8
    if kind is bytes:
        return 1 + len(value)
    if kind is dict:
        return 1 + sum(approximate_size(key) + approximate_size(item) for key, item in value.items())
    if kind in {list, tuple, set, frozenset}:
        return 1 + sum(map(approximate_size, value))
    if is_array(value):
        return _WORD + int(value.nbytes)
    fields = attributes(value)
    return 1 + _WORD if fields is None else _WORD + approximate_size(fields)
