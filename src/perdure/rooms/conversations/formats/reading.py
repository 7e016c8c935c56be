"""What the provider formats share: taking foreign messages apart, and putting pieces of ours in their words.

Foreign messages come as mappings, as the clients' own objects (anything with ``model_dump``), or mixed. They are
first copied into plain JSON; then each reader pops the fields that have a common name, and what is left goes into
``extra`` of the part or ``metadata`` of the message under the format's name. A popped key is free afterwards, so
where one form has several spellings (no content, null content, a list of one text) the key says which it was.
"""

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from perdure.rooms.conversations.content import Content, FilePart, OpaquePart, Part
from perdure.rooms.conversations.draft import Draft
from perdure.rooms.conversations.usage import TokenUsage
from perdure.values import limits
from perdure.values.errors import Invalid, OverLimit

Json = dict[str, Any]

ABSENT = "absent"
"""Marks, in the place of a field that was read, that it was not there."""
MISSING: Any = object()
"""What a reader gets for a field that is not there."""

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,([A-Za-z0-9+/=_-]+)\Z")
_NO_NAME_CHARACTER = re.compile(r"[^a-zA-Z0-9_-]")
_IMAGE_STARTS = {"iVBOR": "image/png", "/9j/": "image/jpeg", "R0lG": "image/gif", "UklG": "image/webp"}


def objects(items: Iterable[object], name: str) -> Iterator[tuple[str, Json]]:
    """Each item as a plain JSON object of its own, with its place (``messages[3]``)."""
    if isinstance(items, str | bytes | dict):
        raise Invalid(f"{name} must be a list of objects", field=name)
    for index, item in enumerate(items):
        yield f"{name}[{index}]", need_object(plain(item, f"{name}[{index}]"), f"{name}[{index}]")


def plain(value: object, path: str, depth: int = 0) -> Any:
    """A copy in dicts, lists and scalars; Invalid names the place of what is not JSON."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if depth > limits.METADATA_DEPTH:
        limit = limits.METADATA_DEPTH
        raise OverLimit(f"{path[:200]} is deeper than {limit} levels", field=path, limit=limit)
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        value = dump(mode="json", exclude_unset=True, by_alias=True)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping):
        found = cast("Mapping[object, object]", value)
        return {str(key): plain(item, f"{path}.{key}", depth + 1) for key, item in found.items()}
    if isinstance(value, list | tuple | Iterator) and not isinstance(value, io.IOBase):  # a file iterates its lines
        items = cast("Iterable[object]", value)
        return [plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(items)]
    raise Invalid(f"{path} must be JSON, not {type(value).__name__}", field=path)


def need_object(value: object, path: str) -> Json:
    """``value`` when it is an object."""
    if isinstance(value, dict):
        return cast("Json", value)
    raise Invalid(f"{path} must be an object, not {_kind(value)}", field=path)


def need_list(value: object, path: str) -> list[Any]:
    """``value`` when it is a list."""
    if isinstance(value, list):
        return cast("list[Any]", value)
    raise Invalid(f"{path} must be a list, not {_kind(value)}", field=path)


def need_text(source: Json, key: str, path: str) -> str:
    """Takes out the text that must be at ``key``."""
    if key not in source:
        raise Invalid(f"{path}.{key} is missing", field=f"{path}.{key}")
    if not isinstance(source[key], str):
        raise Invalid(f"{path}.{key} must be text, not {_kind(source[key])}", field=f"{path}.{key}")
    return source.pop(key)


def take_text(source: Json, key: str) -> str | None:
    """Takes out the text at ``key``; anything else stays where it is."""
    return source.pop(key) if isinstance(source.get(key), str) else None


def take_name(source: Json) -> str | None:
    """Takes out the speaker's name, when there is one."""
    name = source.get("name")
    return source.pop("name") if isinstance(name, str) and name.strip() else None


def name_for(name: str, own: Json, longest: int) -> str:
    """A name as providers take it, ``[a-zA-Z0-9_-]{1,longest}``: other characters become "_", the rest is cut.

    The name that ``keep_name`` put into ``own``, which is taken out, goes back as it came.
    """
    if own.pop("name", None) == name:
        return name
    return _NO_NAME_CHARACTER.sub("_", name)[:longest]


