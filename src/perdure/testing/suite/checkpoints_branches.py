"""Branches of checkpoints: they copy nothing, go on apart, are compared and merged. Tags."""

import dataclasses

import pytest

from perdure import MISSING, CheckpointConfig, MergeConflict, MergeReport
from perdure.rooms.checkpoints.diff import Change
from perdure.testing.suite.checkpoint_tools import alike, contents, restored, rows, saved, sound
from perdure.testing.suite.tools import TurnedClock, refusal, together
from perdure.values.errors import Conflict, Invalid, Undecodable

_LONG = {"items": [{"id": n, "text": f"item {n}"} for n in range(150)], "plan": {"steps": {"a": "x" * 5_000}}, "n": 0}


async def test_a_branch_copies_nothing_and_goes_on_apart(opener):
    """Nor does what is saved on it, but for what is new; branches of branches too."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        first, second = await saved(checkpointer, "t", _LONG, {**_LONG, "n": 1})
        before = await rows(store)
        await checkpointer.create_branch(first, "side")
        changed = {table for table, count in (await rows(store)).items() if count != before[table]}
        assert changed == {"checkpoint_branches"}
        assert await checkpointer.latest_state("t", "side") == _LONG
        runs = before["checkpoint_runs"]
        states = {second: {**_LONG, "n": 1}}
        for number in range(6):
            branch = ("main", "side")[number % 2]
            state = {**_LONG, "items": [*_LONG["items"], *[f"{branch} {n}" for n in range(number // 2 + 1)]]}
            (made,) = await saved(checkpointer, "t", state, branch=branch)
            states[made] = state
        await checkpointer.create_branch(made, "side of side")
        (made,) = await saved(checkpointer, "t", {**state, "n": 9}, branch="side of side")
        states[made] = {**state, "n": 9}
        assert (await rows(store))["checkpoint_runs"] == runs
        assert (await checkpointer.get(made)).size < 200
        for reader in (checkpointer, opener.checkpointer(store)):
            assert await restored(reader, list(states)) == list(states.values())
            for branch in ("main", "side", "side of side"):
                newest = await reader.latest("t", branch)
                assert newest.branch == branch
                assert await reader.latest_state("t", branch) == states[newest.id]
        await sound(checkpointer)


async def test_branches_that_grow_in_turn_make_no_patchwork_of_each_other(opener):
    """Each goes on in a log of its own: what a checkpoint is made of stays short."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store, CheckpointConfig(compression="none"))
        (first,) = await saved(checkpointer, "t", {"items": ["a"] * 3})
        await checkpointer.create_branch(first, "side")
        sizes = []
        for number in range(30):
            for branch in ("main", "side"):
                state = {"items": ["a"] * 3 + [f"{branch} {n}" for n in range(number)]}
                (made,) = await saved(checkpointer, "t", state, branch=branch)
                sizes.append((await checkpointer.get(made)).size)
        assert max(sizes[-8:]) <= max(sizes[:8]) + 8


