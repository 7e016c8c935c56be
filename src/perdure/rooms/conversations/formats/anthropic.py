"""Anthropic messages (``/v1/messages``), both ways.

``to_anthropic(from_anthropic(messages, system)) == (system, messages)`` for what the API accepts, given that the user
begins and roles alternate. Tool results stand in the user's messages there: a message of nothing else becomes ``role="tool"``, a
mixed one stays ``user`` with its parts.

Going out:

- system and developer messages form the ``system`` prompt; only one that came from a ``system`` message amid a
  conversation goes back to its place, because not every model takes it there;
- a conversation that the assistant begins gets a first turn of the user, ``(conversation begins)``: the API itself
  takes it without by now, but older models and Amazon's and others' copies of the API do not;
- consecutive messages of one side are merged, tool results first, as the API wants them; calls and results are paired
  as ``formats.turns`` says;
- a tool's input is an object there. Arguments that are no JSON object travel as ``{"_raw": arguments}`` and come
  back as they were; the empty text is ``{}``;
- characters that the API refuses in ids of calls become ``_``, in calls and results alike, and an id that was there
  before gets a number; names of tools are spelled ``[a-zA-Z0-9_-]{1,128}`` unless they came from here otherwise;
- blank texts, answers that say nothing, speakers' names, reasoning that is not Anthropic's and other formats' opaque items are left out; a
  file that cannot go along becomes a short note in words.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, cast

from perdure.rooms.conversations.content import (
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

FORM = "anthropic"
PROVIDER = "anthropic"
ROLES = ("user", "assistant", "system")

BEGINNING = "(conversation begins)"
"""What the user says before an assistant that speaks first."""

_NAME = 128
"""The longest name of a tool."""
_RAW = "_raw"
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_PDF = "application/pdf"
_ANSWER_ONLY = frozenset(
    ("id", "type", "model", "stop_reason", "stop_sequence", "stop_details", "usage", "container", "diagnostics")
)
"""Fields of an answer that the API does not take back."""
_NO_ID_CHARACTER = re.compile(r"[^a-zA-Z0-9_-]")


def from_anthropic(messages: Iterable[Mapping[str, Any]], system: str | Iterable[object] | None = None) -> list[Draft]:
    """The drafts of Anthropic messages, one each, after one of the system prompt when there is one.

    Whole answers (``Message`` objects) may stand among the messages: their usage becomes ``token_usage``. Fields
    without a common name stay under ``anthropic``, in ``extra`` of the part or ``metadata`` of the message. An
    assistant's message that says and calls nothing gets the content ``(ReasoningPart(),)``.

    Raises:
        Invalid: a message is not of the format; the error names the place, as in ``messages[3].content[0].text``.
    """
    drafts: list[Draft] = []
    if system:
        prompt = reading.plain(system, "system")
        content = prompt if isinstance(prompt, str) else _read_blocks(prompt, "system", "system")
        drafts.append(reading.draft("system", "system", content, (FORM, {})))
    drafts.extend(_read(message, path) for path, message in reading.objects(messages, "messages"))
    return drafts


def to_anthropic(messages: Iterable[MessageLike]) -> tuple[str | list[Json] | None, list[Json]]:
    """The system prompt (None when there is none) and the messages, as the API takes them.

    Results stand right after the turn with their calls. A call whose result is missing is answered with "The result of
    this call is not available.", as an error; a result that answers no call becomes the user's words, or is left out
    when it is blank. When the assistant begins, the user says "(conversation begins)" before. See the module for what
    else is adapted.
    """
    system: list[str | list[Json]] = []
    found: list[Json] = []
    ids = _CallIds()
    for turn in turns(messages, FORM):
        in_place = turn.own.get("role") == "system" and bool(found)  # a first one belongs to the prompt
        content = _write_content(turn, ids)
        if not content:
            continue
        if turn.role in {"system", "developer"} and not in_place:
            system.append(content)
            continue
        role = turn.role if turn.role in ROLES else "user"
        own = {key: value for key, value in turn.own.items() if key not in _ANSWER_ONLY and key != "role"}
        if not found and role == "assistant":
            found.append({"role": "user", "content": BEGINNING})
        if found and found[-1]["role"] == role:
            found[-1] = {**found[-1], "content": _merged(found[-1]["content"], content), **own}
        else:
            found.append({"role": role, "content": content, **own})
    if len(system) < 2:
        return (system[0] if system else None), found
    return [block for content in system for block in _blocks(content)], found


def usage_from_anthropic(usage: Mapping[str, Any], model: str | None = None) -> TokenUsage:
    """The token usage of an answer's ``usage``: tokens read from and written to the cache count as input."""
    keys = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return TokenUsage(
        sum(reading.count(usage, key) for key in keys), reading.count(usage, "output_tokens"), None, model
    )


def input_of_arguments(arguments: str) -> Json:
    """A tool's input: the object that the JSON text holds, ``{"_raw": arguments}`` when it holds none."""
    if not arguments.strip():
        return {}
    found = _object_of(arguments)
    return {_RAW: arguments} if found is None else found


