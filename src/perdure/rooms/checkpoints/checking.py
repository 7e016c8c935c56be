"""The recipe that looks at everything of a thread and says in words what is wrong with it."""

from collections.abc import Mapping, Sequence

import msgspec

from perdure.grammar import Steps, fetch_all, op
from perdure.rooms.checkpoints import codec
from perdure.rooms.checkpoints.binding import chain_problems
from perdure.rooms.checkpoints.changing import all_rows
from perdure.rooms.checkpoints.copying import write_name
from perdure.rooms.checkpoints.logs import Seal, Thread
from perdure.rooms.checkpoints.ops import branch_rows, checked_entries, need_thread, seal_of, states
from perdure.rooms.checkpoints.tree import Branching, Items, Part, put_together
from perdure.rooms.checkpoints.values import RowOf
from perdure.values.errors import Damaged

_BATCH = 64


class Checked(msgspec.Struct, frozen=True):
    """What was looked at in a thread, and what is wrong."""

    checkpoints: int
    segments: int
    problems: tuple[str, ...]


@op(reads=True, long=True)
def check(thread_id: str, space: str, seals: Mapping[str, Seal], registry: codec.Registry) -> Steps[Checked]:
    """Looks at every row, reads every state and decodes it."""
    thread = yield from need_thread(thread_id, space)
    runs = yield from fetch_all("checkpoints.all_runs", thread=thread.ord)
    try:
        seal = seal_of(thread, seals)
        rows = (yield from all_rows(thread))[::-1]
    except Damaged as error:
        return Checked(0, len(runs), (error.message,))
    problems = chain_problems(thread, rows, (yield from branch_rows(thread)), seal)
    problems += yield from _check_states(thread, rows, seal, registry)
    for checkpoint, task, idx, _, payload in (yield from fetch_all("checkpoints.all_writes", thread=thread.ord)):
        try:
            seal.open(payload, write_name(thread, checkpoint, task, idx))
        except Damaged as error:
            problems.append(f"what task {task!r} wrote beside checkpoint {checkpoint!r}: {error.message}")
    return Checked(len(rows), len(runs), tuple(dict.fromkeys(problems)))


def _check_states(thread: Thread, rows: Sequence[RowOf], seal: Seal, registry: codec.Registry) -> Steps[list[str]]:
    """What is wrong with the states: some at a time, and one by one where something is."""
    problems: list[str] = []
    seen: set[object] = set()
    for at in range(0, len(rows), _BATCH):
        batch = rows[at : at + _BATCH]
        try:
            yield from _decode(thread, batch, seal, registry, seen)
        except Damaged:
            for row in batch:
                try:
                    yield from _decode(thread, [row], seal, registry, seen)
                except Damaged as error:
                    problems.append(f"checkpoint {row.id!r}: {error.message}")
    return problems


def _decode(
    thread: Thread, rows: Sequence[RowOf], seal: Seal, registry: codec.Registry, seen: set[object]
) -> Steps[None]:
    entries = yield from checked_entries(thread, rows, seal)
    for entry in entries.values():
        codec.decode(entry.metadata, registry)
    for state in (yield from states(thread, entries, seal)).values():
        _decode_new(state, registry, seen)


def _decode_new(part: Part, registry: codec.Registry, seen: set[object]) -> None:
    """Decodes what was not decoded yet: items are known by their place."""
    if isinstance(part, Branching):
        for child in part.children.values():
            _decode_new(child, registry, seen)
    elif isinstance(part, Items):
        if part.runs not in seen:
            put_together(part, registry)
            seen.add(part.runs)
    elif part.ref is None or part.ref not in seen:
        put_together(part, registry)
        seen.add(part.ref)
