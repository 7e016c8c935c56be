"""Messages that change: editing, deleting, erasing, and the trail of what they said."""

from datetime import timedelta
from decimal import Decimal

from perdure import Conflict, Invalid, MessageRole, NotFound, TextPart, TokenUsage
from perdure.testing.drivers import Opener
from perdure.testing.suite.tools import (
    PARTS,
    WILD,
    TurnedClock,
    everything,
    refusal,
    row_count,
    said,
    texts,
    together,
    traces,
)

# -- editing -----------------------------------------------------------------------------------------------------------


async def test_an_edit_replaces_what_is_given_and_keeps_the_rest(opener: Opener) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        made = await said(store, "before")
        old = await store.add_message(
            made.id,
            "assistant",
            "draft",
            name="Bo",
            metadata={"a": 1},
            token_usage=TokenUsage(1, 2, model="m"),
            parent_id="p",
        )
        clock.turn(hours=1)
        edited = await store.edit_message(old.id, "final")
        assert (edited.text, edited.version) == ("final", 2)
        same = ("id", "seq", "role", "name", "metadata", "token_usage", "created_at", "parent_id", "conversation_id")
        assert [getattr(edited, name) for name in same] == [getattr(old, name) for name in same]
        assert await store.get_message(old.id) == edited
        assert (await store.get_messages(made.id))[1] == edited
        bare = await store.edit_message(old.id, name=None, metadata=None, token_usage=None)
        assert (bare.text, bare.name, bare.metadata, bare.token_usage, bare.version) == ("final", None, {}, None, 3)
        parts = await store.edit_message(old.id, PARTS, name="Cy", metadata=WILD, token_usage={"input_tokens": 5})
        assert (parts.content, parts.name, parts.metadata) == (PARTS, "Cy", WILD)
        assert parts.token_usage == TokenUsage(5)
        assert (await store.get_conversation(made.id)).updated_at == clock.now


async def test_an_edit_corrects_the_totals(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "before")
        old = await store.add_message(made.id, "assistant", "x", token_usage=TokenUsage(10, 5, 20, "m", "0.5"))
        await store.edit_message(old.id, token_usage=TokenUsage(1, 2, 3, "n", "0.25"))
        now = await store.get_conversation(made.id)
        assert (now.message_count, now.token_usage) == (2, TokenUsage(1, 2, 3, None, "0.25"))
        assert [(row.model, row.token_usage) for row in await store.token_report("model")] == [
            ("n", TokenUsage(1, 2, 3, "n", "0.25"))
        ]
        await store.edit_message(old.id, token_usage=None)
        assert (await store.get_conversation(made.id)).token_usage == TokenUsage()
        assert await store.token_report("model") == []


