"""Conversations that are only ensured: they exist from their first message on."""

import pytest

from perdure import (
    Busy,
    Conflict,
    ConversationMetadata,
    Draft,
    Invalid,
    NotFound,
    TokenUsage,
)
from perdure.testing.drivers import Opener
from perdure.testing.suite.tools import (
    TurnedClock,
    everything,
    refusal,
    row_count,
    said,
    texts,
    together,
)


async def test_ensuring_writes_nothing(opener: Opener) -> None:
    async with opener() as store:
        await store.search_messages("warm up")
        before = await everything(store)
        await store.ensure_conversation("later", "helper", "ann", {"tags": ["t"]})
        await store.ensure_conversation("later", "helper", "ann")
        assert await store.get_conversation("later") is None
        assert await store.get_messages("later") == []
        assert await store.query_conversations() == []
        assert await store.context_window("later", 100) == []
        assert await store.flush("later", []) == []
        assert await store.add_messages("later", []) == []
        assert await everything(store) == before
        for wrong, field in ((("", "a", "u"), "id"), (("x", "", "u"), "agent_id"), (("x", "a", " "), "user_id")):
            assert (await refusal(Invalid, store.ensure_conversation(*wrong))).field == field
    async with opener() as store:
        await refusal(NotFound, store.add_message("later", "user", "x"))  # ensured by a store that is gone


async def test_the_first_message_creates_what_was_ensured(opener: Opener) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await store.ensure_conversation("one", "helper", "ann", {"tags": ["t"], "title": "T"})
        await store.ensure_conversation("many", "helper", "bob")
        clock.turn(hours=1)
        first = await store.add_message("one", "user", "hello", token_usage={"input_tokens": 5})
        assert (first.seq, (await store.add_message("one", "user", "more")).seq) == (1, 2)
        assert [m.seq for m in await store.add_messages("many", [Draft("user", f"m{n}") for n in range(30)])] == list(
            range(1, 31)
        )
        made = await store.get_conversation("one")
        assert (made.user_id, made.metadata, made.message_count) == ("ann", ConversationMetadata("T", ("t",)), 2)
        assert (made.created_at, made.last_message_at, made.token_usage) == (clock.now, clock.now, TokenUsage(5))
        assert [found.id for found in await store.query_conversations(filters={"tags": ["t"]})] == ["one"]
        assert [(c.kind, c.verb) async for c in store.all_changes()][:3] == [
            ("conversation", "create"),
            ("message", "add"),
            ("message", "add"),
        ]


async def test_a_refused_first_message_creates_nothing(opener: Opener) -> None:
    async with opener() as store:
        other = await said(store, "x")
        (taken,) = await store.get_messages(other.id)
        await store.ensure_conversation("later", "helper", "ann")
        await refusal(Invalid, store.add_message("later", "user", ""))
        await refusal(Conflict, store.add_message("later", "user", "x", id=taken.id))
        assert await store.get_conversation("later") is None
        assert (await store.add_message("later", "user", "x")).seq == 1


async def test_ensuring_joins_what_another_process_created(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        for store, user in ((one, "ann"), (two, "bob")):
            await store.ensure_conversation("shared", "helper", user, {"tags": [user]})
        await two.add_message("shared", "user", "from two")
        await one.add_message("shared", "user", "from one")
        assert await texts(one, "shared") == ["from two", "from one"]
        made = await one.get_conversation("shared")
        assert (made.user_id, made.metadata.tags, made.message_count) == ("bob", ("bob",), 2)


async def test_first_messages_at_the_same_moment_share_one_conversation(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        for store in (one, two):
            await store.ensure_conversation("shared", "helper", "ann", {"tags": ["t"]})
        answers = await together(
            opener,
            *(
                lambda store=store, n=n: store.add_message("shared", "user", f"m{n}")
                for n in range(6)
                for store in (one, two)
            ),
        )
        assert sorted(message.seq for message in answers) == list(range(1, 13))
        assert await row_count(one, "conversations") == 1
        assert (await two.get_conversation("shared")).message_count == 12


async def test_contention_at_the_first_message_disables_nothing(opener: Opener) -> None:
    async with opener() as other, opener(busy_timeout="50ms", lock_timeout="50ms") as store:
        await store.ensure_conversation("shared", "helper", "ann")
        async with other.transaction() as t:
            await t.create_conversation("helper", "ann", id="shared")
            for call in (
                store.add_message("shared", "user", "too early"),
                store.flush("shared", [Draft("user", "too early")]),
            ):
                await refusal(Busy, call)
        assert await texts(store, "shared") == []
        assert (await store.add_message("shared", "user", "platypus")).seq == 1
        assert [hit.message.text for hit in await store.search_messages("platypus")] == ["platypus"]
        assert await texts(other, "shared") == ["platypus"]


async def test_contention_that_ends_in_nothing_leaves_the_ensured_conversation(opener: Opener) -> None:
    async with opener() as other, opener(busy_timeout="50ms", lock_timeout="50ms") as store:
        await store.ensure_conversation("later", "helper", "ann")
        with pytest.raises(ZeroDivisionError):
            async with other.transaction() as t:
                await t.create_conversation("helper", "bob", id="later")
                await refusal(Busy, store.add_message("later", "user", "too early"))
                raise ZeroDivisionError
        await store.add_message("later", "user", "now")
        assert (await store.get_conversation("later")).user_id == "ann"


async def test_an_ensured_conversation_that_was_deleted_stays_deleted(opener: Opener) -> None:
    async with opener() as store:
        for own in ("plain", "inside"):
            await store.ensure_conversation(own, "helper", "ann")
        await store.add_message("plain", "user", "x")
        async with store.transaction() as t:
            await t.add_message("inside", "user", "x")
        for own in ("plain", "inside"):
            await store.delete_conversation(own)
            await refusal(NotFound, store.add_message(own, "user", "y"))
            assert await store.get_conversation(own) is None


async def test_an_ensured_conversation_survives_a_transaction_taken_back(opener: Opener) -> None:
    async with opener() as store:
        await store.ensure_conversation("later", "helper", "ann")
        for verb in ("add_message", "flush"):
            with pytest.raises(ZeroDivisionError):
                async with store.transaction() as t:
                    if verb == "flush":
                        await t.flush("later", [Draft("user", "lost")])
                    else:
                        await t.add_message("later", "user", "lost")
                        await t.add_message("later", "user", "lost too")
                    raise ZeroDivisionError
            assert await store.get_conversation("later") is None
        assert (await store.add_message("later", "user", "kept")).seq == 1
        assert await texts(store, "later") == ["kept"]
