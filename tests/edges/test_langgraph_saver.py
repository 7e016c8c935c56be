"""LangGraph's saver on perdure: both engines, both worlds, one object. Values, deltas and whole graphs have their own files."""

import asyncio
import copy
import inspect
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, writes_sort_key
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from saver_tools import checkpoint_of, config_of, ids, number, plain, put, values_of

import perdure
import perdure.sync
from perdure import CheckpointConfig
from perdure.adapters.langgraph import PerdureSaver
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Closed, Invalid, Misused, OverLimit, WrongKey

KEY = b"k" * 32


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    """A fresh database of each engine."""
    if request.param == "postgres":
        return request.getfixturevalue("fresh_postgres_url")
    return f"sqlite:///{tmp_path / 'saver.db'}"


@pytest.fixture
def saver(url):
    with PerdureSaver.from_conn_string(PersistenceConfig(url, pool_size=4)) as saver:
        yield saver


@pytest.fixture
def memory():
    with PerdureSaver.from_conn_string(":memory:") as saver:
        yield saver


# -- the public conformance package ------------------------------------------------------------------------------------------


def _conforms(report):
    counts = {name: (one.tests_passed, one.tests_failed) for name, one in report.results.items()}
    assert counts == {
        "put": (17, 0), "put_writes": (10, 0), "get_tuple": (10, 0), "list": (16, 0), "delete_thread": (5, 0),
        "delete_for_runs": (7, 0), "copy_thread": (8, 0), "prune": (8, 0),
    }  # fmt: skip
    assert sum(passed for passed, _ in counts.values()) == 81
    assert report.passed_all()
    assert report.conformance_level() == "FULL"


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "sealed"])
@pytest.mark.parametrize("place", ["memory", "sqlite", "postgres"])
def test_the_public_conformance_package_finds_everything_right(place, key, tmp_path, request):
    if place == "postgres":
        where = request.getfixturevalue("fresh_postgres_url")
    else:
        where = ":memory:" if place == "memory" else f"sqlite:///{tmp_path / 'a.db'}"

    @checkpointer_test(name="perdure")
    async def ours():
        config = CheckpointConfig(encryption_key=key)
        async with PerdureSaver.from_conn_string(PersistenceConfig(where, pool_size=2), config=config) as saver:
            yield saver

    _conforms(asyncio.run(validate(ours)))


def test_one_saver_conforms_on_a_loop_of_its_own_for_each_capability(memory):
    @checkpointer_test(name="perdure")
    async def ours():
        yield memory

    results = {}
    for capability in (
        "put",
        "put_writes",
        "get_tuple",
        "list",
        "delete_thread",
        "delete_for_runs",
        "copy_thread",
        "prune",
    ):
        report = asyncio.run(validate(ours, capabilities={capability}))
        results[capability] = report.results[capability]
        for thread in {one.config["configurable"]["thread_id"] for one in memory.list(None)}:
            memory.delete_thread(thread)
    assert {name: one.passed for name, one in results.items()} == dict.fromkeys(results, True)
    assert sum(one.tests_passed for one in results.values()) == 81


def test_every_method_of_the_base_class_is_there_in_both_worlds():
    mine = {name for name in vars(PerdureSaver) if not name.startswith("_")}
    base = {name for name, one in vars(BaseCheckpointSaver).items() if callable(one) and not name.startswith("_")}
    assert base - mine <= {"get", "aget", "with_allowlist"}
    for name in mine & base:
        ours, theirs = (
            inspect.signature(getattr(kind, name)).parameters for kind in (PerdureSaver, BaseCheckpointSaver)
        )
        assert [(one.name, one.kind) for one in ours.values()] == [(one.name, one.kind) for one in theirs.values()], (
            name
        )


@pytest.mark.parametrize("name", ["put_writes", "aput_writes"])
def test_task_path_is_a_parameter_by_name(name):
    """LangGraph leaves it out without a word when it cannot see it, and then parallel writes come back in disorder."""
    assert inspect.signature(getattr(PerdureSaver, name)).parameters.get("task_path") is not None


# -- opening ---------------------------------------------------------------------------------------------------------------


