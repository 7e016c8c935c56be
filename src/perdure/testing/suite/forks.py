"""Forks: conversations that share their first messages, and copy nothing."""

from datetime import timedelta
from typing import Any

from perdure import Conflict, ConversationMetadata, Draft, Invalid, NotFound, TokenUsage
from perdure.testing.drivers import Opener
from perdure.testing.suite.tools import TurnedClock, everything, refusal, row_count, said, texts, together, traces

COPIED = ("messages", "message_versions", "token_totals", "text_documents", "text_postings")


async def copies(store: Any) -> list[int]:
    """How many rows there are that a copying fork would add to."""
    return [await row_count(store, table) for table in COPIED]


async def emptied(store: Any) -> bool:
    """Whether no row of any conversation is left."""
    tables = (
        "conversations",
        "conversation_labels",
        "forks",
        "messages",
        "message_versions",
        "text_documents",
        "text_postings",
    )
    return not any([await row_count(store, table) for table in tables])


async def test_a_fork_shows_the_same_messages_and_copies_none(opener: Opener) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        source = await store.create_conversation("helper", "ann", {"title": "T", "tags": ["t"], "context": {"k": 1}})
        usages = [TokenUsage(n, 1, model="m", cost="0.1") for n in range(10)]
        await store.add_messages(
            source.id, [Draft("user", f"m{n}", token_usage=usage) for n, usage in enumerate(usages)]
        )
        await store.edit_message((await store.get_messages(source.id))[2].id, "edited")
        await store.search_messages("m1")
        before = await copies(store)
        last = clock.now
        now = clock.turn(hours=1)
        fork = await store.fork_conversation(source.id, 6)
        assert await copies(store) == before
        assert (fork.agent_id, fork.user_id, fork.metadata) == ("helper", "ann", source.metadata)
        assert (fork.message_count, fork.token_usage) == (6, TokenUsage(15, 6, 21, None, "0.6"))
        assert (fork.version, fork.created_at, fork.updated_at, fork.last_message_at) == (1, now, now, last)
        assert await store.get_conversation(fork.id) == fork
        theirs = await store.get_messages(source.id, limit=6)
        ours = await store.get_messages(fork.id)
        assert [(m.id, m.seq, m.content, m.version, m.token_usage) for m in ours] == [
            (m.id, m.seq, m.content, m.version, m.token_usage) for m in theirs
        ]
        assert {m.conversation_id for m in ours} == {fork.id}
        assert [one.id for one in await store.query_conversations(filters={"tags": ["t"]}, order_by="created_at")] == [
            fork.id,
            source.id,
        ]
        assert [(row.messages, row.token_usage.input_tokens) for row in await store.token_report()] == [(10, 45)]


async def test_a_fork_may_have_its_own_id_and_metadata(opener: Opener) -> None:
    async with opener() as store:
        source = await said(store, "a", "b")
        fork = await store.fork_conversation(source.id, 1, "mine", {"title": "Mine"})
        assert (fork.id, fork.metadata) == ("mine", ConversationMetadata("Mine"))
        before = await everything(store)
        assert (await refusal(Conflict, store.fork_conversation(source.id, 1, "mine"))).details["field"] == "new_id"
        for wrong in ("", "x" * 513, "\0"):
            assert (await refusal_of_id(store, source.id, wrong)) == "new_id"
        await refusal(NotFound, store.fork_conversation("nowhere", 0))
        assert await everything(store) == before


async def refusal_of_id(store: Any, source: str, wrong: str) -> str:
    """The field that is named for a wrong id."""
    try:
        await store.fork_conversation(source, 1, wrong)
    except Invalid as error:
        return error.field
    return ""


async def test_a_fork_begins_anywhere_from_nothing_to_the_end(opener: Opener) -> None:
    async with opener() as store:
        source = await said(store, "a", "b", "c")
        ids = [message.id for message in await store.get_messages(source.id)]
        await store.delete_message(ids[2])
        nothing = await store.fork_conversation(source.id, 0)
        assert (nothing.message_count, nothing.last_message_at, await texts(store, nothing.id)) == (0, None, [])
        assert (await store.add_message(nothing.id, "user", "own")).seq == 1
        whole = await store.fork_conversation(source.id, 3)  # the place of the deleted message counts
        assert (whole.message_count, await texts(store, whole.id)) == (2, ["a", "b"])
        assert (await store.add_message(whole.id, "user", "own")).seq == 4
        for beyond in (4, 2**40):
            error = await refusal(Invalid, store.fork_conversation(source.id, beyond))
            assert (error.field, error.details["limit"]) == ("at_seq", 3)
        for wrong in (-1, True, 1.0, "1", None):
            assert (await refusal(Invalid, store.fork_conversation(source.id, wrong))).field == "at_seq"
        empty = await store.create_conversation("helper", "ann")
        assert await texts(store, (await store.fork_conversation(empty.id, 0)).id) == []
        await refusal(Invalid, store.fork_conversation(empty.id, 1))


