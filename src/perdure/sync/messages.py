# Generated from perdure/services/messages.py by tools/generate_sync.py; change that file and run `make sync`.
"""The verbs on messages."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from perdure.grammar import Op, Steps, op
from perdure.rooms.conversations import flush as flushing
from perdure.rooms.conversations import messages as recipes
from perdure.rooms.conversations import ops, prepare, window
from perdure.rooms.conversations.content import Content
from perdure.rooms.conversations.draft import Draft, MessageRole
from perdure.rooms.conversations.prepare import UNSET, Unset
from perdure.rooms.conversations.usage import TokenUsage
from perdure.rooms.conversations.values import Message, MessageVersion, Page, Prepared
from perdure.rooms.keys import ops as keys
from perdure.rooms.texts import ops as texts
from perdure.sync.handle import Handle
from perdure.values import limits
from perdure.values.errors import Invalid, NotFound
from perdure.values.ids import new_id

_SMALL_GROUP = 8
_WINDOW_PAGE = 200
_QUICK_PAGE = 200
_FURTHER_PAGES = 5
"""How far beyond what fits a call is looked for whose result fits."""


class MessageVerbs(Handle):
    """Add, read, change and remove messages."""

    def add_message(
        self,
        conversation_id: str,
        role: MessageRole | str,
        content: Content | Sequence[Any],
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        token_usage: TokenUsage | Mapping[str, Any] | None = None,
        parent_id: str | None = None,
        created_at: datetime | str | None = None,
        *,
        id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Message:
        """The message at the next ``seq`` of its conversation.

        ``content`` is text or a list of parts; ``name`` is the speaker; ``created_at`` is for importing. Totals of
        messages, tokens and cost change in the same transaction. Raises ``NotFound`` for an unknown conversation (unless
        ``ensure_conversation`` was called for it), ``Conflict`` when ``id`` is taken, ``Invalid`` and ``OverLimit``.
        """
        limits.identifier(conversation_id, "conversation_id")
        now = self._clock()
        draft = prepare.prepare(
            role, content, now, name=name, metadata=metadata, token_usage=token_usage, parent_id=parent_id,
            created_at=created_at, id=id,
        )  # fmt: skip
        if idempotency_key is None:
            return (self._append(conversation_id, [draft], now))[0]
        return (self._append(conversation_id, [draft], now, key=idempotency_key, verb="add_message", given=[id]))[0]

    def add_messages(
        self,
        conversation_id: str,
        drafts: Iterable[Draft | Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
    ) -> list[Message]:
        """The messages at the next seqs, in order: all of them or, when one is refused, none. At most 10,000."""
        limits.identifier(conversation_id, "conversation_id")
        now = self._clock()
        drafts = list(islice(drafts, limits.DRAFTS + 1))  # one more is refused; there may be no end
        prepared = prepare.prepare_each(drafts, now, "drafts")
        if not prepared:
            self._must_exist(conversation_id)
            return []
        given = [_given_id(draft) for draft in drafts] if idempotency_key is not None else ()
        return self._append(conversation_id, prepared, now, key=idempotency_key, verb="add_messages", given=given)

    def _must_exist(self, conversation_id: str) -> None:
        if (self.tenant, conversation_id) not in self._shared.ensured and self._run(ops.get(conversation_id)) is None:
            raise NotFound(f"there is no conversation {conversation_id!r}", field="conversation_id")

    def _append(
        self,
        conversation_id: str,
        drafts: Sequence[Prepared],
        now: int,
        *,
        key: str | None = None,
        verb: str = "",
        given: Sequence[str | None] = (),
    ) -> list[Message]:
        """Appends, creating a conversation that was only ensured so far."""
        ensured = self._shared.ensured
        new = ensured.get((self.tenant, conversation_id)) if ensured else None
        recipe: Op[list[Message]]
        if new is not None:
            recipe = _create_and_append(new, drafts, now)
        elif len(drafts) <= _SMALL_GROUP:
            recipe = recipes.append(conversation_id, drafts, now)
        else:
            recipe = recipes.append_many(conversation_id, drafts, now)
        added = self._once(
            verb, key, lambda: (conversation_id, *given, *(_content_of(draft, now) for draft in drafts)), recipe,
            lambda made: [message.id for message in made], _replay_messages,
        )  # fmt: skip
        if new is not None:
            self._settle(conversation_id)
        return added

    def get_messages(
        self,
        conversation_id: str,
        limit: int = 50,
        before: int | str | None = None,
        after: int | str | None = None,
        last: int | None = None,
        roles: Iterable[MessageRole | str] | None = None,
    ) -> Page[Message]:
        """Messages in order of ``seq``; none of an unknown conversation.

        Without a bound the oldest ``limit``; with ``after`` (a seq) those that follow it; with ``before`` the ones just
        ahead of it; ``last=n`` the newest n. ``limit`` and ``last`` go up to 1,000. ``next_cursor`` is what to pass
        on as ``after`` (as ``before``, when reading backwards), None at the end.
        """
        limits.identifier(conversation_id, "conversation_id")
        limits.count(limit, "limit", 0, limits.PAGE)
        low = 1 if after is None else _seq(after, "after") + 1
        high = None if before is None else _seq(before, "before") - 1
        newest = last is not None or (before is not None and after is None)
        if last is not None:
            limit = limits.count(last, "last", 0, limits.PAGE)
        wanted = None if roles is None else _roles(roles)
        if limit == 0:
            return Page()
        page = recipes.page(conversation_id, low, high, limit, newest, wanted)
        found, more = self._run(page.taking_long() if limit > _QUICK_PAGE else page)
        edge = (found[0] if newest else found[-1]).seq if found else None
        return Page(found, str(edge) if more else None)

    def get_message(self, message_id: str) -> Message | None:
        """One message by its id, None when there is none (any more)."""
        limits.identifier(message_id, "message_id")
        return self._run(recipes.get(message_id))

    def edit_message(
        self,
        message_id: str,
        content: Content | Sequence[Any] | Unset = UNSET,
        *,
        name: str | Unset | None = UNSET,
        metadata: Mapping[str, Any] | Unset | None = UNSET,
        token_usage: TokenUsage | Mapping[str, Any] | Unset | None = UNSET,
        expected_version: int | None = None,
    ) -> Message:
        """The message with what was given in place of what it had; the former version goes into its trail.

        At least one of content, name, metadata and token_usage must be given.

        Raises ``NotFound``, and ``Conflict`` when ``expected_version`` is given and is not its version.
        """
        limits.identifier(message_id, "message_id")
        if all(isinstance(value, Unset) for value in (content, name, metadata, token_usage)):
            raise Invalid("nothing was given to change", field="content")
        now = self._clock()

        def change(old: Message) -> Prepared:
            return prepare.edited(old, now, content, name, metadata, token_usage)

        return self._run(recipes.edit(message_id, change, expected_version, now))

    def delete_message(self, message_id: str) -> None:
        """Takes the message out of every answer; its trail keeps what it said. Raises ``NotFound``."""
        limits.identifier(message_id, "message_id")
        self._run(_delete_message(message_id, self._clock()))

    def erase_message(self, message_id: str) -> None:
        """Removes the message (a deleted one too) with its trail, its index terms and its id. Raises ``NotFound``."""
        limits.identifier(message_id, "message_id")
        self._run(_erase_message(message_id, self._clock(), f"erased:{new_id()}"))

    def message_history(self, message_id: str) -> list[MessageVersion]:
        """What the message said before each edit and before its deletion, oldest first; empty when never changed."""
        limits.identifier(message_id, "message_id")
        return self._run(recipes.history(message_id))

    def flush(self, conversation_id: str, messages: Iterable[Draft | Mapping[str, Any]]) -> list[Message]:
        """What of ``messages`` was not stored yet, appended: a caller may hand over its whole history each turn.

        A message that carries an id is known by it, any other by its place and content. All or none is stored.
        """
        limits.identifier(conversation_id, "conversation_id")
        now = self._clock()
        drafts = list(islice(messages, limits.DRAFTS + 1))  # one more is refused; there may be no end
        prepared = prepare.prepare_each(drafts, now, "messages")
        given = {message.id for draft, message in zip(drafts, prepared, strict=True) if _given_id(draft) is not None}
        ensured = self._shared.ensured.get((self.tenant, conversation_id))
        added = self._run(_flush(conversation_id, prepared, given, ensured, now))
        if ensured is not None and added:
            self._settle(conversation_id)
        return added

    def context_window(
        self,
        conversation_id: str,
        max_tokens: int,
        keep_system: bool = True,
        *,
        token_counter: window.TokenCounter | None = None,
    ) -> list[Message]:
        """The newest turns that fit into ``max_tokens``, in order; a tool call is never split from its results.

        With ``keep_system`` the system and developer messages come first whatever their age, and count; when they are
        too many, the newest of them that leave room for the newest turn. The counter takes a message and returns its
        tokens; the default estimates four bytes a token. Raises ``Invalid`` when not even the newest system message
        and the newest turn fit, and says how many tokens they need.
        """
        limits.identifier(conversation_id, "conversation_id")
        limits.count(max_tokens, "max_tokens", 1, limits.TOKENS)
        count = token_counter or window.estimate_tokens
        kept: list[Message] = []
        room, back = max_tokens, "9" * 15 if keep_system else None
        while back is not None and room > 0:
            page = self.get_messages(conversation_id, _WINDOW_PAGE, before=back, roles=("system", "developer"))
            kept = [*page, *kept]
            room -= sum(count(message) for message in page)
            back = page.next_cursor
        systems = {MessageRole.SYSTEM, MessageRole.DEVELOPER} if keep_system else set[MessageRole]()
        newest: list[Message] = []
        budget, before, further = max_tokens, 2**53, _FURTHER_PAGES
        while budget > 0 or (further and window.strays(newest)):
            further -= budget <= 0
            page = self.get_messages(conversation_id, _WINDOW_PAGE, before=before)
            newest = [message for message in page if message.role not in systems] + newest
            budget -= sum(count(message) for message in page if message.role not in systems)
            if page.next_cursor is None:
                break
            before = int(page.next_cursor)
        return window.fit(newest, max_tokens, count, keep=kept)


# -- recipes that join rooms ----------------------------------------------------------------------------------------------


@op(long=True)
def _create_and_append(new: ops.NewConversation, drafts: Sequence[Prepared], now: int) -> Steps[list[Message]]:
    """The first messages of a conversation that was only ensured, or more of one that exists by now."""
    created_at = min(draft.created_at for draft in drafts)
    yield from ops.insert(ops.NewConversation(new.id, new.agent_id, new.user_id, new.metadata, created_at), now)
    return (yield from recipes.append(new.id, drafts, now))


@op(long=True)
def _flush(
    conversation_id: str, history: Sequence[Prepared], given: set[str], new: ops.NewConversation | None, now: int
) -> Steps[list[Message]]:
    if new is not None:
        if not history:
            return []  # nothing to keep: the conversation goes on not to exist
        created_at = min(message.created_at for message in history)
        yield from ops.insert(ops.NewConversation(new.id, new.agent_id, new.user_id, new.metadata, created_at), now)
    row = yield from ops.locked(conversation_id)  # two flushes of one history must not both append
    slots = yield from recipes.slots(row)
    fresh = flushing.missing(history, given, slots)
    if not fresh:
        return []
    return (yield from recipes.append(conversation_id, fresh, now))


@op
def _delete_message(message_id: str, now: int) -> Steps[None]:
    row = yield from recipes.delete(message_id, now)
    yield from texts.forget([row])


@op
def _erase_message(message_id: str, now: int, pseudonym: str) -> Steps[None]:
    row = yield from recipes.erase(message_id, now, pseudonym)
    yield from texts.forget([row])
    yield from keys.forget([message_id], "add_message", "add_messages")


@op(reads=True)
def _replay_messages(ids: list[str]) -> Steps[list[Message] | None]:
    """The messages that an idempotency key created, None when one of them is gone."""
    found: list[Message] = []
    for message_id in ids:
        message = yield from recipes.get(message_id)
        if message is None:
            return None
        found.append(message)
    return found


def _content_of(draft: Prepared, now: int) -> tuple[object, ...]:
    """What makes two drafts the same: everything but the id and the time that the store gives."""
    usage = draft.usage
    at = None if draft.created_at == now else draft.created_at
    counted = (
        None
        if usage is None
        else (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.model, usage.cost)
    )
    return (draft.role, draft.name, draft.body, draft.form, draft.metadata, counted, draft.parent_id, at)


def _given_id(draft: Draft | Mapping[str, Any]) -> str | None:
    return draft.get("id") if isinstance(draft, Mapping) else draft.id


def _seq(value: int | str, field: str) -> int:
    """A seq, or the ``next_cursor`` of a page, which is one as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    return limits.count(value, field, 0, 2**53)


def _roles(roles: Iterable[MessageRole | str]) -> list[str]:
    if isinstance(roles, str):
        roles = [roles]
    known = {role.value for role in MessageRole}
    wanted = sorted({str(role) for role in roles})
    for role in wanted:
        if role not in known:
            raise Invalid(f"there is no role {role[:40]!r}; there are {', '.join(sorted(known))}", field="roles")
    return wanted
