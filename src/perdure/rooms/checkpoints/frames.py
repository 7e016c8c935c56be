"""Recipes for frameworks that bring ids, parents and namespaces of their own (LangGraph).

A namespace is a thread of its own space. Any checkpoint may be the parent of any other, the newest is the one with the
greatest id, and what tasks wrote beside a checkpoint may come before the checkpoint itself. Ids mostly grow from one
checkpoint to the next; ``Thread.in_order`` says whether they always did, and then positions are in the order of ids.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from perdure.grammar import Steps, execute, fetch_all, note, op
from perdure.rooms.checkpoints import copying
from perdure.rooms.checkpoints.binding import check_thread, without
from perdure.rooms.checkpoints.changing import all_rows, remove, take_away
from perdure.rooms.checkpoints.logs import Known, Seal, Thread, thread_of
from perdure.rooms.checkpoints.ops import (
    Found,
    NewCheckpoint,
    Saved,
    append,
    change_thread,
    completed,
    find_thread,
    fitting,
    held_state,
    in_thread,
    open_thread,
    row_at,
    seal_of,
    states,
    thread_at,
)  # fmt: skip
from perdure.rooms.checkpoints.tree import Branching
from perdure.rooms.checkpoints.values import RowOf, row_of
from perdure.values.clock import Micros
from perdure.values.errors import NotFound

Seals = Mapping[str, Seal]
_END = 2**62
_MANY = 1_000


class TaskWrite(msgspec.Struct, frozen=True):
    """What a task wrote to a channel; ``payload`` is the framework's."""

    task_id: str
    idx: int
    task_path: str
    payload: bytes


class Frame(msgspec.Struct, frozen=True):
    """A framework's checkpoint: its state as parts, and what tasks wrote beside it."""

    found: Found
    state: Branching
    writes: tuple[TaskWrite, ...]
    known: Known | None = None


class Kept(NotFound):
    """A channel was to be taken from the parent, which does not have it: the caller must give its value."""

    code = "refused.not_found.kept"


# -- writing -----------------------------------------------------------------------------------------------------------------


@op
def put(
    new: NewCheckpoint, state: Branching, kept: Sequence[str], known: Known | None, seal: Seal, now: Micros, *,
    compress: bool,
) -> Steps[Saved]:  # fmt: skip
    """Saves a framework's checkpoint, in place of one with the same id; the channels ``kept`` are the parent's.

    ``Kept`` when the parent does not have them.
    """
    thread = yield from open_thread(new.thread_id, new.space, seal, now)
    held = fitting(known, thread)
    parent = None if new.parent is None else (yield from in_thread(thread, new.parent))
    if parent is not None and parent.id == new.id:  # its own parent: what it was is what it is made from
        yield from held_state(thread, held, parent.position, seal)
    if kept:
        base = None if parent is None else (yield from held_state(thread, held, parent.position, seal))
        missing = list(kept) if base is None else [name for name in kept if name not in base.children]
        if base is None or missing:
            raise Kept(f"the parent of {new.id!r} does not hold {missing[0]!r}")
        state = Branching(state.children | {name: base.children[name] for name in kept})
    newest = None if thread.head is None else (yield from row_at(thread, thread.head))
    check_thread(thread, seal, b"" if newest is None else bytes(newest.mac))
    if newest is not None and new.id < newest.id:
        thread = msgspec.structs.replace(thread, in_order=0)
    if newest is not None and new.id <= newest.id:  # it may be there: one that is greater than all is not
        thread = yield from _replaced(thread, new.id, seal)
    becomes_head = newest is None or new.id >= newest.id
    yield from append(
        thread, held, new, state, None if parent is None else parent.position, seal, now, becomes_head=becomes_head,
        compress=compress,
    )  # fmt: skip
    return Saved(new.id, held)


def _replaced(thread: Thread, checkpoint_id: str, seal: Seal) -> Steps[Thread]:
    """The thread without the checkpoint of that id, whose place is known to be empty from now on."""
    old = yield from in_thread(thread, checkpoint_id)
    if old is None:
        return thread
    yield from execute("checkpoints.remove", thread=thread.ord, position=old.position)
    yield from execute("checkpoints.remove_tags", thread=thread.ord, position=old.position)
    head = None if thread.head == old.position else thread.head
    return msgspec.structs.replace(thread, pruned=without(thread, [old.position], seal), head=head)


