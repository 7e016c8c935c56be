"""What LangGraph's own savers stored is taken over whole: real databases, written by them."""

import copy
import json
import sqlite3
import uuid
from dataclasses import dataclass
from enum import Enum

import psycopg
import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.shallow import ShallowPostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from saver_tools import config_of, ids, number, plain, put
from test_langgraph_graphs import INPUT, graph_on
from test_langgraph_values import VALUES, Cipher, Data

from perdure.adapters.langgraph import CheckpointImport, PerdureSaver, import_checkpoints
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Busy, Damaged, Forbidden, Invalid, NotFound, Undecodable


@pytest.fixture
def saver():
    with PerdureSaver.from_conn_string(":memory:") as saver:
        yield saver


@pytest.fixture(params=["sqlite", "postgres"])
def official(request, tmp_path):
    """One of LangGraph's own savers, and its address."""
    if request.param == "sqlite":
        path = tmp_path / "theirs.sqlite"
        with SqliteSaver.from_conn_string(str(path)) as theirs:
            yield theirs, str(path)
    else:
        url = request.getfixturevalue("empty_postgres_url")
        with PostgresSaver.from_conn_string(url) as theirs:
            theirs.setup()
            yield theirs, url


def _run(graph, config):
    """A life: a pause, a fork, a copy, a second round that pauses again."""
    graph.invoke(INPUT, config)
    graph.invoke(Command(resume="yes"), config)
    past = list(graph.get_state_history(config))
    graph.invoke(None, graph.update_state(past[2].config, {"log": ["fork"], "delta": ["fork"]}, as_node="sub"))
    graph.invoke({"log": ["second"]}, config, durability="exit")


def _count(found):
    found = list(found)
    return len(found), sum(len(one.pending_writes) for one in found)


def test_a_history_is_the_same_afterwards_and_goes_on(official, saver):
    theirs, source = official
    for thread in ("a", "b"):
        _run(graph_on(theirs), {**config_of(thread), "metadata": {"team": thread}})
    checkpoints, writes = _count(theirs.list(None))
    seen = []
    report = import_checkpoints(source, saver, on_progress=seen.append)
    assert report == CheckpointImport(threads=2, checkpoints=checkpoints, writes=writes, skipped=0)
    assert [one.threads for one in seen] == [1, 2]
    assert seen[-1] == report
    old, new = graph_on(theirs), graph_on(saver)
    for thread in ("a", "b"):
        wanted = list(old.get_state_history(config_of(thread)))
        assert list(new.get_state_history(config_of(thread))) == wanted
        for one in wanted:
            assert new.get_state(one.config, subgraphs=True) == old.get_state(one.config, subgraphs=True)
    assert plain(saver.list(None)) == plain(theirs.list(None))
    assert saver.get_delta_channel_history(
        config=config_of("a"), channels=["delta"]
    ) == theirs.get_delta_channel_history(config=config_of("a"), channels=["delta"])
    results = [graph.invoke(Command(resume="again"), config_of("a")) for graph in (old, new)]
    assert results[0] == results[1]


def test_again_it_takes_what_is_new_and_leaves_what_is_there(official, saver):
    theirs, source = official
    first = put(theirs, config_of(), {"x": [1]}, id=number(1))
    theirs.put_writes(first, [("c", 1)], "task", "~path")
    assert import_checkpoints(source, saver) == CheckpointImport(1, 1, 1, 0)
    before, changes = plain(saver.list(None)), len(saver._store.changes())
    assert import_checkpoints(source, saver) == CheckpointImport(1, 0, 0, 1)
    assert plain(saver.list(None)) == before
    assert len(saver._store.changes()) == changes
    own = put(saver, first, {"x": [1, "ours"]}, {"x": "9"}, id=number(9))
    put(theirs, first, {"x": [1, "theirs"]}, {"x": "2"}, id=number(2))
    theirs.put_writes(first, [("c", 1), ("d", 2)], "task", "~path")
    assert import_checkpoints(source, saver) == CheckpointImport(1, 1, 1, 1)
    assert ids(saver.list(config_of())) == [number(9), number(2), number(1)]
    assert saver.get_tuple(own).checkpoint["channel_values"] == {"x": [1, "ours"]}
    assert saver.get_tuple(first).pending_writes == [("task", "c", 1), ("task", "d", 2)]