def test_a_saver_from_an_address_is_set_up_and_closed(url):
    with PerdureSaver.from_conn_string(url) as saver:
        first = put(saver, config_of(), {"x": 1})
    with pytest.raises(Closed):
        saver.get_tuple(first)
    opening = PerdureSaver.from_conn_string(url)
    for _ in range(2):  # each time another store
        with opening as saver:
            assert values_of(saver, config_of()) == {"x": 1}

    async def again():
        async with opening as saver:
            await saver.setup()
            return (await saver.aget_tuple(first)).checkpoint["channel_values"]

    assert asyncio.run(again()) == {"x": 1}


def test_a_saver_can_be_made_of_an_address_a_blocking_store_or_an_async_one(url):
    with PerdureSaver(url) as saver:
        saver.setup()
        put(saver, config_of(), {"x": 1})
    with perdure.sync.open(url) as store:
        with PerdureSaver(store) as saver:
            assert values_of(saver, config_of()) == {"x": 1}
        assert store.stats()  # it stays its owner's to close

    async def scenario():
        async with perdure.open(url) as store:
            async with PerdureSaver(store) as saver:
                found = (await saver.aget_tuple(config_of())).checkpoint["channel_values"]
            with pytest.raises(Closed):
                await saver.aget_tuple(config_of())
            async with store.transaction() as t:
                with pytest.raises(Misused):
                    PerdureSaver(t)
            return found

    assert asyncio.run(scenario()) == {"x": 1}
    with pytest.raises(Invalid):
        PerdureSaver(42)


def test_an_async_store_in_memory_is_refused():
    async def scenario():
        async with perdure.open(":memory:") as store:
            with pytest.raises(Misused, match="memory"):
                PerdureSaver(store)

    asyncio.run(scenario())


