"""``perdure delete`` and ``perdure erase``: what is to be gone, after a question."""

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from perdure.cli.common import Call, command
from perdure.cli.screen import Screen, moment, one_line, plural
from perdure.values.errors import Invalid, Refused

if TYPE_CHECKING:
    from perdure.sync.store import Store

Kind = Literal["conversation", "message"]
KindOption = Annotated[Kind, typer.Argument(metavar="conversation|message", help="What it is.", show_default=False)]
IdOption = Annotated[str, typer.Argument(metavar="ID", help="Its id.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def add_to(parent: typer.Typer) -> None:
    """Makes these a part of the ``perdure`` command."""
    command(parent, "delete")(delete)
    command(parent, "erase")(erase)


def delete(call: Call, kind: KindOption, id: IdOption, yes: Yes = False) -> None:
    """Take a conversation or a message out of every answer.

    A deleted message stays in its history until its conversation goes; erase leaves nothing. A terminal is asked first.
    """
    with call.store() as store:
        _agreed(call.screen, store, kind, id, "delete", yes=yes)
        if kind == "conversation":
            store.delete_conversation(id)
        else:
            store.delete_message(id)
    _done(call.screen, kind, id, "deleted")


def erase(call: Call, kind: KindOption, id: IdOption, yes: Yes = False) -> None:
    """Remove a conversation or a message with every trace.

    Versions, index, trail and forks forget it. A deleted message can still be erased. A terminal is asked first.
    """
    with call.store() as store:
        _agreed(call.screen, store, kind, id, "erase", yes=yes)
        if kind == "conversation":
            store.erase_conversation(id)
        else:
            store.erase_message(id)
    _done(call.screen, kind, id, "erased")


def _agreed(screen: Screen, store: "Store", kind: Kind, id: str, verb: str, *, yes: bool) -> None:
    """Returns when it may be done; ``Refused`` when the person says no, ``Invalid`` when there is none to ask."""
    if yes:
        return
    if screen.json or not (sys.stdin.isatty() and screen.err.is_terminal):
        raise Invalid(f"nobody is here to be asked whether to {verb} it", field="yes", hint="--yes does it unasked")
    screen.warn(f"{_described(store, kind, id)}\n{verb.capitalize()} it? This cannot be undone. [y/N]")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Refused("nothing was changed")


def _described(store: "Store", kind: Kind, id: str) -> str:
    """What the id stands for. An unknown one is left to the verb: a deleted message is not shown, yet can be erased."""
    if kind == "conversation":
        talk = store.get_conversation(id)
        if talk is not None:
            title = f" {one_line(talk.metadata.title)!r}" if talk.metadata.title else ""
            return f"Conversation {one_line(id)}{title} of user {one_line(talk.user_id)}: {plural(talk.message_count, 'message')}"
    else:
        said = store.get_message(id)
        if said is not None:
            begins = one_line(said.text[:200])[:60]
            return f"Message {one_line(id)} of {moment(said.created_at)} UTC, {said.role}: {begins}"
    return f"{kind.capitalize()} {one_line(id)}"


def _done(screen: Screen, kind: Kind, id: str, outcome: str) -> None:
    if screen.json:
        screen.document({outcome: kind, "id": id})
    else:
        screen.say(f"{kind.capitalize()} {one_line(id)} is {outcome}.")
