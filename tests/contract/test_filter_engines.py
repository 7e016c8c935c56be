"""A filter means one thing: SQLite and PostgreSQL agree with the plain Python evaluation, row by row."""

import os
import string
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import apsw
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.drivers.postgres import filters as postgres_filters
from perdure.drivers.sqlite import filters as sqlite_filters
from perdure.values.clock import to_datetime, to_micros
from perdure.values.filters import Compare, Contains, Exists, Field, In, Not, Target, evaluate, parse
from perdure.values.tagged import decode, encode

FIELDS = {
    "title": Field("text"),
    "size": Field("integer"),
    "score": Field("number"),
    "seen": Field("time"),
    "done": Field("boolean"),
    "context": Field("json"),
}
COLUMNS = {name: f"r.{name}" for name in FIELDS}
SQLITE_TABLE = """create table r (number integer, title text, size integer, score real, seen integer, done integer,
    context text, metadata text) strict"""
POSTGRES_TABLE = """create temp table r (number integer, title text, size bigint, score float8, seen bigint, done boolean,
    context json, metadata json)"""
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ID = UUID("0190c9f2-7d1e-7b3c-8f00-0123456789ab")


class Engines:
    """Both engines with a table of records, asked the same filters."""

    def __init__(self, postgres_url):
        self.sqlite = apsw.Connection(":memory:")
        self.sqlite.execute(SQLITE_TABLE)
        self.postgres = psycopg.connect(postgres_url, autocommit=True)
        self.postgres.execute(POSTGRES_TABLE)

    def close(self):
        self.sqlite.close()
        self.postgres.close()

    def fill(self, records):
        rows = [(number, *stored(*record)) for number, record in enumerate(records)]
        self.sqlite.execute("delete from r")
        self.sqlite.executemany(f"insert into r values ({', '.join('?' * 8)})", rows)
        self.postgres.execute("truncate r")
        with self.postgres.cursor() as cursor:
            rows = [(*row[:5], None if row[5] is None else bool(row[5]), *row[6:]) for row in rows]
            cursor.executemany(f"insert into r values ({', '.join(['%s'] * 8)})", rows)

    def sqlite_answers(self, trees):
        return self._ask(trees, sqlite_filters.render, "r.metadata", self.sqlite)

    def postgres_answers(self, trees):
        return self._ask(trees, postgres_filters.render, "cast(r.metadata as jsonb)", self.postgres)

    def _ask(self, trees, render, metadata, connection):
        """One row of answers for each record; every answer must be true or false, as NOT needs it."""
        columns = COLUMNS if connection is self.sqlite else {**COLUMNS, "context": "cast(r.context as jsonb)"}
        fragments, params = [], {}
        for number, tree in enumerate(trees):
            fragment, values = render(tree, columns, metadata, f"q{number}_")
            fragments.append(fragment)
            params |= values
        rows = connection.execute(f"select {', '.join(fragments)} from r order by number", params).fetchall()
        assert None not in {answer for row in rows for answer in row}
        return [[bool(answer) for answer in row] for row in rows]


def stored(record, metadata):
    """The columns of a record, as the store writes them."""
    seen, context = record.get("seen"), record.get("context")
    return (
        record.get("title"),
        record.get("size"),
        record.get("score"),
        None if seen is None else to_micros(seen),
        None if record.get("done") is None else int(record["done"]),
        None if context is None else encode(context, "context", 100_000, 64),
        encode(metadata, "metadata", 100_000, 64),
    )


@pytest.fixture(scope="module")
def engines(postgres_url):
    both = Engines(postgres_url)
    yield both
    both.close()


def agree(engines, records, trees):
    engines.fill(records)
    expected = [[evaluate(tree, *record) for tree in trees] for record in records]
    assert engines.sqlite_answers(trees) == expected
    assert engines.postgres_answers(trees) == expected
    return expected


# --- generated filters over generated records

