"""Recipes on whole conversations: create, find, change, fork, delete."""

import msgspec

from perdure.grammar import (
    Params,
    Row,
    Steps,
    Where,
    execute,
    execute_many,
    fetch_all,
    fetch_one,
    fetch_value,
    note,
    op,
)
from perdure.rooms.conversations.messages import read_messages
from perdure.rooms.conversations.usage import TokenUsage
from perdure.rooms.conversations.values import (
    Conversation,
    ConversationMetadata,
    Sums,
    TokenReportRow,
    asked_for,
    conversation_of,
    encode_metadata,
    message_of,
)  # fmt: skip
from perdure.values.clock import Micros, to_datetime
from perdure.values.errors import Conflict, Invalid, NotFound

_DAY = 86_400_000_000
_NEWEST = 50


class NewConversation(msgspec.Struct, frozen=True):
    """What a conversation is created with."""

    id: str
    agent_id: str
    user_id: str
    metadata: ConversationMetadata
    created_at: Micros


class Query(msgspec.Struct, frozen=True):
    """A page of conversations: flags and parameters for the statement, and its order."""

    params: Params
    flags: frozenset[str]
    where: Where | None
    order_by: str
    descending: bool
    limit: int
    include_messages: bool


@op
def create(new: NewConversation, now: Micros) -> Steps[Conversation]:
    """The new conversation; ``Conflict`` when its id is taken."""
    if not (yield from insert(new, now)):
        raise Conflict(f"there is a conversation {new.id!r} already", field="id")
    row = yield from fetch_one("conversations.by_id", id=new.id)
    assert row is not None
    return conversation_of(row)


def insert(
    new: NewConversation, now: Micros, *, next_seq: int = 1, inherits: int = 0, sums: Sums | None = None,
    active_at: Micros | None = None, verb: str = "create",
) -> Steps[bool]:  # fmt: skip
    """Whether the row was inserted (false: the id is taken); its labels and its entry with it."""
    sums = sums or Sums()
    title = new.metadata.title
    inserted = yield from execute(
        "conversations.create", id=new.id, agent_id=new.agent_id, user_id=new.user_id,
        title=None if title is None else title.casefold(), metadata=encode_metadata(new.metadata),
        created_at=new.created_at, now=now, active_at=new.created_at if active_at is None else active_at, next_seq=next_seq, message_count=sums.messages,
        input_tokens=sums.input_tokens, output_tokens=sums.output_tokens, total_tokens=sums.total_tokens,
        cost=sums.cost, inherits=inherits,
    )  # fmt: skip
    if not inserted:
        return False
    if new.metadata.tags or new.metadata.participants:
        row = yield from fetch_one("conversations.by_id", id=new.id)
        assert row is not None
        yield from _label(row[0], new.metadata)
    yield from note("conversation", verb, new.id, None, now)
    return True


def _label(conversation: int, metadata: ConversationMetadata) -> Steps[None]:
    labels = [("tag", label) for label in metadata.tags] + [("participant", label) for label in metadata.participants]
    rows: list[Params] = [{"kind": kind, "label": label, "conversation": conversation} for kind, label in labels]
    yield from execute_many("conversations.label", rows)


@op(reads=True)
def get(conversation_id: str) -> Steps[Conversation | None]:
    """One conversation, None when there is none."""
    row = yield from fetch_one("conversations.by_id", id=conversation_id)
    return None if row is None else conversation_of(asked_for(row, 1, conversation_id))


@op(reads=True, long=True)
def get_with_messages(conversation_id: str) -> Steps[Conversation | None]:
    """One conversation with all of its messages."""
    row = yield from fetch_one("conversations.by_id", id=conversation_id)
    if row is None:
        return None
    asked_for(row, 1, conversation_id)
    rows = yield from read_messages(row, 1, row[8], limit=row[8])
    return conversation_of(row, tuple(message_of(found, conversation_id) for found in rows))


@op(reads=True)
def page(query: Query) -> Steps[list[tuple[Row, Conversation]]]:
    """The rows of a page with their conversations, one more than the limit when there is a next page."""
    flags = query.flags | {query.order_by, "descending" if query.descending else "ascending"}
    params = dict(query.params)
    rows = yield from fetch_all(
        "conversations.page", flags=flags, where=query.where, limit=query.limit + 1, **params,
    )  # fmt: skip
    found: list[tuple[Row, Conversation]] = []
    for row in rows:
        messages: list[Row] = []
        if query.include_messages and len(found) < query.limit:
            messages = yield from read_messages(row, 1, row[8], limit=_NEWEST, newest=True)
        found.append((row, conversation_of(row, tuple(message_of(one, row[1]) for one in messages))))
    return found


