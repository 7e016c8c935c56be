"""A state as a person reads it: what is short on one line, what is long below its name, what is too long cut."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from perdure.cli.screen import Screen, clean, one_line, plural
from perdure.cli.state_json import Unknown, fields_of
from perdure.rooms.checkpoints.equality import is_array
from perdure.rooms.checkpoints.leaves import Foreign
from perdure.rooms.checkpoints.paths import joined, key_step
from perdure.values.errors import Invalid, NotFound

if TYPE_CHECKING:
    from rich.text import Text

MOST_ITEMS = 20
"""Items of a list that are all shown; of a longer one the first and the last are."""
FIRST, LAST = 5, 10
MOST_KEYS = 60
PIPE_WIDTH = 200
"""Characters of a line where nobody's window says how many there is room for."""
_SHOWN_BYTES = 16
_COMPACT = 8
"""Keys of a mapping that may stand on one line with long texts cut."""
_SHORT = 18
"""Characters of a text that is never cut there."""
_BRACKETS = {list: "[]", tuple: "()", set: "{}", frozenset: "{}"}
_STEP = re.compile(
    r'\.?(?:\[(?P<quoted>"(?:[^"\\]|\\.)*")\]|\[id=(?P<id>"(?:[^"\\]|\\.)*"|[^\]]*)\]|\[(?P<index>-?\d+)\]|(?P<name>[^.\[\]]+))'
)
_MISSING = object()


# -- one line ----------------------------------------------------------------------------------------------------------


def inline(value: Any, room: int) -> str | None:
    """A value on one line of at most ``room`` characters, None when it needs more."""
    text = _one(value, room)
    return text if text is not None and len(text) <= room else None


def shortened(value: Any, room: int) -> str:
    """A value on one line, cut where there is no more room."""
    text = inline(value, room) or compact(value, room)
    if text is not None:
        return text
    if isinstance(value, str):
        return _cut_text(value, room)
    fields = fields_of(value)
    if fields is not None:
        parts = (f"{key_step(key)}: {_brief(item)}" for key, item in islice(fields.items(), 20))
        return _cut("{" + ", ".join(parts) + "}", room)
    if type(value) in _BRACKETS:
        begin, end = _BRACKETS[type(value)]
        return _cut(begin + ", ".join(_brief(item) for item in islice(_items(value), 20)) + end, room)
    return _cut(scalar(value), room)


def _cut_text(text: str, room: int) -> str:
    """The beginning of a text in quotes, and how many characters more it has."""
    told = f'…" (+{len(text):,})'
    kept = max(room - len(told) - 1, 1)
    while kept > 1 and len(_quoted(text[:kept])) - 1 + len(told) > room:
        kept -= 1  # what is escaped takes more room
    return f'{_quoted(text[:kept])[:-1]}…" (+{len(text) - kept:,})'


def compact(value: Any, room: int) -> str | None:
    """A mapping of single values on one line, the long texts among them cut; None when that would say too little."""
    fields = fields_of(value)
    if fields is None or len(fields) > _COMPACT or any(_holds(item) for item in fields.values()):
        return None
    shown = {key: inline(item, _SHORT) for key, item in fields.items()}
    name = one_line(value.name) if isinstance(value, Unknown) else ""
    fixed = len(name) + 2 + sum(len(key_step(key)) + 4 + len(text or "") for key, text in shown.items())
    cut = sum(text is None for text in shown.values())
    share = (room - fixed) // cut if cut else 0
    if share < _SHORT:
        return None
    parts = (
        f"{key_step(key)}: {shortened(fields[key], share) if text is None else text}" for key, text in shown.items()
    )
    return f"{name}{{{', '.join(parts)}}}"


def _items(value: Any) -> Sequence[Any]:
    """The items of a list or a set, those of a set always in the same order."""
    items = cast("Sequence[Any]", value)
    return items if isinstance(value, list | tuple) else sorted(items, key=repr)


def _holds(value: Any) -> bool:
    """Whether a value is made of others."""
    return fields_of(value) is not None or type(value) in _BRACKETS


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(room - 1, 1)] + "…"


def _brief(value: Any) -> str:
    return inline(value, 60) or (shortened(value, 60) if isinstance(value, str) else f"({_count(value)})")


def _one(value: Any, room: int) -> str | None:
    fields = fields_of(value)
    if fields is not None:
        name = value.name if isinstance(value, Unknown) else ""
        parts = ((f"{key_step(key)}: ", item) for key, item in fields.items())
        return _joined(parts, name + "{", "}", room)
    kind = cast("type[object]", type(value))
    if kind in _BRACKETS:
        begin, end = _BRACKETS[kind]
        return _joined((("", item) for item in _items(value)), begin, end, room)
    if isinstance(value, str) and len(value) > room:
        return None
    return scalar(value)


def _joined(parts: Iterable[tuple[str, Any]], begin: str, end: str, room: int) -> str | None:
    text = begin
    for name, item in parts:
        shown = _one(item, room - len(text) - len(name))
        if shown is None:
            return None
        text += (", " if len(text) > len(begin) else "") + name + shown
        if len(text) > room:
            return None
    return text + end


