"""``perdure checkpoints list``: the threads, and the checkpoints of one as a tree."""

import base64
import binascii
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.checkpoint_options import KeyOption, NamespaceOption
from perdure.cli.common import Call, command
from perdure.cli.progress import Activity
from perdure.cli.screen import Column, Screen, moment, one_line, plural
from perdure.values import limits
from perdure.values.errors import Invalid, NotFound

if TYPE_CHECKING:
    from perdure.cli.checkpoint_places import Desk, Place
    from perdure.rooms.checkpoints.diff import StateDiff
    from perdure.rooms.checkpoints.values import Checkpoint, CheckpointThread

LIMIT = 20
"""Threads or checkpoints that are listed unless told otherwise."""
CursorOption = Annotated[
    str | None, typer.Option("--cursor", metavar="TEXT", help="Continues a list: what the page before ended with.")
]


def add_to(parent: typer.Typer) -> None:
    """Makes this a part of ``perdure checkpoints``."""
    command(parent, "list")(list_)


def list_(
    call: Call,
    thread: Annotated[str | None, typer.Argument(metavar="[THREAD]", help="The thread; without it, all by id.")] = None,
    branch: Annotated[str | None, typer.Option("--branch", metavar="NAME", help="Only those of a branch.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that failed.")] = False,
    changes: Annotated[bool, typer.Option("--changes", help="What each changed, by path.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="How many, at most 1,000.")] = LIMIT,
    cursor: CursorOption = None,
    namespace: NamespaceOption = None,
    key_file: KeyOption = None,
) -> None:
    """List threads, or the checkpoints of one as a tree.

    The newest are on top; a branch stands beside the checkpoint that it began at. Short ids are the ends of ids.
    """
    limits.count(limit, "limit", 0, limits.PAGE)
    if thread is None:
        if branch is not None or failed or changes or namespace is not None:
            raise Invalid("a thread is missing", field="thread", hint="perdure checkpoints list THREAD")
        list_threads(call, limit, cursor)
        return
    from perdure.cli.checkpoint_places import desk_of

    with desk_of(call, key_file) as desk, Activity(call.screen, "Reading"):
        place = desk.place_of(thread, namespace)
        branches = desk.at(place.space).branches(thread)
        if branch is not None and all(one.name != branch for one in branches):
            names = ", ".join(one_line(one.name) for one in branches)
            raise NotFound(f"thread {thread[:80]!r} has no branch {branch[:80]!r}", hint=f"it has: {names}")
        shown, following = _page(desk, place, branch, failed=failed, limit=limit, cursor=cursor)
        found = _changes(desk, place, shown) if changes else None
        others = [one for one in desk.threads_named(thread) if one.space != place.space]
    if call.screen.json:
        _tell_list(call.screen, place, branches, shown, following, found)
        return
    _show_list(call.screen, place, branches, shown, found, flat=failed or branch is not None)
    if limit == 0:
        call.screen.say("None shown: --limit is 0.")
    elif not shown:
        call.screen.say(
            "No more checkpoints." if cursor else "No checkpoint fits." if failed or branch else "It has none."
        )
    _continue(call.screen, following)
    _tell_others(call.screen, others)


def _page(
    desk: "Desk", place: "Place", branch: str | None, *, failed: bool, limit: int, cursor: str | None
) -> "tuple[list[Checkpoint], str | None]":
    """Checkpoints, newest first, and where they go on."""
    if not failed:
        page = desk.at(place.space).get_history(place.thread_id, True, True, branch, limit, cursor)
        return list(page), page.next_cursor
    found = [one for page in desk.pages(place, branch, cursor) for one in page if one.status == "failed"]
    return found[:limit], str(found[limit - 1].position) if limit and len(found) > limit else None


def _changes(desk: "Desk", place: "Place", shown: "list[Checkpoint]") -> "dict[str, StateDiff]":
    pairs: dict[int, int | None] = {}
    for one in shown:
        before = desk.parent(place, one)
        pairs[one.position] = None if before is None else before.position
    found = desk.changes(place, pairs)
    return {one.id: found[one.position] for one in shown if one.position in found}


def _tell_list(
    screen: Screen,
    place: "Place",
    branches: Any,
    shown: "list[Checkpoint]",
    following: str | None,
    found: "dict[str, StateDiff] | None",
) -> None:
    from perdure.cli.state_json import document_of

    rows = [document_of(one) for one in shown]
    for row in rows if found is not None else ():
        changed = (found or {}).get(row["id"])
        row["changes"] = None if changed is None else {
            name: sorted(getattr(changed, name)) for name in ("added", "removed", "changed", "moved")
        }  # fmt: skip
    screen.document({
        "thread_id": place.thread_id, "namespace": place.namespace, "branches": [document_of(one) for one in branches],
        "checkpoints": rows, "next_cursor": following,
    })  # fmt: skip


def _show_list(
    screen: Screen,
    place: "Place",
    branches: Any,
    shown: "list[Checkpoint]",
    found: "dict[str, StateDiff] | None",
    *,
    flat: bool,
) -> None:
    from perdure.cli.checkpoint_places import NATIVE, family_of
    from perdure.cli.checkpoint_tree import show_tree, tree_of
    from perdure.cli.state_diff import one_liner

    ours = place.space == NATIVE
    whose = plural(len(branches), "branch").replace("branchs", "branches") if ours else family_of(place.space)
    screen.heading(f"{one_line(place.thread_id)}  ({one_line(whose)})")
    if shown:
        lines = None if found is None else {id: one_liner(one) or "nothing" for id, one in found.items()}
        hidden = [name for name in show_tree(screen, tree_of(shown, branches, ours=ours), lines, flat=flat) if name]
        if hidden:
            screen.note(f"No room for {', '.join(hidden).lower()}: a wider window or --json shows all.")


def _continue(screen: Screen, following: str | None) -> None:
    if following is not None:
        screen.note("There are more: a higher --limit shows them, and this goes on after the last one:")
        screen.note(f"--cursor {following}")


def _tell_others(screen: Screen, others: "list[CheckpointThread]") -> None:
    from perdure.cli.checkpoint_places import LANGGRAPH, family_of

    for one in others[:3]:
        which = one.space.removeprefix(LANGGRAPH)
        option = f"--namespace {which!r} shows them" if one.space.startswith(LANGGRAPH) else "shown by that"
        screen.note(f"The thread has checkpoints of {family_of(one.space) or 'Checkpointer'}, too: {option}.")
    if len(others) > 3:
        screen.note(f"... and in {plural(len(others) - 3, 'more space')}.")


# -- threads -----------------------------------------------------------------------------------------------------------


def list_threads(call: Call, limit: int, cursor: str | None) -> None:
    """The threads that have checkpoints, whoever's they are."""
    from perdure.sync.checkpoints import Checkpointer

    with call.store() as store:
        page = Checkpointer(store).list_threads(limit, _opened(cursor))
    following = None if page.next_cursor is None else _closed(page.next_cursor)
    if call.screen.json:
        call.screen.document({"threads": page, "next_cursor": following})
        return
    if not page:
        call.screen.say(
            "None shown: --limit is 0." if limit == 0 else "No more threads." if cursor else "No checkpoints yet."
        )
        return
    _thread_table(call.screen, page)
    _continue(call.screen, following)


def _thread_table(screen: Screen, page: "list[CheckpointThread]") -> None:
    from datetime import UTC, datetime

    from perdure.cli.checkpoint_places import family_of
    from perdure.cli.checkpoint_tree import age

    now = datetime.now(UTC)
    columns = [
        Column("THREAD"), Column("SAVED", right=True), Column("AGE", right=True, rank=1),
        Column("LATEST (UTC)", rank=2),
    ]  # fmt: skip
    rows = [[one.id, f"{one.saved:,}", age(one.updated_at, now), moment(one.updated_at)] for one in page]
    if any(one.space for one in page):
        columns.insert(1, Column("OF", flexible=True))
        for row, one in zip(rows, page, strict=True):
            row.insert(1, family_of(one.space))
    screen.table(columns, rows)


def _closed(cursor: str) -> str:
    """A cursor as a word of a command line, which takes no NUL."""
    return base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")


def _opened(word: str | None) -> str | None:
    if word is None:
        return None
    try:
        return base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise Invalid("this is no cursor of a list of threads", field="cursor") from None