async def test_branches_are_listed_and_their_names_are_the_threads_own(opener):
    """Main first, then in the order they were made; another thread may have the same names."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        checkpointer = opener.checkpointer(store)
        assert await checkpointer.branches("t") == []
        first, second = await saved(checkpointer, "t", {"n": 1}, {"n": 2})
        clock.turn(seconds=1)
        ids = [await checkpointer.create_branch(first, "zeta", {"why": ["x", 1]})]
        ids.append(await checkpointer.create_branch(second, "alpha"))
        (side,) = await saved(checkpointer, "t", {"n": 3}, branch="zeta")
        main, zeta, alpha = await checkpointer.branches("t")
        assert (main.name, main.head_id, main.forked_from_id, main.metadata) == ("main", second, None, {})
        assert (zeta.name, zeta.head_id, zeta.forked_from_id) == ("zeta", side, first)
        assert (zeta.metadata, zeta.created_at, zeta.thread_id) == ({"why": ["x", 1]}, clock.now, "t")
        assert (alpha.head_id, alpha.forked_from_id, [zeta.id, alpha.id]) == (second, second, ids)
        before = await contents(store)
        for name in ("main", "zeta", "alpha"):
            assert (await refusal(Conflict, checkpointer.create_branch(first, name))).details["field"] == "branch_name"
        assert await contents(store) == before
        (other,) = await saved(checkpointer, "u", {"n": 1})
        await checkpointer.create_branch(other, "zeta")
        made = await together(opener, *(lambda: checkpointer.create_branch(first, "at once") for _ in range(2)))
        assert sorted(type(one) for one in made if not isinstance(one, str)) == [Conflict]
        await sound(checkpointer)


async def test_tags_are_put_on_and_taken_off(opener):
    """Each once; those that are there, or not there, are no matter. They are part of no state."""
    async with opener() as store, opener() as second:
        checkpointer, other = opener.checkpointer(store), opener.checkpointer(second)
        a, b = await saved(checkpointer, "t", {"n": 1}, {"n": 2}, tags="born with")
        await other.tag(a, "x", "a", "x")
        await other.tag(a, "a")
        assert (await checkpointer.get(a)).tags == ("a", "born with", "x")
        assert (await checkpointer.find_checkpoint("t", ["x", "born with"])).id == a
        await other.untag(a, "born with", "never there")
        assert (await checkpointer.get(a)).tags == ("a", "x")
        assert (await checkpointer.get(b)).tags == ("born with",)
        assert [one.tags for one in await checkpointer.get_history("t")] == [("born with",), ("a", "x")]
        (c,) = await saved(checkpointer, "t", {"n": 3})
        assert (await checkpointer.get(c)).parent_id == b
        await sound(checkpointer)


# -- compare -----------------------------------------------------------------------------------------------------------------


async def test_what_is_different_is_told_by_path(opener):
    """Items of lists by their id, else by position; across threads and branches, in both directions."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        a = {
            "messages": [{"id": "m1", "text": "a"}, {"id": "m2", "text": "b"}], "plain": [1, 2, 3], "same": "x" * 5_000,
            "deep": {"big": {"text": "y" * 5_000, "n": 1}, "gone": None}, "kind": 1, "tuple": (1, 2),
        }  # fmt: skip
        b = {
            "messages": [{"id": "m2", "text": "c"}, {"id": "m3", "text": "d"}], "plain": [1, 9, 3, 4], "same": "x" * 5_000,
            "deep": {"big": {"text": "y" * 5_000, "n": 2}}, "kind": 1.0, "tuple": (1, 2), "new": {"k": b"v"},
        }  # fmt: skip
        (one,) = await saved(checkpointer, "t", a)
        (other,) = await saved(checkpointer, "u", b)
        found = await checkpointer.compare(one, other)
        assert found.added == {"messages[id=m3]": {"id": "m3", "text": "d"}, "plain[3]": 4, "new": {"k": b"v"}}
        assert found.removed == {"messages[id=m1]": {"id": "m1", "text": "a"}, "deep.gone": None}
        assert alike(found.changed["kind"], Change(1, 1.0))
        assert {path: (change.before, change.after) for path, change in found.changed.items()} == {
            "messages[id=m2].text": ("b", "c"), "plain[1]": (2, 9), "deep.big.n": (1, 2), "kind": (1, 1.0),
        }  # fmt: skip
        assert found.sizes.keys() == found.added.keys() | found.removed.keys() | found.changed.keys()
        assert (found.sizes["new"].before, found.sizes["deep.gone"].after) == (0, 0)
        assert found.sizes["new"].after > 0
        back = await checkpointer.compare(other, one)
        assert (set(back.added), set(back.removed)) == (set(found.removed), set(found.added))
        short = await checkpointer.compare(one, other, include_details=False)
        assert (set(short.added), set(short.removed), set(short.changed)) == (
            set(found.added), set(found.removed), set(found.changed),
        )  # fmt: skip
        same = await checkpointer.compare(one, one)
        assert same.equal
        assert not found.equal


@dataclasses.dataclass
class Opaque:
    text: str


async def test_equal_parts_are_not_decoded_to_compare(opener):
    """A program that does not know a type compares the states around it."""
    async with opener() as store:
        knows, other = opener.checkpointer(store), opener.checkpointer(store)
        knows.register_type("opaque", Opaque)
        held = {"big": Opaque("x" * 300_000), "small": Opaque("y"), "list": [Opaque("z"), 1]}
        a, b, c = await saved(
            knows, "t", {**held, "n": 1}, {**held, "n": 2}, {**held, "small": Opaque("other"), "n": 1}
        )  # fmt: skip
        assert (await other.compare(a, b)).changed == {"n": Change(1, 2)}
        assert (await knows.compare(a, c)).changed == {"small.text": Change("y", "other")}
        await refusal(Undecodable, other.compare(a, c))


# -- merge -------------------------------------------------------------------------------------------------------------------


async def _forked(checkpointer, base, ours, theirs):
    (first,) = await saved(checkpointer, "t", base)
    await checkpointer.create_branch(first, "side")
    (mine,) = await saved(checkpointer, "t", ours)
    (its,) = await saved(checkpointer, "t", theirs, branch="side")
    return first, mine, its


