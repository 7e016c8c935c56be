"""What LangGraph's channels hold comes back from the saver as it was given, and never as it was before somebody changed it."""

import copy
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Interrupt, Send
from pydantic import BaseModel
from saver_tools import config_of, put, values_of

import perdure.sync
from perdure.adapters.langgraph import PerdureSaver
from perdure.values.errors import Undecodable


class Model(BaseModel):
    """One of pydantic's."""

    name: str
    tags: list[str] = []


@dataclass
class Data:
    """A dataclass."""

    x: int
    y: list[str]


@pytest.fixture(params=["sqlite", "postgres"])
def store(request, tmp_path):
    url = f"sqlite:///{tmp_path / 'v.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("fresh_postgres_url")
    with perdure.sync.open(url) as store:
        yield store


@pytest.fixture
def memory():
    with PerdureSaver.from_conn_string(":memory:") as saver:
        yield saver


def messages():
    """One of each kind, with what they carry."""
    call = {"name": "look", "args": {"where": {"city": "Lisbon"}, "days": [1, 2]}, "id": "c1"}
    return [
        SystemMessage("be kind", id="0"),
        HumanMessage([{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:,"}}], id="1"),
        AIMessage(
            "", id="2", tool_calls=[call], usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
        ),
        ToolMessage("22 degrees", tool_call_id="c1", artifact={"raw": [22]}, id="3"),
        AIMessage("mild", id="4", additional_kwargs={"a": {"b": [1, {"c": 2}]}}, response_metadata={"model": "m"}),
    ]


VALUES = {
    "messages": messages(),
    "pydantic": Model(name="a", tags=["x"]),
    "models": [Model(name="a", tags=["x"]), Model(name="b")],
    "data": Data(1, ["y"]),
    "all data": [Data(1, ["y"]), Data(2, [])],
    "send": [Send("node", {"x": [1]}), Send("node", Model(name="s"))],
    "interrupt": [Interrupt(value={"question": "?"}, id="i")],
    "bytes": b"\0\xff",
    "bytearray": bytearray(b"\0\xff"),
    "many bytes": [b"a", b"", b"c"],
    "none": None,
    "nones": [None, None, [], {}, ""],
    "empty": [],
    "text": "é\U0001f600\0",
    "numbers": [0, -1, 2**63 - 1, 1.5, -0.0, True, False],
    "when": [datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1), Decimal("1.50")],
    "sets": [{1, 2}, frozenset({3})],
    "nested": {"a": [{"b": [1, {"c": [None]}]}], "1": {2: "int key"}},
    "documents": [Document("text", metadata={"k": [1]}, id="d")],
    "snapshot": _DeltaSnapshot([1, 2]),
    "deep": [[[[[["x"]]]]]],
    "long": ["y" * 100_000, "z" * 300_000],
}


@pytest.mark.parametrize("warm", [True, False])
def test_values_come_back_as_they_were(store, warm):
    """From the saver that wrote them, and from another one."""
    saver = PerdureSaver(store)
    first = put(saver, config_of(), VALUES)
    saver.put_writes(first, list(VALUES.items()), "task")
    for _ in range(2):
        reader = saver if warm else PerdureSaver(store)
        found = reader.get_tuple(first)
        assert found.checkpoint["channel_values"] == VALUES
        for name, value in found.checkpoint["channel_values"].items():
            assert type(value) is type(VALUES[name]), name
        assert [value for _, _, value in found.pending_writes] == list(VALUES.values())


def test_arrays_come_back_as_they_were(store):
    saver = PerdureSaver(store)
    given = {
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "arrays": [np.zeros(3), np.asfortranarray(np.eye(2))],
    }
    first = put(saver, config_of(), given)
    found = values_of(saver, first)
    assert np.array_equal(found["array"], given["array"])
    assert found["array"].dtype == np.float32
    assert all(np.array_equal(a, b) for a, b in zip(found["arrays"], given["arrays"], strict=True))
    given["arrays"][0][1] = 5
    second = put(saver, first, given, {"array": "1", "arrays": "2"})
    assert values_of(saver, second)["arrays"][0].tolist() == [0, 5, 0]


def test_what_a_process_has_at_hand_is_what_another_reads(store):
    """LangGraph's serializer gives a list back for a tuple: whoever asks, and however often."""
    saver = PerdureSaver(store)
    given = {"pairs": [("user", "hi"), {"t": (1, 2)}, ((),)], "pair": (1, 2)}
    first = put(saver, config_of(), given)
    here, again, elsewhere = values_of(saver, first), values_of(saver, first), values_of(PerdureSaver(store), first)
    assert here == again == elsewhere == {"pairs": [["user", "hi"], {"t": [1, 2]}, [[]]], "pair": [1, 2]}


# -- lists that change -------------------------------------------------------------------------------------------------------


def _content(message):
    message.content = "changed"


def _append_content(message):
    message.content = [*([message.content] if isinstance(message.content, str) else message.content), {"type": "text"}]


def _kwargs(message):
    message.additional_kwargs["a"] = {"b": [1, {"c": 3}]}


def _nested(message):
    message.additional_kwargs.setdefault("a", {"b": [1, {"c": 2}]})["b"][1]["c"] = {"deeper": True}


def _calls(message):
    message.tool_calls.append({"name": "other", "args": {}, "id": "c2", "type": "tool_call"})


def _call_arguments(message):
    message.tool_calls[0]["args"]["where"]["city"] = "Porto"


def _call_days(message):
    message.tool_calls[0]["args"]["days"][0] = True  # equals the 1 that it was


def _to_float(message):
    message.additional_kwargs["a"]["b"][0] = 1.0  # likewise


def _order(message):
    message.response_metadata.clear()
    message.response_metadata.update({"z": 1, "model": "m"})


def _reorder(message):
    for name in sorted(message.response_metadata, reverse=True):
        message.response_metadata[name] = message.response_metadata.pop(name)


def _id(message):
    message.id = "other"


def _usage(message):
    message.usage_metadata = {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18}


def _artifact(message):
    message.artifact["raw"][0] = 23


CHANGES = [
    (_content, 0), (_content, 4), (_append_content, 1), (_kwargs, 4), (_nested, 4), (_calls, 2), (_call_arguments, 2),
    (_call_days, 2), (_to_float, 4), (_order, 4), (_id, 0), (_usage, 2), (_artifact, 3),
]  # fmt: skip


def _said(found):
    """Everything about messages, exactly: ``1 == True`` would hide a change."""
    return json.dumps([[type(one).__name__, one.model_dump(mode="json")] for one in found])


@pytest.mark.parametrize("got", [False, True], ids=["handed over", "handed out"])
@pytest.mark.parametrize(("change", "at"), CHANGES, ids=lambda one: getattr(one, "__name__", str(one)))
def test_a_message_that_was_changed_in_place_is_stored_as_it_is_now(memory, change, at, got):
    held = messages()
    last = put(memory, config_of(), {"messages": held})
    if got:
        held = values_of(memory, last)["messages"]
        held = values_of(memory, last)["messages"]  # a copy of what is kept by now
    change(held[at])
    wanted = _said(held)
    last = put(memory, last, {"messages": held}, {"messages": "2"})
    assert _said(values_of(memory, last)["messages"]) == wanted
    assert _said(values_of(PerdureSaver(memory._store), last)["messages"]) == wanted
    _reorder(held[4])
    held[at].name = "named"
    last = put(memory, last, {"messages": held}, {"messages": "3"})
    assert _said(values_of(PerdureSaver(memory._store), last)["messages"]) == _said(held)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"n": 1}, {"n": True}), ({"n": 1}, {"n": 1.0}), ({"n": 0.0}, {"n": -0.0}), ({"n": [1]}, {"n": (1,)}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({"n": Decimal("1.0")}, {"n": Decimal("1.00")}),
        ({"n": datetime(2026, 1, 1, 12, tzinfo=UTC)}, {"n": datetime.fromisoformat("2026-01-01T13:00:00+01:00")}),
        ({"n": b"\0" * 8}, {"n": np.zeros(1)}), ({"n": np.zeros(1)}, {"n": np.zeros(1, np.int64)}), ({1: "x"}, {True: "x"}),
        ({"n": Model(name="x")}, {"n": Model(name="y")}), ({"n": "x"}, {}),
    ],
    ids=str,
)  # fmt: skip
def test_an_item_that_equals_what_it_was_is_stored_as_it_is_now(memory, before, after):
    item = copy.deepcopy(before)
    first = put(memory, config_of(), {"x": [item]})
    item.clear()
    item.update(copy.deepcopy(after))
    second = put(memory, first, {"x": [item]}, {"x": "2"})
    found = values_of(memory, second)["x"]
    serde = JsonPlusSerializer()
    assert repr(found) == repr(serde.loads_typed(serde.dumps_typed([after])))