def scalar(value: Any) -> str:
    """A value that holds no others, in words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bytes | bytearray):
        more = "…" if len(value) > _SHOWN_BYTES else ""
        return f"<{_bytes(len(value))}: {bytes(value[:_SHOWN_BYTES]).hex()}{more}>"
    if isinstance(value, Foreign):
        return f"<{one_line(value.codec)}, {_bytes(len(value.data))}>"
    if isinstance(value, datetime | date | time):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, UUID | Decimal | timedelta | int | float):
        return str(value)
    if is_array(value):
        return f"<array of {value.dtype}, {' x '.join(map(str, value.shape)) or 'a number'}>"
    if isinstance(value, Unknown):
        return f"{one_line(value.name)}({shortened(value.fields, 60)})"
    return one_line(str(value))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _bytes(number: int) -> str:
    return plural(number, "byte")


def _count(value: Any) -> str:
    fields = fields_of(value)
    if fields is not None:
        name = f"{one_line(value.name)}, " if isinstance(value, Unknown) else ""
        return name + plural(len(fields), "key")
    return plural(len(value), "item") if type(value) in _BRACKETS else scalar(value)


# -- below each other --------------------------------------------------------------------------------------------------


def show(screen: Screen, value: Any, *, full: bool, indent: int = 0) -> None:
    """Prints a value; ``full`` cuts nothing."""
    wide = screen.width if screen.is_terminal else PIPE_WIDTH
    if isinstance(value, str):  # alone it is the text itself, whole
        screen.say(value, indent=indent)
        return
    if not _holds(value):
        screen.say(_line("", _leaf(value, wide - indent, full=full)), indent=indent)
        return
    if not (fields_of(value) or (type(value) in _BRACKETS and value)):
        screen.say("(nothing)", style="dim", indent=indent)
        return
    _children(screen, value, wide, indent, full=full)


def _children(screen: Screen, value: Any, wide: int, indent: int, *, full: bool) -> None:
    fields = fields_of(value)
    if fields is not None:
        most = len(fields) if full else MOST_KEYS
        for key, item in islice(fields.items(), most):
            _entry(screen, f"{key_step(key)}: ", item, wide, indent, full=full)
        if len(fields) > most:
            _more(screen, f"… {len(fields) - most:,} more keys", indent)
        return
    items = _items(value)
    cut = len(items) > MOST_ITEMS and not full
    for place, item in enumerate(items):
        if cut and place == FIRST:
            _more(screen, f"… {len(items) - FIRST - LAST:,} more items (--full shows them)", indent)
        if not cut or place < FIRST or place >= len(items) - LAST:
            _entry(screen, f"[{place}] ", item, wide, indent, full=full)


def _more(screen: Screen, text: str, indent: int) -> None:
    screen.say(text, style="dim", indent=indent)


def _entry(screen: Screen, name: str, value: Any, wide: int, indent: int, *, full: bool) -> None:
    room = max(wide - indent - len(name), 20)
    short = inline(value, room) or (None if full else compact(value, room))
    if short is not None:
        screen.say(_line(name, short), indent=indent)
    elif _holds(value):
        screen.say(_line(name, _count(value), style="dim"), indent=indent)
        _children(screen, value, wide, indent + 2, full=full)
    else:
        screen.say(_line(name, _leaf(value, room, full=full)), indent=indent)


def _leaf(value: Any, room: int, *, full: bool) -> str:
    return scalar(value) if full else shortened(value, room)


def _line(name: str, text: str, style: str = "") -> "Text":
    from rich.text import Text

    return Text().append(clean(name), style="cyan").append(clean(text), style=style)


# -- a path ------------------------------------------------------------------------------------------------------------


def at_path(state: Any, path: str) -> Any:
    """What stands at a path, as ``diff`` writes them: ``plan.steps[2]``, ``messages[id=m3].content``.

    ``Invalid`` for what is no path; ``NotFound`` says how far it leads and what is there.
    """
    at, walked, value = 0, "", state
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None or (at == 0 and path.startswith(".")):
            raise Invalid(f"this is no path: {path[:80]!r}", field="path", hint="plan.steps[2] or messages[id=m3]")
        found = _follow(value, step)
        if found is _MISSING:
            where = f"at {walked!r}" if walked else "in the state"
            raise NotFound(
                f"there is no {step[0].lstrip('.')!r} {where}", hint=f"there is: {_names(value)}", field="path"
            )
        walked, value, at = joined(walked, step[0].lstrip(".")), found, step.end()
    return value


def _follow(value: Any, step: re.Match[str]) -> Any:
    fields = fields_of(value)
    if step["id"] is not None:
        wanted = json.loads(step["id"]) if step["id"].startswith('"') else step["id"]
        items: Any = value if type(value) in _BRACKETS else ()
        return next((item for item in items if _is_of(item, wanted)), _MISSING)
    if fields is not None:
        name = json.loads(step["quoted"]) if step["quoted"] else step["name"] or step["index"]
        return fields.get(name, _MISSING)
    number = step["index"] or step["name"] or ""
    if type(value) in (list, tuple) and re.fullmatch(r"-?\d{1,12}", number):
        place = int(number)
        return value[place] if -len(value) <= place < len(value) else _MISSING
    return _MISSING


def _is_of(item: Any, wanted: str) -> bool:
    fields = fields_of(item)
    return fields is not None and "id" in fields and (fields["id"] == wanted or repr(fields["id"]) == wanted)


def _names(value: Any) -> str:
    fields: Mapping[Any, Any] | None = fields_of(value)
    if fields is not None:
        return _cut(", ".join(key_step(key) for key in islice(fields, 20)), 200) or "nothing"
    return _count(value)
