"""Histories of other makers as conversations of ours. Pure.

A record is a chat request (``{"messages": [...]}``, with Anthropic's ``system``, or Responses' ``input``), a bare list
of messages, a line of a batch file (its ``body`` counts), or a conversation of the archives that ChatGPT (``mapping``)
and Claude (``chat_messages``) give their users. What a request says beside its messages becomes ``metadata.settings``.

What has no id gets one made of the record, its place, its user and its agent: reading the same file again stores nothing
twice, and for another user it is another conversation.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, cast

import msgspec

from perdure.rooms.conversations.content import FilePart, Part, TextPart, ToolCallPart, ToolResultPart
from perdure.rooms.conversations.draft import Draft
from perdure.rooms.conversations.formats import from_anthropic, from_openai_chat, from_openai_responses
from perdure.rooms.conversations.jsonl import Entry, Opened, Said, checked, derived_id, json_of
from perdure.rooms.conversations.ops import NewConversation
from perdure.rooms.conversations.prepare import prepare_each
from perdure.rooms.conversations.values import metadata_of
from perdure.values import limits
from perdure.values.clock import Micros, recordable, to_micros
from perdure.values.errors import Invalid

Format = Literal["perdure", "openai", "anthropic", "openai-responses"]
FORMATS = ("perdure", "openai", "anthropic", "openai-responses")
Json = dict[str, Any]

_ANTHROPIC_BLOCKS = frozenset(
    ("tool_use", "tool_result", "thinking", "redacted_thinking", "image", "document", "server_tool_use")
)
_RESPONSES_TYPES = frozenset(
    ("function_call", "function_call_output", "reasoning", "input_text", "output_text", "message")
)
_ARCHIVES = {"mapping": "openai", "chat_messages": "anthropic"}
_NOT_SETTINGS = frozenset(
    ("messages", "input", "system", "instructions", "id", "conversation_id", "title", "agent_id", "user_id", "user")
)
_decode = msgspec.json.Decoder().decode


def format_of(value: object) -> Format | None:
    """The format of a record, None when it is of no known one."""
    if isinstance(value, dict):
        record = cast("Json", value)
        if record.get("type") in {"conversation", "message"}:
            return "perdure"
        for key, maker in _ARCHIVES.items():
            if key in record:
                return cast("Format", maker)
        if isinstance(record.get("body"), dict):
            return format_of(record["body"])
        if "messages" in record:
            return "anthropic" if "system" in record else _format_of_messages(record["messages"])
        return "openai-responses" if "input" in record else None
    if is_archive(value):
        return format_of(cast("list[Any]", value)[0])
    return _format_of_messages(value)


def is_archive(value: object) -> bool:
    """Whether it is a list of conversations, not of messages."""
    if not isinstance(value, list) or not value:
        return False
    first: Any = cast("list[Any]", value)[0]
    return isinstance(first, list) or (isinstance(first, dict) and "role" not in first and _is_conversation(first))  # pyright: ignore[reportUnknownArgumentType]


def _is_conversation(record: Json) -> bool:
    """Not one of Responses' items, which have no role either."""
    return bool(record.keys() & {*_ARCHIVES, "messages", "input", "body"}) and "type" not in record


def _format_of_messages(value: object) -> Format | None:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in cast("list[Any]", value)):
        return None
    kinds = set(_types(cast("list[Json]", value)))
    if kinds & _RESPONSES_TYPES:
        return "openai-responses"
    if not any("role" in item for item in cast("list[Json]", value)):
        return None
    return "anthropic" if kinds & _ANTHROPIC_BLOCKS else "openai"


def _types(messages: list[Json]) -> Iterator[str]:
    for message in messages:
        yield str(message.get("type"))
        content = message.get("content")
        for block in cast("list[Any]", content) if isinstance(content, list) else ():
            if isinstance(block, dict):
                yield str(cast("Json", block).get("type"))


