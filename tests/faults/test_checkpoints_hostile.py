"""Files and states from strangers: an exported thread that was altered, states that nothing can keep, odd names.

Whatever is refused leaves nothing behind, and nothing in a file makes code run.
"""

import base64
import json
import math
import os
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perdure.sync
from perdure.rooms.checkpoints import codec
from perdure.rooms.checkpoints.logs import ENTRIES
from perdure.rooms.checkpoints.wire import Code
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Conflict, Invalid, NotFound, OverLimit, Refused

TABLES = (
    "checkpoint_threads", "checkpoint_branches", "checkpoints", "checkpoint_tags", "checkpoint_items", "checkpoint_runs",
    "checkpoint_segments", "checkpoint_writes",
)  # fmt: skip
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with perdure.sync.Store(PersistenceConfig(f"sqlite:///{tmp_path_factory.mktemp('hostile')}/store.db")) as opened:
        yield opened


@pytest.fixture
def checkpointer(store):
    made = perdure.sync.Checkpointer(store)
    yield made
    for thread in made.list_threads(1_000):
        made.delete_thread(thread.id)


def rows(store: Any) -> list[int]:
    """How much there is of everything."""
    return [next(iter(store.execute(f"select count(*) from {table}")))[0] for table in TABLES]


@pytest.fixture(scope="module")
def exported(store) -> bytes:
    """A thread with all that a thread can have, as a file."""
    checkpointer = perdure.sync.Checkpointer(
        store, perdure.CheckpointConfig(max_checkpoints_per_thread=4, keep_minimum=1)
    )
    ids = [
        checkpointer.save("origin", {"list": [f"i{at}" for at in range(62 + step)], "text": "t" * 40, "n": step}, {"s": step}, run_id="r")
        for step in range(6)
    ]  # fmt: skip
    checkpointer.create_branch(ids[-1], "side", {"why": "a test"})
    checkpointer.save("origin", {"big": {f"k{at}": "v" * 300 for at in range(20)}}, branch="side")
    checkpointer.tag(ids[-1], "good")
    checkpointer.apply_retention("origin")
    data = checkpointer.export_thread("origin")
    checkpointer.delete_thread("origin")
    return data


def lines_of(data: bytes) -> Lines:
    return [json.loads(line) for line in data.splitlines()]


def joined(lines: Lines) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def find(lines: Lines, kind: str) -> dict[str, Any]:
    return next(line for line in lines if line["type"] == kind)


def test_an_export_comes_back(checkpointer, exported):
    name = checkpointer.import_thread(exported)
    assert name == "origin"
    assert checkpointer.verify().ok
    again = lines_of(checkpointer.export_thread("origin"))
    assert [line for line in again if line.get("log") != ENTRIES] == [
        line for line in lines_of(exported) if line.get("log") != ENTRIES
    ]
    with pytest.raises(Conflict):
        checkpointer.import_thread(exported)
    other = checkpointer.import_thread(exported, "another")
    assert checkpointer.latest_state(other) == checkpointer.latest_state("origin")
    assert checkpointer.branches(other)[1].metadata == {"why": "a test"}
    checkpointer.save("origin", {"n": 7})
    checkpointer.save("another", {"n": 7}, branch="side")
    assert checkpointer.verify().ok


def test_ids_that_are_there_already_are_not_given_twice(checkpointer, exported):
    checkpointer.import_thread(exported)
    lines = lines_of(exported)
    find(lines, "thread")["id"] = "look-alike"
    with pytest.raises(Conflict):
        checkpointer.import_thread(joined(lines))


# -- altered -------------------------------------------------------------------------------------------------------------------

Alter = Callable[[Lines], object]


def setting(kind: str, *path: str | int, to: Any) -> Alter:
    """A field of the first line of a kind, set to something else."""

    def alter(lines: Lines) -> None:
        spot: Any = find(lines, kind)
        for step in path[:-1]:
            spot = spot[step]
        spot[path[-1]] = to

    return alter


def with_entry(change: Callable[[list[Any]], object]) -> Alter:
    """The newest entry, changed."""

    def alter(lines: Lines) -> None:
        stretch = [line for line in lines if line["type"] == "items" and line["log"] == ENTRIES][-1]
        entry = msgspec.msgpack.decode(base64.b64decode(stretch["items"][-1]))
        change(entry)
        stretch["items"][-1] = base64.b64encode(msgspec.msgpack.encode(entry)).decode()

    return alter