def test_what_is_handed_out_is_nobody_elses(memory):
    """Not another caller's, not the saver's."""
    first = put(memory, config_of(), {"messages": messages(), "raw": [{"a": {"b": [1]}}]})
    one, two = values_of(memory, first), values_of(memory, first)
    for change, at in CHANGES:
        change(one["messages"][at])
    one["raw"][0]["a"]["b"].append(2)
    one["messages"].pop()
    for found in (two, values_of(memory, first), next(iter(memory.list(None))).checkpoint["channel_values"]):
        assert _said(found["messages"]) == _said(messages())
        assert found["raw"] == [{"a": {"b": [1]}}]
        assert [type(message) for message in found["messages"]] == [type(message) for message in messages()]
        found["messages"][2].tool_calls.clear()


def test_what_was_handed_over_stays_the_callers(memory):
    held = messages()
    first = put(memory, config_of(), {"messages": held})
    for change, at in CHANGES:
        change(held[at])
    assert _said(values_of(memory, first)["messages"]) == _said(messages())


def test_a_message_that_is_in_two_threads_is_looked_at_in_each(memory):
    shared = AIMessage("a", id="1")
    put(memory, config_of("one"), {"m": [shared]})
    shared.content = "b"
    put(memory, config_of("two"), {"m": [shared, shared]})
    shared.content = "c"
    put(memory, config_of("one", namespace="sub"), {"m": [shared]})
    found = [
        [m.content for m in values_of(memory, config_of(t, namespace=n))["m"]]
        for t, n in (("one", ""), ("two", ""), ("one", "sub"))
    ]
    assert found == [["a"], ["b", "b"], ["c"]]


