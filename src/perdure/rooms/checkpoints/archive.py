"""A thread as a file: JSON Lines, one for the thread, one for each checkpoint, branch, stretch of a log, and write.

Every line is checked when it is read, and that the whole is a thread, before anything of it is stored.
"""

import base64
from collections.abc import Iterator
from typing import Any

import msgspec

from perdure.rooms.checkpoints import codec
from perdure.rooms.checkpoints.binding import with_positions
from perdure.rooms.checkpoints.copying import Dump, Fork, Made, Stretch, Write
from perdure.rooms.checkpoints.logs import ENTRIES, SEGMENT_ITEMS
from perdure.rooms.checkpoints.plan import VALUES
from perdure.rooms.checkpoints.tree import Run, fill, put_together, read_entry, runs_in, wanted_by
from perdure.rooms.checkpoints.values import MAIN, STATUSES
from perdure.values import limits, tagged
from perdure.values.errors import Damaged, Invalid, OverLimit, PerdureError

_VERSION = 1
_LINES = 4_000_000
_BYTES = 2 * 1024**3
"""What one file may hold."""
_HIGHEST = 2**53
_LAST_TIME = 253_402_300_799_999_999
"""The last microsecond that a datetime can be."""
_AGAIN, _AMPLE = 100, 16 * 1024**2
"""A state may have so many times the bytes of all items, and so many more: one could name an item again and again."""
_encode = msgspec.json.Encoder().encode


class Head(msgspec.Struct, tag="thread", forbid_unknown_fields=True):
    """The first line."""

    perdure: int
    id: str
    space: str
    next_position: int
    next_log: int
    head: int | None
    pruned: list[tuple[int, int]]


class MadeLine(msgspec.Struct, tag="checkpoint", forbid_unknown_fields=True):
    """A checkpoint."""

    made: Made


class ForkLine(msgspec.Struct, tag="branch", forbid_unknown_fields=True):
    """A branch."""

    fork: Fork


class StretchLine(msgspec.Struct, tag="items", forbid_unknown_fields=True):
    """Items of a log, as base64 text."""

    log: int
    low: int
    sealed: bool
    items: list[str]


class WriteLine(msgspec.Struct, tag="write", forbid_unknown_fields=True):
    """What a task wrote, its payload as base64 text."""

    checkpoint: str
    task_id: str
    idx: int
    task_path: str
    payload: str


_Line = Head | MadeLine | ForkLine | StretchLine | WriteLine
_decode = msgspec.json.Decoder(_Line).decode


def write(dump: Dump) -> bytes:
    """A dump as JSON Lines."""
    lines: list[_Line] = [
        Head(_VERSION, dump.id, dump.space, dump.next_position, dump.next_log, dump.head, dump.pruned),
        *(MadeLine(made) for made in dump.checkpoints),
        *(ForkLine(fork) for fork in dump.branches),
        *(StretchLine(s.log, s.low, s.sealed, [_text(item) for item in s.items]) for s in dump.stretches),
        *(WriteLine(w.checkpoint, w.task_id, w.idx, w.task_path, _text(w.payload)) for w in dump.writes),
    ]
    return b"".join(_encode(line) + b"\n" for line in lines)


