"""JSON text that gives callers' values back as they were: times, UUIDs, Decimals and bytes travel as tags.

A value that JSON lacks becomes an object with one key that begins with ``$``::

    {"$datetime": 1767225600000000}     microseconds since 1970 in UTC (naive datetimes are read as UTC)
    {"$uuid": "0190c9f2-..."}  {"$decimal": "1.50"}  {"$bytes": "<base64>"}

A caller's own key that begins with ``$`` is stored with one more ``$`` in front, so a tag is never taken
for data or data for a tag. Tuples come back as lists, subclasses of ``str``, ``int`` and ``float`` as
their base; everything else comes back equal and of the same type.

Big floats are spelled out with a ``.0`` at their end: ``jsonb``, in which PostgreSQL answers filters, forgets
how a number was written and would take ``1e16`` for an integer.

Most metadata has nothing special: one walk over the types proves that, and then msgspec does all the work.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, cast
from uuid import UUID

import msgspec

from perdure.values import limits
from perdure.values.clock import to_datetime, to_micros
from perdure.values.errors import Invalid, OverLimit, Undecodable

DATETIME_TAG = "$datetime"
UUID_TAG = "$uuid"
DECIMAL_TAG = "$decimal"
BYTES_TAG = "$bytes"

INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1

_PLAIN_FLOAT = 1e16
"""From here on msgspec writes floats with an exponent and without a point."""
_FIRST_MICROS = to_micros(datetime.min.replace(tzinfo=UTC))
_LAST_MICROS = to_micros(datetime.max.replace(tzinfo=UTC))

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def encode(value: Any, field: str, limit: int, depth: int) -> str:
    """``value`` as compact JSON text of at most ``limit`` bytes and ``depth`` levels of lists and dicts.

    Holds None, bool, int of 64 bits, finite float, str, list, tuple, dict with str keys, datetime, UUID, finite
    Decimal and bytes; anything else, NUL and lone surrogates are Invalid (``field`` and the place inside it are
    named), too large or too deep is OverLimit.

    >>> encode({"price": Decimal("1.50")}, "metadata", 1_000, 8)
    '{"price":{"$decimal":"1.50"}}'
    """
    raw = _encode_plain(value, limit, depth)
    if raw is None:
        raw = _encode(_Tagger(field, limit).tag(value, field, depth))
    if len(raw) > limit:
        raise OverLimit(f"{field} has {len(raw):,} bytes; the limit is {limit:,}", field=field, limit=limit)
    return raw.decode()


def decode(text: str | bytes) -> Any:
    """The value that ``encode`` was given; raises Undecodable when the text is damaged."""
    try:
        value = _decode(text)
        tagged = '"$' in text if isinstance(text, str) else b'"$' in text
        return _restore(value) if tagged else value
    except (ValueError, RecursionError) as error:  # msgspec's errors and those of Unicode are ValueErrors
        raise Undecodable(f"a stored JSON value cannot be decoded: {error}") from None


def stored_key(key: str) -> str:
    """The key under which a caller's ``key`` stands in the JSON text."""
    return "$" + key if key.startswith("$") else key


def _encode_plain(value: Any, limit: int, depth: int) -> bytes | None:
    """The JSON of a value without anything special in it, None when the careful way must look at it."""
    if not _is_plain(value, limit, depth):
        return None
    try:
        raw = _encode(value)
    except UnicodeEncodeError:  # a lone surrogate; the careful way says where
        return None
    # Both of these may also be the harmless content of a string: the careful way knows.
    if b'"$' in raw or b"\\u0000" in raw:
        return None
    return raw


def _is_plain(value: Any, limit: int, depth: int) -> bool:
    """Whether JSON itself can hold ``value``, by exact types; strings are left to the encoder."""
    level: list[Any] = [value]
    while level:
        deeper: list[Any] = []
        for item in level:
            kind = cast("type[object]", type(item))
            if kind is str or kind is bool or item is None:
                continue
            if kind is int:
                if not INTEGER_MIN <= item <= INTEGER_MAX:
                    return False
            elif kind is float:
                if not -_PLAIN_FLOAT < item < _PLAIN_FLOAT:  # false for NaN too
                    return False
            elif (kind is dict or kind is list) and depth:
                # A value takes a byte at least: a small object that holds itself often stops here, not at the end
                # of memory.
                limit -= len(item)
                if limit < 0:
                    return False
                if kind is list:
                    deeper.extend(item)
                else:
                    for key in item:
                        if type(key) is not str:
                            return False
                    deeper.extend(item.values())
            else:
                return False
        level = deeper
        depth -= 1
    return True


