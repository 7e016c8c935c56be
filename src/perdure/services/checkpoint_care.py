"""The verbs that look after checkpoints: retention, deleting, copying, checking, keys."""

from collections.abc import AsyncIterator, Iterable
from datetime import datetime

from perdure.kit import aio as kit
from perdure.rooms.checkpoints import archive, changing, checking, copying, reading
from perdure.rooms.checkpoints.values import RetentionReport, VerifyReport
from perdure.services.checkpoint_desk import CheckpointDesk
from perdure.services.checkpoint_saving import several
from perdure.values import limits
from perdure.values.clock import to_micros
from perdure.values.errors import NotFound, OverLimit
from perdure.values.ids import new_id

_PAGE = 200
_RUNS = 1_000


class CareVerbs(CheckpointDesk):
    """Prune, delete, copy, move, check, rotate keys."""

    async def apply_retention(
        self, thread_id: str | None = None, now: datetime | str | None = None, dry_run: bool = False
    ) -> list[RetentionReport]:
        """Deletes what the configuration lets go (of one thread, or of all), and says what went and why.

        By age and by count, never below ``keep_minimum``; never the newest or the first checkpoint of a branch, a
        tagged one or (``keep_failed_states``) a failed one. What only the deleted were made of is given back.
        """
        at = self._store._clock() if now is None else to_micros(now, "now")
        if thread_id is not None:
            return [await self._retain(limits.identifier(thread_id, "thread_id"), at, dry_run=dry_run)]
        reports: list[RetentionReport] = []
        async for name in self._thread_ids():
            try:
                reports.append(await self._retain(name, at, dry_run=dry_run))
            except NotFound:  # deleted since it was listed
                continue
        return reports

    async def _retain(self, thread_id: str, at: int, *, dry_run: bool) -> RetentionReport:
        recipe = changing.retain(thread_id, self._space, self.config, at, await self._seals(), dry_run=dry_run)
        verdicts = await self._run(recipe)
        self._held.drop(self._key(thread_id))
        return RetentionReport(
            thread_id, {one.id: one.reason for one in verdicts if not one.keep},
            {one.id: one.reason for one in verdicts if one.keep}, dry_run,
        )  # fmt: skip

    async def _thread_ids(self) -> AsyncIterator[str]:
        after: tuple[str, str] | None = None
        while True:
            rows = await self._run(reading.threads(self._space, after, _PAGE))
            for row in rows:
                yield row.id
            if len(rows) < _PAGE:
                return
            after = (rows[-1].id, rows[-1].space)

    # -- threads -----------------------------------------------------------------------------------------------------------

    async def delete_thread(self, thread_id: str) -> bool:
        """Deletes a thread with all its checkpoints, branches and tags; false when there was none."""
        limits.identifier(thread_id, "thread_id")
        self._held.drop(self._key(thread_id))
        return await self._run(changing.delete_thread(thread_id, self._space, self._store._clock()))

    async def delete_for_runs(self, run_ids: Iterable[str] | str) -> int:
        """How many checkpoints these runs had saved; they are deleted. A branch goes on from what was before them."""
        given = (limits.identifier(run_id, "run_ids") for run_id in several(run_ids, "run_ids"))
        ids = tuple(dict.fromkeys(given))
        if len(ids) > _RUNS:
            raise OverLimit(f"{len(ids)} runs; the limit is {_RUNS:,}", field="run_ids", limit=_RUNS)
        recipe = changing.delete_for_runs(ids, await self._seals(), self._store._clock(), self._space)
        return await self._run(recipe)

    async def copy_thread(self, source_thread_id: str, target_thread_id: str) -> int:
        """Copies a thread under a new id; how many checkpoints it has. Their ids are new, what they hold is shared.

        ``NotFound`` for an unknown source, ``Conflict`` when there is a target already.
        """
        limits.identifier(source_thread_id, "source_thread_id")
        limits.identifier(target_thread_id, "target_thread_id")
        recipe = copying.copy(
            source_thread_id, target_thread_id, self._space, self._space, await self._seals(), self._store._clock(),
            new_id, compress=self.config.compression == "zstd",
        )  # fmt: skip
        return await self._run(recipe)

    async def export_thread(self, thread_id: str) -> bytes:
        """A thread with all its checkpoints as JSON Lines, unencrypted, for ``import_thread``.

        ``NotFound`` for an unknown thread.
        """
        limits.identifier(thread_id, "thread_id")
        dump = await self._run(copying.dump(thread_id, self._space, await self._seals()))
        return await kit.off_loop(lambda: archive.write(dump))

    async def import_thread(self, data: bytes, thread_id: str | None = None) -> str:
        """The id of the thread that an exported one became: its own, or ``thread_id``; its checkpoints get new ids then.

        Everything is checked before anything is written: ``Invalid`` for what is no export, ``Conflict`` when there is
        such a thread.
        """
        dump = await kit.off_loop(lambda: archive.read(data, self._registry))
        name = dump.id if thread_id is None else limits.identifier(thread_id, "thread_id")
        seal = await self._ring.active(self._store)
        recipe = copying.take_in(
            dump, name, self._space, seal, self._store._clock(), None if thread_id is None else new_id,
            compress=self.config.compression == "zstd",
        )  # fmt: skip
        await self._run(recipe)
        return name

    # -- trust -------------------------------------------------------------------------------------------------------------

    async def verify(self, thread_id: str | None = None) -> VerifyReport:
        """Looks at everything of a thread, or of all: every segment there, hash and chain right, every state decodable.

        ``problems`` says in words what is not; nothing is changed. ``NotFound`` for an unknown thread.
        """
        seals = await self._seals()
        names = [limits.identifier(thread_id, "thread_id")] if thread_id is not None else None
        threads = checkpoints = segments = 0
        problems: list[str] = []
        if names is None:
            names = [name async for name in self._thread_ids()]
        for name in names:
            found = await self._run(checking.check(name, self._space, seals, self._registry))
            threads, checkpoints = threads + 1, checkpoints + found.checkpoints
            segments += found.segments
            problems += found.problems
        return VerifyReport(threads, checkpoints, segments, tuple(problems))

    async def rotate_keys(self, new_key: str | bytes) -> int:
        """Seals every thread anew under another key; how many were. This object uses the new key from then on.

        One that broke off goes on when it is called again. Until it ends both keys open everything; then the old one
        opens nothing. ``Invalid`` for a blank key.
        """
        resealed = await self._ring.rotate(self._store, new_key)
        self._held.clear()
        return resealed
