"""Threads of checkpoints as files: what was exported comes back, and a file that was altered is refused or is sound."""

import base64
import copy
import json

import pytest

from perdure.testing.suite.checkpoint_tools import alike, contents, restored, saved, sound
from perdure.testing.suite.checkpoints_care import lived, lived_config, told_of
from perdure.testing.suite.tools import TurnedClock, refusal
from perdure.values.errors import Conflict, Invalid

_ODD = [-1, 0, 1, 2, 7, 2**31, 2**53, 2**62, 2**63, 2**64, 10**30, None, "", "x", "\0", [], {}, True, 1.5, "x" * 2_000]


async def test_an_exported_thread_comes_back_whole(opener):
    """In another tenant under its own ids, beside itself under new ones, and again after it was deleted."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        checkpointer = opener.checkpointer(store, lived_config())
        states = await lived(checkpointer, clock)
        told = await told_of(checkpointer, "t")
        data = await checkpointer.export_thread("t")
        assert all(json.loads(line) for line in data.splitlines())
        before = await contents(store)
        assert (await refusal(Conflict, checkpointer.import_thread(data))).details["field"] == "thread_id"
        assert await contents(store) == before
        elsewhere = checkpointer.using(store.for_tenant("other"))
        assert await elsewhere.import_thread(data) == "t"
        assert alike(await told_of(elsewhere, "t"), told)
        assert await restored(elsewhere, list(states)) == list(states.values())
        assert await checkpointer.import_thread(memoryview(data), "u") == "u"
        assert alike(await told_of(checkpointer, "u"), told)
        assert {one.id for one in await checkpointer.get_history("u")}.isdisjoint(states)
        assert await checkpointer.delete_thread("t") is True
        assert await checkpointer.import_thread(bytearray(data)) == "t"
        for one, thread in ((checkpointer, "t"), (checkpointer, "u"), (elsewhere, "t")):
            (made,) = await saved(one, thread, {"n": "more", "items": ["a"] * 70})
            assert await one.restore(made) == {"n": "more", "items": ["a"] * 70}
            await saved(one, thread, {"n": "side"}, branch="side")
            await sound(one)


@pytest.mark.parametrize("opener", ["sqlite", "postgres"], indirect=True)
async def test_a_file_that_was_altered_is_refused_or_is_a_sound_thread(opener, seeded_random):
    """Lines dropped, doubled, swapped, cut; names, numbers and bytes changed. What was refused left nothing."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        checkpointer = opener.checkpointer(store, lived_config())
        await lived(checkpointer, clock)
        lines = (await checkpointer.export_thread("t")).splitlines(keepends=True)
        await checkpointer.delete_thread("t")
        empty = await contents(store)
        refused = taken = 0
        files = list(_altered(lines, seeded_random))
        for data in files if opener.engine == "sqlite" else seeded_random.sample(files, 25):
            try:
                name = await checkpointer.import_thread(data)
            except Invalid:
                refused += 1
                if refused % 20 == 0:
                    assert await contents(store) == empty, data[:2_000]
                continue
            taken += 1
            await sound(checkpointer)
            for branch in await checkpointer.branches(name):
                (made,) = await saved(checkpointer, name, {"items": [1, 2], "text": "x" * 100}, branch=branch.name)
                assert await checkpointer.restore(made) == {"items": [1, 2], "text": "x" * 100}
            await sound(checkpointer)
            await checkpointer.delete_thread(name)
        assert await contents(store) == empty
        assert refused > 2 * taken > 0


def _altered(lines, rng):
    """Files that differ from a good one in one place."""
    whole = b"".join(lines)
    yield from (
        b"",
        b"\n",
        b"{}",
        b"[]",
        b"null",
        whole[1:],
        whole[: len(whole) // 2],
        whole[:-20],
        whole + b"x",
        whole * 2,
    )
    for number in range(len(lines)):
        yield b"".join(lines[:number] + lines[number + 1 :])
        yield b"".join([*lines[: number + 1], *lines[number:]])
    for _ in range(20):
        one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        swapped = list(lines)
        swapped[one], swapped[other] = swapped[other], swapped[one]
        yield b"".join(swapped)
        at = rng.randrange(len(whole))
        yield whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :]
    parsed = [json.loads(line) for line in lines]
    for number, line in enumerate(parsed):
        places = list(_places(line))
        for place in rng.sample(places, min(len(places), 9)):
            changed = copy.deepcopy(line)
            _put(changed, place, rng)
            yield b"".join([*lines[:number], json.dumps(changed).encode() + b"\n", *lines[number + 1 :]])


def _places(value, path=()):
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(inner, (*path, key))


def _put(value, path, rng):
    for key in path[:-1]:
        value = value[key]
    old = value[path[-1]]
    if isinstance(old, str) and len(old) > 60 and rng.random() < 0.7:  # an item: other bytes
        data = bytearray(base64.b64decode(old))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        value[path[-1]] = base64.b64encode(data).decode()
    elif rng.random() < 0.2:
        del value[path[-1]]
    elif isinstance(old, int) and rng.random() < 0.5:
        value[path[-1]] = old + rng.choice((-1, 1))
    else:
        value[path[-1]] = rng.choice(_ODD)


async def test_a_file_cannot_take_the_ids_of_another_thread(opener):
    """A name that was edited in the file is no way to stand in for a checkpoint that is there."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        (made,) = await saved(checkpointer, "t", {"n": "true"})
        data = (await checkpointer.export_thread("t")).replace(b'"id":"t"', b'"id":"u"', 1)
        await refusal(Conflict, checkpointer.import_thread(data))
        assert await checkpointer.restore(made) == {"n": "true"}
        assert await checkpointer.latest("u") is None
        assert await checkpointer.import_thread(data, "u") == "u"
        await sound(checkpointer)


async def test_a_thread_whose_main_branch_has_nothing_left_can_be_moved(opener):
    """What its runs saved was deleted; another branch is there still."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        (first,) = await saved(checkpointer, "t", {"n": 1}, run_id="r")
        await checkpointer.create_branch(first, "side")
        (side,) = await saved(checkpointer, "t", {"n": 2}, branch="side")
        assert await checkpointer.delete_for_runs("r") == 1
        await checkpointer.import_thread(await checkpointer.export_thread("t"), "u")
        await checkpointer.copy_thread("t", "v")
        for thread in ("t", "u", "v"):
            assert await checkpointer.latest(thread) is None
            assert await checkpointer.latest_state(thread, "side") == {"n": 2}
            (made,) = await saved(checkpointer, thread, {"n": 3})
            assert (await checkpointer.get(made)).parent_id is None
        assert await checkpointer.restore(side) == {"n": 2}
        await sound(checkpointer)
