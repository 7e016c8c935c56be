"""A diff of two states names what is different, and nothing else; with it the second can be made of the first."""

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.rooms.checkpoints.diff import Change, LazyPart, Move, Sizes, apply, changes_between, compare
from perdure.rooms.checkpoints.equality import approximate_size, same
from perdure.rooms.checkpoints.paths import id_step, joined, key_step
from perdure.values.errors import Invalid

NAN = float("nan")

laws = settings(max_examples=150, deadline=None, derandomize=True, database=None)
keys = st.sampled_from(["a", "b", "id", "a.b", "", '"', "[0]", "é", "2", 2, True, 2.0, None, (1, "x"), b"a"])
scalars = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        2,
        1.0,
        0.0,
        -0.0,
        NAN,
        float("inf"),
        "",
        "x",
        "1",
        b"x",
        Decimal(1),
        Decimal("1.0"),
        UUID(int=1),
    ]
)
identified = st.builds(
    lambda name, body: {"id": name, "body": body},
    st.sampled_from(["m1", "m2", "m3", "m4", 1, "1", "a]b", UUID(int=1)]),
    scalars,
)
values = st.recursive(
    scalars | identified,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.lists(identified, max_size=6, unique_by=lambda item: repr(item["id"]))
    ),
    max_leaves=20,
)
states = st.dictionaries(st.sampled_from(["a", "b.c", "messages", "["]), values, max_size=4)


def canon(value):
    """A form of its own to compare by: types told apart, order of keys left out."""
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{key!r}: {canon(item)}" for key, item in value.items())) + "}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(canon, value))})"
    return repr(value)


