"""The verbs whose growth is measured: in a store with ever more conversations, and on one that has ever more messages."""

import io
import itertools
import random
from collections.abc import Callable
from typing import Any

import perdure
import perdure.sync
from bench import data, lanes

EACH = 50
"""Messages in a conversation, where there are many."""


class Filled:
    """A filled store, with endless ids of what is in it and of what is not."""

    def __init__(self, store: perdure.sync.Store, talks: int, each: int) -> None:
        self.store = store
        self.talks = talks
        self.each = each
        self.rng = random.Random(5)
        self.said = data.cycle(data.messages(200, seed=9))
        self.numbers = itertools.count()

    def talk(self) -> str:
        """A random conversation."""
        return lanes.talk(self.rng.randrange(self.talks))

    def message(self) -> str:
        """A random message."""
        while not (page := self.store.get_messages(self.talk(), 1, after=self.rng.randrange(self.each))):
            pass
        return page[0].id

    def fresh(self) -> str:
        """An id that nothing has."""
        return f"fresh-{next(self.numbers)}"

    def doomed(self) -> str:
        """A conversation like the others that nothing else uses, indexed too."""
        name = self.fresh()
        self.store.create_conversation("agent", "other-1", id=name)
        self.store.add_messages(name, self.drafts(EACH))
        self.store.absorb_text()
        return name

    def cursor(self) -> str:
        """A random place of the feed."""
        return f"0.{self.rng.randrange(self.talks * self.each)}"

    def drafts(self, count: int) -> list[perdure.Draft]:
        return [next(self.said).draft for _ in range(count)]

    def add(self, name: str) -> perdure.Message:
        one = next(self.said)
        return self.store.add_message(name, one.role, one.text, token_usage=one.usage)

    def history(self, name: str) -> list[perdure.Draft]:
        """All messages of a conversation, and a new one."""
        talk = self.store.get_conversation(name, include_messages=True)
        assert talk is not None
        told = [perdure.Draft(one.role, one.content) for one in talk.messages[:9_000]]
        return [*told, perdure.Draft("user", f"Something new: {self.fresh()}")]

    def exported(self) -> io.BytesIO:
        """Two conversations of 50 messages, exported from elsewhere."""
        chunks: list[bytes] = []
        with perdure.sync.open(":memory:") as elsewhere:
            other = Filled(elsewhere, 0, 0)
            other.numbers = self.numbers
            other.doomed()
            other.doomed()
            elsewhere.export_conversations(chunks.append)
        return io.BytesIO(b"".join(chunks))


Target = Callable[[Filled], Any]
Verb = tuple[str, str, Target, Callable[[perdure.sync.Store, Any], Any]]
"""A name, why it may be linear (or ""), what it is called with (found before the clock runs), and the call."""

_WHOLE = "reads its whole scope"
_OWN = "linear in the messages of its conversation"


def _nothing(filled: Filled) -> None:
    del filled


def _one_more(filled: Filled) -> tuple[str, data.Said]:
    return filled.talk(), next(filled.said)


def _add(store: perdure.sync.Store, target: tuple[str, data.Said]) -> perdure.Message:
    name, one = target
    return store.add_message(name, one.role, one.text, token_usage=one.usage)


def _ensure(store: perdure.sync.Store, target: tuple[str, data.Said]) -> perdure.Message:
    store.ensure_conversation(target[0], "agent", "other-1")
    return _add(store, target)


def _transaction(store: perdure.sync.Store, target: tuple[str, str]) -> None:
    with store.transaction() as together:
        for name in target:
            together.add_message(name, "user", "A few words in the same transaction")


def _after_an_add(filled: Filled) -> None:
    filled.add(filled.talk())


def _export(store: perdure.sync.Store, _: None) -> object:
    return store.export_conversations(len)