async def test_source_and_fork_go_on_apart(opener: Opener) -> None:
    async with opener() as store:
        source = await said(store, "a", "b", "c")
        fork = await store.fork_conversation(source.id, 2)
        assert (await store.add_message(fork.id, "user", "ours")).seq == 3
        assert [m.seq for m in await store.add_messages(fork.id, [Draft("user", f"o{n}") for n in range(3)])] == [
            4,
            5,
            6,
        ]
        assert (await store.add_message(source.id, "user", "theirs")).seq == 4
        assert await texts(store, fork.id) == ["a", "b", "ours", "o0", "o1", "o2"]
        assert await texts(store, source.id) == ["a", "b", "c", "theirs"]
        assert (await store.get_conversation(fork.id)).message_count == 6
        assert (await store.get_conversation(source.id)).message_count == 4
        whole = await store.get_conversation(fork.id, include_messages=True)
        assert [m.seq for m in whole.messages] == [1, 2, 3, 4, 5, 6]


async def test_changes_of_shared_messages_show_in_both(opener: Opener) -> None:
    async with opener() as store:
        source = await store.create_conversation("helper", "ann")
        await store.add_messages(source.id, [Draft("user", name, token_usage=TokenUsage(10)) for name in "abcdef"])
        fork = await store.fork_conversation(source.id, 4)
        ids = [message.id for message in await store.get_messages(source.id)]
        await store.edit_message((await store.get_messages(fork.id))[0].id, "A", token_usage=TokenUsage(1))
        await store.delete_message(ids[1])
        await store.erase_message(ids[2])
        await store.delete_message(ids[5])  # only the source shows it
        for own, expected, count in ((source.id, ["A", "d", "e"], 21), (fork.id, ["A", "d"], 11)):
            assert await texts(store, own) == expected
            now = await store.get_conversation(own)
            assert (now.message_count, now.token_usage) == (len(expected), TokenUsage(count))
        assert [m.seq for m in await store.get_messages(fork.id)] == [1, 4]
        assert [row.token_usage for row in await store.token_report()] == [TokenUsage(21)]
        assert [version.content for version in await store.message_history(ids[0])] == ["a"]


async def test_a_fork_of_a_fork_shares_with_both(opener: Opener) -> None:
    async with opener() as store:
        first = await said(store, "a1", "a2", "a3", "a4")
        second = await store.fork_conversation(first.id, 3)
        await store.add_messages(second.id, [Draft("user", f"b{n}", token_usage=TokenUsage(n)) for n in (4, 5, 6)])
        before = await copies(store)
        third = await store.fork_conversation(second.id, 5)
        low = await store.fork_conversation(second.id, 2)
        assert await copies(store) == before
        assert third.token_usage == TokenUsage(9)
        assert await texts(store, third.id) == ["a1", "a2", "a3", "b4", "b5"]
        assert await texts(store, low.id) == ["a1", "a2"]
        assert (await store.add_message(third.id, "user", "c6")).seq == 6
        assert (await store.add_message(low.id, "user", "d3")).seq == 3
        found = await store.get_messages(third.id)
        await store.edit_message(found[0].id, "A1")
        await store.delete_message(found[1].id)
        await store.edit_message(found[3].id, "B4", token_usage=TokenUsage(1))
        for own, expected in (
            (first.id, ["A1", "a3", "a4"]),
            (second.id, ["A1", "a3", "B4", "b5", "b6"]),
            (third.id, ["A1", "a3", "B4", "b5", "c6"]),
            (low.id, ["A1", "d3"]),
        ):
            assert await texts(store, own) == expected
            assert (await store.get_conversation(own)).message_count == len(expected)
        assert (await store.get_conversation(third.id)).token_usage == TokenUsage(6)
        assert [m.text for m in await store.get_messages(third.id, last=3)] == ["B4", "b5", "c6"]
        assert [m.text for m in await store.get_messages(third.id, after=1, limit=2)] == ["a3", "B4"]
        assert [m.text for m in await store.get_messages(third.id, before=6, limit=3)] == ["a3", "B4", "b5"]


