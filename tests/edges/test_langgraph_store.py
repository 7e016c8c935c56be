"""LangGraph's store interface on perdure: both engines, both worlds, one object."""

import asyncio
import math
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TypedDict
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import Embeddings
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

import perdure
import perdure.sync
from perdure.adapters.langgraph import PerdureStore
from perdure.rooms.items.matching import matcher
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Closed, Invalid, MissingExtra, Misused, OverLimit

MINUTE = 60_000_000
START_AT = 1_700_000_000_000_000


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    """A fresh database of each engine."""
    if request.param == "postgres":
        return request.getfixturevalue("fresh_postgres_url")
    return f"sqlite:///{tmp_path / 'store.db'}"


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.now = START_AT

    def __call__(self):
        return self.now

    def pass_minutes(self, minutes):
        self.now += round(minutes * MINUTE)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def base(url, clock):
    """A blocking store under the manual clock."""
    with perdure.sync.Store(PersistenceConfig(url, pool_size=4), clock=clock) as store:
        yield store


@pytest.fixture
def store(base):
    return PerdureStore(base)


class Letters(Embeddings):
    """Embeds a text as how often each letter from a to h is in it; counts its calls."""

    dims = 8

    def __init__(self):
        self.texts = []
        self.queries = []

    def _one(self, text):
        return [float(text.count(letter)) for letter in "abcdefgh"]

    def embed_documents(self, texts):
        self.texts += texts
        return [self._one(text) for text in texts]

    def embed_query(self, text):
        self.queries.append(text)
        return self._one(text)


def indexed(base, fields=("text",), embed=None, ttl=None):
    embed = embed or Letters()
    return PerdureStore(base, index={"dims": 8, "embed": embed, "fields": list(fields)}, ttl=ttl), embed


def keys(items):
    return [item.key for item in items]


def _joined(pages):
    return [key for page in pages for key in page]


# -- what every store does ---------------------------------------------------------------------------------------------------


def test_a_value_comes_back_as_it_was(store, clock):
    value = {"n": 1, "f": 2.5, "t": "é\U0001f600", "none": None, "list": [1, {"x": [True]}], "$odd": {"$datetime": 1}}
    store.put(("users", "ann"), "prefs", value)
    item = store.get(("users", "ann"), "prefs")
    assert (item.value, item.key, item.namespace) == (value, "prefs", ("users", "ann"))
    assert item.created_at == item.updated_at == datetime.fromtimestamp(START_AT / 1e6, UTC)
    assert store.get(("users", "ann"), "other") is None
    assert store.get(("users",), "prefs") is None


def test_times_and_the_like_come_back_too(store):
    value = {"at": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "id": UUID(int=5), "raw": b"\0\xff"}
    store.put(("a",), "k", value)
    assert store.get(("a",), "k").value == value
    assert keys(store.search(("a",), filter={"at": {"$gt": datetime(2026, 1, 1, tzinfo=UTC)}})) == ["k"]


def test_an_update_keeps_when_it_was_created(store, clock):
    store.put(("a",), "k", {"v": 1})
    clock.pass_minutes(1)
    store.put(("a",), "k", {"v": 2})
    item = store.get(("a",), "k")
    assert item.value == {"v": 2}
    assert item.updated_at - item.created_at == timedelta(minutes=1)


def test_a_deleted_item_is_gone(store):
    store.put(("a",), "k", {"v": 1})
    store.delete(("a",), "k")
    store.delete(("a",), "never")
    assert store.get(("a",), "k") is None
    assert store.search(()) == []
    assert store.list_namespaces() == []


