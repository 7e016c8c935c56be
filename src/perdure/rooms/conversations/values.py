"""Conversations and messages as people see them, and how a row becomes one."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from perdure.grammar import Row
from perdure.rooms.conversations.content import Content, Part, decode_parts, encode_parts, plain_text
from perdure.rooms.conversations.draft import MessageRole
from perdure.rooms.conversations.usage import TokenUsage
from perdure.values import limits, tagged
from perdure.values.clock import Micros, to_datetime
from perdure.values.errors import ChecksumMismatch, Invalid

T = TypeVar("T")
_ROLES = {role.value: role for role in MessageRole}


class Page(list[T]):
    """One page of an answer: a list, and the cursor that continues it (None at the end)."""

    def __init__(self, items: Sequence[T] = (), next_cursor: str | None = None) -> None:
        super().__init__(items)
        self.next_cursor = next_cursor

    def __repr__(self) -> str:
        return f"Page({super().__repr__()}, next_cursor={self.next_cursor!r})"


class ConversationMetadata(msgspec.Struct, frozen=True):
    """What is known about a conversation beside its messages.

    ``context`` and ``settings`` may hold any JSON value, and datetimes, UUIDs, Decimals and bytes.
    """

    title: str | None = None
    tags: tuple[str, ...] = ()
    context: Mapping[str, Any] = {}
    participants: tuple[str, ...] = ()
    settings: Mapping[str, Any] = {}


class Message(msgspec.Struct, frozen=True):
    """One message. ``seq`` counts from 1 in its conversation; ``name`` is the speaker."""

    id: str
    conversation_id: str
    seq: int
    role: MessageRole
    content: Content
    name: str | None
    metadata: Mapping[str, Any]
    token_usage: TokenUsage | None
    created_at: datetime
    parent_id: str | None
    version: int = 1

    @property
    def text(self) -> str:
        """The text of the content: text parts and tool results joined, as the search sees it."""
        return plain_text(self.content)


class MessageVersion(msgspec.Struct, frozen=True):
    """What a message said before it was edited or deleted."""

    version: int
    role: MessageRole
    name: str | None
    content: Content
    metadata: Mapping[str, Any]
    token_usage: TokenUsage | None
    verb: str
    actor: str | None
    at: datetime


class Conversation(msgspec.Struct, frozen=True):
    """A conversation and its totals, which are exact. ``messages`` is filled when asked for."""

    id: str
    agent_id: str
    user_id: str
    metadata: ConversationMetadata
    created_at: datetime
    updated_at: datetime
    last_message_at: datetime | None
    message_count: int
    token_usage: TokenUsage
    version: int
    messages: tuple[Message, ...] = ()


class TokenReportRow(msgspec.Struct, frozen=True):
    """Tokens and cost of one group; what was not grouped by is None. ``day`` is an ISO date in UTC."""

    user_id: str | None
    agent_id: str | None
    model: str | None
    day: str | None
    messages: int
    token_usage: TokenUsage


class Prepared(msgspec.Struct, gc=False):
    """A draft turned into the values of its row, checked, with its id."""

    id: str
    role: str
    name: str | None
    body: str
    form: int
    metadata: str | None
    usage: TokenUsage | None
    parent_id: str | None
    created_at: Micros
    content: Content


class Sums(msgspec.Struct, gc=False):
    """Tokens and cost added up."""

    messages: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost: int = 0

    def add(self, usage: TokenUsage | None, sign: int = 1) -> None:
        """Counts one message's usage in (or out)."""
        self.messages += sign
        if usage is not None:
            self.input_tokens += sign * usage.input_tokens
            self.output_tokens += sign * usage.output_tokens
            self.total_tokens += sign * usage.total_tokens
            self.cost += sign * (usage.cost_nanos or 0)

    def join(self, other: "Sums") -> None:
        """Counts other sums in."""
        self.messages += other.messages
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.total_tokens += other.total_tokens
        self.cost += other.cost


# -- metadata ------------------------------------------------------------------------------------------------------------


def metadata_of(value: ConversationMetadata | Mapping[str, Any] | None) -> ConversationMetadata:
    """Checked conversation metadata from a struct or a mapping; unknown names are Invalid and list the known ones."""
    if value is None:
        return _EMPTY
    if isinstance(value, ConversationMetadata):
        value = {name: getattr(value, name) for name in ConversationMetadata.__struct_fields__}
    if not isinstance(value, Mapping):
        raise Invalid(f"metadata must be a mapping, not {type(value).__name__}", field="metadata")
    unknown = [str(name) for name in value if name not in ConversationMetadata.__struct_fields__]
    if unknown:
        known = ", ".join(ConversationMetadata.__struct_fields__)
        raise Invalid(
            f"metadata has no field {min(unknown)!r}; there are {known}", field=f"metadata.{min(unknown)}",
            hint="put your own keys into metadata.context",
        )  # fmt: skip
    title = value.get("title")
    if title is not None:
        limits.text(title, "metadata.title", limits.TITLE_BYTES)
    return ConversationMetadata(
        title, _labels(value.get("tags"), "metadata.tags"), _mapping(value.get("context"), "metadata.context"),
        _labels(value.get("participants"), "metadata.participants"),
        _mapping(value.get("settings"), "metadata.settings"),
    )  # fmt: skip