def test_an_opening_that_fails_leaves_nothing_open(tmp_path):
    (tmp_path / "no.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(perdure.PerdureError), PerdureSaver.from_conn_string(f"sqlite:///{tmp_path / 'no.db'}"):
        pass


def test_a_handle_of_a_tenant_keeps_to_that_tenant(url):
    with perdure.sync.open(url) as store:
        ann, bob = (PerdureSaver(store.for_tenant(name)) for name in ("ann", "bob"))
        first = put(ann, config_of(), {"of": "ann"}, metadata={"run_id": "r"})
        put(bob, config_of(), {"of": "bob"}, id=first["configurable"]["checkpoint_id"], metadata={"run_id": "r"})
        ann.put_writes(first, [("c", "ann")], "task")
        assert bob.get_tuple(first).pending_writes == []
        bob.delete_for_runs(["r"])
        bob.delete_thread("t")
        bob.prune(["t"], strategy="delete")
        assert [one.checkpoint["channel_values"] for one in ann.list(None)] == [{"of": "ann"}]
        assert list(PerdureSaver(store).list(None)) == []


def test_checkpoints_commit_with_the_transaction_they_were_put_in(memory):
    with pytest.raises(ZeroDivisionError), memory._store.transaction() as t:
        inner = PerdureSaver(t)
        lost = put(inner, config_of(), {"x": [1]})
        assert values_of(inner, config_of()) == {"x": [1]}
        1 / 0  # noqa: B018
    assert memory.get_tuple(config_of()) is None
    with memory._store.transaction() as t:
        inner = PerdureSaver(t)
        put(inner, lost, {"x": [1]}, new={})  # after one that was taken back
        inner.put_writes(lost, [("c", 1)], "task")
    assert values_of(memory, config_of()) == {"x": [1]}


def test_keys_seal_what_is_saved(url, tmp_path):
    with PerdureSaver.from_conn_string(url, config=CheckpointConfig(encryption_key=KEY)) as saver:
        first = put(saver, config_of(), {"said": ["the secret word is ocelot"]}, metadata={"hint": "walrus-hint"})
        saver.put_writes(first, [("c", "ocelot too")], "task")
        assert values_of(saver, config_of()) == {"said": ["the secret word is ocelot"]}
    with PerdureSaver.from_conn_string(url, config=CheckpointConfig(encryption_key=b"x" * 32)) as other:
        for look in (lambda: other.get_tuple(first), lambda: list(other.list(None)), lambda: put(other, first)):
            with pytest.raises(WrongKey):
                look()
    if url.startswith("sqlite"):
        stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"ocelot" not in stored
        assert b"walrus" not in stored


def _factories():
    saver = PerdureSaver(":memory:")

    @contextmanager
    def blocking():
        with PerdureSaver.from_conn_string(":memory:") as made:
            yield made

    return {
        "object": saver, "callable": lambda: PerdureSaver(":memory:"),
        "opening": lambda: PerdureSaver.from_conn_string(":memory:"), "generator": blocking,
    }  # fmt: skip


@pytest.mark.parametrize("kind", list(_factories()))
def test_what_a_langgraph_json_may_name_gives_a_saver(kind):
    """The server takes a saver, something that gives one, or a context manager, and enters it once for each loop."""
    named = _factories()[kind]

    async def enter():
        made = named if isinstance(named, BaseCheckpointSaver) else named()
        if hasattr(made, "__aenter__"):
            async with made as saver:
                return await _put_and_get(saver)
        with made as saver:
            return await _put_and_get(saver)

    async def _put_and_get(saver):
        await saver.aput(config_of(), checkpoint_of({"x": 1}), {"step": 0}, {})
        return (await saver.aget_tuple(config_of())).checkpoint["channel_values"]

    assert asyncio.run(enter()) == {"x": 1}


# -- threads and loops -------------------------------------------------------------------------------------------------------


def test_blocking_calls_work_from_threads_while_awaited_ones_run(saver):
    def write(name):
        parent = config_of(name)
        for step in range(5):
            parent = put(saver, parent, {"log": list(range(step + 1))}, {"log": str(step)})
            saver.put_writes(parent, [("c", step)], f"task-{step}")
        return ids(saver.list(config_of(name)))

    async def awrite(name):
        parent = config_of(name)
        for step in range(5):
            made = checkpoint_of({"log": list(range(step + 1))}, {"log": str(step)})
            parent = await saver.aput(parent, made, {"step": step}, {"log": str(step)})
            await saver.aput_writes(parent, [("c", step)], f"task-{step}")
        return ids([one async for one in saver.alist(config_of(name))])

    async def both():
        loop = asyncio.get_running_loop()
        threads = [loop.run_in_executor(None, write, f"s{n}") for n in range(3)]
        return await asyncio.gather(*threads, *(awrite(f"a{n}") for n in range(3)))

    def on_a_loop_of_its_own(n):
        return asyncio.run(awrite(f"l{n}"))

    with ThreadPoolExecutor(2) as pool:
        loops = [pool.submit(on_a_loop_of_its_own, n) for n in range(2)]
        found = [*asyncio.run(both()), *(one.result() for one in loops)]
    assert [len(one) for one in found] == [5] * 8
    for name in ("s0", "a0", "l0"):
        assert values_of(saver, config_of(name)) == {"log": [0, 1, 2, 3, 4]}


def test_a_blocking_call_on_a_running_loop_is_answered(saver):
    async def scenario():
        first = put(saver, config_of(), {"x": 1})
        return saver.get_tuple(first).checkpoint["channel_values"], len(list(saver.list(None)))

    assert asyncio.run(scenario()) == ({"x": 1}, 1)


def test_many_threads_put_to_one_thread_at_once(saver):
    root = put(saver, config_of(), {"x": [0]})
    barrier = threading.Barrier(4)

    def child(n):
        barrier.wait(timeout=30)
        return [put(saver, root, {"x": [0, n, k]}, {"x": f"2.{n}.{k}"}) for k in range(4)]

    with ThreadPoolExecutor(4) as pool:
        found = [one for part in pool.map(child, range(4)) for one in part]
    assert len(list(saver.list(config_of()))) == 17
    for n in range(4):
        for k in range(4):
            assert values_of(saver, found[4 * n + k]) == {"x": [0, n, k]}
    assert ids(saver.list(config_of())) == sorted(ids(saver.list(config_of())), reverse=True)


def test_shallow_copies_share_the_store(memory):
    clone = copy.copy(memory)
    first = put(clone, config_of(), {"x": ["a"]})
    assert values_of(memory, first) == {"x": ["a"]}
    del clone
    put(memory, first, {"x": ["a", "b"]}, {"x": "2"})
    assert values_of(copy.copy(memory), config_of()) == {"x": ["a", "b"]}


def test_an_allowlist_makes_a_saver_on_the_same_store(memory):
    memory.serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    clone = memory.with_allowlist([("some", "Kind")])
    assert clone is not memory
    assert clone.serde is not memory.serde
    first = put(clone, config_of(), {"x": [1]})
    assert values_of(memory, first) == {"x": [1]}


# -- put and get -------------------------------------------------------------------------------------------------------------


def test_put_names_the_checkpoint_and_takes_its_parent_from_the_configuration(saver):
    given = config_of()
    given["configurable"]["other"] = object()
    first = put(saver, given, {"x": 1})
    second = put(saver, first, {"x": 2}, {"x": "2"})
    assert set(second["configurable"]) == {"thread_id", "checkpoint_ns", "checkpoint_id"}
    found = saver.get_tuple(config_of())
    assert (found.config, found.parent_config) == (second, first)
    assert saver.get_tuple(first).parent_config is None


def test_a_thread_may_be_named_by_a_number_and_have_no_namespace(saver):
    put(saver, {"configurable": {"thread_id": 7}}, {"x": 1})
    assert values_of(saver, {"configurable": {"thread_id": "7"}}) == {"x": 1}
    assert len(list(saver.list({"configurable": {"thread_id": 7}}))) == 1
    saver.delete_thread(7)
    assert saver.get_tuple({"configurable": {"thread_id": 7}}) is None


def test_the_newest_is_the_one_with_the_greatest_id_whoever_came_last(saver):
    """Ids grow within one process only."""
    for at in (5, 9, 2, 7):
        put(saver, config_of(), {"x": at}, id=number(at))
    assert values_of(saver, config_of()) == {"x": 9}
    assert ids(saver.list(config_of())) == [number(at) for at in (9, 7, 5, 2)]
    assert ids(saver.list(config_of(), before=config_of(checkpoint_id=number(7)))) == [number(5), number(2)]
    assert ids(saver.list(config_of(), before=config_of(checkpoint_id=number(6)), limit=1)) == [number(5)]


def test_before_need_be_no_checkpoint(saver):
    for thread, order in (("in order", [1, 2, 3, 4]), ("not in order", [4, 2, 3, 1])):
        for at in order:
            put(saver, config_of(thread), {"x": at}, id=number(at * 10))
        for edge, found in ((45, 4), (35, 3), (30, 2), (5, 0)):
            assert len(list(saver.list(config_of(thread), before=config_of(checkpoint_id=number(edge))))) == found
        assert len(list(saver.list(config_of(thread), before={"configurable": {}}))) == 4


def test_a_checkpoint_put_again_takes_the_place_of_the_first_and_keeps_its_children(saver):
    first = put(saver, config_of(), {"x": ["a"]}, id=number(1))
    second = put(saver, first, {"x": ["a", "b"]}, {"x": "2"}, id=number(2))
    third = put(saver, second, {"x": ["a", "b", "c"]}, {"x": "3"}, id=number(3))
    saver.put_writes(second, [("c", "kept")], "task")
    put(saver, first, {"x": ["z"]}, {"x": "9"}, id=number(2), metadata={"step": 42})
    found = saver.get_tuple(second)
    assert (found.checkpoint["channel_values"], found.metadata["step"]) == ({"x": ["z"]}, 42)
    assert found.pending_writes == [("task", "c", "kept")]
    assert values_of(saver, third) == {"x": ["a", "b", "c"]}
    assert ids(saver.list(config_of())) == [number(3), number(2), number(1)]
    assert saver.get_tuple(config_of()).parent_config == second
    fourth = put(saver, second, {"x": ["z", "y"]}, {"x": "10"}, id=number(4))
    put(saver, third, {"x": ["newest"]}, {"x": "11"}, id=number(4))
    assert values_of(saver, fourth) == values_of(saver, config_of()) == {"x": ["newest"]}
    saver.copy_thread("t", "copy")
    assert [one.checkpoint for one in saver.list(config_of("copy"))] == [
        one.checkpoint for one in saver.list(config_of())
    ]


@pytest.mark.parametrize("warm", [True, False])
def test_rings_of_parents_end(url, warm):
    """A checkpoint put again under its child, or under itself, makes one."""
    with perdure.sync.open(url) as store:
        saver = PerdureSaver(store)
        first = put(saver, config_of(), {"x": [1], "d": "seed"}, id=number(1))
        second = put(saver, first, {"x": [1, 2]}, {"x": "2", "d": "1"}, id=number(2))
        saver = saver if warm else PerdureSaver(store)
        put(saver, second, {"x": [1, 3]}, {"x": "3", "d": "1"}, id=number(1))
        own = put(saver, second, {"x": [1, 4]}, {"x": "4", "d": "1"}, id=number(2))
        assert values_of(saver, own) == {"x": [1, 4]}
        assert saver.get_tuple(own).parent_config == own
        for config in (first, second, config_of()):
            assert saver.get_delta_channel_history(config=config, channels=["d", "none"]) == {
                "d": {"writes": []}, "none": {"writes": []},
            }  # fmt: skip
        saver.prune(["t"])
        assert ids(saver.list(config_of())) == [number(2)]


def test_a_parent_may_come_later_or_never(saver):
    child = put(saver, config_of(checkpoint_id=number(1)), {"x": 2}, id=number(2))
    assert saver.get_tuple(child).parent_config == config_of(checkpoint_id=number(1))
    assert saver.get_tuple(config_of(checkpoint_id=number(1))) is None
    put(saver, config_of(), {"x": 1}, id=number(1))
    assert values_of(saver, saver.get_tuple(child).parent_config) == {"x": 1}


def test_ids_need_be_no_uuids(saver):
    long = "the first of them, " + "x" * 300
    first = put(saver, config_of(), {"x": 1}, id=long)
    second = put(saver, first, {"x": 2}, {"x": "2"}, id=long + "2")
    assert saver.get_tuple(second).parent_config == first
    assert put(saver, second, id="00000000-0000-0000-0000-00000000000A")["configurable"]["checkpoint_id"].endswith("A")


def test_what_is_no_id_is_refused(saver):
    for config in (
        config_of("a\0b"),
        config_of(" "),
        config_of("x" * 513),
        config_of(namespace="\ud800"),
        {"configurable": {}},
    ):
        for call in (lambda c=config: put(saver, c), lambda c=config: saver.get_tuple(c)):
            with pytest.raises((Invalid, OverLimit)):
                call()
    first = put(saver, config_of())
    for task, path in (("a\0", ""), ("\udfff", ""), ("task", "a\0"), ("x" * 600, ""), ("task", "x" * 70_000)):
        with pytest.raises((Invalid, OverLimit)):
            saver.put_writes(first, [("c", 1)], task, path)
    with pytest.raises(Invalid):
        saver.put_writes(config_of(), [("c", 1)], "task")
    for call in (
        lambda: saver.delete_thread("a\0"), lambda: saver.copy_thread("a\0", "b"), lambda: saver.copy_thread("t", "\ud800"),
        lambda: saver.prune("t"), lambda: saver.prune(["t"], strategy="keep_last"), lambda: saver.delete_for_runs("run"),
        lambda: saver.delete_for_runs(["\0"]), lambda: put(saver, config_of(), metadata={"run_id": "x" * 600}),
    ):  # fmt: skip
        with pytest.raises((Invalid, OverLimit)):
            call()
    assert len(list(saver.list(None))) == 1


def test_the_longest_names_there_may_be_are_stored(url):
    noise = random.Random(1)
    name, other = ("".join(noise.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=512)) for _ in range(2))
    namespace = "|".join(f"{n}:{''.join(noise.choices('0123456789abcdef', k=32))}" for n in range(60))
    with perdure.sync.open(url) as store:
        saver = PerdureSaver(store.for_tenant(name[::-1]))
        for length in range(len(namespace), 0, -97):
            try:
                first = put(saver, config_of(other, namespace=namespace[:length]), {"x": length}, id=name)
            except OverLimit:
                assert length > 1_536
            else:
                assert length <= 1_536
                assert values_of(saver, first) == {"x": length}


