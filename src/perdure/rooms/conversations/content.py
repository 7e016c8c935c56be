"""What a message says: text, or a tuple of typed parts.

A part keeps what providers have in common under common names. What only one provider knows goes into ``extra``,
under the name of the format it came from (``openai_chat``, ``openai_responses``, ``anthropic``), so that a message
goes back to its provider unchanged and never carries one provider's fields to another::

    TextPart("Paris.", extra={"anthropic": {"cache_control": {"type": "ephemeral"}}})

Other keys of ``extra`` belong to the caller; no format reads them. An item that has no common form at all is an
``OpaquePart``. The JSON form of a part is its fields, those at their default left out, with a tag in ``type``.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import msgspec

from perdure.values import limits
from perdure.values.errors import Invalid, OverLimit, Undecodable
from perdure.values.tagged import INTEGER_MAX, INTEGER_MIN


class _Part(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True, forbid_unknown_fields=True
):
    extra: dict[str, Any] = {}


class TextPart(_Part, frozen=True, tag="text"):
    """Words. ``refusal`` marks words of an assistant that decline to answer."""

    text: str
    refusal: bool = False


class FilePart(_Part, frozen=True, tag="file"):
    """An image, a sound or another file: by address, by value or by a provider's id.

    At least one of ``uri``, ``data`` (base64), ``text`` (what a plain text file holds or a sound says) and
    ``file_id`` (an upload known to ``provider``, "openai" or "anthropic") is there. ``detail`` is how closely a
    model shall look; ``name`` is the file's name or title.
    """

    kind: Literal["image", "file", "audio"]
    uri: str | None = None
    data: str | None = None
    media_type: str | None = None
    text: str | None = None
    file_id: str | None = None
    provider: str | None = None
    name: str | None = None
    detail: str | None = None


class ToolCallPart(_Part, frozen=True, tag="tool_call"):
    """An assistant's call of a tool.

    ``arguments`` is the text exactly as the model gave it: JSON, or free text when the tool is ``custom``.
    """

    id: str
    name: str
    arguments: str = ""
    custom: bool = False


class ReasoningPart(_Part, frozen=True, tag="reasoning"):
    """What a model thought before it spoke.

    ``signature``, ``encrypted`` and ``id`` mean something only to ``provider`` ("openai" or "anthropic"), which
    is the only one that gets the part back. ``summary`` holds the summaries of a reasoning that is not shown.
    """

    text: str = ""
    signature: str | None = None
    encrypted: str | None = None
    id: str | None = None
    summary: tuple[str, ...] = ()
    provider: str | None = None


class OpaquePart(_Part, frozen=True, tag="opaque"):
    """An item of one format that has no common form, verbatim; ``provider`` is the name of the format."""

    provider: str
    data: dict[str, Any]


class ToolResultPart(_Part, frozen=True, tag="tool_result"):
    """What a tool answered to the call of that id: text (which may be empty) or text, files and opaque items."""

    tool_call_id: str
    content: str | tuple[TextPart | FilePart | OpaquePart, ...] = ""
    is_error: bool = False


Part = TextPart | FilePart | ToolCallPart | ToolResultPart | ReasoningPart | OpaquePart
Content = str | tuple[Part, ...]

SILENCE: tuple[Part, ...] = (ReasoningPart(),)
"""The content of an assistant's answer that says nothing and calls nothing, as providers do give."""

_KINDS = (TextPart, FilePart, ToolCallPart, ToolResultPart, ReasoningPart, OpaquePart)
_NAMES = "text, file, tool_call, tool_result, reasoning, opaque"


def _base(value: object) -> str | int | float:
    """A subclass of text or number (numpy's, markup's) as what it is in JSON."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


_encode = msgspec.json.Encoder(enc_hook=_base).encode
_decode = msgspec.json.Decoder(tuple[Part, ...]).decode
_PLACE = re.compile(r"(?:missing required field `(?P<name>\w+)`)?(?: - at `\$(?P<path>.*)`)?$")


def validate_content(content: object, role: str, field: str = "content") -> Content:
    """``content`` as text or as a tuple of parts, when it can be stored as what ``role`` said.

    Takes text or a list (or tuple) of parts, each a struct of this module or a dict in our JSON form. What comes
    back shares nothing with what was given. Blank content is refused, but for tool results and for an assistant
    that calls tools.

    Raises:
        Invalid: it is blank or of another form, or holds NUL, lone surrogates or what is not JSON; the message and
            ``field`` name the place, as in ``content[2].tool_call_id``.
        OverLimit: above 64 MiB (text, or parts as JSON) or deeper than 64 levels.
    """
    if isinstance(content, str):
        return limits.text(content, field, limits.CONTENT_BYTES, blank=role == "tool")
    if not isinstance(content, list | tuple):
        raise Invalid(f"{field} must be text or a list of parts, not {type(content).__name__}", field=field)
    parts = _checked(cast("Sequence[object]", content), field)
    if role != "tool" and all(isinstance(part, TextPart) and not part.text.strip() for part in parts):
        raise Invalid(f"{field} must not be blank", field=field)
    return parts


def or_silence(content: Content, role: str) -> Content:
    """``content``, or ``SILENCE`` when it is an assistant's and has nothing but blank text, or nothing at all."""
    if role != "assistant":
        return content
    blank = (
        not content.strip() if isinstance(content, str)
        else all(isinstance(part, TextPart) and not part.text.strip() for part in content)
    )  # fmt: skip
    return SILENCE if blank else content


def encode_parts(parts: Sequence[Part]) -> str:
    """The JSON text of checked parts."""
    return _encode(parts).decode()


