"""Checkpoints of large states: what is saved again costs what changed, and comes back whatever was done to it."""

import random

import pytest

from perdure import CheckpointConfig
from perdure.testing.suite.checkpoint_tools import alike, restored, saved, sound, stored_bytes

_CHUNK = 256 * 1_024


def _edits(rng):
    """(what was done, state, most bytes that it may add): one state made from the other."""
    items = [f"{n}: {rng.randbytes(60).hex()}" for n in range(1_000)]
    table = {f"key {n}": rng.randbytes(40).hex() for n in range(400)}
    deep = {"a": {"b": {"text": rng.randbytes(5_000).hex(), "n": 1}, "c": [1, 2]}, "d": rng.randbytes(5_000).hex()}
    fresh = iter(lambda: rng.randbytes(60).hex(), None)

    def state():
        return {"items": items, "table": table, "deep": deep}

    yield "the first", state(), 400_000
    items = [*items, next(fresh)]
    yield "one more", state(), 1_000
    items = [*items[:500], next(fresh), *items[501:]]
    yield "an edit in the middle", state(), 1_000
    items = [*items[:300], next(fresh), next(fresh), *items[300:]]
    yield "two put in between", state(), 1_000
    items = [*items[:100], *items[103:]]
    yield "three taken out", state(), 1_000
    items = items[::2]
    yield "every other one", state(), 120_000
    items = [*items[250:], *items[:250]]
    yield "turned around", state(), 2_000
    items = [items[0]] * 3 + items + [items[-1]] * 2
    yield "some twice", state(), 2_000
    items = items[:7]
    yield "few left", state(), 1_000
    table = {**table, "key 7": "new", "more": next(fresh)}
    yield "two keys of many", state(), 1_000
    del (table := dict(table))["key 100"]
    yield "a key less", state(), 1_000
    deep = {**deep, "a": {**deep["a"], "b": {**deep["a"]["b"], "n": 2}}}
    yield "a number deep inside", state(), 500
    table = dict(list(table.items())[:20])
    yield "few keys", state(), 8_000
    items = {"now": "a mapping", **{f"k{n}": item for n, item in enumerate(items)}}
    yield "another type", state(), 3_000
    items = "text"
    yield "text", state(), 500
    items = []
    yield "nothing", state(), 500
    items = [[], {}, None, [[]], {"a": []}]
    yield "odd items", state(), 500


async def test_an_edit_of_a_large_state_costs_what_it_changes(opener, seeded_random):
    """Whatever was done to it, and whether its process remembers the state before or not."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store, CheckpointConfig(compression="none"))
        made = []
        for name, state, most in _edits(seeded_random):
            before = await stored_bytes(store)
            if len(made) % 3 == 2:
                checkpointer = opener.checkpointer(store, CheckpointConfig(compression="none"))
            (one,) = await saved(checkpointer, "t", state)
            made.append((one, state))
            assert await stored_bytes(store) - before <= most, name
            assert (await checkpointer.get(one)).size <= most, name
        for reader in (checkpointer, opener.checkpointer(store)):
            for (one, _), state in zip(made, await restored(reader, [one for one, _ in made]), strict=True):
                assert alike(state, dict(made)[one])
        replayed = [state async for _, state in checkpointer.replay("t")]
        assert alike(replayed, [state for _, state in made])
        await sound(checkpointer)


async def test_random_edits_of_lists_come_back(opener, seeded_random):
    """Also when the list becomes a patchwork of what it was."""
    rng = seeded_random
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        made, items = [], [rng.randrange(50) for _ in range(300)]
        for number in range(60 if opener.engine == "sqlite" else 15):
            low = rng.randrange(len(items))
            high = min(len(items), low + rng.randrange(40))
            match rng.randrange(6):
                case 0:
                    items = items[:low] + items[high:] or [1]
                case 1:
                    items = items[:low] + [f"new {number} {n}" for n in range(rng.randrange(5))] + items[low:]
                case 2:
                    items = items[high:] + items[:high]
                case 3:
                    items = items + items[low:high]
                case 4:
                    items = rng.sample(items, len(items))
                case _:
                    items = [*items[:low], [number] * 20, *items[high:]]
            made += await saved(checkpointer, "t", {"items": items, "also": items[:low]})
            if number % 7 == 6:
                checkpointer = opener.checkpointer(store)
            assert (await checkpointer.restore(made[-1])) == {"items": items, "also": items[:low]}
        await sound(checkpointer)


async def _costs_a_chunk(opener, rng, megabytes):
    size = megabytes * 1_024 * 1_024
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        data = rng.randbytes(size)
        (first,) = await saved(checkpointer, "t", {"data": data, "n": 1})
        before = await stored_bytes(store)
        assert size <= before < size * 1.01 + 100_000
        edited = data[: size // 2] + b"edit" + data[size // 2 + 4 :]
        (second,) = await saved(checkpointer, "t", {"data": edited, "n": 2})
        longer = edited + b"more"
        (third,) = await saved(opener.checkpointer(store), "t", {"data": longer, "n": 3})
        assert await stored_bytes(store) - before < 2 * 2 * _CHUNK
        assert (await checkpointer.get(second)).size < 1.1 * _CHUNK
        for one, state in ((first, data), (second, edited), (third, longer)):
            assert (await checkpointer.restore(one))["data"] == state
        difference = await checkpointer.compare(first, second, include_details=False)
        assert set(difference.changed) == {"data", "n"}
        await sound(checkpointer)


@pytest.mark.parametrize("opener", ["sqlite-blocking", "postgres"], indirect=True)
async def test_an_edit_in_20_megabytes_costs_a_chunk(opener, seeded_random):
    await _costs_a_chunk(opener, seeded_random, 20)


@pytest.mark.full
async def test_an_edit_in_100_megabytes_costs_a_chunk(opener, seeded_random):
    await _costs_a_chunk(opener, seeded_random, 100)


@pytest.mark.parametrize("opener", ["sqlite"], indirect=True)
async def test_a_growing_conversation_takes_about_its_own_size(opener):
    """1,000 steps to 1,000 messages of 400 bytes: at most 1.2 times the JSON text of the last state, as it is promised."""
    rng = random.Random(7)
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        messages = []
        for number in range(1_000):
            messages.append({"id": f"m{number}", "role": "user", "content": rng.randbytes(150).hex()})
            last = await checkpointer.save("t", {"messages": messages, "step": number}, {"step": number})
        assert await checkpointer.restore(last) == {"messages": messages, "step": 999}
        raw = len(str(messages))
        assert await stored_bytes(store) < 1.2 * raw
        assert len(await checkpointer.get_history("t", limit=1_000)) == 1_000
        (size,) = (await store.execute("select count(*) from checkpoint_items"))[0]
        assert size < 2 * 64
