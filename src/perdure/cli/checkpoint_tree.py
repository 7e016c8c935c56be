"""A thread's checkpoints as a tree that stands on its head: the newest first, branches beside the one they left."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from perdure.cli.screen import Column, Screen, clean, one_line, size

if TYPE_CHECKING:
    from rich.text import Text

    from perdure.rooms.checkpoints.values import Checkpoint, CheckpointBranch

MAIN = "main"
_NARROW = 8
UNSEEN = ""
"""Stands for a checkpoint that is on no page that is shown: a line goes on to it."""
_LANES = 12
"""Branches that a tree draws beside each other."""
_COLOURS = ("cyan", "magenta", "blue", "green", "yellow")


class Pen(NamedTuple):
    """What a tree is drawn with."""

    dot: str
    failed: str
    line: str
    corner: str
    across: str
    cross: str
    tee: str


FINE = Pen("●", "✗", "│", "╯", "─", "┼", "┴")
PLAIN = Pen("*", "x", "|", "'", "-", "|", "'")
"""For pipes, and for terminals that know no more."""


class Tree(NamedTuple):
    """What is drawn: checkpoints (newest first), what each was made from, and the names of those that have any."""

    rows: "Sequence[Checkpoint]"
    parents: Mapping[str, str | None]
    names: Mapping[str, Sequence[str]]
    first: str | None = None
    """The one that the leftmost line begins at."""


def tree_of(rows: "Sequence[Checkpoint]", branches: "Sequence[CheckpointBranch]", *, ours: bool) -> Tree:
    """The tree of some checkpoints, the newest first. ``ours``: branches say what they come from, not each parent."""
    names: dict[str, list[str]] = {}
    for branch in branches:
        if branch.head_id is not None and ours:
            names.setdefault(branch.head_id, []).append(branch.name)
    forks = {branch.name: branch.forked_from_id for branch in branches}
    parents: dict[str, str | None] = {}
    below: dict[str, str] = {}
    for one in reversed(rows):
        # One that was pruned is passed over, so the one before in the branch counts, not the parent by name.
        before = below.get(one.branch)
        earlier = one.parent_id or (UNSEEN if one.position else None)
        parents[one.id] = (before or forks.get(one.branch) or earlier) if ours else one.parent_id
        below[one.branch] = one.id
    first = next((branch.head_id for branch in branches if branch.name == MAIN), None)
    return Tree(rows, parents, names, first)


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """The ends of ids, as long as they need to be to tell them apart: ids begin with the time, which many share."""
    length = _NARROW
    longest = max(map(len, ids), default=0)
    while length < longest and len({one[-length:] for one in ids}) < len(set(ids)):
        length += 2
    return {one: one if len(one) <= length + 2 else one[-length:] for one in ids}


def age(then: datetime, now: datetime) -> str:
    """How long ago, in the largest unit that leaves at least one."""
    seconds = int((now - then).total_seconds())
    for unit, length in (("y", 31_557_600), ("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"


def pen_of(screen: Screen) -> Pen:
    """Lines where a terminal can show them."""
    encoding = screen.out.encoding.lower()
    return FINE if screen.is_terminal and encoding.startswith("utf") else PLAIN


# -- lines -------------------------------------------------------------------------------------------------------------


def lanes(tree: Tree, pen: Pen) -> "list[Text]":
    """The drawing in front of each row."""
    known = {one.id for one in tree.rows}
    waiting: list[str | None] = [tree.first] if tree.first in known else []
    begun = [False] * len(waiting)
    drawn: list[Text] = []
    for one in tree.rows:
        here = [lane for lane, wanted in enumerate(waiting) if wanted == one.id]
        if not here:
            here = [_free(waiting, begun)]
            waiting[here[0]] = one.id
        begun[here[0]] = True
        mark = pen.failed if one.status == "failed" else pen.dot
        drawn.append(_row(waiting, begun, here, mark, pen, failed=one.status == "failed"))
        for lane in here[1:]:
            waiting[lane], begun[lane] = None, False
        waiting[here[0]] = tree.parents.get(one.id)
        if waiting[here[0]] is None:
            begun[here[0]] = False
        while waiting and waiting[-1] is None:
            waiting.pop()
            begun.pop()
    return drawn


def _free(waiting: list[str | None], begun: list[bool]) -> int:
    for lane, wanted in enumerate(waiting):
        if wanted is None:
            return lane
    waiting.append(None)
    begun.append(False)
    return len(waiting) - 1


def _row(waiting: list[str | None], begun: list[bool], here: list[int], mark: str, pen: Pen, *, failed: bool) -> "Text":
    from rich.text import Text

    row = Text()
    for lane in range(min(len(waiting), _LANES)):
        inside = here[0] < lane <= here[-1]
        if lane:
            row.append(pen.across if inside else " ", style=_COLOURS[here[-1] % len(_COLOURS)])
        running = waiting[lane] is not None and begun[lane]
        style = _COLOURS[lane % len(_COLOURS)]
        if lane == here[0]:
            row.append(mark, style="bold red" if failed else f"bold {style}")
        elif lane in here:
            row.append(pen.corner if lane == here[-1] else pen.tee, style=style)
        elif running:
            row.append(pen.cross if inside else pen.line, style=style)
        else:
            row.append(pen.across if inside else " ", style=style)
    if len(waiting) > _LANES:
        row.append("…", style="dim")
    return row


# -- the table ---------------------------------------------------------------------------------------------------------


def show_tree(
    screen: Screen,
    tree: Tree,
    changes: Mapping[str, str] | None = None,
    *,
    flat: bool = False,
    indent: int = 0,
    now: datetime | None = None,
) -> list[str]:
    """Prints a tree as a table; ``changes`` adds what each changed, ``flat`` draws no lines. Columns without room."""
    from rich.text import Text

    pen, now = pen_of(screen), now or datetime.now(UTC)
    drawn = [_alone(one, pen) for one in tree.rows] if flat else lanes(tree, pen)
    shorts = short_ids([one.id for one in tree.rows])
    columns = [
        Column(""), Column("ID"), Column("AGE", right=True), Column("STATUS", rank=3), Column("NODE", rank=4),
        Column("SIZE", right=True, rank=5),
    ]  # fmt: skip
    rows: list[list[str | Text]] = []
    for one, graph in zip(tree.rows, drawn, strict=True):
        status = Text(one.status, style={"failed": "red", "completed": "green"}.get(one.status, "default"))
        rows.append([graph, clean(shorts[one.id]), age(one.created_at, now), status, _node(one), size(one.size)])
    names = [_names(tree.names.get(one.id, ()), one.tags) for one in tree.rows]
    extra: list[tuple[Column, Sequence[str | Text]]] = []
    if any(name.plain for name in names):
        extra.append((Column("NAMES", flexible=changes is None, rank=1), names))
    if changes is not None:
        extra.append((Column("CHANGES", flexible=True, rank=2), [changes.get(one.id, "") for one in tree.rows]))
    return screen.table(
        [*columns, *(column for column, _ in extra)],
        [[*row, *(cells[place] for _, cells in extra)] for place, row in enumerate(rows)],
        indent,
    )


def _alone(one: "Checkpoint", pen: Pen) -> "Text":
    from rich.text import Text

    return Text(pen.failed, style="bold red") if one.status == "failed" else Text(pen.dot, style="cyan")


def _node(one: "Checkpoint") -> str:
    """The step that made it; of LangGraph where it came from and its number."""
    if one.node is not None:
        return one.node
    source, step = one.metadata.get("source"), one.metadata.get("step")
    return f"{source} {step}" if isinstance(source, str) and isinstance(step, int) else ""


def _names(branches: Sequence[str], tags: Sequence[str]) -> "Text":
    """The branches whose newest it is, and its tags."""
    from rich.text import Text

    shown = Text()
    for name, style in (*((name, "bold green") for name in branches), *((f"#{tag}", "yellow") for tag in tags)):
        shown.append(" " if shown.plain else "").append(one_line(name), style=style)
    return shown