async def test_a_deleted_source_leaves_its_shared_messages_to_the_forks(opener: Opener) -> None:
    async with opener() as store:
        source = await said(store, "a", "b", "c", "secret wombat")
        ids = [message.id for message in await store.get_messages(source.id)]
        fork = await store.fork_conversation(source.id, 3)
        await store.search_messages("wombat")
        await store.delete_conversation(source.id)
        assert await store.get_conversation(source.id) is None
        assert await texts(store, source.id) == []
        assert [one.id for one in await store.query_conversations()] == [fork.id]
        assert await texts(store, fork.id) == ["a", "b", "c"]
        assert await traces(store, "wombat") == []
        await store.edit_message(ids[0], "A", token_usage=TokenUsage(5))
        await store.delete_message(ids[1])
        await store.erase_message(ids[2])
        assert await texts(store, fork.id) == ["A"]
        now = await store.get_conversation(fork.id)
        assert (now.message_count, now.token_usage) == (1, TokenUsage(5))
        assert (await store.add_message(fork.id, "user", "own")).seq == 4
        reborn = await store.create_conversation("helper", "bob", id=source.id)
        assert (await texts(store, reborn.id), await texts(store, fork.id)) == ([], ["A", "own"])
        await store.delete_conversation(reborn.id)
        await store.delete_conversation(fork.id)
        assert await emptied(store)
        assert await store.token_report() == []


async def test_a_message_of_a_deleted_source_belongs_to_the_oldest_fork(opener: Opener) -> None:
    async with opener() as store:
        source = await said(store, "wombat", "b")
        first, second = await store.fork_conversation(source.id, 1), await store.fork_conversation(source.id, 1)
        (shared,) = await store.get_messages(first.id)
        assert (await store.get_message(shared.id)).conversation_id == source.id
        await store.delete_conversation(source.id)
        assert (await store.get_message(shared.id)).conversation_id == first.id
        assert (await store.edit_message(shared.id, "wombat two")).conversation_id == first.id
        assert [hit.message.conversation_id for hit in await store.search_messages("wombat")] == [first.id]
        changes = [change async for change in store.all_changes(kinds=["message"])]
        assert (changes[-1].verb, changes[-1].parent_id) == ("edit", first.id)
        await store.delete_conversation(first.id)
        assert (await store.get_message(shared.id)).conversation_id == second.id


async def test_what_no_fork_shows_any_longer_goes_with_the_last_that_did(opener: Opener) -> None:
    async with opener() as store:
        source = await store.create_conversation("helper", "ann")
        drafts = [Draft("user", f"wombat{n}", token_usage=TokenUsage(1), id=f"id{n}") for n in range(1, 6)]
        await store.add_messages(source.id, drafts)
        await store.edit_message("id4", "wombat4 edited")
        wide = await store.fork_conversation(source.id, 4)
        narrow = await store.fork_conversation(wide.id, 2)
        await store.search_messages("wombat1")
        await store.delete_conversation(source.id)
        assert [row.messages for row in await store.token_report()] == [4]
        await store.erase_conversation(wide.id)
        assert await texts(store, narrow.id) == ["wombat1", "wombat2"]
        for gone in ("wombat3", "wombat4", "wombat5"):
            assert set(await traces(store, gone)) <= {"changes"}
        assert [await store.get_message(f"id{n}") is None for n in range(1, 6)] == [False, False, True, True, True]
        assert [row.messages for row in await store.token_report()] == [2]
        assert await row_count(store, "messages") == 2
        await store.delete_conversation(narrow.id)
        assert await emptied(store)