def test_the_latest_change_comes_first(store, clock):
    """Then by namespace and key, wherever it is asked; pages follow each other."""
    for number in range(10):
        store.batch([PutOp(("n", f"{number % 3}"), f"{number}", {"n": number})])
        if number % 2:
            clock.pass_minutes(1)
    in_order = sorted(range(10), key=lambda n: (-(n // 2), n % 3, n))
    assert keys(store.search(("n",))) == [str(n) for n in in_order]
    pages = [keys(store.search(("n",), limit=3, offset=offset)) for offset in range(0, 12, 3)]
    assert _joined(pages) == [str(n) for n in in_order]
    odd = {"n": {"$lt": float("inf")}}  # a filter that Python has to answer
    pages = [keys(store.search(("n",), filter=odd, limit=3, offset=offset)) for offset in range(0, 12, 3)]
    assert _joined(pages) == [str(n) for n in in_order]


def test_a_search_keeps_to_whole_labels(store):
    for namespace in [("foo",), ("foo", "child"), ("foobar",), ("fo",), ("foo%",), ("Foo",), ("foo\n",), ("foo\x01",)]:
        store.put(namespace, "k", {})
    assert {item.namespace for item in store.search(("foo",))} == {("foo",), ("foo", "child")}
    assert len(store.search(())) == 8
    assert {item.namespace for item in store.search(("foo%",))} == {("foo%",)}


def test_more_items_than_one_page_of_a_scan(store):
    store.batch(
        [PutOp(("n", f"{n % 7}"), f"{n:04}", {"n": n, "tags": ["even" if n % 2 == 0 else "odd"]}) for n in range(1_300)]
    )
    even = store.search(("n",), filter={"tags": ["even"]}, limit=1_000)
    assert sorted(item.value["n"] for item in even) == list(range(0, 1_300, 2))
    assert len(store.search(("n",), limit=2_000)) == 1_300
    assert len(store.batch([GetOp(("n", f"{n % 7}"), f"{n:04}") for n in range(1_300)])) == 1_300


def test_reads_of_a_batch_come_before_its_writes(store):
    """Results stand where their operations do; of several puts of a key the last one wins."""
    store.put(("a",), "old", {"v": 0})
    ops = [
        PutOp(("a",), "k", {"v": 1}),
        GetOp(("a",), "k"),
        PutOp(("a",), "k", {"v": 2}),
        SearchOp(("a",)),
        PutOp(("a",), "old", None),
        ListNamespacesOp(),
        PutOp(("b",), "x", {"v": 3}),
        GetOp(("a",), "old"),
        PutOp(("b",), "x", None),
        PutOp(("b",), "y", None),
        PutOp(("b",), "y", {"v": 4}),
    ]
    results = store.batch(iter(ops))
    assert [type(result).__name__ for result in results] == [
        "NoneType", "NoneType", "NoneType", "list", "NoneType", "list", "NoneType", "Item", "NoneType", "NoneType", "NoneType",
    ]  # fmt: skip
    assert (keys(results[3]), results[5], results[7].value) == (["old"], [("a",)], {"v": 0})
    assert {item.key: item.value["v"] for item in store.search(())} == {"k": 2, "y": 4}


def test_a_batch_is_written_wholly_or_not_at_all(store):
    for bad in (PutOp(("a",), "k", {"v": {1, 2}}), PutOp(("a",), "\0", {}), PutOp(("a.b",), "k", {}), "no operation"):
        with pytest.raises((Invalid, InvalidNamespaceError)):
            store.batch([PutOp(("a",), "good", {}), bad])
    assert store.batch([]) == []
    assert store.search(()) == []


@pytest.mark.parametrize("namespace", [("foo.bar",), ("foo", ""), ("foo", 1), ("a\0",)])
def test_labels_are_checked_in_batches_too(store, namespace):
    store.put(("foo", "bar"), "k", {})
    for op in (
        GetOp(namespace, "k"), PutOp(namespace, "k", {}), PutOp(namespace, "k", None), SearchOp(namespace),
        ListNamespacesOp((MatchCondition("prefix", namespace),)), ListNamespacesOp((MatchCondition("suffix", namespace),)),
    ):  # fmt: skip
        with pytest.raises(InvalidNamespaceError):
            store.batch([op])
        with pytest.raises(InvalidNamespaceError):
            asyncio.run(store.abatch([op]))
    with pytest.raises(InvalidNamespaceError):
        store.put(("langgraph", "x"), "k", {})
    assert len(store.search(())) == 1


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (SearchOp((), limit=-1), Invalid), (SearchOp((), offset=-1), Invalid), (SearchOp((), limit=10**9), OverLimit),
        (SearchOp((), filter={"$or": []}), Invalid), (SearchOp((), filter={"a": {"$in": []}}), Invalid),
        (ListNamespacesOp(limit=-1), Invalid), (ListNamespacesOp(max_depth=0), Invalid),
        (ListNamespacesOp((MatchCondition("middle", ("a",)),)), Invalid),
        (PutOp((), "k", {}), Invalid), (PutOp(("a" * 2_000,), "k", {}), OverLimit), (PutOp(("a",), "k" * 513, {}), OverLimit),
        (PutOp(("a",), "k", {"v": "x" * 17_000_000}), OverLimit), (PutOp(("a",), "k", [1]), Invalid),
        (PutOp(("a",), "k", {}, ttl=-1), Invalid), (PutOp(("a",), 5, {}), Invalid),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(store, op, error):
    with pytest.raises(error) as refused:
        store.batch([op])
    assert refused.value.field


# -- filters -----------------------------------------------------------------------------------------------------------------

_INNER = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, 1e17, "", "a", "é", "1", "x'--"])
_STORED = st.dictionaries(
    st.sampled_from(["a", "b", "a.b"]),
    st.recursive(
        _INNER, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)  # fmt: skip
_OPERANDS = st.recursive(
    _INNER | st.sampled_from([float("inf"), "a\0"])
    | st.dictionaries(st.sampled_from(["$eq", "$ne"]), _INNER, min_size=1)
    | st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.sampled_from([0, 0.5, "a", -1, 1e17]), min_size=1),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=3,
)  # fmt: skip
_FILTERS = st.dictionaries(st.sampled_from(["a", "b", "a.b", "b.a"]), _OPERANDS, max_size=2)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_STORED, max_size=6), st.lists(_FILTERS, min_size=1, max_size=6))
def test_a_filter_means_the_same_on_an_engine_as_in_python(store, stored, filters):
    store.batch([PutOp(("f",), f"{number}", None) for number in range(6)])
    store.batch([PutOp(("f",), f"{number}", value) for number, value in enumerate(stored)])
    for wanted in filters:
        expected = [f"{number}" for number, value in enumerate(stored) if matcher(wanted).test(value)]
        assert sorted(keys(store.search(("f",), filter=wanted))) == expected, wanted


