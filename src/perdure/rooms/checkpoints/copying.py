"""Whole threads as plain values: to copy one, to take it along in a file, or to seal it with another key.

A dump holds what is sealed in the clear; writing it seals everything anew under its new name, so nothing of one thread
can be put in another's place. Segments that are equal in the same key domain are shared, so a copy costs little.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import msgspec

from perdure.grammar import Steps, asking, execute, execute_many, fetch_all, fetch_one, note, op, together
from perdure.rooms.checkpoints import logs
from perdure.rooms.checkpoints.binding import (
    Facts,
    chain_problems,
    checkpoint_mac,
    facts_of,
    open_metadata,
    seal_facts,
    seal_metadata,
    with_positions,
)  # fmt: skip
from perdure.rooms.checkpoints.changing import all_rows, put_branch, remove
from perdure.rooms.checkpoints.logs import ENTRIES, Seal, Segment, Thread, open_item, open_segment
from perdure.rooms.checkpoints.ops import (
    branch_rows,
    change_thread,
    checked_entries,
    find_thread,
    need_thread,
    open_thread,
    seal_of,
)  # fmt: skip
from perdure.rooms.checkpoints.tree import Wanted, read_entry, wanted_by
from perdure.rooms.checkpoints.values import BranchRow, RowOf
from perdure.values.clock import Micros
from perdure.values.errors import ChecksumMismatch, Conflict, Undecodable

_MANY = 2**62
_ASIDE = "\x1f"
"""It begins the space to which a thread moves while it is sealed anew in its place; no other space begins with it."""
_pack = msgspec.msgpack.Encoder().encode


class Stretch(msgspec.Struct, frozen=True):
    """Items of a log that follow each other; ``sealed`` when they are a segment together."""

    log: int
    low: int
    items: list[bytes]
    sealed: bool


class Made(msgspec.Struct, frozen=True):
    """A checkpoint of a dump."""

    position: int
    id: str
    parent: int | None
    branch: int
    status: int
    run_id: str | None
    size: int
    created_at: int
    tags: tuple[str, ...] = ()


class Fork(msgspec.Struct, frozen=True):
    """A branch of a dump."""

    number: int
    name: str
    id: str
    head: int
    fork_of: int
    metadata: str
    created_at: int


class Write(msgspec.Struct, frozen=True):
    """What a task wrote beside a checkpoint."""

    checkpoint: str
    task_id: str
    idx: int
    task_path: str
    payload: bytes


class Dump(msgspec.Struct, frozen=True):
    """A thread with everything in it, unsealed."""

    id: str
    space: str
    next_position: int
    next_log: int
    head: int | None
    pruned: list[tuple[int, int]]
    checkpoints: list[Made]
    branches: list[Fork]
    stretches: list[Stretch]
    writes: list[Write]


# -- out ---------------------------------------------------------------------------------------------------------------------


@op(reads=True, long=True)
def dump(thread_id: str, space: str, seals: Mapping[str, Seal]) -> Steps[Dump]:
    """A thread with everything in it. ``NotFound`` when there is none, ``Damaged`` when something is wrong with it."""
    thread = yield from need_thread(thread_id, space)
    return (yield from dumped(thread, seal_of(thread, seals)))


def dumped(thread: Thread, seal: Seal) -> Steps[Dump]:
    """A thread with everything in it. ``Damaged`` when something is wrong with it: a copy would be above suspicion."""
    rows = (yield from all_rows(thread))[::-1]
    branches = yield from branch_rows(thread)
    for problem in chain_problems(thread, rows, branches, seal):
        raise ChecksumMismatch(problem, thread=thread.id)
    entries = yield from checked_entries(thread, rows, seal)
    stretches = yield from _stretches(thread, seal)
    _check_whole(thread, wanted_by([entry.tree for entry in entries.values()]), stretches)
    tags: dict[int, list[str]] = {}
    for position, tag in (yield from fetch_all("checkpoints.tags", thread=thread.ord, low=0, high=_MANY)):
        tags.setdefault(position, []).append(tag)
    found = yield from fetch_all("checkpoints.all_writes", thread=thread.ord)
    return Dump(
        thread.id, thread.space, thread.next_position, thread.next_log, thread.head, facts_of(thread, seal).pruned,
        [
            Made(row.position, row.id, row.parent, row.branch, row.status, row.run_id, row.size, row.created_at,
                 tuple(tags.get(row.position, ())))
            for row in rows
        ],
        [
            Fork(b.number, b.name, b.id, b.head, b.fork_of, open_metadata(seal, thread, b), b.created_at)
            for b in branches
        ],
        stretches,
        [
            Write(checkpoint, task, idx, path, seal.open(payload, write_name(thread, checkpoint, task, idx)))
            for checkpoint, task, idx, path, payload in found
        ],
    )  # fmt: skip


def _check_whole(thread: Thread, wanted: Wanted, stretches: list[Stretch]) -> None:
    """Nothing, when every item that is wanted is there. ``ChecksumMismatch`` else."""
    there: dict[int, list[tuple[int, int]]] = {}
    for stretch in stretches:
        there.setdefault(stretch.log, []).append((stretch.low, stretch.low + len(stretch.items)))
    held = {log: with_positions(ranges, ()) for log, ranges in there.items()}
    singles = [(log, number, number + 1) for log, numbers in wanted.singles.items() for number in numbers]
    for log, low, high in [*singles, *wanted.runs]:
        if not any(first <= low and high <= end for first, end in held.get(log, ())):
            raise ChecksumMismatch(f"log {log} of thread {thread.id!r} lacks items after {low}", thread=thread.id)


def write_name(thread: Thread, checkpoint_id: str, task_id: str, idx: int) -> tuple[bytes, ...]:
    """What binds a task's write to its place."""
    return b"write", thread.key, checkpoint_id.encode(), task_id.encode(), b"%d" % idx


