"""The verbs on whole conversations."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Literal, TypeVar

from perdure.grammar import Steps, op
from perdure.rooms.conversations import ops
from perdure.rooms.conversations import query as queries
from perdure.rooms.conversations.values import (
    Conversation,
    ConversationMetadata,
    Page,
    TokenReportRow,
    metadata_of,
)  # fmt: skip
from perdure.rooms.keys import ops as keys
from perdure.rooms.texts import ops as texts
from perdure.services.handle import Handle
from perdure.values import limits
from perdure.values.clock import recordable, to_micros
from perdure.values.errors import Invalid
from perdure.values.ids import new_id

T = TypeVar("T")
GroupBy = Literal["user_id", "agent_id", "model", "day"]
_ENSURED = 100_000
_QUICK_PAGE = 200
_DAY = 86_400_000_000


class ConversationVerbs(Handle):
    """Create, find, change, fork and delete conversations; account for tokens."""

    async def create_conversation(
        self,
        agent_id: str,
        user_id: str,
        metadata: ConversationMetadata | Mapping[str, Any] | None = None,
        id: str | None = None,
        *,
        created_at: datetime | str | None = None,
        idempotency_key: str | None = None,
    ) -> Conversation:
        """The new conversation, with a UUIDv7 unless ``id`` is given.

        Raises ``Conflict`` when the id is taken, ``Invalid`` for blank or over-long values.
        """
        now = self._clock()
        new = ops.NewConversation(
            new_id() if id is None else limits.identifier(id, "id"),
            limits.identifier(agent_id, "agent_id"),
            limits.identifier(user_id, "user_id"),
            metadata_of(metadata),
            now if created_at is None else recordable(to_micros(created_at, "created_at"), "created_at"),
        )
        return await self._once(
            "create_conversation", idempotency_key,
            lambda: (
                agent_id, user_id, ops.encode_metadata(new.metadata), id, None if created_at is None else new.created_at
            ),
            ops.create(new, now), lambda made: [made.id], lambda ids: ops.get(ids[0]),
        )  # fmt: skip

    async def ensure_conversation(
        self,
        id: str,
        agent_id: str,
        user_id: str,
        metadata: ConversationMetadata | Mapping[str, Any] | None = None,
    ) -> None:
        """Nothing, and writes nothing: the first message added to ``id`` through this store creates the conversation.

        When another process has created it by then, the message joins that one. So conversations that never receive
        a message never exist. At most 100,000 ids wait at a time.
        """
        key = (self.tenant, limits.identifier(id, "id"))
        waiting = self._shared.ensured
        if key not in waiting:
            limits.count(len(waiting) + 1, "conversations that wait for their first message", 0, _ENSURED)
        waiting[key] = ops.NewConversation(
            id, limits.identifier(agent_id, "agent_id"), limits.identifier(user_id, "user_id"), metadata_of(metadata), 0
        )

    async def get_conversation(self, id: str, include_messages: bool = False) -> Conversation | None:
        """The conversation, None when there is none; with all of its messages when asked."""
        limits.identifier(id, "id")
        return await self._run(ops.get_with_messages(id) if include_messages else ops.get(id))

    async def update_conversation(
        self,
        id: str,
        metadata: ConversationMetadata | Mapping[str, Any],
        expected_version: int | None = None,
    ) -> Conversation:
        """The conversation with ``metadata`` in place of what it had; its version goes up by one.

        Raises ``NotFound``, and ``Conflict`` when ``expected_version`` is given and is not its version.
        """
        limits.identifier(id, "id")
        if expected_version is not None:
            limits.count(expected_version, "expected_version", 1, 2**31 - 1)
        checked = metadata_of(metadata)
        ops.encode_metadata(checked)
        return await self._run(ops.update(id, checked, expected_version, self._clock()))

    async def delete_conversation(self, id: str) -> None:
        """Removes the conversation and its messages from every answer.

        Messages that a fork shares stay in the fork. Raises ``NotFound``.
        """
        limits.identifier(id, "id")
        await self._run(_delete_conversation(id, self._clock(), erase=False, pseudonym=f"deleted:{new_id()}"))

    async def erase_conversation(self, id: str) -> None:
        """Removes the conversation with every trace: versions, index terms, its id in the trail, its part in forks.

        That something was erased, when and by whom stays on record. Raises ``NotFound``.
        """
        limits.identifier(id, "id")
        await self._run(_delete_conversation(id, self._clock(), erase=True, pseudonym=f"erased:{new_id()}"))

    async def fork_conversation(
        self,
        id: str,
        at_seq: int,
        new_id: str | None = None,
        metadata: ConversationMetadata | Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Conversation:
        """A new conversation that begins with the first messages of another, up to and with ``at_seq`` (0: none).

        Nothing is copied: both show the same messages, so an edit, a deletion or an erasure of a shared message
        shows in both; what is added later belongs to one. ``metadata`` replaces the source's. Raises ``NotFound``, and
        ``Invalid`` when ``at_seq`` is beyond the last message.
        """
        limits.identifier(id, "id")
        limits.count(at_seq, "at_seq", 0, 2**53)
        own = _fresh_id() if new_id is None else limits.identifier(new_id, "new_id")
        own_metadata = None if metadata is None else metadata_of(metadata)
        return await self._once(
            "fork_conversation", idempotency_key,
            lambda: (id, at_seq, new_id, None if own_metadata is None else ops.encode_metadata(own_metadata)),
            ops.fork(id, at_seq, own, own_metadata, self._clock()), lambda made: [made.id],
            lambda ids: ops.get(ids[0]),
        )  # fmt: skip

    async def query_conversations(
        self,
        user_id: str | None = None,
        agent_id: str | None = None,
        filters: Mapping[str, Any] | None = None,
        order_by: str = "last_message_at",
        descending: bool = True,
        limit: int = 10,
        cursor: str | None = None,
        include_messages: bool = False,
    ) -> Page[Conversation]:
        """A page of conversations and the cursor of the next one; at most 1,000.

        ``filters`` may hold created_after, created_before (times; from, up to but without), tags (all of them),
        any_tags, min_messages, max_messages, participant, title_contains (any case) and ``context`` (the filter
        algebra over ``metadata.context``). ``order_by`` is last_message_at (created_at while there is no message),
        created_at, message_count or cost; ties are in order of id. With ``include_messages`` each comes with its
        newest 50. Unknown filters and orders are ``Invalid`` and the error lists the known ones.
        """
        query = queries.build(
            user_id=user_id, agent_id=agent_id, filters=filters, order_by=order_by, descending=descending, limit=limit,
            cursor=cursor, include_messages=include_messages,
        )  # fmt: skip
        if limit == 0:
            return Page()
        page = ops.page(query)
        looks_at_many = (
            include_messages or bool(filters) or order_by in {"message_count", "cost"} or limit > _QUICK_PAGE
        )
        found = await self._run(page.taking_long() if looks_at_many else page)
        return queries.page_of(query, found)

    async def token_report(
        self,
        *group_by: GroupBy,
        user_id: str | None = None,
        agent_id: str | None = None,
        model: str | None = None,
        since: date | str | None = None,
        until: date | str | None = None,
    ) -> list[TokenReportRow]:
        """Messages, tokens and cost that were recorded with messages, added up for each group, in order of the groups.

        ``token_report("model", "day", user_id="ann")``: group by any of user_id, agent_id, model and day (UTC days);
        without a group there is one row for all. ``since`` and ``until`` are days (of a time: its day in UTC), the first
        included, the last not.
        What was deleted no longer counts.
        """
        for name in group_by:
            if name not in {"user_id", "agent_id", "model", "day"}:
                raise Invalid(f"cannot group by {name!r}; there are user_id, agent_id, model, day", field="group_by")
        for name, value in (("user_id", user_id), ("agent_id", agent_id), ("model", model)):
            if value is not None:
                limits.identifier(value, name)
        groups = frozenset(name.removesuffix("_id") for name in group_by)
        return await self._run(ops.report(groups, user_id, agent_id, model, _day(since, "since"), _day(until, "until")))


@op(long=True)
def _delete_conversation(conversation_id: str, now: int, *, erase: bool, pseudonym: str) -> Steps[None]:
    """Rows, totals, the text index and, when erasing, idempotency keys in one transaction."""
    if erase:
        yield from ops.locked(conversation_id)  # an append under way ends first, and its key is then seen
        yield from keys.forget([conversation_id], "create_conversation", "fork_conversation")
        yield from keys.forget((yield from ops.message_ids(conversation_id)), "add_message", "add_messages")
    gone = yield from ops.delete(conversation_id, now, erase=erase, pseudonym=pseudonym)
    yield from texts.forget(gone)


_fresh_id = new_id


def _day(value: date | str | None, field: str) -> int | None:
    """Days since 1970."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value)
        except ValueError:
            return to_micros(value, field) // _DAY
    if isinstance(value, datetime):
        return to_micros(value, field) // _DAY
    if not isinstance(value, date):
        raise Invalid(f"{field} must be a date or ISO text, not {type(value).__name__}", field=field)
    return value.toordinal() - date(1970, 1, 1).toordinal()