class _Tagger:
    """Rebuilds one value with tags, and says exactly where something cannot be stored."""

    def __init__(self, field: str, limit: int) -> None:
        self.field = field
        self.limit = limit
        self.left = limit  # values that may still come

    def tag(self, value: Any, place: str, depth: int) -> Any:
        """``value`` in what msgspec writes as JSON; ``depth`` levels may still open."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str.__str__(limits.text(value, place, self.limit, blank=True))
        if isinstance(value, int):
            return integer(value, place)
        if isinstance(value, float):
            return _written_float(finite(value, place))
        if isinstance(value, dict):
            return self._dict(cast("dict[object, Any]", value), place, depth)
        if isinstance(value, (list, tuple)):
            items = cast("Sequence[Any]", value)
            self._open(len(items), depth)
            return [self.tag(item, f"{place}[{number}]", depth - 1) for number, item in enumerate(items)]
        return _tagged(value, place)

    def _dict(self, value: dict[object, Any], place: str, depth: int) -> dict[str, Any]:
        self._open(len(value), depth)
        tagged: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise Invalid(f"keys in {place} must be text, not {type(key).__name__}", field=place)
            name = str.__str__(limits.text(key, place, self.limit, blank=True))
            tagged[stored_key(name)] = self.tag(item, f"{place}.{name[:80]}", depth - 1)
        return tagged

    def _open(self, size: int, depth: int) -> None:
        if depth <= 0:
            raise OverLimit(f"{self.field} has too many levels of lists and objects", field=self.field)
        self.left -= size
        if self.left < 0:
            raise OverLimit(
                f"{self.field} is larger than the limit of {self.limit:,} bytes", field=self.field, limit=self.limit
            )


def integer(value: int, field: str) -> int:
    """``value`` as a plain int when 64 bits can hold it, else Invalid."""
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        raise Invalid(f"{field} is an integer beyond 64 bits, which cannot be stored", field=field)
    return int(value)


def finite(value: float, field: str) -> float:
    """``value`` as a plain float that is neither NaN nor infinite, else Invalid."""
    if not isfinite(value):
        raise Invalid(f"{field} must be a finite number, not {value}", field=field)
    return float(value)


def _written_float(value: float) -> Any:
    if -_PLAIN_FLOAT < value < _PLAIN_FLOAT:
        return value
    return msgspec.Raw(f"{Decimal(repr(value)):f}.0".encode())


def _tagged(value: Any, place: str) -> dict[str, Any]:
    if isinstance(value, datetime):
        micros = to_micros(value, place)
        if not _FIRST_MICROS <= micros <= _LAST_MICROS:
            raise Invalid(f"{place} is outside the years 1 to 9999 in UTC", field=place)
        return {DATETIME_TAG: micros}
    if isinstance(value, UUID):
        return {UUID_TAG: str(value)}
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise Invalid(f"{place} must be a finite number, not {value}", field=place)
        return {DECIMAL_TAG: str(value)}
    if isinstance(value, bytes):
        return {BYTES_TAG: base64.b64encode(value).decode()}
    raise Invalid(
        f"{place} holds a value of type {type(value).__name__}, which cannot be stored",
        field=place,
        hint="None, bool, int, float, str, list, dict, datetime, UUID, Decimal and bytes can",
    )


def _restore(value: Any) -> Any:
    if isinstance(value, list):
        return [_restore(item) for item in cast("Sequence[Any]", value)]
    if not isinstance(value, dict):
        return value
    items = cast("dict[str, Any]", value)
    restored: dict[str, Any] = {}
    for key, item in items.items():
        if not key.startswith("$"):
            restored[key] = _restore(item)
        elif key.startswith("$$"):
            restored[key[1:]] = _restore(item)
        elif len(items) == 1 and key in _READERS:
            return _READERS[key](item)
        else:
            raise ValueError(f"unknown tag {key[:40]!r}")
    return restored


def _read_datetime(payload: Any) -> datetime:
    if type(payload) is not int or not _FIRST_MICROS <= payload <= _LAST_MICROS:
        raise ValueError("a time must be an integer of microseconds in the years 1 to 9999")
    return to_datetime(payload)


def _read_uuid(payload: Any) -> UUID:
    value = UUID(_text(payload))
    if str(value) != payload:
        raise ValueError("a UUID is not in its usual form")
    return value


def _read_decimal(payload: Any) -> Decimal:
    try:
        value = Decimal(_text(payload))
    except InvalidOperation:
        raise ValueError("a decimal is not a number") from None
    if not value.is_finite():
        raise ValueError("a decimal is not finite")
    return value


def _read_bytes(payload: Any) -> bytes:
    try:
        return base64.b64decode(_text(payload), validate=True)
    except binascii.Error:
        raise ValueError("bytes are not base64") from None


def _text(payload: Any) -> str:
    text = payload if isinstance(payload, str) else None
    if text is None:
        raise ValueError("a tag must hold text")
    return text


_READERS: dict[str, Callable[[Any], Any]] = {
    DATETIME_TAG: _read_datetime,
    UUID_TAG: _read_uuid,
    DECIMAL_TAG: _read_decimal,
    BYTES_TAG: _read_bytes,
}
