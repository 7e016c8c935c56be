"""Recipes on messages: append, read, edit, delete, erase, the trail."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from perdure.grammar import (
    Ask,
    Mode,
    Op,
    Params,
    Row,
    Steps,
    asking,
    asking_one,
    entry,
    execute,
    execute_many,
    fetch_all,
    fetch_one,
    fetch_value,
    note,
    op,
    together,
)  # fmt: skip
from perdure.rooms.conversations.draft import MessageRole
from perdure.rooms.conversations.flush import Saying, Slot
from perdure.rooms.conversations.usage import TokenUsage
from perdure.rooms.conversations.values import (
    Message,
    MessageVersion,
    Prepared,
    Sums,
    asked_for,
    check_places,
    message_of,
    usage_of,
    version_of,
)  # fmt: skip
from perdure.values import tagged
from perdure.values.clock import Micros, to_datetime
from perdure.values.errors import Conflict, NotFound

_DAY = 86_400_000_000
_ASCENDING = frozenset({"ascending"})
_DESCENDING = frozenset({"descending"})
_LOCKED = frozenset({"locked"})


# -- appending -------------------------------------------------------------------------------------------------------------


class Appending(msgspec.Struct, gc=False):
    """Messages for one conversation that wait to be appended."""

    conversation_id: str
    drafts: Sequence[Prepared]
    now: Micros


def _merge(ops: Sequence[Op[Any]]) -> Op[list[Any]]:
    return append_each([Appending(*waiting.args) for waiting in ops])


@op(merge=_merge)
def append(conversation_id: str, drafts: Sequence[Prepared], now: Micros) -> Steps[list[Message]]:
    """The messages at the next seqs of the conversation, all or none; ``NotFound`` when there is none."""
    if len(drafts) == 1:
        return [(yield from _append_one(conversation_id, drafts[0], now))]
    (outcome,) = yield from append_each([Appending(conversation_id, drafts, now)])
    if isinstance(outcome, NotFound):
        raise outcome
    return outcome


def _append_one(conversation_id: str, draft: Prepared, now: Micros) -> Steps[Message]:
    """The most frequent write of all, without the bookkeeping that many at once need."""
    spent = usage_params(draft.usage)
    added: Params = {name: spent[name] or 0 for name in ("input_tokens", "output_tokens", "total_tokens", "cost")}
    taken = yield from fetch_one(
        "conversations.take_seqs", id=conversation_id, count=1, latest=draft.created_at, now=now, **added
    )
    if taken is None:
        raise NotFound(f"there is no conversation {conversation_id!r}", field="conversation_id")
    conversation, seq, user_id, agent_id = taken
    yield from together(
        Ask(Mode.RUN, "conversations.add_message", _row(conversation, seq, draft)),
        Ask(Mode.RUN, "changes.note", entry("message", "add", draft.id, conversation_id, now)),
    )
    if draft.usage is not None:
        yield from execute(
            "conversations.add_to_report", user_id=user_id, agent_id=agent_id, model=draft.usage.model or "",
            day=draft.created_at // _DAY, messages=1, **added,
        )  # fmt: skip
    return _appended(conversation_id, seq, draft)


@op(long=True)
def append_many(conversation_id: str, drafts: Sequence[Prepared], now: Micros) -> Steps[list[Message]]:
    """The same for so many messages that they are a transaction of their own."""
    return (yield from append(conversation_id, drafts, now))


@op
def append_each(waiting: Sequence[Appending]) -> Steps[list[list[Message] | NotFound]]:
    """What each of several appends answers on its own, by few statements for all of them together.

    Conversations are taken in order of id, so that two such transactions cannot deadlock.
    """
    by_conversation: dict[str, list[Appending]] = {}
    for one in waiting:
        by_conversation.setdefault(one.conversation_id, []).append(one)
    order = sorted(by_conversation)
    spent: dict[str, tuple[Sums, _Groups]] = {}
    asks: list[Ask] = []
    for conversation_id in order:
        ones = by_conversation[conversation_id]
        drafts = ones[0].drafts if len(ones) == 1 else [draft for one in ones for draft in one.drafts]
        sums, groups, latest = _sums(drafts)
        spent[conversation_id] = (sums, groups)
        asks.append(asking_one(
            "conversations.take_seqs", id=conversation_id, count=len(drafts), input_tokens=sums.input_tokens,
            output_tokens=sums.output_tokens, total_tokens=sums.total_tokens, cost=sums.cost, latest=latest,
            now=ones[-1].now,
        ))  # fmt: skip
    taken: list[Row | None] = yield from together(*asks)
    placed: dict[str, Row] = {name: row for name, row in zip(order, taken, strict=True) if row is not None}
    yield from _insert(by_conversation, placed)
    yield from _report(spent, placed)
    following = {name: row[1] for name, row in placed.items()}
    return [_outcome(one, following) for one in waiting]


def _insert(waiting: dict[str, list[Appending]], placed: dict[str, Row]) -> Steps[None]:
    rows: list[Params] = []
    entries: list[Params] = []
    for conversation_id, (conversation, first_seq, *_) in placed.items():
        drafts = [(draft, one.now) for one in waiting[conversation_id] for draft in one.drafts]
        for seq, (draft, now) in enumerate(drafts, first_seq):
            rows.append(_row(conversation, seq, draft))
            entries.append(entry("message", "add", draft.id, conversation_id, now))
    if len(rows) == 1:
        yield from together(asking("conversations.add_message", **rows[0]), asking("changes.note", **entries[0]))
    else:
        yield from execute_many("conversations.add_message", rows)
        yield from execute_many("changes.note", entries)


def _outcome(one: Appending, following: dict[str, int]) -> list[Message] | NotFound:
    """The appended messages with their seqs; ``following`` says where each conversation goes on."""
    name = one.conversation_id
    first = following.get(name)
    if first is None:
        return NotFound(f"there is no conversation {name!r}", field="conversation_id")
    following[name] = first + len(one.drafts)
    return [_appended(name, first + index, draft) for index, draft in enumerate(one.drafts)]


def _row(conversation: int, seq: int, draft: Prepared) -> Params:
    usage = draft.usage
    return {
        "conversation": conversation, "seq": seq, "id": draft.id, "role": draft.role,
        "name": draft.name, "body": draft.body, "form": draft.form, "metadata": draft.metadata,
        **usage_params(usage), "parent_id": draft.parent_id, "created_at": draft.created_at,
    }  # fmt: skip


def usage_params(usage: TokenUsage | None) -> Params:
    """The columns of a message's token usage; all null when nothing was recorded."""
    if usage is None:
        return {"input_tokens": None, "output_tokens": None, "total_tokens": None, "model": None, "cost": None}
    return {
        "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, "total_tokens": usage.total_tokens,
        "model": usage.model, "cost": usage.cost_nanos,
    }  # fmt: skip


