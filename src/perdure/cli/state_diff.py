"""What is different between two states, as a person reads it: one line for each path, or a table of sums."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from perdure.cli.screen import Column, Screen, clean, size
from perdure.cli.state_json import tagged_form
from perdure.cli.state_view import PIPE_WIDTH, inline, shortened

if TYPE_CHECKING:
    from perdure.rooms.checkpoints.diff import StateDiff

_STYLES = {"+": "green", "-": "red", "~": "yellow", ">": "cyan"}
_CHANNEL = re.compile(r'\["(?:[^"\\]|\\.)*"\]|[^.\[]+')
_BEFORE = 12
"""Characters that stay in front of the first difference between two long texts."""


def entries(found: "StateDiff") -> list[tuple[str, str]]:
    """Each path with its sign (added +, removed -, changed ~, moved >), in the order of the paths."""
    signs = (("-", found.removed), ("+", found.added), ("~", found.changed), (">", found.moved))
    return sorted(((path, sign) for sign, paths in signs for path in paths), key=lambda one: _natural(one[0]))


def _natural(path: str) -> list[tuple[int, int, str]]:
    """Sorts item 10 after item 9."""
    pieces = re.split(r"(\d+)", path)
    return [(1, int(piece), "") if piece.isascii() and piece.isdigit() else (0, 0, piece) for piece in pieces]


def show(screen: Screen, found: "StateDiff", indent: int = 0, most: int | None = None) -> None:
    """Prints what is different, at most ``most`` paths."""
    rows = entries(found)
    for path, sign in rows[:most]:
        _show_one(screen, found, path, sign, indent)
    if most is not None and len(rows) > most:
        screen.say(f"… {len(rows) - most:,} more", style="dim", indent=indent)


def _show_one(screen: Screen, found: "StateDiff", path: str, sign: str, indent: int) -> None:
    from rich.text import Text

    style = _STYLES[sign]
    line = Text().append(f"{sign} ", style=f"bold {style}").append(clean(path), style=style)
    room = max((screen.width if screen.is_terminal else PIPE_WIDTH) - indent - line.cell_len - 2, 20)
    if sign == ">":
        move = found.moved[path]
        screen.say(line.append(f"  from place {move.before} to {move.after}", style="dim"), indent=indent)
        return
    if sign != "~":
        value = (found.added if sign == "+" else found.removed)[path]
        screen.say(line.append("  " + clean(shortened(value, room))), indent=indent)
        return
    before, after = found.changed[path].before, found.changed[path].after
    both = [inline(value, room - 4) for value in (before, after)]
    if None not in both and len(f"{both[0]} -> {both[1]}") <= room:
        screen.say(line.append(f"  {clean(str(both[0]))} -> {clean(str(both[1]))}"), indent=indent)
        return
    screen.say(line, indent=indent)
    room = max((screen.width if screen.is_terminal else PIPE_WIDTH) - indent - 6, 20)
    for mark, text in zip("-+", _both(before, after, room), strict=True):
        screen.say(Text().append(f"{mark} ", style=_STYLES[mark]).append(clean(text)), indent=indent + 4)


def _both(before: Any, after: Any, room: int) -> Iterator[str]:
    """Two values, each on a line; long texts from shortly before the place where they part."""
    skip = 0
    if isinstance(before, str) and isinstance(after, str):
        common = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), None)
        common = min(len(before), len(after)) if common is None else common
        longest = max(len(before), len(after))
        skip = max(common - _BEFORE, 0) if longest > room - 2 else 0
        yield from (shortened("…" * bool(skip) + text[skip:], room) for text in (before, after))
        return
    yield from (shortened(value, room) for value in (before, after))


# -- sums --------------------------------------------------------------------------------------------------------------


def show_sums(screen: Screen, found: "StateDiff", indent: int = 0) -> None:
    """How much is different in each channel."""
    sums: dict[str, dict[str, int]] = {}
    for path, sign in entries(found):
        channel = sums.setdefault(channel_of(path), dict.fromkeys("+-~>ba", 0))
        channel[sign] += 1
        if path in found.sizes:
            channel["b"] += found.sizes[path].before
            channel["a"] += found.sizes[path].after
    screen.table(
        [
            Column("CHANNEL", flexible=True), Column("ADDED", right=True), Column("REMOVED", right=True),
            Column("CHANGED", right=True), Column("MOVED", right=True, rank=3), Column("WAS", right=True, rank=2),
            Column("IS", right=True, rank=1),
        ],
        [
            (name, *(f"{one[sign]:,}" if one[sign] else "" for sign in "+-~>"), size(one["b"]), size(one["a"]))
            for name, one in sums.items()
        ],
        indent,
    )  # fmt: skip


def channel_of(path: str) -> str:
    """The channel in which a path begins."""
    found = _CHANNEL.match(path)
    return found[0] if found else path


def summary(found: "StateDiff") -> str:
    """How much is different, in words."""
    parts = [
        f"{len(paths):,} {word}"
        for word, paths in (
            ("added", found.added), ("removed", found.removed), ("changed", found.changed), ("moved", found.moved)
        )
        if paths
    ]  # fmt: skip
    return ", ".join(parts) if parts else "nothing is different"


def one_liner(found: "StateDiff") -> str:
    """The paths of a difference on one line; several in the same place as their number."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path, sign in entries(found):
        place = re.sub(r"\[[^\]]*\]$", "[]", path)
        groups.setdefault((sign, place), []).append(path)
    return ", ".join(
        f"{sign}{paths[0]}" if len(paths) == 1 else f"{sign}{place.removesuffix('[]')} ({len(paths)})"
        for (sign, place), paths in groups.items()
    )


def document(found: "StateDiff") -> dict[str, Any]:
    """A difference for ``--json``."""
    return {
        "equal": found.equal,
        "added": {path: tagged_form(value) for path, value in found.added.items()},
        "removed": {path: tagged_form(value) for path, value in found.removed.items()},
        "changed": {
            path: {"before": tagged_form(one.before), "after": tagged_form(one.after)}
            for path, one in found.changed.items()
        },
        "moved": found.moved,
        "sizes": found.sizes,
    }