def test_channels_that_did_not_change_need_not_be_given_anew(saver):
    """Their versions say so; a channel that left the checkpoint is gone."""
    first = put(saver, config_of(), {"a": ["x"], "b": {"k": 1}, "c": None}, {"a": "1", "b": "1", "c": "1"})
    second = put(
        saver, first, {"a": ["x", "y"], "b": {"k": 1}, "c": None}, {"a": "2", "b": "1", "c": "1"}, new={"a": "2"}
    )
    assert values_of(saver, second) == {"a": ["x", "y"], "b": {"k": 1}, "c": None}
    third = put(saver, second, {"a": ["x", "y"]}, {"a": "2"}, new={})
    assert values_of(saver, third) == {"a": ["x", "y"]}
    fourth = put(saver, third, {"a": ["x", "y"], "b": {"k": 1}}, {"a": "2", "b": "1"}, new={})
    assert values_of(saver, fourth) == {"a": ["x", "y"], "b": {"k": 1}}


def test_a_saver_that_was_not_there_before_keeps_channels_too(url):
    with perdure.sync.open(url) as store:
        first = put(PerdureSaver(store), config_of(), {"a": ["x"], "b": 1}, {"a": "1", "b": "1"})
        second = put(PerdureSaver(store), first, {"a": ["x", "y"], "b": 1}, {"a": "2", "b": "1"}, new={"a": "2"})
        assert values_of(PerdureSaver(store), second) == {"a": ["x", "y"], "b": 1}


