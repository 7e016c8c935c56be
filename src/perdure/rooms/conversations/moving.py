"""Recipes that move whole conversations out of a store and into one."""

from collections.abc import Iterable, Sequence

import msgspec

from perdure.grammar import Params, Row, Steps, fetch_all, fetch_one, fetch_value, op
from perdure.rooms.conversations import ops
from perdure.rooms.conversations.jsonl import Entry, ForkPoint, Opened, Said
from perdure.rooms.conversations.messages import Appending, append_each, read_messages
from perdure.values.clock import Micros
from perdure.values.errors import Conflict, NotFound

# -- out -----------------------------------------------------------------------------------------------------------------


class Leaving(msgspec.Struct, gc=False):
    """A conversation on its way out: its row, where it left its source, and the seq at which its own messages begin."""

    row: Row
    fork_of: ForkPoint | None
    low: int


@op(reads=True)
def newest() -> Steps[int]:
    """Where an export that begins now will end."""
    return (yield from fetch_value("conversations.newest"))


@op(reads=True, long=True)
def leaving(after: int, newest: int, user_id: str | None, agent_id: str | None, limit: int) -> Steps[list[Leaving]]:
    """The next conversations in the order in which they were made."""
    given = {"user_id": user_id, "agent_id": agent_id}
    params: Params = {name: value for name, value in given.items() if value is not None}
    rows = yield from fetch_all(
        "conversations.leaving", flags=frozenset(params), after=after, newest=newest, limit=limit, **params
    )
    found: list[Leaving] = []
    for row in rows:
        point, shared = (yield from _fork_point(row)) if row[15] else (None, 0)
        found.append(Leaving(row, point, shared + 1))
    return found


def _fork_point(row: Row) -> Steps[tuple[ForkPoint | None, int]]:
    """Which older conversation shows most of what a fork inherits, and up to which seq it does.

    That is the source as a rule. What a deleted source left to its forks belongs to the oldest of them.
    """
    for source, _, high in reversed((yield from ops.segments_of(row))[:-1]):
        shown = yield from fetch_one("conversations.shown_by", source=source, high=high, before=row[0])
        if shown is None:
            continue
        last = yield from read_messages(row, 1, shown[1], limit=1, newest=True)
        if last:
            return ForkPoint(shown[0], last[0][3]), shown[1]
    return None, 0


@op(reads=True, long=True)
def message_rows(conversation_id: str, low: int, limit: int) -> Steps[list[Row]]:
    """The rows of the next messages from a seq on; none when the conversation is gone by now."""
    conversation = yield from fetch_one("conversations.by_id", id=conversation_id)
    if conversation is None:
        return []
    return (yield from read_messages(conversation, low, conversation[8] - 1, limit=limit))


# -- in ------------------------------------------------------------------------------------------------------------------


class Refusal(msgspec.Struct, frozen=True):
    """Why a line was not loaded."""

    line: int
    reason: str


class Loaded(msgspec.Struct):
    """What came of some lines. Messages of a ``barred`` conversation must not be loaded later either."""

    barred: set[str]
    conversations: int = 0
    messages: int = 0
    skipped: int = 0
    refused: list[Refusal] = []


@op(reads=True)
def is_there(conversation_id: str) -> Steps[bool]:
    """Whether there is such a conversation."""
    return (yield from fetch_one("conversations.by_id", id=conversation_id)) is not None


@op(long=True)
def load(entries: Sequence[Entry], barred: frozenset[str], now: Micros) -> Steps[Loaded]:
    """What was loaded and what was not: messages that are stored already are skipped, the rest is appended."""
    loaded = Loaded(barred=set(barred))
    said: dict[str, dict[str, Said]] = {}
    for entry in entries:
        if isinstance(entry, Said):
            messages = said.setdefault(entry.conversation_id, {})
            if messages.setdefault(entry.draft.id, entry) is not entry:
                loaded.skipped += 1
            continue
        if entry.fork_of is not None:  # what it shares may have come just before
            yield from _append(said, loaded, now)
            said = {}
        yield from _open(entry, loaded, now)
    yield from _append(said, loaded, now)
    # A foreign record is one line with many messages: why it was not loaded is said once.
    loaded.refused = list({one.line: one for one in reversed(loaded.refused)}.values())[::-1]
    return loaded


