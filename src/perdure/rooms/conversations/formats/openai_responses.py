"""OpenAI Responses items (``/v1/responses``), both ways.

One item is one draft, so ``to_openai_responses(from_openai_responses(items)) == items``: messages, function and
custom tool calls, their outputs and reasoning get common forms; every other item (searches, computers, shells, MCP,
references, ...) is kept verbatim as an ``OpaquePart``.

Going out, the parts of one message become items in their order; calls and results are paired as ``formats.turns``
says, and a computer's call without its screenshot is left out; what an assistant cannot show here becomes a short note
in words; an answer that says nothing is ``""``, or the list that it was; names of tools are spelled
``[a-zA-Z0-9_-]{1,64}`` unless they came from here otherwise. Reasoning that is not OpenAI's, reasoning that no item of
the assistant follows (the API refuses it) and other formats' opaque items are left out, and so are names of speakers,
for which the format has no field.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from perdure.rooms.conversations.content import (
    SILENCE,
    Content,
    FilePart,
    OpaquePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    or_silence,
)  # fmt: skip
from perdure.rooms.conversations.draft import Draft, MessageLike
from perdure.rooms.conversations.formats import reading
from perdure.rooms.conversations.formats.reading import ABSENT, MISSING, Json
from perdure.rooms.conversations.formats.turns import Turn, turns
from perdure.rooms.conversations.usage import TokenUsage
from perdure.values.errors import Invalid

FORM = "openai_responses"
PROVIDER = "openai"
ROLES = ("system", "developer", "user", "assistant")

_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_TEXTS = ("input_text", "output_text")
_NAME = 64
"""The longest name of a tool."""
_IN_MESSAGE = "in_message"
"""Marks an opaque part that stood in the content of a message, not among the items."""


def from_openai_responses(items: str | Iterable[Mapping[str, Any]]) -> list[Draft]:
    """The drafts of Responses items, one each; a bare text is the user's message.

    Ids, status and other fields without a common name stay under ``openai_responses``: those of a message in its
    ``metadata``, those of other items in ``extra`` of the part. An assistant's message that says nothing gets the
    content ``(ReasoningPart(),)``.

    Raises:
        Invalid: an item is not of the format; the error names the place, as in ``items[3].content[0].text``.
    """
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    return [_read(item, path) for path, item in reading.objects(items, "items")]


def to_openai_responses(messages: Iterable[MessageLike]) -> list[Json]:
    """The items that say what ``messages`` say, as the API takes them; see the module for what is adapted.

    Results stand right after the turn with their calls. A call whose result is missing is answered with "The result of
    this call is not available."; a result that answers no call becomes the user's words, or is left out when it is
    blank; it stays as it is after an ``item_reference``, which may stand for its call.
    """
    found: list[Json] = []
    custom: set[str] = set()
    for turn in turns(messages, FORM):
        for part in turn.content:
            if isinstance(part, ToolCallPart):  # an id may come again, for a tool of the other kind
                (custom.add if part.custom else custom.discard)(part.id)
        found.extend(_write(turn, custom))
    followed = False
    kept: list[Json] = []
    for item in reversed(found):
        if item.get("type") != "reasoning":
            followed = _is_assistants(item)
        elif not followed:
            continue
        kept.append(item)
    return kept[::-1]


def _is_assistants(item: Json) -> bool:
    """Whether it is an item that may follow reasoning."""
    if "role" in item:
        return item["role"] == "assistant"
    kind = str(item.get("type"))
    return not kind.endswith("_output") and kind != "mcp_approval_response"


def usage_from_openai_responses(usage: Mapping[str, Any], model: str | None = None) -> TokenUsage:
    """The token usage of a response's ``usage``; cached and reasoning tokens are already in its counts."""
    return reading.usage_of(usage, ("input_tokens", "output_tokens"), model)


# -- in ------------------------------------------------------------------------------------------------------------


def _read(left: Json, path: str) -> Draft:
    kind = left.get("type")
    if kind == "message" or (kind is None and "role" in left):
        return _read_message(left, path)
    if kind is None and "id" in left:
        kind = "item_reference"
    if not isinstance(kind, str):
        raise Invalid(f"{path}.type is missing or no text", field=f"{path}.type")
    part: Part
    if kind in _CALLS:
        role, part = "assistant", _read_call(left, path, kind)
    elif kind in _OUTPUTS and isinstance(left.get("call_id"), str):
        role, part = "tool", _read_output(left, path, kind)
    elif kind == "reasoning":
        role, part = "assistant", _read_reasoning(left, path)
    else:
        role, part = _role_of(left, kind), OpaquePart(FORM, left)
    return reading.draft(path, role, (part,), (FORM, {}))


def _role_of(item: Json, kind: str) -> str:
    if item.get("role") in ROLES:
        return item["role"]
    return "tool" if kind.endswith("_output") or kind == "mcp_approval_response" else "assistant"