@st.composite
def edited(draw, value):
    """The value after some edits, as an agent makes them."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value, key=repr)))
        return {**value, key: draw(edited(value[key]))}
    if isinstance(value, list):
        items = list(value)
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, len(items)))
            kind = draw(st.sampled_from(["insert", "delete", "move", "edit", "double"]))
            if kind == "insert" or at == len(items):
                items.insert(at, draw(scalars | identified))
            elif kind == "delete":
                del items[at]
            elif kind == "move":
                items.insert(draw(st.integers(0, len(items) - 1)), items.pop(at))
            elif kind == "double":
                items.insert(at, items[at])
            else:
                items[at] = draw(edited(items[at]))
        return items
    return draw(st.just(value) | values)


@st.composite
def pairs(draw):
    a = draw(states)
    b = {name: draw(edited(value)) for name, value in a.items() if draw(st.integers(0, 5))}
    return a, b | draw(st.just({}) | states)


class Lazy(LazyPart):
    """A value in JSON text that notes when it is decoded."""

    loads = 0

    def __init__(self, value, split=True):
        self.value, self.split = value, split

    def same(self, other):
        return True if canon(self.value) == canon(other.value) else None

    def load(self):
        Lazy.loads += 1
        return self.value

    def children(self):
        fits = self.split and isinstance(self.value, dict) and all(isinstance(key, str) for key in self.value)
        return {key: Lazy(item) for key, item in self.value.items()} if fits else None

    def items(self):
        return [Lazy(item) for item in self.value] if self.split and isinstance(self.value, list) else None

    def size(self):
        return 1000


def at(value, path):
    """What stands at a path, read by the rules in the docs of paths."""
    step = re.compile(
        r'\[key=("(?:\\.|[^"\\])*"|[^\]]*)\]|\[id=("(?:\\.|[^"\\])*"|[^\]]*)\]'
        r'|\[(\d+)\]|\[("(?:\\.|[^"\\])*")\]|\.?([^.\[\]"]+)'
    )
    place = 0
    while place < len(path):
        found = step.match(path, place)
        key, name, index, quoted, plain = found.groups()
        place = found.end()
        if index is not None:
            assert isinstance(value, list | tuple)
            value = value[int(index)]
        elif name is not None:
            as_it_is = re.fullmatch(r"-?\d+|UUID\(.*\)", name)
            wanted = name if as_it_is else repr(json.loads(name) if name.startswith('"') else name)
            [value] = [item for item in value if isinstance(item, dict) and repr(item.get("id", NAN)) == wanted]
        elif key is not None:
            shown = json.loads(key) if key.startswith('"') else key
            [value] = [item for known, item in value.items() if not isinstance(known, str) and repr(known) == shown]
        else:
            [value] = [
                item for known, item in value.items()
                if isinstance(known, str) and known == (plain if quoted is None else json.loads(quoted))
            ]  # fmt: skip
    return value


@laws
@given(pairs())
def test_the_difference_makes_the_second_state_of_the_first(pair):
    a, b = pair
    before = canon(a)
    assert canon(apply(a, changes_between(a, b))) == canon(b)
    assert canon(a) == before


@laws
@given(pairs())
def test_parts_that_are_not_loaded_make_it_too(pair):
    a, b = pair
    assert canon(apply(Lazy(a), changes_between(Lazy(a), Lazy(b)))) == canon(b)
    assert canon(apply(a, changes_between(Lazy(a, split=False), Lazy(b)))) == canon(b)
    assert canon(apply(a, changes_between(a, Lazy(b)))) == canon(b)


@laws
@given(pairs())
def test_there_is_a_difference_exactly_when_states_are_not_the_same(pair):
    a, b = pair
    assert compare(a, b).equal == (canon(a) == canon(b)) == same(a, b)
    assert compare(a, a).equal


@laws
@given(pairs())
def test_every_path_leads_to_what_is_told_of_it(pair):
    a, b = pair
    diff = compare(a, b)
    for path, value in diff.added.items():
        assert canon(at(b, path)) == canon(value)
    for path, change in diff.changed.items():
        assert canon(at(b, path)) == canon(change.after)
        assert canon(change.before) != canon(change.after)
    for path, move in diff.moved.items():
        parent = at(b, path[: path.rindex("[id=")])
        assert canon(parent[move.after]) == canon(at(b, path))
    assert diff.sizes.keys() == diff.added.keys() | diff.removed.keys() | diff.changed.keys()


@laws
@given(pairs())
def test_both_ways_tell_the_same(pair):
    """What is added one way is removed the other; without details only values are left out."""
    a, b = pair
    there, back = compare(a, b), compare(b, a)
    assert sorted(map(canon, there.added.values())) == sorted(map(canon, back.removed.values()))
    bare = compare(a, b, include_details=False)
    assert bare.sizes == there.sizes
    assert list(bare.added) == list(there.added)
    assert {*bare.added.values(), *bare.removed.values()} <= {None}
    assert all(change == Change(None, None) for change in bare.changed.values())
    assert bare.moved == there.moved


@laws
@given(
    st.lists(keys | st.text(max_size=3), min_size=2, max_size=2),
    st.lists(keys | st.text(max_size=3), min_size=2, max_size=2),
)
def test_two_chains_of_keys_never_read_alike(first, second):
    paths = [joined(joined("", key_step(a)), key_step(b)) for a, b in (first, second)]
    assert (paths[0] == paths[1]) == ([*map(repr, first)] == [*map(repr, second)])


@pytest.mark.parametrize(
    ("name", "step"),
    [("m3", "[id=m3]"), (3, "[id=3]"), ("3", '[id="3"]'), ("a]b", '[id="a]b"]'), ("a.b", "[id=a.b]"), ("", '[id=""]')],
)
def test_ids_read_as_they_are_unless_that_were_ambiguous(name, step):
    assert id_step(name) == step


def test_paths_are_dotted():
    a = {"agent": {"plan": {"steps": [1, 2, {"title": "look"}]}}, "a.b": {2: 1}}
    b = {"agent": {"plan": {"steps": [1, 2, {"title": "find"}]}}, "a.b": {2: 2}}
    diff = compare(a, b)
    assert diff.changed == {"agent.plan.steps[2].title": Change("look", "find"), '["a.b"][key=2]': Change(1, 2)}
    assert diff.added == diff.removed == diff.moved == {}


def test_an_insertion_in_the_middle_is_one_addition():
    diff = compare({"steps": ["a", "b", "c", "d"]}, {"steps": ["a", "b", "x", "c", "d"]})
    assert (diff.added, diff.removed, diff.changed) == ({"steps[2]": "x"}, {}, {})
    diff = compare({"steps": ["a", "b", "c", "d"]}, {"steps": ["a", "d"]})
    assert (diff.added, diff.removed, diff.changed) == ({}, {"steps[1]": "b", "steps[2]": "c"}, {})


def test_items_are_matched_by_their_id_wherever_they_are():
    a = {"messages": [{"id": "m1", "content": "a"}, {"id": "m2", "content": "b"}, {"id": "m3", "content": "c"}]}
    b = {"messages": [{"id": "m0", "content": "z"}, {"id": "m1", "content": "a"}, {"id": "m3", "content": "C"}]}
    diff = compare(a, b)
    assert diff.added == {"messages[id=m0]": {"id": "m0", "content": "z"}}
    assert diff.removed == {"messages[id=m2]": {"id": "m2", "content": "b"}}
    assert diff.changed == {"messages[id=m3].content": Change("c", "C")}
    assert diff.moved == {}


def test_tuples_are_told_item_by_item_like_lists():
    assert compare({"x": (1, 2, 3)}, {"x": (1, 5, 3)}).changed == {"x[1]": Change(2, 5)}
    assert compare({"x": (1, 2)}, {"x": [1, 2]}).changed == {"x": Change((1, 2), [1, 2])}


def test_a_moved_item_is_one_move():
    items = [{"id": n} for n in range(5)]
    diff = compare({"x": items}, {"x": [items[4], *items[:4]]})
    assert diff.moved == {"x[id=4]": Move(4, 0)}
    assert diff.added == diff.removed == diff.changed == diff.sizes == {}
    assert not diff.equal


def test_items_without_an_id_are_matched_between_those_that_have_one():
    one, two = {"id": 1}, {"id": 2}
    diff = compare({"x": ["a", one, "b", two]}, {"x": [one, "B", "new", two, "end"]})
    assert diff.removed == {"x[0]": "a"}
    assert diff.changed == {"x[1]": Change("b", "B")}
    assert diff.added == {"x[2]": "new", "x[4]": "end"}


def test_an_id_that_two_items_have_names_none_of_them():
    a = {"x": [{"id": 1, "n": 1}, {"id": 1, "n": 2}]}
    b = {"x": [{"id": 1, "n": 1}, {"id": 1, "n": 3}]}
    assert compare(a, b).changed == {"x[1].n": Change(2, 3)}


class Message(pydantic.BaseModel):
    id: str
    content: str
    weight: float = NAN


class Point(msgspec.Struct, frozen=True):
    x: float
    y: object = None


@dataclass
class Box:
    id: str
    array: object


def test_objects_are_matched_by_their_id_and_told_field_by_field():
    a = {"messages": [Message(id="m1", content="a"), Message(id="m2", content="b")]}
    b = {"messages": [Message(id="m2", content="B"), Message(id="m1", content="a")]}
    diff = compare(a, b)
    assert diff.changed == {"messages[id=m2].content": Change("b", "B")}
    assert diff.moved == {"messages[id=m1]": Move(0, 1)}
    assert apply(a, changes_between(a, b))["messages"][0] is b["messages"][0]


def test_objects_are_the_same_by_their_fields():
    box = Box("b", np.array([1.0, NAN]))
    assert compare({"x": box}, {"x": replace(box, array=np.array([1.0, NAN]))}).equal
    assert list(compare({"x": box}, {"x": replace(box, array=np.array([1.0, 2.0]))}).changed) == ["x.array"]
    assert list(compare({"x": Point(1)}, {"x": Point(1.0)}).changed) == ["x.x"]
    assert list(compare({"x": Point(1)}, {"x": {"x": 1, "y": None}}).changed) == ["x"]


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CLASSES_OF_SAME = [
    [1, np.int64(1).item()], [1.0], [True], [np.int64(1)], [np.float64(1)], ["1"], [b"1"], [Decimal(1)],
    [Decimal("1.0")],
    [NAN, float("-nan")], [0.0], [-0.0], [np.float64("nan"), np.float64("nan")], [None], [{}], [[]], [()],
    [NOON, datetime.fromisoformat("2026-01-01T12:00:00+00:00")], [NOON.astimezone(timezone(timedelta(hours=1)))],
    [NOON.replace(tzinfo=None)], [NOON.replace(fold=1)], [NOON.date()],
    [{1, 2}, {2, 1}], [{True, 2}], [frozenset({1, 2})], [{NAN}, {float("nan")}], [{(1, 2)}], [{(True, 2)}],
    [{1: 1}], [{True: 1}], [{1.0: 1}], [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
    [np.array([1, 2]), np.array([1, 2])], [np.array([1.0, 2.0])], [np.array([[1, 2]])], [np.array([1, 2], dtype="i4")],
    [np.array([1, "a", None], dtype=object), np.array([1, "a", None], dtype=object)],
    [np.array([0.0])], [np.array([-0.0])],
    [np.zeros(2, "i4")], [np.zeros(2, "f4")], [np.zeros((2, 1), "f4")],
    [Point(1), Point(1)], [Point(1.0)], [Message(id="a", content=""), Message(id="a", content="")],
]  # fmt: skip


def test_sameness_goes_by_type_and_content():
    named = [(number, value) for number, alike in enumerate(CLASSES_OF_SAME) for value in alike]
    wrong = [(a, b) for i, a in named for j, b in named if same(a, b) != (i == j)]
    assert wrong == []
    deep = [(a, b) for i, a in named for j, b in named if compare({"x": [[a]]}, {"x": [[b]]}).equal != (i == j)]
    assert deep == []


def test_equal_parts_are_not_loaded():
    big = [{"id": n, "text": "x" * 100} for n in range(1000)]
    a = {"messages": big, "notes": {"deep": {"old": 1, "kept": big}}, "gone": big}
    b = {"messages": [*big, {"id": 1000}], "notes": {"deep": {"old": 2, "kept": big}}, "new": big}
    Lazy.loads = 0
    diff = compare(Lazy(a), Lazy(b), include_details=False)
    assert Lazy.loads == 3  # the new message, and the two numbers
    assert list(diff.added) == ["new", "messages[id=1000]"]
    assert diff.sizes["gone"] == Sizes(1000, 0)
    assert list(diff.changed) == ["notes.deep.old"]
    Lazy.loads = 0
    assert compare(Lazy(a), Lazy(a)).equal
    assert compare({"x": Lazy(a), "y": 1}, {"x": Lazy(a), "y": 1}).equal
    assert Lazy.loads == 0
    assert compare(Lazy(a), Lazy(b)).added["new"] is big


def test_sizes_come_from_the_given_measure():
    diff = compare({"x": "abc", "y": 1}, {"x": "abcde", "z": "q"}, size_of=lambda value: len(repr(value)))
    assert diff.sizes == {"y": Sizes(1, 0), "z": Sizes(0, 3), "x": Sizes(5, 7)}


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("é" * 100, 200, 210), (b"x" * 50, 50, 55), (2**64, 9, 10), ([1.5] * 10, 80, 110), ({"a": "b"}, 4, 6),
        (np.zeros(100), 800, 820), (Point(1, "abc"), 10, 30), (NOON, 8, 16), (None, 1, 1), ("\ud800", 3, 5),
    ],
)  # fmt: skip
def test_sizes_are_near_those_of_encoded_values(value, low, high):
    assert low <= approximate_size(value) <= high


@pytest.mark.parametrize("state", [None, [], "x", Lazy([1], split=False)])
def test_a_state_must_be_a_mapping(state):
    with pytest.raises(Invalid) as caught:
        compare({}, state)
    assert caught.value.field == "b"
