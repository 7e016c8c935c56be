"""Checkpoints of frameworks that bring their own ids, parents and namespaces: what adapters stand on."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from perdure.grammar import Op
from perdure.rooms.checkpoints import codec, frames, lineage, ops, tree
from perdure.rooms.checkpoints.frames import Frame, Kept, TaskWrite
from perdure.rooms.checkpoints.logs import Known, Seal
from perdure.rooms.checkpoints.values import MAIN
from perdure.services.checkpoint_desk import CheckpointDesk

_PAGE = 100
_LONG = 256 * 1_024


class FrameCheckpoints(CheckpointDesk):
    """The checkpoints of one framework. ``family`` begins the names of its spaces; a namespace follows it."""

    family = "framework:"

    async def put(
        self,
        thread_id: str,
        namespace: str,
        checkpoint_id: str,
        parent: str | None,
        metadata: Mapping[str, Any],
        parts: Callable[[bool], tuple[tree.Branching, list[str]]],
        run_id: str | None,
    ) -> None:
        """Saves a checkpoint, in place of one with the same id.

        ``parts(True)`` gives the parts of its state and the names of channels that are the parent's; ``parts(False)``,
        asked for when the parent turns out not to be there, gives all.
        """
        space, compress, now = self.family + namespace, self.config.compression == "zstd", self._store._clock()
        encoded = codec.encode(dict(metadata), self._registry, "metadata")
        new = ops.NewCheckpoint(checkpoint_id, thread_id, encoded, None, (), 0, run_id, parent, MAIN, space)
        key = (self._store.tenant, space, thread_id)
        state, kept = parts(True)
        known = self._held.get(key)

        def recipe(seal: Seal) -> Op[ops.Saved]:
            made = frames.put(new, state, kept, known, seal, now, compress=compress)
            return made.taking_long() if known is None and tree.size(state) > _LONG else made

        try:
            saved = await self._sealed(thread_id, space, recipe)
        except Kept:
            state, kept = parts(False)[0], []
            saved = await self._sealed(thread_id, space, recipe)
        self._keep(key, saved.known)

    def _keep(self, key: tuple[str, str, str], known: Known | None) -> None:
        if known is not None and self._store._session is None:
            self._held.put(key, known)

    async def get(self, thread_id: str, namespace: str, checkpoint_id: str | None = None) -> Frame | None:
        """One checkpoint with its writes, the newest without an id; None when there is none."""
        key = (self._store.tenant, self.family + namespace, thread_id)
        recipe = frames.get(thread_id, key[1], checkpoint_id, self._held.get(key), await self._seals())
        frame = await self._run(recipe)
        if frame is not None and checkpoint_id is None:
            self._keep(key, frame.known)
        return frame

    async def put_writes(
        self, thread_id: str, namespace: str, checkpoint_id: str, writes: Sequence[TaskWrite], *, replace: bool
    ) -> None:
        """Keeps what a task wrote beside a checkpoint, which may come later."""
        space, compress, now = self.family + namespace, self.config.compression == "zstd", self._store._clock()

        def recipe(seal: Seal) -> Op[None]:
            return frames.put_writes(
                thread_id, space, checkpoint_id, writes, seal, now, replace=replace, compress=compress
            )

        await self._sealed(thread_id, space, recipe)

    async def there(self, thread_id: str, namespace: str) -> tuple[set[str], set[tuple[str, str, int]]]:
        """What a thread has: the ids of its checkpoints, and of which checkpoint, task and number there are writes."""
        return await self._run(frames.there(thread_id, self.family + namespace))

    async def list(
        self,
        thread_id: str | None,
        namespace: str | None,
        before: str | None,
        fits: Callable[[str, Mapping[str, Any]], bool],
        limit: int | None,
    ) -> AsyncIterator[Frame]:
        """Checkpoints, the greatest id first, those that ``fits(id, metadata)`` says."""
        left = limit
        if thread_id is None or namespace is None:
            space = None if namespace is None else self.family + namespace
            async for frame in self._list_all(frames.Listing(self.family, thread_id, space, before), fits, limit):
                yield frame
            return
        space, cursor = self.family + namespace, before
        while left is None or left > 0:
            page = await self._run(frames.rows_before(thread_id, space, cursor, _PAGE, await self._seals()))
            if not page:
                break
            ids = [one.row.id for one in page if fits(one.row.id, self.metadata_of(one))][:left]
            for frame in await self._run(frames.frames_of(thread_id, space, ids, await self._seals())):
                yield frame
                left = None if left is None else left - 1
            cursor = page[-1].row.id

    async def _list_all(
        self, listing: frames.Listing, fits: Callable[[str, Mapping[str, Any]], bool], limit: int | None
    ) -> AsyncIterator[Frame]:
        def fit(found: ops.Found) -> bool:
            return fits(found.row.id, self.metadata_of(found))

        left, after = limit, None
        while left is None or left > 0:
            most = _PAGE if left is None else min(left, _PAGE)
            page, after = await self._run(frames.listed(listing, after, fit, most, _PAGE, await self._seals()))
            for frame in page:
                yield frame
            left = None if left is None else left - len(page)
            if after is None:
                break

    def metadata_of(self, found: ops.Found) -> dict[str, Any]:
        """A checkpoint's metadata."""
        return codec.decode(found.entry.metadata, self._registry)

    # -- taking away -------------------------------------------------------------------------------------------------------

    async def delete_thread(self, thread_id: str) -> None:
        """Deletes all of a thread, in every namespace."""
        await self._run(frames.delete(thread_id, self.family, self._store._clock()))

    async def delete_for_runs(self, run_ids: Sequence[str], needed: frames.Needs) -> None:
        """Deletes the checkpoints that runs made, but for those that others need (``needed``) to be read."""
        recipe = frames.delete_for_runs(tuple(run_ids), self.family, needed, await self._seals(), self._store._clock())
        await self._run(recipe)

    async def copy_thread(self, source: str, target: str) -> None:
        """Copies a thread with all its namespaces under another id, in place of what was there."""
        seal = await self._ring.active(self._store)
        recipe = frames.copy(
            source, target, self.family, await self._seals(), seal, self._store._clock(),
            compress=self.config.compression == "zstd",
        )  # fmt: skip
        await self._run(recipe)

    async def keep_newest(self, thread_id: str, needed: frames.Needs) -> None:
        """Deletes all checkpoints of a thread but the newest of each namespace, and those that it needs to be read."""
        for thread in await self._run(frames.every_space(thread_id, self.family)):
            recipe = frames.keep_newest(thread_id, thread.space, needed, await self._seals(), self._store._clock())
            await self._run(recipe)

    async def ancestors(
        self, thread_id: str, namespace: str, checkpoint_id: str | None, channels: Sequence[str]
    ) -> Sequence[lineage.Ancestor]:
        """The checkpoints that one comes from, the nearest first, until each channel was found."""
        space = self.family + namespace
        return await self._run(lineage.ancestors(thread_id, space, checkpoint_id, channels, await self._seals()))
