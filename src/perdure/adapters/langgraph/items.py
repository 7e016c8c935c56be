"""Items of lists, written and read at the cost of what changed.

LangGraph hands over the whole list of messages at each step and asks for all of it at each turn, and its serializer takes
tens of microseconds for a message. So of each item that was read a private copy is kept, with its bytes: it is not read
again when the same bytes come by, a copy of the copy is handed out, which the caller may change as he likes. And of each
item that was handed over or out its mark is kept, which is different after any change: an item that is the same object
and has the same mark is not written again.

Only what was read is handed out again, never what was handed over: the serializer may give back something else (a list for
a tuple, a mapping for an object that it may not make), and must give it back each time.

Only items that are made of plain values are treated so (``is_plain``); all others are written and read each time.
"""

import marshal
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from langgraph.checkpoint.serde.base import SerializerProtocol

_ATOMS = frozenset({str, int, float, bool, type(None), UUID, datetime, date, time, timedelta, Decimal, complex})
"""Types of values that cannot change. Bytes are not among them: what an array has in it has the mark of bytes."""
_BYTES = 32 * 1024 * 1024
"""Bytes of items that are kept."""
_LEVELS = 16
ITEM_BYTES = 64 * 1024
"""Bytes of an item up to which it is kept."""
_set = object.__setattr__
_kind = cast("Callable[[Any], Any]", type)
"""The exact class of a value, for type checkers too."""
_EXACT = 2
"""The version of marshal's format that is the same for the same value: later ones tell of references, too."""


class Kept:
    """A private copy of an item that a serializer read, and its mark."""

    __slots__ = ("_deep", "copy", "mark", "serde")

    def __init__(self, copy: Any, mark: bytes | None, serde: SerializerProtocol) -> None:
        self.copy = copy
        self.mark = mark
        self.serde = serde
        # Of a model, the fields that a copy may not share: looked up once, as copies are made again and again.
        self._deep = (
            tuple(name for name, value in copy.__dict__.items() if type(value) not in _ATOMS)
            if hasattr(_kind(copy), "__pydantic_fields__")
            else None
        )

    def fresh(self) -> Any:
        """A copy of the copy, for the caller to change."""
        copy = self.copy
        if self._deep is None:
            return copied(copy)
        fields = copy.__dict__.copy()
        for name in self._deep:
            fields[name] = copied(fields[name])
        return _model(copy, fields)


class Lent:
    """An object that the caller holds, its mark, and the bytes that a serializer wrote of it or read it from."""

    __slots__ = ("data", "mark", "serde", "value")

    def __init__(self, value: Any, mark: bytes, data: bytes, serde: SerializerProtocol) -> None:
        self.value = value
        self.mark = mark
        self.data = data
        self.serde = serde


Lending = dict[int, Lent]
"""By identity, the objects that a caller has of one list."""


class ItemCache:
    """Items by their bytes, and those that are lent, by list. Safe to share between threads."""

    def __init__(self, limit: int = _BYTES, lists: int = 64) -> None:
        self._limit, self._lists = limit, lists
        self._kept: OrderedDict[tuple[int, bytes], Kept] = OrderedDict()
        self._size = 0
        self._lent: OrderedDict[tuple[str, ...], Lending] = OrderedDict()
        self._lock = threading.Lock()

    def lent(self, where: tuple[str, ...]) -> Lending:
        """The objects that a caller has of a list."""
        with self._lock:
            return self._lent.get(where, {})

    def lend(self, where: tuple[str, ...], lending: Lending) -> None:
        """Says which objects a caller has of a list now."""
        with self._lock:
            self._lent[where] = lending
            self._lent.move_to_end(where)
            while len(self._lent) > self._lists:
                self._lent.popitem(last=False)

    def find(self, items: Iterable[bytes], serde: SerializerProtocol) -> list[Kept | None]:
        """For each item's bytes what a serializer read from them, when it is kept."""
        number, kept = id(serde), self._kept
        answers: list[Kept | None] = []
        with self._lock:
            for data in items:
                key = (number, data)
                found = kept.get(key)
                if found is not None and found.serde is serde:
                    kept.move_to_end(key)
                    answers.append(found)
                else:
                    answers.append(None)
        return answers

    def keep(self, value: Any, data: bytes, serde: SerializerProtocol) -> Kept | None:
        """Keeps a copy of an item that was read; None when it is not made of plain values, or large."""
        if len(data) > ITEM_BYTES or not is_plain(value):
            return None
        kept = Kept(copied(value), mark_of(value), serde)
        key = (id(serde), data)
        with self._lock:
            if key not in self._kept:
                self._size += len(data)
            self._kept[key] = kept
            while self._size > self._limit:
                (_, gone), _ = self._kept.popitem(last=False)
                self._size -= len(gone)
        return kept


def mark_of(value: Any) -> bytes | None:
    """What is different for a plain value after any change to it; None for those that have no such mark.

    Equality would not do: 1 equals True and 1.0, and a mapping itself in another order.
    """
    kind = _kind(value)
    try:
        if hasattr(kind, "__pydantic_fields__"):
            return marshal.dumps((value.__dict__, value.__pydantic_extra__), _EXACT)
        return marshal.dumps(value, _EXACT)
    except ValueError:  # something that marshal does not know: an object in an object, a time
        return None


def is_plain(value: Any, level: int = 0) -> bool:
    """Whether a value is made of values that cannot change, lists, tuples, mappings and pydantic models."""
    kind = _kind(value)
    if kind in _ATOMS:
        return True
    if level == _LEVELS:
        return False
    if kind is dict:
        return all(is_plain(key, level + 1) and is_plain(item, level + 1) for key, item in value.items())
    if kind is list or kind is tuple:
        return all(is_plain(item, level + 1) for item in value)
    if hasattr(kind, "__pydantic_fields__") and getattr(value, "__pydantic_private__", None) is None:
        return is_plain(value.__dict__, level + 1) and is_plain(value.__pydantic_extra__, level + 1)
    return False


def copied(value: Any) -> Any:
    """A copy of a plain value that shares only what cannot change."""
    kind = _kind(value)
    if kind in _ATOMS:
        return value
    if kind is dict:
        if not value:
            return {}
        return {key: item if type(item) in _ATOMS else copied(item) for key, item in value.items()}
    if kind is list:
        return [copied(item) for item in value] if value else []
    if kind is tuple:
        return tuple([copied(item) for item in value])
    return _model(value, copied(value.__dict__))


def _model(value: Any, fields: dict[str, Any]) -> Any:
    """A model like another one, with these fields."""
    kind = _kind(value)
    made = kind.__new__(kind)
    extra = value.__pydantic_extra__
    _set(made, "__dict__", fields)
    _set(made, "__pydantic_fields_set__", value.__pydantic_fields_set__.copy())
    _set(made, "__pydantic_extra__", None if extra is None else copied(extra))
    _set(made, "__pydantic_private__", None)
    return made
