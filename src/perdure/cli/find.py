"""``perdure search``: messages by what they say, best first."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.common import Call, command
from perdure.cli.conversations import conversation_of
from perdure.cli.progress import Activity
from perdure.cli.screen import MARKS, Screen, moment, one_line, plural

if TYPE_CHECKING:
    from perdure.sync.search import SearchHit


def add_to(parent: typer.Typer) -> None:
    """Makes this a part of the ``perdure`` command."""
    command(parent, "search")(search)


def search(
    call: Call,
    query: Annotated[list[str], typer.Argument(metavar="QUERY...", help="Words; any of them counts, in any form.")],
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Only in a user's conversations.")] = None,
    conversation: Annotated[
        str | None, typer.Option("--conversation", metavar="ID", help="Only in one conversation.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="How many, at most 1,000.")] = 10,
) -> None:
    """Find messages by what they say, best first."""
    words = " ".join(query)
    with call.store() as store, Activity(call.screen, "Searching"):
        if conversation is not None:
            conversation_of(store, conversation)
        hits = store.search_messages(words, user, conversation, limit)
    if call.screen.json:
        call.screen.document({"query": words, "hits": hits})
        return
    if not hits:
        call.screen.say(f"Nothing matches {words!r}.")
        return
    call.screen.heading(f"{plural(len(hits), 'message')}, best first")
    for hit in hits:
        call.screen.say()
        show_hit(call.screen, hit, words)


def show_hit(screen: Screen, hit: Any, query: str, indent: int = 0) -> None:
    """Where a message was found, and the piece of it that matches."""
    from rich.text import Text

    message = hit.message
    who = f"{message.role} {message.name}" if message.name else str(message.role)
    line = Text(f"{one_line(message.conversation_id)} #{message.seq}", style="bold")
    line.append(f"  {one_line(who)} · {moment(message.created_at)} · score {hit.score:.2f}", style="dim")
    screen.say(line, indent=indent)
    screen.say(screen.marked(_snippet(hit, query, max(40, 2 * (screen.width - indent - 4)))), indent=indent + 2)


def _snippet(hit: "SearchHit", query: str, width: int) -> str:
    """The hit's snippet as wide as the screen, with marks that no stored text is shown with."""
    from perdure.values import limits
    from perdure.values.snippet import snippet
    from perdure.values.text import query_terms

    text = hit.message.text.translate(dict.fromkeys(map(ord, MARKS)))
    terms = query_terms(query, limits.QUERY_TERMS)
    return snippet(text, terms, min(width, 200), before=MARKS[0], after=MARKS[1])
