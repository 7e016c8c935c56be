"""The context window: the newest turns that fit, calls together with their results."""

import random
from typing import Any

from perdure import Draft, Invalid, Message, TextPart, ToolCallPart, ToolResultPart
from perdure.testing.drivers import Opener
from perdure.testing.suite.tools import refusal, said


def one_each(message: Message) -> int:
    """A counter of messages."""
    return 1


def by_length(message: Message) -> int:
    """A counter of characters."""
    return len(message.text)


def named(messages: list[Message]) -> list[str]:
    """What messages say."""
    return [message.text for message in messages]


async def test_the_newest_that_fit_come_in_order(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, *(f"m{n}" for n in range(9)))
        for size in range(1, 12):
            found = await store.context_window(made.id, size, token_counter=one_each)
            assert named(found) == [f"m{n}" for n in range(9)][-size:]
        assert found == await store.get_messages(made.id)
        assert await store.context_window("nowhere", 100) == []
        assert await store.context_window((await store.create_conversation("helper", "ann")).id, 100) == []


async def test_a_message_that_does_not_fit_ends_the_window(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "a", "b" * 50, "cc", "d")
        for size, expected in (
            (1, ["d"]),
            (2, ["d"]),
            (3, ["cc", "d"]),
            (52, ["cc", "d"]),
            (53, ["b" * 50, "cc", "d"]),
            (54, 4),
        ):
            found = named(await store.context_window(made.id, size, token_counter=by_length))
            assert found == expected if isinstance(expected, list) else len(found) == expected
        await store.add_message(made.id, "user", "e" * 100)
        error = await refusal(Invalid, store.context_window(made.id, 99, token_counter=by_length))
        assert (error.field, error.details["needed"], error.details["limit"]) == ("max_tokens", 100, 99)


async def test_the_estimate_is_four_bytes_a_token_and_a_frame(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "x" * 400, "x" * 400)
        assert len(await store.context_window(made.id, 207)) == 1
        assert len(await store.context_window(made.id, 208)) == 2
        assert (await refusal(Invalid, store.context_window(made.id, 103))).details["needed"] == 104