def _append(said: dict[str, dict[str, Said]], loaded: Loaded, now: Micros) -> Steps[None]:
    """Appends what is not stored yet, of several conversations together."""
    waiting: list[Appending] = []
    lines: list[list[int]] = []
    claimed: set[str] = set()
    for conversation_id, messages in said.items():
        if conversation_id in loaded.barred:
            _refuse(loaded, messages.values(), "its conversation was not loaded")
            continue
        fresh = yield from _fresh(conversation_id, messages, claimed, loaded)
        if fresh:
            waiting.append(Appending(conversation_id, [one.draft for one in fresh], now))
            lines.append([one.line for one in fresh])
    for outcome, numbers in zip((yield from append_each(waiting)) if waiting else (), lines, strict=True):
        if isinstance(outcome, NotFound):
            loaded.refused += [Refusal(number, outcome.message) for number in numbers]
        else:
            loaded.messages += len(numbers)


def _open(entry: Opened, loaded: Loaded, now: Micros) -> Steps[None]:
    """Creates a conversation of an import, unless it is there."""
    new = entry.new
    found = yield from fetch_one("conversations.by_id", id=new.id)
    if found is not None:
        if (found[2], found[3]) != (new.agent_id, new.user_id):
            loaded.barred.add(new.id)
            reason = f"conversation {new.id!r} is there and belongs to another user or agent"
            loaded.refused.append(Refusal(entry.line, reason))
        return
    if entry.fork_of is None:
        if not (yield from ops.insert(new, now)):
            raise Conflict(f"conversation {new.id!r} was made by somebody else meanwhile", hint="import it again")
        loaded.conversations += 1
        return
    reason = yield from _fork(new, entry.fork_of, now)
    if reason:
        loaded.barred.add(new.id)
        loaded.refused.append(Refusal(entry.line, reason))
    else:
        loaded.conversations += 1


def _fork(new: ops.NewConversation, point: ForkPoint, now: Micros) -> Steps[str]:
    """Nothing when the fork was made, else why it cannot be."""
    if not (yield from is_there(point.conversation_id)):
        return f"conversation {point.conversation_id!r}, of which it is a fork, is not there"
    source = yield from ops.locked_with_sources(point.conversation_id)
    message = yield from fetch_one("conversations.message", id=point.message_id)
    segments = yield from ops.segments_of(source)
    if message is None or not any(message[1] == own and low <= message[2] <= high for own, low, high in segments):
        return f"message {point.message_id!r}, after which it begins, is not in its source"
    if (source[2], source[3]) != (new.agent_id, new.user_id):
        return "a fork belongs to the user and the agent of its source"
    yield from ops.share(source, message[2], new, now)
    return ""


def _fresh(conversation_id: str, messages: dict[str, Said], claimed: set[str], loaded: Loaded) -> Steps[list[Said]]:
    """The messages that are not stored yet. One whose id stands for a message elsewhere is refused."""
    row = yield from fetch_one("conversations.by_id", id=conversation_id)
    if row is None:
        _refuse(loaded, messages.values(), f"there is no conversation {conversation_id!r}")
        return []
    rows = yield from fetch_all("conversations.ids_shown", conversation=row[0], ids=list(messages))
    shown = {found[0]: bool(found[1]) for found in rows}
    fresh: list[Said] = []
    for message_id, one in messages.items():
        if shown.get(message_id):
            loaded.skipped += 1
        elif message_id in shown or message_id in claimed:
            _refuse(loaded, [one], f"the id {message_id!r} is that of a message in another conversation")
        else:
            claimed.add(message_id)
            fresh.append(one)
    return fresh


def _refuse(loaded: Loaded, messages: Iterable[Said], reason: str) -> None:
    loaded.refused += [Refusal(one.line, reason) for one in messages]