def test_names_in_filters_are_never_sql(store):
    store.put(("a",), "k", {"access": "public"})
    for name in ("access') = 'public' OR '1'='1' OR json_extract(value, '$.", 'a"b', "a'b", "%s", ":tenant", "{where}"):
        assert store.search(("a",), filter={name: "dummy"}) == []
        store.put(("b",), "odd", {name: "found"})
        assert keys(store.search(("b",), filter={name: "found"})) == ["odd"]


# -- like the official ones --------------------------------------------------------------------------------------------------


def _agreed_filter(source):
    return source.choice(
        [
            None, {"color": "red"}, {"n": {"$gte": 3}}, {"n": {"$gt": 1, "$lt": 4}}, {"size": {"w": 1}}, {"tags": ["a", "b"]},
            {"color": {"$ne": "red"}}, {"n": {"$eq": 2}}, {"color": "blue", "n": 0},
        ]
    )  # fmt: skip


def test_it_answers_as_the_store_in_memory_does(store, clock, seeded_random):
    """In all that the official stores agree on; theirs keeps the order of insertion, so order is not compared."""
    source, official = seeded_random, InMemoryStore()
    labels = ["a", "b", "c"]
    for _ in range(60):
        clock.pass_minutes(1)
        namespaces = [tuple(source.choices(labels, k=source.randint(1, 3))) for _ in range(4)]
        ops = []
        for namespace in namespaces:
            key = source.choice("xyz")
            value = {
                "color": source.choice(["red", "blue"]), "n": source.randint(0, 5),
                "size": {"w": source.randint(0, 1), "h": 2}, "tags": source.sample(["a", "b", "c"], 2),
            }  # fmt: skip
            ops += [
                PutOp(namespace, key, source.choice([value, value, None])),
                GetOp(source.choice(namespaces), source.choice("xyz")),
                SearchOp(namespace[: source.randint(0, 2)], _agreed_filter(source), limit=100),
            ]
        for ours, theirs in zip(store.batch(ops), official.batch(ops), strict=True):
            assert _plain(ours) == _plain(theirs)
        held = sorted({item.namespace for item in official.search((), limit=1_000)})
        for depth in (None, 1, 2):
            cut = sorted({namespace[:depth] for namespace in held})
            assert store.list_namespaces(max_depth=depth, limit=1_000) == cut
        for condition in (
            MatchCondition("prefix", ("a", "*")), MatchCondition("suffix", ("b",)), MatchCondition("suffix", ("*", "c")),
        ):  # fmt: skip
            op = ListNamespacesOp((condition,), limit=1_000)
            theirs = [namespace for namespace in official.batch([op])[0] if namespace in held]
            assert store.batch([op])[0] == theirs


def _plain(result):
    if isinstance(result, list):
        return sorted((item.namespace, item.key, str(item.value)) for item in result)
    return None if result is None else (result.namespace, result.key, result.value)


# -- namespaces --------------------------------------------------------------------------------------------------------------


def test_namespaces_are_listed_in_the_order_of_their_labels(store):
    namespaces = [
        ("a",),
        ("a", "b"),
        ("a", "b", "c"),
        ("a!",),
        ("a\x01", "z"),
        ("b", "c"),
        ("é",),
        ("\U0001f600",),
        ("\uffff",),
    ]
    store.batch([PutOp(namespace, f"{n}", {}) for namespace in reversed(namespaces) for n in range(3)])
    assert store.list_namespaces() == sorted(namespaces)
    assert store.list_namespaces(limit=2, offset=1) == sorted(namespaces)[1:3]
    assert store.list_namespaces(limit=0) == []
    assert store.list_namespaces(prefix=("a",)) == [("a",), ("a", "b"), ("a", "b", "c")]
    assert store.list_namespaces(prefix=("a",), max_depth=2) == [("a",), ("a", "b")]
    assert store.list_namespaces(prefix=("a",), suffix=("c",)) == [("a", "b", "c")]
    assert store.list_namespaces(suffix=("*", "c")) == [("a", "b", "c"), ("b", "c")]
    assert store.list_namespaces(prefix=("*", "b")) == [("a", "b"), ("a", "b", "c")]
    assert store.list_namespaces(prefix=("*",), max_depth=1, limit=3) == [("a",), ("a\x01",), ("a!",)]


