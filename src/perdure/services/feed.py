"""The change feed and the trail of single objects."""

import time
from collections.abc import AsyncIterator, Iterable

from perdure.grammar import Op
from perdure.kit import aio as kit
from perdure.rooms.changes import ops as recipes
from perdure.rooms.changes.ops import Change
from perdure.rooms.conversations.values import Page
from perdure.services.handle import Handle
from perdure.values import limits
from perdure.values.errors import Misused

_LOOK_SECONDS = 1.0
"""A reader looks this often unasked, in case nobody woke it."""
_REST_SECONDS = 0.02
"""After a look that found nothing for this reader."""


class FeedVerbs(Handle):
    """Follow what changes."""

    async def changes(
        self,
        since: str | None = None,
        kinds: Iterable[str] | str | None = None,
        limit: int = limits.PAGE,
        wait: float = 0.0,
    ) -> Page[Change]:
        """The changes after a cursor, oldest first; ``next_cursor`` is where to go on, also when there are none yet.

        ``since=None`` is the beginning, ``await store.latest_change()`` is now. ``kinds`` limits it to, say,
        ``["message"]``. On PostgreSQL an entry appears once no open transaction can still commit an earlier one,
        so a reader never skips one. At most 1,000 a call.

        When there are none yet, it waits for up to ``wait`` seconds (0 to 60) and answers as soon as there are, or with
        an empty page. Commits of this store and, on one machine or one server, of any other wake it at once; where
        that fails it looks once a second. Raises ``Invalid`` for a cursor that is not one, ``Closed`` when the store is
        closed meanwhile, ``Misused`` when it is to wait inside a transaction, in which nothing new can appear.
        """
        cursor = recipes.parse_cursor(since)
        limits.count(limit, "limit", 0, limits.PAGE)
        wanted = (
            None
            if kinds is None
            else [recipes.known_kind(kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
        )
        wait = limits.span(wait, "wait", limits.WAIT_SECONDS)
        if wait and (self._session is not None or self._is_inside()):
            raise Misused("inside a transaction nothing new can appear", hint="wait for changes outside the block")
        if limit == 0 or wanted == []:
            return Page((), since or "0.0")
        look = recipes.since(cursor, wanted, limit)
        found = await (self._first(look, wait) if wait else self._run(look))
        return Page(found, found[-1].cursor if found else since or "0.0")

    async def _first(self, look: Op[list[Change]], wait: float) -> list[Change]:
        """What there is at the first look that finds something, nothing after so many seconds."""
        deadline = time.monotonic() + wait
        driver = await self._ready()
        pause = 0.0
        async with driver.watching() as bell:
            while True:
                mark = bell.mark
                found = await self._run(look)
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                if pause:  # it rang for others: a busy store is not asked at each of its commits
                    await kit.sleep(min(left, pause))
                await bell.wait(mark, min(left, _LOOK_SECONDS))
                pause = _REST_SECONDS

    async def latest_change(self) -> str:
        """The cursor of the newest change that the feed shows."""
        return await self._run(recipes.latest())

    async def all_changes(
        self, since: str | None = None, kinds: Iterable[str] | str | None = None
    ) -> AsyncIterator[Change]:
        """Every change after a cursor, page by page, until there are no more for now."""
        wanted = None if kinds is None else [kinds] if isinstance(kinds, str) else list(kinds)
        while True:
            page = await self.changes(since, wanted)
            for change in page:
                yield change
            if len(page) < limits.PAGE:
                return
            since = page.next_cursor

    async def trail(self, kind: str, object_id: str) -> list[Change]:
        """What was done to one object (``"conversation"`` or ``"message"``), oldest first; at most 1,000 entries."""
        recipes.known_kind(kind)
        limits.identifier(object_id, "object_id")
        return await self._run(recipes.trail(kind, object_id))
