"""What callers may write as a filter, what it means, and how a wrong one is refused."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from perdure.values.clock import to_micros
from perdure.values.errors import Invalid, OverLimit
from perdure.values.filters import And, Compare, Contains, Exists, Field, In, Not, Or, Target, evaluate, parse

FIELDS = {
    "title": Field("text"),
    "size": Field("integer"),
    "score": Field("number"),
    "seen": Field("time"),
    "done": Field("boolean"),
    "context": Field("json"),
}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
V = Target(None, "json", ("v",))


def holds(filters, record=None, metadata=None):
    return evaluate(parse(filters, FIELDS), record or {}, {} if metadata is None else metadata)


@pytest.mark.parametrize(
    ("written", "tree"),
    [
        ({"v": 5}, Compare(V, "eq", 5)),
        ({"v": {"$eq": None}}, Compare(V, "eq", None)),
        ({"v": {"$ne": "x"}}, Not(Compare(V, "eq", "x"))),
        ({"v": {"$gt": 1, "$lte": 9.5}}, And((Compare(V, "gt", 1), Compare(V, "lte", 9.5)))),
        ({"v": {"$in": [1, None]}}, In(V, (1, None))),
        ({"v": {"$nin": ("a",)}}, Not(In(V, ("a",)))),
        ({"v": {"$exists": True}}, Exists(V)),
        ({"v": {"$exists": False}}, Not(Exists(V))),
        ({"v": {"$contains": True}}, Contains(V, True)),
        ({"$or": [{"v": 1}, {"v": 2}]}, Or((Compare(V, "eq", 1), Compare(V, "eq", 2)))),
        ({"$and": [{"v": 1}]}, And((Compare(V, "eq", 1),))),
        ({"$not": {"v": 1}}, Not(Compare(V, "eq", 1))),
        ({"v": 1, "$not": {}}, And((Compare(V, "eq", 1), Not(And(()))))),
        ({}, And(())),
    ],
)
def test_each_form_has_its_tree(written, tree):
    assert parse(written, FIELDS) == tree


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("size", Target("size", "integer")),
        ("metadata.size", Target(None, "json", ("size",))),
        ("metadata", Target(None, "json", ("metadata",))),
        ("metadata.", Target(None, "json", ("",))),
        ("metadata.$x.y", Target(None, "json", ("$x", "y"))),
        ("size.x", Target(None, "json", ("size", "x"))),
        ("context", Target("context", "json")),
        ("context.a.b", Target("context", "json", ("a", "b"))),
        ("other.context", Target(None, "json", ("other", "context"))),
        ("a..b", Target(None, "json", ("a", "", "b"))),
        ("", Target(None, "json", ("",))),
    ],
)
def test_a_name_is_a_field_or_a_path_of_metadata(name, target):
    assert parse({name: {"$exists": True}}, FIELDS) == Exists(target)


def test_times_of_a_field_are_read_as_microseconds():
    for written in (NOON, NOON.isoformat(), NOON.replace(tzinfo=None)):
        assert parse({"seen": written}, FIELDS) == Compare(Target("seen", "time"), "eq", to_micros(NOON))


def test_operands_of_a_number_field_are_doubles():
    assert repr(parse({"score": {"$in": [1, 2**53 + 1]}}, FIELDS).values) == repr((1.0, 2.0**53))


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ([], "filters"),
        (None, "filters"),
        ({5: 1}, "filters"),
        ({"$gt": 1}, "filters.$gt"),
        ({"$nor": [{}]}, "filters.$nor"),
        ({"$or": []}, "filters.$or"),
        ({"$and": []}, "filters.$and"),
        ({"$or": {"v": 1}}, "filters.$or"),
        ({"$or": [{"v": 1}, 5]}, "filters.$or[1]"),
        ({"$not": [{"v": 1}]}, "filters.$not"),
        ({"v": {}}, "filters.v"),
        ({"v": {"x": 1}}, "filters.v.x"),
        ({"v": {"$gt": 1, "x": 1}}, "filters.v.x"),
        ({"v": {"$like": 1}}, "filters.v.$like"),
        ({"v": {"$not": {"$gt": 1}}}, "filters.v.$not"),
        ({"v": {5: 1}}, "filters.v.5"),
        ({"v": [1]}, "filters.v"),
        ({"v": {"$eq": {"a": 1}}}, "filters.v.$eq"),
        ({"v": {"$gt": None}}, "filters.v.$gt"),
        ({"v": {"$lt": True}}, "filters.v.$lt"),
        ({"v": {"$lte": UUID(int=1)}}, "filters.v.$lte"),
        ({"v": float("nan")}, "filters.v"),
        ({"v": 2**63}, "filters.v"),
        ({"v": "nul\0"}, "filters.v"),
        ({"v": "\ud800"}, "filters.v"),
        ({"v\0": 1}, "filters"),
        ({"v": b"x"}, "filters.v"),
        ({"v": {"$in": "abc"}}, "filters.v.$in"),
        ({"v": {"$in": {"a": 1}}}, "filters.v.$in"),
        ({"v": {"$nin": [1, [2]]}}, "filters.v.$nin[1]"),
        ({"v": {"$exists": 1}}, "filters.v.$exists"),
        ({"v": {"$contains": [1]}}, "filters.v.$contains"),
        ({"title": 5}, "filters.title"),
        ({"title": {"$contains": None}}, "filters.title.$contains"),
        ({"size": "5"}, "filters.size"),
        ({"size": True}, "filters.size"),
        ({"size": {"$gt": None}}, "filters.size.$gt"),
        ({"size": {"$contains": 5}}, "filters.size.$contains"),
        ({"score": float("inf")}, "filters.score"),
        ({"seen": 5}, "filters.seen"),
        ({"seen": "soon"}, "filters.seen"),
        ({"done": 1}, "filters.done"),
        ({"done": {"$gt": False}}, "filters.done.$gt"),
        ({"$or": [{}, {"age": {"$gt": []}}]}, "filters.$or[1].age.$gt"),
    ],
)
def test_what_is_not_of_the_algebra_is_refused_with_its_place(written, place):
    with pytest.raises(Invalid) as caught:
        parse(written, FIELDS)
    assert caught.value.field == place
    assert not isinstance(caught.value, OverLimit)


def test_a_refusal_names_the_operators_and_the_callers_own_field():
    with pytest.raises(Invalid, match=r"query\.context\.v\.\$regex is none of \$eq, \$ne") as caught:
        parse({"v": {"$regex": "x"}}, FIELDS, "query.context")
    assert caught.value.field == "query.context.v.$regex"


@pytest.mark.parametrize("filters", [{"v": Decimal(1)}, {"size": {"$in": [Decimal(1)]}}])
def test_decimals_are_refused_with_advice(filters):
    with pytest.raises(Invalid, match="Decimals cannot be compared"):
        parse(filters, FIELDS)


def nested(levels):
    filters = {"v": 1}
    for _ in range(levels - 1):
        filters = {"$not": filters}
    return filters


@pytest.mark.parametrize(
    ("within", "beyond", "limit"),
    [
        (nested(16), nested(17), 16),
        ({f"v{n}": 1 for n in range(256)}, {f"v{n}": 1 for n in range(257)}, 256),
        ({"$or": [{}] * 256}, {"$or": [{}] * 257}, 256),
        ({"v": {"$in": list(range(1_000))}}, {"v": {"$in": list(range(1_001))}}, 1_000),
        ({"metadata" + ".k" * 64: 1}, {"metadata" + ".k" * 65: 1}, 64),
        ({"k" + ".k" * 63: 1}, {"k" + ".k" * 64: 1}, 64),
    ],
)
def test_each_limit_holds_to_the_last(within, beyond, limit):
    parse(within, FIELDS)
    with pytest.raises(OverLimit) as caught:
        parse(beyond, FIELDS)
    assert caught.value.details["limit"] == limit


def test_a_filter_that_holds_itself_is_refused():
    filters = {}
    filters["$not"] = filters
    with pytest.raises(OverLimit):
        parse(filters, FIELDS)


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        (1, 1.0, True),
        (1, True, False),
        (True, 1, False),
        (2**53 + 1, 2**53, False),
        (2**53 + 1, 2.0**53, True),
        ("1", 1, False),
        (NOON, NOON.isoformat(), False),
        (NOON, NOON.replace(tzinfo=None), True),
        (UUID(int=1), UUID(int=1), True),
        (UUID(int=1), str(UUID(int=1)), False),
        ({"$ne": 1}, "1", True),
        ({"$gt": "a"}, 5, False),
        ({"$gt": "\uffff"}, "\U0001f600", True),
        ({"$contains": 1}, [True, "1"], False),
        ({"$contains": 1}, (1.0,), True),
        ({"$contains": "b"}, "abc", True),
        ({"$contains": "b"}, {"b": 1}, False),
        ({"$in": []}, None, False),
        ({"$nin": []}, None, True),
        ({"$exists": True}, None, True),
        (None, None, True),
        (1, Decimal(1), False),
    ],
)
def test_conditions_on_metadata(condition, value, expected):
    assert holds({"v": condition}, metadata={"v": value}) is expected
    assert holds({"$not": {"v": condition}}, metadata={"v": value}) is not expected


def test_an_absent_key_is_not_null():
    assert not holds({"v": None})
    assert holds({"v": {"$exists": False}})
    assert holds({"v": {"$ne": 1, "$nin": [None]}})


def test_a_field_that_is_none_is_absent_and_equals_none():
    for record in ({}, {"title": None, "context": None}):
        for name in ("title", "context"):
            assert holds({name: None}, record)
            assert holds({name: {"$exists": False}}, record)
            assert not holds({name: {"$ne": None}}, record)


def test_a_record_may_hold_its_times_either_way():
    for seen in (NOON, to_micros(NOON)):
        assert holds({"seen": {"$gte": NOON.isoformat(), "$lt": "2026-01-02"}}, {"seen": seen})