def test_more_namespaces_than_one_page(store):
    store.batch([PutOp((f"{n:04}", "x" if n % 2 else "y"), "k", {}) for n in range(1_100)])
    assert len(store.list_namespaces(limit=2_000)) == 1_100
    assert len(store.list_namespaces(suffix=("x",), limit=2_000)) == 550
    assert store.list_namespaces(suffix=("x",), limit=2, offset=548) == [("1097", "x"), ("1099", "x")]


# -- lives -------------------------------------------------------------------------------------------------------------------


def test_an_item_lives_for_its_minutes(base, clock):
    """It is seen until it is swept, as with the official stores."""
    store = PerdureStore(base)
    store.put(("a",), "short", {}, ttl=1)
    store.put(("a",), "long", {}, ttl=3)
    store.put(("a",), "ever", {})
    clock.pass_minutes(1)
    assert len(store.search((), refresh_ttl=False)) == 3
    assert store.sweep_ttl() == 1
    assert keys(store.search((), refresh_ttl=False)) == ["ever", "long"]
    clock.pass_minutes(2)
    assert asyncio.run(store.asweep_ttl()) == 1
    clock.pass_minutes(10**6)
    assert store.sweep_ttl() == 0
    assert keys(store.search(())) == ["ever"]


def test_a_default_life_can_be_overridden(base, clock):
    store = PerdureStore(base, ttl={"default_ttl": 5})
    store.put(("a",), "default", {})
    store.put(("a",), "short", {}, ttl=1)
    store.put(("a",), "ever", {}, ttl=None)
    clock.pass_minutes(2)
    assert store.sweep_ttl() == 1
    clock.pass_minutes(3)
    assert store.sweep_ttl() == 1
    assert keys(store.search(())) == ["ever"]


@pytest.mark.parametrize("read", ["get", "search", "near", "put"])
def test_reads_and_writes_give_a_life_anew(base, clock, read):
    store, _ = indexed(base)
    store.put(("a",), "k", {"text": "abc"}, ttl=2)
    store.put(("a",), "untouched", {"x": 1}, ttl=2)
    clock.pass_minutes(1.5)
    if read == "get":
        assert store.get(("a",), "k") is not None
    elif read == "put":
        store.put(("a",), "k", {"text": "abc"}, ttl=2)
    else:
        query = "abc" if read == "near" else None
        assert keys(store.search(("a",), query=query, filter={"text": "abc"})) == ["k"]
    clock.pass_minutes(1)
    assert store.sweep_ttl() == 1
    assert keys(store.search(("a",), refresh_ttl=False)) == ["k"]
    clock.pass_minutes(1)
    assert store.sweep_ttl() == 1


@pytest.mark.parametrize("quiet", ["call", "config"])
def test_a_read_need_not_give_a_life_anew(base, clock, quiet):
    store = PerdureStore(base, ttl={"default_ttl": 2, "refresh_on_read": quiet != "config"})
    store.put(("a",), "k", {})
    clock.pass_minutes(1.5)
    options = {"refresh_ttl": False} if quiet == "call" else {}
    assert store.get(("a",), "k", **options) is not None
    assert store.search(("a",), **options)
    clock.pass_minutes(0.5)
    assert store.sweep_ttl() == 1


def test_expired_items_can_be_hidden_before_they_are_swept(base, clock):
    hiding, _ = indexed(base, ttl={"omit_expired": True, "default_ttl": 1})
    hiding.put(("a",), "k", {"text": "abc"})
    hiding.put(("b",), "k", {"text": "abc"}, ttl=None)
    clock.pass_minutes(1)
    assert hiding.get(("a",), "k") is None
    assert [item.namespace for item in hiding.search(())] == [("b",)]
    assert [item.namespace for item in hiding.search((), query="abc")] == [("b",)]
    assert [item.namespace for item in hiding.search((), filter={"text": {"$lt": float("inf")}})] == []
    assert hiding.list_namespaces() == [("b",)]
    assert len(PerdureStore(base).search(())) == 2
    assert hiding.sweep_ttl() == 0  # the plain store has seen it, so it lives anew


def test_a_write_without_a_life_takes_it_away(store, clock):
    store.put(("a",), "k", {}, ttl=1)
    store.put(("a",), "k", {})
    clock.pass_minutes(5)
    assert store.sweep_ttl() == 0
    assert store.get(("a",), "k") is not None


def test_a_sweep_takes_more_than_one_round(store, clock):
    store.batch([PutOp(("a",), f"{n}", {}, ttl=1) for n in range(2_500)])
    clock.pass_minutes(1)
    assert store.sweep_ttl() == 2_500


