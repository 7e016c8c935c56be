"""The verbs on branches and tags, and those that compare and merge states."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from perdure.rooms.checkpoints import changing, diff, merge, ops, reading
from perdure.rooms.checkpoints.parts import Side
from perdure.rooms.checkpoints.values import MAIN, CheckpointBranch
from perdure.services.checkpoint_desk import CheckpointDesk
from perdure.services.checkpoint_saving import SavingVerbs, facts_in, tag_names
from perdure.values import limits, tagged
from perdure.values.clock import to_datetime
from perdure.values.errors import Invalid, NotFound
from perdure.values.ids import new_id

Resolve = Literal["ours", "theirs"] | Callable[[merge.MergeConflict], Any] | None


class BranchVerbs(SavingVerbs, CheckpointDesk):
    """Branch, tag, compare, merge."""

    async def create_branch(
        self, from_checkpoint: str, branch_name: str, metadata: Mapping[str, Any] | None = None
    ) -> str:
        """The id of a new branch that begins at a checkpoint; nothing is copied.

        ``Conflict`` when the thread has a branch of that name, ``NotFound`` for an unknown checkpoint.
        """
        limits.identifier(from_checkpoint, "from_checkpoint")
        limits.text(branch_name, "branch_name", limits.NAME_BYTES)
        encoded = tagged.encode(facts_in(metadata), "metadata", limits.METADATA_BYTES, limits.METADATA_DEPTH)
        await self._ring.adopt_checkpoint(self._store, from_checkpoint, self._space)
        recipe = changing.create_branch(
            from_checkpoint, branch_name, new_id(), encoded, await self._seals(), self._store._clock(), self._space
        )
        return await self._run(recipe)

    async def branches(self, thread_id: str) -> list[CheckpointBranch]:
        """The branches of a thread, ``main`` first, then in the order they were made; none for an unknown thread."""
        limits.identifier(thread_id, "thread_id")
        thread, rows, ids = await self._run(reading.branches(thread_id, self._space, await self._seals()))
        if thread is None:
            return []
        main = CheckpointBranch(
            MAIN, MAIN, thread_id, None if thread.head is None else ids.get(thread.head), None, {},
            to_datetime(thread.created_at),
        )  # fmt: skip
        return [
            main,
            *(
                CheckpointBranch(
                    row.id, row.name, thread_id, ids.get(row.head), ids.get(row.fork_of), tagged.decode(row.metadata),
                    to_datetime(row.created_at),
                )
                for row in rows
            ),
        ]  # fmt: skip

    async def tag(self, checkpoint_id: str, *tags: str) -> None:
        """Puts tags on a checkpoint; a tagged one is never pruned. ``NotFound`` for an unknown checkpoint."""
        limits.identifier(checkpoint_id, "checkpoint_id")
        names = tag_names(tags)
        if not names:
            raise Invalid("tags are missing", field="tags")
        await self._run(changing.tag(checkpoint_id, names, self._store._clock(), self._space))

    async def untag(self, checkpoint_id: str, *tags: str) -> None:
        """Takes tags off a checkpoint; those it does not have are no matter. ``NotFound`` for an unknown checkpoint."""
        limits.identifier(checkpoint_id, "checkpoint_id")
        names = tag_names(tags)
        if not names:
            raise Invalid("tags are missing", field="tags")
        await self._run(changing.untag(checkpoint_id, names, self._store._clock(), self._space))

    # -- compare -----------------------------------------------------------------------------------------------------------

    async def compare(self, checkpoint_a: str, checkpoint_b: str, include_details: bool = True) -> diff.StateDiff:
        """What is added, removed and changed in ``checkpoint_b``'s state against ``checkpoint_a``'s, by dotted path.

        Items of lists are matched by their ``id`` when they have one, else by position. Parts that are equal are not
        decoded. Without details only paths and sizes are told. ``NotFound`` for an unknown checkpoint.
        """
        a, b = await self._loaded(checkpoint_a, "checkpoint_a"), await self._loaded(checkpoint_b, "checkpoint_b")
        return diff.compare(Side(a.state, self._registry), Side(b.state, self._registry), include_details)

    async def _loaded(self, checkpoint_id: str, field: str) -> reading.Loaded:
        limits.identifier(checkpoint_id, field)
        loaded = await self._run(reading.load(checkpoint_id, await self._seals(), None, self._space))
        if loaded is None:
            raise NotFound(f"there is no checkpoint {checkpoint_id!r}", field=field)
        return loaded

    # -- merge -------------------------------------------------------------------------------------------------------------

    async def merge(
        self,
        thread_id: str,
        into: str,
        source: str,
        base: str | None = None,
        resolve: Resolve = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] | str = (),
    ) -> merge.MergeReport:
        """Merges the newest state of a branch into another one, and saves it there.

        Three-way: against ``base``, a checkpoint, or else the newest that both branches come from. What both changed in
        different ways is a conflict: ``resolve`` says "ours" (``into``'s), "theirs", or is a callable that gets the
        ``Conflict`` and answers a value; without it nothing is saved and the report lists them with their paths.
        """
        limits.identifier(thread_id, "thread_id")
        seals = await self._seals()
        heads: dict[str, ops.Found] = {}
        for name, field in ((into, "into"), (source, "source")):
            limits.text(name, field, limits.NAME_BYTES)
            found = await self._run(reading.newest(thread_id, self._space, name, seals))
            if found is None:
                raise NotFound(f"thread {thread_id!r} has no checkpoint on branch {name!r}", field=field)
            heads[field] = found
        base_id = await self._base(thread_id, heads["into"], heads["source"], base)
        ours = await self._together((await self._loaded(heads["into"].row.id, "into")).state)
        theirs = await self._together((await self._loaded(heads["source"].row.id, "source")).state)
        common: dict[str, Any] = (
            {} if base_id is None else await self._together((await self._loaded(base_id, "base")).state)
        )
        merged = merge.merge(common, ours, theirs, resolve)
        if merged.state is None:
            return merge.MergeReport(None, base_id, tuple(merged.conflicts))
        facts = {"merged_from": heads["source"].row.id, "merge_base": base_id, **facts_in(metadata)}
        new = self._new(thread_id, merged.state, facts, tags, "ok", heads["into"].row.id, into, None, "merge")
        return merge.MergeReport(
            await self._save(new, await self._apart(merged.state)), base_id, tuple(merged.conflicts)
        )

    async def _base(self, thread_id: str, ours: ops.Found, theirs: ops.Found, base: str | None) -> str | None:
        """The checkpoint that a merge compares with."""
        if base is not None:
            found = await self._loaded(base, "base")
            if found.found.thread.id != thread_id:
                raise Invalid(f"the base {base!r} is of another thread", field="base")
            return base
        seals = await self._seals()
        return await self._run(
            reading.common_ancestor(thread_id, self._space, ours.row.position, theirs.row.position, seals)
        )
