"""States one after another, each made from the one before: what did not change is not decoded again."""

from typing import Any

from perdure.rooms.checkpoints import codec
from perdure.rooms.checkpoints.tree import LIST, Branching, Items, Part, array_header, put_together, same


class Replayer:
    """Decodes the states of a replay."""

    def __init__(self, registry: codec.Registry) -> None:
        self._registry = registry
        self._before: Part | None = None
        self._value: Any = None

    def next(self, state: Branching) -> dict[str, Any]:
        """The next state's value; it shares what did not change with the one before."""
        self._value = self._decode(state, self._before, self._value)
        self._before = state
        return dict(self._value)

    def _decode(self, part: Part, before: Part | None, value: Any) -> Any:
        if before is None:
            return put_together(part, self._registry)
        if isinstance(part, Branching) and isinstance(before, Branching):
            return {
                name: self._decode(child, before.children.get(name), value.get(name))
                for name, child in part.children.items()
            }
        if isinstance(part, Items) and isinstance(before, Items) and part.kind == before.kind == LIST:
            if part.body.startswith(before.body):
                added = part.count - before.count
                rest = array_header(added) + part.body[len(before.body) :]
                return [*value, *codec.decode(rest, self._registry)] if added else value
        elif same(part, before):
            return value
        return put_together(part, self._registry)
