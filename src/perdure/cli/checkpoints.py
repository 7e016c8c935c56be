"""``perdure checkpoints``: an agent's saved states, as a tree; what is in one, what is different, and ways back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli import checkpoint_care, checkpoint_list
from perdure.cli.checkpoint_options import IdArgument, KeyOption, NamespaceOption, ThreadOption
from perdure.cli.common import Call, command
from perdure.cli.screen import Screen, moment, one_line, size
from perdure.values.errors import NotFound

if TYPE_CHECKING:
    from perdure.cli.checkpoint_places import Spot
    from perdure.rooms.checkpoints.values import Checkpoint

app = typer.Typer(rich_markup_mode=None)

TagsArgument = Annotated[list[str], typer.Argument(metavar="TAG...", show_default=False, help="One or more.")]


def add_to(parent: typer.Typer) -> None:
    """Makes these a part of the ``perdure`` command."""
    parent.add_typer(app, name="checkpoints")
    checkpoint_list.add_to(app)
    checkpoint_care.add_to(app)


@command(app, group=True)
def checkpoints(call: Call) -> None:
    """Look at an agent's saved states, and go back.

    Alone it lists the threads that have any; `perdure checkpoints list THREAD` shows one as a tree.
    """
    checkpoint_list.list_threads(call, checkpoint_list.LIMIT, None)


# -- states ------------------------------------------------------------------------------------------------------------


@command(app, "show")
def show(
    call: Call,
    id: IdArgument,
    path: Annotated[
        str | None, typer.Option("--path", metavar="PATH", help="Only what is there: plan.steps[2], messages[id=m3].")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Cut nothing.")] = False,
    thread: ThreadOption = None,
    namespace: NamespaceOption = None,
    key_file: KeyOption = None,
) -> None:
    """Print the state of a checkpoint.

    Long values are cut, with --full they are not. With --json values that JSON lacks are tagged ($datetime, $set ...).
    """
    from perdure.cli import state_view
    from perdure.cli.checkpoint_places import desk_of
    from perdure.cli.state_json import document_of, tagged_form

    with desk_of(call, key_file) as desk:
        spot = desk.find(id, thread, namespace)
        state = desk.state(spot)
        head = desk.head(spot) if call.screen.json else None
    value = state if path is None else state_view.at_path(state, path)
    if call.screen.json:
        told: dict[str, Any] = {"checkpoint": document_of(spot.checkpoint)}
        told |= {"path": path, "value": tagged_form(value)} if path is not None else {"state": tagged_form(value)}
        call.screen.document(told if head is None else told | {"langgraph": tagged_form(head)})
        return
    if path is None:
        _header(call.screen, spot)
        call.screen.say()
    state_view.show(call.screen, value, full=full)


def _header(screen: Screen, spot: "Spot") -> None:
    """What there is to know about a checkpoint before its state."""
    from perdure.cli.checkpoint_places import family_of
    from perdure.cli.state_view import shortened

    one = spot.checkpoint
    screen.heading(f"Checkpoint {one_line(one.id)}")
    of = family_of(spot.place.space)
    pairs = [
        ("thread", one_line(one.thread_id) + (f" ({one_line(of)})" if of else f", branch {one_line(one.branch)}")),
        ("saved", f"{moment(one.created_at)} UTC, {one.status}, as number {one.position:,}, {size(one.size)} new"),
    ]
    for name, value in (
        ("made from", one.parent_id),
        ("node", one.node),
        ("run", one.run_id),
        ("tags", ", ".join(one.tags)),
    ):
        if value:
            pairs.append((name, one_line(value)))
    if one.metadata:
        pairs.append(("metadata", shortened(dict(one.metadata), max(screen.width - 12, 40))))
    screen.facts(pairs)


@command(app, "diff")
def diff(
    call: Call,
    a: Annotated[str, typer.Argument(metavar="A", show_default=False, help="An id, THREAD@BRANCH, THREAD~3 ...")],
    b: Annotated[
        str | None, typer.Argument(metavar="[B]", show_default=False, help="Another; without it, A and the one before.")
    ] = None,
    stat: Annotated[bool, typer.Option("--stat", help="Sums for each channel instead of paths.")] = False,
    thread: ThreadOption = None,
    namespace: NamespaceOption = None,
    key_file: KeyOption = None,
) -> None:
    """Show what is different in B against A, by path.

    + is added, - removed, ~ changed, > moved. Items of lists are known by their id where they have one.
    """
    from perdure.cli import state_diff
    from perdure.cli.checkpoint_places import Spot, desk_of
    from perdure.cli.state_json import document_of

    with desk_of(call, key_file) as desk:
        after = desk.find(a if b is None else b, thread, namespace)
        if b is not None:
            before = desk.find(a, thread, namespace)
        else:
            parent = desk.parent(after.place, after.checkpoint)
            if parent is None:
                raise NotFound(f"{after.checkpoint.id!r} has none before it", hint="perdure checkpoints diff A B")
            before = Spot(after.place, parent)
        found = desk.difference(before, after)
    if call.screen.json:
        pair = [document_of(one.checkpoint) for one in (before, after)]
        call.screen.document({"a": pair[0], "b": pair[1], **state_diff.document(found)})
        return
    for sign, style, one in (("---", "red", before), ("+++", "green", after)):
        call.screen.say(f"{sign} {_named(one.checkpoint, call.screen.width - 4)}", style=style)
    if not found.equal and stat:
        state_diff.show_sums(call.screen, found)
    elif not found.equal:
        state_diff.show(call.screen, found)
    call.screen.say(f"{state_diff.summary(found).capitalize()}.", style="dim")


def _named(one: "Checkpoint", room: int) -> str:
    """A checkpoint's id, its branch, tags and time, as far as there is room."""
    parts = [one.id, f"{one.thread_id}@{one.branch}", *(f"#{tag}" for tag in one.tags), f"{moment(one.created_at)} UTC"]
    shown = one_line(parts[0])
    for part in parts[1:]:
        if len(shown) + 2 + len(one_line(part)) <= room:
            shown += f"  {one_line(part)}"
    return shown


