"""The parts of a state as the lazy values that ``diff`` compares: what is equal in bytes is never decoded."""

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.rooms.checkpoints import codec
from perdure.rooms.checkpoints.diff import LazyPart
from perdure.rooms.checkpoints.tree import LIST, Branching, Items, Leaf, Part, put_together, same, size


class Side(LazyPart):
    """One of two states, or a part of one."""

    def __init__(self, part: Part, registry: codec.Registry) -> None:
        self._part = part
        self._registry = registry

    def same(self, other: LazyPart) -> bool | None:
        """True for equal bytes; else None: equal values may be written differently (the order of keys)."""
        if not isinstance(other, Side):
            return None
        return True if same(self._part, other._part) else None

    def load(self) -> Any:
        """The value."""
        return put_together(self._part, self._registry)

    def children(self) -> Mapping[str, LazyPart] | None:
        """The channels, or the keys of a mapping in parts."""
        if not isinstance(self._part, Branching):
            return None
        return {name: Side(child, self._registry) for name, child in self._part.children.items()}

    def items(self) -> Sequence[LazyPart] | None:
        """The items of a list."""
        if not isinstance(self._part, Items) or self._part.kind != LIST:
            return None
        return [Side(Leaf(item), self._registry) for item in self._part.slices(0, self._part.count)]

    def size(self) -> int:
        """Bytes as it is encoded."""
        return size(self._part)