def test_what_is_swept_or_deleted_leaves_no_vector(base, clock):
    store, _ = indexed(base)
    store.put(("a",), "swept", {"text": "abc"}, ttl=1)
    store.put(("a",), "deleted", {"text": "abc"})
    store.put(("a",), "emptied", {"text": "abc"})
    clock.pass_minutes(1)
    assert store.sweep_ttl() == 1
    store.delete(("a",), "deleted")
    store.put(("a",), "emptied", {"text": "abc"}, index=False)
    assert base.execute("select count(*) from item_vectors") == [(0,)]


def _until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_sweeper_sweeps_until_it_is_stopped(base, clock):
    store = PerdureStore(base, ttl={"default_ttl": 1, "sweep_interval_minutes": 0.0005})
    done = store.start_ttl_sweeper()
    assert store.start_ttl_sweeper() is done
    store.put(("a",), "k", {})
    clock.pass_minutes(1)
    _until(lambda: store.get(("a",), "k", refresh_ttl=False) is None)
    assert store.stop_ttl_sweeper()
    assert done.done()
    assert store.stop_ttl_sweeper(timeout=0)
    again = store.start_ttl_sweeper(0.001)
    again.cancel()
    _until(store.stop_ttl_sweeper)


def test_a_sweeper_outlives_a_failure(base, clock, caplog):
    store = PerdureStore(base, ttl={"default_ttl": 1})
    store.put(("a",), "k", {})
    clock.pass_minutes(1)
    base.execute("alter table items rename to lost")
    store.start_ttl_sweeper(0.0005)
    _until(lambda: "a sweep failed" in caplog.text)
    base.execute("alter table lost rename to items")
    _until(lambda: store.search((), refresh_ttl=False) == [])
    assert store.stop_ttl_sweeper()


def test_a_sweeper_ends_when_its_store_is_closed(url):
    with perdure.sync.open(url) as base:
        done = PerdureStore(base, ttl={"default_ttl": 1}).start_ttl_sweeper(0.0005)
        store = PerdureStore(base, ttl={"default_ttl": 1})
        kept = store.start_ttl_sweeper(0.0005)
        _until(done.done)  # nobody holds that one
        assert not kept.done()
    _until(kept.done)


def test_without_a_ttl_there_is_nothing_to_sweep(store):
    assert store.start_ttl_sweeper().done()
    assert store.stop_ttl_sweeper()
    assert store.supports_ttl


def test_an_opened_store_sweeps_by_itself_when_told_how_often(url):
    with PerdureStore.from_conn_string(url, ttl={"default_ttl": 0, "sweep_interval_minutes": 0.0005}) as store:
        store.put(("a",), "k", {})
        _until(lambda: store.search(()) == [])


# -- vectors -----------------------------------------------------------------------------------------------------------------


def test_the_nearest_comes_first_with_its_cosine(base, clock):
    store, _ = indexed(base)
    for key, text in [("one", "aaaa"), ("two", "ab"), ("three", "bbbb"), ("four", "cc")]:
        store.put(("docs", key), key, {"text": text})
        clock.pass_minutes(1)
    found = store.search(("docs",), query="a")
    assert keys(found) == ["one", "two", "four", "three"]  # equally far: the latest change first
    assert [item.score for item in found] == pytest.approx([1, math.sqrt(0.5), 0, 0], abs=1e-6)
    assert all(isinstance(item, SearchItem) for item in found)
    assert keys(store.search(("docs", "two"), query="a")) == ["two"]
    assert [item.score for item in store.search(("docs",))] == [None] * 4


def test_scores_are_those_of_the_store_in_memory(base, seeded_random):
    store, _ = indexed(base)
    official = InMemoryStore(index={"dims": 8, "embed": Letters(), "fields": ["text"]})
    for number in range(60):
        value = {"text": "".join(seeded_random.choices("abcdefgh", k=12)), "n": number % 3}
        for one in (store, official):
            one.put(("d", str(number % 4)), f"{number}", value)
    for prefix, filter in (
        (("d",), None),
        (("d", "1"), None),
        (("d",), {"n": 1}),
        (("d",), {"n": {"$lt": float("inf")}}),
    ):
        ours = {item.key: item.score for item in store.search(prefix, query="abc", filter=filter, limit=100)}
        theirs = {item.key: item.score for item in official.search(prefix, query="abc", filter=filter, limit=100)}
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_an_item_is_as_near_as_its_nearest_text(base):
    store, _ = indexed(base, fields=["title", "parts[*].text"])
    store.put(("d",), "many", {"title": "hhh", "parts": [{"text": "ab"}, {"text": "aa"}, {"x": 1}]})
    store.put(("d",), "one", {"title": "ab"})
    found = store.search(("d",), query="aa")
    assert keys(found) == ["many", "one"]
    assert found[0].score == pytest.approx(1)
    assert base.execute("select count(*) from item_vectors") == [(4,)]