def _read_message(left: Json, path: str) -> Draft:
    role = reading.need_text(left, "role", path)
    if role not in ROLES:
        raise reading.unknown(f"{path}.role", role, ROLES)
    raw = left.pop("content", MISSING)
    if isinstance(raw, str):
        content: Content = or_silence(raw, role)
    elif isinstance(raw, list):
        content = or_silence(tuple(_read_parts(cast("list[Any]", raw), f"{path}.content", role)), role)
        if content == SILENCE:
            left["content"] = raw
    else:
        raise Invalid(f"{path}.content must be text or a list", field=f"{path}.content")
    return reading.draft(path, role, content, (FORM, left))


def _read_parts(raw: list[Any], path: str, role: str) -> list[TextPart | FilePart | OpaquePart]:
    places = ((f"{path}[{index}]", item) for index, item in enumerate(raw))
    return [_read_part(reading.need_object(item, place), place, role) for place, item in places]


def _read_part(raw: Json, path: str, role: str) -> TextPart | FilePart | OpaquePart:
    left = dict(raw)
    kind = reading.need_text(left, "type", path)
    if kind in _TEXTS:
        return _read_text(left, path, kind, role)
    if kind == "refusal":
        words = reading.need_text(left, "refusal", path)
        return TextPart(words, refusal=True, extra=reading.kept(FORM, left))
    if kind == "input_image":
        url = reading.take_text(left, "image_url")
        media_type, data, uri = reading.of_data_url(url) if url is not None else (None, None, None)
        part = FilePart("image", uri=uri, data=data, media_type=media_type, detail=reading.take_text(left, "detail"))
    elif kind == "input_file":
        data = reading.take_text(left, "file_data")
        media_type, data, bare = reading.of_data_url(data) if data is not None else (None, None, None)
        part = FilePart(
            "file", uri=reading.take_text(left, "file_url"), data=data or bare, media_type=media_type,
            name=reading.take_text(left, "filename"), detail=reading.take_text(left, "detail"),
        )  # fmt: skip
    elif kind == "input_audio" and isinstance(left.get("input_audio"), dict):
        part = reading.sound(dict(left.pop("input_audio")), f"{path}.input_audio")
    else:
        return OpaquePart(FORM, raw, extra={FORM: {_IN_MESSAGE: True}})
    file_id = reading.take_text(left, "file_id")
    if file_id is not None:
        part = FilePart(
            part.kind, part.uri, part.data, part.media_type, file_id=file_id, provider=PROVIDER, name=part.name,
            detail=part.detail,
        )  # fmt: skip
    found = reading.first_fit(raw, lambda p: _write_file(p, role), FORM, part, left)
    if isinstance(found, OpaquePart):
        return OpaquePart(FORM, raw, extra={FORM: {_IN_MESSAGE: True}})
    return found


def _read_text(left: Json, path: str, kind: str, role: str) -> TextPart:
    text = reading.need_text(left, "text", path)
    extra = {FORM: left}
    if kind != _text_kind(role):
        left["type"] = kind
    elif left == ({"annotations": []} if kind == "output_text" else {}):
        extra = {}
    return TextPart(text, extra=extra)


def _text_kind(role: str) -> str:
    return "output_text" if role == "assistant" else "input_text"


def _read_call(left: Json, path: str, kind: str) -> ToolCallPart:
    del left["type"]
    call_id = reading.need_text(left, "call_id", path)
    name = reading.need_text(left, "name", path)
    arguments = reading.need_text(left, _CALLS[kind], path)
    reading.keep_name(name, left, _NAME)
    return ToolCallPart(call_id, name, arguments, custom=kind == "custom_tool_call", extra=reading.kept(FORM, left))


def _read_output(left: Json, path: str, kind: str) -> ToolResultPart:
    del left["type"]
    if kind != _OUTPUTS[0]:
        left["type"] = kind
    call = reading.need_text(left, "call_id", path)
    raw = left.pop("output", MISSING)
    if isinstance(raw, list):
        raw = tuple(_read_parts(cast("list[Any]", raw), f"{path}.output", "tool"))
    elif not isinstance(raw, str):
        raise Invalid(f"{path}.output must be text or a list", field=f"{path}.output")
    return ToolResultPart(call, raw, extra=reading.kept(FORM, left))


def _read_reasoning(left: Json, path: str) -> ReasoningPart:
    """Texts of the plain form become fields; lists of another form stay verbatim, and their texts are copied."""
    del left["type"]
    found: dict[str, list[str]] = {}
    for key, kind in (("summary", "summary_text"), ("content", "reasoning_text")):
        raw = left.pop(key, MISSING)
        entries = cast("list[Any]", raw) if isinstance(raw, list) else []
        texts = [
            reading.need_text(dict(reading.need_object(entry, f"{path}.{key}[{i}]")), "text", f"{path}.{key}[{i}]")
            for i, entry in enumerate(entries)
        ]
        found[key] = texts
        if raw is MISSING:
            if key == "summary":
                left[key] = ABSENT
        elif raw != [{"type": kind, "text": text} for text in texts] or (key == "content" and len(texts) != 1):
            left[key] = raw
    return ReasoningPart(
        "\n\n".join(found["content"]), encrypted=reading.take_text(left, "encrypted_content"),
        id=reading.take_text(left, "id"), summary=tuple(found["summary"]), provider=PROVIDER,
        extra=reading.kept(FORM, left),
    )  # fmt: skip