def _edit(rng, items):
    """The same list after one edit somewhere."""
    at = rng.randrange(len(items) + 1)
    kind = rng.choice(["append", "insert", "delete", "replace", "swap", "change", "clear", "repeat"])
    if kind == "append":
        items.append(HumanMessage(f"n{rng.randrange(9)}", id=str(rng.randrange(99))))
    elif kind == "insert":
        items.insert(at, {"n": [rng.randrange(3)]})
    elif kind == "clear" and rng.random() < 0.1:
        items.clear()
    elif items:
        at %= len(items)
        if kind == "delete":
            del items[at]
        elif kind == "replace":
            items[at] = f"text {rng.randrange(5)}"
        elif kind == "swap":
            items[at], items[-1] = items[-1], items[at]
        elif kind == "repeat":
            items.append(items[at])
        elif isinstance(items[at], dict):
            items[at]["n"].append(rng.randrange(3))
        elif isinstance(items[at], HumanMessage):
            items[at].additional_kwargs["k"] = rng.randrange(9)
    return items


@given(st.integers(0, 2**32))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lists_that_are_edited_anywhere_are_stored_at_every_step(memory, seed):
    rng = random.Random(seed)
    memory.delete_thread("t")
    items, last, past = [], config_of(), []
    for step in range(25):
        items = _edit(rng, items)
        last = put(memory, last, {"x": items, "n": step}, {"x": str(step), "n": str(step)})
        past.append((last, repr(items)))
        if rng.random() < 0.3:
            items = values_of(memory, last)["x"]
        if rng.random() < 0.1:  # time travel
            last, _ = rng.choice(past)
            items = values_of(memory, last)["x"]
    other = PerdureSaver(memory._store)
    for config, wanted in past:
        assert repr(values_of(memory, config)["x"]) == repr(values_of(other, config)["x"]) == wanted


# -- serializers -------------------------------------------------------------------------------------------------------------


class Cipher:
    """AES-GCM, as LangGraph's protocol for ciphers wants it."""

    def __init__(self, key):
        self._aes = AESGCM(key)

    def encrypt(self, plaintext):
        nonce = os.urandom(12)
        return "gcm", nonce + self._aes.encrypt(nonce, plaintext, None)

    def decrypt(self, ciphername, ciphertext):
        assert ciphername == "gcm"
        return self._aes.decrypt(ciphertext[:12], ciphertext[12:], None)


def test_langgraphs_encrypting_serializer_works(tmp_path):
    """And nothing that was written by another serializer is used again under it."""
    path = tmp_path / "aes.db"
    with perdure.sync.open(f"sqlite:///{path}") as store:
        saver = PerdureSaver(store)
        held = [HumanMessage("ocelot", id="1"), {"k": "walrus"}]
        first = put(saver, config_of(), {"m": [HumanMessage("open", id="0")]})
        sealed = PerdureSaver(store, serde=EncryptedSerializer(Cipher(b"k" * 16)))
        saver.serde, plainly = sealed.serde, saver.serde
        second = put(saver, config_of("sealed"), {"m": held, "d": {"secret": "narwhal"}})
        saver.put_writes(second, [("c", "manatee")], "task")
        third = put(saver, second, {"m": [*held, HumanMessage("ocelot", id="2")], "d": 1}, {"m": "2", "d": "2"})
        assert [one.content for one in values_of(sealed, third)["m"] if isinstance(one, HumanMessage)] == ["ocelot"] * 2
        assert values_of(saver, second)["d"] == {"secret": "narwhal"}
        saver.serde = plainly
        assert values_of(saver, first)["m"][0].content == "open"
        with pytest.raises(NotImplementedError):
            saver.get_tuple(second)
        assert (
            values_of(PerdureSaver(store, serde=sealed.serde), first)["m"][0].content == "open"
        )  # plain rows stay readable
    stored = b"".join(one.read_bytes() for one in tmp_path.iterdir())
    assert b"open" in stored or b"HumanMessage" in stored
    for word in (b"ocelot", b"walrus", b"narwhal", b"manatee"):
        assert word not in stored


