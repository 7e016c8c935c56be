"""Idempotency keys: a creating verb that is called again with the same key has one effect and one answer."""

from collections.abc import Callable
from typing import Any

import pytest

from perdure import Conflict, Draft, Invalid, NotFound, OverLimit, TextPart
from perdure.testing.drivers import Opener
from perdure.testing.suite.tools import TurnedClock, everything, refusal, row_count, said, texts, together, traces

Verb = Callable[[Any, str], Any]

USAGE = {"input_tokens": 3, "cost": "0.5", "model": "m"}
DRAFTS = (Draft("user", "one", name="Ann"), Draft("assistant", "two", metadata={"k": 1}, token_usage=USAGE))
VERBS: dict[str, Verb] = {
    "create_conversation": lambda store, key: store.create_conversation(
        "helper", "ann", {"tags": ["t"]}, idempotency_key=key
    ),
    "create with an id": lambda store, key: store.create_conversation("helper", "ann", id="a\nb", idempotency_key=key),
    "fork_conversation": lambda store, key: store.fork_conversation("source", 1, idempotency_key=key),
    "add_message": lambda store, key: store.add_message("source", "user", "x", token_usage=USAGE, idempotency_key=key),
    "add with an id": lambda store, key: store.add_message("source", "user", "x", id='a\n"b', idempotency_key=key),
    "add_messages": lambda store, key: store.add_messages("source", DRAFTS, idempotency_key=key),
    "add_messages with ids": lambda store, key: store.add_messages(
        "source", [{"role": "user", "content": "x", "id": own} for own in ("c\nd", "e,f", "[]")], idempotency_key=key
    ),
}
"""Each creating verb, called on a store that holds the conversation "source"."""


def ids_of(answer: Any) -> list[str]:
    """The ids of what a verb created."""
    return [made.id for made in (answer if isinstance(answer, list) else [answer])]


