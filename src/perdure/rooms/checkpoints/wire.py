"""The msgpack library, loaded on first use, and the table of our extension codes.

Every option that makes the library pass a type on is set: it writes None, bool, int of 64 bits, float, str, bytes, list
and dict with str keys, and gives all else to us. (``bytearray`` and ``memoryview`` it takes for bytes and has no option
against; the codec looks for them.) Versions before 1.13.1 crash on a few bytes that announce a long list, so that no
older one may be let in.
"""

from collections.abc import Callable
from enum import IntEnum
from functools import cache, partial
from typing import Any, Final, cast

import msgspec


class Code(IntEnum):
    """What an extension holds. Stored for ever: a code is never given another meaning, and a free one is the next."""

    INT = 1
    """Big-endian two's complement, of the fewest bytes that hold it; only for what 64 bits do not."""
    TEXT = 2
    """UTF-8 with lone surrogates."""
    BYTEARRAY = 3
    TUPLE = 4
    """An array of the items."""
    SET = 5
    """An array of the items, ordered by their bytes."""
    FROZENSET = 6
    PAIRS = 7
    """A dict with keys that are not all sound text: an array of key, value, key, value, ..."""
    DATETIME = 8
    """[microseconds since the year 1 on its own clock] or [microseconds, fold, zone]."""
    DATE = 9
    """The day, counted from 1 January of the year 1, in four bytes."""
    TIME = 10
    """[microseconds since midnight] or [microseconds, fold, zone]."""
    TIMEDELTA = 11
    """Microseconds, like INT."""
    UUID = 12
    DECIMAL = 13
    """Its text."""
    NDARRAY = 14
    """[dtype, shape, "C" or "F", bytes]."""
    NUMPY = 15
    """A scalar of numpy: [dtype, bytes]."""
    OBJECT = 16
    """A registered type: [name, version, field, value, field, value, ...], or [name, version, value]."""
    FOREIGN = 17
    """[codec, bytes]: a value that another library's serializer wrote."""
    UNSET = 18
    """``msgspec.UNSET``."""


class Wire(msgspec.Struct, frozen=True):
    """The calls of the library that we use."""

    pack: Callable[..., bytes]
    """``pack(value, default=None)``; TypeError for what it does not write."""
    unpack: Callable[..., Any]
    """``unpack(data, ext_hook=None)``; ValueError for what is not msgpack. Takes trailing bytes and repeated keys."""
    ext: Callable[[int, bytes], Any]
    fragment: Callable[[bytes], Any]
    """Bytes that are packed already."""


@cache
def wire() -> Wire:
    """The library's calls."""
    import ormsgpack  # noqa: PLC0415 - the first state loads it

    option = (
        ormsgpack.OPT_PASSTHROUGH_BIG_INT
        | ormsgpack.OPT_PASSTHROUGH_DATACLASS
        | ormsgpack.OPT_PASSTHROUGH_DATETIME
        | ormsgpack.OPT_PASSTHROUGH_ENUM
        | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
        | ormsgpack.OPT_PASSTHROUGH_TUPLE
        | ormsgpack.OPT_PASSTHROUGH_UUID
    )
    return Wire(partial(ormsgpack.packb, option=option), ormsgpack.unpackb, ormsgpack.Ext, ormsgpack.Fragment)


def canonical(data: bytes) -> Any:
    """The value in ``data``, which holds no extension. Raises ValueError or TypeError unless we would write it like this."""
    kit = wire()
    value = kit.unpack(data)
    if kit.pack(value) != data:
        raise ValueError("its bytes are not those that its value is written with")
    return value


kind_of = cast("Callable[[Any], type[Any]]", type)
"""The exact class of a value, for type checkers too."""
INT64_LOW: Final = -(2**63)
UINT64_HIGH: Final = 2**64 - 1

_raws = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def split(data: bytes) -> list[bytes]:
    """The bytes of each item of an encoded list."""
    return [bytes(raw) for raw in _raws(data)]
