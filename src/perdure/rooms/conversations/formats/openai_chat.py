"""OpenAI chat messages (``/v1/chat/completions``), both ways.

``to_openai_chat(from_openai_chat(messages)) == messages`` for what the API accepts or answers. Tool calls become
parts of the assistant's message, in the order refusal, audio, calls, after what it said.

Going out, what chat cannot carry is adapted: each tool result becomes a message of its own; an assistant's messages
that follow its open tool calls join the message with the calls, since results must come next; calls and results are
paired as ``formats.turns`` says; a file becomes a user's part when the API has one for it, else a short note in words;
an answer that says nothing is ``""``; names of speakers and tools are spelled ``[a-zA-Z0-9_-]{1,64}`` unless they came
from chat otherwise; reasoning and other formats' opaque items are left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from perdure.rooms.conversations.content import (
    SILENCE,
    Content,
    FilePart,
    OpaquePart,
    Part,
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

FORM = "openai_chat"
PROVIDER = "openai"
ROLES = ("system", "developer", "user", "assistant", "tool", "function")

_NAME = 64
"""The longest name of a speaker or tool."""


def from_openai_chat(messages: Iterable[Mapping[str, Any]]) -> list[Draft]:
    """The drafts of chat messages, one each; fields without a common name stay in ``metadata["openai_chat"]``.

    A legacy ``function_call`` gets the id ``function_call_<index>``, and the ``function`` message after it
    becomes a tool's result with that id. An assistant's message that says and calls nothing gets the content
    ``(ReasoningPart(),)``.

    Raises:
        Invalid: a message is not of the format; the error names the place, as in ``messages[3].content[0].type``.

    Example:
        >>> from_openai_chat([{"role": "user", "content": "Hello"}])[0].content
        'Hello'
    """
    drafts: list[Draft] = []
    legacy = ""
    for index, (path, message) in enumerate(reading.objects(messages, "messages")):
        if message.get("function_call") or not legacy:
            legacy = f"function_call_{index}"
        drafts.append(_read(message, path, legacy))
    return drafts


def to_openai_chat(messages: Iterable[MessageLike]) -> list[Json]:
    """The chat messages that say what ``messages`` say, as the API takes them; see the module for what is adapted.

    Results stand right after their calls. A call whose result is missing is answered with "The result of this call is
    not available."; a result that answers no call becomes the user's words, or is left out when it is blank.
    """
    found: list[Json] = []
    for turn in turns(messages, FORM):
        for message in _write(turn):
            if message["role"] == "assistant" and found and found[-1].get("tool_calls"):
                _join(found[-1], message)
            else:
                found.append(message)
    return found


def usage_from_openai(usage: Mapping[str, Any], model: str | None = None) -> TokenUsage:
    """The token usage of a chat answer's ``usage``; cached and reasoning tokens are already in its counts."""
    return reading.usage_of(usage, ("prompt_tokens", "completion_tokens"), model)


# -- in ------------------------------------------------------------------------------------------------------------


def _read(left: Json, path: str, legacy: str) -> Draft:
    role = reading.need_text(left, "role", path)
    if role not in ROLES:
        raise reading.unknown(f"{path}.role", role, ROLES)
    name = reading.take_name(left)
    if name is not None:
        reading.keep_name(name, left, _NAME)
    if role in {"tool", "function"}:
        content: Content = (_read_result(left, path, role, legacy),)
        role = "tool"
    else:
        content = _read_content(left, path, role, legacy)
    return reading.draft(path, role, content, (FORM, left), name=name)


def _read_result(left: Json, path: str, role: str, legacy: str) -> ToolResultPart:
    if role == "function":
        left["role"] = role
        call = legacy
    else:
        call = reading.need_text(left, "tool_call_id", path)
    raw = left.pop("content", MISSING)
    if isinstance(raw, list):
        return ToolResultPart(call, tuple(_read_parts(cast("list[Any]", raw), path, "tool")))
    if raw is None or raw is MISSING:
        left["content"] = ABSENT if raw is MISSING else None
        return ToolResultPart(call)
    if not isinstance(raw, str):
        raise Invalid(f"{path}.content must be text or a list", field=f"{path}.content")
    return ToolResultPart(call, raw)


def _read_content(left: Json, path: str, role: str, legacy: str) -> Content:
    raw = left.pop("content", MISSING)
    said: list[Part] = []
    if isinstance(raw, list):
        said = [*_read_parts(cast("list[Any]", raw), path, role)]
    elif isinstance(raw, str):
        said = [TextPart(raw)]
    elif role != "assistant" or (raw is not None and raw is not MISSING):
        raise Invalid(f"{path}.content must be text or a list", field=f"{path}.content")
    done = _read_done(left, path, legacy) if role == "assistant" else []
    if not done:
        content = or_silence(raw if isinstance(raw, str) else tuple(said), role)
        if content == SILENCE or isinstance(content, str):
            return content
    if raw is MISSING:
        left["content"] = ABSENT
    elif isinstance(raw, list) and done and (not said or _is_plain(said)):
        left["content"] = "list"
    return (*said, *done)


