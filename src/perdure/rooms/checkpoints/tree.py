"""A state taken apart: what is stored of it, piece by piece, and how the pieces make a state again.

A state is a mapping of channels. Each channel becomes a *part*:

- ``Leaf``: one encoded value. Up to ``INLINE`` bytes stand in the checkpoint's own entry, others are an item of the
  thread's log of values.
- ``Items``: a sequence of encoded items that is kept in a log of its own, so that what did not change is not written
  again: the items of a list, the pairs of a mapping with many keys, or the chunks of a large value.
- ``Branching``: a mapping with few keys and much in it; each value is a part.

The *entry* of a checkpoint is the same tree with references in place of bytes.
"""

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, cast

import msgspec

from perdure.rooms.checkpoints import codec
from perdure.rooms.checkpoints.leaves import is_sound
from perdure.values.errors import Undecodable

INLINE = 32
"""Bytes of a value that is kept in the entry itself: less than a reference and a row would take."""
SPLIT = 4_096
"""Bytes from which a mapping is kept part by part."""
FEW_KEYS = 32
"""Keys up to which each value of a mapping is a part of its own; a mapping with more is a sequence of pairs."""
CHUNK = 256 * 1_024
"""Bytes of a chunk: values larger than that are cut, so that an edit in 100 MB costs one chunk."""
LEVELS = 4
"""Levels of mappings that are taken apart."""

LIST, PAIRS, CHUNKS = 0, 1, 2

Run = tuple[int, int, int]
"""A log, the first ordinal and the one after the last."""


class Leaf(msgspec.Struct):
    """One encoded value; ``ref`` is its log and ordinal once it has one (None: it stands in the entry)."""

    data: bytes
    ref: tuple[int, int] | None = None


class Items(msgspec.Struct):
    """Encoded items one after another; ``ends`` are the offsets at which they end, ``runs`` where they are kept."""

    kind: int
    body: bytes
    count: int
    ends: "array[int] | None" = None
    runs: tuple[Run, ...] = ()

    def offsets(self) -> "array[int]":
        """The offsets at which the items end."""
        if self.ends is None:
            self.ends = ends_of(self.body, self.count)
        return self.ends

    def item(self, index: int) -> bytes:
        """One item's bytes."""
        ends = self.offsets()
        return self.body[ends[index - 1] if index else 0 : ends[index]]

    def slices(self, low: int, high: int) -> list[bytes]:
        """The bytes of items ``low`` to ``high - 1``."""
        ends, body = self.offsets(), self.body
        start = ends[low - 1] if low else 0
        found: list[bytes] = []
        for end in ends[low:high]:
            found.append(body[start:end])
            start = end
        return found


class Branching(msgspec.Struct):
    """A mapping whose values are parts."""

    children: "dict[str, Part]"


Part = Leaf | Items | Branching


def ends_of(body: bytes, count: int, base: int = 0) -> "array[int]":
    """Where each of ``count`` encoded values ends; every offset is moved by ``base``."""
    if count == 0:
        return array("Q")
    raws = msgspec.msgpack.decode(array_header(count) + body, type=list[msgspec.Raw])
    ends = array("Q", accumulate((len(memoryview(raw)) for raw in raws), initial=base))
    return ends[1:]


def array_header(count: int) -> bytes:
    """The msgpack header of an array."""
    if count < 16:
        return bytes((0x90 | count,))
    if count < 0x10000:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


# -- apart -------------------------------------------------------------------------------------------------------------------


def take_apart(state: Mapping[str, Any], registry: codec.Registry) -> Branching:
    """The parts of a state. Raises ``Invalid`` for what cannot be kept, naming its path."""
    return Branching({name: part_of(value, registry, f"state.{name}", 1) for name, value in state.items()})


