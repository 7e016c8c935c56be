"""Recipes on checkpoints: save one, read some, branch and tag."""

from collections.abc import Mapping, Sequence

import msgspec

from perdure.grammar import Ask, Steps, asking, execute, fetch_all, fetch_one, noting, op, together
from perdure.rooms.checkpoints import logs
from perdure.rooms.checkpoints.binding import (
    bound,
    check_branches,
    check_parents,
    check_thread,
    checkpoint_mac,
    thread_mac,
)  # fmt: skip
from perdure.rooms.checkpoints.logs import ENTRIES, Desk, Known, Seal, Thread, thread_of
from perdure.rooms.checkpoints.plan import place
from perdure.rooms.checkpoints.tree import Branching, Entry, Part, fill, read_entry, wanted_by, write_entry
from perdure.rooms.checkpoints.values import MAIN, NATIVE, BranchRow, RowOf, row_of
from perdure.values.clock import Micros
from perdure.values.errors import ChecksumMismatch, Conflict, Invalid, NotFound, WrongKey

HELD_STATES = 2
"""States of a thread that a process holds after a save: the newest, and one of another branch."""


class NewCheckpoint(msgspec.Struct, frozen=True):
    """What a checkpoint is saved with. ``parent`` is an id, or None for the branch's newest."""

    id: str
    thread_id: str
    metadata: bytes
    node: str | None
    tags: tuple[str, ...]
    status: int
    run_id: str | None
    parent: str | None
    branch: str
    space: str = NATIVE


class Saved(msgspec.Struct, frozen=True):
    """What a save answers: the checkpoint's id, and what is known of the thread now (None after a replay)."""

    id: str
    known: Known | None


class Found(msgspec.Struct, frozen=True):
    """A checkpoint as it is stored."""

    thread: Thread
    row: RowOf
    branch: str
    tags: tuple[str, ...]
    entry: Entry


# -- threads -----------------------------------------------------------------------------------------------------------------


def find_thread(thread_id: str, space: str = NATIVE, *, locked: bool = False) -> Steps[Thread | None]:
    """A thread, or None."""
    flags = frozenset({"locked"}) if locked else frozenset[str]()
    row = yield from fetch_one("checkpoints.thread", flags=flags, id=thread_id, space=space)
    return None if row is None else thread_of(row)


def thread_at(ord: int, *, locked: bool = False) -> Steps[Thread]:
    """The thread with a number. ``ChecksumMismatch`` when it is missing."""
    flags = frozenset({"locked"}) if locked else frozenset[str]()
    row = yield from fetch_one("checkpoints.thread_by_ord", flags=flags, thread=ord)
    if row is None:
        raise ChecksumMismatch(f"the thread of a checkpoint is missing (number {ord})")
    return thread_of(row)


def need_thread(thread_id: str, space: str = NATIVE, *, locked: bool = False) -> Steps[Thread]:
    """A thread. ``NotFound`` when there is none."""
    thread = yield from find_thread(thread_id, space, locked=locked)
    if thread is None:
        raise NotFound(f"there is no thread {thread_id!r}", field="thread_id")
    return thread


def open_thread(thread_id: str, space: str, seal: Seal, now: Micros) -> Steps[Thread]:
    """The thread, locked; made when it was not there. ``Damaged.WrongKey`` when it is sealed by another key.

    What is written under a key that is being rotated away would be lost with it, so that is looked at in the same
    transaction.
    """
    if seal.is_keyed and (yield from fetch_one("checkpoints.active_key", domain=seal.domain)) is None:
        raise WrongKey("the key that this was to be sealed with is being rotated away", hint="use the new one")
    thread = yield from find_thread(thread_id, space, locked=True)
    if thread is None:
        born = Thread(0, thread_id, space, 0, seal.domain, 0, 2, None, 1, None, now, now, b"")
        mac = thread_mac(seal, born, b"")
        yield from execute("checkpoints.add_thread", id=thread_id, space=space, domain=seal.domain, now=now, mac=mac)
        thread = yield from need_thread(thread_id, space, locked=True)
    if thread.domain != seal.domain:
        raise WrongKey(
            f"thread {thread.id!r} is sealed with another key",
            hint="CheckpointConfig(encryption_key=…)",
            thread=thread.id,
        )
    return thread


