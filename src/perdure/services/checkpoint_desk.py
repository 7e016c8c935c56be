"""What the verbs of ``Checkpointer`` share: a store, settings, codecs, seals, and what is held of threads."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

from perdure.grammar import Op
from perdure.kit import aio as kit
from perdure.rooms.checkpoints import codec, tree
from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.rooms.checkpoints.held import Deciders, Held
from perdure.rooms.checkpoints.logs import Known, Seal
from perdure.rooms.checkpoints.ops import Found
from perdure.rooms.checkpoints.schemas import SchemaBook
from perdure.rooms.checkpoints.strategy import CheckpointStrategy
from perdure.rooms.checkpoints.values import NATIVE, Checkpoint, checkpoint_of
from perdure.services.checkpoint_keys import SealRing
from perdure.services.store import Store
from perdure.values import limits
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Invalid, WrongKey

T = TypeVar("T")

_LARGE = 4_096
"""Items of a channel, and bytes / 256 of a text, from which a state is taken apart off the event loop."""


class CheckpointDesk:
    """A view of a store's checkpoints: one of these is behind every verb."""

    def __init__(
        self,
        store: Store | PersistenceConfig | str | os.PathLike[str] | None = None,
        config: CheckpointConfig | None = None,
        strategy: CheckpointStrategy | str = CheckpointStrategy.ADAPTIVE,
        *,
        space: str = NATIVE,
    ) -> None:
        if config is not None and not isinstance(config, CheckpointConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise Invalid(f"config is a CheckpointConfig, not {type(config).__name__}", field="config")
        try:
            self.strategy = CheckpointStrategy(strategy)
        except ValueError:
            names = ", ".join(one.value for one in CheckpointStrategy)
            raise Invalid(f"strategy is one of {names}, not {strategy!r}", field="strategy") from None
        self._owns_store = not isinstance(store, Store)
        self._store: Any = store if isinstance(store, Store) else Store(store)
        self.config = config or CheckpointConfig()
        self._registry = codec.Registry()
        self._ring = SealRing(self.config)
        self._held = Held()
        self._schemas = SchemaBook()
        self._deciders = Deciders()
        self._space = space

    def using(self, handle: Store) -> Self:
        """The same checkpointer on another handle: a transaction's, a tenant's, an actor's."""
        twin = type(self)(handle, self.config, self.strategy)
        twin._space, twin._registry, twin._ring, twin._schemas = self._space, self._registry, self._ring, self._schemas
        if handle._shared is self._store._shared:  # pyright: ignore[reportPrivateUsage]
            twin._held, twin._deciders = self._held, self._deciders
        return twin

    def register_type(
        self,
        name: str,
        cls: type,
        version: int = 1,
        *,
        encode: Callable[[Any], Any] | None = None,
        decode: Callable[[Any], Any] | None = None,
        upgrade: Callable[[int, Any], Any] | None = None,
    ) -> None:
        """Lets states hold instances of a dataclass, a msgspec struct, a pydantic model or an enum.

        ``name`` is what is stored, never the class's module, so the class may move. A greater ``version`` reads older
        ones through ``upgrade(version, fields)``. Raises ``Invalid`` for a name that stands for another class.
        """
        self._registry.register_type(name, cls, version, encode=encode, decode=decode, upgrade=upgrade)

    def register_schema(self, thread_id: str, schema: Mapping[str, Any] | type) -> None:
        """Says what the states of a thread look like: a JSON Schema, or a struct, dataclass or TypedDict.

        A name that ends in no letter and no digit (``"support:"``) stands for every thread whose id begins with it.
        ``restore`` checks by it; the longest name that fits counts. Raises ``Invalid`` for what is no schema.
        """
        self._schemas.register(limits.identifier(thread_id, "thread_id"), schema)

    # -- for the verbs ---------------------------------------------------------------------------------------------------

    def _key(self, thread_id: str) -> tuple[str, str, str]:
        return self._store.tenant, self._space, thread_id

    def _remember(self, thread_id: str, known: Known | None) -> None:
        """Keeps what is known of a thread; not from inside a transaction, which may be taken back."""
        if known is not None and self._store._session is None:
            self._held.put(self._key(thread_id), known)

    async def _run(self, op: Op[T]) -> T:
        """The answer of a recipe; run again when keys were rotated elsewhere since they were looked up."""
        try:
            return await self._store._run(op)
        except WrongKey:
            if not await self._ring.renew(self._store):
                raise
            return await self._store._run(op)

    async def _sealed(self, thread_id: str, space: str, make: Callable[[Seal], Op[T]]) -> T:
        """The answer of a recipe that writes to a thread; made anew when keys were rotated elsewhere meanwhile."""
        await self._ring.adopt(self._store, thread_id, space)
        try:
            return await self._store._run(make(await self._ring.active(self._store)))
        except WrongKey:
            if not await self._ring.renew(self._store):
                raise
            await self._ring.adopt(self._store, thread_id, space)
            return await self._store._run(make(await self._ring.active(self._store)))

    async def _seals(self) -> Mapping[str, Seal]:
        return await self._ring.seals(self._store)

    async def _apart(self, state: Mapping[str, Any]) -> tree.Branching:
        """A state's parts; a large one is taken apart where it does not hold up others."""
        if _is_large(state):
            return await kit.off_loop(lambda: tree.take_apart(state, self._registry))
        return tree.take_apart(state, self._registry)

    async def _together(self, parts: tree.Part) -> Any:
        """The value of parts."""
        if tree.size(parts) > _LARGE * 256:
            return await kit.off_loop(lambda: tree.put_together(parts, self._registry))
        return tree.put_together(parts, self._registry)

    def _checkpoint(self, found: Found, *, include_metadata: bool = True) -> Checkpoint:
        metadata: dict[str, Any] = codec.decode(found.entry.metadata, self._registry) if include_metadata else {}
        return checkpoint_of(found.row, found.thread.id, found.branch, found.tags, metadata, found.entry.node)


def _is_large(state: Mapping[str, Any]) -> bool:
    """A guess that costs nothing: many items, or a long text, in one of the channels."""
    for value in state.values():
        if isinstance(value, list | dict):
            if len(value) > _LARGE:  # pyright: ignore[reportUnknownArgumentType]
                return True
        elif isinstance(value, str | bytes | bytearray) and len(value) > _LARGE * 256:
            return True
    return False
