"""Flushing: a caller hands over its whole history each turn, and only what is new is stored."""

import random
from typing import Any

from perdure import Conflict, Draft, Invalid, NotFound, TextPart, ToolCallPart, ToolResultPart
from perdure.testing.drivers import Opener
from perdure.testing.suite.tools import everything, refusal, row_count, said, texts, together


def user(content: Any, **more: Any) -> dict[str, Any]:
    """A user's message as a mapping."""
    return {"role": "user", "content": content, **more}


async def test_each_turn_appends_what_is_new(opener: Opener, seeded_random: random.Random) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        history: list[Any] = [Draft("system", "be brief")]
        for turn in range(8):
            before = len(await store.get_messages(made.id, limit=1_000))
            assert before == (0 if turn == 0 else len(history))
            fresh: list[Any] = [
                user(f"question {turn}", name="Ann"),
                Draft("assistant", [TextPart("calling"), ToolCallPart(f"c{turn}", "f")]),
                {"role": "tool", "content": [{"type": "tool_result", "tool_call_id": f"c{turn}", "content": ""}]},
                Draft("assistant", "same words every turn", token_usage={"input_tokens": 1}),
            ][: seeded_random.randrange(1, 5)]
            history += fresh
            added = await store.flush(made.id, history if turn % 2 else iter(history))
            assert len(added) == len(fresh) + (turn == 0)
            assert [m.seq for m in await store.get_messages(made.id)] == list(range(1, len(history) + 1))
        everyone = await store.get_messages(made.id)
        assert [m.role.value for m in everyone] == [
            (entry.role.value if isinstance(entry, Draft) else entry["role"]) for entry in history
        ]
        assert any(m.content == (ToolResultPart("c0", ""),) for m in everyone) or len(history) > 0
        before = await everything(store)
        assert await store.flush(made.id, history) == []
        assert await everything(store) == before


async def test_what_flush_answers_is_what_it_appended(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "one")
        added = await store.flush(made.id, [user("one"), user("two", metadata={"k": 1}), user("three", parent_id="p")])
        assert added == (await store.get_messages(made.id))[1:]
        assert [(m.seq, m.text, m.metadata, m.parent_id) for m in added] == [
            (2, "two", {"k": 1}, None),
            (3, "three", {}, "p"),
        ]
        assert (await store.get_conversation(made.id)).message_count == 3