def change_thread(thread: Thread, now: Micros, seal: Seal, head_mac: bytes, **changes: object) -> Steps[Thread]:
    """The thread with other values in its row, which must be locked; ``head_mac`` is that of its head."""
    after = msgspec.structs.replace(thread, version=thread.version + 1, updated_at=now, **changes)
    mac = thread_mac(seal, after, head_mac)
    touched = yield from execute(
        "checkpoints.change_thread", thread=thread.ord, version=thread.version, domain=after.domain,
        next_position=after.next_position, next_log=after.next_log, head=after.head,
        in_order=after.in_order, pruned=after.pruned, now=now, mac=mac,
    )  # fmt: skip
    if touched != 1:
        raise Conflict(f"thread {thread.id!r} was changed at the same moment")
    return msgspec.structs.replace(after, mac=mac)


def branch_rows(thread: Thread) -> Steps[list[BranchRow]]:
    """The branches of a thread but ``main``, unchecked."""
    rows = yield from fetch_all("checkpoints.branches", thread=thread.ord)
    return [BranchRow(*row) for row in rows]


def branches_of(thread: Thread, seal: Seal) -> Steps[list[BranchRow]]:
    """The branches of a thread but ``main``. ``ChecksumMismatch`` when they are not those that were written."""
    rows = yield from branch_rows(thread)
    check_branches(thread, seal, rows)
    return rows


# -- saving ------------------------------------------------------------------------------------------------------------------


@op
def save(
    new: NewCheckpoint, state: Branching, known: Known | None, seal: Seal, now: Micros, *, compress: bool
) -> Steps[Saved]:
    """Saves a state, given as parts, as the next checkpoint of its thread.

    ``known`` is what the process holds of the thread, when it holds anything; it is not changed. ``Conflict`` when the
    parent is not the branch's newest any more, ``Invalid`` for a parent of another thread, ``NotFound`` for a branch.
    """
    thread = yield from open_thread(new.thread_id, new.space, seal, now)
    held = fitting(known, thread)
    check_thread(thread, seal, b"" if thread.head is None else (yield from _mac_at(thread, held, thread.head)))
    branch = None if new.branch == MAIN else (yield from _need_branch(thread, new.branch, seal))
    parent = yield from _parent(thread, new, thread.head if branch is None else branch.head)
    yield from append(thread, held, new, state, parent, seal, now, branch=branch, compress=compress)
    return Saved(new.id, held)


def fitting(known: Known | None, thread: Thread) -> Known:
    """A copy of what is known, when it is of this thread at this version; else one that knows nothing."""
    if known is not None and (known.thread, known.version) == (thread.ord, thread.version):
        return known.copy()
    return Known(thread.ord, thread.version)


def append(
    thread: Thread, held: Known, new: NewCheckpoint, state: Branching, parent: int | None, seal: Seal, now: Micros, *,
    branch: BranchRow | None = None, becomes_head: bool = True, compress: bool,
) -> Steps[Thread]:  # fmt: skip
    """The locked thread after a state was stored at its next position; ``held`` knows it then.

    With ``becomes_head`` it is the newest of its branch.
    """
    base = None if parent is None else (yield from held_state(thread, held, parent, seal))
    link = b"" if parent is None else held.macs[parent]
    yield from logs.load_ends(thread, held, logs.ends_needed(base) | {ENTRIES: 0}, seal)
    desk = Desk(thread, held)
    place(state, base, desk)
    position = thread.next_position
    if held.ends[ENTRIES].next != position:
        raise ChecksumMismatch(f"thread {thread.id!r} has {held.ends[ENTRIES].next} entries, not {position}")
    entry = write_entry(state, new.metadata, new.node, link)
    desk.append(ENTRIES, [entry])
    stored = yield from logs.write(thread, held, desk, seal, compress=compress)
    row = RowOf(
        thread.ord, position, new.id, parent, 0 if branch is None else branch.number, new.status, new.run_id, stored, now,
        b"", None, None,
    )  # fmt: skip
    mac = checkpoint_mac(seal, thread, row, entry)
    yield from together(*_asks(thread, new, row, mac, seal, now, branch))
    held.macs[position] = mac
    head = position if branch is None and becomes_head else thread.head
    head_mac = b"" if head is None else (yield from _mac_at(thread, held, head))
    thread = yield from change_thread(
        thread, now, seal, head_mac, next_position=position + 1, next_log=desk.next_log, head=head
    )
    _remember(held, thread, position, parent, state)
    return thread


