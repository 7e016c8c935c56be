"""Checkpoints in the long run: what retention takes and gives back, threads deleted and copied."""

from perdure import CheckpointConfig
from perdure.testing.suite.checkpoint_tools import alike, contents, restored, rows, saved, sound, stored_bytes
from perdure.testing.suite.tools import TurnedClock, refusal
from perdure.values.errors import Conflict, Invalid, NotFound


def _growing(count, first=0):
    """States of a list that grows by ten items each time."""
    return [{"items": [f"item {n} " * 5 for n in range(10 * (at + 1))], "n": at} for at in range(first, first + count)]


# -- retention ---------------------------------------------------------------------------------------------------------------


async def test_retention_takes_what_its_settings_let_go_and_says_why(opener):
    """Too old, then too many; never a head, a fork point, a tagged, a failed, or one of the minimum."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        config = CheckpointConfig(retention_days=10, max_checkpoints_per_thread=9, keep_minimum=3)
        checkpointer = opener.checkpointer(store, config)
        ids = []
        for number in range(16):
            more = {"tags": "keep"} if number == 1 else {"status": "failed"} if number == 2 else {}
            ids.append(await checkpointer.save("t", {"n": number}, **more))
            clock.turn(days=1)
        await checkpointer.create_branch(ids[3], "side")
        ids.append(await checkpointer.save("t", {"n": 16}, branch="side"))
        await checkpointer.create_branch(ids[7], "unused")
        old = {ids[number]: "too_old" for number in (0, 4, 5)}
        many = {ids[number]: "too_many" for number in (6, 8, 9, 10, 11, 12)}
        kept = {
            ids[1]: "tagged", ids[2]: "failed", ids[3]: "fork_point", ids[7]: "head", ids[13]: "within_limits",
            ids[14]: "minimum", ids[15]: "head", ids[16]: "head",
        }  # fmt: skip
        before = await contents(store)
        (report,) = await checkpointer.apply_retention("t", now=clock.now, dry_run=True)
        assert await contents(store) == before
        assert (report.thread_id, report.dry_run) == ("t", True)
        assert (dict(report.removed), dict(report.kept)) == (
            {**old, **{one: why for one, why in many.items() if one != ids[12]}}, {**kept, ids[12]: "within_limits"},
        )  # fmt: skip
        (done,) = await checkpointer.apply_retention("t")
        assert (done.removed, done.kept, done.dry_run) == (report.removed, report.kept, False)
        left = [one for one in ids if one in report.kept]
        assert [one.id for one in await checkpointer.get_history("t", include_failed=True)] == left[::-1]
        assert [state["n"] for state in await restored(checkpointer, left)] == [1, 2, 3, 7, 12, 13, 14, 15, 16]
        for one in report.removed:
            assert await checkpointer.get(one) is None
        assert (await checkpointer.apply_retention("t"))[0].removed == {}
        assert [n async for n in _numbers(checkpointer, "t")] == [1, 2, 3, 7, 12, 13, 14, 15]
        assert [n async for n in _numbers(checkpointer, "t", branch="side")] == [1, 2, 3, 16]
        assert [n async for n in _numbers(checkpointer, "t", from_checkpoint=ids[3])] == [3, 7, 12, 13, 14, 15]
        assert (await checkpointer.get(ids[12])).parent_id is None
        await sound(checkpointer)


async def _numbers(checkpointer, thread_id, **asked):
    async for _, state in checkpointer.replay(thread_id, **asked):
        yield state["n"]


async def test_retention_reaches_every_thread_and_what_is_off_takes_nothing(opener):
    """Saving takes nothing either, however many there are."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        strict = opener.checkpointer(
            store, CheckpointConfig(max_checkpoints_per_thread=2, keep_minimum=0, keep_failed_states=False)
        )
        lax = opener.checkpointer(store, CheckpointConfig(max_checkpoints_per_thread=None, retention_days=None))
        for thread in ("a", "b", "c"):
            for number in range(5):
                await strict.save(thread, {"n": number}, status="failed" if number == 1 else "ok")
        clock.turn(days=10_000)
        assert [len(report.removed) for report in await lax.apply_retention()] == [0, 0, 0]
        assert (await rows(store))["checkpoints"] == 15
        reports = await strict.apply_retention(now=TurnedClock().now)
        assert [(one.thread_id, len(one.removed)) for one in reports] == [("a", 3), ("b", 3), ("c", 3)]
        assert [len(one.removed) for one in await strict.apply_retention()] == [1, 1, 1]
        assert [await lax.latest_state(thread) for thread in ("a", "b", "c")] == [{"n": 4}] * 3
        await sound(lax)


