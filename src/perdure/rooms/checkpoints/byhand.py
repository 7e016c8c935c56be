"""The third gear of the codec: every value of a state by hand, knowing where it is.

It takes what the other gears cannot, and finds the place of what nobody can.
"""

import reprlib
from typing import Any, cast

from perdure.rooms.checkpoints import arrays, leaves
from perdure.rooms.checkpoints.leaves import Unfit, is_sound
from perdure.rooms.checkpoints.opening import decode
from perdure.rooms.checkpoints.registry import EXTRA, PRIVATE, Entry, Registry, called, form_of, take_apart
from perdure.rooms.checkpoints.wire import INT64_LOW, UINT64_HIGH, Code, kind_of, split, wire
from perdure.values import limits
from perdure.values.errors import Invalid, OverLimit, Undecodable

CONTAINERS = frozenset({list, dict})
NATIVE = frozenset({type(None), bool, int, float, str, bytes, list, dict})
"""What the library writes without asking, and we read back as it was."""
SETS: dict[type, Code] = {set: Code.SET, frozenset: Code.FROZENSET}
_DEPTH = limits.STATE_DEPTH
_SHOWN = frozenset({*NATIVE, *leaves.WRITERS}) - CONTAINERS

_Path = tuple[Any, str, Any] | None
"""A place: that of what holds it, how it is held ("index", "key", "item", "field" or "name"), and under what."""


