"""The logs of a thread: items one by one at their end, segments of many before it.

A ``Known`` is what a process holds of a thread at one version of it: the ends of its logs and its latest states, so that
the next checkpoint need not read them. Recipes work on a copy and answer it; a copy that is never used costs nothing.
"""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Protocol

import msgspec

from perdure.grammar import (
    Ask,
    Mode,
    Params,
    Row,
    StartOver,
    Steps,
    execute,
    execute_many,
    fetch_all,
    fetch_one,
    fetch_value,
    together,
)
from perdure.rooms.checkpoints.plan import VALUES
from perdure.rooms.checkpoints.tree import CHUNK, Branching, Items, Leaf, Part, Run, Wanted
from perdure.values.errors import ChecksumMismatch, Damaged

ENTRIES = 0
"""The log of entries: the ordinal is the checkpoint's position."""
SEGMENT_ITEMS = 64
SEGMENT_BYTES = CHUNK
"""Items, or bytes of them, from which they are sealed together."""


class Seal(Protocol):
    """What a room needs of a key domain: see ``perdure.crypto.seal``."""

    @property
    def domain(self) -> str: ...  # noqa: D102
    @property
    def is_keyed(self) -> bool: ...  # noqa: D102
    def content(self, data: bytes) -> bytes: ...  # noqa: D102
    def mac(self, *parts: bytes) -> bytes: ...  # noqa: D102
    def close(self, data: bytes, about: tuple[bytes, ...], *, compress: bool = True) -> bytes: ...  # noqa: D102
    def open(self, sealed: bytes, about: tuple[bytes, ...]) -> bytes: ...  # noqa: D102


class Thread(msgspec.Struct, frozen=True):
    """A thread's row. ``key`` names it inside seals."""

    ord: int
    id: str
    space: str
    version: int
    domain: str
    next_position: int
    next_log: int
    head: int | None
    in_order: int
    pruned: bytes | None
    created_at: int
    updated_at: int
    mac: bytes

    @property
    def key(self) -> bytes:
        """The thread's name inside seals: nothing of one thread opens in another's place.

        Nor what was of a thread that had the name before, hence the time.
        """
        return f"{self.space}\0{self.id}\0{self.created_at}".encode()


def thread_of(row: Row) -> Thread:
    """A thread from its row."""
    return Thread(*row)


class LogEnd(msgspec.Struct, frozen=True):
    """The end of a log: its next ordinal, and the items from ``low`` on, which are in no segment yet."""

    next: int = 0
    low: int = 0
    tail: tuple[bytes, ...] = ()
    size: int = 0


class Known(msgspec.Struct):
    """What is known of a thread at a version: the ends of logs, and by position some states and macs."""

    thread: int = -1
    version: int = -1
    ends: dict[int, LogEnd] = msgspec.field(default_factory=dict[int, LogEnd])
    states: dict[int, Branching] = msgspec.field(default_factory=dict[int, Branching])
    macs: dict[int, bytes] = msgspec.field(default_factory=dict[int, bytes])

    def copy(self) -> "Known":
        """Another one that can be changed; what it holds is shared and never changed."""
        return Known(self.thread, self.version, dict(self.ends), dict(self.states), dict(self.macs))


class Segment(msgspec.Struct, array_like=True):
    """What is inside a segment: the sizes of the items, and the items."""

    sizes: list[int]
    body: bytes


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Segment).decode


# -- writing -----------------------------------------------------------------------------------------------------------------


class Desk:
    """Collects what one change adds to the logs of a thread (a ``plan.Writer``)."""

    def __init__(self, thread: Thread, known: Known) -> None:
        self.next_log = thread.next_log
        self.added: dict[int, list[bytes]] = {}
        self._ends = known.ends
        self._first_new = thread.next_log

    def new_log(self) -> int:
        """A log that nobody wrote to yet."""
        self.next_log += 1
        self._ends[self.next_log - 1] = LogEnd()
        return self.next_log - 1

    def next_of(self, log: int) -> int:
        """The ordinal that the next item of a log gets; its end must be known."""
        return self._ends[log].next + len(self.added.get(log, ()))

    def append(self, log: int, items: list[bytes]) -> int:
        """The ordinal of the first of these items."""
        first = self.next_of(log)
        self.added.setdefault(log, []).extend(items)
        return first


def ends_needed(base: Branching | None) -> dict[int, int]:
    """The logs whose ends must be known before something is added to a state like this, and where each cannot end before.

    A number that was given to an item must never be given to another one.
    """
    needed = {VALUES: 0}
    stack: list[Part] = [] if base is None else [base]
    while stack:
        part = stack.pop()
        if isinstance(part, Branching):
            stack += part.children.values()
        elif isinstance(part, Items) and part.runs:
            last = part.runs[-1][0]
            needed[last] = max(needed.get(last, 0), *(high for log, _, high in part.runs if log == last))
        elif isinstance(part, Leaf) and part.ref is not None:
            needed[part.ref[0]] = max(needed.get(part.ref[0], 0), part.ref[1] + 1)
    return needed