def _asks(
    thread: Thread, new: NewCheckpoint, row: RowOf, mac: bytes, seal: Seal, now: Micros, branch: BranchRow | None
) -> list[Ask]:
    """The rows of a new checkpoint, and its branch's new head."""
    asks = [
        asking(
            "checkpoints.add", thread=thread.ord, position=row.position, id=new.id, parent=row.parent, branch=row.branch,
            status=row.status, run_id=row.run_id, size=row.size, now=now, mac=mac,
        ),
        *(asking("checkpoints.tag", thread=thread.ord, tag=tag, position=row.position) for tag in new.tags),
        noting("checkpoint", "create", new.id, new.thread_id, now),
    ]  # fmt: skip
    if branch is not None:
        moved = bound(seal, thread, msgspec.structs.replace(branch, head=row.position))
        more = asking(
            "checkpoints.move_branch", thread=thread.ord, number=branch.number, head=moved.head, fork_of=moved.fork_of,
            mac=moved.mac,
        )  # fmt: skip
        asks.append(more)
    return asks


@op(reads=True)
def saved_again(checkpoint_id: str, space: str) -> Steps[Saved | None]:
    """What a save answered under an idempotency key, None when its checkpoint is gone."""
    row = yield from fetch_one("checkpoints.by_id", flags=frozenset({"space"}), id=checkpoint_id, space=space)
    return None if row is None else Saved(checkpoint_id, None)


def _remember(held: Known, thread: Thread, position: int, parent: int | None, state: Branching) -> None:
    held.version = thread.version
    if parent is not None:
        held.states.pop(parent, None)
    held.states[position] = state
    while len(held.states) > HELD_STATES:
        del held.states[min(held.states)]
    held.macs = {at: mac for at, mac in held.macs.items() if at in held.states or at == thread.head}


def _need_branch(thread: Thread, name: str, seal: Seal) -> Steps[BranchRow]:
    for branch in (yield from branches_of(thread, seal)):
        if branch.name == name:
            return branch
    raise NotFound(f"thread {thread.id!r} has no branch {name!r}", field="branch", hint="create_branch makes one")


def _parent(thread: Thread, new: NewCheckpoint, head: int | None) -> Steps[int | None]:
    """The position of the new checkpoint's parent."""
    if new.parent is None:
        return head
    row = yield from in_thread(thread, new.parent)
    if row is None:
        rows = yield from fetch_all("checkpoints.by_id", id=new.parent)
        where = "is of another thread" if rows else "does not exist"
        raise Invalid(f"the parent {new.parent!r} {where}", field="parent")
    if row.position != head:
        raise Conflict(
            f"{new.parent!r} is not the newest checkpoint of branch {new.branch!r} any more", field="parent",
            hint="load the newest, or create_branch from this one",
        )  # fmt: skip
    return row.position


def in_thread(thread: Thread, checkpoint_id: str) -> Steps[RowOf | None]:
    """The row of a checkpoint of this thread, or None."""
    row = yield from fetch_one("checkpoints.by_id", flags=frozenset({"thread"}), id=checkpoint_id, thread=thread.ord)
    return None if row is None else row_of(row)


def row_at(thread: Thread, position: int) -> Steps[RowOf]:
    """The row at a position. ``ChecksumMismatch`` when it is missing."""
    row = yield from fetch_one("checkpoints.at", thread=thread.ord, position=position)
    if row is None:
        raise ChecksumMismatch(f"checkpoint {position} of thread {thread.id!r} is missing", thread=thread.id)
    return row_of(row)


def _mac_at(thread: Thread, held: Known, position: int) -> Steps[bytes]:
    if position not in held.macs:
        held.macs[position] = bytes((yield from row_at(thread, position)).mac)
    return held.macs[position]


def held_state(thread: Thread, held: Known, position: int, seal: Seal) -> Steps[Branching]:
    """The state at a position as parts, from what is held or from the database; its mac is known then too."""
    if position not in held.states or position not in held.macs:
        row = yield from row_at(thread, position)
        entry = (yield from checked_entries(thread, [row], seal))[position]
        held.states[position] = (yield from states(thread, {position: entry}, seal))[position]
        held.macs[position] = bytes(row.mac)
    return held.states[position]


# -- reading -----------------------------------------------------------------------------------------------------------------