def part_of(value: Any, registry: codec.Registry, where: str, level: int) -> Part:
    """The part that one value becomes."""
    data = codec.encode(value, registry, where)
    kind = cast("Any", type(value))
    if kind is list:
        count, offset = codec.array_body(data)
        return Items(LIST, data[offset:], count)
    if kind is dict and len(data) > SPLIT and all(type(key) is str and is_sound(key) for key in value):
        if len(value) <= FEW_KEYS and level < LEVELS:
            return Branching({key: part_of(item, registry, f"{where}.{key}", level + 1) for key, item in value.items()})
        if len(value) > FEW_KEYS:
            pairs = codec.encode([[key, item] for key, item in value.items()], registry, where)
            count, offset = codec.array_body(pairs)
            return Items(PAIRS, pairs[offset:], count)
    return leaf_or_chunks(data)


def leaf_or_chunks(data: bytes) -> Leaf | Items:
    """One encoded value: whole, or cut when it is large."""
    if len(data) <= CHUNK:
        return Leaf(data)
    ends = array("Q", [*range(CHUNK, len(data), CHUNK), len(data)])
    return Items(CHUNKS, data, len(ends), ends)


# -- together ------------------------------------------------------------------------------------------------------------------


def put_together(part: Part, registry: codec.Registry) -> Any:
    """The value that a part stands for; a fresh one each time. Raises ``Undecodable``."""
    if isinstance(part, Leaf):
        return codec.decode(part.data, registry)
    if isinstance(part, Branching):
        return {name: put_together(child, registry) for name, child in part.children.items()}
    if part.kind == CHUNKS:
        return codec.decode(part.body, registry)
    found = codec.decode(array_header(part.count) + part.body, registry)
    if part.kind == LIST:
        return found
    pairs = dict(found)
    if len(pairs) != len(found):
        raise Undecodable("a mapping holds a key twice")
    return pairs


# -- the entry -------------------------------------------------------------------------------------------------------------------


class Entry(msgspec.Struct, array_like=True):
    """What a checkpoint is made of: the tree of references, its metadata (encoded), and the node that made it."""

    tree: dict[str, Any]
    metadata: bytes
    node: str | None
    link: bytes
    """The mac of the checkpoint that it was made from, b"" for a first one: the chain."""


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Entry).decode


def write_entry(state: Branching, metadata: bytes, node: str | None, link: bytes) -> bytes:
    """The bytes of an entry."""
    return _pack(Entry(_refs(state), metadata, node, link))