def test_threads_can_be_chosen(official, saver):
    theirs, source = official
    for thread in ("a", "b", "c"):
        put(theirs, config_of(thread), {"x": thread})
    theirs.put_writes(config_of("d", number(1)), [("early", 1)], "task")
    assert import_checkpoints(source, saver, thread_ids=["c", "a", "c", "nobody"]) == CheckpointImport(3, 2, 0, 0)
    assert {one.config["configurable"]["thread_id"] for one in saver.list(None)} == {"a", "c"}
    assert import_checkpoints(source, saver) == CheckpointImport(4, 1, 1, 2)
    put(saver, config_of("d"), id=number(1))
    assert saver.get_tuple(config_of("d")).pending_writes == [("task", "early", 1)]
    with pytest.raises(Invalid):
        import_checkpoints(source, saver, thread_ids="abc")


def _values(theirs):
    return VALUES if isinstance(theirs, SqliteSaver) else {name: one for name, one in VALUES.items() if name != "text"}


def test_values_of_every_kind_are_the_same(official, saver):
    theirs, source = official
    odd = {
        "keys": {1: "a", (1, 2): "b", None: "c", 1.5: "d", False: "e", b"x": "f"},
        "inline": 1.0,
        "flag": True,
        "number": 7,
    }
    last = config_of()
    for step in range(3):
        values = {**_values(theirs), **odd, "step": [step] * step}
        last = put(
            theirs, last, values, dict.fromkeys(values, f"{step}.1"), metadata={"step": step, "deep": {"a": [None]}}
        )
        theirs.put_writes(last, [*values.items(), ("__error__", "bad")], "task", "~x")
    import_checkpoints(source, saver)
    assert plain(saver.list(None)) == plain(theirs.list(None))
    for name, value in saver.get_tuple(config_of()).checkpoint["channel_values"].items():
        assert type(value) is type(theirs.get_tuple(config_of()).checkpoint["channel_values"][name]), name


class Gone(Enum):
    """Its class is away while it is imported."""

    IT = "it"


@dataclass
class Away:
    """Likewise."""

    x: int


def test_classes_need_not_be_there(official, saver, monkeypatch):
    """What cannot be made into an object now is not turned into something else for ever."""
    theirs, source = official
    put(theirs, config_of(), {"one": Away(1), "many": [Away(2), {"deep": Away(3)}], "enum": Gone.IT})
    theirs.put_writes(theirs.get_tuple(config_of()).config, [("c", Away(4))], "task")
    wanted = plain(theirs.list(None))
    with monkeypatch.context() as patch:
        patch.delattr(f"{__name__}.Away")
        patch.delattr(f"{__name__}.Gone")
        assert import_checkpoints(source, saver).checkpoints == 1
    assert plain(saver.list(None)) == wanted
    assert saver.get_tuple(config_of()).checkpoint["channel_values"]["many"] == [Away(2), {"deep": Away(3)}]


def test_nothing_of_the_source_is_run(official, saver, monkeypatch):
    theirs, source = official
    made = []

    class Spy(Data):
        pass

    Spy.__module__, Spy.__qualname__ = __name__, "Spy"
    monkeypatch.setattr(f"{__name__}.Spy", Spy, raising=False)
    put(theirs, config_of(), {"x": [Spy(1, [])]})
    monkeypatch.setattr(Spy, "__init__", lambda *given, **named: made.append(named))
    import_checkpoints(source, saver)
    assert made == []