async def test_an_edit_of_a_stale_version_is_a_conflict(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        made = await said(one, "v1")
        (message,) = await one.get_messages(made.id)
        assert (await one.edit_message(message.id, "v2", expected_version=1)).version == 2
        before = await everything(one)
        assert (await refusal(Conflict, two.edit_message(message.id, "v3", expected_version=1))).details[
            "field"
        ] == "expected_version"
        assert await everything(one) == before
        answers = await together(
            opener,
            *(
                lambda store=store: store.edit_message(message.id, "race", expected_version=2)
                for store in (one, two) * 3
            ),
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["Conflict"] * 5 + ["Message"]
        assert [version.version for version in await two.message_history(message.id)] == [1, 2]


async def test_an_edit_obeys_the_rules_of_adding(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "fine")
        (message,) = await store.get_messages(made.id)
        tool = await store.add_message(made.id, "tool", "result")
        for values, field in (
            ({"content": " "}, "content"), ({"content": "\0"}, "content"), ({"name": ""}, "name"),
            ({"metadata": {"a": object()}}, "metadata.a"), ({"token_usage": {"input_tokens": -1}}, "input_tokens"),
        ):  # fmt: skip
            assert (await refusal(Invalid, store.edit_message(message.id, **values))).field == field
        assert (await store.edit_message(tool.id, "")).text == ""
        assert await store.get_message(message.id) == message
        assert await store.message_history(message.id) == []
        assert (await refusal(NotFound, store.edit_message("nowhere", "x"))).details["field"] == "message_id"


# -- deleting, erasing, the trail --------------------------------------------------------------------------------------


async def test_a_deleted_message_leaves_every_answer_but_its_trail(opener: Opener) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        made = await said(store, "one", "three")
        gone = await store.add_message(
            made.id,
            "assistant",
            "platypus",
            name="Bo",
            metadata={"k": Decimal("1.0")},
            token_usage=TokenUsage(1, 2, model="m"),
        )
        clock.turn(minutes=1)
        await store.acting_as("eve").edit_message(gone.id, [TextPart("platypus two")])
        clock.turn(minutes=1)
        assert len(await store.search_messages("platypus")) == 1
        await store.acting_as("mallory").delete_message(gone.id)
        assert await store.get_message(gone.id) is None
        assert await texts(store, made.id) == ["one", "three"]
        assert (await store.get_conversation(made.id, include_messages=True)).messages[-1].text == "three"
        assert await store.search_messages("platypus") == []
        now = await store.get_conversation(made.id)
        assert (now.message_count, now.token_usage) == (2, TokenUsage())
        assert await store.token_report() == []
        trail = await store.message_history(gone.id)
        assert [(v.version, v.verb, v.actor, v.content, v.at) for v in trail] == [
            (1, "edit", "eve", "platypus", clock.now - timedelta(minutes=1)),
            (2, "delete", "mallory", (TextPart("platypus two"),), clock.now),
        ]
        assert [(v.role, v.name, v.metadata, v.token_usage) for v in trail] == [
            (MessageRole.ASSISTANT, "Bo", {"k": Decimal("1.0")}, TokenUsage(1, 2, model="m"))
        ] * 2
        for call in (store.delete_message(gone.id), store.edit_message(gone.id, "x"), store.delete_message("nowhere")):
            assert (await refusal(NotFound, call)).details["field"] == "message_id"


async def test_an_erased_message_leaves_no_trace(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "stays")
        living = await store.add_message(
            made.id, "user", "wombat alpha", id="id-alpha", token_usage={"input_tokens": 5}
        )
        edited = await store.add_message(
            made.id, "user", "wombat beta", id="id-beta", name="wombat", metadata={"wombat": 1}
        )
        deleted = await store.add_message(made.id, "user", [TextPart("wombat gamma")], id="id-gamma")
        await store.edit_message(edited.id, "wombat delta")
        await store.delete_message(deleted.id)
        await store.search_messages("wombat")
        assert len(await traces(store, "wombat")) > 3
        for message in (living, edited, deleted):
            await store.erase_message(message.id)
            assert await store.get_message(message.id) is None
            assert await store.message_history(message.id) == []
            await refusal(NotFound, store.erase_message(message.id))
        for word in ("wombat", "id-alpha", "id-beta", "id-gamma", "gamma", "delta"):
            assert await traces(store, word) == []
        assert await texts(store, made.id) == ["stays"]
        now = await store.get_conversation(made.id)
        assert (now.message_count, now.token_usage) == (1, TokenUsage())
        assert await store.token_report() == []
        assert await row_count(store, "message_versions") == 0
        again = await store.add_message(made.id, "user", "anew", id="id-alpha")
        assert (again.seq, await store.message_history("id-alpha")) == (5, [])
        await refusal(NotFound, store.erase_message("nowhere"))


async def test_erasing_touches_the_trail_of_nothing_else(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "one", id="same")
        await store.add_message("same", "user", "two", id="same")
        await store.acting_as("ann", "why").edit_message("same", "three")
        await store.erase_message("same")
        left = [(change.kind, change.verb, change.object_id, change.parent_id) async for change in store.all_changes()]
        assert (left[0], left[1][3]) == (("conversation", "create", "same", None), made.id)
        assert [entry[:2] for entry in left[2:]] == [("message", "add"), ("message", "edit"), ("message", "erase")]
        assert all(own.startswith("erased:") and parent == "same" for _, _, own, parent in left[2:])


async def test_a_message_that_never_changed_has_no_history(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "x")
        (message,) = await store.get_messages(made.id)
        assert await store.message_history(message.id) == []
        assert await store.message_history("nowhere") == []