def test_items_without_a_vector_follow(base, clock):
    """Pages go through both, each item once."""
    store, _ = indexed(base)
    for number in range(6):
        store.put(("d",), f"scored{number}", {"text": "ab" * (number + 1) + "c"})
        store.put(("d",), f"plain{number}", {"text": "ab"}, index=False)
        clock.pass_minutes(1)
    found = store.search(("d",), query="a", limit=20)
    assert [item.score is None for item in found] == [False] * 6 + [True] * 6
    assert keys(found)[6:] == [f"plain{number}" for number in (5, 4, 3, 2, 1, 0)]
    pages = [keys(store.search(("d",), query="a", limit=5, offset=offset)) for offset in (0, 5, 10, 15)]
    assert _joined(pages) == keys(found)
    assert keys(store.search(("d",), query="a", limit=3)) == keys(found)[:3]


def test_a_page_of_the_nearest_holds_only_what_matches(base):
    store, _ = indexed(base)
    store.batch(
        [
            PutOp(("d",), f"{n:04}", {"text": "a" * (n % 5 + 1) + "b" * (n % 7), "n": n, "tags": [n % 2]})
            for n in range(600)
        ]
    )
    everything = store.search(("d",), query="a", limit=600)
    for filter in ({"n": {"$gte": 300}}, {"tags": [1]}):
        expected = [item.key for item in everything if matcher(filter).test(item.value)]
        pages = [
            keys(store.search(("d",), query="a", filter=filter, limit=100, offset=offset)) for offset in (0, 100, 200)
        ]
        assert _joined(pages) == expected


def test_a_new_value_has_new_vectors(base):
    store, _ = indexed(base)
    store.put(("d",), "k", {"text": "aaa"})
    store.put(("d",), "k", {"text": "bbb"})
    assert store.search(("d",), query="a")[0].score == pytest.approx(0)
    plain = PerdureStore(base)
    plain.put(("d",), "k", {"text": "ccc"})  # by a store that embeds nothing: the old vector would tell of an old text
    assert store.search(("d",), query="b")[0].score is None


def test_paths_can_be_given_with_each_item(base):
    store, embed = indexed(base, fields=["$"])
    store.put(("d",), "whole", {"text": "a", "at": datetime(2026, 1, 1, tzinfo=UTC)})
    store.put(("d",), "paths", {"x": "a", "y": "b"}, index=["x", "x", "missing"])
    store.put(("d",), "blank", {"x": " "}, index=["x"])
    assert embed.texts == ['{"at": "2026-01-01T00:00:00Z", "text": "a"}', "a"]
    assert keys(store.search(("d",), query="a"))[0] == "paths"


def test_an_index_is_read_as_the_official_stores_read_theirs(base):
    """``fields``, or what their SQLite store calls ``text_fields``; the whole value when there are none."""
    assert PerdureStore(base, index={"dims": 8, "embed": Letters(), "text_fields": ["x"]})._index.fields == [
        ("x", ["x"])
    ]
    assert PerdureStore(base, index={"dims": 8, "embed": Letters()})._index.fields == [("$", "$")]
    store, embed = indexed(base)
    assert store.embeddings is embed
    assert store.index_config["dims"] == 8
    assert PerdureStore(base).embeddings is None


def test_equal_texts_of_a_batch_are_embedded_once(base):
    store, embed = indexed(base)
    ops = [PutOp(("d",), f"{n}", {"text": f"a{n % 2}"}) for n in range(6)]
    store.batch([*ops, PutOp(("d",), "5", {"text": "last"}), SearchOp(("d",), query="q"), SearchOp(("d",), query="q")])
    assert sorted(embed.texts) == ["a0", "a1", "last"]
    assert embed.queries == ["q"]
    assert base.execute("select count(*) from item_vectors") == [(6,)]


def test_vectors_of_another_model_are_not_compared(base):
    class Other(Letters):
        model = "other"

    store, _ = indexed(base)
    store.put(("d",), "old", {"text": "aaa"})
    other, _ = indexed(base, embed=Other())
    other.put(("d",), "new", {"text": "aaa"})
    assert [(item.key, item.score is None) for item in other.search(("d",), query="a")] == [
        ("new", False),
        ("old", True),
    ]
    assert [(item.key, item.score is None) for item in store.search(("d",), query="a")] == [
        ("old", False),
        ("new", True),
    ]


@pytest.mark.parametrize(
    "embed",
    [lambda texts: [[1.0] * 7 for _ in texts], lambda texts: [[1.0] * 8], lambda texts: [[float("nan")] * 8 for _ in texts]],
)  # fmt: skip
def test_vectors_that_cannot_be_stored_store_nothing(base, embed):
    store, _ = indexed(base, embed=embed)
    with pytest.raises(Invalid, match=r"index\.embed"):
        store.batch([PutOp(("d",), "1", {"text": "x"}), PutOp(("d",), "2", {"text": "y"}), PutOp(("d",), "3", None)])
    assert store.search(()) == []