def test_an_encrypting_serializers_values_need_its_key(official, saver):
    theirs, source = official
    theirs.serde = EncryptedSerializer(Cipher(b"k" * 16))
    first = put(theirs, config_of(), {"x": [HumanMessage("ocelot", id="1")], "d": {"k": [1]}})
    theirs.put_writes(first, [("c", "walrus")], "task")
    with pytest.raises(Undecodable, match="serializer"):
        import_checkpoints(source, saver)
    assert list(saver.list(None)) == []
    keyed = copy.copy(saver)
    keyed.serde = theirs.serde
    import_checkpoints(source, keyed)
    assert plain(keyed.list(None)) == plain(theirs.list(None))
    with pytest.raises(NotImplementedError):
        saver.get_tuple(first)


def test_pickles_are_read_by_the_savers_serializer(official, saver):
    theirs, source = official
    theirs.serde = JsonPlusSerializer(pickle_fallback=True)
    put(
        theirs, config_of(), {"x": [1, complex(1, 2)], "d": HumanMessage("a", id="1"), "l": [HumanMessage("b", id="2")]}
    )
    theirs.put_writes(theirs.get_tuple(config_of()).config, [("c", range(3))], "task")
    with pytest.raises(NotImplementedError):
        import_checkpoints(source, saver)
    saver.serde = JsonPlusSerializer(pickle_fallback=True)
    import_checkpoints(source, saver)
    assert plain(saver.list(None)) == plain(theirs.list(None))


def test_a_parent_with_a_greater_id_is_a_parent_all_the_same(official, saver):
    theirs, source = official
    parent = put(theirs, config_of(), {"x": ["p"]}, id=number(9))
    put(theirs, parent, {"x": ["p", "c"]}, {"x": "2"}, id=number(3))
    put(theirs, config_of(checkpoint_id=number(77)), {"x": ["orphan"]}, {"x": "3"}, id=number(5))
    import_checkpoints(source, saver)
    assert plain(saver.list(None)) == plain(theirs.list(None))


def test_many_checkpoints_of_a_thread_cost_what_changed(saver, tmp_path):
    with SqliteSaver.from_conn_string(str(tmp_path / "theirs.sqlite")) as theirs:
        last, said = config_of(), []
        for step in range(150):
            said.append(HumanMessage(f"{step} " + uuid.UUID(int=step).hex * 10, id=str(step)))
            last = put(theirs, last, {"said": said}, {"said": str(step)})
    with PerdureSaver.from_conn_string(f"sqlite:///{tmp_path / 'ours.db'}") as ours:
        assert import_checkpoints(tmp_path / "theirs.sqlite", ours).checkpoints == 150
        assert len(ours.get_tuple(config_of()).checkpoint["channel_values"]["said"]) == 150
    assert (tmp_path / "theirs.sqlite").stat().st_size > 10 * (tmp_path / "ours.db").stat().st_size


# -- SqliteSaver's file ------------------------------------------------------------------------------------------------------


def _file(tmp_path):
    path = tmp_path / "theirs.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as theirs:
        for n in range(3):
            first = put(theirs, config_of(), {"x": n}, id=number(n), metadata={"step": n, "run_id": f"r{n}"})
            theirs.put_writes(first, [("c", n), ("d", n)], f"task-{2 - n}", f"~{n}")
    return path


@pytest.mark.parametrize("address", ["path", "text", "url"])
def test_a_file_is_only_read_and_may_be_open_elsewhere(saver, tmp_path, address):
    path = _file(tmp_path)
    given = {"path": path, "text": str(path), "url": f"sqlite:///{path}"}[address]
    with SqliteSaver.from_conn_string(str(path)) as theirs:
        last = put(theirs, config_of(), {"x": "late"}, id=number(7))  # in the write-ahead log still
        before = {one.name: one.read_bytes() for one in tmp_path.iterdir() if not one.name.endswith("-shm")}
        import_checkpoints(given, saver)
        assert {one.name: one.read_bytes() for one in tmp_path.iterdir() if not one.name.endswith("-shm")} == before
        put(theirs, last, {"x": "and on"}, id=number(8))
    assert ids(saver.list(None)) == [number(7), number(2), number(1), number(0)]
    saver.delete_for_runs(["r1"])
    assert ids(saver.list(None)) == [number(7), number(2), number(0)]