def tree(**nodes: Any) -> Alter:
    return with_entry(lambda entry: entry.__setitem__(0, nodes))


def deep(levels: int, bottom: Any) -> Any:
    for _ in range(levels):
        bottom = {"x": bottom}
    return bottom


TOO_MUCH = 2**63
ALTERED: dict[str, Alter] = {
    "no first line": lambda lines: lines.pop(0),
    "two first lines": lambda lines: lines.insert(0, dict(lines[0])),
    "another version": setting("thread", "perdure", to=2),
    "a name of control characters": setting("thread", "id", to="a\u0000b"),
    "a blank name": setting("thread", "id", to=" "),
    "a long name": setting("thread", "id", to="x" * 600),
    "a head that is not there": setting("thread", "head", to=999),
    "no head": setting("thread", "head", to=None),
    "a head of another kind": setting("thread", "head", to="5"),
    "a position too far": setting("thread", "next_position", to=8),
    "far too many positions": setting("thread", "next_position", to=TOO_MUCH),
    "fewer positions": setting("thread", "next_position", to=5),
    "no logs": setting("thread", "next_log", to=0),
    "too many logs": setting("thread", "next_log", to=TOO_MUCH),
    "ranges upside down": setting("thread", "pruned", to=[[3, 0]]),
    "ranges that hide checkpoints": setting("thread", "pruned", to=[[0, 900]]),
    "an unknown field": setting("thread", "more", to=1),
    "an unknown line": lambda lines: lines.append({"type": "other"}),
    "a checkpoint twice": lambda lines: lines.insert(2, dict(lines[1])),
    "a checkpoint less": lambda lines: lines.pop(2),
    "an id twice": lambda lines: lines[2]["made"].__setitem__("id", lines[1]["made"]["id"]),
    "an id with a NUL": setting("checkpoint", "made", "id", to="a\u0000b"),
    "a parent to come": setting("checkpoint", "made", "parent", to=6),
    "a parent before the first": setting("checkpoint", "made", "parent", to=-1),
    "a branch that is not there": setting("checkpoint", "made", "branch", to=5),
    "a status that is none": setting("checkpoint", "made", "status", to=3),
    "a time beyond time": setting("checkpoint", "made", "created_at", to=2**59),
    "a time before time": setting("checkpoint", "made", "created_at", to=-1),
    "a size below zero": setting("checkpoint", "made", "size", to=-1),
    "a blank run": setting("checkpoint", "made", "run_id", to=""),
    "a tag with a NUL": setting("checkpoint", "made", "tags", to=["a\u0000"]),
    "a branch called main": setting("branch", "fork", "name", to="main"),
    "a branch without a name": setting("branch", "fork", "name", to=""),
    "a branch's number": setting("branch", "fork", "number", to=2),
    "a branch's number below zero": setting("branch", "fork", "number", to=-1),
    "a branch's head": setting("branch", "fork", "head", to=99),
    "a branch that was set back": setting("branch", "fork", "head", to=5),
    "a branch from nowhere": setting("branch", "fork", "fork_of", to=-3),
    "a branch from itself": setting("branch", "fork", "fork_of", to=6),
    "a branch beyond time": setting("branch", "fork", "created_at", to=2**62),
    "a branch's metadata that is no JSON": setting("branch", "fork", "metadata", to="{"),
    "a branch's metadata that is no object": setting("branch", "fork", "metadata", to="[]"),
    "a branch's metadata too deep": setting("branch", "fork", "metadata", to="[" * 5_000 + "]" * 5_000),
    "items twice": lambda lines: lines.append(dict(find(lines, "items"))),
    "items less": lambda lines: lines.remove(find(lines, "items")),
    "an item less": lambda lines: find(lines, "items")["items"].pop(),
    "an entry more": lambda lines: [line for line in lines if line.get("log") == ENTRIES][-1]["items"].append("aGk="),
    "no items": setting("items", "items", to=[]),
    "a log that is none": setting("items", "log", to=TOO_MUCH),
    "a log below zero": setting("items", "log", to=-1),
    "ordinals too far": setting("items", "low", to=2**52),
    "ordinals below zero": setting("items", "low", to=-1),
    "what is no base64": setting("items", "items", 0, to="not base64!"),
    "what is no text": setting("items", "items", 0, to=5),
    "an item far away": lambda lines: lines.append({"type": "items", "log": 1, "low": 2**50, "sealed": False, "items": ["wA=="]}),
    "a write of nobody": lambda lines: lines.append(
        {"type": "write", "checkpoint": "", "task_id": "t", "idx": 0, "task_path": "", "payload": ""}
    ),
    "a write with a NUL": lambda lines: lines.append(
        {"type": "write", "checkpoint": "c", "task_id": "\u0000", "idx": 0, "task_path": "", "payload": ""}
    ),
    "a write too far": lambda lines: lines.append(
        {"type": "write", "checkpoint": "c", "task_id": "t", "idx": TOO_MUCH, "task_path": "", "payload": ""}
    ),
    "an entry that is none": with_entry(lambda entry: entry.clear()),
    "an entry of text": with_entry(lambda entry: entry.__setitem__(0, "text")),
    "metadata that is none": with_entry(lambda entry: entry.__setitem__(1, b"")),
    "metadata that is a list": with_entry(lambda entry: entry.__setitem__(1, b"\x90")),
    "a number for a reference": tree(a=5),
    "nothing for a reference": tree(a=None),
    "a text for a reference": tree(a="x"),
    "an empty reference": tree(a=[]),
    "a reference of texts": tree(a=["1", "2"]),
    "a reference to nothing": tree(a=[1, 999]),
    "a reference below zero": tree(a=[1, -1]),
    "a run to nothing": tree(a=[-1, 2, 0, 999]),
    "a run without an end": tree(a=[-1, 2, 0, 2**60]),
    "a run upside down": tree(a=[-1, 2, 5, 2]),
    "a kind that is none": tree(a=[-9, 2, 0, 5]),
    "half a run": tree(a=[-1, 2, 0]),
    "a tree too deep": tree(a=deep(400, b"\xc0")),
    "a tree far too deep": tree(a=deep(900, b"\xc0")),
    "the same items again and again": tree(a=[-1, *([2, 0, 64] * 300_000)]),
    "a value that is none": tree(a=b"\xc1"),
    "a value cut off": tree(a=b"\x92\x01"),
    "a value and more": tree(a=b"\x01\x02"),
    "a value nested deep": tree(a=b"\x91" * 2_000 + b"\x01"),
    "a list that says it is long": tree(a=b"\xdd\xff\xff\xff\xff"),
    "extensions within extensions": tree(a=b"".join(b"\xc9" + (5_000 - 6 * at).to_bytes(4, "big") + b"\x04" for at in range(800))),
    "an array of objects": tree(a=codec.wire().pack(codec.wire().ext(Code.NDARRAY, codec.wire().pack(["O", [1], "C", b"12345678"])))),
    "a registered type that is not": tree(a=codec.wire().pack(codec.wire().ext(Code.OBJECT, codec.wire().pack(["os.system", 1, "id"])))),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_file_is_refused_and_leaves_nothing(store, checkpointer, exported, name):
    before = rows(store)
    lines = lines_of(exported)
    ALTERED[name](lines)
    data = joined(lines)
    assert data != exported
    with pytest.raises(Invalid):
        checkpointer.import_thread(data)
    assert rows(store) == before


def test_a_file_cut_anywhere_is_refused(store, checkpointer, exported, seeded_random):
    before = rows(store)
    for end in seeded_random.sample(range(len(exported) - 1), 150):
        with pytest.raises(Invalid):
            checkpointer.import_thread(exported[:end])
    assert rows(store) == before


def test_bytes_changed_anywhere_are_refused_or_make_a_sound_thread(store, checkpointer, exported, seeded_random):
    """A file has no checksum: what is still a thread is taken, and is one that can be read, checked and gone on with."""
    taken = 0
    for number in range(250):
        changed = bytearray(exported)
        for _ in range(seeded_random.randint(1, 3)):
            changed[seeded_random.randrange(len(changed))] = seeded_random.randrange(256)
        before = rows(store)
        try:
            name = checkpointer.import_thread(bytes(changed), f"changed{number}")
        except Refused:
            assert rows(store) == before
            continue
        taken += 1
        assert checkpointer.verify(name).ok
        for made in checkpointer.get_history(name, include_failed=True):
            checkpointer.restore(made.id)
        checkpointer.branches(name)
        checkpointer.save(name, {"n": 1})
        checkpointer.save(name, {"n": 1}, branch=checkpointer.branches(name)[1].name)
        assert checkpointer.verify(name).ok
        checkpointer.delete_thread(name)
    assert taken


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    junk=st.one_of(
        st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    )
)
def test_junk_is_refused(checkpointer, junk):
    with pytest.raises(Invalid):
        checkpointer.import_thread(junk)