@op
def update(
    conversation_id: str, metadata: ConversationMetadata, expected_version: int | None, now: Micros
) -> Steps[Conversation]:
    """The conversation with its new metadata; ``Conflict`` when its version is not the expected one."""
    row = yield from locked(conversation_id)
    if expected_version is not None and row[14] != expected_version:
        raise Conflict(
            f"conversation {conversation_id!r} has version {row[14]}, not {expected_version}",
            hint="read it again and repeat the change", field="expected_version",
        )  # fmt: skip
    yield from execute(
        "conversations.update", conversation=row[0], metadata=encode_metadata(metadata),
        title=None if metadata.title is None else metadata.title.casefold(), now=now, version=row[14],
    )  # fmt: skip
    yield from execute("conversations.unlabel", conversation=row[0])
    yield from _label(row[0], metadata)
    yield from note("conversation", "update", conversation_id, None, now)
    changed = yield from fetch_one("conversations.by_id", id=conversation_id)
    assert changed is not None
    return conversation_of(changed)


def locked(conversation_id: str) -> Steps[Row]:
    """A conversation's row, held until the transaction ends; ``NotFound`` when there is none."""
    row = yield from fetch_one("conversations.by_id", flags=frozenset({"locked"}), id=conversation_id)
    if row is None:
        raise NotFound(f"there is no conversation {conversation_id!r}", field="conversation_id")
    return asked_for(row, 1, conversation_id)


# -- forks ---------------------------------------------------------------------------------------------------------------


@op
def fork(
    source_id: str, at_seq: int, new_id: str, metadata: ConversationMetadata | None, now: Micros
) -> Steps[Conversation]:
    """A conversation that shares the first messages of another, up to and with ``at_seq``; no message is copied."""
    source = yield from locked_with_sources(source_id)
    if not 0 <= at_seq < source[8]:
        raise Invalid(f"at_seq must be from 0 to {source[8] - 1}, not {at_seq}", field="at_seq", limit=source[8] - 1)
    known = conversation_of(source)
    new = NewConversation(new_id, known.agent_id, known.user_id, known.metadata if metadata is None else metadata, now)
    return (yield from share(source, at_seq, new, now))


def share(source: Row, at_seq: int, new: NewConversation, now: Micros) -> Steps[Conversation]:
    """A new conversation that shows the messages of one that is held, up to and with a seq."""
    segments = [
        (origin, low, min(high, at_seq))
        for origin, low, high in (yield from segments_of(source))
        if low <= at_seq
    ]  # fmt: skip
    sums, latest = yield from _segment_sums(segments)
    inserted = yield from insert(
        new, now, next_seq=at_seq + 1, inherits=at_seq, sums=sums, active_at=latest, verb="fork"
    )
    if not inserted:
        raise Conflict(f"there is a conversation {new.id!r} already", field="new_id")
    row = yield from fetch_one("conversations.by_id", id=new.id)
    assert row is not None
    rows: list[Params] = [
        {"conversation": row[0], "source": origin, "low_seq": low, "high_seq": high} for origin, low, high in segments
    ]
    yield from execute_many("conversations.add_segment", rows)
    return conversation_of(row)


def locked_with_sources(conversation_id: str) -> Steps[Row]:
    """A conversation's row, held together with the conversations that it reads from; ``NotFound`` when there is none."""
    row = yield from fetch_one("conversations.by_id", id=conversation_id)
    if row is not None and row[15]:
        segments = yield from segments_of(row)
        yield from fetch_all("conversations.hold", conversations=sorted(origin for origin, _, _ in segments))
    return (yield from locked(conversation_id))


def segments_of(row: Row) -> Steps[list[tuple[int, int, int]]]:
    """Whose rows a conversation reads: (owner, lowest seq, highest seq), its own last."""
    inherited: list[tuple[int, int, int]] = []
    if row[15]:
        found = yield from fetch_all("conversations.segments", conversation=row[0])
        inherited = [(origin, low, high) for origin, low, high in found]
    return [*inherited, (row[0], row[15] + 1, row[8])]


def _segment_sums(segments: list[tuple[int, int, int]]) -> Steps[tuple[Sums, Micros | None]]:
    sums = Sums()
    latest: Micros | None = None
    for owner, low, high in segments:
        row = yield from fetch_one("conversations.segment_sums", conversation=owner, low=low, high=high)
        assert row is not None
        sums.messages += row[0]
        sums.input_tokens += row[1]
        sums.output_tokens += row[2]
        sums.total_tokens += row[3]
        sums.cost += row[4]
        latest = row[5] if latest is None or (row[5] is not None and row[5] > latest) else latest
    return sums, latest


# -- deleting ------------------------------------------------------------------------------------------------------------


def message_ids(conversation_id: str) -> Steps[list[str]]:
    """The ids of a conversation's own messages."""
    rows = yield from fetch_all("conversations.ids_in", id=conversation_id)
    return [row[0] for row in rows]


