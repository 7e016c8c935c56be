"""What a person sees: lines, tables and facts on stdout, notes and errors on stderr.

Three rules hold everything here together. Stored text is never trusted: control characters in it are shown, not
obeyed. A table fits the terminal by leaving out its least important columns and shortening titles; in a pipe it is
as wide as it needs to be and holds no escape codes. With ``json`` nothing but one document goes to stdout.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from rich.text import Text

WIDEST = 140
"""Columns that prose and tables use at most, however wide the terminal is."""
_NARROWEST_FLEXIBLE = 24
_GAP = "  "
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_MARKED = re.compile("\ue000(.*?)\ue001", re.DOTALL)
MARKS = ("\ue000", "\ue001")
"""Private characters around what a search matched; ``Screen.marked`` turns them into colour, or into ``QUOTES``."""
QUOTES = ("«", "»")
"""Around a match where there is no colour: other than ``**`` they are rare in what models and people write."""


class Column(NamedTuple):
    """A table's column. The highest ``rank`` is left out first where space is short; 0 always stays."""

    name: str
    right: bool = False
    flexible: bool = False
    rank: int = 0


class Screen:
    """Where a command's answer goes."""

    def __init__(self, *, json: bool) -> None:
        from rich.console import Console

        self.json = json
        self.out = Console(markup=False, emoji=False, highlight=False)
        self.err = Console(markup=False, emoji=False, highlight=False, stderr=True)
        self.is_terminal = self.out.is_terminal
        self.width = min(self.out.width, WIDEST) if self.is_terminal else WIDEST

    # -- stdout --------------------------------------------------------------------------------------------------------

    def document(self, value: Any) -> None:
        """The one JSON document of a command, in UTF-8 whatever the locale says."""
        text = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()

    def say(self, text: "str | Text" = "", style: str = "", indent: int = 0) -> None:
        """A paragraph: wrapped on a terminal, as it is in a pipe. Nothing with ``json``."""
        if self.json:
            return
        from rich.padding import Padding
        from rich.text import Text

        shown = Text(clean(text), style=style) if isinstance(text, str) else text
        if not shown.plain:
            self.out.print()
        elif self.is_terminal:
            self.out.print(Padding(shown, (0, 0, 0, indent), expand=False), width=self.width)
        else:
            for line in shown.split("\n", allow_blank=True):
                line.rstrip()
                self.out.print(Text(" " * indent if line.plain else "") + line, soft_wrap=True)

    def heading(self, text: str) -> None:
        """A line that begins something new."""
        self.say(text, style="bold")

    def facts(self, pairs: Iterable[tuple[str, str]], indent: int = 0) -> None:
        """Names and values below each other."""
        known = list(pairs)
        wide = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            self.say(f"{name:<{wide}}  {value}", indent=indent)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence["str | Text"]], indent: int = 0) -> list[str]:
        """Prints rows under their headings; returns the names of the columns that the terminal had no room for."""
        if self.json:
            return []
        from rich.text import Text

        cells = [[Text(one_line(cell)) if isinstance(cell, str) else cell for cell in row] for row in rows]
        natural = [
            max([len(column.name), *(row[place].cell_len for row in cells)]) for place, column in enumerate(columns)
        ]
        room = self.width - indent if self.is_terminal else sys.maxsize
        widths = _fitted(columns, natural, room)
        titles = [Text(column.name, style="bold") for column in columns]
        for row in (titles, *cells):
            line = Text(" " * indent)
            for place, width in widths.items():
                line += _cell(row[place], width, right=columns[place].right, last=place == max(widths))
            line.rstrip()
            self.out.print(line, soft_wrap=True)
        return [column.name for place, column in enumerate(columns) if place not in widths]

    def marked(self, text: str) -> "Text":
        """Text in which what stands between ``MARKS`` is highlighted; in ``QUOTES`` where there is no colour."""
        from rich.text import Text

        shown = Text()
        at = 0
        plain = not self.is_terminal or self.out.no_color or self.out.color_system is None
        for found in _MARKED.finditer(text):
            shown.append(one_line(text[at : found.start()], strip=False))
            word = one_line(found[1], strip=False)
            shown.append(word.join(QUOTES) if plain else word, style="" if plain else "bold yellow")
            at = found.end()
        shown.append(one_line(text[at:], strip=False))
        return shown

    # -- stderr --------------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """A remark beside the answer; nothing with ``json``."""
        if not self.json:
            self.warn(text, style="dim")

    def warn(self, text: str, style: str = "") -> None:
        """A line on stderr that stays there with ``json`` too."""
        from rich.text import Text

        # A word that is longer than a line (a cursor, a path) stays whole, so that it can be copied.
        longest = max((len(word) for word in text.split()), default=0)
        keep = not self.err.is_terminal or longest > self.err.width
        self.err.print(Text(clean(text), style=style), soft_wrap=keep)


# -- text --------------------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Text whose control characters are visible, so that stored text cannot drive the terminal."""
    return _CONTROL.sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    return "" if found[0] in "\r\ufeff" else f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def one_line(text: str, *, strip: bool = True) -> str:
    """Clean text on one line."""
    flat = re.sub(r"\s+", " ", clean(text))
    return flat.strip() if strip else flat


def moment(value: datetime | None) -> str:
    """A time to the minute, in UTC."""
    return "" if value is None else f"{value:%Y-%m-%d %H:%M}"


def money(value: Decimal, decimals: int = 0) -> str:
    """An exact amount without needless zeros, with at least that many decimals."""
    text = f"{value:,.9f}".rstrip("0").rstrip(".")
    whole, _, part = text.partition(".")
    return f"{whole}.{part.ljust(decimals, '0')}" if decimals or part else whole


def money_column(values: Sequence[Decimal]) -> list[str]:
    """Amounts with the same number of decimals, so that they line up."""
    decimals = max((len(money(value).partition(".")[2]) for value in values), default=0)
    return [money(value, decimals) for value in values]


def plural(number: int, noun: str) -> str:
    """A count with its noun: ``1 message``, ``1,200 messages``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number: int) -> str:
    """A size in the largest unit that leaves at least one."""
    for unit, factor in (("GB", 1024**3), ("MB", 1024**2), ("KB", 1024)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} bytes"


def _fitted(columns: Sequence[Column], natural: list[int], room: int) -> dict[int, int]:
    """Widths by column, of the columns that fit: the least important ones go, then the flexible ones shrink."""
    least = [
        min(wide, _NARROWEST_FLEXIBLE) if column.flexible else wide
        for column, wide in zip(columns, natural, strict=True)
    ]
    kept = list(range(len(columns)))
    while sum(least[place] for place in kept) + len(_GAP) * (len(kept) - 1) > room:
        worst = max(kept, key=lambda place: (columns[place].rank, place))
        if columns[worst].rank == 0:
            break
        kept.remove(worst)
    spare = room - sum(least[place] for place in kept) - len(_GAP) * (len(kept) - 1)
    widths = {place: least[place] for place in kept}
    for place in kept:
        grown = min(max(spare, 0), natural[place] - least[place])
        widths[place] += grown
        spare -= grown
    return widths


def _cell(cell: "Text", width: int, *, right: bool, last: bool) -> "Text":
    from rich.text import Text

    shown = cell.copy()
    shown.truncate(width, overflow="ellipsis")
    padding = " " * (width - shown.cell_len)
    filled = Text(padding) + shown if right else shown + Text(padding)
    return filled if last else filled + Text(_GAP)
