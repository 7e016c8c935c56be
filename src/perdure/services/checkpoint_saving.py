"""The verbs that save checkpoints."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from perdure.grammar import Op
from perdure.rooms.checkpoints import codec, ops, tree
from perdure.rooms.checkpoints.leaves import is_sound
from perdure.rooms.checkpoints.strategy import Decider, shows_tool_result
from perdure.rooms.checkpoints.values import MAIN, STATUSES, Status
from perdure.services.checkpoint_desk import CheckpointDesk
from perdure.values import limits
from perdure.values.errors import Invalid, OverLimit, PerdureError, WrongKey
from perdure.values.ids import new_id

_LONG = 256 * 1_024
"""Bytes of new state from which a save goes off the event loop."""
_TRACE_BYTES = 2_000


class SavingVerbs(CheckpointDesk):
    """Save states, step by step or on error."""

    async def save(
        self,
        thread_id: str,
        state: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] | str = (),
        status: Status = "ok",
        parent: str | None = None,
        branch: str = MAIN,
        run_id: str | None = None,
        *,
        node: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Saves a state as the newest checkpoint of a branch and returns its id.

        ``parent`` (or ``metadata["parent_checkpoint"]``) is the checkpoint that the state was made from: ``Conflict``
        when it is not the branch's newest any more, ``Invalid`` when it is of another thread. Without one it is the
        newest. Nothing is ever pruned by saving. ``Invalid`` names the path of a value that cannot be kept.
        """
        new = self._new(thread_id, state, metadata, tags, status, parent, branch, run_id, node)
        return await self._save(new, await self._apart(state), idempotency_key)

    async def _save(self, new: ops.NewCheckpoint, parts: tree.Branching, key: str | None = None) -> str:
        """Saves parts as a checkpoint; its id, or that of its first time under the same idempotency key."""
        try:
            return await self._save_once(new, parts, key)
        except WrongKey:  # sealed anew by another process since we looked up the keys
            if not await self._ring.renew(self._store):
                raise
            return await self._save_once(new, parts, key)

    async def _save_once(self, new: ops.NewCheckpoint, parts: tree.Branching, key: str | None) -> str:
        store, thread_id = self._store, new.thread_id
        seal = await self._ring.active(store)
        await self._ring.adopt(store, thread_id, self._space)
        held = self._held.get(self._key(thread_id))
        recipe = ops.save(new, parts, held, seal, store._clock(), compress=self.config.compression == "zstd")
        before = 0 if held is None else max(map(tree.size, held.states.values()), default=0)
        if tree.size(parts) - before > _LONG:
            recipe = recipe.taking_long()
        saved = await store._once(
            "save", key,
            lambda: (
                self._space, thread_id, tree.digest(parts), new.metadata.hex(), new.tags, new.status, new.parent,
                new.branch, new.run_id, new.node,
            ),
            recipe, _names, self._again,
        )  # fmt: skip
        self._remember(thread_id, saved.known)
        self._deciders.saved(self._key(thread_id), store._clock())
        return saved.id

    def _again(self, ids: list[str]) -> Op[ops.Saved | None]:
        return ops.saved_again(ids[0], self._space)

    def _new(
        self,
        thread_id: str,
        state: Any,
        metadata: Mapping[str, Any] | None,
        tags: Iterable[str] | str,
        status: str,
        parent: str | None,
        branch: str,
        run_id: str | None,
        node: str | None,
    ) -> ops.NewCheckpoint:
        limits.identifier(thread_id, "thread_id")
        check_state(state)
        if status not in STATUSES:
            raise Invalid(f"status is one of {', '.join(STATUSES)}, not {status!r}", field="status")
        limits.text(branch, "branch", limits.NAME_BYTES)
        for value, field in ((run_id, "run_id"), (parent, "parent"), (node, "node")):
            if value is not None:
                limits.identifier(value, field)
        encoded = self._encoded_metadata(metadata)
        named = None if metadata is None else metadata.get("parent_checkpoint")
        if named is not None:
            limits.identifier(named, "metadata.parent_checkpoint")
            if parent is not None and parent != named:
                raise Invalid("parent and metadata['parent_checkpoint'] differ", field="parent")
            parent = named
        return ops.NewCheckpoint(
            new_id(),
            thread_id,
            encoded,
            node,
            tag_names(tags),
            STATUSES.index(status),
            run_id,
            parent,
            branch,
            self._space,
        )

    def _encoded_metadata(self, metadata: Mapping[str, Any] | None) -> bytes:
        encoded = codec.encode(facts_in(metadata), self._registry, "metadata")
        if len(encoded) > limits.METADATA_BYTES:
            raise OverLimit(
                f"metadata has {len(encoded):,} bytes; the limit is {limits.METADATA_BYTES:,}", field="metadata",
                limit=limits.METADATA_BYTES,
            )  # fmt: skip
        return encoded

    # -- step by step ----------------------------------------------------------------------------------------------------

    async def step(
        self,
        thread_id: str,
        state: Mapping[str, Any],
        node: str | None = None,
        *,
        error: BaseException | None = None,
        tool_side_effect: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Tells of a step of the agent; the id of the checkpoint when the strategy saved one, else None.

        The strategies are described at ``CheckpointStrategy``. A new message of a tool in a list of the state, or
        ``tool_side_effect``, says that the world was changed. With ``auto_checkpoint=False`` steps are only counted.
        """
        limits.identifier(thread_id, "thread_id")
        check_state(state)
        given = facts_in(metadata)
        if node is not None:
            limits.identifier(node, "node")
        parts = await self._apart(state)
        newest = self._newest(thread_id)
        decider = self._deciders.of(self._key(thread_id), lambda: Decider(self.strategy, self.config))
        decision = decider.step(
            self._store._clock(),
            changed_share=tree.changed_share(parts, newest),
            tool_side_effect=tool_side_effect or self._tells_of_tool(parts, newest),
            error=error is not None,
        )
        if not decision.save:
            return None
        facts = {"strategy": self.strategy.value, "reason": decision.reason, **_error_facts(error), **given}
        new = self._new(thread_id, state, facts, (), "ok" if error is None else "failed", None, MAIN, None, node)
        return await self._save(new, parts)

    def _newest(self, thread_id: str) -> tree.Branching | None:
        held = self._held.get(self._key(thread_id))
        return held.states[max(held.states)] if held is not None and held.states else None

    def _tells_of_tool(self, parts: tree.Branching, newest: tree.Branching | None) -> bool:
        added = tree.added_items(parts, newest)
        return any(shows_tool_result(codec.decode(item, self._registry)) for item in added)

    @asynccontextmanager
    async def guard(
        self, thread_id: str, state: Mapping[str, Any], *, node: str | None = None
    ) -> AsyncIterator[Mapping[str, Any]]:
        """Runs a block of the agent; when it raises, the state as it is then is saved as failed, with the error.

        The error goes on; one in saving is added to it as a note, never put in its place.
        """
        limits.identifier(thread_id, "thread_id")
        check_state(state)
        try:
            yield state
        except BaseException as error:
            try:
                await self.save(thread_id, state, _error_facts(error), status="failed", node=node)
            except PerdureError as failure:
                error.add_note(f"perdure: the failed state was not saved: {failure}")
            raise


def _names(saved: ops.Saved) -> list[str]:
    return [saved.id]


def check_state(state: object) -> None:
    """Nothing, when it is a mapping of names. ``Invalid`` else."""
    if not isinstance(state, Mapping):
        raise Invalid(f"state must be a mapping, not {type(state).__name__}", field="state")
    for name in state:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(name, str):
            raise Invalid(f"the channels of a state have text for names, not {name!r}", field="state")
        if not is_sound(name):
            raise Invalid(f"the channel {name!r} has a name that is no Unicode text", field="state")


def facts_in(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Metadata as a dict. ``Invalid`` for what is no mapping."""
    if metadata is not None and not isinstance(metadata, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Invalid(f"metadata must be a mapping, not {type(metadata).__name__}", field="metadata")
    return dict(metadata or {})


def tag_names(tags: Iterable[str] | str) -> tuple[str, ...]:
    """Tags in order, each once. ``Invalid`` for what is no name, ``OverLimit`` for too many."""
    names = tuple(dict.fromkeys(limits.text(name, "tags", limits.NAME_BYTES) for name in several(tags, "tags")))
    if len(names) > limits.LABELS:
        raise OverLimit(f"{len(names)} tags; the limit is {limits.LABELS}", field="tags", limit=limits.LABELS)
    return names


def several(values: Iterable[str] | str, field: str) -> Iterable[str]:
    """The values, of which a single text is one. ``Invalid`` for what has none."""
    if isinstance(values, str):
        return (values,)
    if not isinstance(values, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Invalid(f"{field} must be text or some texts, not {type(values).__name__}", field=field)
    return values


def _error_facts(error: BaseException | None) -> dict[str, Any]:
    if error is None:
        return {}
    text = str(error).encode("utf-8", "backslashreplace").decode()
    return {"error": {"type": type(error).__name__, "message": text[:_TRACE_BYTES]}}