async def test_system_messages_are_kept_whatever_their_age(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        drafts = [
            Draft("system", "SYS"),
            *(Draft("user", f"m{n}") for n in range(5)),
            Draft("developer", "DEV"),
            Draft("user", "new"),
        ]
        await store.add_messages(made.id, drafts)
        assert named(await store.context_window(made.id, 4, token_counter=one_each)) == ["SYS", "DEV", "m4", "new"]
        assert named(await store.context_window(made.id, 3, token_counter=one_each)) == ["SYS", "DEV", "new"]
        assert named(await store.context_window(made.id, 2, token_counter=one_each)) == ["DEV", "new"]
        assert len(await store.context_window(made.id, 100, token_counter=one_each)) == 8
        assert named(await store.context_window(made.id, 3, keep_system=False, token_counter=one_each)) == [
            "m4",
            "DEV",
            "new",
        ]
        error = await refusal(Invalid, store.context_window(made.id, 1, token_counter=one_each))
        assert error.field == "max_tokens"
        assert named(await store.context_window(made.id, 1, keep_system=False, token_counter=one_each)) == ["new"]


async def test_the_limit_is_a_positive_number(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "x")
        for wrong in (0, -1, True, 1.5, "100", None):
            assert (await refusal(Invalid, store.context_window(made.id, wrong))).field == "max_tokens"
        assert (await refusal(Invalid, store.context_window("", 100))).field == "conversation_id"


async def test_calls_stay_with_their_results(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        await store.add_messages(made.id, [
            Draft("user", "q1"),
            Draft("assistant", [TextPart("calling"), ToolCallPart("c1", "f"), ToolCallPart("c2", "g")]),
            Draft("tool", [ToolResultPart("c2", "r2")]),
            Draft("tool", [ToolResultPart("c1", "r1")]),
            Draft("assistant", "a1"),
            Draft("user", "q2"),
        ])  # fmt: skip
        sizes = [len(await store.context_window(made.id, size, token_counter=one_each)) for size in range(1, 7)]
        assert sizes == [1, 2, 2, 2, 5, 6]


async def test_a_late_result_keeps_all_that_lies_between(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        await store.add_messages(made.id, [
            Draft("user", "q"),
            Draft("assistant", [ToolCallPart("c1", "f")]),
            Draft("assistant", "one moment"),
            Draft("user", "still there?"),
            Draft("tool", [ToolResultPart("c1", "r1")]),
            Draft("assistant", [ToolCallPart("c1", "f")]),  # some callers count their calls anew each turn
            Draft("tool", [ToolResultPart("c1", "r2")]),
        ])  # fmt: skip
        sizes = [len(await store.context_window(made.id, size, token_counter=one_each)) for size in range(2, 8)]
        assert sizes == [2, 2, 2, 2, 6, 7]
        await refusal(Invalid, store.context_window(made.id, 1, token_counter=one_each))


async def test_a_call_is_found_beyond_the_page_that_fits(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        drafts = [Draft("assistant", [ToolCallPart("far", "f")]), *(Draft("user", f"m{n}") for n in range(250))]
        drafts += [Draft("assistant", [ToolCallPart("near", "f")]), Draft("tool", [ToolResultPart("near", "r")])]
        drafts += [Draft("user", f"n{n}") for n in range(199)]
        await store.add_messages(made.id, drafts)
        assert len(await store.context_window(made.id, 200, token_counter=one_each)) == 199
        assert len(await store.context_window(made.id, 201, token_counter=one_each)) == 201
        await store.add_message(made.id, "tool", [ToolResultPart("far", "late")])
        error = await refusal(Invalid, store.context_window(made.id, 400, token_counter=one_each))
        assert error.details["needed"] == 453
        assert len(await store.context_window(made.id, 453, token_counter=one_each)) == 453


async def test_no_window_of_a_random_conversation_splits_a_call(opener: Opener, seeded_random: random.Random) -> None:
    rng = seeded_random
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        drafts: list[Draft] = []
        for number in range(120):
            drafts.append(Draft("user", f"q{number}"))
            calls = [f"c{number}.{n}" for n in range(rng.randrange(4))]
            if calls:
                drafts.append(Draft("assistant", [ToolCallPart(call, "f", "x" * rng.randrange(40)) for call in calls]))
                rng.shuffle(calls)
                cut = rng.randrange(len(calls) + 1)  # results in one message or in several
                drafts += [Draft("tool", [ToolResultPart(call, "y" * rng.randrange(40))]) for call in calls[:cut]]
                if calls[cut:]:
                    drafts.append(Draft("tool", [ToolResultPart(call, "y") for call in calls[cut:]]))
            drafts.append(Draft("assistant", "z" * rng.randrange(1, 60)))
        await store.add_messages(made.id, drafts)
        everyone = await store.get_messages(made.id, limit=1_000)
        for size in (1, 5, 30, *(rng.randrange(6_000) + 1 for _ in range(25))):
            if size < by_length(everyone[-1]):
                await refusal(Invalid, store.context_window(made.id, size, token_counter=by_length))
                continue
            found = await store.context_window(made.id, size, token_counter=by_length)
            assert 0 < sum(by_length(message) for message in found) <= size
            assert found == everyone[len(everyone) - len(found) :]
            asked, answered = linked(found)
            assert asked == answered
            earlier = everyone[: len(everyone) - len(found)]
            if earlier:  # nothing that would have fitted was left out
                turn = 1
                while linked(earlier[-turn:])[0] != linked(earlier[-turn:])[1]:
                    turn += 1
                assert sum(by_length(m) for m in [*earlier[-turn:], *found]) > size


def linked(messages: list[Message]) -> tuple[set[str], set[str]]:
    """The calls that messages make and those that they answer."""
    parts: list[Any] = [
        part for message in messages if not isinstance(message.content, str) for part in message.content
    ]
    asked = {part.id for part in parts if isinstance(part, ToolCallPart)}
    return asked, {part.tool_call_id for part in parts if isinstance(part, ToolResultPart)}


async def test_unanswered_calls_and_stray_results_do_no_harm(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        await store.add_messages(made.id, [
            Draft("tool", [ToolResultPart("lost", "stray")]),
            Draft("assistant", [ToolCallPart("never", "f")]),
            Draft("user", "went on"),
            Draft("assistant", "fine"),
            Draft("user", "again"),
        ])  # fmt: skip
        assert named(await store.context_window(made.id, 2, token_counter=one_each)) == ["fine", "again"]
        assert len(await store.context_window(made.id, 5, token_counter=one_each)) == 5


async def test_the_window_of_a_fork_reaches_into_what_it_shares(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, *(f"m{n}" for n in range(300)))
        fork = await store.fork_conversation(made.id, 290)
        await store.add_message(fork.id, "user", "own")
        await store.delete_message((await store.get_messages(fork.id, last=2))[0].id)
        found = await store.context_window(fork.id, 250, token_counter=one_each)
        assert named(found) == [*(f"m{n}" for n in range(40, 289)), "own"]
        assert {message.conversation_id for message in found} == {fork.id}


async def test_a_system_prompt_that_changes_each_turn_does_not_fill_the_window(opener: Opener) -> None:
    """The newest turn has its place; of too many system messages the newest are kept."""
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        for turn in range(300):
            await store.add_messages(made.id, [Draft("system", f"time {turn}"), Draft("user", f"m{turn}")])
        found = named(await store.context_window(made.id, 4, token_counter=one_each))
        assert found == ["time 297", "time 298", "time 299", "m299"]
