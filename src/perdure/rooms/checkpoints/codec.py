"""The codec of checkpoint state: one value to bytes and back, of the same type and equal.

Writing has three gears. State that JSON could hold is one call of the msgpack library. Where that stops, the library
walks and asks us for the payload of each value it does not know, which becomes an extension. What neither can do (keys
that are not text, lone surrogates, ``bytearray``, nesting beyond a few objects) is walked here, value by
value, in ``byhand``: the only gear that knows paths, and so also the one that says what is wrong. All three write the same bytes.
"""

from gc import get_referents
from typing import Any

from perdure.rooms.checkpoints import arrays, leaves
from perdure.rooms.checkpoints.byhand import CONTAINERS, NATIVE, SETS, Walk, as_base, join
from perdure.rooms.checkpoints.leaves import Foreign
from perdure.rooms.checkpoints.opening import decode
from perdure.rooms.checkpoints.registry import Registry, take_apart
from perdure.rooms.checkpoints.wire import Code, kind_of, split, wire
from perdure.values import limits
from perdure.values.errors import Undecodable

__all__ = ["Foreign", "Registry", "array_body", "decode", "encode", "encode_items", "join"]

_DEPTH = limits.STATE_DEPTH
_NESTED_CALLS = 8
"""Calls of the library within one another, each of which may use the C stack of a state's full depth."""


def encode(value: Any, registry: Registry, where: str = "") -> bytes:
    """The bytes of a value. The same value gives the same bytes; equal sets do, dicts keep their order.

    Raises ``Invalid`` for what cannot come back as it was, naming its place below ``where`` and the call that registers
    its type, and ``OverLimit`` for more than ``limits.STATE_DEPTH`` levels of containers.
    """
    try:
        data = wire().pack(value)
    except TypeError:
        return _Asked(registry).encode(value, where)
    if _may_hold_binary(data) and not _kinds_within(value, NATIVE):
        return Walk(registry).encode(value, where)
    return data


def encode_items(items: list[Any], registry: Registry, where: str = "") -> list[bytes]:
    """The bytes of each item of a list, which is itself one of the levels. Raises as ``encode`` does."""
    return split(encode(items if type(items) is list else list(items), registry, where))


def array_body(data: bytes) -> tuple[int, int]:
    """How many items an encoded list has, and the offset of the first. Raises ``Undecodable`` when it is no list."""
    first = data[0] if data else 0
    if 0x90 <= first <= 0x9F:
        return first & 0x0F, 1
    size = {0xDC: 2, 0xDD: 4}.get(first, 0)
    if not size or len(data) <= size:
        raise Undecodable("stored bytes do not begin a list")
    return int.from_bytes(data[1 : 1 + size], "big"), 1 + size


# -- the first gear, and what it cannot see --------------------------------------------------------------------------------


def _may_hold_binary(data: bytes) -> bool:
    """False when no header of bytes can be in ``data``: the library takes a ``bytearray`` for bytes, and so must be watched."""
    return b"\xc4" in data or b"\xc5" in data or b"\xc6" in data


def _kinds_within(value: Any, kinds: frozenset[type] | set[type]) -> int:
    """How many levels of lists and dicts there are plus one; 0 when there is a type that is none of ``kinds``.

    The garbage collector's own list of what lists and dicts hold is five times faster than iterating over them, and other
    native values hold nothing.
    """
    level: list[Any] = [value]
    count = 1
    while True:
        here = set(map(type, level))
        if not here <= kinds:
            return 0
        if here.isdisjoint(CONTAINERS):
            return count
        if not here <= NATIVE:
            level = [item for item in level if type(item) in CONTAINERS]
        level = get_referents(*level)
        count += 1


# -- the second gear: the library asks --------------------------------------------------------------------------------------


class _ByHand(TypeError):
    """This value needs the third gear."""


class _Asked:
    """Answers the library's questions about the values of one state."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._wire = wire()
        self._kinds: set[type] = set(NATIVE)
        self._calls = 0
        self._below = 0
        self._failure: BaseException | None = None

    def encode(self, value: Any, where: str) -> bytes:
        """The bytes of a value; by hand when they cannot be had like this."""
        try:
            return self._pack(value)
        except TypeError:
            if self._failure is not None and not isinstance(self._failure, Exception):
                raise self._failure from None  # the library hides an interrupt
        return Walk(self._registry).encode(value, where)

    def _pack(self, value: Any) -> bytes:
        """One layer. ``_below`` becomes at least its depth in levels."""
        if self._calls == _NESTED_CALLS:
            raise _ByHand
        beside, self._below = self._below, 0
        self._calls += 1
        data = self._wire.pack(value, self._answer)
        self._calls -= 1
        levels = _kinds_within(value, self._kinds)
        depth = levels - 1 + self._below
        if not levels or depth > _DEPTH:
            raise _ByHand
        self._below = max(beside, depth)
        return data

    def _answer(self, value: Any) -> Any:
        try:
            kind = kind_of(value)
            self._kinds.add(kind)
            leaf = leaves.WRITERS.get(kind)
            if leaf is not None:
                return self._wire.ext(leaf[0], leaf[1](value))
            return self._container(value, kind)
        except BaseException as error:
            if self._failure is None:
                self._failure = error
            raise

    def _container(self, value: Any, kind: type) -> Any:
        if kind is tuple:
            return self._wire.ext(Code.TUPLE, self._pack(list(value)))
        if kind in SETS:
            items = sorted(split(self._pack(list(value))))
            if len(set(items)) != len(items):
                raise _ByHand
            return self._wire.ext(SETS[kind], join(items))
        entry = self._registry.entry_of(kind)
        if entry is not None:
            return self._wire.ext(Code.OBJECT, self._pack(take_apart(entry, value)))
        numbers = arrays.write(value)
        if numbers is not None:
            return self._wire.ext(*numbers)
        base = as_base(value)
        if base is value:
            raise _ByHand
        return self._wire.fragment(self._pack(base))