@op
def put_writes(
    thread_id: str, space: str, checkpoint_id: str, writes: Sequence[TaskWrite], seal: Seal, now: Micros, *,
    replace: bool, compress: bool,
) -> Steps[None]:  # fmt: skip
    """Keeps what a task wrote; again with ``replace`` it counts, else the first time does."""
    thread = yield from open_thread(thread_id, space, seal, now)
    flags = frozenset({"replace" if replace else "keep"})
    for write in writes:
        name = copying.write_name(thread, checkpoint_id, write.task_id, write.idx)
        yield from execute(
            "checkpoints.put_write", flags=flags, thread=thread.ord, checkpoint=checkpoint_id, task_id=write.task_id,
            idx=write.idx, task_path=write.task_path, payload=seal.close(write.payload, name, compress=compress),
        )  # fmt: skip
    yield from note("checkpoint", "write", checkpoint_id, thread_id, now)


# -- reading -----------------------------------------------------------------------------------------------------------------


@op(reads=True, long=True)
def get(
    thread_id: str, space: str, checkpoint_id: str | None, known: Known | None, seals: Seals
) -> Steps[Frame | None]:
    """One checkpoint with its writes, the newest without an id; None when there is none. What is known is not read."""
    thread = yield from find_thread(thread_id, space)
    if thread is None:
        return None
    if checkpoint_id is not None:
        row = yield from in_thread(thread, checkpoint_id)
    else:
        row = None if thread.head is None else (yield from row_at(thread, thread.head))
        check_thread(thread, seal_of(thread, seals), b"" if row is None else bytes(row.mac))
    if row is None:
        return None
    held = fitting(known, thread)
    seal = seal_of(thread, seals)
    found = (yield from completed(thread, [row], seal))[0]
    state = yield from held_state(thread, held, row.position, seal)
    writes = yield from writes_of(thread, [row.id], seal)
    return Frame(found, state, tuple(writes.get(row.id, ())), held)


def _frames(thread: Thread, rows: Sequence[RowOf], seals: Seals) -> Steps[list[Frame]]:
    seal = seal_of(thread, seals)
    found = yield from completed(thread, rows, seal)
    read = yield from states(thread, {one.row.position: one.entry for one in found}, seal)
    writes = yield from writes_of(thread, [row.id for row in rows], seal)
    return [Frame(one, read[one.row.position], tuple(writes.get(one.row.id, ()))) for one in found]


def writes_of(thread: Thread, checkpoint_ids: Sequence[str], seal: Seal) -> Steps[dict[str, list[TaskWrite]]]:
    """What tasks wrote beside checkpoints, by path, task and number."""
    rows = yield from fetch_all("checkpoints.writes", thread=thread.ord, checkpoints=list(checkpoint_ids))
    found: dict[str, list[TaskWrite]] = {}
    for checkpoint, task_id, idx, task_path, payload in rows:
        opened = seal.open(payload, copying.write_name(thread, checkpoint, task_id, idx))
        found.setdefault(checkpoint, []).append(TaskWrite(task_id, idx, task_path, opened))
    return found


@op(reads=True, long=True)
def rows_before(thread_id: str, space: str, before: str | None, limit: int, seals: Seals) -> Steps[list[Found]]:
    """Checkpoints of a thread without their states, the greatest id first, those with a lower id than ``before``."""
    thread = yield from find_thread(thread_id, space)
    if thread is None:
        return []
    rows: list[RowOf]
    if thread.in_order:
        above = _END
        if before is not None:
            row = yield from in_thread(thread, before)
            above = _END if row is None else row.position
        found = yield from fetch_all("checkpoints.page", thread=thread.ord, above=above, limit=limit)
        rows = [row for row in map(row_of, found) if before is None or row.id < before]
        while len(found) == limit and not rows:  # ``before`` is no checkpoint of the thread: look further down
            above = row_of(found[-1]).position
            found = yield from fetch_all("checkpoints.page", thread=thread.ord, above=above, limit=limit)
            rows = [row for row in map(row_of, found) if before is None or row.id < before]
    else:
        every = sorted((yield from all_rows(thread)), key=lambda row: row.id, reverse=True)
        rows = [row for row in every if before is None or row.id < before][:limit]
    return (yield from completed(thread, rows, seal_of(thread, seals)))


