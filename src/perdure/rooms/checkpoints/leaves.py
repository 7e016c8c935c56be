"""Single values that msgpack lacks, as the payload of an extension and back.

Writers raise ``Unfit`` for a value that could not come back as it was; readers raise whatever their parsing does (one
of ``READING``). Nobody checks a payload twice over: what was read is written again, and the bytes must be the same.
"""

import os
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any
from uuid import UUID
from zoneinfo import TZPATH, ZoneInfo, available_timezones

import msgspec

from perdure.rooms.checkpoints import arrays
from perdure.rooms.checkpoints.wire import INT64_LOW, UINT64_HIGH, Code, canonical, wire
from perdure.values import limits
from perdure.values.errors import Invalid

READING = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
"""What reading a payload may raise when it is not one of ours."""

_MICRO = timedelta(microseconds=1)
_FIRST = datetime(1, 1, 1)  # noqa: DTZ001 - the beginning of every clock
_ZONE = re.compile(r"[A-Za-z0-9_+\-]{1,64}(/[A-Za-z0-9_+\-]{1,64}){0,4}")

Unfit = arrays.Unfit


class Foreign(msgspec.Struct, frozen=True):
    """A value that another library's serializer wrote: the serializer's name, and its bytes."""

    codec: str
    data: bytes


# -- numbers and text --------------------------------------------------------------------------------------------------