class RecordReader:
    """Reads foreign records, each one conversation. ``user_id`` is needed where the record does not name its user."""

    def __init__(self, form: Format, now: Micros, agent_id: str | None = None, user_id: str | None = None) -> None:
        self._form = form
        self._now = now
        self._agent_id = agent_id
        self._user_id = user_id

    def read(self, number: int, raw: bytes) -> list[Entry]:
        """The conversation of a record and its messages. Raises ``Invalid`` or ``OverLimit``."""
        value = json_of(raw, _decode)
        record = _record_of(value)
        found = format_of(record if "messages" not in record or len(record) > 1 else value)
        if found is None or (found != self._form and not self._may_be(found, record)):
            raise Invalid(f"not a record of the format {self._form!r}" + (f", but of {found!r}" if found else ""))
        drafts, at, archived = self._said(record)
        agent_id = limits.identifier(self._agent_id or record.get("agent_id") or self._form, "agent_id")
        user_id = limits.identifier(self._user_id or _user_of(record), "user_id")
        given = record.get("conversation_id") or record.get("id") or record.get("uuid")
        if isinstance(given, str):
            own = limits.identifier(given, "id")
        else:
            own = derived_id(msgspec.json.encode((self._form, user_id, agent_id)), number, raw)
        title = record.get("title") or record.get("name")
        settings = {} if archived else {key: value for key, value in record.items() if key not in _NOT_SETTINGS}
        metadata = metadata_of(
            {"title": title if isinstance(title, str) and title.strip() else None, "settings": settings}
        )
        new = NewConversation(own, agent_id, user_id, metadata, self._now if at is None else at)
        checked(new)
        return [Opened(number, new), *self._messages(number, own, drafts)]

    def _said(self, record: Json) -> tuple[list[Draft], Micros | None, bool]:
        """The messages, when the conversation began where that is known, and whether it is one of an archive."""
        if "mapping" in record:
            return list(_walk(record)), _moment(record.get("create_time")), True
        if "chat_messages" in record:
            return list(_chat(record)), _moment(record.get("created_at")), True
        return self._drafts(record), None, False

    def _may_be(self, found: Format, record: Json) -> bool:
        """Plain messages of text are the same in two formats; only what the caller said tells them apart."""
        return {found, self._form} == {"openai", "anthropic"} and "messages" in record

    def _drafts(self, record: Json) -> list[Draft]:
        if self._form == "anthropic":
            return from_anthropic(_list(record, "messages"), record.get("system"))
        if self._form == "openai":
            return from_openai_chat(_list(record, "messages"))
        drafts = from_openai_responses(record.get("input", ()))
        instructions = record.get("instructions")
        return [Draft("system", instructions), *drafts] if isinstance(instructions, str) and instructions else drafts

    def _messages(self, number: int, own: str, drafts: list[Draft]) -> Iterator[Said]:
        prepared = prepare_each(drafts, self._now, "messages")
        for place, (draft, row) in enumerate(zip(drafts, prepared, strict=True), 1):
            row.id = limits.identifier(f"{own}:{draft.id or place}", "id")
            yield Said(number, own, row)


def _record_of(value: object) -> Json:
    """A record as an object: the body of a line of a batch, a bare list as messages."""
    if isinstance(value, list):
        key = "input" if _format_of_messages(cast("object", value)) == "openai-responses" else "messages"
        return {key: value}
    if not isinstance(value, dict):
        raise Invalid(f"a record must be an object or a list of messages, not {type(value).__name__}")
    record = cast("Json", value)
    body = record.get("body")
    if isinstance(body, dict) and "messages" not in record:
        named = {"id": record["custom_id"]} if isinstance(record.get("custom_id"), str) else {}
        return {**named, **cast("Json", body)}
    return record


def _user_of(record: Json) -> str:
    """Who speaks, by the names that requests and archives have for it."""
    inner = record.get("metadata")
    account = record.get("account")
    candidates: list[Any] = [record.get("user_id"), record.get("user"), record.get("safety_identifier")]
    if isinstance(inner, dict):
        candidates.append(cast("Json", inner).get("user_id"))
    if isinstance(account, dict):
        candidates.append(cast("Json", account).get("uuid"))
    for found in candidates:
        if isinstance(found, str) and found.strip():
            return found
    raise Invalid("the record does not say whose conversation it is", field="user_id", hint="give user_id")


def _list(record: Json, key: str) -> list[Any]:
    found = record.get(key)
    if not isinstance(found, list):
        raise Invalid(f"{key} must be a list", field=key)
    return cast("list[Any]", found)


def _moment(at: object) -> Micros | None:
    """Seconds since 1970 or ISO-8601 text as our time; None for what is neither."""
    if isinstance(at, bool) or not isinstance(at, int | float | str) or at == "":
        return None
    return recordable(to_micros(at, "created_at") if isinstance(at, str) else round(at * 1_000_000), "created_at")


# -- archives ------------------------------------------------------------------------------------------------------------


