"""What binds the rows of a thread to each other, so that one that was changed, moved, dropped or put back is found.

Codes and sealed bytes only: nothing here asks a database. A thread's row has a code over itself and its head's code, a
checkpoint's over itself and its entry, which names the code of the one before. What retention took, and how many
branches there are, is sealed in the thread's row: any other row that is missing was not taken away by perdure.
"""

import base64
import binascii
from collections.abc import Collection, Iterable, Sequence

import msgspec

from perdure.rooms.checkpoints.logs import Seal, Thread
from perdure.rooms.checkpoints.values import BranchRow, RowOf
from perdure.values.errors import ChecksumMismatch, Damaged, Undecodable


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """What a thread's row says beside its columns: the positions that retention took, and how many branches there are."""

    pruned: list[tuple[int, int]] = []
    branches: int = 0


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Facts).decode


# -- threads -----------------------------------------------------------------------------------------------------------------


def thread_mac(seal: Seal, thread: Thread, head_mac: bytes) -> bytes:
    """What binds a thread's row: a tail that was cut off does not fit it."""
    numbers = (
        thread.version, thread.next_position, thread.next_log, -1 if thread.head is None else thread.head, thread.in_order,
        thread.updated_at,
    )  # fmt: skip
    return seal.mac(b"thread", thread.key, b"%d %d %d %d %d %d" % numbers, head_mac, thread.pruned or b"")


def check_thread(thread: Thread, seal: Seal, head_mac: bytes) -> None:
    """Nothing, when a thread's row is what was written; ``head_mac`` is its head's. ``ChecksumMismatch`` else."""
    if bytes(thread.mac) != thread_mac(seal, thread, head_mac):
        raise ChecksumMismatch(f"the row of thread {thread.id!r} is not what was written", thread=thread.id)


def facts_of(thread: Thread, seal: Seal) -> Facts:
    """What is sealed in a thread's row. Raises ``Damaged``."""
    if thread.pruned is None:
        return Facts()
    try:
        return _unpack(seal.open(thread.pruned, (b"facts", thread.key)))
    except (msgspec.MsgspecError, ValueError) as error:
        raise Undecodable(f"what is sealed in the row of thread {thread.id!r} cannot be decoded") from error


def seal_facts(thread: Thread, facts: Facts, seal: Seal) -> bytes | None:
    """Facts as a thread's row keeps them."""
    return seal.close(_pack(facts), (b"facts", thread.key)) if facts.pruned or facts.branches else None


def without(thread: Thread, positions: Iterable[int], seal: Seal) -> bytes | None:
    """The facts of a thread's row once these positions are taken away too."""
    facts = facts_of(thread, seal)
    return seal_facts(thread, msgspec.structs.replace(facts, pruned=with_positions(facts.pruned, positions)), seal)


def with_positions(ranges: Iterable[tuple[int, int]], positions: Iterable[int]) -> list[tuple[int, int]]:
    """Ranges with positions added, in order, those that touch made one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted([*ranges, *((position, position + 1) for position in positions)]):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


# -- branches ----------------------------------------------------------------------------------------------------------------


def branch_mac(seal: Seal, thread: Thread, branch: BranchRow) -> bytes:
    """What binds a branch's row."""
    numbers = b"%d %d %d %d" % (branch.number, branch.head, branch.fork_of, branch.created_at)
    return seal.mac(b"branch", thread.key, branch.name.encode(), branch.id.encode(), numbers, branch.metadata.encode())


def bound(seal: Seal, thread: Thread, branch: BranchRow) -> BranchRow:
    """A branch's row with its code."""
    return msgspec.structs.replace(branch, mac=branch_mac(seal, thread, branch))


def check_branches(thread: Thread, seal: Seal, branches: Sequence[BranchRow]) -> None:
    """Nothing, when these are a thread's branches, as they were written. ``ChecksumMismatch`` else."""
    for branch in branches:
        _check_branch(thread, seal, branch)
    count = facts_of(thread, seal).branches
    if [branch.number for branch in branches] != list(range(1, count + 1)):
        raise ChecksumMismatch(f"branches of thread {thread.id!r} are missing: there were {count}", thread=thread.id)


def _check_branch(thread: Thread, seal: Seal, branch: BranchRow) -> None:
    if bytes(branch.mac) != branch_mac(seal, thread, branch):
        raise ChecksumMismatch(
            f"branch {branch.name!r} of thread {thread.id!r} is not what was written", thread=thread.id
        )