def test_a_parent_that_another_process_took_away_is_no_matter(url):
    """What this process knows of it is not relied on."""
    with perdure.sync.open(url) as store:
        saver, other = PerdureSaver(store), PerdureSaver(store)
        first = put(saver, config_of(), {"a": ["x"], "b": 1})
        other.delete_thread("t")
        second = put(saver, first, {"a": ["x", "y"], "b": 1}, {"a": "2", "b": "1"}, new={"a": "2"})
        assert values_of(saver, second) == {"a": ["x", "y"], "b": 1}
        put(other, config_of(), {"a": ["other"]}, {"a": "3"}, id=first["configurable"]["checkpoint_id"])
        third = put(saver, second, {"a": ["x", "y", "z"], "b": 1}, {"a": "4", "b": "1"}, new={"a": "4"})
        assert values_of(other, third) == {"a": ["x", "y", "z"], "b": 1}


def test_processes_take_turns(tmp_path):
    """Each goes on from what the other one wrote."""
    url = f"sqlite:///{tmp_path / 'turns.db'}"
    code = (
        "import sys; sys.path[:0] = sys.argv[2].split(':')\n"
        "from perdure.adapters.langgraph import PerdureSaver\n"
        "from saver_tools import config_of, put, values_of\n"
        "with PerdureSaver.from_conn_string(sys.argv[1]) as saver:\n"
        "    last = saver.get_tuple(config_of())\n"
        "    log = [*last.checkpoint['channel_values']['log'], 'theirs']\n"
        "    put(saver, last.config, {'log': log, 'same': 1}, {'log': str(len(log)), 'same': '1'})\n"
    )
    with PerdureSaver.from_conn_string(url) as saver:
        last = put(saver, config_of(), {"log": ["mine"], "same": 1})
        for _ in range(2):
            subprocess.run([sys.executable, "-c", code, url, ":".join(sys.path)], check=True)
            last = saver.get_tuple(config_of())
            log = [*last.checkpoint["channel_values"]["log"], "mine"]
            put(
                saver,
                last.config,
                {"log": log, "same": 1},
                {"log": str(len(log)), "same": "1"},
                new={"log": str(len(log))},
            )
        assert values_of(saver, config_of()) == {"log": ["mine", "theirs", "mine", "theirs", "mine"], "same": 1}


