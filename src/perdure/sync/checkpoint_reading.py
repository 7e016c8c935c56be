# Generated from perdure/services/checkpoint_reading.py by tools/generate_sync.py; change that file and run `make sync`.
"""The verbs that find checkpoints and give states back."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from perdure.rooms.checkpoints import ops, reading
from perdure.rooms.checkpoints.replaying import Replayer
from perdure.rooms.checkpoints.strategy import RecoveryPolicy
from perdure.rooms.checkpoints.values import MAIN, Checkpoint, CheckpointThread
from perdure.sync.checkpoint_desk import CheckpointDesk
from perdure.sync.checkpoint_saving import tag_names
from perdure.values import filters, limits
from perdure.values.clock import to_datetime, to_micros
from perdure.values.errors import Invalid, NotFound
from perdure.values.page import Page

_FIND_PAGE = 64
_REPLAY = 64
"""Checkpoints whose states are read at a time."""
_NO_END = 2**62

Ask = Callable[[list[Checkpoint]], str | Checkpoint | None]


class ReadingVerbs(CheckpointDesk):
    """Find checkpoints, restore states, go through a thread's history."""

    def get(self, checkpoint_id: str) -> Checkpoint | None:
        """A checkpoint without its state, None when there is none."""
        limits.identifier(checkpoint_id, "checkpoint_id")
        found = self._run(ops.get(checkpoint_id, self._seals(), None, self._space))
        return None if found is None else self._checkpoint(found)

    def latest(self, thread_id: str, branch: str = MAIN) -> Checkpoint | None:
        """The newest checkpoint of a branch without its state, None when there is none."""
        limits.identifier(thread_id, "thread_id")
        limits.text(branch, "branch", limits.NAME_BYTES)
        found = self._run(reading.newest(thread_id, self._space, branch, self._seals()))
        return None if found is None else self._checkpoint(found)

    def latest_state(self, thread_id: str, branch: str = MAIN) -> dict[str, Any] | None:
        """The newest state of a branch, None when there is none. A state that this process saved is not read again."""
        limits.identifier(thread_id, "thread_id")
        limits.text(branch, "branch", limits.NAME_BYTES)
        known = self._held.get(self._key(thread_id))
        loaded = self._run(reading.load_newest(thread_id, self._space, branch, known, self._seals()))
        if loaded is None:
            return None
        self._remember(thread_id, loaded.known)
        return self._together(loaded.state)

    def list_threads(self, limit: int = 100, cursor: str | None = None) -> Page[CheckpointThread]:
        """Threads that have checkpoints, by id; those of frameworks too. At most 1,000 a page."""
        limits.count(limit, "limit", 0, limits.PAGE)
        if limit == 0:
            return Page((), cursor)
        after = None if cursor is None else _thread_cursor(cursor)
        rows = self._run(reading.threads(None, after, limit + 1))
        shown = [
            CheckpointThread(
                row.id, row.space, row.next_position, to_datetime(row.created_at), to_datetime(row.updated_at)
            )
            for row in rows[:limit]
        ]
        more = len(rows) > limit
        return Page(shown, f"{shown[-1].space}\0{shown[-1].id}" if more else None)

    # -- history ---------------------------------------------------------------------------------------------------------

    def get_history(
        self,
        thread_id: str,
        include_failed: bool = False,
        include_metadata: bool = True,
        branch: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Checkpoint]:
        """The checkpoints of a thread, newest first, without decoding their states. At most 1,000 a page.

        A branch has the checkpoints that were saved on it; what came before it began is on the one it began at.
        """
        limits.identifier(thread_id, "thread_id")
        limits.count(limit, "limit", 0, limits.PAGE)
        if branch is not None:
            limits.text(branch, "branch", limits.NAME_BYTES)
        before = _NO_END if cursor is None else _position(cursor)
        if limit == 0:
            return Page((), cursor)
        query = reading.Query(
            thread_id, self._space, branch, include_failed, (), limit + 1, before, entries=include_metadata
        )
        found = self._run(reading.page(query, self._seals()))
        shown = [self._checkpoint(one, include_metadata=include_metadata) for one in found[:limit]]
        return Page(shown, str(shown[-1].position) if len(found) > limit else None)

    def find_checkpoint(
        self,
        thread_id: str,
        tags: Iterable[str] | str = (),
        before_timestamp: datetime | str | None = None,
        after_timestamp: datetime | str | None = None,
        with_state_matching: Mapping[str, Any] | None = None,
    ) -> Checkpoint | None:
        """The newest checkpoint that has all tags, was made before and after these times (exclusive), and whose state fits.

        ``with_state_matching`` is a filter (``{"plan.done": True, "score": {"$gt": 3}}``) over dotted paths of the state;
        with it states are decoded one by one, newest first. None when there is none.
        """
        limits.identifier(thread_id, "thread_id")
        before = None if before_timestamp is None else to_micros(before_timestamp, "before_timestamp")
        after = None if after_timestamp is None else to_micros(after_timestamp, "after_timestamp")
        matching = None
        if with_state_matching is not None:
            matching = filters.parse(with_state_matching, {}, "with_state_matching", prefixed=False)
        seals = self._seals()
        position = _NO_END
        while True:
            query = reading.Query(
                thread_id, self._space, None, True, tag_names(tags), _FIND_PAGE, position, before=before, after=after
            )
            found = self._run(reading.page(query, seals))
            for one in found:
                if matching is None or self._fits(matching, one):
                    return self._checkpoint(one)
            if len(found) < _FIND_PAGE:
                return None
            position = found[-1].row.position

    def _fits(self, matching: filters.Filter, found: ops.Found) -> bool:
        state = self._state_of(found)
        return filters.evaluate(matching, {}, state)

    def _state_of(self, found: ops.Found) -> Any:
        loaded = self._run(reading.load_many(found.thread.id, self._space, [found.row.position], self._seals()))
        if not loaded:
            raise NotFound(f"checkpoint {found.row.id!r} was deleted at this moment", field="checkpoint_id")
        return self._together(loaded[0].state)

    # -- states ------------------------------------------------------------------------------------------------------------

    def restore(self, checkpoint_id: str, validate_schema: bool = True) -> dict[str, Any]:
        """The state of a checkpoint. ``NotFound`` when there is none.

        With ``validate_schema`` it is checked by the schema registered for its thread, if there is one: ``Invalid``
        names each path that does not fit.
        """
        limits.identifier(checkpoint_id, "checkpoint_id")
        loaded = self._run(reading.load(checkpoint_id, self._seals(), None, self._space))
        if loaded is None:
            raise NotFound(f"there is no checkpoint {checkpoint_id!r}", field="checkpoint_id")
        state = self._together(loaded.state)
        if validate_schema:
            self._schemas.check(loaded.found.thread.id, state)
        return state

    def restore_at(
        self, thread_id: str, timestamp: datetime | str, branch: str | None = None, validate_schema: bool = True
    ) -> dict[str, Any]:
        """The state that was the newest at a time, of any branch or of one. ``NotFound`` when there was none yet.

        Where the clock was set back, the one that was saved later counts as the newer.
        """
        limits.identifier(thread_id, "thread_id")
        if branch is not None:
            limits.text(branch, "branch", limits.NAME_BYTES)
        at = to_micros(timestamp, "timestamp")
        loaded = self._run(reading.at_time(thread_id, self._space, at, branch, self._seals()))
        if loaded is None:
            raise NotFound(f"thread {thread_id!r} had no checkpoint at that time", field="timestamp")
        state = self._together(loaded.state)
        if validate_schema:
            self._schemas.check(thread_id, state)
        return state

    def replay(
        self,
        thread_id: str,
        from_checkpoint: str | None = None,
        to_checkpoint: str | None = None,
        branch: str = MAIN,
    ) -> Iterator[tuple[Checkpoint, dict[str, Any]]]:
        """Every checkpoint on the way to one (the branch's newest), oldest first, with its state.

        What was taken away is passed over. Each change is decoded once, so the states share what did not change between
        them: read them, do not change them. Raises ``NotFound`` for a checkpoint that the thread does not have, and
        ``Invalid`` when ``from_checkpoint`` is not on the way.
        """
        limits.identifier(thread_id, "thread_id")
        last = self._last(thread_id, to_checkpoint, branch)
        if last is None:
            return
        first = None
        if from_checkpoint is not None:
            first = self._place(thread_id, from_checkpoint, "from_checkpoint")
        positions = self._run(reading.lineage(thread_id, self._space, last, first, self._seals()))
        replayer = Replayer(self._registry)
        for at in range(0, len(positions), _REPLAY):
            batch = positions[at : at + _REPLAY]
            loaded = self._run(reading.load_many(thread_id, self._space, batch, self._seals()))
            for one in loaded:
                yield self._checkpoint(one.found), replayer.next(one.state)

    def _last(self, thread_id: str, to_checkpoint: str | None, branch: str) -> int | None:
        if to_checkpoint is not None:
            return self._place(thread_id, to_checkpoint, "to_checkpoint")
        newest = self.latest(thread_id, branch)
        return None if newest is None else newest.position

    def _place(self, thread_id: str, checkpoint_id: str, field: str) -> int:
        limits.identifier(checkpoint_id, field)
        position = self._run(reading.position_of(checkpoint_id, thread_id, self._space))
        if position is None:
            raise NotFound(f"thread {thread_id!r} has no checkpoint {checkpoint_id!r}", field=field)
        return position

    # -- recovery ----------------------------------------------------------------------------------------------------------

    def recover(
        self,
        thread_id: str,
        policy: RecoveryPolicy | str = RecoveryPolicy.LATEST_GOOD,
        tags: Iterable[str] | str = (),
        ask: Ask | None = None,
    ) -> tuple[Checkpoint, dict[str, Any]] | None:
        """The checkpoint to go on from, with its state, or None when the policy finds none.

        LATEST is the newest, LATEST_GOOD the newest that did not fail, TAGGED the newest with all ``tags``; with ASK the
        callback ``ask`` gets the 100 newest and answers one of them, its id, or None.
        """
        try:
            policy = RecoveryPolicy(policy)
        except ValueError:
            names = ", ".join(one.value for one in RecoveryPolicy)
            raise Invalid(f"policy is one of {names}, not {policy!r}", field="policy") from None
        names = tag_names(tags)
        if policy is RecoveryPolicy.TAGGED and not names:
            raise Invalid("the policy TAGGED needs tags", field="tags")
        if policy is RecoveryPolicy.ASK:
            if not callable(ask):
                raise Invalid("the policy ASK needs a callback", field="ask")
            chosen = ask(list(self.get_history(thread_id, include_failed=True)))
        elif policy is RecoveryPolicy.TAGGED:
            chosen = self.find_checkpoint(thread_id, names)
        else:
            failed = policy is RecoveryPolicy.LATEST
            newest = self.get_history(thread_id, include_failed=failed, limit=1)
            chosen = newest[0] if newest else None
        if isinstance(chosen, str):
            chosen = self.get(chosen)
        if not (chosen is None or isinstance(chosen, Checkpoint)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise Invalid(f"ask answers a checkpoint, its id or None, not {type(chosen).__name__}", field="ask")
        if chosen is None or chosen.thread_id != thread_id:
            return None
        return chosen, self.restore(chosen.id, validate_schema=False)


def _position(cursor: str) -> int:
    if not isinstance(cursor, str) or not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Invalid("this is no cursor of get_history", field="cursor")
    return int(cursor)


def _thread_cursor(cursor: str) -> tuple[str, str]:
    space, mark, thread_id = cursor.partition("\0") if isinstance(cursor, str) else ("", "", "")  # pyright: ignore[reportUnnecessaryIsInstance]
    if not mark:
        raise Invalid("this is no cursor of list_threads", field="cursor")
    return limits.text(thread_id, "cursor", limits.ID_BYTES), limits.text(space, "cursor", 8_192, blank=True)