def decode_parts(text: str | bytes) -> tuple[Part, ...]:
    """The parts that ``encode_parts`` was given; raises Undecodable when the text is damaged."""
    try:
        return _decode(text)
    except (ValueError, RecursionError) as error:  # msgspec's errors and those of Unicode are ValueErrors
        raise Undecodable(f"the stored parts of a message cannot be decoded: {error}") from None


def plain_text(content: Content) -> str:
    """The searchable text of a content, one line or more per part.

    That is what was said, names and texts of files, names and arguments of tool calls, and tool results; not
    reasoning, opaque items and base64.
    """
    if isinstance(content, str):
        return content
    return "\n".join(piece for part in content for piece in _pieces(part) if piece)


def tool_calls(content: Content) -> tuple[str, ...]:
    """The ids of the calls in a content that await a result from outside, in order."""
    return tuple(call for call, answered in _links(content) if not answered)


def tool_results(content: Content) -> tuple[str, ...]:
    """The ids of the calls that a content answers, in order."""
    return tuple(call for call, answered in _links(content) if answered)


def _links(content: Content) -> Iterator[tuple[str, bool]]:
    for part in () if isinstance(content, str) else content:
        if isinstance(part, ToolCallPart):
            yield part.id, False
        elif isinstance(part, ToolResultPart):
            yield part.tool_call_id, True
        elif isinstance(part, OpaquePart):
            # Computers, shells and patches: calls and outputs of the Responses format share a call_id, but for
            # local_shell_call_output, whose own id is that of the call.
            kind = part.data.get("type")
            call = part.data.get("id" if kind == "local_shell_call_output" else "call_id")
            if isinstance(kind, str) and isinstance(call, str):
                yield call, kind.endswith("_output")


def _pieces(part: Part) -> Iterator[str]:
    if isinstance(part, TextPart):
        yield part.text
    elif isinstance(part, FilePart):
        yield part.name or ""
        yield part.text or ""
    elif isinstance(part, ToolCallPart):
        yield f"{part.name} {part.arguments}".strip()
    elif isinstance(part, ToolResultPart):
        yield plain_text(part.content)


def _checked(parts: Sequence[object], field: str) -> tuple[Part, ...]:
    for index, part in enumerate(parts):
        if not isinstance(part, (*_KINDS, dict)):
            raise Invalid(
                f"{field}[{index}] must be a part or a dict, not {type(part).__name__}", field=f"{field}[{index}]"
            )
        _walk(cast("object", part), f"{field}[{index}]", 1)
    try:
        raw = _encode(parts)
    except TypeError as error:
        raise Invalid(f"{field} is not JSON: {error}", field=field) from None
    if len(raw) > limits.CONTENT_BYTES:
        raise OverLimit(
            f"{field} has {len(raw):,} bytes; the limit is {limits.CONTENT_BYTES:,}", field=field,
            limit=limits.CONTENT_BYTES,
        )  # fmt: skip
    # Decoding checks the types (a struct built by hand was not checked) and copies.
    try:
        checked = _decode(raw)
    except msgspec.ValidationError as error:
        raise _misformed(str(error), field) from None
    for index, part in enumerate(checked):
        _check_part(part, f"{field}[{index}]")
    return checked


def _walk(value: object, path: str, depth: int) -> None:
    """Refuses what would not come back from JSON as it is, or not at all."""
    if isinstance(value, str):
        limits.text(value, path, limits.CONTENT_BYTES, blank=True)
    elif value is None or isinstance(value, bool):
        return
    elif isinstance(value, int | float):
        if not (INTEGER_MIN <= value <= INTEGER_MAX if isinstance(value, int) else math.isfinite(value)):
            raise Invalid(f"{path} must be finite and, when an integer, of 64 bits", field=path)
    elif depth > limits.METADATA_DEPTH:
        limit = limits.METADATA_DEPTH
        raise OverLimit(f"{path[:200]} is deeper than {limit} levels", field=path, limit=limit)
    else:
        for place, item in _members(value, path):
            _walk(item, place, depth + 1)


def _members(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            if not isinstance(key, str):
                raise Invalid(f"{path} has a key that is not text: {key!r}", field=path)
            limits.text(key, f"a key of {path}", limits.CONTENT_BYTES, blank=True)
            yield f"{path}.{key}", item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast("Sequence[object]", value)):
            yield f"{path}[{index}]", item
    elif isinstance(value, _KINDS):
        for name in value.__struct_fields__:
            yield f"{path}.{name}", getattr(value, name)
    else:
        raise Invalid(f"{path} must be JSON, not {type(value).__name__}", field=path)


def _misformed(message: str, field: str) -> Invalid:
    """A complaint of msgspec as ours: it ends with the place, or names the field that is missing."""
    found = _PLACE.search(message)
    place = field + (found["path"] or "") if found else field
    if found and found["name"]:
        place += f".{found['name']}"
    complaint = message.partition(" - at `")[0]
    return Invalid(f"{place} is not of the form of a part: {complaint}", field=place, hint=f"parts are {_NAMES}")


def _check_part(part: Part, path: str) -> None:
    if isinstance(part, ToolCallPart):
        limits.identifier(part.id, f"{path}.id")
        limits.text(part.name, f"{path}.name", limits.NAME_BYTES)
    elif isinstance(part, ToolResultPart):
        limits.identifier(part.tool_call_id, f"{path}.tool_call_id")
        if not isinstance(part.content, str):
            for index, item in enumerate(part.content):
                _check_part(item, f"{path}.content[{index}]")
    elif isinstance(part, FilePart):
        if part.uri is None and part.data is None and part.text is None and part.file_id is None:
            raise Invalid(f"{path} needs one of uri, data, text and file_id", field=path)
    elif isinstance(part, OpaquePart):
        limits.text(part.provider, f"{path}.provider", limits.NAME_BYTES)