def delete(conversation_id: str, now: Micros, *, erase: bool, pseudonym: str) -> Steps[list[int]]:
    """The row numbers of the messages that are gone.

    Messages that a fork shares stay for the fork when deleting; erasing takes them from the forks too.
    """
    row = yield from locked_with_sources(conversation_id)
    sources = [origin for origin, _, _ in (yield from segments_of(row))[:-1]]
    gone: list[int] = []
    if erase:
        yield from _take_from_forks(row[0], now)
    shared = yield from fetch_value("conversations.shared_up_to", conversation=row[0])
    gone += yield from _drop_messages(row[0], row[3], row[2], above=shared or 0)
    if shared:
        yield from execute("conversations.unlabel", conversation=row[0])
        yield from execute("conversations.retire", conversation=row[0], id=pseudonym, now=now)
    else:
        yield from execute("conversations.drop", conversation=row[0])
        for source in sorted(sources, reverse=True):  # a source may be kept only for a later one
            gone += yield from _release(source)
    if erase:
        yield from execute("changes.forget_object", object=conversation_id, kind="conversation", pseudonym=pseudonym)
    yield from note("conversation", "erase" if erase else "delete", pseudonym if erase else conversation_id, None, now)
    return gone


def _drop_messages(conversation: int, user_id: str, agent_id: str, *, above: int) -> Steps[list[int]]:
    """The row numbers of a conversation's own messages above a seq, which are removed and leave the token report."""
    spent = yield from fetch_all("conversations.spent", conversation=conversation, above=above)
    for model, day, messages, input_tokens, output_tokens, total_tokens, cost in spent:
        yield from execute(
            "conversations.add_to_report", user_id=user_id, agent_id=agent_id, model=model or "", day=day,
            messages=-messages, input_tokens=-input_tokens, output_tokens=-output_tokens, total_tokens=-total_tokens,
            cost=-cost,
        )  # fmt: skip
    if spent:
        yield from execute("conversations.drop_empty_totals", user_id=user_id, agent_id=agent_id)
    rows = yield from fetch_all("conversations.rows_above", conversation=conversation, above=above)
    yield from execute("conversations.drop_above", conversation=conversation, above=above)
    return [row[0] for row in rows]


def _take_from_forks(conversation: int, now: Micros) -> Steps[None]:
    """Erased messages leave the totals of the forks that shared them, and the forks stop reading them."""
    forks = yield from fetch_all("conversations.forks_of", conversation=conversation)
    for fork, low, high in forks:
        sums, _ = yield from _segment_sums([(conversation, low, high)])
        yield from execute(
            "conversations.correct_fork", conversation=fork, messages=-sums.messages, input_tokens=-sums.input_tokens,
            output_tokens=-sums.output_tokens, total_tokens=-sums.total_tokens, cost=-sums.cost, now=now,
        )  # fmt: skip
    yield from execute("conversations.drop_segments", conversation=conversation)


def _release(conversation: int) -> Steps[list[int]]:
    """A deleted conversation that stayed for its forks loses what none of them reads any longer, or goes for good."""
    retired = yield from fetch_one("conversations.retired", conversation=conversation)
    if retired is None:
        return []
    shared = yield from fetch_value("conversations.shared_up_to", conversation=conversation)
    gone = yield from _drop_messages(conversation, retired[0], retired[1], above=shared or 0)
    if not shared:
        yield from execute("conversations.drop", conversation=conversation)
    return gone


# -- reports -------------------------------------------------------------------------------------------------------------


@op(reads=True)
def report(
    group_by: frozenset[str], user_id: str | None, agent_id: str | None, model: str | None, since: int | None,
    until: int | None,
) -> Steps[list[TokenReportRow]]:  # fmt: skip
    """Tokens and cost, added up by any of user, agent, model and day."""
    given = {"user_id": user_id, "agent_id": agent_id, "model": model, "since": since, "until": until}
    params: Params = {name: value for name, value in given.items() if value is not None}
    flags = {f"by_{name}" if name in group_by else f"no_{name}" for name in ("user", "agent", "model", "day")}
    rows = yield from fetch_all("conversations.report", flags=frozenset(flags | params.keys()), **params)
    return [_report_row(row) for row in rows]


def _report_row(row: Row) -> TokenReportRow:
    day = None if row[3] is None else to_datetime(row[3] * _DAY).date().isoformat()
    model = row[2] or None
    return TokenReportRow(row[0], row[1], model, day, row[4], TokenUsage.stored(row[5], row[6], row[7], model, row[8]))


@op(reads=True, long=True)
def counts() -> Steps[Row]:
    """(conversations, messages, tokens, cost in nanos, first creation, latest activity)."""
    row = yield from fetch_one("conversations.counts")
    assert row is not None
    return row


@op(reads=True, long=True)
def broken_totals() -> Steps[list[str]]:
    """Conversations whose totals or seqs do not add up; at most a hundred."""
    rows = yield from fetch_all("conversations.broken_totals")
    return [row[0] for row in rows]