def read(data: bytes, registry: codec.Registry) -> Dump:
    """The dump in JSON Lines. ``Invalid`` for what is none; nothing in it is believed before it was looked at."""
    if not isinstance(data, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Invalid(f"an exported thread is bytes, not {type(data).__name__}", field="data")
    if len(data) > _BYTES:
        raise OverLimit(f"the export has {len(data):,} bytes; the limit is {_BYTES:,}", field="data", limit=_BYTES)
    head: Head | None = None
    checkpoints: list[Made] = []
    forks: list[Fork] = []
    stretches: list[Stretch] = []
    writes: list[Write] = []
    for number, raw in enumerate(bytes(data).splitlines(), 1):
        if number > _LINES:
            raise OverLimit(f"the export has more than {_LINES:,} lines", field="data", limit=_LINES)
        try:
            line = _decode(raw)
            if isinstance(line, Head):
                if head is not None or line.perdure != _VERSION:
                    raise _refusal("a second thread, or another version", number)
                head = line
            elif isinstance(line, MadeLine):
                checkpoints.append(_checked(line.made))
            elif isinstance(line, ForkLine):
                forks.append(line.fork)
            elif isinstance(line, StretchLine):
                stretches.append(Stretch(line.log, line.low, [_bytes(item) for item in line.items], line.sealed))
            else:
                writes.append(Write(line.checkpoint, line.task_id, line.idx, line.task_path, _bytes(line.payload)))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _refusal(str(error), number) from None
    if head is None:
        raise Invalid("this is no exported thread: its first line is missing", field="data")
    dump = Dump(
        head.id,
        head.space,
        head.next_position,
        head.next_log,
        head.head,
        head.pruned,
        checkpoints,
        forks,
        stretches,
        writes,
    )
    try:
        _whole(dump, registry)
    except Damaged as error:
        raise Invalid(f"this is no whole thread: {error.message}", field="data") from None
    return dump


def _refusal(why: str, number: int) -> Invalid:
    return Invalid(f"line {number} is no line of an exported thread: {why}", field="data", line=number)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _checked(made: Made) -> Made:
    limits.identifier(made.id, "id")
    if made.run_id is not None:
        limits.identifier(made.run_id, "run_id")
    for tag in made.tags:
        limits.text(tag, "tags", limits.NAME_BYTES)
    for number, highest in (
        (made.position, _HIGHEST), (made.branch, _HIGHEST), (made.status, len(STATUSES) - 1), (made.size, _HIGHEST),
        (made.created_at, _LAST_TIME),
    ):  # fmt: skip
        limits.count(number, "checkpoint", 0, highest)
    return made


def _whole(dump: Dump, registry: codec.Registry) -> None:
    """Nothing, when the dump is a thread: numbers that fit each other, and states that can be decoded."""
    limits.identifier(dump.id, "id")
    limits.text(dump.space, "space", 8_192, blank=True)
    limits.count(dump.next_position, "next_position", 0, _HIGHEST)
    limits.count(dump.next_log, "next_log", VALUES + 1, _HIGHEST)
    positions = [made.position for made in dump.checkpoints]
    covered = with_positions(dump.pruned, positions)
    fits = covered == ([(0, dump.next_position)] if dump.next_position else [])
    if not fits or len(set(positions)) != len(positions) or any(low >= high for low, high in dump.pruned):
        raise Invalid("checkpoints are missing or doubled", field="data")
    ids = {made.id for made in dump.checkpoints}
    if len(ids) != len(positions):
        raise Invalid("two checkpoints have one id", field="data")
    if any(made.parent is not None and not 0 <= made.parent < made.position for made in dump.checkpoints):
        raise Invalid("a checkpoint comes before its parent", field="data")
    _check_branches(dump)
    for write in dump.writes:
        limits.identifier(write.checkpoint, "checkpoint")
        limits.text(write.task_id, "task_id", limits.NAME_BYTES)
        limits.text(write.task_path, "task_path", limits.NAME_BYTES, blank=True)
        limits.count(write.idx, "idx", -_HIGHEST, _HIGHEST)
    _check_states(dump, _items(dump), registry)


def _check_branches(dump: Dump) -> None:
    names = {MAIN, *(fork.name for fork in dump.branches)}
    if [fork.number for fork in dump.branches] != list(range(1, len(dump.branches) + 1)) or len(names) <= len(
        dump.branches
    ):
        raise Invalid("branches do not fit each other", field="data")
    newest: dict[int, int] = {}
    for made in dump.checkpoints:
        newest[made.branch] = max(made.position, newest.get(made.branch, -1))
    heads = {0: dump.head, **{fork.number: fork.head for fork in dump.branches}}
    if not newest.keys() <= heads.keys():
        raise Invalid("branches do not fit the checkpoints", field="data")
    held = {made.position: made.branch for made in dump.checkpoints}
    for number, head in heads.items():
        if head is None:
            if number or number in newest:  # all of main may have been taken with the runs that saved it
                raise Invalid("a branch's newest checkpoint is missing", field="data")
        elif head not in held or head < newest.get(number, 0):
            raise Invalid("a branch's newest checkpoint is missing", field="data")
    for fork in dump.branches:
        limits.text(fork.name, "name", limits.NAME_BYTES)
        limits.identifier(fork.id, "id")
        limits.count(fork.fork_of, "fork_of", 0, dump.next_position - 1)
        if held.get(fork.fork_of, 0) >= fork.number:
            raise Invalid("a branch comes from one that was not there yet", field="data")
        limits.count(fork.created_at, "created_at", 0, _LAST_TIME)
        limits.text(fork.metadata, "metadata", limits.METADATA_BYTES)
        if not isinstance(tagged.decode(fork.metadata), dict):
            raise Invalid("a branch's metadata is no object", field="data")


def _items(dump: Dump) -> dict[int, dict[int, bytes]]:
    """The items by log and ordinal. ``Invalid`` for logs that could not be gone on with."""
    items: dict[int, dict[int, bytes]] = {}
    sealed: dict[int, int] = {}
    for stretch in dump.stretches:
        limits.count(stretch.log, "log", 0, dump.next_log - 1)
        limits.count(stretch.low, "low", 0, _HIGHEST)
        if not stretch.items:
            raise Invalid(f"a stretch of log {stretch.log} is empty", field="data")
        log = items.setdefault(stretch.log, {})
        for ordinal, item in enumerate(stretch.items, stretch.low):
            if ordinal in log:
                raise Invalid(f"item {ordinal} of log {stretch.log} is there twice", field="data")
            log[ordinal] = item
        if stretch.sealed:
            sealed[stretch.log] = max(sealed.get(stretch.log, 0), stretch.low + len(stretch.items))
    for stretch in dump.stretches:
        low = sealed.get(stretch.log, 0)
        if not stretch.sealed and not low <= stretch.low <= stretch.low + len(stretch.items) <= low + SEGMENT_ITEMS:
            raise Invalid(f"log {stretch.log} has items that should be sealed together", field="data")
    if max(items.get(ENTRIES, {}), default=-1) != dump.next_position - 1:
        raise Invalid("there are more or less entries than checkpoints", field="data")
    return items


def _check_states(dump: Dump, items: dict[int, dict[int, bytes]], registry: codec.Registry) -> None:
    seen: set[Any] = set()
    most = _AMPLE + _AGAIN * sum(len(item) for log, held in items.items() if log != ENTRIES for item in held.values())
    for made in dump.checkpoints:
        try:
            entry = read_entry(items[ENTRIES][made.position])
            if not isinstance(codec.decode(entry.metadata, registry), dict):
                raise Invalid("its metadata is no mapping", field="data")
            wanted = wanted_by([entry.tree])
            size = sum(len(items[log][at]) for log, numbers in wanted.singles.items() for at in numbers)
            for log, low, high in _runs_in(entry.tree):
                if not low < high <= low + len(items[log]):
                    raise Invalid(f"it lacks items of log {log}", field="data")
                size += sum(len(items[log][at]) for at in range(low, high))
                if size > most:
                    raise Invalid("its state names the same items again and again", field="data")
            for node in entry.tree.values():
                key = node if isinstance(node, bytes) else _encode(msgspec.to_builtins(node))
                if key not in seen:
                    seen.add(key)
                    put_together(fill(node, items), registry)
        except KeyError as error:
            raise Invalid(f"checkpoint {made.id!r} lacks item {error}", field="data") from None
        except (PerdureError, RecursionError) as error:
            raise Invalid(f"checkpoint {made.id!r}: {error}", field="data") from None


def _runs_in(node: Any) -> Iterator[Run]:
    """Every run of a tree, as often as it is there."""
    if isinstance(node, dict):
        for child in node.values():  # pyright: ignore[reportUnknownVariableType]
            yield from _runs_in(child)
    elif isinstance(node, list):
        yield from runs_in(node)[1]  # pyright: ignore[reportUnknownArgumentType]
