"""Recipes on the change feed and the trail. Entries are written through ``perdure.grammar.note``."""

import re
from datetime import datetime
from itertools import pairwise

import msgspec

from perdure.grammar import Params, Row, Steps, fetch_all, fetch_one, op
from perdure.values import limits
from perdure.values.clock import to_datetime
from perdure.values.errors import ChecksumMismatch, Invalid

_CURSOR = re.compile(r"([0-9]{1,19})\.([0-9]{1,19})")


class Change(msgspec.Struct, frozen=True):
    """One entry: who did what to which object, and when. ``cursor`` continues the feed after it."""

    cursor: str
    kind: str
    verb: str
    object_id: str
    parent_id: str | None
    actor: str | None
    reason: str | None
    at: datetime


KINDS = ("conversation", "message")
"""What entries may be about."""


def known_kind(kind: object) -> str:
    """``kind`` when entries may be about it; ``Invalid`` lists the known ones."""
    if kind not in KINDS:
        raise Invalid(f"there are no changes of kind {str(kind)[:40]!r}; there are {', '.join(KINDS)}", field="kinds")
    return str(kind)


def parse_cursor(cursor: str | None) -> tuple[int, int]:
    """(transaction, position) of a feed's cursor; (0, 0), the beginning, for None."""
    if cursor is None:
        return 0, 0
    found = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    if found is None or max(place := (int(found[1]), int(found[2]))) >= 2**63:
        raise Invalid(f"since is not a cursor of this feed: {str(cursor)[:60]!r}", field="since")
    return place


def _change(row: Row) -> Change:
    return Change(f"{row[1]}.{row[0]}", row[2], row[3], row[4], row[5], row[6], row[7], to_datetime(row[8]))


@op(reads=True)
def since(cursor: tuple[int, int], kinds: list[str] | None, limit: int) -> Steps[list[Change]]:
    """The next entries of the feed, oldest first."""
    params: Params = {} if kinds is None else {"kinds": kinds}
    flags = frozenset(params)
    rows = yield from fetch_all(
        "changes.since", flags=flags, tx=cursor[0], position=cursor[1], limit=limit, **params
    )  # fmt: skip
    places = [cursor, *((row[1], row[0]) for row in rows)]
    if any(second <= first for first, second in pairwise(places)):
        raise ChecksumMismatch("entries of the feed are out of place", hint="run: perdure doctor")
    return [_change(row) for row in rows]


@op(reads=True)
def latest() -> Steps[str]:
    """The cursor of the newest entry, for those who want only what comes after now."""
    row = yield from fetch_one("changes.latest")
    return "0.0" if row is None else f"{row[1]}.{row[0]}"


@op(reads=True, long=True)
def trail(kind: str, object_id: str) -> Steps[list[Change]]:
    """What was done to one object, oldest first, at most a page of it."""
    rows = yield from fetch_all("changes.of_object", kind=kind, object=object_id, limit=limits.PAGE)
    return [_change((row[0], 0, *row[1:])) for row in rows]