_EMPTY = ConversationMetadata()


def _labels(value: Any, field: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence | set | frozenset):
        raise Invalid(f"{field} must be a list of texts, not {type(value).__name__}", field=field)
    items: list[Any] = sorted(value) if isinstance(value, set | frozenset) else list(value)  # type: ignore[type-var]
    limits.count(len(items), f"the number of {field}", 0, limits.LABELS)
    return tuple(dict.fromkeys(limits.text(item, f"{field}[{i}]", limits.NAME_BYTES) for i, item in enumerate(items)))


def _mapping(value: Any, field: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid(f"{field} must be a mapping, not {type(value).__name__}", field=field)
    return dict(value)  # type: ignore[arg-type]


def encode_metadata(metadata: ConversationMetadata) -> str:
    """The JSON of conversation metadata; what is empty is left out."""
    fields: dict[str, Any] = {
        "title": metadata.title,
        "tags": list(metadata.tags),
        "context": metadata.context,
        "participants": list(metadata.participants),
        "settings": metadata.settings,
    }
    kept = {name: value for name, value in fields.items() if value}
    return tagged.encode(kept, "metadata", limits.METADATA_BYTES, limits.METADATA_DEPTH)


def decode_metadata(text: str) -> ConversationMetadata:
    """Conversation metadata from its JSON."""
    if text == "{}":
        return _EMPTY
    found = tagged.decode(text)
    return ConversationMetadata(
        found.get("title"), tuple(found.get("tags", ())), found.get("context", {}),
        tuple(found.get("participants", ())), found.get("settings", {}),
    )  # fmt: skip


# -- rows ------------------------------------------------------------------------------------------------------------------


def conversation_of(row: Row, messages: tuple[Message, ...] = ()) -> Conversation:
    """The conversation of a row of the ``{conversation}`` columns."""
    usage = TokenUsage.stored(row[10], row[11], row[12], None, row[13])
    return Conversation(
        row[1], row[2], row[3], decode_metadata(row[4]), to_datetime(row[5]), to_datetime(row[6]),
        to_datetime(row[7]) if row[8] > 1 else None, row[9], usage, row[14], messages,
    )  # fmt: skip


def content_of(body: str, form: int) -> str | tuple[Part, ...]:
    """A message's content from its stored form."""
    return decode_parts(body) if form else body


def usage_of(row: Sequence[Any]) -> TokenUsage | None:
    """Token usage from (input, output, total, model, cost); None when nothing was recorded."""
    return None if row[2] is None else TokenUsage.stored(row[0], row[1], row[2], row[3], row[4])


def message_of(row: Row, conversation_id: str) -> Message:
    """The message of a row of the ``{message}`` columns."""
    return Message(
        row[3], conversation_id, row[2], _ROLES[row[4]], content_of(row[6], row[7]), row[5],
        tagged.decode(row[8]) if row[8] else {}, usage_of(row[9:14]), to_datetime(row[15]), row[14], row[16],
    )  # fmt: skip


def asked_for(row: Row, place: int, wanted: str) -> Row:
    """The row, when it is the one that was asked for by its id; ``ChecksumMismatch`` when it is another.

    An index page that stands in another's place leads to rows of others; the engine does not compare them again.
    """
    if row[place] != wanted:
        raise ChecksumMismatch(f"a row found under the id {wanted!r} has another id", hint="run: perdure doctor")
    return row


def check_places(rows: Sequence[Row], conversation: int, *, descending: bool) -> None:
    """Raises ``ChecksumMismatch`` unless the rows are the conversation's own, each seq once and in order.

    A page of the file that was swapped or doubled is sound by its checksum; its rows betray it here.
    """
    last: int | None = None
    for row in rows:
        seq: int = row[2]
        if row[1] != conversation or (last is not None and (seq >= last if descending else seq <= last)):
            raise ChecksumMismatch(
                f"the rows of a conversation are out of place near seq {seq}", hint="run: perdure doctor",
            )  # fmt: skip
        last = seq


def version_of(row: Row) -> MessageVersion:
    """One version of a message's trail."""
    return MessageVersion(
        row[0], MessageRole(row[1]), row[2], content_of(row[3], row[4]), tagged.decode(row[5]) if row[5] else {},
        usage_of(row[6:11]), row[11], row[12], to_datetime(row[13]),
    )  # fmt: skip


def body_of(content: str | tuple[Part, ...]) -> tuple[str, int]:
    """The stored form of checked content: (body, 0 text or 1 parts)."""
    return (content, 0) if isinstance(content, str) else (encode_parts(content), 1)