def _read_parts(raw: list[Any], path: str, role: str) -> list[TextPart | FilePart | OpaquePart]:
    places = ((f"{path}.content[{index}]", item) for index, item in enumerate(raw))
    return [_read_part(reading.need_object(item, place), place, role) for place, item in places]


def _read_part(raw: Json, path: str, role: str) -> TextPart | FilePart | OpaquePart:
    left = dict(raw)
    kind = reading.need_text(left, "type", path)
    if kind == "text":
        return TextPart(reading.need_text(left, "text", path), extra=reading.kept(FORM, left))
    if kind == "refusal":
        words = reading.need_text(left, "refusal", path)
        return TextPart(words, refusal=True, extra=reading.kept(FORM, left))
    if kind not in {"image_url", "input_audio", "file"} or isinstance(left.get(kind), str):
        return OpaquePart(FORM, raw)
    place = f"{path}.{kind}"
    inner = dict(reading.need_object(left.pop(kind, None), place))
    if kind == "image_url":
        media_type, data, uri = reading.of_data_url(reading.need_text(inner, "url", place))
        detail = reading.take_text(inner, "detail")
        part = FilePart("image", uri=uri, data=data, media_type=media_type, detail=detail)
    elif kind == "input_audio":
        part = reading.sound(inner, place)
    else:
        data = reading.take_text(inner, "file_data")
        media_type, data, bare = reading.of_data_url(data) if data is not None else (None, None, None)
        file_id = reading.take_text(inner, "file_id")
        part = FilePart(
            "file", data=data or bare, media_type=media_type, file_id=file_id,
            provider=PROVIDER if file_id else None, name=reading.take_text(inner, "filename"),
        )  # fmt: skip
    if inner:
        left[kind] = inner
    return reading.first_fit(raw, lambda p: _write_file(p, role), FORM, part, left)


def _read_done(left: Json, path: str, legacy: str) -> list[Part]:
    """What an assistant's message holds beside ``content``."""
    done: list[Part] = []
    refusal = left.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        left["refusal"] = True
        done.append(TextPart(refusal, refusal=True))
    audio = left.get("audio")
    if isinstance(audio, dict):
        heard = reading.need_object(left.pop("audio"), f"{path}.audio")
        part = FilePart(
            "audio", file_id=reading.need_text(heard, "id", f"{path}.audio"), provider=PROVIDER,
            data=reading.take_text(heard, "data"), text=reading.take_text(heard, "transcript"),
            extra=reading.kept(FORM, heard),
        )  # fmt: skip
        done.append(part)
    if left.get("function_call") is not None:
        place = f"{path}.function_call"
        call = reading.need_object(left.pop("function_call"), place)
        name = reading.need_text(call, "name", place)
        arguments = reading.need_text(call, "arguments", place)
        reading.keep_name(name, call, _NAME)
        done.append(ToolCallPart(legacy, name, arguments, extra={FORM: {"function_call": call}}))
    if left.get("tool_calls"):
        calls = reading.need_list(left.pop("tool_calls"), f"{path}.tool_calls")
        for index, raw in enumerate(calls):
            place = f"{path}.tool_calls[{index}]"
            done.append(_read_call(reading.need_object(raw, place), place))
    return done


def _read_call(left: Json, path: str) -> ToolCallPart:
    call_id = reading.need_text(left, "id", path)
    kind = left.pop("type", MISSING)
    if kind is MISSING or kind is None:  # some servers leave it out
        left["type"] = ABSENT if kind is MISSING else None
        kind = "function"
    if kind not in {"function", "custom"}:
        raise reading.unknown(f"{path}.type", kind, ("function", "custom"))
    place = f"{path}.{kind}"
    inner = reading.need_object(left.pop(kind, None), place)
    name = reading.need_text(inner, "name", place)
    arguments = reading.need_text(inner, "input" if kind == "custom" else "arguments", place)
    reading.keep_name(name, inner, _NAME)
    if inner:
        left[kind] = inner
    return ToolCallPart(call_id, name, arguments, custom=kind == "custom", extra=reading.kept(FORM, left))


# -- out -----------------------------------------------------------------------------------------------------------


def _write(turn: Turn) -> list[Json]:
    own = dict(turn.own)
    if turn.content == SILENCE:
        return [{"role": turn.role, **_named(turn.name, own), "content": "", **own}]
    if isinstance(turn.content, str):
        return [{"role": turn.role, **_named(turn.name, own), "content": turn.content, **own}]
    if turn.role == "tool":
        results = (part for part in turn.content if isinstance(part, ToolResultPart))
        return [_write_result(part, turn.name, dict(own)) for part in results]
    spoken = _write_spoken(turn.role, turn.name, turn.content, own)
    return [] if spoken is None else [spoken]


def _named(name: str | None, own: Json) -> Json:
    return {} if name is None else {"name": reading.name_for(name, own, _NAME)}


def _write_result(part: ToolResultPart, name: str | None, own: Json) -> Json:
    content: Any = part.content
    if not isinstance(part.content, str):
        content = [_write_part(item, "tool") for item in part.content if _is_sayable(item)]
    shape = own.pop("content", "")
    message: Json = {"role": "tool", "tool_call_id": part.tool_call_id, **_named(name, own), **own}
    if message["role"] == "function":
        del message["tool_call_id"]
    if content or shape != ABSENT:
        message["content"] = content or shape if shape is None else content
    return message