def keep_name(name: str, left: Json, longest: int) -> None:
    """Notes in what is left a name that came from the provider although its rule would not let it through."""
    if name_for(name, {}, longest) != name:
        left["name"] = name


def kept(form: str, left: Json) -> Json:
    """What is left, as ``extra`` or metadata of ``form``."""
    return {form: left} if left else {}


def own(part: Part, form: str) -> Json:
    """What ``form`` itself has left in a part, to be changed freely."""
    return dict(part.extra.get(form) or {})


def draft(path: str, role: str, content: Content, left: tuple[str, Json], **fields: Any) -> Draft:
    """A draft with what is left as metadata; what is wrong with it is named by its place."""
    try:
        return Draft(role, content, metadata=kept(*left) or None, **fields)
    except Invalid as error:
        details = error.details | {"field": f"{path}.{error.field}"}
        raise type(error)(f"{path}.{error.message}", hint=error.hint, **details) from None


def first_fit(
    raw: Json, write: Callable[[FilePart], Json | None], form: str, part: FilePart, left: Json
) -> FilePart | OpaquePart:
    """``part`` in the leanest form that is written exactly as ``raw``; when none is, ``raw`` itself.

    ``left`` is what the reader could not name. When nothing was left and the writer adds defaults that ``raw``
    lacks, an empty mark keeps it from doing so.
    """
    for candidate in (part, FilePart(**_fields(part), extra={form: left})):
        if write(candidate) == raw:
            return candidate
    return OpaquePart(form, raw)


def _fields(part: FilePart) -> Json:
    return {name: getattr(part, name) for name in part.__struct_fields__ if name != "extra"}


def of_data_url(url: str) -> tuple[str | None, str | None, str | None]:
    """An address as (media type, base64, None) when it carries its data, else as (None, None, address)."""
    found = _DATA_URL.match(url)
    return (found[1], found[2], None) if found else (None, None, url)


def data_url(part: FilePart) -> str | None:
    """The address of a file: its data as a data URL, else its uri."""
    if part.data is None:
        return part.uri
    return f"data:{media_type(part)};base64,{part.data}"


def media_type(part: FilePart) -> str:
    """The media type of a file, that of an image guessed from its first bytes when it is not given."""
    if part.media_type is None and part.kind == "image":
        for start, found in _IMAGE_STARTS.items():
            if (part.data or "").startswith(start):
                return found
    return part.media_type or "application/octet-stream"


def sound(source: Json, path: str) -> FilePart:
    """The sound in an ``input_audio`` object; its format becomes a media type."""
    data = need_text(source, "data", path)
    form = need_text(source, "format", path)
    return FilePart("audio", data=data, media_type="audio/mpeg" if form == "mp3" else f"audio/{form}")


def write_sound(part: FilePart) -> Json:
    """The ``input_audio`` object of a sound."""
    form = (part.media_type or "audio/wav").rpartition("/")[2]
    return {"data": part.data, "format": "mp3" if form == "mpeg" else form}


def note(part: FilePart) -> str:
    """Words in the place of a file that a format cannot carry: its text, else what it was."""
    return part.text or f"[{part.kind}: {part.name or part.uri or part.media_type or 'not shown'}]"


def count(usage: Mapping[str, Any], key: str) -> int:
    """The count at ``key`` of a provider's usage; 0 when it is null or absent."""
    found = usage.get(key)
    return 0 if found is None else limits.count(found, f"usage.{key}", 0, limits.TOKENS)


def usage_of(usage: Mapping[str, Any], names: tuple[str, str], model: str | None) -> TokenUsage:
    """OpenAI's usage. A total above the sum is kept; one below it, as some servers send, gives way to the sum."""
    incoming, outgoing, total = (count(usage, key) for key in (*names, "total_tokens"))
    return TokenUsage(incoming, outgoing, max(total, incoming + outgoing), model)


def unknown(path: str, value: object, known: Sequence[str]) -> Invalid:
    """The error of a word that is none of the known ones."""
    return Invalid(f"{path} must be one of {', '.join(known)}, not {str(value)[:40]!r}", field=path)


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