@op(reads=True, long=True)
def frames_of(thread_id: str, space: str, checkpoint_ids: Sequence[str], seals: Seals) -> Steps[list[Frame]]:
    """Checkpoints with their states and writes, in the order of the ids; those that are gone are left out."""
    thread = yield from find_thread(thread_id, space)
    if thread is None:
        return []
    rows: list[RowOf] = []
    for checkpoint_id in checkpoint_ids:
        row = yield from in_thread(thread, checkpoint_id)
        if row is not None:
            rows.append(row)
    return (yield from _frames(thread, rows, seals)) if rows else []


class Listing(msgspec.Struct, frozen=True):
    """What is listed: the checkpoints of a framework's threads, of one id or one space, with lower ids than ``before``."""

    family: str
    thread_id: str | None = None
    space: str | None = None
    before: str | None = None


Fits = Callable[[Found], bool]


@op(reads=True, long=True)
def listed(
    listing: Listing, after: RowOf | None, fits: Fits, most: int, page: int, seals: Seals
) -> Steps[tuple[list[Frame], RowOf | None]]:
    """At most ``most`` frames that fit, the greatest id first, of the ``page`` checkpoints after a row; the last of those.

    None when there were no more.
    """
    given = {"one": listing.thread_id, "space": listing.space, "before": listing.before, "cursor": after}
    rows = yield from fetch_all(
        "checkpoints.newest_of", flags=frozenset(name for name, value in given.items() if value is not None),
        family=listing.family, beyond=_beyond(listing.family), id=listing.thread_id, space=listing.space,
        before=listing.before, after_id="" if after is None else after.id, after_thread=0 if after is None else after.thread,
        limit=page,
    )  # fmt: skip
    found = [row_of(row) for row in rows]
    threads: dict[int, Thread] = {}
    fitting: set[tuple[int, int]] = set()
    for ord, own in _by_thread(found).items():
        threads[ord] = yield from thread_at(ord)
        complete = yield from completed(threads[ord], own, seal_of(threads[ord], seals))
        fitting |= {(ord, one.row.position) for one in complete if fits(one)}
    chosen = [row for row in found if (row.thread, row.position) in fitting][:most]
    frames: dict[tuple[int, int], Frame] = {}
    for ord, own in _by_thread(chosen).items():
        for frame in (yield from _frames(threads[ord], own, seals)):
            frames[ord, frame.found.row.position] = frame
    return [frames[row.thread, row.position] for row in chosen], found[-1] if found else None


def _by_thread(rows: Sequence[RowOf]) -> dict[int, list[RowOf]]:
    found: dict[int, list[RowOf]] = {}
    for row in rows:
        found.setdefault(row.thread, []).append(row)
    return found


def _beyond(family: str) -> str:
    """Names that begin with a family's are from it on and before this."""
    return family[:-1] + chr(ord(family[-1]) + 1)


@op(reads=True)
def spaces(thread_id: str | None, family: str, after: tuple[str, str] | None, limit: int) -> Steps[list[Thread]]:
    """The threads of a framework (of one id), a page by id and space."""
    flags = {name for name, given in (("one", thread_id), ("cursor", after)) if given is not None}
    after_id, after_space = after or ("", "")
    rows = yield from fetch_all(
        "checkpoints.threads_of", flags=frozenset(flags), family=family, beyond=_beyond(family),
        after_id=after_id, after_space=after_space, id=thread_id, limit=limit,
    )  # fmt: skip
    return [thread_of(row) for row in rows]


@op(reads=True)
def every_space(thread_id: str, family: str) -> Steps[list[Thread]]:
    """All threads of a framework with an id: a namespace each, and a run makes one for each call of a subgraph."""
    found: list[Thread] = []
    after: tuple[str, str] | None = None
    while True:
        page = yield from spaces(thread_id, family, after, _MANY)
        found += page
        if len(page) < _MANY:
            return found
        after = (page[-1].id, page[-1].space)


