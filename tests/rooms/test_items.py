"""Items without a database: how namespaces are written, what filters mean, how near vectors are."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.rooms.items import values, vectors
from perdure.rooms.items.matching import matcher
from perdure.rooms.items.values import Condition, Put
from perdure.values.errors import Invalid, OverLimit, Undecodable
from perdure.values.filters import evaluate

LABELS = st.lists(
    st.text(st.sampled_from("\x01\x02\x03 .!ab*\U0010ffff"), min_size=1, max_size=4), min_size=1, max_size=4
)


@given(LABELS.map(tuple), LABELS.map(tuple))
def test_a_namespace_is_text_that_sorts_as_its_labels_do(one, other):
    """And is read back as it was given."""
    texts = values.namespace_text(one), values.namespace_text(other)
    assert (texts[0] < texts[1]) is (one < other)
    assert (values.namespace_of(texts[0]), values.namespace_of(texts[1])) == (one, other)


@given(LABELS.map(tuple), LABELS.map(tuple))
def test_a_range_holds_the_namespaces_under_a_prefix_and_no_other(prefix, namespace):
    span = values.range_of(values.namespace_text(prefix))
    text = values.namespace_text(namespace)
    assert (span.after < text and (span.high is None or text < span.high)) is (namespace[: len(prefix)] == prefix)


def test_the_range_of_no_prefix_holds_everything():
    span = values.range_of("")
    assert (span.after, span.high) == ("", None)
    assert values.namespace_text(("\x01",)) > span.after


@pytest.mark.parametrize("namespace", ["text", ("a", ""), ("a", 1), ("\0",), ("\ud800",), 5])
def test_what_is_no_namespace_is_invalid(namespace):
    with pytest.raises(Invalid):
        values.namespace_text(namespace)


def test_a_namespace_has_a_limit():
    assert values.namespace_text(("x" * 1_023,))
    with pytest.raises(OverLimit):
        values.namespace_text(("x" * 1_024,))


def test_a_damaged_namespace_is_told():
    with pytest.raises(Undecodable):
        values.namespace_of("no end")


@pytest.mark.parametrize(
    ("path", "end", "holds"),
    [
        (("a",), "prefix", True), (("a", "*"), "prefix", True), (("*", "b"), "prefix", True), (("b",), "prefix", False),
        (("c",), "suffix", True), (("*", "c"), "suffix", True), (("a", "*", "c"), "suffix", True),
        (("a", "b", "c", "*"), "prefix", False), (("b",), "suffix", False), ((), "suffix", True), ((), "prefix", True),
    ],
)  # fmt: skip
def test_a_condition_is_about_whole_labels(path, end, holds):
    assert Condition(end, path).holds(("a", "b", "c")) is holds


@pytest.mark.parametrize("minutes", [-1, float("nan"), float("inf"), "1", True, 10**9])
def test_what_is_no_life_is_refused(minutes):
    with pytest.raises(Invalid):
        values.lifetime_of(minutes)


def test_a_life_may_be_a_fraction_of_a_minute():
    assert values.lifetime_of(1 / 60) == 1_000_000
    assert values.lifetime_of(0) == 0
    assert values.lifetime_of(None) is None


@pytest.mark.parametrize(
    "value", [[], "x", 1, {1: 2}, {"a": {1, 2}}, {"a": float("nan")}, {"a": object()}, {"a": 2**63}]
)
def test_what_is_no_value_is_invalid(value):
    with pytest.raises(Invalid):
        values.entry_of(Put(("a",), "k", value))


# -- filters -----------------------------------------------------------------------------------------------------------------

VALUE = {
    "s": "text", "n": 3, "f": 2.5, "b": True, "none": None, "list": ["a", {"x": 1}], "o": {"p": {"q": 1}, "r": "s"},
    "a.b": "literal", "a": {"b": "path"}, "d": {"e": "path"}, "at": datetime(2026, 1, 1, tzinfo=UTC),
    "id": UUID(int=1), "price": Decimal("1.5"), "empty": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        (None, True), ({}, True),
        ({"s": "text"}, True), ({"s": "tex"}, False), ({"missing": "x"}, False),
        ({"n": 3}, True), ({"n": 3.0}, True), ({"n": "3"}, False), ({"n": True}, False), ({"b": 1}, False), ({"b": True}, True),
        ({"none": None}, True), ({"missing": None}, True), ({"s": None}, False),
        ({"list": ["a", {"x": 1}]}, True), ({"list": ["a"]}, False), ({"list": ["a", {}]}, True), ({"list": "a"}, False),
        ({"o": {"r": "s"}}, True), ({"o": {"p": {"q": 1}}}, True), ({"o": {"p": {"q": 2}}}, False), ({"o": {"z": None}}, True),
        ({"s": {"z": None}}, False), ({"o": {}}, True), ({"s": {}}, False), ({"o": {"r": {"$ne": "x"}}}, True),
        ({"a.b": "literal"}, True), ({"a.b": "path"}, False), ({"d.e": "path"}, True), ({"o.p.q": {"$gte": 1}}, True),
        ({"o.none.q": None}, True), ({"s.x": 1}, False),
        ({"n": {"$eq": 3}}, True), ({"n": {"$ne": 3}}, False), ({"missing": {"$ne": 3}}, True), ({"none": {"$ne": None}}, False),
        ({"n": {"$gt": 2, "$lt": 4}}, True), ({"n": {"$gt": 3}}, False), ({"n": {"$gte": 3}}, True), ({"n": {"$lte": 2}}, False),
        ({"missing": {"$gt": 0}}, False), ({"none": {"$lt": 0}}, False), ({"s": {"$gt": 1}}, False), ({"s": {"$gt": "a"}}, True),
        ({"n": {"$lt": float("inf")}}, True), ({"n": {"$gt": float("-inf")}}, True), ({"n": {"$lt": 10**400}}, True),
        ({"f": {"$lt": 10**400}}, True), ({"f": {"$gt": 10**400}}, False), ({"f": {"$gt": -(10**400)}}, True),
        ({"n": {"$eq": float("nan")}}, False), ({"n": {"$ne": float("nan")}}, True), ({"n": {"$gt": float("nan")}}, False),
        ({"o": {"$eq": {"r": "s"}}}, False), ({"o": {"$eq": {"p": {"q": 1}, "r": "s"}}}, True), ({"empty": {"$eq": {}}}, True),
        ({"list": {"$ne": ["a"]}}, True), ({"s": "a\0"}, False), ({"s": {"$ne": "\ud800"}}, True), ({"s\0": "x"}, False),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, True), ({"at": {"$gt": datetime(2025, 1, 1, tzinfo=UTC)}}, True),
        ({"id": UUID(int=1)}, True), ({"price": Decimal("1.5")}, True), ({"price": 1.5}, False),
    ],
)  # fmt: skip
def test_a_filter_means(filters, matches):
    """The engine's part of it lets through whatever matches, and nothing else where it says so."""
    matching = matcher(filters)
    assert matching.test(VALUE) is matches
    narrowed = matching.narrow is None or evaluate(matching.narrow, {}, VALUE)
    assert narrowed or not matches
    if matching.exact:
        assert narrowed is matches