def read_entry(data: bytes) -> Entry:
    """The entry in its bytes. Raises ``Undecodable``."""
    try:
        return _unpack(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Undecodable(f"a checkpoint's entry cannot be decoded: {error}") from error


def _refs(part: Part) -> Any:
    """A part's references: bytes, [log, ordinal], [-kind - 1, log, low, high, ...], or a mapping of them."""
    if isinstance(part, Leaf):
        return part.data if part.ref is None else part.ref
    if isinstance(part, Branching):
        return {name: _refs(child) for name, child in part.children.items()}
    flat = [-part.kind - 1]
    for run in part.runs:
        flat += run
    return flat


class Wanted(msgspec.Struct, frozen=True):
    """Where the bytes of an entry's tree are: single ordinals by log, and runs."""

    singles: dict[int, set[int]]
    runs: set[Run]


def wanted_by(trees: Iterator[Any] | list[Any]) -> Wanted:
    """Everything that these trees refer to. Raises ``Undecodable`` for a tree that is none."""
    wanted = Wanted({}, set())
    for tree in trees:
        _want(tree, wanted, 0)
    return wanted


def _want(node: Any, wanted: Wanted, level: int) -> None:
    if isinstance(node, dict):
        if level > LEVELS:
            raise Undecodable("a checkpoint's entry is nested too deep")
        for child in node.values():  # pyright: ignore[reportUnknownVariableType]
            _want(child, wanted, level + 1)
    elif isinstance(node, list):
        kind, runs = runs_in(node)  # pyright: ignore[reportUnknownArgumentType]
        if kind is None:
            wanted.singles.setdefault(runs[0][0], set()).add(runs[0][1])
        else:
            wanted.runs.update(runs)
    elif not isinstance(node, bytes):
        raise Undecodable("a checkpoint's entry holds what is no reference")


def runs_in(node: list[Any]) -> tuple[int | None, tuple[Run, ...]]:
    """The kind (None for a single value) and the runs of a reference."""
    if not all(type(number) is int for number in node) or len(node) < 1:
        raise Undecodable("a checkpoint's entry holds what is no reference")
    if len(node) == 2 and node[0] >= 0:
        return None, ((node[0], node[1], node[1] + 1),)
    kind = -node[0] - 1
    if kind not in (LIST, PAIRS, CHUNKS) or len(node) % 3 != 1:
        raise Undecodable("a checkpoint's entry holds what is no reference")
    runs = tuple((node[at], node[at + 1], node[at + 2]) for at in range(1, len(node), 3))
    if any(low >= high or low < 0 for _, low, high in runs):
        raise Undecodable("a checkpoint's entry holds an empty run")
    return kind, runs


def fill(node: Any, items: Mapping[int, Mapping[int, bytes]]) -> Part:
    """The part behind a tree's node, with bytes from ``items`` (log → ordinal → bytes). ``KeyError`` for a missing one."""
    if isinstance(node, dict):
        return Branching({str(name): fill(child, items) for name, child in cast("dict[str, Any]", node).items()})
    if isinstance(node, bytes):
        return Leaf(node)
    kind, runs = runs_in(node)
    if kind is None:
        log, ordinal, _ = runs[0]
        return Leaf(items[log][ordinal], (log, ordinal))
    found: list[bytes] = []
    for log, low, high in runs:
        held = items[log]
        found += [held[ordinal] for ordinal in range(low, high)]
    return Items(kind, b"".join(found), len(found), array("Q", accumulate(map(len, found))), runs)


# -- looking at parts --------------------------------------------------------------------------------------------------------


def size(part: Part) -> int:
    """The bytes of a part's values."""
    if isinstance(part, Leaf):
        return len(part.data)
    if isinstance(part, Items):
        return len(part.body)
    return sum(size(child) for child in part.children.values())


def digest(part: Part) -> str:
    """A hash of what a part holds, the same for equal parts."""
    found = hashlib.blake2b(digest_size=16)
    _feed(part, found)
    return found.hexdigest()


def _feed(part: Part, found: "hashlib.blake2b") -> None:
    if isinstance(part, Branching):
        found.update(b"m%d" % len(part.children))
        for name, child in part.children.items():
            found.update(b"%d:" % len(name))
            found.update(name.encode("utf-8", "surrogatepass"))
            _feed(child, found)
    else:
        data = part.data if isinstance(part, Leaf) else part.body
        found.update(b"v%d:" % len(data))
        found.update(data)


def same(a: Part, b: Part) -> bool:
    """Whether two parts hold the same bytes (the order of keys counts)."""
    if isinstance(a, Leaf) and isinstance(b, Leaf):
        return a.data == b.data
    if isinstance(a, Items) and isinstance(b, Items):
        return a.kind == b.kind and a.body == b.body
    if isinstance(a, Branching) and isinstance(b, Branching):
        return list(a.children) == list(b.children) and all(
            same(child, b.children[name]) for name, child in a.children.items()
        )
    return False


def changed_share(new: Branching, base: Branching | None) -> float:
    """Which share of a state's bytes the state before it did not hold, from 0 to 1."""
    total = size(new)
    if base is None or not total:
        return 1.0
    return min(1.0, sum(_changed(part, base.children.get(name)) for name, part in new.children.items()) / total)


def _changed(part: Part, base: Part | None) -> int:
    if base is None or type(part) is not type(base):
        return size(part)
    if isinstance(part, Branching) and isinstance(base, Branching):
        return sum(_changed(child, base.children.get(name)) for name, child in part.children.items())
    if isinstance(part, Items) and isinstance(base, Items):
        if part.body.startswith(base.body):
            return len(part.body) - len(base.body)
        held = set(base.slices(0, base.count))
        return sum(len(item) for item in part.slices(0, part.count) if item not in held)
    return 0 if same(part, base) else size(part)


def added_items(new: Branching, base: Branching | None) -> Iterator[bytes]:
    """The encoded items at the ends of a state's lists that the state before it did not have."""
    for name, part in new.children.items():
        if isinstance(part, Items) and part.kind == LIST:
            before = None if base is None else base.children.get(name)
            known = before.count if isinstance(before, Items) and part.body.startswith(before.body) else 0
            yield from part.slices(known, part.count)