keys = st.sampled_from(
    ["a", "b", "0", "", '"', "\\", "'", "é", "😀", "A", "[0]", "$datetime", "\n", "%s", ":q0_0", "#"]
)
plain_keys = keys.filter(lambda key: not key.startswith("$"))
numbers = st.one_of(
    st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 10**16, 10**18]),
    st.sampled_from([0.0, -0.0, 1.0, 0.1, -1.0, 2.0**53, 2.0**63, 5e-324, 1e16, 1e18, 1e300, -1.5e300, 1e-7]),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
texts = st.one_of(
    st.sampled_from(
        ["", "a", "b", "A", "ab", "é", "e\u0301", "\uffff", "\U0001f600", "1", "true", "null", '"', "\\", "%"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4),
)
times = st.one_of(
    st.sampled_from([NOON, NOON + timedelta(microseconds=1), datetime(1, 1, 1, tzinfo=UTC), NOON.replace(tzinfo=None)]),
    st.integers(-(10**15), 10**15).map(to_datetime),
)
uuids = st.sampled_from([ID, UUID(int=0)])
booleans = st.booleans()
operands = st.one_of(st.none(), booleans, numbers, texts, times, uuids)
leaves = st.one_of(operands, st.sampled_from([Decimal("1.0"), b"a", {"$datetime": to_micros(NOON)}, str(ID)]))
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
records = st.tuples(
    st.fixed_dictionaries(
        {
            "title": st.none() | texts,
            "size": st.none() | st.sampled_from([0, 1, 2**53, 2**53 + 1, 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1),
            "score": st.none()
            | st.sampled_from([0.0, -0.0, 1.0, 0.1])
            | st.floats(allow_nan=False, allow_infinity=False),
            "seen": st.none() | times,
            "done": st.none() | booleans,
            "context": values,
        }
    ),
    st.dictionaries(keys, values, max_size=4) | values,
)


def conditions_on(kind):
    """What may stand under the name of a field of that kind."""
    operand = {
        "text": texts,
        "integer": numbers,
        "number": numbers,
        "time": times,
        "boolean": booleans,
        "json": operands,
    }[kind]
    ordered = {"boolean": None, "json": st.one_of(numbers, texts, times)}.get(kind, operand)
    any_operand = st.none() | operand
    choices = {
        "$eq": any_operand,
        "$ne": any_operand,
        "$in": st.lists(any_operand, max_size=5),
        "$nin": st.lists(any_operand, max_size=5),
        "$exists": booleans,
    }
    if ordered is not None:
        choices |= dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), ordered)
    if kind in ("text", "json"):
        choices["$contains"] = operand
    return any_operand | st.sampled_from(sorted(choices)).flatmap(
        lambda name: st.fixed_dictionaries({name: choices[name]})
    )


paths = st.lists(plain_keys, min_size=1, max_size=3).map(".".join).filter(lambda name: name not in FIELDS)
clauses = st.one_of(
    st.sampled_from(sorted(FIELDS)).flatmap(
        lambda name: st.dictionaries(st.just(name), conditions_on(FIELDS[name].kind), min_size=1)
    ),
    st.dictionaries(paths, conditions_on("json"), min_size=1, max_size=2),
    st.dictionaries(
        st.lists(keys, min_size=1, max_size=3).map(lambda path: "metadata." + ".".join(path)),
        conditions_on("json"),
        min_size=1,
    ),
    st.dictionaries(keys.map(lambda key: f"context.{key}"), conditions_on("json"), min_size=1),
)
callers_filters = st.recursive(
    clauses,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
    ),
    max_leaves=4,
)


@settings(max_examples=int(os.environ.get("FILTER_EXAMPLES", "150")), deadline=None, derandomize=True, database=None)
@given(rows=st.lists(records, min_size=1, max_size=8), filters=st.lists(callers_filters, min_size=1, max_size=12))
def test_both_engines_agree_with_the_plain_evaluation(engines, rows, filters):
    agree(engines, rows, [parse(one, FIELDS) for one in filters])


