"""Recipes that change what is around checkpoints: branches, tags; and that take checkpoints away."""

from collections.abc import Mapping, Sequence

import msgspec

from perdure.grammar import Steps, execute, execute_many, fetch_all, note, op
from perdure.rooms.checkpoints import retention
from perdure.rooms.checkpoints.binding import (
    bound,
    branch_mac,
    check_thread,
    facts_of,
    seal_facts,
    seal_metadata,
    with_positions,
    without,
)  # fmt: skip
from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.rooms.checkpoints.line import line
from perdure.rooms.checkpoints.logs import ENTRIES, Seal, Thread
from perdure.rooms.checkpoints.ops import (
    anywhere,
    branches_of,
    change_thread,
    checked_entries,
    find_thread,
    in_thread,
    need_thread,
    row_at,
    seal_of,
    thread_at,
)  # fmt: skip
from perdure.rooms.checkpoints.tree import wanted_by
from perdure.rooms.checkpoints.values import MAIN, NATIVE, STATUSES, BranchRow, RowOf, row_of
from perdure.values.clock import Micros
from perdure.values.errors import Conflict, Invalid, NotFound

Seals = Mapping[str, Seal]
_MANY = 2**62


def _locked(checkpoint_id: str, space: str = NATIVE) -> Steps[tuple[Thread, RowOf]]:
    """A checkpoint, with its thread locked. ``NotFound`` when there is none."""
    thread, row = yield from anywhere(checkpoint_id, space)
    if thread is None or row is None:
        raise NotFound(f"there is no checkpoint {checkpoint_id!r}", field="checkpoint_id")
    thread = yield from thread_at(thread.ord, locked=True)
    row = yield from in_thread(thread, checkpoint_id)
    if row is None:
        raise NotFound(f"there is no checkpoint {checkpoint_id!r}", field="checkpoint_id")
    return thread, row


@op
def create_branch(
    checkpoint_id: str, name: str, id: str, metadata: str, seals: Seals, now: Micros, space: str = NATIVE
) -> Steps[str]:
    """The id of a new branch that begins at a checkpoint. ``Conflict`` when the thread has one of that name."""
    thread, row = yield from _locked(checkpoint_id, space)
    seal = seal_of(thread, seals)
    rows = yield from branches_of(thread, seal)
    if name == MAIN or any(branch.name == name for branch in rows):
        raise Conflict(f"thread {thread.id!r} has a branch {name!r} already", field="branch_name")
    number = max((branch.number for branch in rows), default=0) + 1
    made = BranchRow(number, name, id, row.position, row.position, seal_metadata(seal, thread, id, metadata), now, b"")
    yield from put_branch(thread, made, seal)
    facts = msgspec.structs.replace(facts_of(thread, seal), branches=number)
    yield from _touch(thread, now, seal, pruned=seal_facts(thread, facts, seal))
    yield from note("branch", "create", id, thread.id, now)
    return id


def put_branch(thread: Thread, branch: BranchRow, seal: Seal) -> Steps[None]:
    """Adds a branch's row."""
    row = bound(seal, thread, branch)
    yield from execute(
        "checkpoints.add_branch", thread=thread.ord, number=row.number, name=row.name, id=row.id, head=row.head,
        fork_of=row.fork_of, metadata=row.metadata, now=row.created_at, mac=row.mac,
    )  # fmt: skip


def _touch(thread: Thread, now: Micros, seal: Seal, **changes: object) -> Steps[Thread]:
    head = thread.head
    mac = b"" if head is None else bytes((yield from row_at(thread, head)).mac)
    check_thread(thread, seal, mac)
    return (yield from change_thread(thread, now, seal, mac, **changes))


@op
def tag(checkpoint_id: str, tags: tuple[str, ...], now: Micros, space: str = NATIVE) -> Steps[None]:
    """Puts tags on a checkpoint; those it has already stay."""
    thread, row = yield from _locked(checkpoint_id, space)
    yield from execute_many(
        "checkpoints.tag", [{"thread": thread.ord, "tag": one, "position": row.position} for one in tags]
    )
    yield from note("checkpoint", "tag", checkpoint_id, thread.id, now)


