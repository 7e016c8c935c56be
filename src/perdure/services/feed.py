"""The change feed and the trail of single objects."""

from collections.abc import AsyncIterator, Iterable

from perdure.rooms.changes import ops as recipes
from perdure.rooms.changes.ops import Change
from perdure.rooms.conversations.values import Page
from perdure.services.handle import Handle
from perdure.values import limits


class FeedVerbs(Handle):
    """Follow what changes."""

    async def changes(
        self, since: str | None = None, kinds: Iterable[str] | str | None = None, limit: int = limits.PAGE
    ) -> Page[Change]:
        """The changes after a cursor, oldest first; ``next_cursor`` is where to go on, also when there are none yet.

        ``since=None`` is the beginning, ``await store.latest_change()`` is now. ``kinds`` limits it to, say,
        ``["message"]``. On PostgreSQL an entry appears once no open transaction can still commit an earlier one,
        so a reader never skips one. At most 1,000 a call. Raises ``Invalid`` for a cursor that is not one.
        """
        cursor = recipes.parse_cursor(since)
        limits.count(limit, "limit", 0, limits.PAGE)
        wanted = (
            None
            if kinds is None
            else [recipes.known_kind(kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
        )
        if limit == 0:
            return Page((), since or "0.0")
        found = await self._run(recipes.since(cursor, wanted, limit))
        return Page(found, found[-1].cursor if found else since or "0.0")

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