def test_versions_are_text_that_sorts_or_numbers_after_numbers(memory):
    first = memory.get_next_version(None, None)
    found = [first]
    for _ in range(20):
        found.append(memory.get_next_version(found[-1], None))
    assert found == sorted(found)
    assert len(set(found)) == 21
    assert (memory.get_next_version(4, None), memory.get_next_version(1.5, None)) == (5, 2)
    assert memory.get_next_version("00000000000000000000000000000007.0123456789012345", None).startswith(
        "0" * 31 + "8."
    )


# -- writes ------------------------------------------------------------------------------------------------------------------


def test_writes_come_back_in_the_order_in_which_tasks_are_applied(saver, seeded_random):
    first = put(saver, config_of())
    rows = [
        (f"~{path}", f"task-{n}", [("c", (n, k)) for k in range(3)])
        for n, path in enumerate(["b", "a", "é", "a, 10", "a, 9"])
    ]
    seeded_random.shuffle(rows)
    for path, task, writes in rows:
        saver.put_writes(first, writes, task, path)
    saver.put_writes(first, [("c", "no path")], "z")
    expected = sorted(
        [(writes_sort_key(path, task, k), value) for path, task, writes in rows for k, (_, value) in enumerate(writes)]
        + [(writes_sort_key("", "z", 0), "no path")]
    )
    wanted = [list(value) if isinstance(value, tuple) else value for _, value in expected]
    assert [value for _, _, value in saver.get_tuple(first).pending_writes] == wanted
    assert [value for _, _, value in next(iter(saver.list(config_of()))).pending_writes] == wanted