@op
def untag(checkpoint_id: str, tags: tuple[str, ...], now: Micros, space: str = NATIVE) -> Steps[None]:
    """Takes tags off a checkpoint; those it does not have are no matter."""
    thread, row = yield from _locked(checkpoint_id, space)
    for one in tags:
        yield from execute("checkpoints.untag", thread=thread.ord, tag=one, position=row.position)
    yield from note("checkpoint", "untag", checkpoint_id, thread.id, now)


# -- taking away ---------------------------------------------------------------------------------------------------------------


@op(long=True)
def retain(
    thread_id: str, space: str, config: CheckpointConfig, now: Micros, seals: Seals, *, dry_run: bool
) -> Steps[list[retention.Verdict]]:
    """What becomes of each checkpoint of a thread, newest first; those that go are gone unless it is a dry run."""
    thread = yield from need_thread(thread_id, space, locked=not dry_run)
    rows = yield from all_rows(thread)
    tagged = {
        position for position, _ in (yield from fetch_all("checkpoints.tags", thread=thread.ord, low=0, high=_MANY))
    }
    branches = yield from branches_of(thread, seal_of(thread, seals))
    heads = {branch.head for branch in branches} | {thread.head}
    forks = {branch.fork_of for branch in branches}
    candidates = [
        retention.Candidate(
            row.id, row.created_at, STATUSES[row.status], row.position in tagged, row.position in heads,
            row.position in forks,
        )
        for row in rows
    ]  # fmt: skip
    verdicts = retention.choose(candidates, config, now)
    if not dry_run:
        going = {verdict.id for verdict in verdicts if not verdict.keep}
        yield from take_away(thread, [row for row in rows if row.id in going], seal_of(thread, seals), now)
    return verdicts


def all_rows(thread: Thread) -> Steps[list[RowOf]]:
    """Every checkpoint of a thread, newest first."""
    rows = yield from fetch_all("checkpoints.page", thread=thread.ord, above=_MANY, limit=_MANY)
    return [row_of(row) for row in rows]


def take_away(thread: Thread, going: Sequence[RowOf], seal: Seal, now: Micros) -> Steps[None]:
    """Deletes checkpoints of a locked thread, none of them a head, and what only they were made of."""
    if not going:
        return
    for row in going:
        yield from execute("checkpoints.remove", thread=thread.ord, position=row.position)
        yield from execute("checkpoints.remove_tags", thread=thread.ord, position=row.position)
        yield from execute("checkpoints.remove_writes", thread=thread.ord, checkpoint=row.id)
        yield from note("checkpoint", "delete", row.id, thread.id, now)
    yield from _touch(thread, now, seal, pruned=without(thread, [row.position for row in going], seal))
    yield from reclaim(thread, seal)


def reclaim(thread: Thread, seal: Seal) -> Steps[None]:
    """Deletes the items and runs of a locked thread that no checkpoint leads to, and segments that nobody shares.

    The newest item of a log stays, so that its number is not given out again: what was sealed under it could be put in
    the new one's place.
    """
    rows = yield from all_rows(thread)
    entries = yield from checked_entries(thread, rows, seal, parents=False)
    wanted = wanted_by([entry.tree for entry in entries.values()])
    live: dict[int, list[tuple[int, int]]] = {ENTRIES: with_positions((), [row.position for row in rows])}
    for log, ordinals in wanted.singles.items():
        live.setdefault(log, []).extend((ordinal, ordinal + 1) for ordinal in ordinals)
    for log, low, high in wanted.runs:
        live.setdefault(log, []).append((low, high))
    kept = {log: with_positions(ranges, ()) for log, ranges in live.items()}
    yield from _reclaim_items(thread, kept)
    yield from _reclaim_runs(thread, kept)


def _reclaim_items(thread: Thread, kept: dict[int, list[tuple[int, int]]]) -> Steps[None]:
    items = yield from fetch_all("checkpoints.all_items", thread=thread.ord)
    newest: dict[int, int] = dict(items)
    for log, ordinal in items:
        if ordinal != newest[log] and not _overlaps(kept.get(log, []), ordinal, ordinal + 1):
            yield from execute("checkpoints.remove_items", thread=thread.ord, log=log, low=ordinal, high=ordinal + 1)


