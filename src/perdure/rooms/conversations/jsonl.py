"""Our JSON Lines, both ways: a line for each conversation, followed by its messages in order. Pure.

The fields are those of the values; what is empty is left out::

    {"type":"conversation","id":"c1","agent_id":"helper","user_id":"ann","created_at":"2026-09-21T09:14:03Z"}
    {"type":"message","conversation_id":"c1","id":"m1","role":"user","content":"Hello","created_at":"..."}

Metadata is in the tagged form of :mod:`perdure.values.tagged`, cost is text. A fork says where it left its source
(``"fork_of":{"conversation_id":"c1","message_id":"m1"}``) and lists only what follows, so that messages that several
conversations share stand in the file once.
"""

import hashlib
from typing import Any

import msgspec

from perdure.grammar import Row
from perdure.rooms.conversations.ops import NewConversation
from perdure.rooms.conversations.prepare import prepare
from perdure.rooms.conversations.usage import cost_of_nanos
from perdure.rooms.conversations.values import Prepared, metadata_of
from perdure.values import limits, tagged
from perdure.values.clock import Micros, recordable, to_datetime, to_micros
from perdure.values.errors import Invalid

_SECOND = 1_000_000
_MILLI = 1_000
_encode = msgspec.json.Encoder().encode
_BOM = b"\xef\xbb\xbf"


class ForkPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a fork left its source: after this message of that conversation."""

    conversation_id: str
    message_id: str


class Opened(msgspec.Struct, frozen=True):
    """A conversation that a line of an import brings."""

    line: int
    new: NewConversation
    fork_of: ForkPoint | None = None


class Said(msgspec.Struct, frozen=True):
    """A message that a line of an import brings."""

    line: int
    conversation_id: str
    draft: Prepared


Entry = Opened | Said


# -- out -----------------------------------------------------------------------------------------------------------------


def conversation_line(row: Row, fork_of: ForkPoint | None) -> bytes:
    """The line of a row of the ``{conversation}`` columns."""
    fields: dict[str, Any] = {
        "type": "conversation", "id": row[1], "agent_id": row[2], "user_id": row[3], "created_at": _time(row[5]),
    }  # fmt: skip
    if row[4] != "{}":
        fields["metadata"] = msgspec.Raw(row[4])
    if fork_of is not None:
        fields["fork_of"] = fork_of
    return _encode(fields) + b"\n"


def message_line(row: Row, conversation_id: str) -> bytes:
    """The line of a row of the ``{message}`` columns."""
    fields: dict[str, Any] = {"type": "message", "conversation_id": conversation_id, "id": row[3], "role": row[4]}
    if row[5] is not None:
        fields["name"] = row[5]
    fields["content"] = msgspec.Raw(row[6]) if row[7] else row[6]
    fields["created_at"] = _time(row[15])
    if row[8]:
        fields["metadata"] = msgspec.Raw(row[8])
    if row[11] is not None:
        usage: dict[str, Any] = {"input_tokens": row[9], "output_tokens": row[10], "total_tokens": row[11]}
        fields["token_usage"] = usage
        if row[12] is not None:
            usage["model"] = row[12]
        if row[13]:
            usage["cost"] = f"{cost_of_nanos(row[13]):f}"
    if row[14] is not None:
        fields["parent_id"] = row[14]
    return _encode(fields) + b"\n"


def _time(micros: Micros) -> str:
    """ISO-8601 in UTC with as many decimals as it needs: none, three or six."""
    spec = "seconds" if not micros % _SECOND else "milliseconds" if not micros % _MILLI else "microseconds"
    return to_datetime(micros).replace(tzinfo=None).isoformat(timespec=spec) + "Z"


# -- in ------------------------------------------------------------------------------------------------------------------


class _ConversationLine(msgspec.Struct, tag_field="type", tag="conversation", forbid_unknown_fields=True):
    id: str
    agent_id: str | None = None
    user_id: str | None = None
    created_at: str | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    fork_of: ForkPoint | None = None


class _MessageLine(msgspec.Struct, tag_field="type", tag="message", forbid_unknown_fields=True):
    role: str
    content: msgspec.Raw
    conversation_id: str | None = None
    id: str | None = None
    name: str | None = None
    created_at: str | None = None
    metadata: msgspec.Raw = msgspec.Raw(b"null")
    token_usage: dict[str, Any] | None = None
    parent_id: str | None = None


_decode = msgspec.json.Decoder(_ConversationLine | _MessageLine).decode


class LineReader:
    """Reads our lines in order. ``agent_id`` and ``user_id`` stand in place of what the file says."""

    def __init__(self, now: Micros, agent_id: str | None = None, user_id: str | None = None) -> None:
        self._now = now
        self._agent_id = agent_id
        self._user_id = user_id
        self._current: str | None = None

    def read(self, number: int, raw: bytes) -> list[Entry]:
        """What a line brings. Raises ``Invalid`` or ``OverLimit`` with the field that is wrong."""
        line = json_of(raw, _decode)
        if isinstance(line, _MessageLine):
            return [self._message(number, raw, line)]
        new = NewConversation(
            limits.identifier(line.id, "id"),
            limits.identifier(_needed(self._agent_id or line.agent_id, "agent_id"), "agent_id"),
            limits.identifier(_needed(self._user_id or line.user_id, "user_id"), "user_id"),
            metadata_of(_tagged(line.metadata)),
            self._now
            if line.created_at is None
            else recordable(to_micros(line.created_at, "created_at"), "created_at"),
        )
        checked(new)
        self._current = new.id
        return [Opened(number, new, line.fork_of)]

    def _message(self, number: int, raw: bytes, line: _MessageLine) -> Said:
        conversation_id = _needed(line.conversation_id or self._current, "conversation_id")
        limits.identifier(conversation_id, "conversation_id")
        draft = prepare(
            line.role, json_of(line.content, msgspec.json.decode), self._now, name=line.name,
            metadata=_tagged(line.metadata), token_usage=line.token_usage, parent_id=line.parent_id,
            created_at=line.created_at,
            id=line.id if line.id is not None else derived_id(conversation_id.encode(), number, raw),
        )  # fmt: skip
        return Said(number, conversation_id, draft)


def derived_id(space: bytes, number: int, raw: bytes) -> str:
    """The id of what comes without one: the same whenever the same file is read again, so it is stored once.

    ``space`` is whose it is: the same line of another user's or another conversation's gets another id.
    """
    key = hashlib.blake2b(b"%b\0%d" % (space, number)).digest()
    return hashlib.blake2b(raw.strip(), digest_size=16, key=key).hexdigest()


def checked(new: NewConversation) -> None:
    """Raises what storing the conversation's metadata would raise."""
    metadata = new.metadata
    for name, value in (("context", metadata.context), ("settings", metadata.settings)):
        tagged.encode(value, f"metadata.{name}", limits.METADATA_BYTES, limits.METADATA_DEPTH - 1)


def json_of(raw: bytes | msgspec.Raw, decode: Any) -> Any:
    """What JSON text says; ``Invalid`` in one sentence when it is none, or of another form."""
    try:
        return decode(raw.removeprefix(_BOM) if isinstance(raw, bytes) else raw)
    except msgspec.ValidationError as error:
        raise Invalid(f"not a line of the format: {error}") from None
    except RecursionError:
        raise Invalid("not JSON that can be read: it is nested too deep") from None
    except ValueError as error:  # msgspec's errors and those of Unicode are ValueErrors
        raise Invalid(f"not JSON: {error}") from None


def _tagged(raw: msgspec.Raw) -> Any:
    try:
        return tagged.decode(bytes(raw))
    except tagged.Undecodable as error:
        raise Invalid(f"metadata cannot be read: {error.message.rpartition(': ')[2]}", field="metadata") from None


def _needed(value: str | None, field: str) -> str:
    if value is None:
        raise Invalid(f"{field} is missing", field=field)
    return value