async def test_space_is_given_back_and_numbers_are_not_given_out_again(opener):
    """What only the taken were made of; what the living share stays. All goes on as before, with what others remember."""
    async with opener() as store, opener() as second:
        strict = opener.checkpointer(store, CheckpointConfig(max_checkpoints_per_thread=1, keep_minimum=0))
        other = opener.checkpointer(second)
        blobs = [{"text": f"{n} " * 3_000, "list": [f"{n} {at}" for at in range(200)]} for n in range(6)]
        ids = await saved(other, "t", *blobs)
        await other.latest_state("t")
        before, size = await rows(store), await stored_bytes(store)
        await strict.apply_retention("t")
        after = await rows(store)
        for table in ("checkpoints", "checkpoint_items", "checkpoint_runs", "checkpoint_segments"):
            assert after[table] < before[table], table
        assert await stored_bytes(store) < size / 2
        assert await other.restore(ids[-1]) == blobs[-1]
        more = await saved(
            other, "t", {**blobs[-1], "n": 1}, {"text": "short", "list": blobs[-1]["list"][50:]}, blobs[0]
        )
        assert (await other.get(more[0])).position == 6
        for reader in (other, strict, opener.checkpointer(store)):
            assert await restored(reader, [ids[-1], *more]) == [
                blobs[-1], {**blobs[-1], "n": 1}, {"text": "short", "list": blobs[-1]["list"][50:]}, blobs[0],
            ]  # fmt: skip
        await sound(other)


# -- threads -----------------------------------------------------------------------------------------------------------------


async def lived(checkpointer, clock):
    """A thread with branches, tags, failures and a gap; its states by id."""
    states = _growing(14)
    ids = []
    for number, state in enumerate(states):
        status = "failed" if number == 5 else "completed" if number == 6 else "ok"
        ids.append(
            await checkpointer.save("t", state, {"n": number}, ["even"][number % 2 :], status, run_id=f"r{number % 2}")
        )
        clock.turn(minutes=1)
    await checkpointer.create_branch(ids[8], "side", {"why": "a test"})
    extra = {"items": [*states[8]["items"], "more"], "bytes": b"\x00" * 300_000, "n": 99}
    ids.append(await checkpointer.save("t", extra, branch="side", node="agent"))
    await checkpointer.untag(ids[4], "even")
    removed = (await checkpointer.apply_retention("t"))[0].removed
    assert removed
    return {one: state for one, state in zip(ids, [*states, extra], strict=True) if one not in removed}


def lived_config():
    return CheckpointConfig(max_checkpoints_per_thread=3, keep_minimum=2)


async def told_of(checkpointer, thread_id):
    """All that can be known of a thread but ids; a parent is told by its position."""
    page = await checkpointer.get_history(thread_id, include_failed=True, limit=1_000)
    places = {one.id: one.position for one in page}
    history = [
        (one.position, places.get(one.parent_id), one.branch, one.status, one.tags, one.metadata, one.node, one.run_id,
         one.created_at)
        for one in page
    ]  # fmt: skip
    branches = [
        (one.name, places.get(one.head_id), places.get(one.forked_from_id), one.metadata)
        for one in await checkpointer.branches(thread_id)
    ]
    return history, branches, await restored(checkpointer, list(places))