def load_ends(thread: Thread, known: Known, least: Mapping[int, int], seal: Seal) -> Steps[None]:
    """Makes the ends of these logs known. ``ChecksumMismatch`` when one ends before it can."""
    for log in sorted(least.keys() - known.ends.keys()):
        known.ends[log] = yield from _end_of(thread, log, seal)
        if known.ends[log].next < least[log]:
            raise ChecksumMismatch(f"log {log} of thread {thread.id!r} ends too early", thread=thread.id)


def _end_of(thread: Thread, log: int, seal: Seal) -> Steps[LogEnd]:
    row = yield from fetch_one("checkpoints.newest_item", thread=thread.ord, log=log)
    newest, low = (None, None) if row is None else row
    low = low or 0
    if newest is None or newest < low:
        return LogEnd(low, low)
    if newest >= low + SEGMENT_ITEMS:  # they would have been sealed together
        raise ChecksumMismatch(f"log {log} of thread {thread.id!r} lacks items after {low}", thread=thread.id)
    rows = yield from fetch_all("checkpoints.items", thread=thread.ord, log=log, low=low, high=newest + 1)
    found = {ordinal: open_item(seal, thread, log, ordinal, payload) for ordinal, payload in rows}
    # What retention took from between leaves a gap. A state that leads there all the same does not decode.
    tail = tuple(found.get(ordinal, b"") for ordinal in range(low, newest + 1))
    return LogEnd(newest + 1, low, tail, sum(map(len, tail)))


def write(thread: Thread, known: Known, desk: Desk, seal: Seal, *, compress: bool) -> Steps[int]:
    """Stores what was added, sealing what is enough for a segment; how many bytes it took."""
    stored = 0
    rows: list[Params] = []
    for log, items in desk.added.items():
        end = known.ends.get(log, LogEnd())
        tail = [*end.tail, *items]
        size = end.size + sum(map(len, items))
        low, kept = end.low, 0
        while len(tail) - kept >= SEGMENT_ITEMS or size >= SEGMENT_BYTES:
            portion = _portion(tail, kept)
            stored += yield from seal_run(thread, log, low, portion, seal, compress=compress)
            low += len(portion)
            kept += len(portion)
            size -= sum(map(len, portion))
        if low > end.low and end.tail:
            yield from execute("checkpoints.remove_items", thread=thread.ord, log=log, low=end.low, high=low)
        next_ordinal = end.next + len(items)
        for ordinal in range(max(low, end.next), next_ordinal):
            payload = close_item(seal, thread, log, ordinal, tail[ordinal - end.low], compress=compress)
            stored += len(payload)
            rows.append({"thread": thread.ord, "log": log, "ordinal": ordinal, "payload": payload})
        known.ends[log] = LogEnd(next_ordinal, low, tuple(tail[kept:]), size)
    yield from execute_many("checkpoints.put_item", rows)
    return stored


def _portion(tail: list[bytes], start: int) -> list[bytes]:
    """The items of the next segment: 64, or fewer when they are large."""
    portion: list[bytes] = []
    size = 0
    for item in tail[start : start + SEGMENT_ITEMS]:
        portion.append(item)
        size += len(item)
        if size >= SEGMENT_BYTES:
            break
    return portion


def seal_run(thread: Thread, log: int, low: int, portion: list[bytes], seal: Seal, *, compress: bool) -> Steps[int]:
    """Makes items that follow each other a segment of a log (or shares an equal one); the bytes that were added."""
    content = _pack(Segment([len(item) for item in portion], b"".join(portion)))
    digest = seal.content(content)
    segment, size = yield from put_segment(content, digest, seal, compress=compress)
    high = low + len(portion)
    yield from execute(
        "checkpoints.add_run", thread=thread.ord, log=log, low=low, high=high, segment=segment,
        mac=run_mac(seal, thread, log, low, high, digest),
    )  # fmt: skip
    return size


def put_segment(content: bytes, digest: bytes, seal: Seal, *, compress: bool) -> Steps[tuple[int, int]]:
    """The number of the segment with this content, and the bytes that were added for it (0: an equal one was there)."""
    found = yield from fetch_value("checkpoints.segment", domain=seal.domain, hash=digest)
    if found is not None:
        return found, 0
    payload = seal.close(content, (b"segment", digest), compress=compress)
    yield from execute("checkpoints.add_segment", domain=seal.domain, hash=digest, payload=payload)
    found = yield from fetch_value("checkpoints.segment", domain=seal.domain, hash=digest)
    if found is None:
        raise StartOver("an equal segment was reclaimed at this moment", retry_after=0.05)
    return found, len(payload)


