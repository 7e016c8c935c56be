"""What a delta channel is made of: the nearest value that an ancestor holds, and what tasks wrote from there on."""

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from saver_tools import config_of, ids, number, put

from perdure.adapters.langgraph import PerdureSaver
from perdure.values.config import PersistenceConfig


@pytest.fixture(params=["sqlite", "postgres"])
def saver(request, tmp_path):
    url = f"sqlite:///{tmp_path / 'd.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("fresh_postgres_url")
    with PerdureSaver.from_conn_string(PersistenceConfig(url, pool_size=2)) as saver:
        yield saver


@pytest.fixture
def memory():
    with PerdureSaver.from_conn_string(":memory:") as saver:
        yield saver


def _chain(saver, length, *, held=(), channel="d", thread="t", namespace=""):
    """Checkpoints in a line, each with a write of its number to a channel; those in ``held`` hold the channel's value."""
    made, last = [], config_of(thread, namespace=namespace)
    for at in range(length):
        values = {channel: _DeltaSnapshot([f"held {at}"])} if at in held else {}
        last = put(saver, last, values, {channel: str(at)}, id=number(at), metadata=_counted(channel, at, held))
        saver.put_writes(last, [(channel, at)], f"task-{at}")
        made.append(last)
    return made


def _counted(channel, at, held):
    since = min((at - one for one in held if one <= at), default=at + 1)
    return {"counters_since_delta_snapshot": {channel: (since, since)}} if since else {}


def _history(saver, config, *channels):
    found = saver.get_delta_channel_history(config=config, channels=list(channels))
    assert list(found) == list(channels)
    assert found == asyncio.run(saver.aget_delta_channel_history(config=config, channels=list(channels)))
    assert found == BaseCheckpointSaver.get_delta_channel_history(saver, config=config, channels=list(channels))
    return {name: ([value for _, _, value in one["writes"]], one.get("seed", "none")) for name, one in found.items()}


def test_writes_come_oldest_first_without_those_of_the_checkpoint_itself(saver):
    made = _chain(saver, 5)
    assert _history(saver, made[4], "d") == {"d": ([0, 1, 2, 3], "none")}
    assert _history(saver, config_of(), "d") == {"d": ([0, 1, 2, 3], "none")}
    assert _history(saver, made[0], "d") == {"d": ([], "none")}


def test_the_nearest_ancestor_that_holds_the_value_is_the_seed_and_its_writes_count(saver):
    made = _chain(saver, 6, held=(1, 3))
    assert _history(saver, made[5], "d") == {"d": ([3, 4], _DeltaSnapshot(["held 3"]))}
    assert _history(saver, made[3], "d") == {"d": ([1, 2], _DeltaSnapshot(["held 1"]))}
    assert _history(saver, made[1], "d") == {"d": ([0], "none")}


def test_a_plain_value_from_before_a_channel_was_a_delta_one_is_a_seed(saver):
    first = put(saver, config_of(), {"d": ["plain", "list"], "nothing": None}, id=number(1))
    second = put(saver, first, {}, {"d": "1", "nothing": "1"}, new={}, id=number(2))
    assert _history(saver, second, "d", "nothing") == {"d": ([], ["plain", "list"]), "nothing": ([], None)}


def test_what_is_not_there_has_no_history(saver):
    _chain(saver, 2)
    assert saver.get_delta_channel_history(config=config_of(), channels=[]) == {}
    assert _history(saver, config_of("other"), "d", "e") == {"d": ([], "none"), "e": ([], "none")}
    assert _history(saver, config_of(checkpoint_id=number(9)), "d") == {"d": ([], "none")}
    assert _history(saver, config_of(), "never") == {"never": ([], "none")}


def test_each_channel_is_followed_as_far_as_it_needs(saver):
    last = config_of()
    for at in range(6):
        values = {"a": f"a{at}"} if at == 4 else {"b": f"b{at}"} if at == 1 else {}
        last = put(saver, last, values, dict.fromkeys("abc", str(at)), id=number(at))
        saver.put_writes(last, [("a", at), ("b", at), ("other", at), ("b", at + 0.5)], f"task-{at}")
    assert _history(saver, last, "a", "b", "c") == {
        "a": ([4], "a4"), "b": ([1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5], "b1"), "c": ([], "none"),
    }  # fmt: skip


def test_a_fork_has_what_is_on_its_own_path(saver):
    made = _chain(saver, 4)
    fork = put(saver, made[1], {}, {"d": "f"}, id=number(50))
    saver.put_writes(fork, [("d", "fork")], "task")
    tip = put(saver, fork, {}, {"d": "g"}, id=number(51))
    assert _history(saver, tip, "d") == {"d": ([0, 1, "fork"], "none")}
    assert _history(saver, made[3], "d") == {"d": ([0, 1, 2], "none")}


def test_parallel_writes_are_in_the_order_of_their_paths(saver):
    first = put(saver, config_of(), id=number(1))
    for task, path in (("a", "~2"), ("b", "~10"), ("c", "~1"), ("d", "")):
        saver.put_writes(first, [("d", f"{path}.{n}") for n in range(2)], task, path)
    last = put(saver, first, id=number(2))
    assert _history(saver, last, "d")["d"][0] == [".0", ".1", "~1.0", "~1.1", "~10.0", "~10.1", "~2.0", "~2.1"]


def test_namespaces_and_threads_are_apart(saver):
    _chain(saver, 3)
    _chain(saver, 5, namespace="sub:1")
    _chain(saver, 2, thread="other", held=(0,))
    assert _history(saver, config_of(), "d") == {"d": ([0, 1], "none")}
    assert _history(saver, config_of(namespace="sub:1"), "d") == {"d": ([0, 1, 2, 3], "none")}
    assert _history(saver, config_of("other"), "d") == {"d": ([0], _DeltaSnapshot(["held 0"]))}