class Walk:
    """Turns one state into what the library can write, knowing where it is."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._wire = wire()
        self._where = ""

    def encode(self, value: Any, where: str) -> bytes:
        """The bytes of a value. Raises ``Invalid`` and ``OverLimit``."""
        self._where = where
        try:
            return self._pack(self._tree(value, None, 0), None)
        except RecursionError as error:
            place = where or "value"
            raise OverLimit(f"{place} is nested too deep for the call stack", field=place, limit=_DEPTH) from error

    def _pack(self, tree: Any, path: _Path) -> bytes:
        try:
            return self._wire.pack(tree)
        except TypeError as error:
            place = self._place(path)
            raise OverLimit(f"{place} is too large to be stored: {error}", field=place, limit=2**32 - 1) from error

    def _tree(self, value: Any, path: _Path, level: int) -> Any:
        kind = kind_of(value)
        if kind is str:
            return value if is_sound(value) else self._wire.ext(*_leaf(value))
        if kind is int:
            return value if INT64_LOW <= value <= UINT64_HIGH else self._wire.ext(*_leaf(value))
        if kind in NATIVE and kind not in CONTAINERS:
            return value
        if kind in leaves.WRITERS:
            return self._wire.ext(*self._payload(value, path))
        if kind not in CONTAINERS:
            return self._other(value, kind, path, level)
        self._check_level(path, level)
        if kind is dict:
            return self._dict(value, path, level)
        found: list[Any] = []
        for index, item in enumerate(value):
            found.append(self._tree(item, (path, "index", index), level + 1))  # a comprehension would be a frame more
        return found

    def _dict(self, value: dict[Any, Any], path: _Path, level: int) -> Any:
        found: dict[Any, Any] = {}
        sound = True
        for key, item in value.items():
            base = str.__str__(key) if isinstance(key, str) and form_of(type(key)) is None else key
            if type(base) is not str or not is_sound(base):
                sound = False
            found[base] = self._tree(item, (path, "key", key), level + 1)
        if len(found) != len(value):
            place = self._place(path)
            raise Invalid(f"{place} holds keys that are equal once they are plain text", field=place)
        if sound:
            return found
        row: list[Any] = []
        for key, item in found.items():
            row += (self._tree(key, (path, "name", key), level + 1), item)
        return self._distinct(Code.PAIRS, self._pack(row, path), len(value), path)

    def _other(self, value: Any, kind: type, path: _Path, level: int) -> Any:
        entry = self._registry.entry_of(kind)
        if entry is not None:
            self._check_level(path, level)
            return self._wire.ext(Code.OBJECT, self._pack(self._object(entry, value, path, level), path))
        if kind is tuple or kind in SETS:
            self._check_level(path, level)
            how = "index" if kind is tuple else "item"
            row: list[Any] = []
            for index, item in enumerate(value):
                row.append(self._tree(item, (path, how, index if kind is tuple else item), level + 1))
            if kind is tuple:
                return self._wire.ext(Code.TUPLE, self._pack(row, path))
            items = sorted(self._pack(item, path) for item in row)
            return self._distinct(SETS[kind], join(items), len(items), path)
        numbers = self._payload(value, path)
        if numbers is not None:
            return self._wire.ext(*numbers)
        base = as_base(value)
        if base is value:
            raise self._unknown(kind, path)
        return self._tree(base, path, level)

    def _object(self, entry: Entry, value: Any, path: _Path, level: int) -> list[Any]:
        try:
            row = take_apart(entry, value)
        except Exception as error:
            place = self._place(path)
            message = f"{place}, of the type {entry.name!r}, cannot be taken apart: {type(error).__name__}: {error}"
            raise Invalid(message, field=place) from error
        if len(row) == 3:
            return [*row[:2], self._tree(row[2], path, level + 1)]
        found = row[:2]
        for key, item in zip(row[2::2], row[3::2], strict=True):
            inside = path if key in (EXTRA, PRIVATE) else (path, "field", key)
            found += (key, self._tree(item, inside, level + 1))
        return found

    def _distinct(self, code: Code, payload: bytes, count: int, path: _Path) -> Any:
        """An extension of a set or dict, whose elements must still differ when they are read."""
        items = split(payload)[:: 2 if code == Code.PAIRS else 1]
        if len(set(items)) != len(items):
            place = self._place(path)
            try:
                kept = len(decode(self._pack(self._wire.ext(code, payload), path), self._registry))
            except Undecodable:
                kept = 0
            if kept != count:
                raise Invalid(f"{place} holds elements that are equal once they are stored", field=place)
        return self._wire.ext(code, payload)

    def _payload(self, value: Any, path: _Path) -> Any:
        """The code and payload of a leaf; None when it is none."""
        try:
            return _leaf(value) if type(value) in leaves.WRITERS else arrays.write(value)
        except Unfit as error:
            place = self._place(path)
            raise Invalid(
                f"{place} is {error}: it would not come back as it is", field=place, hint=error.hint
            ) from error

    def _check_level(self, path: _Path, level: int) -> None:
        if level >= _DEPTH:
            place = self._place(path)
            message = f"{place} is nested more than {_DEPTH} levels deep, or holds itself"
            raise OverLimit(message, field=place, limit=_DEPTH)

    def _unknown(self, kind: type, path: _Path) -> Invalid:
        place = self._place(path)
        how = "" if form_of(kind) is not None else ", encode=..., decode=..."
        return Invalid(
            f"{place} is a {called(kind)}, which is not registered",
            field=place,
            hint=f'checkpointer.register_type("{kind.__name__}", {called(kind)}, version=1{how})',
        )

    def _place(self, path: _Path) -> str:
        pieces: list[str] = []
        while path is not None:
            path, how, key = path
            pieces.append(_piece(how, key))
        if len(pieces) > 40:
            pieces[20:-20] = ["..."]
        return (self._where + "".join(reversed(pieces))).removeprefix(".") or "value"


def _leaf(value: Any) -> tuple[Code, bytes]:
    code, write = leaves.WRITERS[type(value)]
    return code, write(value)


def _piece(how: str, key: Any) -> str:
    """One step of a path. Keys are shown when showing them runs nobody's code."""
    if how == "index":
        return f"[{key}]"
    if type(key) is str and key.isidentifier() and how in ("key", "field"):
        return f".{key}"
    shown = reprlib.repr(key) if type(key) in _SHOWN else f"<{called(kind_of(key))}>"
    return {"item": f"{{{shown}}}", "name": f"[key {shown}]"}.get(how, f"[{shown}]")


def join(items: list[bytes]) -> bytes:
    """The bytes of the list of these encoded items."""
    count = len(items)
    if count < 16:
        header = bytes((0x90 | count,))
    elif count < 0x10000:
        header = b"\xdc" + count.to_bytes(2, "big")
    else:
        header = b"\xdd" + count.to_bytes(4, "big")
    return header + b"".join(items)


def as_base(value: Any) -> Any:
    """An instance of an unregistered subclass of dict, list, str, int or float as one of its base; others as they are."""
    if form_of(kind_of(value)) is not None:
        return value
    if isinstance(value, dict):
        return dict(cast("Any", dict.items)(value))  # whatever the subclass makes of its items()
    if isinstance(value, list):
        return list[Any].copy(cast("list[Any]", value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return value
