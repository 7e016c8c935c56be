# Generated from perdure/services/checkpoint_frames.py by tools/generate_sync.py; change that file and run `make sync`.
"""Checkpoints of frameworks that bring their own ids, parents and namespaces: what adapters stand on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from perdure.grammar import Op
from perdure.rooms.checkpoints import codec, frames, lineage, ops, tree
from perdure.rooms.checkpoints.frames import Frame, Kept, TaskWrite
from perdure.rooms.checkpoints.logs import Known, Seal
from perdure.rooms.checkpoints.values import MAIN
from perdure.sync.checkpoint_desk import CheckpointDesk

_PAGE = 100
_LONG = 256 * 1_024


class FrameCheckpoints(CheckpointDesk):
    """The checkpoints of one framework. ``family`` begins the names of its spaces; a namespace follows it."""

    family = "framework:"

    def put(
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
            saved = self._sealed(thread_id, space, recipe)
        except Kept:
            state, kept = parts(False)[0], []
            saved = self._sealed(thread_id, space, recipe)
        self._keep(key, saved.known)

    def _keep(self, key: tuple[str, str, str], known: Known | None) -> None:
        if known is not None and self._store._session is None:
            self._held.put(key, known)

    def get(self, thread_id: str, namespace: str, checkpoint_id: str | None = None) -> Frame | None:
        """One checkpoint with its writes, the newest without an id; None when there is none."""
        key = (self._store.tenant, self.family + namespace, thread_id)
        recipe = frames.get(thread_id, key[1], checkpoint_id, self._held.get(key), self._seals())
        frame = self._run(recipe)
        if frame is not None and checkpoint_id is None:
            self._keep(key, frame.known)
        return frame

    def put_writes(
        self, thread_id: str, namespace: str, checkpoint_id: str, writes: Sequence[TaskWrite], *, replace: bool
    ) -> None:
        """Keeps what a task wrote beside a checkpoint, which may come later."""
        space, compress, now = self.family + namespace, self.config.compression == "zstd", self._store._clock()

        def recipe(seal: Seal) -> Op[None]:
            return frames.put_writes(
                thread_id, space, checkpoint_id, writes, seal, now, replace=replace, compress=compress
            )

        self._sealed(thread_id, space, recipe)

    def there(self, thread_id: str, namespace: str) -> tuple[set[str], set[tuple[str, str, int]]]:
        """What a thread has: the ids of its checkpoints, and of which checkpoint, task and number there are writes."""
        return self._run(frames.there(thread_id, self.family + namespace))

    def list(
        self,
        thread_id: str | None,
        namespace: str | None,
        before: str | None,
        fits: Callable[[str, Mapping[str, Any]], bool],
        limit: int | None,
    ) -> Iterator[Frame]:
        """Checkpoints, the greatest id first, those that ``fits(id, metadata)`` says."""
        left = limit
        if thread_id is None or namespace is None:
            space = None if namespace is None else self.family + namespace
            for frame in self._list_all(frames.Listing(self.family, thread_id, space, before), fits, limit):
                yield frame
            return
        space, cursor = self.family + namespace, before
        while left is None or left > 0:
            page = self._run(frames.rows_before(thread_id, space, cursor, _PAGE, self._seals()))
            if not page:
                break
            ids = [one.row.id for one in page if fits(one.row.id, self.metadata_of(one))][:left]
            for frame in self._run(frames.frames_of(thread_id, space, ids, self._seals())):
                yield frame
                left = None if left is None else left - 1
            cursor = page[-1].row.id

    def _list_all(
        self, listing: frames.Listing, fits: Callable[[str, Mapping[str, Any]], bool], limit: int | None
    ) -> Iterator[Frame]:
        def fit(found: ops.Found) -> bool:
            return fits(found.row.id, self.metadata_of(found))

        left, after = limit, None
        while left is None or left > 0:
            most = _PAGE if left is None else min(left, _PAGE)
            page, after = self._run(frames.listed(listing, after, fit, most, _PAGE, self._seals()))
            for frame in page:
                yield frame
            left = None if left is None else left - len(page)
            if after is None:
                break

    def metadata_of(self, found: ops.Found) -> dict[str, Any]:
        """A checkpoint's metadata."""
        return codec.decode(found.entry.metadata, self._registry)

    # -- taking away -------------------------------------------------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> None:
        """Deletes all of a thread, in every namespace."""
        self._run(frames.delete(thread_id, self.family, self._store._clock()))

    def delete_for_runs(self, run_ids: Sequence[str], needed: frames.Needs) -> None:
        """Deletes the checkpoints that runs made, but for those that others need (``needed``) to be read."""
        recipe = frames.delete_for_runs(tuple(run_ids), self.family, needed, self._seals(), self._store._clock())
        self._run(recipe)

    def copy_thread(self, source: str, target: str) -> None:
        """Copies a thread with all its namespaces under another id, in place of what was there."""
        seal = self._ring.active(self._store)
        recipe = frames.copy(
            source, target, self.family, self._seals(), seal, self._store._clock(),
            compress=self.config.compression == "zstd",
        )  # fmt: skip
        self._run(recipe)

    def keep_newest(self, thread_id: str, needed: frames.Needs) -> None:
        """Deletes all checkpoints of a thread but the newest of each namespace, and those that it needs to be read."""
        for thread in self._run(frames.every_space(thread_id, self.family)):
            recipe = frames.keep_newest(thread_id, thread.space, needed, self._seals(), self._store._clock())
            self._run(recipe)

    def ancestors(
        self, thread_id: str, namespace: str, checkpoint_id: str | None, channels: Sequence[str]
    ) -> Sequence[lineage.Ancestor]:
        """The checkpoints that one comes from, the nearest first, until each channel was found."""
        space = self.family + namespace
        return self._run(lineage.ancestors(thread_id, space, checkpoint_id, channels, self._seals()))