def seal_metadata(seal: Seal, thread: Thread, branch_id: str, metadata: str) -> str:
    """A branch's metadata as its row keeps it."""
    return base64.b64encode(seal.close(metadata.encode(), (b"branch", thread.key, branch_id.encode()))).decode()


def open_metadata(seal: Seal, thread: Thread, branch: BranchRow) -> str:
    """A branch's metadata from its row. Raises ``Damaged``."""
    try:
        sealed = base64.b64decode(branch.metadata, validate=True)
        return seal.open(sealed, (b"branch", thread.key, branch.id.encode())).decode()
    except (binascii.Error, ValueError) as error:
        raise ChecksumMismatch(
            f"what is said of branch {branch.name!r} of thread {thread.id!r} cannot be read"
        ) from error


# -- checkpoints -------------------------------------------------------------------------------------------------------------


def checkpoint_mac(seal: Seal, thread: Thread, row: RowOf, entry: bytes) -> bytes:
    """What binds a checkpoint's row to its entry; the entry holds the mac of the one before."""
    return seal.mac(
        b"checkpoint", thread.key, entry, row.id.encode(), (row.run_id or "").encode(),
        b"%d %d %d %d %d %d" % (
            row.position, -1 if row.parent is None else row.parent, row.branch, row.status, row.size, row.created_at,
        ),
    )  # fmt: skip


def check_parents(thread: Thread, seal: Seal, rows: Iterable[RowOf]) -> None:
    """Nothing, when each checkpoint's parent is there or was taken by retention. ``ChecksumMismatch`` else."""
    check_taken(thread, seal, {row.parent for row in rows if row.parent is not None and row.parent_mac is None})


def check_taken(thread: Thread, seal: Seal, positions: Collection[int]) -> None:
    """Nothing, when retention took the checkpoints at these positions. ``ChecksumMismatch`` else."""
    if not positions:
        return
    pruned = facts_of(thread, seal).pruned
    for position in sorted(positions):
        if not any(low <= position < high for low, high in pruned):
            raise ChecksumMismatch(
                f"checkpoint {position} of thread {thread.id!r} is missing, and was not taken away", thread=thread.id
            )


def check_page(thread: Thread, seal: Seal, positions: Sequence[int], above: int, *, is_last: bool) -> None:
    """Nothing, when these are all the positions below ``above`` that there must be, newest first.

    ``is_last`` when none come after them. ``ChecksumMismatch`` else.
    """
    top = min(above, thread.next_position)
    low = 0 if is_last or not positions else positions[-1]
    if low == top or positions == list(range(top - 1, low - 1, -1)):
        return
    covered = with_positions(facts_of(thread, seal).pruned, positions)
    if not any(first <= low and top <= end for first, end in covered):
        raise ChecksumMismatch(f"checkpoints of thread {thread.id!r} are missing", thread=thread.id)


def chain_problems(thread: Thread, rows: Sequence[RowOf], branches: Sequence[BranchRow], seal: Seal) -> list[str]:
    """What is wrong with the rows of a whole thread, in words: one missing, or one that is not what was written."""
    try:
        facts = facts_of(thread, seal)
    except Damaged as error:
        return [f"the row of thread {thread.id!r}: {error.message}"]
    problems: list[str] = []
    covered = with_positions(facts.pruned, [row.position for row in rows])
    if covered != ([(0, thread.next_position)] if thread.next_position else []):
        problems.append(f"checkpoints of thread {thread.id!r} are missing: there are {covered}")
    macs = {row.position: bytes(row.mac) for row in rows}
    try:
        check_thread(thread, seal, b"" if thread.head is None else macs.get(thread.head, b""))
    except ChecksumMismatch as error:
        problems.append(error.message)
    newest = {row.branch: row.position for row in sorted(rows, key=lambda row: row.position)}
    try:
        check_branches(thread, seal, branches)
        for branch in branches:
            open_metadata(seal, thread, branch)
    except Damaged as error:
        problems.append(error.message)
    return problems + [
        f"branch {branch.name!r} of thread {thread.id!r} does not end where it did"
        for branch in branches
        if branch.head not in macs or branch.head < newest.get(branch.number, 0)
    ]