def _write_int(value: int) -> bytes:
    return value.to_bytes((value + (value < 0)).bit_length() // 8 + 1, "big", signed=True)


def _read_int(data: bytes) -> int:
    value = int.from_bytes(data, "big", signed=True)
    if INT64_LOW <= value <= UINT64_HIGH:
        raise ValueError("an integer of 64 bits needs no extension")
    return value


def _write_text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _read_text(data: bytes) -> str:
    value = data.decode("utf-8", "surrogatepass")
    if is_sound(value):
        raise ValueError("text without surrogates needs no extension")
    return value


def is_sound(text: str) -> bool:
    """True for text without lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _write_decimal(value: Decimal) -> bytes:
    return str(value).encode("ascii")


def _read_decimal(data: bytes) -> Decimal:
    return Decimal(data.decode("ascii"))


# -- times -------------------------------------------------------------------------------------------------------------


def _write_datetime(value: datetime) -> bytes:
    micros = (value.replace(tzinfo=None, fold=0) - _FIRST) // _MICRO
    return _clock(micros, value.fold, value.tzinfo)


def _read_datetime(data: bytes) -> datetime:
    micros, fold, zone = _read_clock(data)
    return (_FIRST + timedelta(microseconds=micros)).replace(tzinfo=zone, fold=fold)


def _write_time(value: time) -> bytes:
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    return _clock(seconds * 1_000_000 + value.microsecond, value.fold, value.tzinfo)


def _read_time(data: bytes) -> time:
    micros, fold, zone = _read_clock(data)
    if not 0 <= micros < 86_400_000_000:
        raise ValueError("a time is within a day")
    return (_FIRST + timedelta(microseconds=micros)).time().replace(tzinfo=zone, fold=fold)


def _clock(micros: int, fold: int, zone: tzinfo | None) -> bytes:
    return wire().pack([micros] if zone is None and not fold else [micros, fold, _write_zone(zone)])


def _read_clock(data: bytes) -> tuple[int, int, tzinfo | None]:
    row = canonical(data)
    micros, fold, zone = row if len(row) == 3 else (*row, 0, None)
    return micros, fold, _read_zone(zone)


def _write_zone(zone: tzinfo | None) -> str | list[Any] | None:
    """None, a name of the time zone database, or [microseconds east of UTC] with the zone's own name if it has one."""
    if zone is None:
        return None
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        name = zone.tzname(None)
        if not is_sound(name):
            raise Unfit("a time zone whose name holds a lone surrogate")
        return [offset // _MICRO] if name == timezone(offset).tzname(None) else [offset // _MICRO, name]
    if type(zone) is ZoneInfo and isinstance(zone.key, str):  # one from a file may have none
        if not _is_zone(zone.key):
            raise Unfit(f"a time of the zone {zone.key!r}, which the time zone database does not hold")
        return zone.key
    raise Unfit(
        f"a time with a {type(zone).__module__}.{type(zone).__qualname__}",
        hint="use datetime.timezone, or zoneinfo.ZoneInfo with a key",
    )


def _read_zone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        if not _is_zone(zone):
            raise ValueError(f"the time zone database of this machine has no {zone[:80]!r} (pip install tzdata)")
        return ZoneInfo(zone)
    offset, *name = zone
    return timezone(timedelta(microseconds=offset), *name)


@lru_cache(maxsize=1_024)
def _is_zone(key: str) -> bool:
    """True for a zone's name. ``ZoneInfo`` itself would import a package named like an unknown key."""
    if _ZONE.fullmatch(key) is None:
        return False
    return any(os.path.isfile(os.path.join(folder, key)) for folder in TZPATH) or key in _zones()  # noqa: PTH113, PTH118


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _write_date(value: date) -> bytes:
    return value.toordinal().to_bytes(4, "big")


def _read_date(data: bytes) -> date:
    return date.fromordinal(int.from_bytes(data, "big"))


def _write_timedelta(value: timedelta) -> bytes:
    return _write_int(value // _MICRO)


def _read_timedelta(data: bytes) -> timedelta:
    return timedelta(microseconds=int.from_bytes(data, "big", signed=True))


# -- the rest ----------------------------------------------------------------------------------------------------------


def _write_uuid(value: UUID) -> bytes:
    return value.bytes


def _read_uuid(data: bytes) -> UUID:
    return UUID(bytes=data)


def _write_foreign(value: Foreign) -> bytes:
    try:
        limits.text(value.codec, "codec", limits.NAME_BYTES)
    except Invalid as error:
        raise Unfit(f"a Foreign whose {error.message}") from error
    if type(value.data) is not bytes:
        raise Unfit(f"a Foreign whose data is {type(value.data).__name__}, not bytes")
    return wire().pack([str(value.codec), value.data])


def _read_foreign(data: bytes) -> Foreign:
    codec, payload = canonical(data)
    if not isinstance(codec, str) or not isinstance(payload, bytes):
        raise TypeError("a foreign value is a name and bytes")
    return Foreign(codec, payload)


def _write_unset(value: Any) -> bytes:
    del value
    return b""


def _read_unset(data: bytes) -> Any:
    del data
    return msgspec.UNSET


WRITERS: dict[type, tuple[Code, Callable[[Any], bytes]]] = {
    int: (Code.INT, _write_int),
    str: (Code.TEXT, _write_text),
    bytearray: (Code.BYTEARRAY, bytes),
    datetime: (Code.DATETIME, _write_datetime),
    date: (Code.DATE, _write_date),
    time: (Code.TIME, _write_time),
    timedelta: (Code.TIMEDELTA, _write_timedelta),
    UUID: (Code.UUID, _write_uuid),
    Decimal: (Code.DECIMAL, _write_decimal),
    Foreign: (Code.FOREIGN, _write_foreign),
    type(msgspec.UNSET): (Code.UNSET, _write_unset),
}

_READERS: dict[int, Callable[[bytes], Any]] = {
    Code.INT: _read_int,
    Code.TEXT: _read_text,
    Code.BYTEARRAY: bytearray,
    Code.DATETIME: _read_datetime,
    Code.DATE: _read_date,
    Code.TIME: _read_time,
    Code.TIMEDELTA: _read_timedelta,
    Code.UUID: _read_uuid,
    Code.DECIMAL: _read_decimal,
    Code.FOREIGN: _read_foreign,
    Code.UNSET: _read_unset,
}


def read(code: int, data: bytes) -> Any:
    """The value of a leaf's payload. Raises one of ``READING`` unless it is the payload that we write for that value."""
    if code == Code.NDARRAY:
        return arrays.read_array(data)
    if code == Code.NUMPY:
        return arrays.read_scalar(data)
    reader = _READERS.get(code)
    if reader is None:
        raise ValueError(f"there is no extension {code}")
    value = reader(data)
    if WRITERS[type(value)][1](value) != data:
        raise ValueError("its bytes are not those that its value is written with")
    return value