@pytest.mark.parametrize(
    "data", [b"", b"\n" * 1_000, b"[" * 200_000, b'{"type":' * 50_000, b"null", b"\xff\xfe", b'{"type":"thread"}', None, "text", 5]
)  # fmt: skip
def test_what_is_no_file_is_refused(checkpointer, data):
    with pytest.raises(Invalid):
        checkpointer.import_thread(data)


# -- states --------------------------------------------------------------------------------------------------------------------


class Stranger:
    """No type that anybody registered; pickling it would run code."""

    def __reduce__(self) -> Any:
        return os.system, ("echo run > /dev/null",)


def itself() -> dict[str, Any]:
    loop: dict[str, Any] = {"n": 1}
    loop["self"] = loop
    return loop


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "state",
    [
        itself(), {"a": nested(300)}, {"a": nested(100_000)}, {"a": Stranger()}, {"a": [Stranger]}, {"a": lambda: 0}, {5: 1}, {"a": {1, Stranger}},
        {"a": object()}, [1], "text", None, {"a": (x for x in ())}, {"a": memoryview(b"x")}, {"a": print}, {"a": os}, {None: 1}, {"\ud800": 1},
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_state_that_cannot_be_kept_leaves_nothing(store, checkpointer, state):
    before = rows(store)
    for attempt in (
        lambda: checkpointer.save("odd", state),
        lambda: checkpointer.step("odd", state),
    ):
        with pytest.raises(Refused):
            attempt()
    assert rows(store) == before
    assert checkpointer.latest("odd") is None


def test_odd_values_come_back_as_they_were(checkpointer):
    state = {
        "nul\0name": "a\0b", "surrogate": "\ud800 and \udfff", "large": 10**4_000, "small": -(2**70), "": "empty name",
        "deep": nested(200), "dots.in.name": {"a.b": {"": 1}}, "odd keys": {"\ud800": "x" * 5_000}, "keys": {1: "a", None: "b", (1, 2): "c", "1": "d"},
        "separators": "\u001f\n\r\u2028", "zero width": "a\u200bb", "right to left": "\u202eabc", "float": [1e308, -0.0, 5e-324],
    }  # fmt: skip
    made = checkpointer.save("odd", state, {"surrogate": "\ud800", "nul": "\0"})
    again = checkpointer.restore(made)
    assert again == state
    assert list(again) == list(state)
    assert checkpointer.get(made).metadata == {"surrogate": "\ud800", "nul": "\0"}
    assert checkpointer.import_thread(checkpointer.export_thread("odd"), "odder") == "odder"
    assert checkpointer.latest_state("odder") == state
    assert checkpointer.verify().ok


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 10**4_000, 10**10_000], ids=["nan", "inf", "long", "longer"]
)
def test_numbers_at_the_edge(checkpointer, value):
    again = checkpointer.restore(checkpointer.save("odd", {"v": value}))["v"]
    assert type(again) is type(value)
    assert again == value or (isinstance(value, float) and math.isnan(value) and math.isnan(again))


