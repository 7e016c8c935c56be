"""``perdure conversations``: the list, and one conversation as a timeline."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.common import Call, command
from perdure.cli.screen import Column, Screen, moment, money, money_column, one_line, plural
from perdure.values.errors import NotFound

if TYPE_CHECKING:
    from perdure.rooms.conversations.content import Part
    from perdure.rooms.conversations.values import Conversation, Message
    from perdure.sync.store import Store

PAGE = 200
"""Messages that a timeline reads at a time."""
SHORT_LINES = 12
"""Lines of one message that a timeline shows unless all are asked for."""
CALL_CHARS = 300
OPENING_CHARS = 60
"""Characters of the first message that stand in for a title."""
_OPENING_TEXT = 1_000
_WIDE = 100
"""Columns from which on a message's line tells input from output tokens."""

app = typer.Typer(rich_markup_mode=None)


def add_to(parent: typer.Typer) -> None:
    """Makes these a part of the ``perdure`` command."""
    parent.add_typer(app, name="conversations")


@command(app, group=True)
def conversations(
    call: Call,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Only those of a user.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="ID", help="Only those of an agent.")] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="Only those with the tag; again for more, all must be there."),
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="Only those whose title contains it, in any case.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="How many, at most 1,000.")] = 20,
    order: Annotated[
        str, typer.Option("--order", metavar="NAME", help="last_message_at, created_at, message_count or cost.")
    ] = "last_message_at",
    ascending: Annotated[bool, typer.Option("--ascending", help="The lowest or oldest first.")] = False,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="TEXT", help="Continues a list: what the page before ended with.")
    ] = None,
) -> None:
    """List conversations, or show one.

    The latest come first; `perdure conversations show ID` prints one.
    """
    filters = {"tags": tag or None, "title_contains": title}
    with call.store() as store:
        page = store.query_conversations(
            user, agent, {name: value for name, value in filters.items() if value is not None},
            order, not ascending, limit, cursor,
        )  # fmt: skip
        titles = {} if call.screen.json else openings(store, page)
    if call.screen.json:
        call.screen.document({"conversations": page, "next_cursor": page.next_cursor})
        return
    if not page:
        fits = "No conversation fits." if any((user, agent, tag, title)) else "No conversations yet."
        call.screen.say("None shown: --limit is 0." if limit == 0 else "No more conversations." if cursor else fits)
        return
    hidden = list_table(call.screen, page, titles)
    if hidden:
        call.screen.note(f"No room for {', '.join(hidden).lower()}: a wider window or --json shows all.")
    if page.next_cursor is not None:
        call.screen.note("There are more: a higher --limit shows them, and this goes on after the last one:")
        call.screen.note(f"--cursor {page.next_cursor}")


def openings(store: "Store", found: "list[Conversation]") -> dict[str, str]:
    """How the user began, in quotes, of the conversations that have no title."""
    begun: dict[str, str] = {}
    for one in found:
        if not one.metadata.title and one.message_count:
            for message in store.get_messages(one.id, 1, roles=("user",)):
                words = one_line(message.text[:_OPENING_TEXT])
                if len(words) > OPENING_CHARS:
                    kept, space, _ = words[: OPENING_CHARS + 1].rpartition(" ")
                    words = f"{kept if space else words[:OPENING_CHARS]}…"
                begun[one.id] = f'"{words}"' if words else ""
    return begun


def list_table(screen: Screen, found: "list[Conversation]", titles: dict[str, str], indent: int = 0) -> list[str]:
    """Conversations as a table, by ``titles`` where they have none; returns the names of columns without room."""
    costs = money_column([one.token_usage.cost for one in found])
    return screen.table(
        [
            Column("ID"), Column("TITLE", flexible=True, rank=2), Column("USER", rank=3), Column("AGENT", rank=6),
            Column("MESSAGES", right=True, rank=1), Column("TOKENS", right=True, rank=5),
            Column("COST", right=True, rank=7), Column("LATEST (UTC)", rank=4),
        ],
        [
            (
                one.id, one.metadata.title or titles.get(one.id, ""), one.user_id, one.agent_id, f"{one.message_count:,}",
                f"{one.token_usage.total_tokens:,}", cost, moment(one.last_message_at or one.created_at),
            )
            for one, cost in zip(found, costs, strict=True)
        ],
        indent,
    )  # fmt: skip


@command(app, "show")
def show(
    call: Call,
    conversation: Annotated[str, typer.Argument(metavar="ID", help="The conversation's id.")],
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", help="Only the newest N messages, at most 1,000.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Long messages to their last line.")] = False,
) -> None:
    """Print a conversation as a timeline.

    Who said what, tool calls and their results, tokens and cost. With --json all messages come in one document.
    """
    with call.store() as store:
        found = conversation_of(store, conversation, include_messages=call.screen.json and last is None)
        if call.screen.json:
            messages = found.messages if last is None else store.get_messages(conversation, last=last)
            call.screen.document({"conversation": found, "messages": messages})
            return
        header(call.screen, found)
        timeline(call.screen, store, conversation, last, full=full)