async def test_a_copy_is_the_same_thread_under_another_name(opener):
    """It shares what it holds, has ids of its own, and goes on apart; when one is deleted, the other stays."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        checkpointer = opener.checkpointer(store, lived_config())
        states = await lived(checkpointer, clock)
        told, before = await told_of(checkpointer, "t"), await rows(store)
        assert await checkpointer.copy_thread("t", "u") == len(states)
        assert alike(await told_of(checkpointer, "u"), told)
        after = await rows(store)
        assert after["checkpoint_segments"] == before["checkpoint_segments"]
        assert after["checkpoint_runs"] == 2 * before["checkpoint_runs"]
        ids = {one.id for one in await checkpointer.get_history("u", include_failed=True)}
        assert ids.isdisjoint(states)
        full = await contents(store)
        assert (await refusal(Conflict, checkpointer.copy_thread("t", "u"))).details["field"] == "thread_id"
        await refusal(Conflict, checkpointer.copy_thread("t", "t"))
        assert await contents(store) == full
        await sound(checkpointer)
        more = await saved(checkpointer, "u", *_growing(3, 14))
        await saved(checkpointer, "u", {"n": "side"}, branch="side")
        await saved(checkpointer, "t", {"n": "own"})
        assert await restored(checkpointer, list(states)) == list(states.values())
        assert await checkpointer.delete_thread("t") is True
        assert await checkpointer.get(next(iter(states))) is None
        assert await restored(checkpointer, more) == _growing(3, 14)
        assert await checkpointer.latest_state("u", "side") == {"n": "side"}
        await sound(checkpointer)
        assert await checkpointer.delete_thread("u") is True
        assert set((await rows(store)).values()) == {0}


async def test_a_deleted_thread_is_gone_and_its_name_can_be_used_again(opener):
    """By whoever remembers it, too."""
    async with opener() as store, opener() as second:
        one, other = opener.checkpointer(store), opener.checkpointer(second)
        ids = await saved(one, "t", *_growing(8))
        await other.latest_state("t")
        assert await other.delete_thread("t") is True
        assert await other.delete_thread("t") is False
        for reader in (one, other):
            assert await reader.latest("t") is None
            assert await reader.latest_state("t") is None
            assert [await reader.get(each) for each in ids] == [None] * 8
            await refusal(NotFound, reader.restore(ids[0]))
        states = _growing(3)
        new = [await one.save("t", states[0]), await other.save("t", states[1]), await one.save("t", states[2])]
        assert await restored(other, new) == states
        assert [each.position for each in await one.get_history("t")] == [2, 1, 0]
        await sound(one)


async def test_what_runs_saved_is_taken_out_and_the_rest_goes_on(opener):
    """A branch whose newest is taken ends before it; one that would have nothing left is in the way."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        states = _growing(9)
        ids = [await checkpointer.save("t", state, run_id=f"r{n // 3}") for n, state in enumerate(states)]
        await checkpointer.create_branch(ids[4], "side")
        side = [await checkpointer.save("t", {"n": n}, branch="side", run_id=f"s{n}") for n in range(2)]
        (other,) = await saved(checkpointer, "u", {"n": "u"}, run_id="r2")
        assert await checkpointer.delete_for_runs(["none", "never"]) == 0
        assert await checkpointer.delete_for_runs(["r2", "s1", "r2"]) == 5
        assert await checkpointer.get(other) is None
        assert await checkpointer.latest("u") is None
        assert [one.id for one in await checkpointer.get_history("t")] == [side[0], *ids[5::-1]]
        assert (await checkpointer.latest("t")).id == ids[5]
        assert (await checkpointer.latest("t", "side")).id == side[0]
        await sound(checkpointer)
        assert await checkpointer.delete_for_runs("r1") == 3
        assert [n async for n in _numbers(checkpointer, "t")] == [0, 1, 2]
        (more,) = await saved(checkpointer, "t", {"n": "more"})
        assert (await checkpointer.get(more)).parent_id == ids[2]
        assert await restored(checkpointer, [*ids[:3], side[0], more]) == [*states[:3], {"n": 0}, {"n": "more"}]
        await sound(checkpointer)
        await checkpointer.create_branch(ids[0], "at the beginning")
        before = await contents(store)
        error = await refusal(Invalid, checkpointer.delete_for_runs("r0"))
        assert error.field == "run_ids"
        assert await contents(store) == before
        assert await checkpointer.delete_for_runs("s0") == 1
        await sound(checkpointer)
        (again,) = await saved(checkpointer, "u", {"n": "again"})
        assert ((await checkpointer.get(again)).position, (await checkpointer.get(again)).parent_id) == (1, None)
        await sound(checkpointer)