def test_a_file_of_before_task_paths_is_read(saver, tmp_path):
    path = _file(tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("alter table writes drop column task_path")
    import_checkpoints(path, saver)
    with sqlite3.connect(path) as connection:
        assert "task_path" not in {row[1] for row in connection.execute("pragma table_info(writes)")}
    with SqliteSaver.from_conn_string(str(path)) as theirs:
        assert plain(saver.list(None)) == plain(theirs.list(None))


def test_checkpoints_in_json_of_before_msgpack_are_read(saver, tmp_path):
    path = _file(tmp_path)
    message = {
        "lc": 2, "type": "constructor", "id": ["langchain_core", "messages", "human", "HumanMessage"],
        "kwargs": {"content": "old", "id": "1"},
    }  # fmt: skip
    with sqlite3.connect(path) as connection:
        for (id,) in connection.execute("select checkpoint_id from checkpoints").fetchall():
            old = {
                "v": 1, "id": id, "ts": "2024-05-04T06:32:42.235444+00:00", "channel_values": {"m": [message], "x": {"a": 1}},
                "channel_versions": {"m": 1, "x": 1}, "versions_seen": {}, "pending_sends": [],
            }  # fmt: skip
            connection.execute("update checkpoints set type = 'json', checkpoint = ?", (json.dumps(old).encode(),))
        connection.execute("update writes set type = 'json', value = ?", (json.dumps([message]).encode(),))
        connection.execute("update checkpoints set metadata = null")
    import_checkpoints(path, saver)
    found = saver.get_tuple(config_of())
    assert found.checkpoint["channel_values"] == {"m": [HumanMessage("old", id="1")], "x": {"a": 1}}
    assert found.metadata == {}
    assert [value for _, _, value in found.pending_writes] == [[HumanMessage("old", id="1")]] * 2


def test_what_is_no_such_file_is_refused(saver, tmp_path):
    with pytest.raises(NotFound):
        import_checkpoints(tmp_path / "none.sqlite", saver)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Invalid):
        import_checkpoints(":memory:", saver)
    with (
        PerdureSaver.from_conn_string(f"sqlite:///{tmp_path / 'perdure.db'}"),
        pytest.raises(Invalid, match=r"checkpoints\.checkpoint_ns"),
    ):
        import_checkpoints(tmp_path / "perdure.db", saver)
    (tmp_path / "text").write_text("no database " * 1000)
    with pytest.raises(Damaged):
        import_checkpoints(tmp_path / "text", saver)
    path = _file(tmp_path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("pragma journal_mode = delete")
    holder.execute("begin exclusive")
    with pytest.raises(Busy):
        import_checkpoints(PersistenceConfig(f"sqlite:///{path}", busy_timeout="50ms"), saver)
    holder.close()
    assert import_checkpoints(path, saver).checkpoints == 3


def test_an_import_that_fails_half_way_is_completed_by_another(saver, tmp_path):
    path = _file(tmp_path)
    with SqliteSaver.from_conn_string(str(path)) as theirs:
        put(theirs, config_of("u"), {"x": 1})
        with sqlite3.connect(path) as connection:
            connection.execute("update checkpoints set type = 'odd' where checkpoint_id = ?", (number(2),))
        with pytest.raises(NotImplementedError):
            import_checkpoints(path, saver)
        assert ids(saver.list(None)) == [number(1), number(0)]
        with sqlite3.connect(path) as connection:
            connection.execute("update checkpoints set type = 'msgpack'")
        assert import_checkpoints(path, saver) == CheckpointImport(2, 2, 6, 2)
        assert plain(saver.list(None)) == plain(theirs.list(None))


# -- PostgresSaver's tables --------------------------------------------------------------------------------------------------


def test_values_that_did_not_change_are_read_from_where_they_were_written(empty_postgres_url, saver):
    with PostgresSaver.from_conn_string(empty_postgres_url) as theirs:
        theirs.setup()
        first = put(theirs, config_of(), {"a": ["x"], "b": {"k": 1}, "c": "gone soon"}, {"a": "1", "b": 1, "c": "1"})
        second = put(theirs, first, {"a": ["x", "y"], "b": {"k": 1}}, {"a": "2", "b": 1}, new={"a": "2"})
        put(theirs, second, {"b": {"k": 1}}, {"b": 1}, new={})
        import_checkpoints(empty_postgres_url, saver)
        assert plain(saver.list(None)) == plain(theirs.list(None))
    assert saver.get_tuple(second).checkpoint["channel_values"] == {"a": ["x", "y"], "b": {"k": 1}}


def test_sends_of_before_version_four_become_a_channel(empty_postgres_url, saver):
    with PostgresSaver.from_conn_string(empty_postgres_url) as theirs:
        theirs.setup()
        first = put(theirs, config_of(), {"a": 1}, v=3)
        for task, path in (("y", "~1"), ("x", "~2")):
            theirs.put_writes(first, [("__pregel_tasks", {"to": task}), ("other", 1)], task, path)
        second = put(theirs, first, {"a": 2}, {"a": "2"}, v=3)
        put(theirs, second, {"a": 3}, {}, v=3)
        import_checkpoints(empty_postgres_url, saver)
        assert plain(saver.list(None)) == plain([theirs.get_tuple(one.config) for one in list(theirs.list(None))])
    assert saver.get_tuple(second).checkpoint["channel_values"] == {
        "a": 2,
        "__pregel_tasks": [{"to": "y"}, {"to": "x"}],
    }


def test_tables_of_before_task_paths_are_read(empty_postgres_url, saver):
    with PostgresSaver.from_conn_string(empty_postgres_url) as theirs:
        theirs.setup()
        first = put(theirs, config_of(), {"a": 1})
        theirs.put_writes(first, [("c", 1), ("d", 2)], "task", "~1")
        theirs.conn.execute("alter table checkpoint_writes drop column task_path")
        import_checkpoints(empty_postgres_url, saver)
    assert saver.get_tuple(first).pending_writes == [("task", "c", 1), ("task", "d", 2)]


def test_source_and_store_may_be_one_database(fresh_postgres_url):
    with PostgresSaver.from_conn_string(fresh_postgres_url) as theirs:
        try:
            theirs.setup()
        except psycopg.errors.InsufficientPrivilege:
            theirs.conn.execute("create schema theirs")
            theirs.conn.execute("set search_path = theirs")
            theirs.setup()
        put(theirs, config_of(), {"a": [1]})
        wanted = plain(theirs.list(None))
        place = theirs.conn.execute("select current_schema").fetchone()["current_schema"]
    source = f"{fresh_postgres_url}?options=-csearch_path%3D{place}"
    with PerdureSaver.from_conn_string(fresh_postgres_url) as saver:
        assert import_checkpoints(source, saver).checkpoints == 1
        assert plain(saver.list(None)) == wanted


def test_what_is_no_such_database_is_refused(empty_postgres_url, saver):
    with pytest.raises(Invalid, match=r"checkpoints\.checkpoint_id"):
        import_checkpoints(empty_postgres_url, saver)
    with pytest.deprecated_call(), ShallowPostgresSaver.from_conn_string(empty_postgres_url) as shallow:
        shallow.setup()
        with pytest.raises(Invalid, match=r"checkpoints\.checkpoint_id"):
            import_checkpoints(empty_postgres_url, saver)
    name = empty_postgres_url.rpartition("/")[2]
    with pytest.raises(Forbidden):
        import_checkpoints(empty_postgres_url.replace(name, "nothing_here"), saver)