# -- names ---------------------------------------------------------------------------------------------------------------------

LOOK_ALIKES = ["a", "a ", "A", "\u0430", "a\u200b", "a/b", "a:b", "a|b", "a'b", 'a"b', "a%", "a_", "a\\", "--", ";", "a b", "\uff41", "\u00e9", "e\u0301", "a\n", "a\u001f", "\u001f", "a\u007f", "main", "../a"]  # fmt: skip


def test_names_that_look_alike_are_different_threads(tmp_store_path):
    """Also while they are sealed anew: what waits aside meanwhile is in no other's place."""
    with perdure.sync.Store(f"sqlite:///{tmp_store_path}") as store:
        look_alikes(perdure.sync.Checkpointer(store))


def look_alikes(checkpointer: Any) -> None:
    taken = []
    for name in LOOK_ALIKES:
        try:
            checkpointer.save(name, {"name": name}, tags=[name])
        except Invalid:
            continue
        taken.append(name)
    assert len(taken) > 15
    for name in taken:
        assert checkpointer.latest_state(name) == {"name": name}
        assert [made.thread_id for made in checkpointer.get_history(name)] == [name]
        assert checkpointer.find_checkpoint(name, [name]).thread_id == name
    assert sorted(thread.id for thread in checkpointer.list_threads()) == sorted(taken)
    paged, cursor = [], None
    while cursor is not None or not paged:
        page = checkpointer.list_threads(2, cursor)
        paged += [thread.id for thread in page]
        cursor = page.next_cursor
    assert sorted(paged) == sorted(taken)
    checkpointer.rotate_keys(bytes(32))
    assert all(checkpointer.latest_state(name) == {"name": name} for name in taken)
    assert checkpointer.delete_thread(taken[0])
    assert len(checkpointer.list_threads()) == len(taken) - 1
    assert checkpointer.verify().ok


