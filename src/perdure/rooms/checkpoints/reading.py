"""Recipes that find checkpoints and read their states."""

from collections.abc import Mapping
from itertools import pairwise

import msgspec

from perdure.grammar import Steps, fetch_all, fetch_one, op
from perdure.rooms.checkpoints.binding import check_page, check_taken, check_thread, open_metadata
from perdure.rooms.checkpoints.line import line
from perdure.rooms.checkpoints.logs import Known, Seal, Thread, thread_of
from perdure.rooms.checkpoints.ops import (
    Found,
    branches_of,
    completed,
    find_thread,
    fitting,
    get,
    held_state,
    in_thread,
    need_thread,
    row_at,
    seal_of,
    states,
)  # fmt: skip
from perdure.rooms.checkpoints.tree import Branching
from perdure.rooms.checkpoints.values import MAIN, NATIVE, BranchRow, RowOf, row_of
from perdure.values.clock import Micros
from perdure.values.errors import ChecksumMismatch, Invalid

Seals = Mapping[str, Seal]
_NO_END = 2**62


class Loaded(msgspec.Struct, frozen=True):
    """A checkpoint with its state as parts; ``known`` is what the process holds of the thread now, when it may."""

    found: Found
    state: Branching
    known: Known | None = None


class Query(msgspec.Struct, frozen=True):
    """A page of a thread's history, newest first: positions below ``above``, times between ``after`` and ``before``."""

    thread_id: str
    space: str
    branch: str | None
    include_failed: bool
    tags: tuple[str, ...]
    limit: int
    above: int = _NO_END
    before: Micros | None = None
    after: Micros | None = None
    entries: bool = True


@op(reads=True, long=True)
def load(checkpoint_id: str, seals: Seals, thread_id: str | None = None, space: str = NATIVE) -> Steps[Loaded | None]:
    """A checkpoint with its state, or None."""
    found = yield from get(checkpoint_id, seals, thread_id, space)
    if found is None:
        return None
    state = yield from states(found.thread, {found.row.position: found.entry}, seal_of(found.thread, seals))
    return Loaded(found, state[found.row.position])


@op(reads=True, long=True)
def load_newest(thread_id: str, space: str, branch: str, known: Known | None, seals: Seals) -> Steps[Loaded | None]:
    """The newest checkpoint of a branch with its state, or None; its state is not read when it is held."""
    thread = yield from find_thread(thread_id, space)
    row = None if thread is None else (yield from _head(thread, branch, seal_of(thread, seals)))
    if thread is None or row is None:
        return None
    seal = seal_of(thread, seals)
    held = fitting(known, thread)
    found = (yield from completed(thread, [row], seal))[0]
    return Loaded(found, (yield from held_state(thread, held, row.position, seal)), held)


@op(reads=True)
def newest(thread_id: str, space: str, branch: str, seals: Seals) -> Steps[Found | None]:
    """The newest checkpoint of a branch, or None."""
    thread = yield from find_thread(thread_id, space)
    row = None if thread is None else (yield from _head(thread, branch, seal_of(thread, seals)))
    if thread is None or row is None:
        return None
    return (yield from completed(thread, [row], seal_of(thread, seals)))[0]


def _head(thread: Thread, branch: str, seal: Seal) -> Steps[RowOf | None]:
    """The newest checkpoint of a branch, or None. ``ChecksumMismatch`` when it is not the one that was."""
    if branch == MAIN:
        row = None if thread.head is None else (yield from row_at(thread, thread.head))
        check_thread(thread, seal, b"" if row is None else bytes(row.mac))
        return row
    for one in (yield from branches_of(thread, seal)):
        if one.name == branch:
            return (yield from row_at(thread, one.head))
    return None


@op(reads=True, long=True)
def load_many(thread_id: str, space: str, positions: list[int], seals: Seals) -> Steps[list[Loaded]]:
    """Checkpoints at some positions with their states; each item of a log is read once."""
    thread = yield from need_thread(thread_id, space)
    seal = seal_of(thread, seals)
    rows: list[RowOf] = []
    for position in positions:
        row = yield from fetch_one("checkpoints.at", thread=thread.ord, position=position)
        if row is not None:
            rows.append(row_of(row))
    found = yield from completed(thread, rows, seal)
    read = yield from states(thread, {one.row.position: one.entry for one in found}, seal)
    return [Loaded(one, read[one.row.position]) for one in found]


@op(reads=True, long=True)
def page(query: Query, seals: Seals) -> Steps[list[Found]]:
    """Checkpoints of a thread, newest first, without their states; none for a thread that does not exist."""
    thread = yield from find_thread(query.thread_id, query.space)
    if thread is None:
        return []
    seal = seal_of(thread, seals)
    flags: set[str] = set()
    number = 0
    if query.branch is not None:
        number = yield from _number(thread, query.branch, seal)
        flags.add("branch")
    if not query.include_failed:
        flags.add("working")
    if query.tags:
        flags.add("tags")
    flags |= {name for name in ("before", "after") if getattr(query, name) is not None}
    rows = yield from fetch_all(
        "checkpoints.page", flags=frozenset(flags), thread=thread.ord, above=query.above, before=query.before, after=query.after, branch=number,
        tags=list(query.tags), tag_count=len(query.tags), limit=query.limit,
    )  # fmt: skip
    found = [row_of(row) for row in rows]
    if not flags:
        check_page(thread, seal, [row.position for row in found], query.above, is_last=len(found) < query.limit)
        for row in found:
            if row.position == thread.head:
                check_thread(thread, seal, bytes(row.mac))
    return (yield from completed(thread, found, seal, entries=query.entries))