async def test_an_erased_source_takes_its_messages_from_the_forks(opener: Opener) -> None:
    async with opener() as store:
        source = await store.create_conversation("helper", "ann", id="source-id")
        await store.add_messages(source.id, [Draft("user", f"wombat{n}", token_usage=TokenUsage(n)) for n in (1, 2, 3)])
        fork = await store.fork_conversation(source.id, 2)
        await store.add_message(fork.id, "user", "own", token_usage=TokenUsage(10))
        below = await store.fork_conversation(fork.id, 3)
        await store.search_messages("wombat1")
        await store.erase_conversation(source.id)
        for own in (fork.id, below.id):
            assert await texts(store, own) == ["own"]
            assert [m.seq for m in await store.get_messages(own)] == [3]
            now = await store.get_conversation(own)
            assert (now.message_count, now.token_usage) == (1, TokenUsage(10))
        assert await traces(store, "wombat") == []
        assert await traces(store, "source-id") == []
        assert (await store.add_message(below.id, "user", "on")).seq == 4
        again = await store.fork_conversation(below.id, 2)  # places without messages
        assert (await texts(store, again.id), (await store.add_message(again.id, "user", "x")).seq) == ([], 3)
        for own in (fork.id, below.id, again.id):
            await store.erase_conversation(own)
        assert await emptied(store)


async def test_every_order_of_deleting_leaves_no_row_behind(opener: Opener) -> None:
    async with opener() as store:
        for order in ((0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2), (2, 0, 1, 3), (1, 2, 3, 0)):
            for verbs in ("dddd", "eeee", "dede", "eded"):
                made = [await said(store, "a", "b", "c", "d")]
                for at_seq in (3, 4, 1):
                    made.append(await store.fork_conversation(made[-1].id, at_seq))
                    await store.add_messages(made[-1].id, [Draft("user", f"f{at_seq}", token_usage=TokenUsage(1))] * 2)
                for position, verb in zip(order, verbs, strict=True):
                    await (store.delete_conversation if verb == "d" else store.erase_conversation)(made[position].id)
                assert await emptied(store), (order, verbs)
                assert await store.token_report() == []


async def test_search_inside_a_fork_finds_what_it_shows(opener: Opener) -> None:
    async with opener() as store:
        source = await said(store, "wombat one", "plain", "wombat three", "wombat four")
        fork = await store.fork_conversation(source.id, 3)
        await store.add_message(fork.id, "user", "wombat own")

        async def found(own: str | None) -> list[tuple[str, str]]:
            hits = await store.search_messages("wombat", conversation_id=own)
            return sorted((hit.message.text, hit.message.conversation_id) for hit in hits)

        assert await found(fork.id) == [(f"wombat {name}", fork.id) for name in ("one", "own", "three")]
        assert await found(source.id) == [(f"wombat {name}", source.id) for name in ("four", "one", "three")]
        assert len(await found(None)) == 4
        ids = [message.id for message in await store.get_messages(source.id)]
        await store.delete_message(ids[0])
        await store.edit_message(ids[1], "wombat two")
        assert [text for text, _ in await found(fork.id)] == ["wombat own", "wombat three", "wombat two"]
        await store.delete_conversation(source.id)
        assert [text for text, _ in await found(fork.id)] == ["wombat own", "wombat three", "wombat two"]
        assert [own for _, own in await found(None)] == [fork.id] * 3
        assert await found(source.id) == []


async def test_forks_and_writers_at_the_same_moment_agree(opener: Opener) -> None:
    async with opener() as one, opener() as two:
        source = await one.create_conversation("helper", "ann")
        await one.add_messages(
            source.id, [Draft("user", f"m{n}", token_usage=TokenUsage(1), id=f"id{n}") for n in range(20)]
        )
        calls = [lambda n=n: two.fork_conversation(source.id, 10 + n, f"fork{n}") for n in range(6)]
        calls += [lambda n=n: one.edit_message(f"id{n}", "edited", token_usage=TokenUsage(5)) for n in range(6)]
        calls += [lambda n=n: two.delete_message(f"id{n}") for n in range(6, 10)]
        calls += [lambda: one.add_message(source.id, "user", "x", token_usage=TokenUsage(1)) for _ in range(4)]
        answers = await together(opener, *calls)
        assert [answer for answer in answers if isinstance(answer, Exception)] == []
        for own in (source.id, *(f"fork{n}" for n in range(6))):
            whole = await one.get_conversation(own, include_messages=True)
            spent = sum(message.token_usage.input_tokens for message in whole.messages)
            assert (whole.message_count, whole.token_usage.input_tokens) == (len(whole.messages), spent), own


async def test_an_old_fork_keeps_its_own_time(opener: Opener) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        source = await said(store, "a")
        for _ in range(3):
            clock.turn(days=1)
            await store.fork_conversation(source.id, 1)
        recent = await store.query_conversations(filters={"created_after": clock.now - timedelta(days=1)})
        assert len(recent) == 2