def test_a_stricter_serializer_is_asked_itself(memory):
    """What a permissive one made of the same bytes is not handed out for it."""
    first = put(memory, config_of(), {"m": [Model(name="x")]})
    assert values_of(memory, first) == {"m": [Model(name="x")]}
    strict = copy.copy(memory)
    strict.serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    assert values_of(strict, first) == {"m": [{"name": "x", "tags": []}]}
    allowed = strict.with_allowlist([(Model.__module__, "Model")])
    assert values_of(allowed, first) == {"m": [Model(name="x")]}
    assert values_of(strict, first) == {"m": [{"name": "x", "tags": []}]}


def test_strict_mode_holds_for_the_saver():
    """LANGGRAPH_STRICT_MSGPACK: nothing but safe types is made, in messages' lists too, whatever is at hand."""
    code = (
        "from collections import OrderedDict, namedtuple\n"
        "from fractions import Fraction\n"
        "from pydantic import BaseModel\n"
        "from langchain_core.messages import HumanMessage\n"
        "from saver_tools import config_of, put, values_of\n"
        "from perdure.adapters.langgraph import PerdureSaver\n"
        "class Mine(BaseModel):\n    x: int\n"
        "with PerdureSaver.from_conn_string(':memory:') as saver:\n"
        "    held = [Mine(x=1), HumanMessage('a', id='1')]\n"
        "    first = put(saver, config_of(), {'m': held})\n"
        "    second = put(saver, first, {'m': held}, {'m': '2'})\n"
        "    for config in (first, second, second):\n"
        "        print([type(one).__name__ for one in values_of(saver, config)['m']])\n"
    )
    environment = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['dict', 'HumanMessage']"] * 3


def test_an_object_that_the_serializer_does_not_know_is_refused_and_nothing_is_saved(memory):
    first = put(memory, config_of(), {"x": [1]})
    for value in ([1, object()], {"deep": [object()]}, object()):
        with pytest.raises(TypeError):
            put(memory, first, {"x": value}, {"x": "2"})
        with pytest.raises(TypeError):
            memory.put_writes(first, [("fine", 1), ("c", value)], "task")
    assert memory.get_tuple(config_of()).pending_writes == []
    memory.serde = JsonPlusSerializer(pickle_fallback=True)
    second = put(memory, first, {"x": [1, complex(1, 2)], "whole": range(3)}, {"x": "2", "whole": "1"})
    assert values_of(memory, second) == {"x": [1, complex(1, 2)], "whole": range(3)}


def test_what_perdure_itself_reads_is_bytes_with_the_name_of_their_form(memory):
    """A checkpoint of LangGraph's can be looked at without LangGraph."""
    put(memory, config_of(), {"m": messages()}, metadata={"score": 1})
    native = perdure.sync.Checkpointer(memory._store, space="langgraph:")
    state = native.latest("t")
    assert state is not None
    restored = native.restore(state.id)
    assert len(restored["channel:m"]) == 5
    assert {one.codec for one in restored["channel:m"]} == {"msgpack"}
    with pytest.raises(Undecodable):
        native.save("t", {"channel:x": [1], "checkpoint": {"id": "x"}})
        memory.get_tuple(config_of())


def test_metadata_of_any_kind_comes_back(store):
    saver = PerdureSaver(store)
    given = {
        "source": "loop", "step": -1, "parents": {"": "id", "sub:1": "x"}, "score": 1.5, "nul": "a\0b", "list": [1, {"x": None}],
        "model": Model(name="m"), "message": HumanMessage("hi", id="1"), "bytes": b"\0", "when": datetime(2026, 1, 1, tzinfo=UTC),
        "counters_since_delta_snapshot": {"c": (1, 2)}, "big": "x" * 200_000, "ünï": True,
    }  # fmt: skip
    put(saver, config_of(), {}, metadata=given)
    found = PerdureSaver(store).get_tuple(config_of()).metadata
    assert {**found, "counters_since_delta_snapshot": None} == {
        **given,
        "nul": "ab",
        "counters_since_delta_snapshot": None,
    }
    assert [list(pair) for pair in found["counters_since_delta_snapshot"].values()] == [[1, 2]]
    assert len(list(saver.list(None, filter={"model": Model(name="m")}))) == 1