@pytest.mark.parametrize(
    "filters",
    [
        "text", [], {1: 2}, {"$or": []}, {"a": {"$in": [1]}}, {"a": {"$gt": None}}, {"a": {"$gt": True}}, {"a": {"$gt": []}},
        {"a": {"$gt": 1, "b": 2}}, {"a": {1: 2}}, {"a": list(range(300))},
    ],
)  # fmt: skip
def test_what_is_no_filter_is_invalid(filters):
    with pytest.raises(Invalid):
        matcher(filters)


def test_a_filter_that_is_nested_without_end_is_over_the_limit():
    filters = {}
    for _ in range(40):
        filters = {"a": filters}
    with pytest.raises(OverLimit):
        matcher(filters)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.5, 1.0, float("inf"), float("nan"), "", "a", "1", "a\0", 10**30])
)
OPERANDS = st.recursive(
    SCALARS | st.dictionaries(st.sampled_from(["$eq", "$ne"]), SCALARS, min_size=1)
    | st.dictionaries(st.sampled_from(["$gt", "$lte"]), st.sampled_from([0, 0.5, "a", float("inf"), 10**30]), min_size=1),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
FILTERS = st.dictionaries(st.sampled_from(["a", "b", "a.b", "b.a.a"]), OPERANDS, max_size=3)
STORED = st.dictionaries(
    st.sampled_from(["a", "b", "a.b"]),
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, "", "a", "1"]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=2),
        max_leaves=5,
    ),
    max_size=3,
)  # fmt: skip


@given(FILTERS, STORED)
def test_the_engines_part_of_a_filter_never_hides_what_matches(filters, value):
    """Nor lets through what does not, where it is the whole filter."""
    matching = matcher(filters)
    narrowed = matching.narrow is None or evaluate(matching.narrow, {}, value)
    assert narrowed or not matching.test(value)
    if matching.exact:
        assert narrowed is matching.test(value)


# -- vectors -----------------------------------------------------------------------------------------------------------------

NUMBERS = st.floats(-100, 100, width=32)
MATRICES = st.integers(1, 5).flatmap(
    lambda size: st.tuples(
        st.lists(NUMBERS, min_size=size, max_size=size),
        st.lists(st.lists(NUMBERS, min_size=size, max_size=size), max_size=5),
    )
)


@given(MATRICES)
def test_numpy_and_plain_python_agree(case):
    wanted, rows = case
    size = len(wanted)
    query = vectors.pack(wanted, size, "v")
    stored = [vectors.pack(row, size, "v") for row in rows]
    expected = vectors.by_hand(query)(stored)
    assert vectors.in_bulk(query, np)(stored) == pytest.approx(expected, abs=1e-9)
    assert all(-1.000001 <= score <= 1.000001 for score in expected)


def test_a_cosine_is_of_directions():
    query = vectors.pack([1, 0], 2, "v")
    stored = [vectors.pack(row, 2, "v") for row in ([5, 0], [0, 3], [-1, 0], [1, 1], [0, 0])]
    assert vectors.cosine(query)(stored) == pytest.approx([1, 0, -1, math.sqrt(0.5), 0])


def test_equal_vectors_have_equal_scores_wherever_they_stand():
    row = [0.1 * n for n in range(37)]
    query = vectors.pack([math.sin(n) for n in range(37)], 37, "v")
    scores = vectors.in_bulk(query, np)([vectors.pack(row, 37, "v")] * 17)
    assert len(set(scores)) == 1


@pytest.mark.parametrize("vector", [[1], [1, 2, 3], [1, "x"], [1, float("nan")], [1, 1e39], [1, None]])
def test_what_is_no_vector_is_invalid(vector):
    with pytest.raises(Invalid):
        vectors.pack(vector, 2, "v")


@pytest.mark.parametrize("scorer", [vectors.by_hand, lambda query: vectors.in_bulk(query, np)])
@pytest.mark.parametrize("damaged", [b"", b"abc", b"\0" * 12])
def test_a_damaged_vector_is_told(scorer, damaged):
    query = vectors.pack([1, 2], 2, "v")
    with pytest.raises(Undecodable):
        scorer(query)([query, damaged])
