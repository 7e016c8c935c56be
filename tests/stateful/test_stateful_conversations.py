"""Random lives of a store against a dict model: conversations, messages, forks, flushes, search, restarts.

Each example is a tenant of its own in one database, so what other examples left behind must not show either.
"""

import itertools
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import perdure.sync
from perdure import TokenUsage
from perdure.testing.suite.model import Said, Talk, World, counts, counts_of
from perdure.testing.suite.tools import TurnedClock

WORDS = ("quokka", "axolotl", "numbat", "okapi")
ROLES = ("user", "assistant", "system", "tool")
GROUPS = ("user_id", "agent_id", "model", "day")

words = st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
usages = st.none() | st.builds(
    TokenUsage,
    st.integers(0, 50),
    st.integers(0, 50),
    model=st.sampled_from([None, "m1", "m2"]),
    cost=st.decimals(0, 5, places=9),
)
tenants = itertools.count()


class Life(RuleBasedStateMachine):
    """One tenant's store and the model of it."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.clock = TurnedClock()
        self.world = World()
        self.numbers = itertools.count(1)
        self.tenant = f"tenant {next(tenants)}"
        self.ensured: dict[str, tuple[str, str]] = {}
        self.open()

    # -- the store -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.root = perdure.sync.Store(perdure.PersistenceConfig(self.url, pool_size=2), clock=self.clock)
        self.store = self.root.initialize().for_tenant(self.tenant)

    @rule()
    def restart(self) -> None:
        self.root.close()
        self.ensured.clear()  # it was promised by the store that is gone
        self.open()

    @rule(hours=st.integers(1, 30))
    def wait(self, hours: int) -> None:
        self.clock.turn(hours=hours)

    @rule()
    def rebuild_the_index(self) -> None:
        self.store.rebuild_text()

    def teardown(self) -> None:
        try:
            if self.world is not None:
                self.check_everything()
        finally:
            self.root.close()

    # -- picking -------------------------------------------------------------------------------------------------------

    def fresh(self, prefix: str) -> str:
        return f"{prefix}{next(self.numbers)}"

    def a_talk(self, data: st.DataObject) -> Talk:
        return data.draw(st.sampled_from(list(self.world.talks.values())))

    def a_message(self, data: st.DataObject) -> Said | None:
        living = list(self.world.living())
        return data.draw(st.sampled_from(living)) if living else None

    def text(self, said: str) -> str:
        return f"{said} number{next(self.numbers)}".strip()

    # -- conversations -------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.create("helper", "ann")

    @rule(agent=st.sampled_from(["helper", "coder"]), user=st.sampled_from(["ann", "bo"]))
    def create(self, agent: str, user: str) -> None:
        own = self.fresh("c")
        self.store.create_conversation(agent, user, id=own)
        self.world.create(own, agent, user)

    @rule(agent=st.sampled_from(["helper", "coder"]), user=st.sampled_from(["ann", "bo"]))
    def ensure(self, agent: str, user: str) -> None:
        own = self.fresh("e")
        self.store.ensure_conversation(own, agent, user)
        self.ensured[own] = (agent, user)
        assert self.store.get_conversation(own) is None

    @precondition(lambda self: self.ensured)
    @rule(said=words, usage=usages, flushed=st.booleans())
    def first_message(self, said: str, usage: TokenUsage | None, flushed: bool) -> None:
        own, (agent, user) = self.ensured.popitem()
        talk = self.world.create(own, agent, user)
        if flushed:
            self.flush_into(talk, [(self.text(said), usage)])
        else:
            self.add_to(talk, "user", said, usage)

    @precondition(lambda self: self.world.talks)
    @rule(data=st.data(), share=st.integers(0, 12))
    def fork(self, data: st.DataObject, share: int) -> None:
        source = self.a_talk(data)
        at_seq = min(share, len(source.slots))
        own = self.fresh("f")
        self.store.fork_conversation(source.id, at_seq, own)
        self.world.fork(source, at_seq, own)

    @precondition(lambda self: len(self.world.talks) > 1)
    @rule(data=st.data(), erase=st.booleans())
    def drop(self, data: st.DataObject, erase: bool) -> None:
        talk = self.a_talk(data)
        (self.store.erase_conversation if erase else self.store.delete_conversation)(talk.id)
        self.world.drop(talk, erase=erase)

    # -- messages ------------------------------------------------------------------------------------------------------

    def add_to(self, talk: Talk, role: str, said: str, usage: TokenUsage | None) -> None:
        own, text, key = self.fresh("m"), self.text(said), self.fresh("k")
        for _ in range(2):
            message = self.store.add_message(talk.id, role, text, token_usage=usage, id=own, idempotency_key=key)
        self.world.add(talk, own, role, text, usage, message.created_at)
        assert message.seq == len(talk.slots)

    @precondition(lambda self: self.world.talks)
    @rule(data=st.data(), role=st.sampled_from(ROLES), said=words, usage=usages)
    def add(self, data: st.DataObject, role: str, said: str, usage: TokenUsage | None) -> None:
        self.add_to(self.a_talk(data), role, said, usage)

    @precondition(lambda self: self.world.talks)
    @rule(data=st.data(), several=st.lists(st.tuples(st.sampled_from(ROLES), words, usages), min_size=2, max_size=12))
    def add_many(self, data: st.DataObject, several: list[tuple[str, str, TokenUsage | None]]) -> None:
        talk = self.a_talk(data)
        drafts = [
            {"role": role, "content": self.text(said), "token_usage": usage, "id": self.fresh("m")}
            for role, said, usage in several
        ]
        for draft, message in zip(drafts, self.store.add_messages(talk.id, drafts), strict=True):
            self.world.add(talk, message.id, draft["role"], draft["content"], draft["token_usage"], message.created_at)
            assert message.seq == len(talk.slots)

    @rule(data=st.data(), said=words, usage=usages)
    def edit(self, data: st.DataObject, said: str, usage: TokenUsage | None) -> None:
        message = self.a_message(data)
        if message is not None:
            text = self.text(said)
            self.store.edit_message(message.id, text, token_usage=usage, expected_version=message.version)
            self.world.edit(message, text, usage)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        message = self.a_message(data)
        if message is not None:
            self.store.delete_message(message.id)
            self.world.delete(message)

    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        known = list(self.world.known())
        if known:
            message = data.draw(st.sampled_from(known))
            self.store.erase_message(message.id)
            self.world.erase(message)

    @precondition(lambda self: self.world.talks)
    @rule(data=st.data(), several=st.lists(st.tuples(words, usages), max_size=4))
    def flush(self, data: st.DataObject, several: list[tuple[str, TokenUsage | None]]) -> None:
        self.flush_into(self.a_talk(data), [(self.text(said), usage) for said, usage in several])

    def flush_into(self, talk: Talk, fresh: list[tuple[str, TokenUsage | None]]) -> None:
        history: list[dict[str, Any]] = [{"role": said.role, "content": said.text} for _, said in talk.living()]
        history += [{"role": "user", "content": text, "token_usage": usage} for text, usage in fresh]
        added = self.store.flush(talk.id, history)
        assert [message.text for message in added] == [text for text, _ in fresh]
        for message, (text, usage) in zip(added, fresh, strict=True):
            self.world.add(talk, message.id, "user", text, usage, message.created_at)
            assert message.seq == len(talk.slots)
        if history:
            assert self.store.flush(talk.id, history) == []

    # -- what must hold ------------------------------------------------------------------------------------------------

    def home(self, said: Said) -> str:
        """The conversation that a message belongs to: its own or, when it is deleted, the oldest fork."""
        if said.owner.live:
            return said.owner.id
        return next(talk.id for talk in self.world.talks.values() if said in talk.slots)

    @rule(word=st.sampled_from(WORDS))
    def search(self, word: str) -> None:
        hits = self.store.search_messages(word, limit=1_000)
        expected = {(said.id, said.text, self.home(said)) for said in self.world.living() if word in said.text}
        assert {(hit.message.id, hit.message.text, hit.message.conversation_id) for hit in hits} == expected
        assert len(hits) == len(expected)

    @rule(word=st.sampled_from(WORDS), user=st.sampled_from(["ann", "bo", "nobody"]))
    def search_of_a_user(self, word: str, user: str) -> None:
        hits = self.store.search_messages(word, user_id=user, limit=1_000)
        expected = {said.id for said in self.world.living() if word in said.text and said.owner.user == user}
        assert {hit.message.id for hit in hits} == expected

    @precondition(lambda self: self.world.talks)
    @rule(data=st.data(), word=st.sampled_from(WORDS))
    def search_in_a_conversation(self, data: st.DataObject, word: str) -> None:
        talk = self.a_talk(data)
        hits = self.store.search_messages(word, conversation_id=talk.id, limit=1_000)
        expected = {(seq, said.id, talk.id) for seq, said in talk.living() if word in said.text}
        assert {(hit.message.seq, hit.message.id, hit.message.conversation_id) for hit in hits} == expected

    @rule(data=st.data())
    def look_at_a_message(self, data: st.DataObject) -> None:
        known = list(self.world.known())
        if known:
            said = data.draw(st.sampled_from(known))
            trail = self.store.message_history(said.id)
            assert [(version.verb, version.content) for version in trail] == said.trail
            message = self.store.get_message(said.id)
            if said.state == "living":
                assert (message.text, message.version, message.conversation_id) == (
                    said.text,
                    said.version,
                    self.home(said),
                )
            else:
                assert message is None

    @invariant()
    def the_newest_conversation_is_right(self) -> None:
        if self.world is not None and self.world.talks:
            self.check_talk(next(reversed(self.world.talks.values())))

    def check_talk(self, talk: Talk) -> None:
        found = self.store.get_conversation(talk.id, include_messages=True)
        living = talk.living()
        assert (found.agent_id, found.user_id) == (talk.agent, talk.user)
        assert counts(found.message_count, found.token_usage) == counts_of([said for _, said in living])
        assert [
            (m.seq, m.id, m.role.value, m.text, m.version, m.token_usage, m.created_at) for m in found.messages
        ] == [(seq, said.id, said.role, said.text, said.version, said.usage, said.at) for seq, said in living]

    def check_everything(self) -> None:
        listed = {one.id for one in self.store.query_conversations(limit=1_000)}
        assert listed == set(self.world.talks)
        for talk in self.world.talks.values():
            self.check_talk(talk)
        for word in WORDS:
            self.search(word)
        for group_by in ((), ("user_id", "model"), GROUPS):
            rows = self.store.token_report(*group_by)
            found = {
                tuple(getattr(row, name) for name in group_by): counts(row.messages, row.token_usage) for row in rows
            }
            assert found == self.world.report(*group_by)
        stats = self.store.stats()
        spent = sum((self.store.get_conversation(own).token_usage.cost for own in self.world.talks), Decimal(0))
        assert (stats["conversations"], stats["cost"]) == (len(self.world.talks), spent)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database on each engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'life.db'}"
    else:
        yield request.getfixturevalue("fresh_postgres_url")


def lived(url: str, examples: int, steps: int) -> None:
    """Runs that many lives of that many steps, the same ones each time."""
    run_state_machine_as_test(
        lambda: Life(url),
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_every_life_is_as_the_model_says(url: str) -> None:
    lived(url, 25, 30)


@pytest.mark.full
def test_many_long_lives_are_as_the_model_says(url: str) -> None:
    lived(url, 200, 60)