def checked_entries(
    thread: Thread, rows: Sequence[RowOf], seal: Seal, *, parents: bool = True
) -> Steps[dict[int, Entry]]:
    """The entries of rows, by position, each checked against its row and (``parents``) the row of its parent."""
    if parents:
        check_parents(thread, seal, rows)
    found = yield from logs.entries(thread, [row.position for row in rows], seal)
    checked: dict[int, Entry] = {}
    for row in rows:
        data = found[row.position]
        if bytes(row.mac) != checkpoint_mac(seal, thread, row, data):
            raise ChecksumMismatch(
                f"checkpoint {row.id!r} of thread {thread.id!r} is not what was saved",
                thread=thread.id,
                checkpoint=row.id,
            )
        entry = read_entry(data)
        if parents and row.parent_mac is not None and bytes(row.parent_mac) != entry.link:
            raise ChecksumMismatch(
                f"checkpoint {row.id!r} of thread {thread.id!r} does not follow the one before it", thread=thread.id,
                checkpoint=row.id,
            )  # fmt: skip
        checked[row.position] = entry
    return checked


def states(thread: Thread, entries: Mapping[int, Entry], seal: Seal) -> Steps[dict[int, Branching]]:
    """The states behind entries, as parts. Raises ``Damaged``, naming checkpoint and channel."""
    items = yield from logs.gather(thread, wanted_by([entry.tree for entry in entries.values()]), seal)
    found: dict[int, Branching] = {}
    for position, entry in entries.items():
        children: dict[str, Part] = {}
        for channel, node in entry.tree.items():
            try:
                children[channel] = fill(node, items)
            except KeyError as error:
                raise ChecksumMismatch(
                    f"channel {channel!r} of checkpoint {position} of thread {thread.id!r} lacks item {error}",
                    thread=thread.id, checkpoint=position, channel=channel,
                ) from None  # fmt: skip
        found[position] = Branching(children)
    return found


def completed(thread: Thread, rows: Sequence[RowOf], seal: Seal, *, entries: bool = True) -> Steps[list[Found]]:
    """Rows with their branches' names, tags and (or else empty) entries."""
    if not rows:
        return []
    low, high = min(row.position for row in rows), max(row.position for row in rows)
    names = {0: MAIN}
    if any(row.branch for row in rows):
        names |= {branch.number: branch.name for branch in (yield from branches_of(thread, seal))}
    tags: dict[int, list[str]] = {}
    for position, tag in (yield from fetch_all("checkpoints.tags", thread=thread.ord, low=low, high=high)):
        tags.setdefault(position, []).append(tag)
    found = (yield from checked_entries(thread, rows, seal)) if entries else {}
    nothing = Entry({}, b"\x80", None, b"")
    return [
        Found(
            thread, row, names.get(row.branch, ""), tuple(tags.get(row.position, ())), found.get(row.position, nothing)
        )
        for row in rows
    ]


@op(reads=True, long=True)
def get(checkpoint_id: str, seals: Mapping[str, Seal], thread_id: str | None, space: str) -> Steps[Found | None]:
    """A checkpoint by its id: of any thread of ``Checkpointer``, or of one thread of a space."""
    return (yield from find(checkpoint_id, seals, thread_id, space))


def find(checkpoint_id: str, seals: Mapping[str, Seal], thread_id: str | None, space: str) -> Steps[Found | None]:
    """A checkpoint by its id, or None; see ``get``."""
    if thread_id is not None:
        thread = yield from find_thread(thread_id, space)
        row = None if thread is None else (yield from in_thread(thread, checkpoint_id))
    else:
        thread, row = yield from anywhere(checkpoint_id, space)
    if thread is None or row is None:
        return None
    return (yield from completed(thread, [row], seal_of(thread, seals)))[0]


def anywhere(checkpoint_id: str, space: str) -> Steps[tuple[Thread | None, RowOf | None]]:
    """A checkpoint of any thread of a space with its thread, or (None, None)."""
    found = yield from fetch_one("checkpoints.by_id", flags=frozenset({"space"}), id=checkpoint_id, space=space)
    if found is None:
        return None, None
    row = row_of(found)
    return (yield from thread_at(row.thread)), row


def seal_of(thread: Thread, seals: Mapping[str, Seal]) -> Seal:
    """The seal of a thread's domain. ``Damaged.WrongKey`` when there is no key for it."""
    try:
        return seals[thread.domain]
    except KeyError:
        raise WrongKey(
            f"thread {thread.id!r} is sealed with a key that was not given", hint="CheckpointConfig(encryption_key=…)",
            thread=thread.id,
        ) from None  # fmt: skip