def test_an_embedder_that_fails_stores_nothing(base):
    def down(texts):
        raise ConnectionError("no network")

    store, _ = indexed(base, embed=down)
    with pytest.raises(ConnectionError):
        store.put(("d",), "k", {"text": "x"})
    with pytest.raises(ConnectionError):
        asyncio.run(store.aput(("d",), "k", {"text": "x"}))
    with pytest.raises(ConnectionError):
        store.search(("d",), query="x")
    assert store.search(()) == []


def test_what_cannot_be_stored_is_not_embedded(base):
    store, embed = indexed(base)
    with pytest.raises(Invalid):
        store.batch([PutOp(("d",), "k", {"text": "x", "bad": {1}})])
    assert embed.texts == []


def test_nothing_is_locked_while_embedding(base):
    """The embedder itself writes to the store, from another thread too."""

    def embed(texts):
        plain = PerdureStore(base)
        plain.put(("log",), "here", {"texts": texts})
        with ThreadPoolExecutor(1) as pool:
            pool.submit(plain.put, ("log",), "there", {"texts": texts}).result(timeout=20)
        return [[1.0] * 8 for _ in texts]

    store, _ = indexed(base, embed=embed)
    store.put(("d",), "k", {"text": "x"})
    assert keys(store.search(("log",))) == ["here", "there"]
    assert len(store.search(("d",), query="y")) == 1


def test_an_async_function_embeds(base):
    async def embed(texts):
        await asyncio.sleep(0)
        return [Letters()._one(text) for text in texts]

    store, _ = indexed(base, embed=embed)

    async def scenario():
        await store.aput(("d",), "k", {"text": "ab"})
        return await store.asearch(("d",), query="ab")

    assert asyncio.run(scenario())[0].score == pytest.approx(1)


@pytest.mark.parametrize(
    "index",
    [
        {"embed": Letters()}, {"dims": 0, "embed": Letters()}, {"dims": 10**6, "embed": Letters()}, {"dims": 8},
        {"dims": 8, "embed": Letters(), "distance_type": "l2"}, {"dims": 8, "embed": Letters(), "fields": [5]},
        {"dims": 8, "embed": Letters(), "fields": 5},
    ],
)  # fmt: skip
def test_an_index_that_cannot_be_is_refused(base, index):
    with pytest.raises(Invalid):
        PerdureStore(base, index=index)


# -- both worlds -------------------------------------------------------------------------------------------------------------


def test_it_opens_for_both_worlds_and_sets_itself_up(url):
    with PerdureStore.from_conn_string(url) as store:
        store.setup()
        store.put(("a",), "k", {"v": 1})
        assert store.get(("a",), "k").value == {"v": 1}

    async def scenario():
        async with PerdureStore.from_conn_string(url) as store:
            await store.setup()
            await store.aput(("a",), "k2", {"v": 2})
            await store.adelete(("a",), "k")
            found = await store.asearch(("a",))
            namespaces = await store.alist_namespaces()
            return keys(found), namespaces, store

    found, namespaces, store = asyncio.run(scenario())
    assert (found, namespaces) == (["k2"], [("a",)])
    with pytest.raises(Closed):
        store.get(("a",), "k")


def test_a_store_in_memory_serves_both_worlds():
    async def scenario(store):
        await store.aput(("a",), "k", {"v": 1})
        return await asyncio.gather(*(store.aget(("a",), "k") for _ in range(20)))

    with PerdureStore.from_conn_string(":memory:") as store:
        assert {item.value["v"] for item in asyncio.run(scenario(store))} == {1}
        assert store.get(("a",), "k").value == {"v": 1}


def test_an_opening_can_be_entered_again_and_by_several_at_once(url):
    opening = PerdureStore.from_conn_string(url)
    with opening as one, opening as other:
        one.put(("a",), "k", {})
        assert other.get(("a",), "k") is not None
        assert one is not other
    with opening as third:
        assert third.get(("a",), "k") is not None


def test_a_store_that_cannot_be_opened_is_told(tmp_path):
    with pytest.raises(Invalid), PerdureStore.from_conn_string(str(tmp_path / "missing" / "x.db")):
        pass
    with pytest.raises(Invalid), PerdureStore.from_conn_string("mysql://x"):
        pass


def test_one_object_serves_many_loops_and_threads(store):
    async def some(name):
        await asyncio.gather(*(store.aput(("n", name), f"{n}", {"n": n}) for n in range(10)))
        return len(await store.asearch(("n", name), limit=100))

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda n: asyncio.run(some(f"{n}")), range(6)))
    assert counts == [10] * 6

    async def blocking_on_a_loop():
        store.put(("n", "loop"), "k", {})
        return store.get(("n", "loop"), "k")

    assert asyncio.run(blocking_on_a_loop()) is not None
    assert len(store.search((), limit=100)) == 61


def test_concurrent_writers_of_one_key_leave_one_of_their_values(store):
    def write(worker):
        for number in range(20):
            store.batch(
                [PutOp(("a",), key, {"worker": worker, "n": number}) for key in random.Random(worker).sample("klmn", 4)]
            )

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {item.key: item.value["n"] for item in store.search(("a",))} == dict.fromkeys("klmn", 19)