def close_item(seal: Seal, thread: Thread, log: int, ordinal: int, item: bytes, *, compress: bool) -> bytes:
    """An item as it is stored while it is in no segment."""
    return seal.close(item, _item(thread, log, ordinal), compress=compress)


def _item(thread: Thread, log: int, ordinal: int) -> tuple[bytes, ...]:
    return b"item", thread.key, b"%d" % log, b"%d" % ordinal


def run_mac(seal: Seal, thread: Thread, log: int, low: int, high: int, digest: bytes) -> bytes:
    """What binds a segment to its place in a log."""
    return seal.mac(b"run", thread.key, b"%d" % log, b"%d" % low, b"%d" % high, digest)


# -- reading -------------------------------------------------------------------------------------------------------------------


def open_item(seal: Seal, thread: Thread, log: int, ordinal: int, payload: bytes) -> bytes:
    """The plain bytes of an item. Raises ``Damaged``, naming the item."""
    try:
        return seal.open(payload, _item(thread, log, ordinal))
    except Damaged as error:
        raise _named(error, f"item {ordinal} of log {log}", thread) from error


def open_segment(seal: Seal, thread: Thread, log: int, row: Row) -> tuple[int, Segment]:
    """The first ordinal and the content of a segment, from (low, high, hash, payload, mac). Raises ``Damaged``."""
    low, high, digest, payload, mac = row
    name = f"segment {bytes(digest).hex()}"
    if bytes(mac) != run_mac(seal, thread, log, low, high, bytes(digest)):
        raise _named(ChecksumMismatch("it stands in another's place"), name, thread)
    try:
        segment = _unpack(seal.open(payload, (b"segment", bytes(digest))))
    except Damaged as error:
        raise _named(error, name, thread) from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise _named(ChecksumMismatch(str(error)), name, thread) from error
    if len(segment.sizes) != high - low or sum(segment.sizes) != len(segment.body):
        raise _named(ChecksumMismatch("its sizes do not add up"), name, thread)
    return low, segment


def _named(error: Damaged, what: str, thread: Thread) -> Damaged:
    return type(error)(f"{what} of thread {thread.id!r}: {error.message}", hint=error.hint, thread=thread.id, part=what)


def gather(thread: Thread, wanted: Wanted, seal: Seal) -> Steps[dict[int, dict[int, bytes]]]:
    """The bytes of wanted items, by log and ordinal, in one round trip."""
    asks: list[Ask] = []
    logs: list[int] = []

    def ask(name: str, log: int, **params: Any) -> None:
        asks.append(Ask(Mode.ALL, name, {"thread": thread.ord, "log": log, **params}))
        logs.append(log)

    for log, ordinals in wanted.singles.items():
        ask("checkpoints.single_segments", log, ordinals=sorted(ordinals))
        ask("checkpoints.single_items", log, ordinals=sorted(ordinals))
    for log, low, high in _merged(wanted.runs):
        ask("checkpoints.segments", log, low=low, high=high)
        ask("checkpoints.items", log, low=low, high=high)
    if not asks:
        return {}
    answers = yield from together(*asks)
    found: dict[int, dict[int, bytes]] = {log: {} for log in logs}
    for index, log in enumerate(logs):
        if index % 2:
            found[log].update((o, open_item(seal, thread, log, o, payload)) for o, payload in answers[index])
        else:
            for row in answers[index]:
                _spread(found[log], *open_segment(seal, thread, log, row))
    return found


def _spread(found: dict[int, bytes], low: int, segment: Segment) -> None:
    body, start = segment.body, 0
    for ordinal, end in enumerate(accumulate(segment.sizes), low):
        found[ordinal] = body[start:end]
        start = end


def _merged(runs: set[Run]) -> list[Run]:
    """Runs with those that touch or overlap made one."""
    found: list[Run] = []
    for log, low, high in sorted(runs):
        if found and found[-1][0] == log and low <= found[-1][2]:
            found[-1] = (log, found[-1][1], max(high, found[-1][2]))
        else:
            found.append((log, low, high))
    return found


def entries(thread: Thread, positions: list[int], seal: Seal) -> Steps[Mapping[int, bytes]]:
    """The entries at these positions, as bytes. Raises ``Damaged`` when one is missing."""
    if not positions:
        return {}
    low, high = min(positions), max(positions) + 1
    dense = high - low <= 2 * len(positions) + SEGMENT_ITEMS
    wanted = Wanted({}, {(ENTRIES, low, high)}) if dense else Wanted({ENTRIES: set(positions)}, set())
    found = (yield from gather(thread, wanted, seal)).get(ENTRIES, {})
    for position in positions:
        if position not in found:
            raise ChecksumMismatch(
                f"the entry of checkpoint {position} of thread {thread.id!r} is missing", thread=thread.id
            )
    return found