def test_writes_may_come_before_their_checkpoint(saver):
    """As they do with durability="async"."""
    early = config_of(checkpoint_id=number(3))
    saver.put_writes(early, [("c", 1)], "task")
    assert saver.get_tuple(early) is None
    assert saver.get_tuple(config_of()) is None
    assert list(saver.list(config_of())) == list(saver.list(None)) == []
    put(saver, config_of(), id=number(3))
    assert saver.get_tuple(config_of()).pending_writes == [("task", "c", 1)]


def test_ordinary_writes_count_once_and_special_ones_replace(saver):
    first = put(saver, config_of())
    for value in ("first", "again"):
        saver.put_writes(first, [("a", value), ("b", value)], "task")
        saver.put_writes(first, [("__error__", value)], "task")
        saver.put_writes(first, [("a", value), ("__interrupt__", value)], "mixed")
    assert saver.get_tuple(first).pending_writes == [
        ("mixed", "__interrupt__", "first"), ("mixed", "a", "first"), ("task", "__error__", "again"), ("task", "a", "first"),
        ("task", "b", "first"),
    ]  # fmt: skip
    saver.put_writes(first, [], "nothing")
    saver.put_writes(first, [("__resume__", 1), ("__resume__", 2)], "twice")
    assert saver.get_tuple(first).pending_writes[-1] == ("twice", "__resume__", 2)


# -- list --------------------------------------------------------------------------------------------------------------------