def _write_spoken(role: str, name: str | None, parts: Sequence[Part], own: Json) -> Json | None:
    """One message of any role but tool; None when nothing of it can be said here."""
    message: Json = {"role": role, **_named(name, own)}
    said = [part for part in parts if _is_sayable(part)]
    done: Json = {}
    if own.get("refusal") is True:
        refusals = [part for part in said if isinstance(part, TextPart) and part.refusal]
        if refusals:
            said.remove(refusals[-1])
            done["refusal"] = refusals[-1].text
        del own["refusal"]
    for part in [part for part in said if isinstance(part, FilePart)]:
        if role == "assistant" and part.kind == "audio" and part.file_id and part.provider == PROVIDER:
            said.remove(part)
            done["audio"] = _write_heard(part)
    for part in parts:
        if isinstance(part, ToolCallPart):
            legacy = reading.own(part, FORM).get("function_call")
            if legacy is None:
                done.setdefault("tool_calls", []).append(_write_call(part))
            else:
                legacy = dict(legacy)
                name = reading.name_for(part.name, legacy, _NAME)
                done["function_call"] = {"name": name, "arguments": part.arguments, **legacy}
    if not said and not done:
        return None
    shape = own.pop("content", None)
    if shape != ABSENT:
        message["content"] = _write_content(said, role, plainly=bool(done) and shape != "list")
    return {**message, **own, **done}


def _write_content(said: list[Part], role: str, *, plainly: bool) -> Any:
    if plainly and not said:
        return None
    if plainly and _is_plain(said) and isinstance(said[0], TextPart):
        return said[0].text
    return [_write_part(part, role) for part in said]


def _is_plain(said: list[Part]) -> bool:
    """Whether it is nothing but one text, so that chat would write it as a string."""
    return len(said) == 1 and isinstance(said[0], TextPart) and not said[0].refusal and FORM not in said[0].extra


def _is_sayable(part: Part) -> bool:
    return isinstance(part, TextPart | FilePart) or (isinstance(part, OpaquePart) and part.provider == FORM)


def _write_part(part: Part, role: str) -> Json:
    if isinstance(part, OpaquePart):
        return part.data
    if isinstance(part, FilePart):
        return _write_file(part, role) or {"type": "text", "text": reading.note(part)}
    assert isinstance(part, TextPart)
    if part.refusal and role == "assistant":
        return {"type": "refusal", "refusal": part.text, **reading.own(part, FORM)}
    return {"type": "text", "text": part.text, **reading.own(part, FORM)}


def _write_file(part: FilePart, role: str) -> Json | None:
    """The part of a file, None when chat has none for it: only users show files, unless one came from here."""
    if role != "user" and FORM not in part.extra:
        return None
    own = reading.own(part, FORM)
    if part.kind == "image":
        url = reading.data_url(part)
        kind, inner = "image_url", {"url": url} | ({"detail": part.detail} if part.detail is not None else {})
        known = url is not None
    elif part.kind == "audio":
        kind, inner = "input_audio", reading.write_sound(part)
        known = part.data is not None
    else:
        kind, inner = "file", _write_document(part)
        known = "file_data" in inner or "file_id" in inner
    return {"type": kind, kind: {**inner, **own.pop(kind, {})}, **own} if known else None


def _write_document(part: FilePart) -> Json:
    inner: Json = {}
    if part.data is not None:
        inner["file_data"] = part.data if part.media_type is None else reading.data_url(part)
    if part.file_id is not None and part.provider in {PROVIDER, None}:
        inner["file_id"] = part.file_id
    if part.name is not None:
        inner["filename"] = part.name
    elif part.data is not None and FORM not in part.extra:  # data needs a name
        inner["filename"] = f"file.{reading.media_type(part).rpartition('/')[2]}"
    return inner


def _write_heard(part: FilePart) -> Json:
    heard: Json = {"id": part.file_id}
    if part.data is not None:
        heard["data"] = part.data
    if part.text is not None:
        heard["transcript"] = part.text
    return heard | reading.own(part, FORM)


def _write_call(part: ToolCallPart) -> Json:
    own = reading.own(part, FORM)
    kind, words = ("custom", "input") if part.custom else ("function", "arguments")
    inner: Json = dict(own.pop(kind, {}))
    inner = {"name": reading.name_for(part.name, inner, _NAME), words: part.arguments, **inner}
    call = {"id": part.id, "type": kind, kind: inner, **own}
    if own.get("type") == ABSENT:
        del call["type"]
    return call


def _join(first: Json, second: Json) -> None:
    """Puts an assistant's next message into the one whose tool calls are still open."""
    said, more = first.get("content"), second.pop("content", None)
    if said and more:
        first["content"] = [*_listed(said), *_listed(more)]
    elif more:
        first["content"] = more
    first["tool_calls"] += second.pop("tool_calls", [])
    for key, value in second.items():
        first.setdefault(key, value)


def _listed(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
