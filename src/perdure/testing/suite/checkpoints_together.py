"""Checkpoints of several at once: saves sent again, processes in turn, transactions, tenants."""

from perdure.testing.suite.checkpoint_tools import contents, restored, saved, sound
from perdure.testing.suite.tools import refusal, together
from perdure.values.errors import Conflict, NotFound


async def test_a_save_that_is_sent_again_is_one_save(opener):
    """Under an idempotency key: in this process, in another, and after its checkpoint is not the newest any more."""
    async with opener() as store, opener() as second:
        checkpointer, other = opener.checkpointer(store), opener.checkpointer(second)
        sent = ("t", {"n": 1}, {"a": 1}, ["x"])
        made = await checkpointer.save(*sent, idempotency_key="k")
        assert await checkpointer.save(*sent, idempotency_key="k") == made
        await saved(checkpointer, "t", {"n": 2})
        assert await other.save(*sent, idempotency_key="k") == made
        for again in [
            ("t", {"n": 1.0}, {"a": 1}, ["x"]), ("t", {"n": 1}, {"a": 2}, ["x"]), ("t", {"n": 1}, {"a": 1}, ["y"]),
            ("u", {"n": 1}, {"a": 1}, ["x"]),
        ]:  # fmt: skip
            error = await refusal(Conflict, other.save(*again, idempotency_key="k"))
            assert error.details["field"] == "idempotency_key"
        assert len(await checkpointer.get_history("t")) == 2
        await checkpointer.delete_thread("t")
        await refusal(Conflict, checkpointer.save(*sent, idempotency_key="k"))
        assert await checkpointer.latest("t") is None


async def test_two_processes_save_to_one_thread_in_turn(opener):
    """Each goes on from what the other saved, though it remembers what it saved itself."""
    async with opener() as store, opener() as second:
        turns = [opener.checkpointer(store), opener.checkpointer(second)]
        expected, ids, state = [], [], {"items": [], "n": 0, "text": "x" * 100}
        for number in range(20):
            state = {**state, "items": [*state["items"][number % 3 == 2 :], number], "n": number}
            expected.append(state)
            ids.append(await turns[number % 2].save("t", state))
            if number % 5 == 4:
                assert await turns[(number + 1) % 2].latest_state("t") == state
        for checkpointer in (*turns, opener.checkpointer(store)):
            assert await restored(checkpointer, ids) == expected
            assert [one.id for one in await checkpointer.get_history("t")] == ids[::-1]
        await sound(turns[0])


async def test_two_saves_at_once_are_both_kept_or_one_is_refused(opener):
    """Both without a parent; one of those with the same."""
    async with opener() as store, opener() as second:
        one, other = opener.checkpointer(store), opener.checkpointer(second)
        (base,) = await saved(one, "t", {"n": 0})
        made = await together(opener, lambda: one.save("t", {"n": 1}), lambda: other.save("t", {"n": 2}))
        assert sorted([(await one.restore(each))["n"] for each in made]) == [1, 2]
        newest = (await one.latest("t")).id
        made = await together(
            opener, lambda: one.save("t", {"n": 3}, parent=newest), lambda: other.save("t", {"n": 4}, parent=newest)
        )
        assert sorted(type(each) for each in made if not isinstance(each, str)) == [Conflict]
        assert len(await one.get_history("t")) == 4
        assert await one.restore(base) == {"n": 0}
        await sound(other)


async def test_a_transaction_takes_checkpoints_with_it(opener):
    """What is taken back leaves nothing, in the store or in memory; what stays, stays with the rest."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        items = list(range(70))
        await saved(checkpointer, "t", {"items": items})
        before = await contents(store)
        try:
            async with store.transaction() as t:
                inside = checkpointer.using(t)
                made = await saved(inside, "t", {"items": [*items, "a"]}, {"items": [*items, "a", "b"]})
                (new,) = await saved(inside, "new", {"n": 1})
                assert await restored(inside, [*made, new]) == [
                    {"items": [*items, "a"]}, {"items": [*items, "a", "b"]}, {"n": 1},
                ]  # fmt: skip
                assert await inside.latest_state("t") == {"items": [*items, "a", "b"]}
                raise ZeroDivisionError  # noqa: TRY301 - a block that fails
        except ZeroDivisionError:
            pass
        assert await contents(store) == before
        other = opener.checkpointer(store)
        _, first = await saved(other, "t", {"items": [*items, "one"]}, {"items": [*items, "other"]})
        assert await checkpointer.latest_state("t") == {"items": [*items, "other"]}
        assert [await checkpointer.get(one) for one in (*made, new)] == [None] * 3
        await store.create_conversation("agent", "ann", id="c")
        async with store.transaction() as t:
            await t.add_message("c", "user", "hello")
            (kept,) = await saved(checkpointer.using(t), "t", {"items": [*items, "c"]})
            (also,) = await saved(checkpointer.using(t), "new", {"n": 2})
        later = await saved(checkpointer, "t", {"items": [*items, "c", "d"]}, {"items": [*items[1:], "c"]})
        assert await restored(opener.checkpointer(store), [first, kept, also, *later]) == [
            {"items": [*items, "other"]}, {"items": [*items, "c"]}, {"n": 2}, {"items": [*items, "c", "d"]},
            {"items": [*items[1:], "c"]},
        ]  # fmt: skip
        assert (await checkpointer.get(kept)).parent_id == first
        await sound(checkpointer)


async def test_tenants_see_nothing_of_each_other(opener):
    """Not by thread, not by id; equal threads of two tenants share nothing."""
    async with opener() as store:
        root = opener.checkpointer(store)
        mine, yours = (root.using(store.for_tenant(name)) for name in ("mine", "yours"))
        ids = {}
        for number, one in enumerate((mine, yours)):
            ids[number] = await saved(one, "t", {"items": list(range(70)), "n": number}, run_id="r", tags=["a"])
        assert await mine.latest_state("t") == {"items": list(range(70)), "n": 0}
        assert await yours.latest_state("t") == {"items": list(range(70)), "n": 1}
        for one, foreign in ((mine, ids[1][0]), (yours, ids[0][0]), (root, ids[0][0])):
            assert await one.get(foreign) is None
            for call in (
                one.restore(foreign), one.create_branch(foreign, "b"), one.tag(foreign, "b"), one.compare(foreign, foreign)
            ):  # fmt: skip
                await refusal(NotFound, call)
        assert await root.latest("t") is None
        assert list(await root.list_threads()) == []
        assert await root.delete_for_runs("r") == 0
        assert await root.delete_thread("t") is False
        assert await mine.delete_thread("t") is True
        assert await yours.restore(ids[1][0]) == {"items": list(range(70)), "n": 1}
        await sound(yours)
        assert (await root.verify()).threads == 0
