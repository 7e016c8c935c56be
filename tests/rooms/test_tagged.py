"""Metadata comes back as it was given, or is refused with the place that cannot be stored."""

import enum
import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.values.errors import Invalid, OverLimit, Undecodable
from perdure.values.tagged import decode, encode

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
keys = texts | st.sampled_from(["$", "$$", "$datetime", "$$uuid", "$uuid", "$decimal", "$bytes", "a"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e15, 9999999999999998.0, 1e16, -1e16, 1e22, -0.0, 5e-324, 1.7976931348623157e308]),
    texts | keys,
    st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(fold=0)),
    st.uuids(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.binary(max_size=8),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


def kept(value):
    return decode(encode(value, "metadata", 100_000, 64))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(values)
def test_every_value_comes_back_exactly(value):
    """By repr, which tells True from 1, 1 from 1.0, -0.0 from 0.0 and Decimal("1.50") from Decimal("1.5")."""
    assert repr(kept(value)) == repr(value)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(values)
def test_big_floats_never_look_like_integers_in_jsonb(value):
    """Spelled out as decimals, as jsonb does it, each float still has a point."""

    def as_jsonb(number):
        return json.loads(f"{Decimal(number):f}")

    text = encode(value, "metadata", 100_000, 64)
    assert repr(json.loads(text, parse_float=as_jsonb)) == repr(json.loads(text))


def test_plain_values_are_compact_json():
    value = {"a": [1, 2.5, "é", None, True], "b": {}}
    assert encode(value, "metadata", 1_000, 8) == '{"a":[1,2.5,"é",null,true],"b":{}}'


def test_special_values_are_tagged():
    value = {
        "when": NOON,
        "who": UUID("0190c9f2-7d1e-7b3c-8f00-0123456789ab"),
        "price": Decimal("1.50"),
        "raw": b"\x00\xff",
    }
    assert json.loads(encode(value, "metadata", 1_000, 8)) == {
        "when": {"$datetime": 1767268800000000},
        "who": {"$uuid": "0190c9f2-7d1e-7b3c-8f00-0123456789ab"},
        "price": {"$decimal": "1.50"},
        "raw": {"$bytes": "AP8="},
    }


def test_datetimes_come_back_in_utc():
    assert repr(kept([NOON.astimezone(timezone(timedelta(hours=-7)))])) == repr([NOON])
    assert repr(kept(NOON.replace(tzinfo=None))) == repr(NOON)


def test_tuples_come_back_as_lists():
    assert kept({"a": (1, (NOON, "x"))}) == {"a": [1, [NOON, "x"]]}


def test_subclasses_come_back_as_their_base():
    class Colour(enum.StrEnum):
        RED = "red"

    class Size(enum.IntEnum):
        BIG = 3

    value = kept({Colour.RED: Colour.RED, "size": Size.BIG})
    assert value == {"red": "red", "size": 3}
    assert {type(item) for item in (*value, *value.values())} == {str, int}


@pytest.mark.parametrize(
    "value",
    [
        {"$datetime": 5},
        {"$uuid": "x"},
        {"$": 1},
        {"$$datetime": NOON},
        {"$datetime": {"$datetime": 1}},
        ["$datetime", "\\u0000"],
    ],
)
def test_keys_that_look_like_tags_come_back(value):
    assert kept(value) == value


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (math.nan, "metadata"),
        ({"a": [0, math.inf]}, "metadata.a[1]"),
        ({"a": -math.inf, "b": NOON}, "metadata.a"),
        (2**63, "metadata"),
        ([-(2**63) - 1], "metadata[0]"),
        (["nul\0"], "metadata[0]"),
        ({"a": {"nul\0": 1}}, "metadata.a"),
        ({"a": "\ud800"}, "metadata.a"),
        ({"\udfff": 1}, "metadata"),
        ({1: "x"}, "metadata"),
        ({"a": {None: "x"}}, "metadata.a"),
        ({"a": Decimal("NaN")}, "metadata.a"),
        ({"a": Decimal("-Infinity")}, "metadata.a"),
        ({"a": {1, 2}}, "metadata.a"),
        ({"a": object()}, "metadata.a"),
        ([date(2026, 1, 1)], "metadata[0]"),
        ([bytearray(b"x")], "metadata[0]"),
        ([datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))], "metadata[0]"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_place(value, place):
    with pytest.raises(Invalid) as caught:
        encode(value, "metadata", 1_000, 8)
    assert not isinstance(caught.value, OverLimit)
    assert caught.value.field == place


@pytest.mark.parametrize("special", [None, NOON])
def test_the_limit_counts_bytes_of_json(special):
    size = len(encode({"a": "éé", "b": special}, "metadata", 1_000, 8).encode())
    encode({"a": "éé", "b": special}, "metadata", size, 8)
    with pytest.raises(OverLimit, match=f"limit is {size - 1}"):
        encode({"a": "éé", "b": special}, "metadata", size - 1, 8)


@pytest.mark.parametrize("special", [1, NOON])
def test_the_depth_counts_lists_and_objects(special):
    encode([{"a": special}], "metadata", 1_000, 2)
    for value in ([{"a": [special]}], [{"a": []}, special], [[{}], special]):
        with pytest.raises(OverLimit, match="levels"):
            encode(value, "metadata", 1_000, 2)


@pytest.mark.parametrize("special", [1, NOON])
def test_what_holds_itself_ends(special):
    value = [special]
    value.append(value)
    with pytest.raises(OverLimit):
        encode(value, "metadata", 1_000_000, 64)


@pytest.mark.parametrize("special", [1, NOON])
def test_a_small_value_that_unfolds_without_end_is_refused_at_once(special):
    value = special
    for _ in range(60):
        value = [value] * 10
    with pytest.raises(OverLimit):
        encode(value, "metadata", 100_000, 64)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nonsense",
        '{"a":1} x',
        b"\xff",
        '"\\ud800"',
        '{"$datetime":"soon"}',
        '{"$datetime":1.5}',
        '{"$datetime":true}',
        '{"$datetime":9223372036854775807}',
        '{"$datetime":1,"a":2}',
        '{"$uuid":"x"}',
        '{"$uuid":5}',
        '{"$decimal":"one"}',
        '{"$decimal":"NaN"}',
        '{"$bytes":"%"}',
        '[{"$unknown":1}]',
        '{"a":{"$":1}}',
        "[" * 100_000,
    ],
)
def test_damaged_text_is_never_guessed(text):
    with pytest.raises(Undecodable):
        decode(text)