def test_every_pair_of_operands_compares_alike(engines):
    """All values against all operands under all operators: what sampling might miss."""
    interesting = [
        *(None, True, False, 0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 10**16),
        *(0.0, -0.0, 1.0, 0.1, 2.0**53, 2.0**63, -(2.0**63), 5e-324, 1e16, 1e300, 1.7976931348623157e308),
        *("", "0", "1", "true", "null", "a", "A", "\uffff", "\U00010000", '"', str(ID)),
        *(NOON, NOON + timedelta(microseconds=1), ID),
    ]
    orders = [value for value in interesting if not (value is None or isinstance(value, (bool, UUID)))]
    filters = [{"v": {name: value}} for name in ("$eq", "$ne", "$contains") for value in interesting]
    filters += [{"v": {name: value}} for name in ("$gt", "$gte", "$lt", "$lte") for value in orders]
    filters += [{"v": {"$in": interesting[start : start + 9]}} for start in range(0, len(interesting), 5)]
    extra = [Decimal(1), b"1", {}, [], {"$datetime": to_micros(NOON)}, interesting, [[1]], {"a": 1}, "a\nb"]
    rows = [({}, {"v": value}) for value in (*interesting, *extra)] + [({}, {}), ({}, None), ({}, [1])]
    trees = [parse(one, FIELDS) for one in filters]
    for start in range(0, len(trees), 50):
        agree(engines, rows, trees[start : start + 50])


# --- the traps, one by one


def matches(engines, values, condition):
    """Which of the values, each under the key "v" of a record's metadata, match."""
    answers = agree(engines, [({}, {"v": value}) for value in values], [parse({"v": condition}, FIELDS)])
    return [value for value, (answer,) in zip(values, answers, strict=True) if answer]


def same(left, right):
    """Equal and of the same types: True is not 1 here."""
    return repr(left) == repr(right)


def test_booleans_are_not_numbers(engines):
    everything = [True, False, 1, 0, 1.0, "true"]
    assert same(matches(engines, everything, True), [True])
    assert same(matches(engines, everything, 1), [1, 1.0])
    assert same(matches(engines, everything, {"$in": [False, 1.0]}), [False, 1, 1.0])
    assert same(matches(engines, everything, {"$gte": 0}), [1, 0, 1.0])


def test_integers_compare_exactly_and_others_as_doubles(engines):
    near = [2**53, 2**53 + 1, 2.0**53]
    assert same(matches(engines, near, 2**53 + 1), [2**53 + 1, 2.0**53])
    assert same(matches(engines, near, 2.0**53), near)
    assert same(matches(engines, near, {"$gt": 2**53}), [2**53 + 1])
    assert same(matches(engines, [2**63 - 1, 2**63 - 2], 2**63 - 1), [2**63 - 1])
    assert same(matches(engines, [2**63 - 1, 2**63 - 2], 2.0**63), [2**63 - 1, 2**63 - 2])
    assert same(matches(engines, [-(2**63)], {"$lte": -(2**63)}), [-(2**63)])


def test_big_floats_stay_floats(engines):
    """A number like 1e16 must not turn into an integer on its way through jsonb."""
    assert matches(engines, [1e16, 1e300], {"$eq": 10**16 + 1}) == [1e16]
    assert matches(engines, [1e16, 1e300], {"$gt": 1e299}) == [1e300]


def test_the_last_bit_of_a_double_counts(engines):
    near = [0.1, 0.1 + 2**-56, 5e-324, 1.7976931348623157e308]
    for value in near:
        assert matches(engines, near, value) == [value]


def test_zeros_are_equal(engines):
    assert matches(engines, [0, 0.0, -0.0], {"$in": [-0.0, 7.5]}) == [0, 0.0, -0.0]
    assert agree(engines, [({"score": -0.0}, {})], [parse({"score": 0}, FIELDS)]) == [[True]]