def test_a_chain_is_followed_far_and_in_any_order_of_ids(saver):
    """By parents, never by ids; and a ring has an end."""
    order = list(range(90))
    random.Random(5).shuffle(order)
    last = config_of()
    for at, one in enumerate(order):
        last = put(saver, last, {"d": "root"} if at == 0 else {}, {"d": str(at)}, id=number(one))
        saver.put_writes(last, [("d", at)], "task")
    assert _history(saver, last, "d") == {"d": (list(range(89)), "root")}
    put(saver, last, {}, {"d": "again"}, id=number(order[0]))  # its own descendant's child
    found = saver.get_delta_channel_history(config=last, channels=["d"])["d"]
    assert ([value for _, _, value in found["writes"]], "seed" in found) == (list(range(89)), False)


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_is_what_walking_it_gives(memory, seed):
    """Parents at random, some that never come, writes before and after, values now and then, checkpoints taken away."""
    _live_at_random(memory, seed)


@pytest.mark.parametrize("seed", range(2))
def test_some_histories_are_what_walking_them_gives_on_each_engine(saver, seed):
    _live_at_random(saver, seed)


def _live_at_random(saver, seed):
    rng = random.Random(seed)
    saver.delete_thread("t")
    made = []
    for at in rng.sample(range(60), 14):
        parent = rng.choice(made) if made and rng.random() < 0.9 else config_of(checkpoint_id=number(rng.randrange(60)))
        if rng.random() < 0.2:
            saver.put_writes(config_of(checkpoint_id=number(at)), [("a", f"early {at}")], f"e{at}", "~early")
        if parent["configurable"].get("checkpoint_id") == number(at):
            parent = config_of()
        values = {name: f"{name}{at}" for name in "ab" if rng.random() < 0.2}
        made.append(
            put(saver, parent, values, dict.fromkeys("abc", str(at)), id=number(at), metadata={"run_id": f"r{at % 5}"})
        )
        for task in range(rng.randrange(3)):
            saver.put_writes(
                made[-1],
                [(rng.choice("abc"), (at, task, k)) for k in range(2)],
                f"t{task}",
                rng.choice(["", "~b", "~a"]),
            )
    if rng.random() < 0.3:
        saver.delete_for_runs([f"r{rng.randrange(5)}"])
    for config in [*made, config_of()]:
        if not _in_a_ring(saver, config):
            _history(saver, config, "a", "b", "c")


def _in_a_ring(saver, config):
    """Whether the base class's walk would never end: a parent that came after its descendant."""
    seen = set()
    while (found := saver.get_tuple(config)) is not None and found.parent_config is not None:
        config = found.parent_config
        if (at := config["configurable"]["checkpoint_id"]) in seen:
            return True
        seen.add(at)
    return False


# -- taking away -------------------------------------------------------------------------------------------------------------


def test_pruning_keeps_what_the_newest_is_made_of_and_no_more(saver):
    for thread, held in (("a", ()), ("b", (0,)), ("c", (4,)), ("d", (2, 6)), ("e", (7,))):
        made = _chain(saver, 8, held=held, thread=thread)
        wanted = {"d": ([], "none")} if held == (7,) else _history(saver, made[7], "d")
        saver.prune([thread])
        assert _history(saver, config_of(thread), "d") == wanted
        first = max(held, default=0)
        assert ids(saver.list(config_of(thread))) == [number(at) for at in range(7, first - 1, -1)]


def test_a_delta_channel_that_was_never_written_needs_nobody(saver):
    last = config_of()
    for at in range(5):
        counters = {"counters_since_delta_snapshot": {"d": (0, at + 1), "e": [0, at + 1]}}
        last = put(saver, last, {"e": "held"} if at == 2 else {}, {"x": str(at)}, id=number(at), metadata=counters)
    saver.prune(["t"])
    assert ids(saver.list(config_of())) == [number(4), number(3), number(2)]
    assert _history(saver, last, "e") == {"e": ([], "held")}


def test_runs_go_but_for_what_others_are_made_of(saver):
    last, runs = config_of(), ["a", "b", "c", "b", "d", "e"]
    for at, run in enumerate(runs):
        metadata = {**_counted("d", at, (2,)), "run_id": run}
        last = put(
            saver,
            last,
            {"d": _DeltaSnapshot([at])} if at == 2 else {},
            {"d": str(at)},
            id=number(at),
            metadata=metadata,
        )
        saver.put_writes(last, [("d", at)], "task")
    wanted = _history(saver, last, "d")
    saver.delete_for_runs(["a", "b"])
    assert ids(saver.list(config_of())) == [number(at) for at in (5, 4, 3, 2)]  # 3 is b's, and needed
    assert _history(saver, last, "d") == wanted
    saver.delete_for_runs(["d", "e"])
    assert ids(saver.list(config_of())) == [number(3), number(2)]
    saver.delete_for_runs(["b"])
    assert ids(saver.list(config_of())) == [number(2)]


def test_a_copy_has_the_whole_chain(saver):
    _chain(saver, 6, held=(1,))
    saver.copy_thread("t", "copy")
    wanted = _history(saver, config_of(), "d")
    saver.delete_thread("t")
    assert _history(saver, config_of("copy"), "d") == wanted == {"d": ([1, 2, 3, 4], _DeltaSnapshot(["held 1"]))}
    saver.prune(["copy"])
    assert _history(saver, config_of("copy"), "d") == wanted