async def test_the_same_key_and_content_have_one_effect_and_one_answer(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        await said(one, "a", "b", id="source")
        for name, verb in VERBS.items():
            first = await verb(one, name)
            before = await everything(one)
            for store in (one, two, one):
                assert await verb(store, name) == first, name
            assert await everything(one) == before
        answers = {name: ids_of(await verb(one, name)) for name, verb in VERBS.items()}
    async with opener() as later:
        assert {name: ids_of(await verb(later, name)) for name, verb in VERBS.items()} == answers
        assert await everything(later) == before


async def test_another_key_or_none_has_another_effect(opener: Opener) -> None:
    async with opener() as store:
        await said(store, "a", "b", id="source")
        for name, verb in VERBS.items():
            if " id" not in name:
                answers = [await verb(store, key) for key in ("key 1", "key 2", None, None)]
                found = [own for answer in answers for own in ids_of(answer)]
                assert len(set(found)) == len(found) == 4 * len(ids_of(answers[0]))


async def test_calls_at_the_same_moment_have_one_effect(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        await said(one, "a", "b", id="source")
        for name, verb in VERBS.items():
            answers = await together(
                opener,
                *(lambda store=store, verb=verb, key=f"race {name}": verb(store, key) for store in (one, two) * 4),
            )
            assert all(answer == answers[0] for answer in answers), (name, answers)
            assert not isinstance(answers[0], Exception)
        assert await row_count(one, "idempotency") == len(VERBS)
        messages = await one.get_messages("source", limit=1_000)
        assert [message.seq for message in messages] == list(range(1, 2 + 1 + 1 + 2 + 3 + 1))
        assert await row_count(two, "conversations") == 1 + 3


async def test_different_content_under_the_same_key_is_a_conflict(opener: Opener) -> None:
    def creating(**changed: Any) -> Callable[[Any], Any]:
        values = {
            "agent_id": "a",
            "user_id": "u",
            "metadata": {"title": "t"},
            "id": None,
            "created_at": None,
            **changed,
        }
        return lambda store: store.create_conversation(**values, idempotency_key="key")

    def adding(**changed: Any) -> Callable[[Any], Any]:
        values = {
            "conversation_id": "source", "role": "user", "content": "x", "name": "n", "metadata": {"k": 1}, "id": None,
            "token_usage": {"input_tokens": 1}, "parent_id": "p", "created_at": None, **changed,
        }  # fmt: skip
        return lambda store: store.add_message(**values, idempotency_key="key")

    def adding_many(*drafts: Any, to: str = "source") -> Callable[[Any], Any]:
        return lambda store: store.add_messages(to, drafts, idempotency_key="key")

    def forking(**changed: Any) -> Callable[[Any], Any]:
        values = {"id": "source", "at_seq": 1, "new_id": None, "metadata": None, **changed}
        return lambda store: store.fork_conversation(**values, idempotency_key="key")

    draft = {"role": "user", "content": "x"}
    cases = [
        (
            creating(),
            [
                creating(agent_id="b"),
                creating(user_id="v"),
                creating(metadata={"title": "u"}),
                creating(metadata=None),
                creating(id="mine"),
                creating(created_at="2026-01-01"),
            ],
        ),
        (
            adding(),
            [
                adding(conversation_id="other"),
                adding(role="assistant"),
                adding(content="y"),
                adding(name=None),
                adding(content=[TextPart("x")]),
                adding(metadata={"k": 2}),
                adding(token_usage=None),
                adding(parent_id=None),
                adding(token_usage={"input_tokens": 1, "cost": 1}),
                adding(id="mine"),
                adding(created_at="2026-01-01"),
            ],
        ),
        (
            adding_many(draft, draft),
            [
                adding_many(draft),
                adding_many(draft, draft, draft),
                adding_many(draft, draft, to="other"),
                adding_many(draft, {**draft, "content": "y"}),
                adding_many(draft, {**draft, "id": "z"}),
                adding_many({**draft, "name": "n"}, draft),
                adding_many({**draft, "created_at": "2026-01-01"}, draft),
            ],
        ),
        (forking(), [forking(id="other"), forking(at_seq=2), forking(new_id="mine"), forking(metadata={})]),
    ]
    async with opener() as store:
        for own in ("source", "other"):
            await said(store, "a", "b", "c", id=own)
        for same, others in cases:
            first = await same(store)
            before = await everything(store)
            for other in others:
                assert (await refusal(Conflict, other(store))).details["field"] == "idempotency_key"
            assert await everything(store) == before
            assert await same(store) == first


async def test_content_is_told_apart_exactly(opener: Opener) -> None:
    async with opener() as store:
        await said(store, "a", id="source")
        await store.add_message("source", "user", "x", name="a\x1fb", idempotency_key="k")
        for name, content in (("a", "b\x1fx"), ("a\x1fb\x1fx", "x"), (None, "x")):
            await refusal(Conflict, store.add_message("source", "user", content, name=name, idempotency_key="k"))
        again = await store.add_message("source", "user", "x", name="a\x1fb", idempotency_key="k")
        assert again.seq == 2


async def test_keys_of_other_verbs_and_tenants_are_others(opener: Opener) -> None:
    async with opener() as store:
        other = store.for_tenant("other")
        for handle in (store, other):
            await said(handle, "a", "b", id="source")
        names = ("create_conversation", "fork_conversation", "add_message", "add_messages")
        answers = [await VERBS[name](handle, "one key for all") for handle in (store, other) for name in names]
        found = [own for answer in answers for own in ids_of(answer)]
        assert len(set(found)) == len(found) == 10
        assert ids_of(await VERBS["add_message"](other, "one key for all")) == ids_of(answers[6])
        await refusal(Conflict, other.add_message("source", "user", "different", idempotency_key="one key for all"))


async def test_a_key_is_kept_for_a_day(opener: Opener) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await said(store, "a", id="source")
        first = await store.add_message("source", "user", "x", idempotency_key="k")
        clock.turn(hours=23, minutes=59, seconds=59)
        assert await store.add_message("source", "user", "x", idempotency_key="k") == first
        clock.turn(seconds=1)
        second = await store.add_message("source", "user", "other", idempotency_key="k")
        assert (second.seq, second.text) == (3, "other")
        assert await store.add_message("source", "user", "other", idempotency_key="k") == second
        await refusal(Conflict, store.add_message("source", "user", "x", idempotency_key="k"))
        clock.turn(days=1)
        await store.run_chores()
        assert await row_count(store, "idempotency") == 0


async def test_a_refused_call_does_not_use_its_key_up(opener: Opener) -> None:
    async with opener() as store:
        await said(store, "a", id="source")
        await refusal(NotFound, store.add_message("nowhere", "user", "x", idempotency_key="k"))
        await refusal(Invalid, store.add_message("source", "user", "", idempotency_key="k"))
        with pytest.raises(ZeroDivisionError):
            async with store.transaction() as t:
                await t.add_message("source", "user", "lost", idempotency_key="k")
                raise ZeroDivisionError
        assert (await store.add_message("source", "user", "kept", idempotency_key="k")).seq == 2
        assert await texts(store, "source") == ["a", "kept"]


async def test_an_ensured_conversation_is_created_once(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        for store in (one, two):
            await store.ensure_conversation("later", "helper", "ann")
        answers = [await store.add_message("later", "user", "x", idempotency_key="k") for store in (one, two, one)]
        assert answers[1:] == answers[:1] * 2
        assert await texts(one, "later") == ["x"]
        assert (await two.add_message("later", "user", "y")).seq == 2


async def test_what_was_deleted_since_is_not_created_again(opener: Opener) -> None:
    async with opener() as store:
        await said(store, "a", "b", id="source")
        made = [
            await VERBS[name](store, "k")
            for name in ("create_conversation", "fork_conversation", "add_message", "add_messages")
        ]
        await store.delete_conversation(made[0].id)
        await store.delete_conversation(made[1].id)
        await store.delete_message(made[2].id)
        await store.delete_message(made[3][1].id)
        before = await everything(store)
        for name in ("create_conversation", "fork_conversation", "add_message", "add_messages"):
            error = await refusal(Conflict, VERBS[name](store, "k"))
            assert "deleted since" in error.message
        assert await everything(store) == before


async def test_what_was_erased_since_is_not_created_again_and_leaves_no_trace(opener: Opener) -> None:
    async with opener() as store:
        await said(store, "a", "b", id="source")
        made = [
            await store.create_conversation("helper", "ann", id="wombat", idempotency_key="k"),
            await store.fork_conversation("source", 1, "wombat fork", idempotency_key="k"),
            await store.add_message("source", "user", "x", id='wombat "m"', idempotency_key="k"),
            *await store.add_messages(
                "source", [Draft("user", "x", id=f"wombat {n}") for n in (1, 2)], idempotency_key="k"
            ),
            await store.add_message("wombat", "user", "y", id="wombat inside", idempotency_key="k2"),
        ]
        digests = [row[0] for row in await store.execute("select digest from idempotency")]
        for conversation in made[:2]:
            await store.erase_conversation(conversation.id)
        for message in (made[2], made[4]):
            await store.erase_message(message.id)
        await store.delete_message(made[3].id)
        await store.erase_message(made[3].id)
        assert await traces(store, "wombat") == []
        assert set(digests) & {row[0] for row in await store.execute("select digest from idempotency")} == set()
        for call in (
            store.create_conversation("helper", "ann", id="wombat", idempotency_key="k"),
            store.fork_conversation("source", 1, "wombat fork", idempotency_key="k"),
            store.add_message("source", "user", "x", id='wombat "m"', idempotency_key="k"),
            store.add_messages("source", [Draft("user", "x", id=f"wombat {n}") for n in (1, 2)], idempotency_key="k"),
        ):
            assert "erased since" in (await refusal(Conflict, call)).message
        assert await store.get_conversation("wombat") is None


async def test_keys_are_text_of_512_bytes(opener: Opener) -> None:
    async with opener() as store:
        await said(store, "a", "b", id="source")
        longest = "é" * 256
        for number, verb in enumerate(VERBS.values()):
            error = await refusal(OverLimit, verb(store, longest + "x"))
            assert (error.field, error.details["limit"]) == ("idempotency_key", 512)
            for wrong in ("", " ", "a\0", "\ud800", 5):
                assert (await refusal(Invalid, verb(store, wrong))).field == "idempotency_key"
            fits = f"{number}{longest}"[:-1] + "x"
            assert ids_of(await verb(store, fits)) == ids_of(await verb(store, fits))


async def test_what_is_imported_from_a_provider_takes_a_key_too(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "first")
        for verb, given in (
            (store.import_openai, [{"role": "user", "content": "one"}]),
            (store.import_openai_responses, [{"role": "user", "content": "two"}]),
            (store.import_anthropic, [{"role": "user", "content": "three"}]),
        ):
            once = await verb(made.id, given, idempotency_key=str(verb))
            assert await verb(made.id, given, idempotency_key=str(verb)) == once
        assert await texts(store, made.id) == ["first", "one", "two", "three"]