def test_text_is_ordered_by_code_point(engines):
    assert matches(engines, ["Z", "a", "é", "\uffff", "\U0001f600"], {"$gt": "a"}) == ["é", "\uffff", "\U0001f600"]
    assert matches(engines, ["\uffff", "\U0001f600"], {"$gt": "\uffff"}) == ["\U0001f600"]
    rows = [({"title": title}, {}) for title in ("Z", "a", "\uffff", "\U0001f600")]
    assert agree(engines, rows, [parse({"title": {"$lte": "\uffff"}}, FIELDS)]) == [[True], [True], [True], [False]]


def test_order_does_not_hang_on_the_collation_of_a_database():
    """A server may sort "a" before "B"; the one of the tests does not, so this looks at the SQL."""
    for name in ("title", "v"):
        sql, _ = postgres_filters.render(parse({name: {"$gt": "a"}}, FIELDS), COLUMNS, "r.metadata")
        assert 'COLLATE "C"' in sql


def test_null_and_absent_differ_in_metadata(engines):
    rows = [({}, {"v": None}), ({}, {}), ({}, {"v": 0}), ({}, None)]
    trees = [parse({"v": c}, FIELDS) for c in (None, {"$exists": True}, {"$ne": None}, {"$nin": [None]}, {"$ne": 0})]
    assert agree(engines, rows, trees) == [
        [True, True, False, False, True],
        [False, False, True, True, True],
        [False, True, True, True, False],
        [False, False, True, True, True],
    ]


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_null_column_is_absent_and_equals_none(engines, name):
    operand = {"text": "a", "integer": 1, "number": 1.5, "time": NOON, "boolean": True, "json": 1}[FIELDS[name].kind]
    conditions = [None, {"$exists": True}, {"$in": [None, operand]}, operand, {"$ne": operand}, {"$nin": [operand]}]
    trees = [parse({name: condition}, FIELDS) for condition in conditions]
    rows = [({name: None}, {}), ({name: operand}, {})]
    expected = [[True, False, True, False, True, True], [False, True, True, True, False, False]]
    assert agree(engines, rows, [*trees, *map(Not, trees)]) == [[*row, *(not one for one in row)] for row in expected]


def test_any_key_can_be_named(engines):
    """Quotes, dots, dollars, the empty key: each finds its own value and no other."""
    odd = ["", ".", "a.b", "a", '"', 'a"b', "\\", '\\"', "$", "$x", "$$x", "$datetime", "'", "[0]", "0", "#", "é", "😀"]
    odd += ["\n", "\x01", "\x7f", "\u2028", "%", "%s", "%(f0)s", ":f0", "?", "null", "a\\u0062", *string.punctuation]
    odd = list(dict.fromkeys(odd))
    metadata = {key: {key: number} for number, key in enumerate(odd)}
    trees = [Compare(Target(None, "json", (key, key)), "eq", number) for number, key in enumerate(odd)]
    assert agree(engines, [({}, metadata)], trees) == [[True] * len(odd)]
    rows = [({}, {key: key}) for key in odd]
    found = agree(engines, rows, [Exists(Target(None, "json", (key,))) for key in odd])
    assert found == [[row == column for column in range(len(odd))] for row in range(len(odd))]


def test_paths_step_through_objects_only(engines):
    rows = [({}, {"a": [5]}), ({}, {"a": {"0": 5}}), ({}, {"a": "5"}), ({}, [5]), ({}, {"a": [{"0": 5}]})]
    assert agree(engines, rows, [parse({"a.0": 5}, FIELDS)]) == [[False], [True], [False], [False], [False]]


def test_times_match_whatever_their_zone(engines):
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5)))
    naive = NOON.replace(tzinfo=None)
    assert len(matches(engines, [NOON, elsewhere, naive, NOON.isoformat(), to_micros(NOON)], elsewhere)) == 3
    assert matches(engines, [NOON, NOON + timedelta(microseconds=1)], {"$gt": NOON}) == [
        NOON + timedelta(microseconds=1)
    ]
    assert matches(engines, [[NOON], [ID], [str(ID)]], {"$contains": NOON}) == [[NOON]]


