# Generated from perdure/services/items.py by tools/generate_sync.py; change that file and run `make sync`.
"""Documents under namespaces and keys, with a life and with vectors: what key-value adapters stand on.

Nothing here embeds: whoever wants to be found by meaning brings vectors, made before the call.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from perdure.rooms.items import ops as recipes
from perdure.rooms.items import values
from perdure.rooms.items.matching import matcher
from perdure.rooms.items.values import (
    Answer,
    Condition,
    Entry,
    Get,
    Item,
    Namespace,
    Namespaces,
    Near,
    Operation,
    Put,
    Search,
    Vector,
)
from perdure.rooms.items.vectors import cosine
from perdure.sync.handle import Handle
from perdure.values import limits
from perdure.values.errors import Invalid

_SHORT = 16
"""Items that are read or written in less than about a millisecond."""


class ItemStore:
    """The items of a store's tenant. ``store`` is a store, or the handle of a transaction.

    A life is given in minutes; it begins anew with each write, and with each read that asks for it. An item whose life
    is over goes with the next ``sweep``; with ``omit_expired`` it is not seen before that either.
    """

    def __init__(self, store: Handle, *, omit_expired: bool = False) -> None:
        self._store: Any = store
        self._omit_expired = omit_expired

    def get(self, namespace: Namespace, key: str, *, refresh: bool = True) -> Item | None:
        """The item at a namespace and a key, or None."""
        return cast("Item | None", (self.batch([Get(namespace, key, refresh)]))[0])

    def put(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        *,
        minutes: float | None = None,
        space: str = "",
        vectors: Sequence[Vector] = (),
    ) -> None:
        """Keeps a value of at most 16 MiB of JSON; an item that is there keeps its ``created_at``, nothing else."""
        self.batch([Put(namespace, key, value, minutes, space, tuple(vectors))])

    def delete(self, namespace: Namespace, key: str) -> None:
        """Deletes an item; nothing happens when there is none."""
        self.batch([Put(namespace, key, None)])

    def search(
        self,
        prefix: Namespace = (),
        *,
        filter: Mapping[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        near: Near | None = None,
        refresh: bool = True,
    ) -> list[Item]:
        """The items under a namespace that match a filter, at most a million: the latest change first.

        With ``near`` the nearest first, by cosine, and after them those that have no vector of that space. See
        ``perdure.rooms.items.matching`` for filters.
        """
        return cast("list[Item]", (self.batch([Search(prefix, filter, limit, offset, near, refresh)]))[0])

    def namespaces(
        self,
        conditions: Sequence[Condition] = (),
        *,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Namespace]:
        """The namespaces that hold items and meet every condition, cut to ``max_depth`` labels, in order."""
        asked = Namespaces(tuple(conditions), max_depth, limit, offset)
        return cast("list[Namespace]", (self.batch([asked]))[0])

    def batch(self, operations: Sequence[Operation]) -> list[Answer]:
        """The answers in the order of the operations; None for each put.

        What is read is read before anything is written, all of it from one snapshot; what is written is written in one
        transaction, and of several puts of one key only the last. Everything is checked before anything happens.
        """
        limits.count(len(operations), "operations", 0, values.BATCH)
        readings: dict[int, recipes.Reading] = {}
        entries: dict[tuple[str, str], Entry] = {}
        for place, operation in enumerate(operations):
            if isinstance(operation, Put):
                entry = values.entry_of(operation)
                entries[entry.namespace, entry.key] = entry
            else:
                readings[place] = _reading(operation)
        answers: list[Answer] = [None] * len(operations)
        refreshed: list[int] = []
        if readings:
            for place, found in zip(readings, self._read(list(readings.values())), strict=True):
                answers[place], living = _shown(found)
                if getattr(operations[place], "refresh", False):
                    refreshed += living
        if entries or refreshed:
            recipe = recipes.write(list(entries.values()), refreshed, self._store._clock())
            few = len(entries) + len(refreshed) <= _SHORT and not any(entry.vectors for entry in entries.values())
            self._store._run(recipe if few else recipe.taking_long())
        return answers

    def _read(self, readings: list[recipes.Reading]) -> list[recipes.Answer]:
        recipe = recipes.read(readings, self._store._clock() if self._omit_expired else None)
        few = len(readings) <= _SHORT and all(isinstance(reading, tuple) for reading in readings)
        return self._store._run(recipe if few else recipe.taking_long())

    def sweep(self) -> int:
        """How many items were deleted because their life was over."""
        now = self._store._clock()
        swept = 0
        while True:
            gone = self._store._run(recipes.expire(now))
            swept += gone
            if gone < recipes.SWEPT:
                return swept


def _reading(operation: Get | Search | Namespaces) -> recipes.Reading:
    """What is to be read, checked."""
    if isinstance(operation, Get):
        return values.namespace_text(operation.namespace), values.key_text(operation.key)
    limits.count(operation.limit, "limit", 0, values.FOUND)
    limits.count(operation.offset, "offset", 0, values.FOUND)
    if isinstance(operation, Namespaces):
        if operation.max_depth is not None:
            limits.count(operation.max_depth, "max_depth", 1, values.NAMESPACE_BYTES)
        return recipes.Listing(
            values.range_of(_begun(operation.conditions)), operation.conditions, operation.max_depth, operation.limit,
            operation.offset,
        )  # fmt: skip
    span = values.range_of(values.namespace_text(operation.prefix, "namespace_prefix"))
    matching = matcher(operation.filter)
    if operation.near is None:
        return recipes.Look(span, matching, operation.limit, operation.offset)
    scorer = cosine(operation.near.vector)
    return recipes.Look(span, matching, operation.limit, operation.offset, scorer, operation.near.space)


def _begun(conditions: Sequence[Condition]) -> str:
    """The longest text that every namespace with these prefixes begins with; every condition is checked."""
    begun = ""
    for condition in conditions:
        if condition.end not in ("prefix", "suffix"):
            raise Invalid(f"a namespace is matched by prefix or suffix, not by {condition.end!r}", field="match_type")
        values.namespace_text(condition.path)
        if condition.end == "prefix":
            labels = condition.path[: condition.path.index("*")] if "*" in condition.path else condition.path
            begun = max(begun, values.namespace_text(labels), key=len)
    return begun


def _shown(found: recipes.Answer) -> tuple[Answer, list[int]]:
    """What is answered, and the numbers of the items in it that have a life."""
    if isinstance(found, recipes.Found):
        return found.item, [found.ord] if found.item.expires_at is not None else []
    if found is None:
        return None, []
    items = [one for one in found if isinstance(one, recipes.Found)]
    if not items:  # namespaces, or nothing
        return cast("Answer", found), []
    return [one.item for one in items], [one.ord for one in items if one.item.expires_at is not None]