@op(reads=True, long=True)
def there(thread_id: str, space: str) -> Steps[tuple[set[str], set[tuple[str, str, int]]]]:
    """What a thread has: the ids of its checkpoints, and of which checkpoint, task and number there are writes."""
    thread = yield from find_thread(thread_id, space)
    if thread is None:
        return set(), set()
    ids = {row.id for row in (yield from all_rows(thread))}
    rows = yield from fetch_all("checkpoints.all_writes", thread=thread.ord)
    return ids, {(checkpoint, task_id, idx) for checkpoint, task_id, idx, _, _ in rows}


# -- taking away -------------------------------------------------------------------------------------------------------------


@op(long=True)
def delete(thread_id: str, family: str, now: Micros) -> Steps[int]:
    """How many namespaces a thread had; all of it is gone."""
    threads = yield from every_space(thread_id, family)
    for thread in threads:
        locked = yield from find_thread(thread_id, thread.space, locked=True)
        if locked is not None:
            yield from remove(locked)
    if threads:
        yield from note("thread", "delete", thread_id, None, now)
    return len(threads)


@op(long=True)
def copy(source: str, target: str, family: str, seals: Seals, into: Seal, now: Micros, *, compress: bool) -> Steps[int]:
    """How many namespaces of a thread were copied under another id, in place of what was there; ids stay the same.

    Where there is nothing to copy, the target stays as it is.
    """
    threads = yield from every_space(source, family)
    if not threads:
        return 0
    yield from delete(target, family, now)
    for thread in threads:
        dump = yield from copying.dumped(thread, seal_of(thread, seals))
        yield from copying.load(dump, target, thread.space, into, now, None, compress=compress)
    yield from note("thread", "create", target, source, now)
    return len(threads)


Needs = Callable[[Sequence[Found], set[str]], set[str]]
"""The ids of more checkpoints that must stay so that some can be read: from all, and the ids of those that stay."""


@op(long=True)
def keep_newest(thread_id: str, space: str, needed: Needs, seals: Seals, now: Micros) -> Steps[int]:
    """How many checkpoints of a thread were taken away: all but the newest, and those that it needs."""
    thread = yield from find_thread(thread_id, space, locked=True)
    if thread is None or thread.head is None:
        return 0
    newest = (yield from row_at(thread, thread.head)).id
    return (yield from _keep(thread, {newest}, needed, seal_of(thread, seals), now))


@op(long=True)
def delete_for_runs(run_ids: Sequence[str], family: str, needed: Needs, seals: Seals, now: Micros) -> Steps[int]:
    """How many checkpoints of runs were taken away: all but those that others need."""
    taken = 0
    made: dict[int, set[str]] = {}
    for run_id in run_ids:
        for row in (yield from fetch_all("checkpoints.of_run", run_id=run_id)):
            made.setdefault(row[0], set()).add(row[2])
    for ord, going in sorted(made.items()):
        thread = yield from thread_at(ord, locked=True)
        if thread.space.startswith(family):
            chosen = {row.id for row in (yield from all_rows(thread))} - going
            taken += yield from _keep(thread, chosen, needed, seal_of(thread, seals), now)
    return taken


def _keep(thread: Thread, chosen: set[str], needed: Needs, seal: Seal, now: Micros) -> Steps[int]:
    found = yield from completed(thread, (yield from all_rows(thread)), seal)
    staying = chosen | needed(found, chosen)
    going = [one.row for one in found if one.row.id not in staying]
    if not going:
        return 0
    if len(going) == len(found):
        yield from remove(thread)
        yield from note("thread", "delete", thread.id, None, now)
        return len(going)
    newest = max((one.row for one in found if one.row.id in staying), key=lambda row: row.id)
    macs = {one.row.position: bytes(one.row.mac) for one in found}
    check_thread(thread, seal, b"" if thread.head is None else macs.get(thread.head, b""))
    if thread.head != newest.position:
        thread = yield from change_thread(thread, now, seal, bytes(newest.mac), head=newest.position)
    yield from take_away(thread, going, seal, now)
    return len(going)