async def test_repeated_contents_count_as_often_as_they_are_said(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        for count in (2, 2, 5, 3):
            await store.flush(made.id, [user("yes")] * count)
        assert await texts(store, made.id) == ["yes"] * 5
        await store.flush(made.id, [*[user("yes")] * 5, user("no"), user("yes")])
        assert await texts(store, made.id) == ["yes"] * 5 + ["no", "yes"]


async def test_role_and_speaker_tell_equal_words_apart(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        history = [user("hi"), user("hi", name="Ann"), Draft("assistant", "hi"), user([TextPart("hi")])]
        assert len(await store.flush(made.id, history)) == 4
        assert await store.flush(made.id, history) == []
        assert [(m.seq, m.name) for m in await store.flush(made.id, [*history, user("hi", name="Bo")])] == [(5, "Bo")]


async def test_a_window_of_the_history_is_recognised(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        history = [user(f"m{n}") for n in range(10)]
        await store.flush(made.id, history)
        assert await store.flush(made.id, history[6:]) == []
        assert [m.text for m in await store.flush(made.id, [*history[7:], user("m10")])] == ["m10"]
        assert [m.text for m in await store.flush(made.id, [history[0], *history[8:], user("m10"), user("m11")])] == [
            "m11"
        ]
        assert await texts(store, made.id) == [f"m{n}" for n in range(12)]


async def test_a_window_goes_on_with_words_that_were_said_before(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        history = [Draft("system", "be brief"), user("hi"), user("yes"), user("why"), user("yes")]
        await store.flush(made.id, history)
        for window in (history[4:], [history[0], *history[4:]], history[3:]):
            assert await store.flush(made.id, window) == []
        grown = [*window, user("thanks"), user("yes")]
        for _ in range(2):  # the second time all of it is stored
            await store.flush(made.id, grown)
            await store.flush(made.id, [history[0], *grown[2:]])
            assert await texts(store, made.id) == ["be brief", "hi", "yes", "why", "yes", "thanks", "yes"]
        assert [m.text for m in await store.flush(made.id, [user("yes"), user("hi")])] == ["hi"]


async def test_a_message_that_changed_in_the_middle_is_appended(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        await store.flush(made.id, [user("a"), user("b"), user("c")])
        history = [user("a"), user("B"), user("c"), user("d")]
        assert [m.text for m in await store.flush(made.id, history)] == ["B", "d"]
        for same in (history, [user("a"), user("b"), user("c"), user("d")], [user("a"), user("c"), user("d")]):
            assert await store.flush(made.id, same) == []
        assert [m.text for m in await store.flush(made.id, [*history, user("e")])] == ["e"]
        assert await texts(store, made.id) == ["a", "b", "c", "B", "d", "e"]


async def test_a_change_without_anything_new_is_appended_once(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        await store.flush(made.id, [user("a"), user("b"), user("c")])
        for expected in (["B"], [], []):
            assert [m.text for m in await store.flush(made.id, [user("a"), user("B"), user("c")])] == expected


async def test_what_was_edited_or_deleted_here_is_still_recognised(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        history = [user("a"), user("secret"), user("tpyo"), user("last")]
        stored = await store.flush(made.id, history)
        await store.delete_message(stored[1].id)
        await store.edit_message(stored[2].id, "typo")
        await store.delete_message(stored[3].id)
        for same in (history, [user("a"), user("typo")], history[1:], [user("typo")]):
            assert await store.flush(made.id, same) == []
        assert [m.text for m in await store.flush(made.id, [*history, user("new")])] == ["new"]
        assert await texts(store, made.id) == ["a", "typo", "new"]


async def test_messages_with_ids_are_known_by_them(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        history = [user("a", id="1"), Draft("user", "b", id="2"), user("a", id="3")]
        assert [m.id for m in await store.flush(made.id, history)] == ["1", "2", "3"]
        assert await store.flush(made.id, history) == []
        await store.edit_message("2", "edited")
        await store.delete_message("3")
        assert await store.flush(made.id, history) == []  # neither taken back nor brought back
        assert await texts(store, made.id) == ["a", "edited"]
        assert (await store.flush(made.id, [*history, user("a", id="4"), user("z")]))[0].id == "4"
        assert await texts(store, made.id) == ["a", "edited", "a", "z"]
        assert await store.flush(made.id, [*history, user("a", id="4"), user("z")]) == []


async def test_ids_and_places_may_be_mixed(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        history = [user("yes"), user("x", id="x"), user("yes")]
        assert len(await store.flush(made.id, history)) == 3
        assert await store.flush(made.id, history) == []
        assert [m.text for m in await store.flush(made.id, [*history, user("yes")])] == ["yes"]
        assert await texts(store, made.id) == ["yes", "x", "yes", "yes"]


async def test_an_id_of_another_conversation_is_a_conflict(opener: Opener) -> None:
    async with opener() as store:
        one, two = await said(store, "one"), await said(store, "two")
        (theirs,) = await store.get_messages(one.id)
        before = await everything(store)
        await refusal(Conflict, store.flush(two.id, [user("two"), user("new"), user("one", id=theirs.id)]))
        for twice in ([user("a", id="x"), user("b", id="x")], [user("new"), user("new", id="y"), user("new", id="y")]):
            await refusal(Conflict, store.flush(two.id, twice))
        assert await everything(store) == before


async def test_a_fork_flushes_against_what_it_shows(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        history = [user("a", id="1"), user("b"), user("c")]
        await store.flush(made.id, history)
        fork = await store.fork_conversation(made.id, 2)
        assert [m.text for m in await store.flush(fork.id, [*history[:2], user("own")])] == ["own"]
        assert await store.flush(fork.id, [*history[:2], user("own")]) == []
        assert [m.text for m in await store.flush(fork.id, history)] == ["c"]
        assert await texts(store, fork.id) == ["a", "b", "own", "c"]
        assert await texts(store, made.id) == ["a", "b", "c"]


async def test_one_refused_message_refuses_the_whole_history(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "a")
        error = await refusal(Invalid, store.flush(made.id, [user("a"), user("b"), user("")]))
        assert error.field == "messages[2].content"
        assert await texts(store, made.id) == ["a"]
        await refusal(NotFound, store.flush("nowhere", [user("a")]))
        await refusal(NotFound, store.flush("nowhere", []))
        assert await store.flush(made.id, []) == []


async def test_flushing_creates_what_was_ensured(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        for store in (one, two):
            await store.ensure_conversation("later", "helper", "ann", {"tags": ["t"]})
        assert await one.flush("later", []) == []
        assert await row_count(one, "conversations") == 0
        history = [user("a", created_at="2025-01-01"), user("b")]
        assert len(await one.flush("later", history)) == 2
        made = await one.get_conversation("later")
        assert (made.metadata.tags, made.message_count, made.created_at.year) == (("t",), 2, 2025)
        assert await two.flush("later", history) == []
        assert [m.seq for m in await two.flush("later", [*history, user("c")])] == [3]


async def test_the_same_history_flushed_at_the_same_moment_is_stored_once(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        for store in (one, two):
            await store.ensure_conversation("shared", "helper", "ann")
        history = [user(f"m{n}") for n in range(12)]
        for size in (4, 12):
            answers = await together(
                opener,
                *(lambda store=store, size=size: store.flush("shared", history[:size]) for store in (one, two) * 3),
            )
            assert [answer for answer in answers if isinstance(answer, Exception)] == []
            assert await texts(one, "shared") == [f"m{n}" for n in range(size)]


async def test_a_long_history_is_flushed_whole(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        history = [Draft("user", f"m{n}") for n in range(1_500)]
        assert len(await store.flush(made.id, history[:1_200])) == 1_200
        assert [m.seq for m in await store.flush(made.id, history)] == list(range(1_201, 1_501))
        assert (await store.get_conversation(made.id)).message_count == 1_500
