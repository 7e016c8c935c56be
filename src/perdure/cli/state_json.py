"""A state as JSON: what JSON lacks becomes an object with one key that begins with ``$``, as in ``values.tagged``.

Beside the tags of stored metadata ($datetime, $uuid, $decimal, $bytes) a state needs $date, $time, $seconds, $tuple,
$set, $array, $integer, $float, $text, $pairs, and $object for values of a class that a program registered.
"""

import base64
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import msgspec

from perdure.rooms.checkpoints.equality import is_array
from perdure.rooms.checkpoints.leaves import Foreign, is_sound
from perdure.values import tagged
from perdure.values.clock import to_micros


class Unknown(msgspec.Struct, frozen=True):
    """A value of a class that the program which saved it had registered; this one does not know it."""

    name: str
    version: int
    fields: Any


def tagged_form(value: Any) -> Any:
    """A value of a state in what JSON can say."""
    if value is None or isinstance(value, bool):
        return value
    writer = _WRITERS.get(cast("type[object]", type(value)))
    if writer is not None:
        return writer(value)
    return _array(value) if is_array(value) else {"$text": str(value)}


def _integer(value: int) -> Any:
    return value if tagged.INTEGER_MIN <= value <= tagged.INTEGER_MAX else {"$integer": str(value)}


def _float(value: float) -> Any:
    return value if math.isfinite(value) else {"$float": str(value)}


def _text(value: str) -> Any:
    return value if is_sound(value) else {"$text": value.encode("utf-16-be", "surrogatepass").hex()}


def _bytes(value: bytes | bytearray) -> Any:
    return {tagged.BYTES_TAG: base64.b64encode(value).decode()}


def _datetime(value: datetime) -> Any:
    return {tagged.DATETIME_TAG: to_micros(value) if value.tzinfo is UTC else value.isoformat()}


def _several(value: Any) -> list[Any]:
    return [tagged_form(item) for item in value]


def _mapping(value: Mapping[Any, Any]) -> Any:
    if all(type(key) is str and is_sound(key) for key in value):
        return {tagged.stored_key(key): tagged_form(item) for key, item in value.items()}
    return {"$pairs": [[tagged_form(key), tagged_form(item)] for key, item in value.items()]}


def _set(value: "set[Any] | frozenset[Any]") -> Any:
    return {"$set": sorted(_several(value), key=msgspec.json.encode)}


def _array(value: Any) -> Any:
    return {"$array": {"dtype": str(value.dtype), "shape": list(value.shape), "values": tagged_form(value.tolist())}}


def _unknown(value: Unknown) -> Any:
    return {"$object": {"type": value.name, "version": value.version, "fields": tagged_form(value.fields)}}


def _foreign(value: Foreign) -> Any:
    return {"$foreign": {"codec": value.codec, **_bytes(value.data)}}


_WRITERS: dict[type, Callable[[Any], Any]] = {
    int: _integer,
    float: _float,
    str: _text,
    bytes: _bytes,
    bytearray: _bytes,
    datetime: _datetime,
    date: lambda value: {"$date": value.isoformat()},
    time: lambda value: {"$time": value.isoformat()},
    timedelta: lambda value: {"$seconds": str(Decimal(value // timedelta(microseconds=1)).scaleb(-6))},
    UUID: lambda value: {tagged.UUID_TAG: str(value)},
    Decimal: lambda value: {tagged.DECIMAL_TAG: str(value)},
    list: _several,
    tuple: lambda value: {"$tuple": _several(value)},
    set: _set,
    frozenset: _set,
    dict: _mapping,
    Unknown: _unknown,
    Foreign: _foreign,
}


def fields_of(value: Any) -> "Mapping[Any, Any] | None":
    """The keys and values of a mapping, or of a value whose class is not known; None for anything else."""
    if isinstance(value, Unknown):
        value = value.fields
    return cast("Mapping[Any, Any]", value) if isinstance(value, dict) else None


def document_of(one: Any) -> dict[str, Any]:
    """A checkpoint or a branch for ``--json``; its metadata may hold anything that a state may."""
    return {name: getattr(one, name) for name in one.__struct_fields__} | {"metadata": tagged_form(dict(one.metadata))}