@command(app, "restore")
def restore(
    call: Call,
    id: IdArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the state there as JSON.")
    ] = None,
    as_latest: Annotated[
        bool, typer.Option("--as-latest", help="Save it again, as the newest checkpoint of its branch.")
    ] = False,
    thread: ThreadOption = None,
    namespace: NamespaceOption = None,
    key_file: KeyOption = None,
) -> None:
    """Give the state of a checkpoint back.

    As JSON on the standard output or in a file; with --as-latest the agent goes on from there, and nothing is lost.
    """
    from perdure.cli.checkpoint_places import desk_of

    with desk_of(call, key_file) as desk:
        spot = desk.find(id, thread, namespace)
        if as_latest:
            spot.place.refuse_foreign("save in it")
        data = None if as_latest and output is None else checkpoint_care.state_document(desk, spot)
        saved = desk.save_again(spot) if as_latest else None
    if output is not None and data is not None:
        checkpoint_care.write_whole(output, data)
    checkpoint_care.tell_restored(call.screen, spot.checkpoint, saved, output, data)


# -- branches and tags -------------------------------------------------------------------------------------------------


@command(app, "branch")
def branch(
    call: Call,
    id: IdArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The new branch's name.")],
    thread: ThreadOption = None,
    key_file: KeyOption = None,
) -> None:
    """Begin a branch at a checkpoint.

    Nothing is copied. An agent goes on there with save(..., branch=NAME).
    """
    from perdure.cli.checkpoint_places import desk_of

    with desk_of(call, key_file) as desk:
        spot = desk.find(id, thread)
        spot.place.refuse_foreign("branch it")
        made = desk.create_branch(spot.checkpoint.id, name)
    if call.screen.json:
        call.screen.document({
            "branch_id": made, "name": name, "thread_id": spot.place.thread_id, "from": spot.checkpoint.id
        })  # fmt: skip
        return
    call.screen.say(
        f"Branch {one_line(name)!r} of thread {one_line(spot.place.thread_id)!r} begins at {one_line(spot.checkpoint.id)}."
    )


@command(app, "tag")
def tag(
    call: Call, id: IdArgument, tags: TagsArgument, thread: ThreadOption = None, key_file: KeyOption = None
) -> None:
    """Put tags on a checkpoint.

    A tagged one is never pruned.
    """
    _tagged(call, id, tags, thread, key_file, on=True)


@command(app, "untag")
def untag(
    call: Call, id: IdArgument, tags: TagsArgument, thread: ThreadOption = None, key_file: KeyOption = None
) -> None:
    """Take tags off a checkpoint.

    Those that it does not have are no matter.
    """
    _tagged(call, id, tags, thread, key_file, on=False)


def _tagged(call: Call, id: str, tags: list[str], thread: str | None, key_file: Path | None, *, on: bool) -> None:
    from perdure.cli.checkpoint_places import desk_of

    with desk_of(call, key_file) as desk:
        spot = desk.find(id, thread)
        spot.place.refuse_foreign("tag in it")
        change = desk.tag if on else desk.untag
        change(spot.checkpoint.id, *tags)
        after = desk.get(spot.checkpoint.id)
    now = list(after.tags) if after is not None else []
    if call.screen.json:
        call.screen.document({"id": spot.checkpoint.id, "tags": now})
        return
    call.screen.say(
        f"{one_line(spot.checkpoint.id)} has {'the tags ' + ', '.join(map(one_line, now)) if now else 'no tags'}."
    )