def arguments_of_input(given: Json) -> str:
    """The compact JSON text of a tool's input, or the text that ``input_of_arguments`` had wrapped."""
    raw = given.get(_RAW)
    if len(given) == 1 and isinstance(raw, str) and raw.strip() and _object_of(raw) is None:
        return raw
    return json.dumps(given, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _object_of(text: str) -> Json | None:
    """The object in a JSON text; None when there is none, or one that JSON could not carry on."""
    try:
        found = json.loads(text, parse_constant=_refuse)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()  # 1e999 and lone surrogates
    except (ValueError, RecursionError):  # those of JSON and of Unicode are ValueErrors
        return None
    return cast("Json", found) if isinstance(found, dict) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# -- in ------------------------------------------------------------------------------------------------------------


def _read(left: Json, path: str) -> Draft:
    role = reading.need_text(left, "role", path)
    if role not in ROLES:
        raise reading.unknown(f"{path}.role", role, ROLES)
    raw = left.pop("content", MISSING)
    content: Content = raw if isinstance(raw, str) else _read_blocks(raw, f"{path}.content", role)
    if role == "system":
        left["role"] = role
    elif content and all(isinstance(part, ToolResultPart) for part in content):
        role = "tool"
    content = or_silence(content, role)
    usage = left.get("usage")
    fields: Json = {}
    if isinstance(usage, dict):
        fields["token_usage"] = usage_from_anthropic(cast("Json", usage), left.get("model"))
    return reading.draft(path, role, content, (FORM, left), **fields)


def _read_blocks(raw: object, path: str, role: str) -> tuple[Part, ...]:
    if not isinstance(raw, list):
        raise Invalid(f"{path} must be text or a list", field=path)
    places = ((f"{path}[{index}]", item) for index, item in enumerate(cast("list[Any]", raw)))
    return tuple(_read_block(reading.need_object(item, place), place, role) for place, item in places)


def _read_block(raw: Json, path: str, role: str) -> Part:
    left = dict(raw)
    kind = reading.need_text(left, "type", path)
    if kind in {"text", "image", "document"}:
        return _read_shown(raw, path, role)
    if kind == "tool_use":
        call_id, name = reading.need_text(left, "id", path), reading.need_text(left, "name", path)
        given = reading.need_object(left.pop("input", None), f"{path}.input")
        reading.keep_name(name, left, _NAME)
        return ToolCallPart(call_id, name, arguments_of_input(given), extra=reading.kept(FORM, left))
    if kind == "tool_result":
        return _read_result(left, path)
    if kind == "thinking":
        text = reading.need_text(left, "thinking", path)
        signature = reading.take_text(left, "signature")
        return ReasoningPart(text, signature, provider=PROVIDER, extra=reading.kept(FORM, left))
    if kind == "redacted_thinking":
        encrypted = reading.need_text(left, "data", path)
        return ReasoningPart(encrypted=encrypted, provider=PROVIDER, extra=reading.kept(FORM, left))
    return OpaquePart(FORM, raw)


def _read_result(left: Json, path: str) -> ToolResultPart:
    call = reading.need_text(left, "tool_use_id", path)
    raw = left.pop("content", MISSING)
    content: str | tuple[TextPart | FilePart | OpaquePart, ...] = ""
    if raw is MISSING:
        left["content"] = ABSENT
    elif isinstance(raw, str):
        content = raw
    else:
        items = reading.need_list(raw, f"{path}.content")
        places = ((f"{path}.content[{index}]", item) for index, item in enumerate(items))
        content = tuple(_read_shown(reading.need_object(item, place), place, "user") for place, item in places)
    failed = left.get("is_error") is True and left.pop("is_error")
    return ToolResultPart(call, content, is_error=failed, extra=reading.kept(FORM, left))


def _read_shown(raw: Json, path: str, role: str) -> TextPart | FilePart | OpaquePart:
    """What may stand in a tool's result, too: text, an image, a document, or an opaque block."""
    left = dict(raw)
    kind = reading.need_text(left, "type", path)
    if kind == "text":
        return TextPart(reading.need_text(left, "text", path), extra=reading.kept(FORM, left))
    if kind not in {"image", "document"}:
        return OpaquePart(FORM, raw)
    place = f"{path}.source"
    source = dict(reading.need_object(left.pop("source", None), place))
    origin = reading.need_text(source, "type", place)
    fields: Json = {"kind": "image" if kind == "image" else "file"}
    if origin in {"base64", "text"}:
        fields["data" if origin == "base64" else "text"] = reading.need_text(source, "data", place)
        fields["media_type"] = reading.take_text(source, "media_type")
    elif origin == "url":
        fields["uri"] = reading.need_text(source, "url", place)
    elif origin == "file":
        fields |= {"file_id": reading.need_text(source, "file_id", place), "provider": PROVIDER}
    else:
        return OpaquePart(FORM, raw)
    fields["name"] = reading.take_text(left, "title")
    return reading.first_fit(raw, lambda p: _write_file(p, role), FORM, FilePart(**fields), left)


# -- out -----------------------------------------------------------------------------------------------------------


class _CallIds:
    """Ids of calls as the API takes them: of its characters, and each there once."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._open: dict[str, list[str]] = {}

    def called(self, call: str) -> str:
        """The id of the next call."""
        plain = _NO_ID_CHARACTER.sub("_", call)
        found, number = plain, 1
        while found in self._used:
            number += 1
            found = f"{plain}_{number}"
        self._used.add(found)
        self._open.setdefault(call, []).append(found)
        return found

    def answered(self, call: str) -> str:
        """The id in the next result: results come in the order of calls with the same id."""
        return self._open[call].pop(0)


def _write_content(turn: Turn, ids: _CallIds) -> str | list[Json]:
    """Text or blocks; empty when nothing of it can be said here."""
    if isinstance(turn.content, str):
        return turn.content if turn.content.strip() else ""
    blocks = (_write_block(part, turn.role, ids) for part in turn.content)
    return [block for block in blocks if block is not None]


def _write_block(part: Part, role: str, ids: _CallIds) -> Json | None:
    own = reading.own(part, FORM)
    if isinstance(part, ToolCallPart):
        given = input_of_arguments(part.arguments)
        name = reading.name_for(part.name, own, _NAME)
        return {"type": "tool_use", "id": ids.called(part.id), "name": name, "input": given, **own}
    if isinstance(part, ToolResultPart):
        return _write_result(part, own, ids)
    if isinstance(part, ReasoningPart):
        if part.provider != PROVIDER:
            return None
        if part.encrypted is not None:
            return {"type": "redacted_thinking", "data": part.encrypted, **own}
        signed = {} if part.signature is None else {"signature": part.signature}
        return {"type": "thinking", "thinking": part.text, **signed, **own}
    return _write_shown(part, role)


def _write_result(part: ToolResultPart, own: Json, ids: _CallIds) -> Json:
    block: Json = {"type": "tool_result", "tool_use_id": ids.answered(part.tool_call_id)}
    absent = own.pop("content", None) == ABSENT
    if not isinstance(part.content, str):
        shown = (_write_shown(item, "user") for item in part.content)
        block["content"] = [item for item in shown if item is not None]
    elif part.content or not absent:
        block["content"] = part.content
    if part.is_error:
        block["is_error"] = True
    return {**block, **own}


def _write_shown(part: TextPart | FilePart | OpaquePart, role: str) -> Json | None:
    if isinstance(part, OpaquePart):
        return part.data if part.provider == FORM else None
    if isinstance(part, FilePart):
        return _write_file(part, role) or {"type": "text", "text": reading.note(part)}
    return {"type": "text", "text": part.text, **reading.own(part, FORM)} if part.text.strip() else None


def _write_file(part: FilePart, role: str) -> Json | None:
    """The block of a file, None when there is none for it: only users show files, unless one came from here."""
    if role in {"assistant", "system", "developer"} and FORM not in part.extra:
        return None
    source = _write_image_source(part) if part.kind == "image" else _write_document_source(part)
    if source is None:
        return None
    kind = "image" if part.kind == "image" else "document"
    titled = {"title": part.name} if part.name is not None and kind == "document" else {}
    return {"type": kind, "source": source, **titled, **reading.own(part, FORM)}


def _write_image_source(part: FilePart) -> Json | None:
    if part.data is None:
        return _write_reference(part)
    media_type = reading.media_type(part)
    if media_type not in _IMAGES:
        return None
    return {"type": "base64", "media_type": media_type, "data": part.data}


def _write_document_source(part: FilePart) -> Json | None:
    if part.kind == "audio":
        return None
    if part.data is None and part.text is None:
        return _write_reference(part)
    if part.data is not None and part.media_type == _PDF:
        return {"type": "base64", "media_type": _PDF, "data": part.data}
    text = part.text if part.text is not None else _text_of(part)
    return None if text is None else {"type": "text", "media_type": "text/plain", "data": text}


def _write_reference(part: FilePart) -> Json | None:
    if part.file_id is not None and part.provider in {PROVIDER, None}:
        return {"type": "file", "file_id": part.file_id}
    if part.uri is not None and part.uri.startswith(("http://", "https://")):
        return {"type": "url", "url": part.uri}
    return None


def _text_of(part: FilePart) -> str | None:
    """The words in the base64 of a text file."""
    if not (part.media_type or "").startswith("text/"):
        return None
    try:
        return base64.b64decode(part.data or "", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _merged(first: str | list[Json], second: str | list[Json]) -> list[Json]:
    """One turn of two, the results of tools first."""
    return sorted([*_blocks(first), *_blocks(second)], key=lambda block: block["type"] != "tool_result")


def _blocks(content: str | list[Json]) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