def conversation_of(store: "Store", id: str, *, include_messages: bool = False) -> "Conversation":
    """The conversation; ``NotFound`` when there is none."""
    found = store.get_conversation(id, include_messages)
    if found is None:
        raise NotFound(f"there is no conversation {id[:80]!r}", hint="perdure conversations lists them")
    return found


def header(screen: Screen, found: "Conversation") -> None:
    """What there is to know about a conversation before its messages."""
    metadata, usage = found.metadata, found.token_usage
    screen.heading(one_line(metadata.title or "Untitled"))
    pairs = [
        ("id", found.id),
        ("user", found.user_id),
        ("agent", found.agent_id),
        ("began", f"{moment(found.created_at)} UTC"),
        (
            "holds",
            f"{plural(found.message_count, 'message')}, {plural(usage.total_tokens, 'token')}, cost {money(usage.cost)}",
        ),
    ]
    for name, labels in (("tags", metadata.tags), ("people", metadata.participants)):
        if labels:
            pairs.append((name, ", ".join(labels)))
    screen.facts([(name, one_line(value)) for name, value in pairs])


def timeline(screen: Screen, store: "Store", conversation: str, last: int | None, *, full: bool) -> None:
    """Prints messages page by page, so that a long conversation starts at once and needs little memory."""
    callers: dict[str, str] = {}
    day = None
    page = store.get_messages(conversation, PAGE) if last is None else store.get_messages(conversation, last=last)
    while page:
        for message in page:
            if message.created_at.date() != day:
                day = message.created_at.date()
                screen.say()
                screen.say(f"{day:%A, %Y-%m-%d}", style="dim")
            _message(screen, message, callers, full=full)
        if last is not None or page.next_cursor is None:
            return
        page = store.get_messages(conversation, PAGE, after=int(page.next_cursor))


def _message(screen: Screen, message: "Message", callers: dict[str, str], *, full: bool) -> None:
    from rich.text import Text

    role = str(message.role)
    line = Text(f"{message.seq:>4}  ", style="dim")
    line.append(role, style=_STYLES.get(role, "bold"))
    facts = [one_line(message.name)] if message.name else []
    facts.append(f"{message.created_at:%H:%M:%S}")
    if message.token_usage is not None:
        usage = message.token_usage
        facts += [one_line(usage.model)] if usage.model else []
        split = f" ({usage.input_tokens:,} in, {usage.output_tokens:,} out)" if screen.width >= _WIDE else ""
        facts.append(plural(usage.total_tokens, "token") + split)
        facts += [f"cost {money(usage.cost)}"] if usage.cost else []
    if message.version > 1:
        facts.append(f"edited, version {message.version}")
    line.append("  " + " · ".join(facts), style="dim")
    screen.say()
    screen.say(line)
    content = message.content
    for text in [content] if isinstance(content, str) else [_part(part, callers) for part in content]:
        screen.say(text if full else _shortened(text), indent=6)


_STYLES = {"user": "bold cyan", "assistant": "bold green", "tool": "bold magenta"}


def _shortened(text: str) -> str:
    lines = text.split("\n")
    if len(lines) <= SHORT_LINES + 1:
        return text
    return "\n".join([*lines[:SHORT_LINES], f"… {len(lines) - SHORT_LINES:,} more lines (--full)"])


def _part(part: "Part", callers: dict[str, str]) -> str:
    """One part of a message in words; calls leave their tool's name for the results that follow."""
    from perdure.rooms.conversations import content

    if isinstance(part, content.TextPart):
        return part.text
    if isinstance(part, content.ToolCallPart):
        callers[part.id] = part.name
        arguments = one_line(part.arguments)
        cut = f"{arguments[:CALL_CHARS]}…" if len(arguments) > CALL_CHARS else arguments
        return f"-> {part.name} {cut}"
    if isinstance(part, content.ToolResultPart):
        failed = " failed" if part.is_error else ""
        said = content.plain_text(part.content)
        answer = said if said.strip() else "(nothing)" if not part.content else "(no text)"
        return f"<- {callers.get(part.tool_call_id, part.tool_call_id)}{failed}: {answer}"
    if isinstance(part, content.ReasoningPart):
        return f"[thought] {part.text or ' '.join(part.summary) or 'not shown by the provider'}"
    if isinstance(part, content.FilePart):
        return (
            f"[{part.kind}] {part.name or part.uri or part.file_id or part.media_type or part.text or 'without a name'}"
        )
    kind: Any = part.data.get("type", "item")
    return f"[{kind} of {part.provider}]"