async def test_what_only_one_side_changed_is_merged(opener):
    """Into the branch that is asked for, with where it came from; the other stays as it is."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        base = {"list": [{"id": 1, "t": "a"}, {"id": 2, "t": "b"}], "n": 1, "gone": 1, "set": {1, 2}}
        ours = {"list": [{"id": 1, "t": "A"}, {"id": 2, "t": "b"}], "n": 1, "set": {1, 2, 3}, "mine": True}
        theirs = {"list": [{"id": 1, "t": "a"}, {"id": 3, "t": "c"}], "n": 2, "gone": 1, "set": {2}}
        first, mine, its = await _forked(checkpointer, base, ours, theirs)
        report = await checkpointer.merge("t", "main", "side", metadata={"by": "me"}, tags=["merged"])
        assert (report.base_id, report.conflicts) == (first, ())
        merged = {"list": [{"id": 1, "t": "A"}, {"id": 3, "t": "c"}], "n": 2, "set": {2, 3}, "mine": True}
        assert await checkpointer.latest_state("t") == await checkpointer.restore(report.checkpoint_id) == merged
        found = await checkpointer.get(report.checkpoint_id)
        assert (found.parent_id, found.branch, found.node, found.tags) == (mine, "main", "merge", ("merged",))
        assert found.metadata == {"merged_from": its, "merge_base": first, "by": "me"}
        assert (await checkpointer.latest("t", "side")).id == its
        await sound(checkpointer)


async def test_what_both_sides_changed_is_a_conflict_until_it_is_resolved(opener):
    """The report has the paths and values, and nothing is saved; then ours, theirs, or what a callable answers."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        states = (
            {"plan": {"goal": "a", "n": 1}, "x": 1},
            {"plan": {"goal": "b", "n": 1}},
            {"plan": {"goal": "c", "n": 2}, "x": 2},
        )
        first, _, _ = await _forked(checkpointer, *states)
        conflicts = (MergeConflict("plan.goal", "a", "b", "c"), MergeConflict("x", 1, MISSING, 2))
        before = await contents(store)
        assert await checkpointer.merge("t", "main", "side") == MergeReport(None, first, conflicts)
        with pytest.raises(ZeroDivisionError):
            await checkpointer.merge("t", "main", "side", resolve=lambda _: 1 // 0)
        error = await refusal(Invalid, checkpointer.merge("t", "main", "side", resolve=lambda _: object()))
        assert error.field == "state.plan.goal"
        assert await contents(store) == before
        seen = []

        def pick(conflict):
            seen.append(conflict)
            return MISSING if conflict.path == "x" else f"{conflict.ours}{conflict.theirs}"

        (head,) = [one.head_id for one in await checkpointer.branches("t") if one.name == "main"]
        for resolve, merged in [
            ("ours", {"plan": {"goal": "b", "n": 2}}),
            ("theirs", {"plan": {"goal": "c", "n": 2}, "x": 2}),
            (pick, {"plan": {"goal": "bc", "n": 2}}),
        ]:
            await checkpointer.create_branch(head, f"with {resolve}")
            report = await checkpointer.merge("t", f"with {resolve}", "side", resolve=resolve)
            assert (report.base_id, report.conflicts) == (first, conflicts)
            assert await checkpointer.restore(report.checkpoint_id) == merged
        assert tuple(seen) == conflicts


async def test_a_merge_is_against_the_base_that_is_given_or_the_newest_common_one(opener):
    """Also where both branched off others, and where retention left gaps on the way."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        ids = await saved(checkpointer, "t", *({"n": n, "a": 0, "b": 0} for n in range(6)))
        await checkpointer.create_branch(ids[3], "one")
        one = await saved(checkpointer, "t", {"n": 3, "a": 1, "b": 0}, {"n": 3, "a": 2, "b": 0}, branch="one")
        await checkpointer.create_branch(one[0], "two")
        await saved(checkpointer, "t", {"n": 3, "a": 1, "b": 7}, branch="two")
        (other,) = await saved(checkpointer, "u", {"n": 0})

        async def base_of(into, source, **more):
            trial = f"trial {len(await checkpointer.branches('t'))}"
            await checkpointer.create_branch((await checkpointer.latest("t", into)).id, trial)
            report = await checkpointer.merge("t", trial, source, resolve="ours", **more)
            return report.base_id, await checkpointer.restore(report.checkpoint_id)

        assert await base_of("one", "two") == (one[0], {"n": 3, "a": 2, "b": 7})
        assert await base_of("two", "one") == (one[0], {"n": 3, "a": 2, "b": 7})
        assert await base_of("main", "two") == (ids[3], {"n": 5, "a": 1, "b": 7})
        assert await base_of("two", "main") == (ids[3], {"n": 5, "a": 1, "b": 7})
        assert await base_of("main", "one", base=ids[1]) == (ids[1], {"n": 5, "a": 2, "b": 0})
        assert await base_of("main", "main") == (ids[5], {"n": 5, "a": 0, "b": 0})
        assert (await refusal(Invalid, checkpointer.merge("t", "main", "two", base=other))).field == "base"
        strict = opener.checkpointer(store, CheckpointConfig(keep_minimum=0, max_checkpoints_per_thread=1))
        removed = (await strict.apply_retention("t"))[0].removed
        assert ids[4] in removed
        assert await base_of("main", "two") == (ids[3], {"n": 5, "a": 1, "b": 7})
        await sound(checkpointer)