@pytest.mark.parametrize("name", ["", " ", "a\0", "\0", "\ud800", "x" * 513, None, 5, b"a", ["a"]])
def test_names_that_are_none_are_refused(store, checkpointer, name):
    """NUL stands between the parts of names inside seals and cursors, so none may hold it."""
    before = rows(store)
    for call in (
        lambda: checkpointer.save(name, {"n": 1}),
        lambda: checkpointer.import_thread(b"{}", name),
        lambda: checkpointer.copy_thread("odd", name),
    ):
        with pytest.raises(Refused):
            call()
    assert rows(store) == before


def test_branch_names(checkpointer):
    first = checkpointer.save("odd", {"n": 1})
    with pytest.raises(Conflict):
        checkpointer.create_branch(first, "main")
    for name in ("Main", "m\u0430in", "main ", "mаin\u200b"):
        checkpointer.create_branch(first, name)
        checkpointer.save("odd", {"branch": name}, branch=name)
        with pytest.raises(Conflict):
            checkpointer.create_branch(first, name)
    for name in ("Main", "m\u0430in", "main ", "mаin\u200b"):
        assert checkpointer.latest_state("odd", name) == {"branch": name}
    assert checkpointer.latest_state("odd") == {"n": 1}
    for name in ("", " ", "a\0b", None, 5, "x" * 1_025, "\ud800"):
        with pytest.raises(Refused):
            checkpointer.create_branch(first, name)
        with pytest.raises(Refused):
            checkpointer.save("odd", {"n": 2}, branch=name)
    with pytest.raises(NotFound):
        checkpointer.save("odd", {"n": 2}, branch="unknown")
    assert checkpointer.verify().ok


# -- code ----------------------------------------------------------------------------------------------------------------------

MARK = "PERDURE_TEST_WAS_RUN"
PAYLOADS = {
    "pickle": b"cos\nputenv\n(S'" + MARK.encode() + b"'\nS'1'\ntR.",
    "json": b'{"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["false"], "kwargs": {}}',
    "msgpack": msgspec.msgpack.encode(msgspec.msgpack.Ext(0, msgspec.msgpack.encode(["os", "system", "false"]))),
    "langgraph:pickle": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x05false\x85R.",
    "yaml": b"!!python/object/apply:os.system ['false']",
}


def test_what_another_library_wrote_is_never_run_by_the_native_reader(checkpointer, monkeypatch, exported):
    """It comes back as the bytes that it is: from a state, and from a file."""
    ran: list[Any] = []
    monkeypatch.setattr(os, "system", lambda *args: ran.append(args))
    monkeypatch.setattr(os, "putenv", lambda *args: ran.append(args))
    state = {name: codec.Foreign(name, data) for name, data in PAYLOADS.items()}
    made = checkpointer.save("foreign", state)
    assert checkpointer.restore(made) == state
    checkpointer.import_thread(checkpointer.export_thread("foreign"), "again")
    assert checkpointer.latest_state("again") == state
    registry = codec.Registry()
    lines = lines_of(exported)
    tree(a=codec.encode(state, registry))(lines)
    name = checkpointer.import_thread(joined(lines), "planted")
    assert checkpointer.latest_state(name, "side") == {"a": state}
    assert checkpointer.verify().ok
    assert ran == []


def test_a_large_state_is_saved_and_one_beyond_the_limit_refused(checkpointer):
    text = random.Random(1).randbytes(4_000_000)
    made = checkpointer.save("large", {"data": text})
    assert checkpointer.restore(made)["data"] == text
    with pytest.raises(OverLimit):
        checkpointer.save("large", {"n": 1}, {"metadata": "x" * 5_000_000})
    assert checkpointer.latest("large").id == made
