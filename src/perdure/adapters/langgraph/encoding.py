"""LangGraph's checkpoints as parts of a perdure state, and back.

A channel's value is written by LangGraph's own serializer, a list item by item, so that what is appended is all that a step
costs. What it writes is kept as a ``Foreign`` value, with the name of the form.
"""

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from langgraph.checkpoint.serde.base import SerializerProtocol

from perdure.adapters.langgraph.items import ITEM_BYTES, ItemCache, Lending, Lent, is_plain, mark_of
from perdure.rooms.checkpoints import codec
from perdure.rooms.checkpoints.leaves import Foreign
from perdure.rooms.checkpoints.lineage import PARENT, parent_part, read_parent
from perdure.rooms.checkpoints.tree import LIST, Branching, Items, Leaf, Part, leaf_or_chunks
from perdure.rooms.checkpoints.wire import Code
from perdure.values.errors import Invalid, Undecodable

CHANNEL = "channel:"
"""Begins the name of the part that is a channel's value."""
REST = "checkpoint"
"""The part with all of a checkpoint but the channels' values."""
_FOREIGN = int(Code.FOREIGN)
_NONE = codec.Registry()
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(msgspec.msgpack.Ext).decode
_unpack_pair = msgspec.msgpack.Decoder(tuple[str, bytes]).decode


class Encoder:
    """Writes and reads lists item by item; shared by copies of a saver."""

    def __init__(self) -> None:
        self._cache = ItemCache()

    def part(self, value: Any, serde: SerializerProtocol, where: tuple[str, ...]) -> Part:
        """A channel's value as a part; ``where`` names the channel of a thread."""
        if type(value) is not list or not value:
            return leaf_or_chunks(foreign(value, serde))
        before = self._cache.lent(where)
        after: Lending = {}
        bodies: list[bytes] = []
        for item in cast("list[Any]", value):
            lent = before.get(id(item))
            if lent is None or lent.value is not item or lent.serde is not serde or mark_of(item) != lent.mark:
                lent = self._written(item, serde)
            if isinstance(lent, Lent):
                after[id(item)] = lent
                bodies.append(lent.data)
            else:
                bodies.append(lent)
        self._cache.lend(where, after)
        return Items(LIST, b"".join(bodies), len(bodies))

    def _written(self, item: Any, serde: SerializerProtocol) -> Lent | bytes:
        """An item that is lent from now on, or just its bytes when it has no mark, or is large."""
        # The mark is taken first: what another thread changes meanwhile is written the next time.
        mark = mark_of(item) if is_plain(item) else None
        data = foreign(item, serde)
        return data if mark is None or len(data) > ITEM_BYTES else Lent(item, mark, data, serde)

    def value(self, part: Part, serde: SerializerProtocol, where: tuple[str, ...]) -> Any:
        """The value of a channel from its part."""
        if not isinstance(part, Items) or part.kind != LIST:
            return value_of(part, serde)
        found: list[Any] = []
        lending: Lending = {}
        written = part.slices(0, part.count)
        for data, known in zip(written, self._cache.find(written, serde), strict=True):
            kept = known
            if kept is None:
                item = native(data, serde)
                kept = self._cache.keep(item, data, serde)
            else:
                item = kept.fresh()
            if kept is not None and kept.mark is not None:
                lending[id(item)] = Lent(item, kept.mark, data, serde)
            found.append(item)
        self._cache.lend(where, lending)
        return found


def foreign(value: Any, serde: SerializerProtocol) -> bytes:
    """A value as LangGraph's serializer writes it, with the name of the form."""
    form, data = serde.dumps_typed(value)
    return _pack(msgspec.msgpack.Ext(_FOREIGN, _pack((form, bytes(data)))))


def native(data: bytes, serde: SerializerProtocol) -> Any:
    """The value that ``foreign`` wrote. Raises ``Undecodable``."""
    try:
        found = _unpack(data)
        if found.code != _FOREIGN:
            raise Undecodable("a value of LangGraph was not written by its serializer")
        form, inner = _unpack_pair(found.data)
    except msgspec.MsgspecError as error:
        raise Undecodable(f"a value of LangGraph cannot be decoded: {error}") from error
    return serde.loads_typed((form, inner))


def value_of(part: Part, serde: SerializerProtocol) -> Any:
    """The value of a part."""
    if isinstance(part, Leaf):
        return native(part.data, serde)
    if isinstance(part, Items):
        if part.kind == LIST:
            return [native(item, serde) for item in part.slices(0, part.count)]
        return native(part.body, serde)
    raise Undecodable("a channel of LangGraph is kept in an unknown form")


def state_of(
    checkpoint: Mapping[str, Any], channels: Mapping[str, Part], parent: str | None, serde: SerializerProtocol
) -> Branching:
    """A checkpoint as the parts of a state."""
    rest = {name: value for name, value in checkpoint.items() if name != "channel_values"}
    children: dict[str, Part] = {CHANNEL + name: part for name, part in channels.items()}
    children[REST] = leaf_or_chunks(foreign(rest, serde))
    return Branching(children | parent_part(parent))


def checkpoint_of(
    state: Branching, serde: SerializerProtocol, encoder: Encoder, where: tuple[str, ...]
) -> tuple[dict[str, Any], str | None]:
    """A checkpoint and its parent's id, from the parts of a state; ``where`` names thread and namespace."""
    rest = value_of(state.children[REST], serde) if REST in state.children else None
    if not isinstance(rest, dict):
        raise Undecodable("a checkpoint of LangGraph lacks its head")
    values = {
        name.removeprefix(CHANNEL): encoder.value(part, serde, (*where, name.removeprefix(CHANNEL)))
        for name, part in state.children.items()
        if name.startswith(CHANNEL)
    }
    parent = state.children.get(PARENT)
    parent_id = read_parent(parent.data) if isinstance(parent, Leaf) else None
    return {**cast("dict[str, Any]", rest), "channel_values": values}, parent_id


def plain_metadata(metadata: Mapping[str, Any], serde: SerializerProtocol) -> dict[str, Any]:
    """Metadata as perdure keeps it, readable for everyone; what LangGraph alone can write is kept as it writes it."""
    found: dict[str, Any] = {}
    for name, value in metadata.items():
        try:
            codec.encode(value, _NONE)
        except Invalid:
            form, data = serde.dumps_typed(value)
            found[name] = Foreign(form, bytes(data))
        else:
            found[name] = value
    return found


def given_metadata(metadata: Mapping[str, Any], serde: SerializerProtocol) -> dict[str, Any]:
    """Metadata as it was given."""
    return {
        name: serde.loads_typed((value.codec, value.data)) if isinstance(value, Foreign) else value
        for name, value in metadata.items()
    }