def test_an_async_store_gets_a_blocking_twin(url, clock):
    async def scenario():
        async with perdure.Store(PersistenceConfig(url, pool_size=2), clock=clock) as base:
            async with PerdureStore(base) as store:
                await store.aput(("a",), "k", {"v": 1})
                assert (await store.aget(("a",), "k")).created_at == datetime.fromtimestamp(START_AT / 1e6, UTC)
            async with PerdureStore(base.for_tenant("other")) as other:
                assert await other.asearch(()) == []
            with pytest.raises(Closed):
                store.get(("a",), "k")
            async with base.transaction() as t:
                with pytest.raises(Misused):
                    PerdureStore(t)

    asyncio.run(scenario())


def test_an_async_store_in_memory_is_refused():
    async def scenario():
        async with perdure.open(":memory:") as base:
            with pytest.raises(Misused, match="memory"):
                PerdureStore(base)

    asyncio.run(scenario())
    with pytest.raises(Invalid):
        PerdureStore(42)


def test_an_address_is_opened_and_closed_by_the_store(url):
    with PerdureStore(url) as store:
        store.put(("a",), "k", {"v": 1})
        assert store.get(("a",), "k").value == {"v": 1}
    with pytest.raises(Closed):
        store.get(("a",), "k")


def test_tenants_do_not_see_each_other(base):
    ann, bob = (PerdureStore(base.for_tenant(name)) for name in ("ann", "bob"))
    ann.put(("a",), "k", {"of": "ann"}, ttl=1)
    bob.put(("a",), "k", {"of": "bob"})
    assert ann.get(("a",), "k").value == {"of": "ann"}
    assert [item.value["of"] for item in bob.search(())] == ["bob"]
    bob.delete(("a",), "k")
    assert (bob.list_namespaces(), ann.list_namespaces()) == ([], [("a",)])
    assert PerdureStore(base).search(()) == []


def test_items_commit_with_the_transaction_they_were_put_in(base):
    with pytest.raises(ZeroDivisionError), base.transaction() as t:
        PerdureStore(t).put(("a",), "k", {})
        t.create_conversation("agent", "ann", id="c")
        raise ZeroDivisionError
    assert PerdureStore(base).search(()) == []
    with base.transaction() as t:
        inside = PerdureStore(t)
        inside.setup()
        inside.put(("a",), "k", {})
        assert inside.get(("a",), "k") is not None
        with pytest.raises(Misused):
            PerdureStore(base).get(("a",), "k")
    assert len(PerdureStore(base).search(())) == 1


_WORKER = """
import sys
from perdure.adapters.langgraph import PerdureStore
from langgraph.store.base import PutOp
url, name = sys.argv[1:]
with PerdureStore.from_conn_string(url) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(25):
        store.batch([PutOp(("own", name), f"{number}", {"n": number}), PutOp(("shared",), f"{number}", {"by": name})])
        store.search(("shared",), limit=5)
"""


def test_many_processes_share_a_store(url):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, url, f"{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=120)
        assert worker.returncode == 0
    with PerdureStore.from_conn_string(url) as store:
        assert store.list_namespaces() == [("own", f"{number}") for number in range(4)] + [("shared",)]
        assert len(store.search(("own",), limit=1_000)) == 100
        assert len(store.search(("shared",), limit=1_000)) == 25


# -- in a graph --------------------------------------------------------------------------------------------------------------


class State(TypedDict):
    said: str


def _graph(store):
    def remember(state: State, *, store: BaseStore) -> State:
        store.put(("memories",), "last", {"said": state["said"]})
        return state

    async def recall(state: State, *, store: BaseStore) -> State:
        item = await store.aget(("memories",), "last")
        return {"said": item.value["said"] + "!"}

    graph = StateGraph(State)
    graph.add_node("remember", remember)
    graph.add_node("recall", recall)
    graph.add_edge(START, "remember")
    graph.add_edge("remember", "recall")
    graph.add_edge("recall", END)
    return graph.compile(store=store)


def test_nodes_of_a_graph_remember(store):
    graph = _graph(store)
    for words in ("one", "two"):
        assert asyncio.run(graph.ainvoke({"said": words})) == {"said": words + "!"}
    assert store.get(("memories",), "last").value == {"said": "two"}


def test_without_langgraph_the_extra_is_named():
    code = (
        "import sys; sys.modules['langgraph'] = None; sys.modules['langchain_core'] = None\n"
        "import perdure.adapters.langgraph as adapter\n"
        "assert dir(adapter)\n"
        "try: adapter.PerdureStore\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(MissingExtra.__name__)
    assert "perdure[langgraph]" in done.stdout
    with pytest.raises(AttributeError):
        perdure.adapters.langgraph.Missing  # noqa: B018