def test_what_looks_like_a_tag_is_no_time(engines):
    impostor = {"$datetime": to_micros(NOON)}
    assert matches(engines, [impostor, NOON], NOON) == [NOON]
    rows = [({}, {"v": impostor}), ({}, {"v": NOON})]
    assert agree(engines, rows, [parse({"metadata.v.$datetime": to_micros(NOON)}, FIELDS)]) == [[True], [False]]


def test_uuids_are_not_their_text(engines):
    assert matches(engines, [ID, str(ID), [ID]], ID) == [ID]
    assert matches(engines, [ID, str(ID)], {"$in": [str(ID), 3]}) == [str(ID)]


def test_decimals_and_bytes_only_exist(engines):
    held = [Decimal("1.0"), b"a"]
    assert matches(engines, held, {"$exists": True}) == held
    assert matches(engines, held, {"$in": [1, 1.0, "1.0", "a", "YQ=="]}) == []


def test_contains_asks_lists_for_elements_and_text_for_parts(engines):
    held = [["ab"], "cabc", ["xaby"], {"ab": 1}, [["ab"]], "AB", 5, []]
    assert matches(engines, held, {"$contains": "ab"}) == [["ab"], "cabc"]
    assert same(matches(engines, [[1], [1.0], [True], ["1"], "1", [None]], {"$contains": 1}), [[1], [1.0]])
    assert matches(engines, [[None], None, []], {"$contains": None}) == [[None]]
    assert matches(engines, ["", "a", [""], []], {"$contains": ""}) == ["", "a", [""]]
    rows = [({"title": title}, {}) for title in ("100%", "100", "é%", None)]
    assert agree(engines, rows, [parse({"title": {"$contains": "%"}}, FIELDS)]) == [[True], [False], [True], [False]]


def test_an_empty_list_of_values_matches_nothing(engines):
    trees = [parse({name: {op: []}}, FIELDS) for name in ("v", "title") for op in ("$in", "$nin")]
    assert agree(engines, [({"title": "x"}, {"v": 1}), ({}, {})], trees) == [[False, True, False, True]] * 2


def test_an_empty_filter_matches_everything(engines):
    assert (
        agree(engines, [({}, {}), ({}, None)], [parse({}, FIELDS), parse({"$not": {}}, FIELDS)]) == [[True, False]] * 2
    )


def test_the_largest_filter_runs(engines):
    """Limits mean something only when both engines can still take what is within them."""
    deep = {f"{'k.' * 62}{number}": {"$nin": list(range(1_000))} for number in range(200)}
    wide = {"$or": [{"x": {"$gt": number}} for number in range(30)]}
    for number in range(14):
        wide = {"$or": [wide, {"size": number}]} if number % 2 else {"$not": wide}
    trees = [parse(deep, FIELDS), parse(wide, FIELDS), parse({f"v{n}": {"$contains": "x"} for n in range(256)}, FIELDS)]
    agree(engines, [({}, {"v": 1}), ({"size": 3}, {"x": 29})], trees)


def test_text_of_callers_never_reaches_the_sql():
    hostile = "x'); drop table r; --"
    target = Target(None, "json", (hostile,))
    for render in (sqlite_filters.render, postgres_filters.render):
        for tree in (
            Compare(target, "gt", hostile),
            In(target, (hostile, "y")),
            Contains(target, hostile),
            Exists(target),
        ):
            sql, params = render(tree, COLUMNS, "r.metadata")
            assert "drop" not in sql
            assert any("drop" in str(value) for value in params.values())


def test_metadata_comes_back_from_both_engines_as_it_was(engines):
    metadata = {"n": 1e300, "z": -0.0, "$k": [NOON, ID, Decimal("1.50"), b"\0"], "b": 2, "a": 1}
    engines.fill([({}, metadata)])
    (kept,) = engines.sqlite.execute("select metadata from r").fetchone()
    (also,) = engines.postgres.execute("select metadata::text from r").fetchone()
    assert repr(decode(kept)) == repr(decode(also)) == repr(metadata)