def _reclaim_runs(thread: Thread, kept: dict[int, list[tuple[int, int]]]) -> Steps[None]:
    runs = yield from fetch_all("checkpoints.all_runs", thread=thread.ord)
    newest = {log: low for log, low, _, _ in runs}
    segments: set[int] = set()
    for log, low, high, segment in runs:
        if low != newest[log] and not _overlaps(kept.get(log, []), low, high):
            yield from execute("checkpoints.remove_run", thread=thread.ord, log=log, low=low)
            segments.add(segment)
    yield from _free(sorted(segments))


def _free(segments: list[int]) -> Steps[None]:
    """Two statements: what another transaction began to share before the first is seen by the second."""
    if segments:
        yield from fetch_all("checkpoints.lock_segments", segments=segments)
        yield from execute("checkpoints.reclaim", segments=segments)


def _overlaps(ranges: list[tuple[int, int]], low: int, high: int) -> bool:
    """Whether one of some ordered ranges has a number from ``low`` to ``high - 1``."""
    left, right = 0, len(ranges)
    while left < right:
        middle = (left + right) // 2
        if ranges[middle][1] <= low:
            left = middle + 1
        else:
            right = middle
    return left < len(ranges) and ranges[left][0] < high


@op(long=True)
def delete_thread(thread_id: str, space: str, now: Micros) -> Steps[bool]:
    """Whether there was such a thread; all of it is gone, shared segments excepted."""
    thread = yield from find_thread(thread_id, space, locked=True)
    if thread is None:
        return False
    yield from remove(thread)
    yield from note("thread", "delete", thread_id, None, now)
    return True


def remove(thread: Thread) -> Steps[None]:
    """Deletes everything of a locked thread, and the segments that nobody shares."""
    runs = yield from fetch_all("checkpoints.all_runs", thread=thread.ord)
    for name in ("tags", "items", "runs", "writes"):
        yield from execute(f"checkpoints.remove_all_{name}", thread=thread.ord)
    yield from execute("checkpoints.remove_branches", thread=thread.ord)
    yield from execute("checkpoints.remove_all", thread=thread.ord)
    yield from execute("checkpoints.remove_thread", thread=thread.ord)
    yield from _free(sorted({segment for _, _, _, segment in runs}))


@op(long=True)
def delete_for_runs(run_ids: tuple[str, ...], seals: Seals, now: Micros, space: str | None = NATIVE) -> Steps[int]:
    """How many checkpoints some runs had made; they are gone. What others were made from goes on by itself.

    ``space`` None stands for every framework's.
    """
    rows: list[RowOf] = []
    for run_id in run_ids:
        rows += [row_of(row) for row in (yield from fetch_all("checkpoints.of_run", run_id=run_id))]
    by_thread: dict[int, list[RowOf]] = {}
    for row in rows:
        by_thread.setdefault(row.thread, []).append(row)
    taken = 0
    for ord, going in sorted(by_thread.items()):
        thread = yield from thread_at(ord, locked=True)
        if not (thread.space == space if space is not None else thread.space != NATIVE):
            continue
        taken += len(going)
        yield from _behead(thread, {row.position for row in going}, seal_of(thread, seals), now)
        thread = yield from thread_at(ord, locked=True)
        yield from take_away(thread, going, seal_of(thread, seals), now)
    return taken


def _behead(thread: Thread, going: set[int], seal: Seal, now: Micros) -> Steps[None]:
    """Moves heads and fork points that go to the nearest checkpoint before them that stays."""
    rows = yield from all_rows(thread)
    places = {row.position: row.branch for row in rows}
    macs = {row.position: bytes(row.mac) for row in rows}
    check_thread(thread, seal, b"" if thread.head is None else macs.get(thread.head, b""))
    branches = yield from branches_of(thread, seal)

    def staying(position: int) -> int | None:
        return next((at for at in line(position, places, branches) if at not in going), None)

    for branch in branches:
        head, fork = staying(branch.head), staying(branch.fork_of)
        if head is None:
            raise Invalid(f"branch {branch.name!r} would have no checkpoint left", field="run_ids")
        moved = msgspec.structs.replace(branch, head=head, fork_of=branch.fork_of if fork is None else fork)
        if moved != branch:
            yield from execute(
                "checkpoints.move_branch", thread=thread.ord, number=branch.number, head=head, fork_of=moved.fork_of,
                mac=branch_mac(seal, thread, moved),
            )  # fmt: skip
    head = None if thread.head is None else staying(thread.head)
    if head != thread.head:
        yield from change_thread(thread, now, seal, b"" if head is None else macs[head], head=head)
