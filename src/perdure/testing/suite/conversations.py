"""Whole conversations: creating, ensuring, reading, updating, deleting and erasing them."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from perdure import (
    Conflict,
    ConversationMetadata,
    Draft,
    Invalid,
    NotFound,
    OverLimit,
    TokenUsage,
)
from perdure.testing.drivers import Opener
from perdure.testing.suite.tools import (
    TABLES,
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

KNOWN = "title, tags, context, participants, settings"


# -- creating ----------------------------------------------------------------------------------------------------------


async def test_what_creating_answers_is_what_reading_gives(opener: Opener) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        made = await store.create_conversation("helper", "ann", {"title": "Tax", "tags": ["a", "b"]}, id="c-1")
        assert await store.get_conversation("c-1") == made
        assert (made.id, made.agent_id, made.user_id, made.version) == ("c-1", "helper", "ann", 1)
        assert made.metadata == ConversationMetadata("Tax", ("a", "b"))
        assert (made.created_at, made.updated_at, made.last_message_at) == (clock.now, clock.now, None)
        assert (made.message_count, made.token_usage, made.messages) == (0, TokenUsage(), ())
        bare = await store.create_conversation(agent_id="helper", user_id="ann")
        assert bare.metadata == ConversationMetadata()
        assert (len(bare.id), bare.id[14], bare.id != made.id) == (36, "7", True)


async def test_an_id_is_taken_once(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        await one.create_conversation("helper", "ann", id="mine")
        before = await everything(one)
        for store in (one, two):
            error = await refusal(Conflict, store.create_conversation("other", "bob", {"tags": ["t"]}, id="mine"))
            assert error.details["field"] == "id"
        assert await everything(one) == before
        answers = await together(
            opener,
            *(lambda store=store: store.create_conversation("helper", "ann", id="race") for store in (one, two) * 4),
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["Conflict"] * 7 + ["Conversation"]


async def test_ids_are_opaque_text_of_512_bytes(opener: Opener) -> None:
    async with opener() as store:
        longest = "ü" * 256
        made = await store.create_conversation(longest, longest, id=longest)
        assert (made.id, made.agent_id, made.user_id) == (longest,) * 3
        assert await store.get_conversation(longest) == made
        good = {"agent_id": "helper", "user_id": "ann", "id": "x"}
        for name in good:
            error = await refusal(OverLimit, store.create_conversation(**{**good, name: longest + "x"}))
            assert (error.field, error.details["limit"]) == (name, 512)
            for wrong in ("", " \t\n", "\u3000", 5, b"x", "a\0", "\udc00"):
                assert (await refusal(Invalid, store.create_conversation(**{**good, name: wrong}))).field == name
        for name in ("agent_id", "user_id"):
            assert (await refusal(Invalid, store.create_conversation(**{**good, name: None}))).field == name
        assert await row_count(store, "conversations") == 1
        assert (await store.create_conversation("A", "Ann", id="x")).id == "x"
        assert (await store.create_conversation("A", "Ann", id="X")).id == "X"


async def test_a_conversation_may_be_imported_with_its_time(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann", created_at="2020-01-02T03:04:05.000006+01:00")
        assert made.created_at == datetime(2020, 1, 2, 2, 4, 5, 6, tzinfo=UTC)
        assert (await store.get_conversation(made.id)).created_at == made.created_at
        for wrong in ("1969-12-31", "soon", "9999-12-31T23:59:59-05:00", 5):
            error = await refusal(Invalid, store.create_conversation("helper", "ann", created_at=wrong))
            assert error.field == "created_at"


# -- metadata ----------------------------------------------------------------------------------------------------------


async def test_metadata_comes_back_as_it_was(opener: Opener) -> None:
    metadata = ConversationMetadata(
        title=" Straße – 'quoted' \"title\" ", tags=("b", "a", "ß"), context=WILD, participants=("ann", "bo"),
        settings={"model": "m", "temperature": 0.1, "stop": ["\n"]},
    )  # fmt: skip
    async with opener() as store:
        made = await store.create_conversation("helper", "ann", metadata)
        (listed,) = await store.query_conversations()
        for found in (made, await store.get_conversation(made.id), listed):
            assert found.metadata == metadata
            assert {key: repr(value) for key, value in found.metadata.context.items() if key != "nested"} == {
                key: repr(value) for key, value in WILD.items() if key != "nested"
            }
            assert str(found.metadata.context["nested"]["list"][1][1]["deep"][0]) == "2.0"


async def test_naive_times_in_metadata_are_utc(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation(
            "helper", "ann", {"context": {"at": datetime.fromisoformat("2026-03-01T12:00")}}
        )
        at = (await store.get_conversation(made.id)).metadata.context["at"]
        assert (at, at.tzinfo) == (datetime(2026, 3, 1, 12, tzinfo=UTC), UTC)


async def test_unknown_metadata_fields_are_refused_with_the_known_ones(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "x")
        for call in (
            store.create_conversation("helper", "ann", {"colour": "red", "title": "x"}),
            store.update_conversation(made.id, {"colour": "red"}),
            store.fork_conversation(made.id, 1, metadata={"colour": "red"}),
            store.ensure_conversation("later", "helper", "ann", {"colour": "red"}),
        ):
            error = await refusal(Invalid, call)
            assert (error.field, KNOWN in error.message) == ("metadata.colour", True)
        assert await row_count(store, "conversations") == 1


async def test_metadata_that_cannot_be_kept_is_refused_by_name(opener: Opener) -> None:
    deep: Any = {}
    for _ in range(70):
        deep = {"d": deep}
    cases: list[tuple[type[Invalid], Any, str]] = [
        (Invalid, "text", "metadata"),
        (Invalid, {"title": ""}, "metadata.title"),
        (Invalid, {"title": 5}, "metadata.title"),
        (Invalid, {"title": "a\0"}, "metadata.title"),
        (OverLimit, {"title": "x" * 4_097}, "metadata.title"),
        (Invalid, {"tags": "one"}, "metadata.tags"),
        (Invalid, {"tags": ["a", " "]}, "metadata.tags[1]"),
        (Invalid, {"tags": ["a", None]}, "metadata.tags[1]"),
        (OverLimit, {"tags": [str(n) for n in range(257)]}, "the number of metadata.tags"),
        (OverLimit, {"tags": ["x" * 1_025]}, "metadata.tags[0]"),
        (Invalid, {"participants": ["a\ud800"]}, "metadata.participants[0]"),
        (Invalid, {"context": [1]}, "metadata.context"),
        (Invalid, {"context": {"k": ["a\0"]}}, "metadata.context.k[0]"),
        (Invalid, {"context": {"a\0": 1}}, "metadata.context"),
        (Invalid, {"context": {"k": float("nan")}}, "metadata.context.k"),
        (Invalid, {"context": {"k": Decimal("inf")}}, "metadata.context.k"),
        (Invalid, {"context": {"k": 2**63}}, "metadata.context.k"),
        (Invalid, {"context": {"k": {1, 2}}}, "metadata.context.k"),
        (Invalid, {"settings": {"k": object()}}, "metadata.settings.k"),
        (OverLimit, {"context": deep}, "metadata"),
        (OverLimit, {"context": {"k": "x" * (4 * 2**20)}}, "metadata"),
    ]
    async with opener() as store:
        made = await said(store, "x")
        before = await everything(store)
        for kind, metadata, field in cases:
            for call in (
                store.create_conversation("helper", "ann", metadata),
                store.update_conversation(made.id, metadata),
            ):
                assert (await refusal(kind, call)).field == field
        assert await everything(store) == before


async def test_labels_are_kept_once_each(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann", {"tags": ["b", "a", "b"], "participants": ("x", "x")})
        assert (made.metadata.tags, made.metadata.participants) == (("b", "a"), ("x",))
        most = [f"tag {n}" for n in range(256)]
        assert (await store.create_conversation("helper", "ann", {"tags": most})).metadata.tags == tuple(most)
        assert (await store.create_conversation("helper", "ann", {"tags": {"z", "y"}})).metadata.tags == ("y", "z")


# -- reading and updating ----------------------------------------------------------------------------------------------


async def test_what_is_absent_is_none_to_read_and_not_found_to_change(opener: Opener) -> None:
    async with opener() as store:
        assert await store.get_conversation("nowhere") is None
        assert await store.get_conversation("nowhere", include_messages=True) is None
        for call in (
            store.update_conversation("nowhere", {}),
            store.delete_conversation("nowhere"),
            store.erase_conversation("nowhere"),
            store.fork_conversation("nowhere", 0),
            store.flush("nowhere", [Draft("user", "x")]),
        ):
            assert (await refusal(NotFound, call)).details["field"] == "conversation_id"
        for call in (store.get_conversation(" "), store.update_conversation("", {}), store.delete_conversation("")):
            assert (await refusal(Invalid, call)).field == "id"
        assert await row_count(store, "changes") == 0


async def test_messages_come_with_a_conversation_when_asked(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, *(f"m{n}" for n in range(120)))
        assert (await store.get_conversation(made.id)).messages == ()
        whole = await store.get_conversation(made.id, include_messages=True)
        assert whole.messages == tuple(await store.get_messages(made.id, limit=1_000))
        assert (whole.message_count, len(whole.messages)) == (120, 120)
        empty = await store.create_conversation("helper", "ann")
        assert (await store.get_conversation(empty.id, include_messages=True)).messages == ()


async def test_an_update_replaces_the_metadata(opener: Opener) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        made = await store.create_conversation("helper", "ann", {"title": "Old", "tags": ["a"], "context": {"k": 1}})
        later = clock.turn(hours=1)
        changed = await store.update_conversation(made.id, {"title": "New", "tags": ["b"], "participants": ["p"]})
        assert changed.metadata == ConversationMetadata("New", ("b",), {}, ("p",))
        assert (changed.version, changed.created_at, changed.updated_at) == (2, made.created_at, later)
        assert await store.get_conversation(made.id) == changed
        for filters, count in (
            ({"tags": ["a"]}, 0), ({"tags": ["b"]}, 1), ({"participant": "p"}, 1), ({"title_contains": "old"}, 0),
            ({"title_contains": "new"}, 1), ({"context": {"k": 1}}, 0),
        ):  # fmt: skip
            assert len(await store.query_conversations(filters=filters)) == count
        cleared = await store.update_conversation(made.id, {})
        assert (cleared.metadata, cleared.version) == (ConversationMetadata(), 3)
        assert await store.query_conversations(filters={"participant": "p"}) == []


async def test_an_update_of_a_stale_version_is_a_conflict(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        made = await said(one, "x")
        assert (await one.get_conversation(made.id)).version == 1  # messages do not change it
        await one.update_conversation(made.id, {"title": "first"}, expected_version=1)
        before = await everything(one)
        error = await refusal(Conflict, two.update_conversation(made.id, {"tags": ["x"]}, expected_version=1))
        assert error.details["field"] == "expected_version"
        assert await everything(one) == before
        answers = await together(
            opener,
            *(
                lambda store=store: store.update_conversation(made.id, {"title": "race"}, expected_version=2)
                for store in (one, two) * 3
            ),
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["Conflict"] * 5 + ["Conversation"]
        assert (await two.get_conversation(made.id)).version == 3
        for wrong in (0, "2", True, 2.0):
            error = await refusal(Invalid, one.update_conversation(made.id, {}, expected_version=wrong))
            assert error.field == "expected_version"


# -- deleting and erasing ----------------------------------------------------------------------------------------------


async def full_conversation(store: Any, own: str, word: str) -> None:
    """A conversation that leaves rows in every table, all of them holding a word."""
    await store.create_conversation(
        f"helper-{word}",
        f"ann-{word}",
        {"title": word, "tags": [word], "participants": [word], "context": {word: word}},
        id=own,
        idempotency_key="create",
    )
    usage = TokenUsage(3, 4, model=word, cost="0.5")
    for n in range(3):
        await store.add_message(
            own,
            "user",
            f"{word} {n}",
            name=word,
            metadata={word: n},
            token_usage=usage,
            id=f"{word}-{n}",
            idempotency_key=str(n),
        )
    await store.edit_message(f"{word}-0", f"{word} edited")
    await store.delete_message(f"{word}-1")
    await store.search_messages(word)


async def test_a_deleted_conversation_leaves_every_answer(opener: Opener) -> None:
    async with opener() as store:
        kept = await said(store, "stays")
        await full_conversation(store, "gone", "wombat")
        await store.delete_conversation("gone")
        assert await store.get_conversation("gone") is None
        assert await store.get_messages("gone") == []
        assert await store.get_message("wombat-0") is None
        assert await store.message_history("wombat-0") == []
        assert await store.search_messages("wombat") == []
        assert await store.search_messages("wombat", conversation_id="gone") == []
        assert [found.id for found in await store.query_conversations()] == [kept.id]
        assert await store.token_report("model") == []
        for call in (
            store.delete_conversation("gone"),
            store.update_conversation("gone", {}),
            store.add_message("gone", "user", "x"),
            store.edit_message("wombat-0", "x"),
            store.erase_message("wombat-2"),
            store.fork_conversation("gone", 0),
            store.erase_conversation("gone"),
        ):
            await refusal(NotFound, call)
        counts = [
            await row_count(store, table)
            for table in ("messages", "message_versions", "text_documents", "conversation_labels")
        ]
        assert counts == [1, 0, 1, 0]
        assert [(change.verb, change.object_id) async for change in store.all_changes(kinds=["conversation"])][-1] == (
            "delete",
            "gone",
        )


async def test_the_id_of_a_deleted_conversation_is_free(opener: Opener) -> None:
    async with opener() as store:
        for verb in (store.delete_conversation, store.erase_conversation):
            await store.create_conversation("helper", "ann", {"tags": ["old"]}, id="again")
            await store.add_message("again", "user", "before", id="m")
            await verb("again")
            made = await store.create_conversation("helper", "bob", id="again")
            assert (made.version, made.message_count, made.metadata) == (1, 0, ConversationMetadata())
            assert (await store.add_message("again", "user", "after", id="m")).seq == 1
            assert await texts(store, "again") == ["after"]
            await store.delete_conversation("again")


async def test_an_erased_conversation_leaves_no_trace(opener: Opener) -> None:
    async with opener() as store:
        await said(store, "stays")
        await full_conversation(store, "id-of-mine", "wombat")
        assert set(await traces(store, "wombat")) >= set(TABLES) - {"forks", "idempotency"}
        await store.acting_as("admin").erase_conversation("id-of-mine")
        assert await traces(store, "id-of-mine") == []
        left = await traces(store, "wombat")
        assert left == []
        assert await row_count(store, "messages") == 1
        erased = [change async for change in store.all_changes(kinds=["conversation"]) if change.verb == "erase"]
        assert [(change.actor, change.object_id.startswith("erased:")) for change in erased] == [("admin", True)]
