"""Messages: adding them one by one and many at once, what they may hold, their tokens, their seqs."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from perdure import (
    Conflict,
    Draft,
    Invalid,
    MessageRole,
    NotFound,
    OverLimit,
    TextPart,
    TokenUsage,
    ToolCallPart,
    ToolResultPart,
)
from perdure.testing.drivers import Opener
from perdure.testing.suite.tools import (
    PARTS,
    ROLES,
    WILD,
    TurnedClock,
    everything,
    refusal,
    row_count,
    said,
    texts,
    together,
)

# -- adding ------------------------------------------------------------------------------------------------------------


async def test_what_adding_answers_is_what_reading_gives(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        first = await store.add_message(
            made.id, "user", "hello", name="Ann", metadata={"k": 1}, parent_id="elsewhere", id="m-1",
            token_usage={"input_tokens": 3, "output_tokens": 4, "model": "small", "cost": "0.000000001"},
        )  # fmt: skip
        second = await store.add_message(made.id, MessageRole.ASSISTANT, "hi")
        assert await store.get_messages(made.id) == [first, second]
        assert [await store.get_message("m-1"), await store.get_message(second.id)] == [first, second]
        assert (first.id, first.conversation_id, first.seq, second.seq) == ("m-1", made.id, 1, 2)
        assert (first.role, first.name, first.content, first.metadata) == (MessageRole.USER, "Ann", "hello", {"k": 1})
        assert (first.parent_id, first.version) == ("elsewhere", 1)
        assert first.token_usage == TokenUsage(3, 4, 7, "small", Decimal("0.000000001"))
        assert (second.name, second.metadata, second.token_usage, second.parent_id) == (None, {}, None, None)


async def test_every_role_is_kept_and_others_are_refused(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        for role in ROLES:
            await store.add_message(made.id, role, role)
        assert [message.role.value for message in await store.get_messages(made.id)] == list(ROLES)
        for wrong in ("robot", "", "User", None):
            error = await refusal(Invalid, store.add_message(made.id, wrong, "x"))
            assert error.field == "role"
            assert all(role in error.message for role in ROLES)


async def test_an_unknown_conversation_is_not_found(opener: Opener) -> None:
    async with opener() as store:
        await refusal(NotFound, store.add_message("nowhere", "user", "x"))
        await refusal(NotFound, store.add_messages("nowhere", [Draft("user", "x")]))
        await refusal(NotFound, store.add_messages("nowhere", [Draft("user", "x")] * 30))
        assert await row_count(store, "messages") == 0
        assert await store.get_messages("nowhere") == []
        assert await store.get_message("nowhere") is None


async def test_ids_have_up_to_512_bytes(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        longest = "é" * 256
        assert (await store.add_message(made.id, "user", "x", id=longest, parent_id=longest)).id == longest
        assert (await store.get_message(longest)).parent_id == longest
        for name in ("id", "parent_id"):
            error = await refusal(OverLimit, store.add_message(made.id, "user", "x", **{name: longest + "x"}))
            assert (error.field, error.details["limit"]) == (name, 512)
            for blank in ("", " \n"):
                assert (await refusal(Invalid, store.add_message(made.id, "user", "x", **{name: blank}))).field == name
        assert (await refusal(Invalid, store.add_message("", "user", "x"))).field == "conversation_id"
        assert (await refusal(OverLimit, store.get_message(longest + "x"))).field == "message_id"


async def test_opaque_ids_may_hold_any_characters(opener: Opener) -> None:
    async with opener() as store:
        for number, own in enumerate(
            ["a\nb", "x'; drop table messages; --", "%s", ":tenant", "{message}", "Ω/..", " a "]
        ):
            made = await store.create_conversation("helper", "ann", id=own)
            await store.add_message(own, "user", own, id=own, parent_id=own, name=own)
            (message,) = await store.get_messages(own)
            assert (made.id, message.id, message.parent_id, message.name, message.text) == (own,) * 5
            assert (await store.get_conversation(own)).message_count == 1
            assert await row_count(store, "messages") == number + 1


async def test_created_at_is_for_importing(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        aware = datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2)))
        given = [
            aware,
            datetime.fromisoformat("2020-01-02T03:04:05"),
            "2020-01-02T03:04:05.678901+02:00",
            "2020-01-02T03:04:05Z",
            "2020-01-02",
            datetime(1970, 1, 1, tzinfo=UTC),
            "9999-12-31T23:59:59.999999+00:00",
        ]
        for at in given:
            await store.add_message(made.id, "user", "x", created_at=at)
        utc = datetime(2020, 1, 2, 1, 4, 5, 678901, tzinfo=UTC)
        naive = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
        expected = [
            utc, naive, utc, naive, datetime(2020, 1, 2, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC),
            datetime.max.replace(tzinfo=UTC),
        ]  # fmt: skip
        found = await store.get_messages(made.id)
        assert [message.created_at for message in found] == expected
        assert all(message.created_at.tzinfo is UTC for message in found)
        assert (await store.get_conversation(made.id)).last_message_at == max(expected)


async def test_impossible_times_are_refused(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        for wrong in (
            "1969-12-31T23:59:59.999999Z",
            datetime.fromisoformat("1969-01-01"),
            "yesterday",
            "",
            datetime(1, 1, 1, tzinfo=UTC),
            "9999-12-31T23:59:59-05:00",
            True,
            1.5,
            b"2020-01-01",
        ):
            assert (
                await refusal(Invalid, store.add_message(made.id, "user", "x", created_at=wrong))
            ).field == "created_at"
            error = await refusal(
                Invalid, store.add_messages(made.id, [{"role": "user", "content": "x", "created_at": wrong}])
            )
            assert error.field == "drafts[0].created_at"
        for micros in (-1, 10**18):
            error = await refusal(Invalid, store.add_messages(made.id, [Draft("user", "x", created_at=micros)]))
            assert error.field == "drafts[0].created_at"
        assert await store.get_messages(made.id) == []


async def test_without_a_time_the_clock_tells_it(opener: Opener) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        made = await store.create_conversation("helper", "ann")
        first = await store.add_message(made.id, "user", "x")
        later = clock.turn(minutes=5)
        second = await store.add_message(made.id, "user", "y")
        assert (first.created_at, second.created_at) == (made.created_at, later)
        now = await store.get_conversation(made.id)
        assert (now.last_message_at, now.updated_at, now.created_at) == (later, later, made.created_at)


async def test_metadata_comes_back_as_it_was(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        added = await store.add_message(made.id, "user", "x", metadata=WILD)
        (found,) = await store.get_messages(made.id)
        for metadata in (added.metadata, found.metadata):
            assert metadata == WILD
            assert {
                key: (type(value), str(value)) for key, value in metadata.items() if not isinstance(value, dict)
            } == {key: (type(value), str(value)) for key, value in WILD.items() if not isinstance(value, dict)}
        for wrong, field in (({"a": {1: 2}}, "metadata.a"), ({"a": [object()]}, "metadata.a[0]"), ("text", "metadata")):
            assert (await refusal(Invalid, store.add_message(made.id, "user", "x", metadata=wrong))).field == field
        deep: Any = 1
        for _ in range(70):
            deep = [deep]
        await refusal(OverLimit, store.add_message(made.id, "user", "x", metadata={"deep": deep}))
        await refusal(OverLimit, store.add_message(made.id, "user", "x", metadata={"big": "x" * (4 * 2**20)}))


# -- what may be said --------------------------------------------------------------------------------------------------


async def test_parts_come_back_as_they_were(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        added = await store.add_message(made.id, "assistant", list(PARTS))
        as_dicts = await store.add_message(
            made.id,
            "user",
            [
                {"type": "text", "text": "hi"},
                {"type": "tool_result", "tool_call_id": "c", "content": [{"type": "text", "text": "r"}]},
            ],
        )
        await store.add_messages(made.id, [Draft("tool", PARTS), {"role": "tool", "content": PARTS[:1]}])
        found = await store.get_messages(made.id)
        assert [message.content for message in found] == [
            PARTS, (TextPart("hi"), ToolResultPart("c", (TextPart("r"),))), PARTS, PARTS[:1],
        ]  # fmt: skip
        assert (added, as_dicts) == (found[0], found[1])
        assert found[0].text.splitlines()[0] == "Look:"


async def test_text_is_stored_exactly_as_given(opener: Opener) -> None:
    said_so = [
        "  spaces \n",
        "e\u0301 is not é",
        "\r\n",
        "x" * 1_000_000,
        "\x01\x7f\ufeff",
        "{not: json}",
        "日本語\U0010ffff",
    ]
    said_so[2] += "."
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        for content in said_so:
            await store.add_message(made.id, "user", content)
        assert [message.content for message in await store.get_messages(made.id)] == said_so


async def test_only_tools_and_calls_may_say_nothing(opener: Opener) -> None:
    call = ToolCallPart("c", "look_up")
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        for role in ("user", "assistant", "system", "developer"):
            for blank in ("", " \t\n", [], [TextPart("")], [TextPart(" "), TextPart("\n")]):
                assert (await refusal(Invalid, store.add_message(made.id, role, blank))).field == "content"
                error = await refusal(Invalid, store.add_messages(made.id, [{"role": role, "content": blank}]))
                assert error.field == "drafts[0].content"
        allowed: list[tuple[str, Any]] = [
            ("tool", ""), ("tool", []), ("tool", [ToolResultPart("c", "")]), ("user", [ToolResultPart("c", "")]),
            ("assistant", [call]), ("assistant", [TextPart(""), call]),
        ]  # fmt: skip
        for role, content in allowed:
            await store.add_message(made.id, role, content)
        expected = [(role, tuple(content) if isinstance(content, list) else content) for role, content in allowed]
        found = await store.get_messages(made.id)
        assert [(message.role.value, message.content) for message in found] == expected


async def test_what_no_engine_can_hold_is_refused_by_name(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        for bad in ("a\0b", "a\ud800b"):
            cases: list[tuple[str, dict[str, Any]]] = [
                ("content", {"content": bad}),
                ("content[0].text", {"content": [TextPart(bad)]}),
                ("content[0].extra.k", {"content": [TextPart("x", extra={"k": bad})]}),
                ("content[0].arguments", {"content": [ToolCallPart("c", "f", bad)]}),
                ("name", {"name": bad}),
                ("metadata.k[0]", {"metadata": {"k": [bad]}}),
                ("metadata", {"metadata": {bad: 1}}),
                ("parent_id", {"parent_id": bad}),
                ("id", {"id": bad}),
                ("model", {"token_usage": {"model": bad}}),
            ]
            reason = "NUL" if "\0" in bad else "surrogate"
            for field, values in cases:
                error = await refusal(Invalid, store.add_message(made.id, **{"role": "user", "content": "x", **values}))
                assert (error.field, reason in error.message) == (field, True)
                draft = {"role": "user", "content": "x", **values}
                error = await refusal(Invalid, store.add_messages(made.id, [draft]))
                assert error.field == f"drafts[0].{field}"
            for call in (store.add_message(bad, "user", "x"), store.get_messages(bad), store.flush(bad, [])):
                assert (await refusal(Invalid, call)).field == "conversation_id"
            for call in (store.get_message(bad), store.edit_message(bad, "x"), store.delete_message(bad)):
                assert (await refusal(Invalid, call)).field == "message_id"
        assert await store.get_messages(made.id) == []


async def test_content_has_a_limit(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        error = await refusal(OverLimit, store.add_message(made.id, "user", "x" * (64 * 2**20 + 1)))
        assert (error.field, error.details["limit"]) == ("content", 64 * 2**20)
        for wrong in (
            None,
            5,
            b"bytes",
            {"type": "text", "text": "x"},
            ["text"],
            [{"type": "smell"}],
            [{"type": "text"}],
        ):
            assert (await refusal(Invalid, store.add_message(made.id, "user", wrong))).field.startswith("content")
        assert (await refusal(Invalid, store.add_message(made.id, "user", "x", name=" "))).field == "name"
        assert (await refusal(OverLimit, store.add_message(made.id, "user", "x", name="n" * 1025))).field == "name"


# -- tokens ------------------------------------------------------------------------------------------------------------


async def test_token_usage_follows_its_rules(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        accepted: list[tuple[Any, TokenUsage | None]] = [
            ({"input_tokens": 3, "output_tokens": 4}, TokenUsage(3, 4, 7)),
            (TokenUsage(3, 4, total_tokens=10), TokenUsage(3, 4, 10)),
            ({"input_tokens": 10**12}, TokenUsage(10**12)),
            ({"cost": Decimal(10000)}, TokenUsage(cost="1e4")),
            ({"cost": 0.1, "model": "m"}, TokenUsage(model="m", cost=Decimal("0.1"))),
            ({}, TokenUsage()),
            (None, None),
        ]
        for given, _ in accepted:
            await store.add_message(made.id, "assistant", "x", token_usage=given)
        assert [message.token_usage for message in await store.get_messages(made.id)] == [kept for _, kept in accepted]
        refused: list[tuple[type[Invalid], dict[str, Any], str]] = [
            (Invalid, {"input_tokens": -1}, "input_tokens"),
            (Invalid, {"output_tokens": -1}, "output_tokens"),
            (Invalid, {"input_tokens": 3, "output_tokens": 4, "total_tokens": 6}, "total_tokens"),
            (Invalid, {"input_tokens": 1.5}, "input_tokens"),
            (Invalid, {"input_tokens": True}, "input_tokens"),
            (OverLimit, {"input_tokens": 10**12 + 1}, "input_tokens"),
            (Invalid, {"cost": "-0.01"}, "cost"),
            (Invalid, {"cost": float("nan")}, "cost"),
            (Invalid, {"cost": "0.0000000001"}, "cost"),
            (OverLimit, {"cost": "10000.000000001"}, "cost"),
            (Invalid, {"model": ""}, "model"),
            (Invalid, {"tokens": 5}, "token_usage.tokens"),
        ]
        for kind, wrong, field in refused:
            error = await refusal(kind, store.add_message(made.id, "assistant", "x", token_usage=wrong))
            assert error.field == field
        assert "input_tokens, output_tokens, total_tokens, model, cost" in error.message
        assert (await store.get_conversation(made.id)).message_count == len(accepted)


async def test_totals_of_money_are_exact(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        costs = [Decimal("0.1"), Decimal("0.2"), Decimal("0.000000001"), Decimal("9999.999999999")] * 3
        usages = [TokenUsage(1, 2, 5, "m", cost) for cost in costs]
        await store.add_messages(made.id, [Draft("assistant", "x", token_usage=usage) for usage in usages[:6]])
        for usage in usages[6:]:
            await store.add_message(made.id, "assistant", "x", token_usage=usage)
        total = (await store.get_conversation(made.id)).token_usage
        assert (total.input_tokens, total.output_tokens, total.total_tokens, total.cost) == (12, 24, 60, sum(costs))


# -- many at once ------------------------------------------------------------------------------------------------------


async def test_many_messages_are_added_in_order(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        drafts = [
            Draft(ROLES[n % 5], f"message {n}", name=f"n{n}" if n % 3 else None, metadata={"n": n} if n % 2 else None,
                  token_usage={"input_tokens": n} if n % 7 else None, parent_id=f"p{n}" if n % 4 else None)
            for n in range(150)
        ]  # fmt: skip
        for size in (1, 2, 8, 9, 19, 20, 91):
            batch, drafts = drafts[:size], drafts[size:]
            before = await store.get_messages(made.id, limit=1_000)
            added = await store.add_messages(made.id, batch)
            assert await store.get_messages(made.id, limit=1_000) == [*before, *added]
            assert [(m.role, m.text, m.name, m.metadata, m.token_usage, m.parent_id) for m in added] == [
                (d.role, d.content, d.name, d.metadata or {}, d.token_usage, d.parent_id) for d in batch
            ]
        assert [message.seq for message in await store.get_messages(made.id, limit=1_000)] == list(range(1, 151))
        assert await store.add_messages(made.id, []) == []


async def test_one_refused_draft_refuses_them_all(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "first")
        good = {"role": "user", "content": "fine"}
        for size in (5, 40):
            for wrong, field in (
                ({"role": "user", "content": ""}, ".content"), ({"role": "nobody", "content": "x"}, ".role"),
                ({"content": "x"}, ".role"), ({"role": "user"}, ".content"), ({**good, "colour": 1}, ".colour"),
                ({**good, "name": ""}, ".name"), ({**good, "token_usage": {"input_tokens": -1}}, ".input_tokens"),
                ("text", ""), (None, ""),
            ):  # fmt: skip
                drafts: list[Any] = [good] * size
                drafts[3] = wrong
                error = await refusal(Invalid, store.add_messages(made.id, drafts))
                assert (error.field, error.message.startswith("drafts[3]: ")) == (f"drafts[3]{field}", True)
        assert await texts(store, made.id) == ["first"]
        assert (await store.get_conversation(made.id)).message_count == 1


async def test_more_than_ten_thousand_drafts_are_refused(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        endless = itertools.repeat(Draft("user", "x"))
        for call, field in ((store.add_messages, "drafts"), (store.flush, "messages")):
            drafts = list(itertools.islice(endless, 10_001)) if field == "messages" else endless
            error = await refusal(OverLimit, call(made.id, drafts))
            assert (error.details["limit"], field in error.field) == (10_000, True)
        assert await store.get_messages(made.id) == []


async def test_an_id_that_is_taken_changes_nothing(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "first")
        other = await said(store, "other")
        await store.add_message(made.id, "user", "second", id="taken", token_usage={"input_tokens": 1})
        gone = await store.add_message(made.id, "user", "third", id="deleted")
        await store.delete_message(gone.id)
        before = await everything(store)
        for taken in ("taken", "deleted"):
            for conversation in (made.id, other.id):
                await refusal(Conflict, store.add_message(conversation, "user", "x", id=taken))
                for size in (3, 30):
                    drafts = [Draft("user", "x", token_usage={"input_tokens": 9}) for _ in range(size)]
                    drafts[2] = Draft("user", "x", id=taken)
                    await refusal(Conflict, store.add_messages(conversation, drafts))
        await refusal(
            Conflict, store.add_messages(made.id, [Draft("user", "x", id="twice"), Draft("user", "y", id="twice")])
        )
        assert await everything(store) == before
        assert (await store.add_message(made.id, "user", "x", id="free")).seq == 4


# -- seq ---------------------------------------------------------------------------------------------------------------


async def test_messages_added_at_once_are_answered_as_they_are_stored(opener: Opener) -> None:
    """Adds that wait together become one statement for all; each is told its own message, in several conversations."""
    async with opener() as store:
        names = [(await said(store, "first")).id for _ in range(3)]
        adding = [
            (lambda name=names[n % 3], n=n: store.add_message(name, "user", f"{n}", token_usage={"input_tokens": n}))
            if n % 4
            else (
                lambda name=names[n % 3], n=n: store.add_messages(name, [Draft("user", f"{n}.{k}") for k in range(3)])
            )
            for n in range(36)
        ]
        answers = await together(opener, *adding)
        added = [message for answer in answers for message in (answer if isinstance(answer, list) else [answer])]
        stored = [message for name in names for message in await store.get_messages(name, after=1, limit=1_000)]
        assert sorted(added, key=lambda m: m.id) == sorted(stored, key=lambda m: m.id)


async def test_concurrent_writers_leave_no_gap_in_seq(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        made = await said(one, "first")
        await one.add_message(made.id, "user", "second", id="taken")

        def adding(store: Any, number: int) -> Callable[[], Any]:
            if number % 9 == 4:  # refused in the middle of the others, which must not notice
                return lambda: store.add_message(made.id, "user", "never", id="taken")
            if number % 9 == 7:
                return lambda: store.add_message("nowhere", "user", "never")
            if number % 5 == 0:
                return lambda: store.add_messages(made.id, [Draft("user", f"{number}.{n}") for n in range(3)])
            return lambda: store.add_message(made.id, "user", str(number), token_usage={"input_tokens": number})

        answers = await together(opener, *(adding((one, two)[n % 2], n) for n in range(40)))
        found = await one.get_messages(made.id, limit=1_000)
        assert [message.seq for message in found] == list(range(1, len(found) + 1))
        added = [
            m
            for answer in answers
            if not isinstance(answer, Exception)
            for m in (answer if isinstance(answer, list) else [answer])
        ]
        assert sorted(found[2:], key=lambda m: m.seq) == sorted(added, key=lambda m: m.seq)
        assert {type(answer) for answer in answers if isinstance(answer, Exception)} == {Conflict, NotFound}
        total = await two.get_conversation(made.id)
        spent = sum(message.token_usage.input_tokens for message in found if message.token_usage)
        assert (total.message_count, total.token_usage.input_tokens) == (len(found), spent)


async def test_seqs_of_what_is_gone_are_not_given_out_again(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "one", "two", "three")
        ids = [message.id for message in await store.get_messages(made.id)]
        await store.delete_message(ids[2])
        await store.erase_message(ids[0])
        added = await store.add_message(made.id, "user", "four")
        assert added.seq == 4
        assert [message.seq for message in await store.get_messages(made.id)] == [2, 4]