def _stretches(thread: Thread, seal: Seal) -> Steps[list[Stretch]]:
    found: list[Stretch] = []
    for log, low, high, _ in (yield from fetch_all("checkpoints.all_runs", thread=thread.ord)):
        rows = yield from fetch_all("checkpoints.segments", thread=thread.ord, log=log, low=low, high=high)
        if len(rows) != 1:
            raise ChecksumMismatch(f"a segment of log {log} of thread {thread.id!r} is missing", thread=thread.id)
        first, segment = open_segment(seal, thread, log, rows[0])
        found.append(Stretch(log, first, _cut(segment), sealed=True))
    for log in sorted({log for log, _ in (yield from fetch_all("checkpoints.all_items", thread=thread.ord))}):
        rows = yield from fetch_all("checkpoints.items", thread=thread.ord, log=log, low=0, high=_MANY)
        for ordinal, payload in rows:
            item = open_item(seal, thread, log, ordinal, payload)
            last = found[-1] if found else None
            if last is not None and not last.sealed and last.log == log and last.low + len(last.items) == ordinal:
                last.items.append(item)
            else:
                found.append(Stretch(log, ordinal, [item], sealed=False))
    return found


def _cut(segment: Segment) -> list[bytes]:
    found: list[bytes] = []
    start = 0
    for size in segment.sizes:
        found.append(segment.body[start : start + size])
        start += size
    return found


# -- in ----------------------------------------------------------------------------------------------------------------------


@op(long=True)
def take_in(
    dump: Dump, thread_id: str, space: str, seal: Seal, now: Micros, new_id: Callable[[], str] | None, *, compress: bool
) -> Steps[Thread]:
    """Writes a dump as a new thread, and notes it. ``Conflict`` when one of its checkpoints is there already."""
    for made in dump.checkpoints if new_id is None else ():
        if (yield from fetch_one("checkpoints.by_id", flags=frozenset({"space"}), id=made.id, space=space)) is not None:
            raise Conflict(f"there is a checkpoint {made.id!r} already", field="thread_id", hint="give it another id")
    thread = yield from load(dump, thread_id, space, seal, now, new_id, compress=compress)
    yield from note("thread", "create", thread_id, None, now)
    return thread


def load(
    dump: Dump, thread_id: str, space: str, seal: Seal, now: Micros, new_id: Callable[[], str] | None, *,
    compress: bool, born: Micros | None = None,
) -> Steps[Thread]:  # fmt: skip
    """Writes a dump as a new thread, with new ids when ``new_id`` is given. ``Conflict`` when the thread is there.

    It was made at ``born``, when that is given, and else now.
    """
    if (yield from find_thread(thread_id, space)) is not None:
        raise Conflict(f"there is a thread {thread_id!r} already", field="thread_id")
    thread = yield from open_thread(thread_id, space, seal, now if born is None else born)
    entries: dict[int, tuple[bytes, Stretch]] = {}
    for stretch in dump.stretches:
        if stretch.log == ENTRIES:
            entries |= {stretch.low + at: (item, stretch) for at, item in enumerate(stretch.items)}
    in_line = sorted(dump.checkpoints, key=lambda made: made.position)
    ids = {made.id: made.id if new_id is None else new_id() for made in in_line}
    macs = yield from _load_checkpoints(dump, thread, entries, ids, seal)
    for stretch in dump.stretches:
        yield from _load_stretch(stretch, thread, seal, compress=compress)
    for fork in dump.branches:
        id = fork.id if new_id is None else new_id()
        metadata = seal_metadata(seal, thread, id, fork.metadata)
        row = BranchRow(fork.number, fork.name, id, fork.head, fork.fork_of, metadata, fork.created_at, b"")
        yield from put_branch(thread, row, seal)
    for write in dump.writes:
        checkpoint = ids.get(write.checkpoint, write.checkpoint)
        payload = seal.close(write.payload, write_name(thread, checkpoint, write.task_id, write.idx), compress=compress)
        yield from execute(
            "checkpoints.put_write", flags=frozenset({"keep"}), thread=thread.ord, checkpoint=checkpoint, task_id=write.task_id, idx=write.idx,
            task_path=write.task_path, payload=payload,
        )  # fmt: skip
    if dump.head is not None and dump.head not in macs:
        raise Undecodable("the head of the thread is not among its checkpoints")
    pruned = seal_facts(thread, Facts(dump.pruned, len(dump.branches)), seal)
    return (
        yield from change_thread(
            thread, now, seal, b"" if dump.head is None else macs[dump.head], next_position=dump.next_position,
            next_log=dump.next_log, head=dump.head, in_order=int(all(a < b for a, b in pairwise(ids.values()))),
            pruned=pruned,
        )
    )  # fmt: skip


