"""Reading what the codec wrote, layer by layer.

Reading never trusts: what was read must be written as the very bytes it was read from, which finds trailing bytes,
repeated keys and everything else that the library lets pass. Extensions within extensions are opened one layer after
another, never one inside the other's call, so that no stored bytes decide how deep the C stack grows.
"""

from collections.abc import Callable
from typing import Any, cast

from perdure.rooms.checkpoints import leaves
from perdure.rooms.checkpoints.leaves import is_sound
from perdure.rooms.checkpoints.registry import Registry
from perdure.rooms.checkpoints.wire import Code, split, wire
from perdure.values import limits
from perdure.values.errors import PerdureError, Undecodable

_DEPTH = limits.STATE_DEPTH


def decode(data: bytes, registry: Registry) -> Any:
    """The value that ``encode`` was given: a fresh one each time.

    Raises ``Undecodable`` for bytes that ``encode`` does not write, and for registered types that are unknown, newer or
    cannot be made (named in ``details['type']``); ``MissingExtra`` for arrays where numpy is not installed.
    """
    layers = [_Layer(0, bytes(data), 0)]
    for layer in layers:  # grows as it goes: inner layers come after outer ones
        layers.extend(layer.open(registry))
    for layer in reversed(layers):
        layer.close(registry)
    return layers[0].value


class _Layer:
    """The payload of one extension, or the whole: what the library reads in one call."""

    __slots__ = ("code", "data", "depth", "inner", "value")

    def __init__(self, code: int, data: bytes, depth: int) -> None:
        self.code = code
        self.data = data
        self.depth = depth
        self.inner: list[Any] = []
        self.value: Any = None

    def open(self, registry: Registry) -> "list[_Layer]":
        """Reads everything but the layers within, and answers those."""
        kit = wire()
        found: list[tuple[int, bytes]] = []

        def note(code: int, payload: bytes) -> Any:
            found.append((code, payload))
            return kit.ext(code, payload)

        try:
            self.value = kit.unpack(self.data, ext_hook=note)
            exact = kit.pack(self.value) == self.data
        except (ValueError, TypeError) as error:
            raise Undecodable(f"stored state cannot be decoded: {error}") from error
        if not exact:
            raise Undecodable("stored state cannot be decoded: its bytes are not those that its value is written with")
        if self.code in (Code.SET, Code.FROZENSET):
            self._check_order()
        if not found:
            return []
        self.value = None  # it holds the payloads a second time
        self.inner = [self._read(code, payload, registry) for code, payload in found]
        return [item for item in self.inner if type(item) is _Layer]

    def _check_order(self) -> None:
        items = split(self.data) if isinstance(self.value, list) else []
        if items != sorted(items):
            raise Undecodable("stored state holds a set whose elements are not in the order of their bytes")

    def _read(self, code: int, payload: bytes, registry: Registry) -> Any:
        if code in _BUILDERS:
            if self.depth >= _DEPTH:
                raise Undecodable(f"stored state is nested more than {_DEPTH} levels deep")
            return _Layer(code, payload, self.depth + 1)
        try:
            value = leaves.read(code, payload)
        except leaves.READING as error:
            raise Undecodable(f"stored state holds a damaged {_name(code)}: {error}") from error
        return registry.load(value) if code == Code.FOREIGN else value

    def close(self, registry: Registry) -> None:
        """Puts the layers within in their places, and makes the value."""
        if self.inner:
            values = iter([item.value if type(item) is _Layer else item for item in self.inner])

            def place(_code: int, _payload: bytes) -> Any:
                return next(values)

            self.value = wire().unpack(self.data, ext_hook=place)
            self.inner = []
        self.data = b""
        if self.code:
            try:
                self.value = _BUILDERS[self.code](self.value, registry)
            except (PerdureError, MemoryError):
                raise
            except Exception as error:  # also what a registered type's hash or equality raises
                raise Undecodable(f"stored state holds a damaged {_name(self.code)}: {error}") from error


def _name(code: int) -> str:
    return Code(code).name.lower() if code in Code.__members__.values() else f"extension {code}"


def _items(row: Any) -> list[Any]:
    if not isinstance(row, list):
        raise TypeError("its items are no array")
    return cast("list[Any]", row)


def _build_set(row: Any) -> set[Any]:
    items = _items(row)
    found = set(items)
    if len(found) != len(items):
        raise ValueError("an element is stored twice")
    return found


def _build_pairs(row: Any) -> dict[Any, Any]:
    items = _items(row)
    if len(items) % 2:
        raise ValueError("a key has no value")
    found = dict(zip(items[::2], items[1::2], strict=True))
    if 2 * len(found) != len(items):
        raise ValueError("a key is stored twice")
    if all(type(key) is str and is_sound(key) for key in found):
        raise ValueError("keys of sound text need no extension")
    return found


_BUILDERS: dict[int, Callable[[Any, Registry], Any]] = {
    Code.TUPLE: lambda row, _: tuple(_items(row)),
    Code.SET: lambda row, _: _build_set(row),
    Code.FROZENSET: lambda row, _: frozenset(_build_set(row)),
    Code.PAIRS: lambda row, _: _build_pairs(row),
    Code.OBJECT: lambda row, registry: registry.make(row),
}