def _number(thread: Thread, branch: str, seal: Seal) -> Steps[int]:
    if branch == MAIN:
        return 0
    for row in (yield from branches_of(thread, seal)):
        if row.name == branch:
            return row.number
    return -1


@op(reads=True, long=True)
def at_time(thread_id: str, space: str, at: Micros, branch: str | None, seals: Seals) -> Steps[Loaded | None]:
    """The checkpoint that was the newest at a time, with its state, or None."""
    thread = yield from find_thread(thread_id, space)
    if thread is None:
        return None
    flags = frozenset[str]() if branch is None else frozenset({"branch"})
    number = 0 if branch is None else (yield from _number(thread, branch, seal_of(thread, seals)))
    row = yield from fetch_one("checkpoints.by_time", flags=flags, thread=thread.ord, at=at, branch=number)
    if row is None:
        return None
    seal = seal_of(thread, seals)
    found = (yield from completed(thread, [row_of(row)], seal))[0]
    state = yield from states(thread, {found.row.position: found.entry}, seal)
    return Loaded(found, state[found.row.position])


@op(reads=True)
def lineage(thread_id: str, space: str, last: int, first: int | None, seals: Seals) -> Steps[list[int]]:
    """The positions of what a checkpoint comes from, itself the last, from ``first`` on; those that are there.

    ``Invalid`` when it does not come from ``first``, ``ChecksumMismatch`` when one is missing that was not taken away.
    """
    thread = yield from need_thread(thread_id, space)
    seal = seal_of(thread, seals)
    low = 0 if first is None else min(first, last)
    rows = yield from fetch_all("checkpoints.parents", thread=thread.ord, low=low, high=last)
    parents: dict[int, int | None] = {position: parent for position, parent, _ in rows}
    places = {position: branch for position, _, branch in rows}
    check_page(thread, seal, sorted(places, reverse=True), last + 1, is_last=low == 0)
    found = line(last, places, (yield from branches_of(thread, seal)))
    if first is not None and first not in found:
        raise Invalid("from_checkpoint is not on the way to the last one", field="from_checkpoint")
    for at, before in pairwise(found):
        if parents[at] != before and parents[at] in places:
            raise ChecksumMismatch(f"checkpoint {at} of thread {thread_id!r} is on another branch", thread=thread_id)
    return found[::-1]


@op(reads=True)
def branches(thread_id: str, space: str, seals: Seals) -> Steps[tuple[Thread | None, list[BranchRow], dict[int, str]]]:
    """A thread, its branches (their metadata in the clear), and the ids of the checkpoints that they name."""
    thread = yield from find_thread(thread_id, space)
    if thread is None:
        return None, [], {}
    seal = seal_of(thread, seals)
    rows = [
        msgspec.structs.replace(row, metadata=open_metadata(seal, thread, row))
        for row in (yield from branches_of(thread, seal))
    ]
    main = None if thread.head is None else (yield from row_at(thread, thread.head))
    check_thread(thread, seal, b"" if main is None else bytes(main.mac))
    wanted = {thread.head, *(row.head for row in rows), *(row.fork_of for row in rows)} - {None}
    ids: dict[int, str] = {}
    for position in sorted(p for p in wanted if p is not None):
        row = yield from fetch_one("checkpoints.at", thread=thread.ord, position=position)
        if row is not None:
            ids[position] = row[2]
        else:
            check_taken(thread, seal, [position])
    return thread, rows, ids


@op(reads=True)
def threads(
    space: str | None, after: tuple[str, str] | None, limit: int, thread_id: str | None = None
) -> Steps[list[Thread]]:
    """Threads by id, from a cursor on."""
    flags = {name for name, given in (("space", space), ("cursor", after), ("one", thread_id)) if given is not None}
    after_id, after_space = after or ("", "")
    rows = yield from fetch_all(
        "checkpoints.threads", flags=frozenset(flags), space=space, after_id=after_id, after_space=after_space,
        id=thread_id, limit=limit,
    )  # fmt: skip
    return [thread_of(row) for row in rows]


@op(reads=True)
def position_of(checkpoint_id: str, thread_id: str, space: str) -> Steps[int | None]:
    """Where a checkpoint of a thread stands, or None."""
    thread = yield from find_thread(thread_id, space)
    row = None if thread is None else (yield from in_thread(thread, checkpoint_id))
    return None if row is None else row.position


@op(reads=True)
def common_ancestor(thread_id: str, space: str, a: int, b: int, seals: Seals) -> Steps[str | None]:
    """The id of the newest checkpoint that two come from, None when there is none left."""
    thread = yield from need_thread(thread_id, space)
    rows = yield from fetch_all("checkpoints.parents", thread=thread.ord, low=0, high=max(a, b))
    places = {position: branch for position, _, branch in rows}
    branches = yield from branches_of(thread, seal_of(thread, seals))
    common = set(line(a, places, branches)).intersection(line(b, places, branches))
    return (yield from row_at(thread, max(common))).id if common else None
