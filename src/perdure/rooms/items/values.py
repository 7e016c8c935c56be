"""What is kept under namespaces: documents with a key, and the vectors by which they are found.

A namespace is a path of labels. It is stored as one text that sorts exactly as the tuples of labels do, so that all
namespaces under another are one range of an index: each label ends in U+0001, the lowest character that text may
hold, and a label's own U+0001 and U+0002 are written as pairs that begin with U+0002.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, cast

import msgspec

from perdure.grammar import Row
from perdure.values import limits, tagged
from perdure.values.clock import Micros, to_datetime
from perdure.values.errors import Invalid, OverLimit, Undecodable

Namespace = tuple[str, ...]

NAMESPACE_BYTES = 1_024
"""The labels of one namespace together; with tenant and key they are one entry of PostgreSQL's index."""
VALUE_BYTES = 16 * 1024 * 1024
"""One value, encoded."""
FOUND = 1_000_000
"""Items, or namespaces, in one answer."""
BATCH = 100_000
"""Operations in one batch."""
LIFE_MINUTES = 100 * 366 * 24 * 60
"""An item's life without a read or a write: a hundred years."""

_END = "\x01"
_AFTER_END = "\x02"


class Item(msgspec.Struct, frozen=True):
    """A value under a namespace and a key. ``score`` is a cosine (-1 to 1) where a search gave one."""

    namespace: Namespace
    key: str
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    score: float | None = None


class Vector(msgspec.Struct, frozen=True):
    """The embedding of one text of a value: where it stands in the value, and float32 in little-endian bytes."""

    path: str
    data: bytes


class Near(msgspec.Struct, frozen=True):
    """What a search is to be near to: a vector of an embedding space."""

    space: str
    vector: bytes


class Get(msgspec.Struct, frozen=True):
    """Asks for one item; ``refresh`` gives it its lifetime anew."""

    namespace: Namespace
    key: str
    refresh: bool = True


class Search(msgspec.Struct, frozen=True):
    """Asks for the items under a namespace that match a filter: the newest, or the nearest, first."""

    prefix: Namespace = ()
    filter: Mapping[str, Any] | None = None
    limit: int = 10
    offset: int = 0
    near: Near | None = None
    refresh: bool = True


class Put(msgspec.Struct, frozen=True):
    """Keeps a value, or deletes the item when the value is None. ``minutes`` without a read or write end its life."""

    namespace: Namespace
    key: str
    value: Mapping[str, Any] | None
    minutes: float | None = None
    space: str = ""
    vectors: tuple[Vector, ...] = ()


class Condition(msgspec.Struct, frozen=True):
    """Labels that a namespace begins (ends) with; ``*`` stands for any one label."""

    end: Literal["prefix", "suffix"]
    path: Namespace

    def holds(self, namespace: Namespace) -> bool:
        """Whether the namespace has those labels."""
        if len(namespace) < len(self.path):
            return False
        part = namespace[: len(self.path)] if self.end == "prefix" else namespace[len(namespace) - len(self.path) :]
        return all(wanted in ("*", label) for wanted, label in zip(self.path, part, strict=True))


class Namespaces(msgspec.Struct, frozen=True):
    """Asks which namespaces hold items, cut to ``max_depth`` labels, in order, each once."""

    conditions: tuple[Condition, ...] = ()
    max_depth: int | None = None
    limit: int = 100
    offset: int = 0


Operation = Get | Search | Put | Namespaces
Answer = Item | list[Item] | list[Namespace] | None


class Entry(msgspec.Struct, frozen=True):
    """A put as it is written."""

    namespace: str
    key: str
    value: str | None
    lifetime: Micros | None
    space: str
    vectors: tuple[Vector, ...]


# -- checking --------------------------------------------------------------------------------------------------------------


def namespace_text(namespace: Sequence[str], field: str = "namespace") -> str:
    """The text of a namespace; labels are text that is not empty."""
    if isinstance(namespace, str) or not isinstance(namespace, Sequence):
        raise Invalid(f"{field} must be a tuple of labels, not {type(namespace).__name__}", field=field)
    for label in namespace:
        limits.text(label, field, NAMESPACE_BYTES, blank=True)
        if not label:
            raise Invalid(f"{field} holds an empty label", field=field)
    text = "".join(_written(label) + _END for label in namespace)
    return limits.text(text, field, NAMESPACE_BYTES, blank=True)


def _written(label: str) -> str:
    if _END not in label and _AFTER_END not in label:
        return label
    return label.replace(_AFTER_END, _AFTER_END + "\x03").replace(_END, _AFTER_END + _AFTER_END)


def namespace_of(text: str) -> Namespace:
    """The labels of a stored namespace."""
    if not text.endswith(_END):
        raise Undecodable(f"a stored namespace has no end: {text[:40]!r}", hint="run: perdure doctor")
    labels = text[:-1].split(_END)
    if _AFTER_END not in text:
        return tuple(labels)
    return tuple(
        label.replace(_AFTER_END + _AFTER_END, _END).replace(_AFTER_END + "\x03", _AFTER_END) for label in labels
    )


class Range(msgspec.Struct, frozen=True):
    """The namespaces under a prefix, itself among them: texts above ``after`` and, where there is one, below ``high``."""

    after: str
    high: str | None


def range_of(prefix: str) -> Range:
    """The range of the namespaces whose text begins with this text of a namespace."""
    return Range(prefix[:-1], prefix[:-1] + _AFTER_END) if prefix else Range("", None)


def key_text(key: object) -> str:
    """The key when it can be one; unlike an id it may be blank."""
    return limits.text(key, "key", limits.ID_BYTES, blank=True)


def entry_of(put: Put) -> Entry:
    """The put as it is written, its value encoded and checked."""
    namespace = namespace_text(put.namespace)
    if not namespace:
        raise Invalid("namespace must hold one label at least", field="namespace")
    value: str | None = None
    if put.value is not None:
        given: object = put.value
        if not isinstance(given, Mapping):
            raise Invalid(f"value must be a mapping or None, not {type(given).__name__}", field="value")
        whole = dict(cast("Mapping[Any, Any]", given))
        value = tagged.encode(whole, "value", VALUE_BYTES, limits.METADATA_DEPTH)
    return Entry(namespace, key_text(put.key), value, lifetime_of(put.minutes), put.space, put.vectors)


def lifetime_of(minutes: float | None) -> Micros | None:
    """Minutes as microseconds; they may be a fraction of one."""
    if minutes is None:
        return None
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes >= 0:
        raise Invalid(f"ttl must be a number of minutes of at least 0, not {minutes!r}", field="ttl")
    if minutes > LIFE_MINUTES:
        raise OverLimit(f"ttl is {minutes} minutes; the limit is {LIFE_MINUTES:,}", field="ttl", limit=LIFE_MINUTES)
    return round(minutes * 60_000_000)


def item_of(row: Row, score: float | None = None) -> Item:
    """The item of a stored row."""
    value = tagged.decode(row[3])
    if not isinstance(value, dict):
        raise Undecodable("a stored item is no object", hint="run: perdure doctor")
    return Item(
        namespace_of(row[1]), row[2], cast("dict[str, Any]", value), to_datetime(row[4]), to_datetime(row[5]),
        None if row[6] is None else to_datetime(row[6]), score,
    )  # fmt: skip