_Groups = dict[tuple[str, int], Sums]
"""Sums by model and day."""


def _sums(drafts: Sequence[Prepared]) -> tuple[Sums, _Groups, Micros]:
    """What new messages add to the totals, to the report, and the latest time of them."""
    groups: _Groups = {}
    latest = silent = 0
    for draft in drafts:
        latest = max(latest, draft.created_at)
        if draft.usage is None:
            silent += 1
            continue
        key = (draft.usage.model or "", draft.created_at // _DAY)
        sums = groups.get(key)
        if sums is None:
            sums = groups[key] = Sums()
        sums.add(draft.usage)
    if len(groups) == 1 and not silent:
        return next(iter(groups.values())), groups, latest
    total = Sums(silent)
    for sums in groups.values():
        total.join(sums)
    return total, groups, latest


def _report(spent: dict[str, tuple[Sums, _Groups]], placed: dict[str, Row]) -> Steps[None]:
    """The new messages' tokens in the report, one row for each user, agent, model and day, in that order."""
    whole: dict[tuple[str, str, str, int], Sums] = {}
    for name, row in placed.items():
        for (model, day), sums in spent[name][1].items():
            key = (row[2], row[3], model, day)
            if key in whole:
                whole[key].join(sums)
            elif len(placed) == 1:
                whole[key] = sums
            else:
                whole[key] = Sums()
                whole[key].join(sums)
    for (user_id, agent_id, model, day), sums in sorted(whole.items(), key=lambda group: group[0]):
        yield from _add_to_report(user_id, agent_id, model, day, sums)


def _add_to_report(user_id: str, agent_id: str, model: str, day: int, sums: Sums) -> Steps[None]:
    yield from execute(
        "conversations.add_to_report", user_id=user_id, agent_id=agent_id, model=model, day=day,
        messages=sums.messages, input_tokens=sums.input_tokens, output_tokens=sums.output_tokens,
        total_tokens=sums.total_tokens, cost=sums.cost,
    )  # fmt: skip


def _appended(conversation_id: str, seq: int, draft: Prepared) -> Message:
    """The message as a later read gives it back, without reading it."""
    metadata: dict[str, Any] = tagged.decode(draft.metadata) if draft.metadata else {}
    return Message(
        draft.id, conversation_id, seq, MessageRole(draft.role), draft.content, draft.name, metadata, draft.usage,
        to_datetime(draft.created_at), draft.parent_id,
    )  # fmt: skip


# -- reading ---------------------------------------------------------------------------------------------------------------


def read_messages(
    conversation: Row, low: int, high: int, *, limit: int, newest: bool = False, roles: list[str] | None = None
) -> Steps[list[Row]]:
    """Living rows with ``low <= seq <= high`` in order of seq: the oldest ``limit`` of them, or the newest.

    A fork's rows come from the conversations it shares with, segment by segment.
    """
    owner, inherits = conversation[0], conversation[15]
    segments: list[tuple[int, int, int]] = [(owner, inherits + 1, high)]
    if inherits and low <= inherits:
        found = yield from fetch_all("conversations.segments", conversation=owner)
        segments = [(origin, first, last) for origin, first, last in found] + segments
    flags = _DESCENDING if newest else _ASCENDING
    params: Params = {}
    if roles is not None:
        flags = flags | {"roles"}
        params["roles"] = roles
    rows: list[Row] = []
    for origin, first, last in reversed(segments) if newest else segments:
        if len(rows) >= limit or max(low, first) > min(high, last):
            continue
        part = yield from fetch_all(
            "conversations.messages", flags=flags, conversation=origin, low=max(low, first), high=min(high, last),
            limit=limit - len(rows), **params,
        )  # fmt: skip
        check_places(part, origin, descending=newest)
        rows += part
    return rows[::-1] if newest else rows


@op(reads=True)
def page(
    conversation_id: str, low: int, high: int | None, limit: int, newest: bool, roles: list[str] | None
) -> Steps[tuple[list[Message], bool]]:
    """The messages, and whether there are more in the direction of reading; none of an unknown conversation."""
    conversation = yield from fetch_one("conversations.by_id", id=conversation_id)
    if conversation is None:
        return [], False
    asked_for(conversation, 1, conversation_id)
    top = conversation[8] - 1 if high is None else min(high, conversation[8] - 1)
    rows = yield from read_messages(conversation, low, top, limit=limit + 1, newest=newest, roles=roles)
    more = len(rows) > limit
    kept = (rows[1:] if newest else rows[:limit]) if more else rows
    return [message_of(row, conversation_id) for row in kept], more


@op(reads=True)
def get(message_id: str) -> Steps[Message | None]:
    """One message by its id, as its own conversation shows it."""
    row = yield from fetch_one("conversations.message", id=message_id)
    return None if row is None else message_of(row, (yield from _home(row)))


def _home(row: Row) -> Steps[str]:
    """The id of a message's conversation; when that is deleted, of the oldest fork that shows it."""
    if row[20]:
        return row[17]
    return (yield from fetch_value("conversations.reader_of", conversation=row[1], seq=row[2]))


@op(reads=True)
def history(message_id: str) -> Steps[list[MessageVersion]]:
    """What a message said before, oldest first."""
    rows = yield from fetch_all("conversations.history", id=message_id)
    return [version_of(row) for row in rows]


# -- changing --------------------------------------------------------------------------------------------------------------


@op
def edit(
    message_id: str, change: Callable[[Message], Prepared], expected_version: int | None, now: Micros
) -> Steps[Message]:
    """The message as ``change`` rewrites it; what it said goes into its trail, its totals are corrected."""
    row = yield from fetch_one("conversations.message", flags=_LOCKED, id=message_id)
    if row is None:
        raise NotFound(f"there is no message {message_id!r}", field="message_id")
    if expected_version is not None and row[16] != expected_version:
        raise Conflict(
            f"message {message_id!r} has version {row[16]}, not {expected_version}", field="expected_version",
            hint="read it again and repeat the change",
        )  # fmt: skip
    home = yield from _home(row)
    new = change(message_of(row, home))
    yield from execute("conversations.keep_version", ord=row[0], verb="edit", now=now)
    yield from execute(
        "conversations.rewrite", ord=row[0], name=new.name, body=new.body, form=new.form, metadata=new.metadata,
        **usage_params(new.usage),
    )  # fmt: skip
    yield from _correct(row, new.usage, 0, now)
    yield from note("message", "edit", message_id, home, now)
    changed = yield from fetch_one("conversations.message", id=message_id)
    assert changed is not None
    return message_of(changed, home)


def _correct(row: Row, new: TokenUsage | None, messages: int, now: Micros) -> Steps[None]:
    """Takes a message's old usage out of totals and report and puts its new one in."""
    old = usage_of(row[9:14])
    totals = Sums()
    totals.add(old, -1)
    totals.add(new, 1)
    yield from execute(
        "conversations.add_totals", conversation=row[1], seq=row[2], messages=messages,
        input_tokens=totals.input_tokens, output_tokens=totals.output_tokens, total_tokens=totals.total_tokens,
        cost=totals.cost, now=now,
    )  # fmt: skip
    day = row[15] // _DAY
    for usage, sign in ((old, -1), (new, 1)):
        if usage is not None:
            sums = Sums()
            sums.add(usage, sign)
            yield from _add_to_report(row[18], row[19], usage.model or "", day, sums)


def delete(message_id: str, now: Micros) -> Steps[int]:
    """The row number of the deleted message: it leaves every answer but its trail, and its seq stays taken."""
    row = yield from fetch_one("conversations.message", flags=_LOCKED, id=message_id)
    if row is None:
        raise NotFound(f"there is no message {message_id!r}", field="message_id")
    yield from execute("conversations.keep_version", ord=row[0], verb="delete", now=now)
    yield from execute("conversations.blank", ord=row[0], state=1, id=message_id)
    yield from _correct(row, None, -1, now)
    yield from note("message", "delete", message_id, (yield from _home(row)), now)
    return row[0]


def erase(message_id: str, now: Micros, pseudonym: str) -> Steps[int]:
    """The row number of the erased message: its content and its trail are gone, its id too; it may have been deleted."""
    found = yield from fetch_one("conversations.any_message", id=message_id)
    if found is None:
        raise NotFound(f"there is no message {message_id!r}", field="message_id")
    if found[3] == 0:
        row = yield from fetch_one("conversations.message", id=message_id)
        assert row is not None
        yield from _correct(row, None, -1, now)
    yield from execute("conversations.forget_versions", ord=found[0])
    yield from execute("conversations.blank", ord=found[0], state=2, id=pseudonym)
    yield from execute("conversations.forget_parent", conversation=found[1], id=message_id)
    yield from execute("changes.forget_object", object=message_id, kind="message", pseudonym=pseudonym)
    home = found[4]
    if not found[5]:
        home = yield from fetch_value("conversations.reader_of", conversation=found[1], seq=found[2])
    yield from note("message", "erase", pseudonym, home, now)
    return found[0]


# -- flushing --------------------------------------------------------------------------------------------------------------


def slots(conversation: Row) -> Steps[list[Slot]]:
    """The place of every message that a conversation shows or once showed, in order of seq; erased ones left out."""
    spans: list[tuple[int, int, int]] = [(conversation[0], conversation[15] + 1, conversation[8])]
    if conversation[15]:
        found = yield from fetch_all("conversations.segments", conversation=conversation[0])
        spans = [(origin, low, high) for origin, low, high in found] + spans
    said: dict[str, tuple[list[Saying], bool]] = {}
    for origin, low, high in spans:
        rows = yield from fetch_all("conversations.said", conversation=origin, low=low, high=high)
        for _, message_id, current, *saying in rows:
            sayings, _ = said.setdefault(message_id, ([], bool(current)))
            sayings.append((saying[0], saying[1], saying[2], saying[3]))
    return [Slot(message_id, tuple(sayings), living) for message_id, (sayings, living) in said.items()]