def _walk(record: Json) -> Iterator[Draft]:
    """The messages of the branch that was shown last, from the root of ChatGPT's tree; blank ones are left out."""
    mapping = record.get("mapping")
    if not isinstance(mapping, dict):
        raise Invalid("mapping must be an object", field="mapping")
    nodes = cast("dict[str, Json]", mapping)
    key = record.get("current_node") or _last_leaf(nodes)
    branch: list[Json] = []
    while isinstance(key, str) and key in nodes:
        node = nodes[key]
        if len(branch) > len(nodes) or not isinstance(node, dict):
            raise Invalid("mapping is not a tree", field="mapping")
        branch.append(node)
        key = node.get("parent")
    for node in reversed(branch):
        message = node.get("message")
        if isinstance(message, dict):
            draft = _draft_of_node(cast("Json", message))
            if draft is not None:
                yield draft


def _last_leaf(nodes: Mapping[str, Json]) -> str | None:
    """Where following the newest child leads, when the archive does not say which branch was shown."""
    key = next((name for name, node in nodes.items() if not node.get("parent")), None)
    for _ in nodes:
        children = nodes[key].get("children") if key is not None and key in nodes else None
        if not isinstance(children, list) or not children:
            break
        key = str(cast("list[Any]", children)[-1])
    return key


def _draft_of_node(message: Json) -> Draft | None:
    author = message.get("author")
    role = cast("Json", author).get("role") if isinstance(author, dict) else None
    content = message.get("content")
    if not isinstance(content, dict):
        return None
    parts = list(_node_parts(cast("Json", content)))
    said: str | list[Part] = parts
    if all(isinstance(part, TextPart) for part in parts):
        said = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    if not said or (isinstance(said, str) and not said.strip()):
        return None
    inner = message.get("metadata")
    model = cast("Json", inner).get("model_slug") if isinstance(inner, dict) else None
    name = cast("Json", author).get("name") if isinstance(author, dict) else None
    return Draft(
        str(role), said, name=name if isinstance(name, str) and name.strip() else None,
        metadata={"model": model} if isinstance(model, str) else None, created_at=_moment(message.get("create_time")),
        id=str(message["id"]) if message.get("id") else None,
    )  # fmt: skip


def _node_parts(content: Json) -> Iterator[Part]:
    for key in ("text", "result"):
        if isinstance(content.get(key), str) and content[key].strip():
            yield TextPart(content[key])
    parts = content.get("parts")
    for part in cast("list[Any]", parts) if isinstance(parts, list) else ():
        if isinstance(part, str):
            if part.strip():
                yield TextPart(part)
        elif isinstance(part, dict):
            item = cast("Json", part)
            if isinstance(item.get("asset_pointer"), str):
                yield FilePart(
                    kind="audio" if "audio" in str(item.get("content_type")) else "image", uri=item["asset_pointer"]
                )
            elif isinstance(item.get("text"), str) and item["text"].strip():
                yield TextPart(item["text"])


def _chat(record: Json) -> Iterator[Draft]:
    """The messages of an archived conversation of Claude's; blank ones are left out."""
    for item in _objects(_list(record, "chat_messages"), "chat_messages"):
        parts = list(_chat_parts(item))
        said: str | list[Part] = parts
        if all(isinstance(part, TextPart) for part in parts):
            said = "\n".join(part.text for part in parts if isinstance(part, TextPart)) or str(item.get("text") or "")
        if said and not (isinstance(said, str) and not said.strip()):
            yield Draft(
                "user" if item.get("sender") == "human" else "assistant", said,
                created_at=_moment(item.get("created_at")), id=str(item["uuid"]) if item.get("uuid") else None,
            )  # fmt: skip


def _chat_parts(item: Json) -> Iterator[Part]:
    content = item.get("content")
    call = ""
    for place, block in enumerate(_objects(_listed(content), "content")):
        kind = block.get("type")
        if kind == "text" and isinstance(block.get("text"), str) and block["text"].strip():
            yield TextPart(block["text"])
        elif kind == "tool_use" and isinstance(block.get("name"), str):
            call = str(block.get("id") or f"{item.get('uuid')}:{place}")
            yield ToolCallPart(id=call, name=block["name"], arguments=msgspec.json.encode(block.get("input")).decode())
        elif kind == "tool_result" and (block.get("tool_use_id") or call):
            failed = bool(block.get("is_error"))
            answered = str(block.get("tool_use_id") or call)
            yield ToolResultPart(tool_call_id=answered, content=_answer(block.get("content")), is_error=failed)


def _answer(content: object) -> str:
    if isinstance(content, str):
        return content
    texts = (one.get("text") for one in _objects(_listed(content), "content"))
    return "\n".join(text for text in texts if isinstance(text, str))


def _listed(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _objects(items: Iterable[Any], name: str) -> Iterator[Json]:
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            raise Invalid(f"{name}[{place}] must be an object", field=f"{name}[{place}]")
        yield cast("Json", item)