STORE: list[Verb] = [
    ("get_conversation", "", Filled.talk, lambda s, name: s.get_conversation(name)),
    ("get_conversation, messages", "", Filled.talk, lambda s, name: s.get_conversation(name, include_messages=True)),
    ("get_messages, last 50", "", Filled.talk, lambda s, name: s.get_messages(name, last=50)),
    ("get_message", "", Filled.message, lambda s, one: s.get_message(one)),
    ("message_history", "", Filled.message, lambda s, one: s.message_history(one)),
    ("context_window", "", Filled.talk, lambda s, name: s.context_window(name, 2_000)),
    ("to_openai", "", Filled.talk, lambda s, name: s.to_openai(name, max_tokens=2_000)),
    ("query_conversations, user", "", _nothing, lambda s, _: s.query_conversations(user_id="user-7")),
    ("query_conversations, all", "", _nothing, lambda s, _: s.query_conversations()),
    (
        "query_conversations, tag", "checks the filter row by row", _nothing,
        lambda s, _: s.query_conversations(filters={"tags": ["rare"]}),
    ),
    (
        "query_conversations, by count", "sorts its scope", _nothing,
        lambda s, _: s.query_conversations(order_by="message_count"),
    ),
    ("token_report, model", "adds up its scope's days", _nothing, lambda s, _: s.token_report("model")),
    ("search_messages, rare", "", _nothing, lambda s, _: s.search_messages(data.RARE_WORD)),
    ("search_messages, common", "", _nothing, lambda s, _: s.search_messages(data.COMMON_WORD)),
    ("search_messages, user", "", _nothing, lambda s, _: s.search_messages(data.COMMON_WORD, user_id="user-7")),
    ("changes, 100", "", Filled.cursor, lambda s, cursor: s.changes(cursor, limit=100)),
    ("latest_change", "", _nothing, lambda s, _: s.latest_change()),
    ("trail", "", Filled.message, lambda s, one: s.trail("message", one)),
    ("verify", "", _nothing, lambda s, _: s.verify()),
    ("stats", _WHOLE, _nothing, lambda s, _: s.stats()),
    ("export_conversations", _WHOLE, _nothing, _export),
    ("doctor", _WHOLE, _nothing, lambda s, _: s.doctor()),
    ("add_message", "", _one_more, _add),
    ("add_messages, 20", "", lambda f: (f.talk(), f.drafts(20)), lambda s, target: s.add_messages(*target)),
    ("create_conversation", "", _nothing, lambda s, _: s.create_conversation("agent", "other-1")),
    ("ensure_conversation, add", "", lambda f: (f.fresh(), next(f.said)), _ensure),
    ("update_conversation", "", Filled.talk, lambda s, name: s.update_conversation(name, {"title": "Another title"})),
    ("edit_message", "", Filled.message, lambda s, one: s.edit_message(one, "Other words")),
    ("fork_conversation", "", Filled.talk, lambda s, name: s.fork_conversation(name, 25)),
    ("transaction, 2 adds", "", lambda f: (f.talk(), f.talk()), _transaction),
    (
        "flush, 1 new", "", lambda f: (name := f.talk(), f.history(name)),
        lambda s, target: s.flush(*target),
    ),
    ("search_messages after an add", "", _after_an_add, lambda s, _: s.search_messages(data.RARE_WORD)),
    ("import_conversations, 2 of 50", "", Filled.exported, lambda s, lines: s.import_conversations(lines)),
    ("delete_message", "", Filled.message, lambda s, one: s.delete_message(one)),
    ("erase_message", "", Filled.message, lambda s, one: s.erase_message(one)),
    ("delete_conversation", "", Filled.doomed, lambda s, name: s.delete_conversation(name)),
    ("erase_conversation", "", Filled.doomed, lambda s, name: s.erase_conversation(name)),
]  # fmt: skip

_TALK = lanes.talk(0)

CONVERSATION: list[Verb] = [
    ("get_conversation", "", _nothing, lambda s, _: s.get_conversation(_TALK)),
    ("get_conversation, messages", _OWN, _nothing, lambda s, _: s.get_conversation(_TALK, include_messages=True)),
    ("get_messages, last 50", "", _nothing, lambda s, _: s.get_messages(_TALK, last=50)),
    ("get_messages, 50 in the middle", "", lambda f: f.each // 2, lambda s, seq: s.get_messages(_TALK, 50, after=seq)),
    ("get_message", "", Filled.message, lambda s, one: s.get_message(one)),
    ("context_window", "", _nothing, lambda s, _: s.context_window(_TALK, 2_000)),
    ("search_messages, rare", "", _nothing, lambda s, _: s.search_messages(data.RARE_WORD, conversation_id=_TALK)),
    (
        "search_messages, common", _OWN, _nothing,
        lambda s, _: s.search_messages(data.COMMON_WORD, conversation_id=_TALK),
    ),
    ("add_message", "", _one_more, _add),
    ("edit_message", "", Filled.message, lambda s, one: s.edit_message(one, "Other words")),
    ("flush, 1 new", "compares the whole history", lambda f: f.history(_TALK), lambda s, all_: s.flush(_TALK, all_)),
    (
        "fork_conversation", "", lambda f: f.each,
        lambda s, seq: s.fork_conversation(_TALK, seq),
    ),
    ("delete_message", "", Filled.message, lambda s, one: s.delete_message(one)),
]  # fmt: skip