# -- out -----------------------------------------------------------------------------------------------------------


def _write(turn: Turn, custom: set[str]) -> Iterator[Json]:
    role = turn.role
    own = dict(turn.own)
    silent = own.pop("content", "")
    if isinstance(turn.content, str) or turn.content == SILENCE:
        yield {"role": role, "content": silent if turn.content == SILENCE else turn.content, **own}
        return
    said: list[Part] = []
    whole = all(_is_sayable(part) for part in turn.content)
    for part in turn.content:
        if _is_sayable(part):
            said.append(part)
            continue
        item = _write_item(part, custom)
        if item is not None:
            if said:
                yield {"role": role, "content": _write_said(said, role)}
                said = []
            yield item
    if said and whole:
        yield {"role": role, "content": [_write_part(part, role) for part in said], **own}
    elif said:
        yield {"role": role, "content": _write_said(said, role)}


def _write_said(said: list[Part], role: str) -> Any:
    """What stood beside calls or reasoning in one message: a string when it can be."""
    first = said[0]
    if len(said) == 1 and isinstance(first, TextPart) and not first.refusal and FORM not in first.extra:
        return first.text
    return [_write_part(part, role) for part in said]


def _is_sayable(part: Part) -> bool:
    return isinstance(part, TextPart | FilePart) or (
        isinstance(part, OpaquePart) and part.provider == FORM and _IN_MESSAGE in reading.own(part, FORM)
    )


def _write_item(part: Part, custom: set[str]) -> Json | None:
    own = reading.own(part, FORM)
    if isinstance(part, OpaquePart):
        return part.data if part.provider == FORM else None
    if isinstance(part, ToolCallPart):
        kind = "custom_tool_call" if part.custom else "function_call"
        name = reading.name_for(part.name, own, _NAME)
        return {"type": kind, "call_id": part.id, "name": name, _CALLS[kind]: part.arguments, **own}
    if isinstance(part, ToolResultPart):
        output: Any = part.content
        if not isinstance(part.content, str):
            output = [_write_part(item, "tool") for item in part.content if _is_sayable(item)]
        kind = _OUTPUTS[part.tool_call_id in custom]
        return {"type": kind, "call_id": part.tool_call_id, "output": output, **own}
    if isinstance(part, ReasoningPart) and part.provider == PROVIDER:
        return _write_reasoning(part, own)
    return None


def _write_reasoning(part: ReasoningPart, own: Json) -> Json:
    item: Json = {"type": "reasoning", "summary": [{"type": "summary_text", "text": text} for text in part.summary]}
    if part.id is not None:
        item["id"] = part.id
    if part.encrypted is not None:
        item["encrypted_content"] = part.encrypted
    if part.text:
        item["content"] = [{"type": "reasoning_text", "text": part.text}]
    item.update(own)
    if own.get("summary") == ABSENT:
        del item["summary"]
    return item


def _write_part(part: Part, role: str) -> Json:
    if isinstance(part, OpaquePart):
        return part.data
    if isinstance(part, FilePart):
        written = _write_file(part, role)
        if written is not None:
            return written
        part = TextPart(reading.note(part))
    assert isinstance(part, TextPart)
    own: Json = reading.own(part, FORM)
    if part.refusal and role == "assistant":
        return {"type": "refusal", "refusal": part.text, **own}
    kind = _text_kind(role)
    if kind == "output_text" and FORM not in part.extra:
        own["annotations"] = []
    return {"type": kind, "text": part.text, **own}


def _write_file(part: FilePart, role: str) -> Json | None:
    """The part of a file, None when there is none: an assistant shows no files, and sounds only go back."""
    ours = FORM in part.extra
    if (role == "assistant" or part.kind == "audio") and not ours:
        return None
    own = reading.own(part, FORM)
    found: Json = {"type": f"input_{part.kind}"}
    if part.kind == "audio":
        return {**found, "input_audio": reading.write_sound(part), **own}
    if part.kind == "image":
        found["image_url"] = reading.data_url(part)
        found["detail"] = part.detail if ours else part.detail or "auto"
    else:
        found["file_url"] = part.uri
        found["file_data"] = part.data if part.media_type is None or part.data is None else reading.data_url(part)
        found["filename"] = part.name
        found["detail"] = part.detail
        if part.data is not None and part.name is None and not ours:  # data needs a name
            found["filename"] = f"file.{reading.media_type(part).rpartition('/')[2]}"
    if part.provider in {PROVIDER, None}:
        found["file_id"] = part.file_id
    found = {key: value for key, value in found.items() if value is not None}
    if not ours and not found.keys() & {"image_url", "file_url", "file_data", "file_id"}:
        return None
    return {**found, **own}