def _load_checkpoints(
    dump: Dump, thread: Thread, entries: dict[int, tuple[bytes, Stretch]], ids: Mapping[str, str], seal: Seal
) -> Steps[dict[int, bytes]]:
    """The macs of the checkpoints, which are written in order: each entry names the mac of the one before."""
    macs: dict[int, bytes] = {}
    for made in sorted(dump.checkpoints, key=lambda one: one.position):
        if made.position not in entries:
            raise Undecodable(f"the entry of checkpoint {made.position} is missing")
        data, stretch = entries[made.position]
        link = b"" if made.parent is None else macs.get(made.parent, b"")
        data = _pack(msgspec.structs.replace(read_entry(data), link=link))
        stretch.items[made.position - stretch.low] = data
        id = ids[made.id]
        row = RowOf(
            thread.ord, made.position, id, made.parent, made.branch, made.status, made.run_id, made.size, made.created_at,
            b"", None, None,
        )  # fmt: skip
        macs[made.position] = checkpoint_mac(seal, thread, row, data)
        yield from together(
            asking(
                "checkpoints.add", thread=thread.ord, position=made.position, id=id, parent=made.parent,
                branch=made.branch, status=made.status, run_id=made.run_id, size=made.size, now=made.created_at,
                mac=macs[made.position],
            ),
            *(asking("checkpoints.tag", thread=thread.ord, tag=tag, position=made.position) for tag in made.tags),
        )  # fmt: skip
    return macs


def _load_stretch(stretch: Stretch, thread: Thread, seal: Seal, *, compress: bool) -> Steps[None]:
    if stretch.sealed:
        yield from logs.seal_run(thread, stretch.log, stretch.low, stretch.items, seal, compress=compress)
        return
    yield from execute_many(
        "checkpoints.put_item",
        [
            {
                "thread": thread.ord, "log": stretch.log, "ordinal": ordinal,
                "payload": logs.close_item(seal, thread, stretch.log, ordinal, item, compress=compress),
            }
            for ordinal, item in enumerate(stretch.items, stretch.low)
        ],
    )  # fmt: skip


@op(long=True)
def copy(
    source: str, target: str, space: str, target_space: str, seals: Mapping[str, Seal], now: Micros,
    new_id: Callable[[], str] | None, *, compress: bool,
) -> Steps[int]:  # fmt: skip
    """How many checkpoints the new thread has: a copy of another, which shares its segments."""
    thread = yield from need_thread(source, space)
    seal = seal_of(thread, seals)
    found = yield from dumped(thread, seal)
    yield from load(found, target, target_space, seal, now, new_id, compress=compress)
    yield from note("thread", "create", target, source, now)
    return len(found.checkpoints)


@op(long=True)
def reseal(thread_id: str, space: str, seals: Mapping[str, Seal], into: Seal, *, compress: bool) -> Steps[bool]:
    """Seals a thread anew in another key domain, in one transaction; false when it is in it already."""
    thread = yield from find_thread(thread_id, space, locked=True)
    if thread is None or thread.domain == into.domain:
        return False
    found = yield from dumped(thread, seal_of(thread, seals))
    aside = _ASIDE + space
    yield from execute("checkpoints.rename_thread", thread=thread.ord, id=thread_id, space=aside)
    yield from load(found, thread_id, space, into, thread.updated_at, None, compress=compress, born=thread.created_at)
    yield from remove(thread)
    return True


@op(reads=True)
def outside(domain: str, limit: int) -> Steps[list[tuple[str, str]]]:
    """(id, space) of threads that are sealed in another domain than this one."""
    rows = yield from fetch_all("checkpoints.threads_in_domain", domain=domain, limit=limit)
    return [(row[1], row[2]) for row in rows]
