"""Which of a framework's checkpoints came from which: by the ids that their states name, not by positions.

A parent may be saved after its child, or never; one that is saved again under a descendant makes a ring.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from perdure.grammar import Steps, fetch_all, op
from perdure.rooms.checkpoints import logs
from perdure.rooms.checkpoints.frames import Seals, TaskWrite, writes_of
from perdure.rooms.checkpoints.logs import Seal, Thread
from perdure.rooms.checkpoints.ops import checked_entries, find_thread, in_thread, row_at, seal_of
from perdure.rooms.checkpoints.tree import Entry, Leaf, Part, fill, wanted_by
from perdure.rooms.checkpoints.values import RowOf, row_of

_BATCH = 64
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode

PARENT = "parent"
"""The part of a state that names the checkpoint before, which need not be there."""


def parent_part(checkpoint_id: str | None) -> dict[str, Part]:
    """The part that names a parent: in 16 bytes, when it is a UUID."""
    if checkpoint_id is None:
        return {}
    try:
        number = UUID(checkpoint_id)
    except ValueError:
        return {PARENT: Leaf(_pack(checkpoint_id))}
    return {PARENT: Leaf(_pack(number.bytes if str(number) == checkpoint_id else checkpoint_id))}


def parent_of(tree: Mapping[str, object]) -> str | None:
    """The parent that an entry's tree names; ids that are no UUIDs are not in it when they are long."""
    data = tree.get(PARENT)
    return read_parent(data) if isinstance(data, bytes) else None


def read_parent(data: bytes) -> str:
    """The id in the bytes of a ``parent_part``."""
    found = _unpack(data)
    return str(UUID(bytes=found)) if isinstance(found, bytes) else found


class Ancestor(msgspec.Struct, frozen=True):
    """A checkpoint that another comes from: of some channels what it holds, and what tasks wrote beside it."""

    id: str
    parts: dict[str, Part]
    writes: tuple[TaskWrite, ...]


@op(reads=True, long=True)
def ancestors(
    thread_id: str, space: str, checkpoint_id: str | None, channels: Sequence[str], seals: Seals
) -> Steps[list[Ancestor]]:
    """The checkpoints that one comes from, the nearest first, as far back as one of the channels has not been found."""
    thread = yield from find_thread(thread_id, space)
    if thread is None:
        return []
    seal = seal_of(thread, seals)
    if checkpoint_id is not None:
        row = yield from in_thread(thread, checkpoint_id)
    else:
        row = None if thread.head is None else (yield from row_at(thread, thread.head))
    if row is None:
        return []
    path = yield from _path(thread, row, set(channels), seal)
    trees = [{name: entry.tree[name] for name in channels if name in entry.tree} for _, entry in path]
    items = yield from logs.gather(thread, wanted_by(list(trees)), seal)
    writes = yield from writes_of(thread, [one.id for one, _ in path], seal)
    return [
        Ancestor(one.id, {name: fill(node, items) for name, node in tree.items()}, tuple(writes.get(one.id, ())))
        for (one, _), tree in zip(path, trees, strict=True)
    ]


def _path(thread: Thread, start: RowOf, channels: set[str], seal: Seal) -> Steps[list[tuple[RowOf, Entry]]]:
    """Parents upwards from a checkpoint, until every channel was found; read some at a time, as they mostly stand."""
    known: dict[str, tuple[RowOf, Entry]] = {}
    low = start.position + 1
    path: list[tuple[RowOf, Entry]] = []
    at, missing, seen = start.id, set(channels), set[str]()
    first = True
    while missing and at not in seen:
        while at not in known and low > 0:
            rows = yield from fetch_all("checkpoints.page", thread=thread.ord, above=low, limit=_BATCH)
            batch = [row_of(row) for row in rows]
            low = batch[-1].position if len(batch) == _BATCH else 0
            entries = yield from checked_entries(thread, batch, seal)
            known |= {row.id: (row, entries[row.position]) for row in batch}
        if at not in known:  # saved after its child, or never
            row = yield from in_thread(thread, at)
            if row is None:
                break
            known[at] = row, (yield from checked_entries(thread, [row], seal))[row.position]
        seen.add(at)
        row, entry = known[at]
        if not first:
            path.append((row, entry))
            missing -= entry.tree.keys()
        first = False
        parent = parent_of(entry.tree)
        if parent is None:
            break
        at = parent
    return path