def _family(saver):
    """Two threads with two namespaces each; ids go round."""
    for at in range(12):
        thread, namespace = ("a", "b")[at % 2], ("", "sub:1")[at // 2 % 2]
        put(
            saver,
            config_of(thread, namespace=namespace),
            {"x": at},
            id=number(at),
            metadata={"step": at, "odd": bool(at % 2)},
        )


def test_list_is_by_id_over_threads_and_namespaces(saver):
    _family(saver)
    for config, chosen in (
        (None, range(12)), ({"configurable": {}}, range(12)), ({"configurable": {"thread_id": "a"}}, range(0, 12, 2)),
        ({"configurable": {"checkpoint_ns": "sub:1"}}, (2, 3, 6, 7, 10, 11)), (config_of("b"), (1, 5, 9)),
        ({"configurable": {"thread_id": "a", "checkpoint_id": number(6)}}, (6,)),
    ):  # fmt: skip
        wanted = [number(at) for at in sorted(chosen, reverse=True)]
        below = [one for one in wanted if one < number(7)]
        even = [one for one in wanted if int(one[-2:]) % 2 == 0]
        for limit in (None, 0, 1, 5):
            assert ids(saver.list(config, limit=limit)) == wanted[:limit]
            assert ids(saver.list(config, before=config_of("a", number(7)), limit=limit)) == below[:limit]
            assert ids(saver.list(config, filter={"odd": False}, limit=limit)) == even[:limit]


def test_list_goes_on_over_many_pages_and_equal_ids(saver):
    for at in range(120):
        put(saver, config_of(f"t{at % 3}"), {"x": at}, id=number(at // 2))
    found = ids(saver.list(None))
    assert len(found) == 120
    assert found == sorted(found, reverse=True)
    assert len(list(saver.list(config_of("t0")))) == 40

    async def awaited():
        return [one async for one in saver.alist(None)]

    assert plain(asyncio.run(awaited())) == plain(saver.list(None))


def test_filters_are_by_equal_metadata(saver):
    deep = {"a": {"b": [1, {"c": None}]}}
    given = {
        "configurable": {**config_of()["configurable"], "run_id": "run-1", "flag": True},
        "metadata": {"team": "x\0y"},
    }
    put(
        saver,
        given,
        metadata={"score": 42, "deep": deep, "none": None, "text": "a\0b", "ünï": "\U0001f600"},
        id=number(1),
    )
    put(saver, config_of(), metadata={"score": 7, "deep": {"a": {}}, "run_id": "run-2"}, id=number(2))
    for wanted, found in (
        ({"score": 42}, [1]), ({"deep": deep}, [1]), ({"run_id": "run-2"}, [2]), ({"flag": True, "score": 42}, [1]),
        ({"text": "ab"}, [1]), ({"team": "xy"}, [1]), ({"ünï": "\U0001f600"}, [1]), ({"deep": {"a": {}}}, [2]), ({}, [2, 1]),
        ({"score": 8}, []), ({"none": None}, [2, 1]), ({"missing": None, "score": 7}, [2]), ({"x' or 1=1 --": 1}, []),
    ):  # fmt: skip
        assert ids(saver.list(config_of(), filter=wanted)) == [number(at) for at in found], wanted
        assert ids(saver.list(None, filter=wanted)) == [number(at) for at in found], wanted


# -- taking away -------------------------------------------------------------------------------------------------------------


def test_a_thread_goes_with_all_its_namespaces_however_many(memory):
    """A run makes a namespace for each call of a subgraph."""
    for n in range(1_030):
        memory.put_writes(config_of("many", number(1), namespace=f"sub:{n:04}"), [("c", n)], "task")
    last = config_of("many", number(1), namespace="sub:1029")
    put(memory, config_of("many", namespace="sub:1029"), id=number(1))
    memory.copy_thread("many", "copy")
    assert memory.get_tuple(config_of("copy", number(1), "sub:1029")).pending_writes == [("task", "c", 1029)]
    memory.delete_thread("many")
    put(memory, config_of("many", namespace="sub:1029"), id=number(1))
    assert memory.get_tuple(last).pending_writes == []


def test_nothing_is_copied_over_a_thread_from_one_that_is_not_there(saver):
    put(saver, config_of("target"), {"x": 1})
    saver.copy_thread("nobody", "target")
    saver.copy_thread("target", "target")
    assert values_of(saver, config_of("target")) == {"x": 1}


def test_a_copy_goes_its_own_way(saver):
    first = put(saver, config_of("a"), {"x": ["1"]}, id=number(1))
    put(saver, first, {"x": ["1", "2"]}, {"x": "2"}, id=number(2))
    put(saver, config_of("b"), {"old": True})
    saver.copy_thread("a", "b")
    put(saver, config_of("b", number(2)), {"x": ["1", "2", "b"]}, {"x": "3"}, id=number(3))
    put(saver, config_of("a", number(2)), {"x": ["1", "2", "a"]}, {"x": "3"}, id=number(3))
    assert (values_of(saver, config_of("a")), values_of(saver, config_of("b"))) == (
        {"x": ["1", "2", "a"]}, {"x": ["1", "2", "b"]},
    )  # fmt: skip
    saver.delete_thread("a")
    assert ids(saver.list(config_of("b"))) == [number(3), number(2), number(1)]
    assert list(saver.list(config_of("a"))) == []


def test_a_thread_goes_on_after_runs_were_taken_from_its_end(saver):
    parent = config_of()
    for at in range(6):
        parent = put(
            saver, parent, {"x": list(range(at))}, {"x": str(at)}, id=number(at), metadata={"run_id": f"r{at // 2}"}
        )
    saver.delete_for_runs(["r2", "never"])
    assert ids(saver.list(config_of())) == [number(at) for at in (3, 2, 1, 0)]
    last = saver.get_tuple(config_of())
    assert last.checkpoint["channel_values"] == {"x": [0, 1, 2]}
    put(saver, last.config, {"x": [0, 1, 2, "new"]}, {"x": "9"}, id=number(9))
    saver.delete_for_runs(["r0"])
    assert values_of(saver, config_of()) == {"x": [0, 1, 2, "new"]}
    saver.delete_for_runs(["r1"])
    assert ids(saver.list(None)) == [number(9)]
