"""Merging takes what each side changed, and hands back what both did."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.rooms.checkpoints.diff import LazyPart, compare
from perdure.rooms.checkpoints.merge import MISSING, MergeConflict, Merged, merge
from perdure.values.errors import Invalid

laws = settings(max_examples=200, deadline=None, derandomize=True, database=None)
scalars = st.sampled_from([None, True, 1, 1.0, float("nan"), "x", "y", b"x"])
names = st.sampled_from(["m1", "m2", "m3", "m4", "m5", 1, "1"])
items = st.fixed_dictionaries({"id": names, "a": scalars, "b": scalars})
leaves = st.lists(scalars, max_size=4) | scalars | st.frozensets(st.sampled_from([1, 2, "x"])).map(set)
dicts = st.recursive(
    leaves, lambda inner: st.dictionaries(st.sampled_from(["p", "q", "r.s", 1]), inner, max_size=3), max_leaves=6
)
logs = st.lists(items, max_size=6, unique_by=lambda item: repr(item["id"]))
states = st.fixed_dictionaries({}, optional={"messages": logs, "plan": dicts, "notes": dicts})


@st.composite
def edited_log(draw, log):
    """A log after some edits of one side."""
    found = [dict(item) for item in log]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(found)))
        kind = draw(st.sampled_from(["add", "add", "delete", "edit", "move"]))
        if kind == "add" or at == len(found):
            new = draw(items)
            if all(repr(item["id"]) != repr(new["id"]) for item in found):
                found.insert(at, new)
        elif kind == "delete":
            del found[at]
        elif kind == "move":
            found.insert(draw(st.integers(0, len(found) - 1)), found.pop(at))
        else:
            found[at][draw(st.sampled_from(["a", "b"]))] = draw(scalars)
    return found


@st.composite
def sides(draw):
    base = draw(states)

    def side():
        made = draw(st.just(base) | states)
        return made | {"messages": draw(edited_log(base["messages"]))} if "messages" in base else made

    return base, side(), side()


def alike(a, b):
    return compare(a, b).equal


def loose(value):
    """The value without the order of its lists."""
    if isinstance(value, dict):
        return frozenset((repr(key), loose(item)) for key, item in value.items())
    if isinstance(value, list):
        return frozenset(Counter(map(loose, value)).items())
    return repr(sorted(value, key=repr)) if isinstance(value, set) else repr(value)


def order(log, among):
    return [item["id"] for item in log if repr(item["id"]) in {repr(known["id"]) for known in among}]


@laws
@given(states, states)
def test_one_side_alone_is_taken_whole(base, side):
    assert alike(merge(base, base, side).state, side)
    assert alike(merge(base, side, base).state, side)
    assert alike(merge(base, side, side).state, side)


@laws
@given(sides())
def test_what_one_side_did_alone_in_a_log_is_taken_whole(three):
    base, side, _ = three
    assert alike(merge(base, base, side).state, side)
    assert alike(merge(base, side, base).state, side)
    assert alike(merge(base, side, side).state, side)


@laws
@given(sides())
def test_the_sides_change_places_up_to_the_order_of_additions(three):
    base, ours, theirs = three
    here, there = merge(base, ours, theirs), merge(base, theirs, ours)
    assert [(c.path, repr(c.base)) for c in sorted(here.conflicts, key=lambda c: c.path)] == [
        (c.path, repr(c.base)) for c in sorted(there.conflicts, key=lambda c: c.path)
    ]
    for mine, its in zip(
        sorted(here.conflicts, key=lambda c: c.path), sorted(there.conflicts, key=lambda c: c.path), strict=True
    ):
        assert (repr(mine.ours), repr(mine.theirs)) == (repr(its.theirs), repr(its.ours))
    if here.conflicts:
        assert here.state is there.state is None
    else:
        assert loose(here.state) == loose(there.state)
        if "messages" in base and "messages" in here.state:
            olds = base["messages"]
            assert order(here.state["messages"], olds) == order(there.state["messages"], olds)


@laws
@given(sides())
def test_logs_keep_the_additions_of_both_sides_and_the_deletions_of_each(three):
    base, ours, theirs = (side.get("messages", []) for side in three)
    merged = merge({"messages": base}, {"messages": ours}, {"messages": theirs}, resolve="theirs")
    if any(conflict.path == "messages" for conflict in merged.conflicts):
        return
    old, mine, its, made = (
        {repr(item["id"]) for item in log} for log in (base, ours, theirs, merged.state["messages"])
    )
    assert made >= (mine - old) | (its - old)
    assert made <= mine | its
    settled = {conflict.path for conflict in merged.conflicts}
    assert not (made & (old - its))
    assert settled or not (made & (old - mine))
    for side in (ours, theirs):  # additions of a side keep their order
        new = [repr(item["id"]) for item in side if repr(item["id"]) in (mine ^ its) - old]
        assert sorted(new, key=[repr(item["id"]) for item in merged.state["messages"]].index) == new or _reordered(
            three
        )


def _reordered(three):
    base, ours, theirs = ([repr(item["id"]) for item in side.get("messages", [])] for side in three)
    common = set(base) & set(ours) & set(theirs)
    return [n for n in ours if n in common] != [n for n in theirs if n in common]


@laws
@given(sides(), st.sampled_from(["ours", "theirs"]))
def test_a_side_settles_every_conflict(three, side):
    base, ours, theirs = three
    merged = merge(base, ours, theirs, resolve=side)
    asked = merge(base, ours, theirs, resolve=lambda conflict: getattr(conflict, side))
    assert alike(merged.state, asked.state)
    assert repr(merged.conflicts) == repr(asked.conflicts) == repr(merge(base, ours, theirs).conflicts)


@laws
@given(states, states, states)
def test_a_settled_merge_holds_nothing_that_no_side_has(base, ours, theirs):
    merged = merge(base, ours, theirs, resolve="ours").state
    assert merged.keys() <= ours.keys() | theirs.keys()


def test_changes_of_different_paths_go_together():
    base = {"plan": {"title": "a", "steps": 3}, "old": 1}
    merged = merge(base, {"plan": {"title": "b", "steps": 3}, "old": 1}, {"plan": {"title": "a", "steps": 4}, "new": 2})
    assert merged == Merged({"plan": {"title": "b", "steps": 4}, "new": 2}, ())


def test_different_changes_of_one_path_are_a_conflict():
    base, ours, theirs = {"plan": {"title": "a"}}, {"plan": {"title": "b"}}, {"plan": {"title": "c"}}
    conflict = MergeConflict("plan.title", "a", "b", "c")
    assert merge(base, ours, theirs) == Merged(None, (conflict,))
    assert merge(base, ours, theirs, resolve="ours") == Merged(ours, (conflict,))
    assert merge(base, ours, theirs, resolve="theirs") == Merged(theirs, (conflict,))
    assert merge(base, ours, theirs, resolve=lambda c: c.ours + c.theirs).state == {"plan": {"title": "bc"}}
    assert merge(base, ours, theirs, resolve=lambda c: MISSING).state == {"plan": {}}


def test_a_change_of_type_is_a_change():
    assert merge({"x": 1}, {"x": 1.0}, {"x": 1}).state["x"].is_integer()
    assert merge({"x": 1}, {"x": 1.0}, {"x": True}).conflicts == (MergeConflict("x", 1, 1.0, True),)


def test_what_one_side_deleted_and_the_other_changed_is_a_conflict():
    base, theirs = {"x": {"y": 1}, "z": 0}, {"x": {"y": 2}, "z": 0}
    assert merge(base, {"z": 0}, theirs).conflicts == (MergeConflict("x", {"y": 1}, MISSING, {"y": 2}),)
    assert merge(base, {"z": 0}, theirs, resolve="ours").state == {"z": 0}
    assert merge(base, {"z": 0}, theirs, resolve="theirs").state == theirs
    assert merge(base, {"z": 0}, base).state == {"z": 0}


def log(*names, **texts):
    return {"messages": [{"id": name, "text": texts.get(name, "")} for name in names]}


def ids(merged):
    return [item["id"] for item in merged.state["messages"]]


def test_logs_have_additions_of_ours_first():
    merged = merge(log("a", "b"), log("a", "o1", "b", "o2"), log("t0", "a", "t1", "b", "t2"))
    assert ids(merged) == ["t0", "a", "o1", "t1", "b", "o2", "t2"]


def test_the_same_addition_on_both_sides_is_one():
    assert ids(merge(log("a"), log("a", "s", "o"), log("a", "t", "s"))) == ["a", "s", "o", "t"]
    merged = merge(log("a"), log("a", "s", s="x"), log("a", "s", s="y"))
    assert merged.conflicts == (MergeConflict("messages[id=s].text", MISSING, "x", "y"),)


def test_items_that_one_side_removed_and_the_other_changed_are_a_conflict():
    base, ours, theirs = log("a", "b", "c"), log("a", "c"), log("a", "b", "c", b="new")
    [conflict] = merge(base, ours, theirs).conflicts
    assert (conflict.path, conflict.ours, conflict.theirs["text"]) == ("messages[id=b]", MISSING, "new")
    assert ids(merge(base, ours, theirs, resolve="ours")) == ["a", "c"]
    assert ids(merge(base, ours, theirs, resolve="theirs")) == ["a", "b", "c"]
    assert ids(merge(base, ours, base)) == ["a", "c"]


def test_one_side_may_change_the_order():
    assert ids(merge(log("a", "b", "c"), log("c", "a", "b"), log("a", "b", "t", "c"))) == ["c", "a", "b", "t"]
    assert ids(merge(log("a", "b", "c"), log("a", "o", "b", "c"), log("b", "a", "c"))) == ["b", "a", "o", "c"]
    [conflict] = merge(log("a", "b", "c"), log("c", "a", "b"), log("b", "a", "c")).conflicts
    assert conflict.path == "messages"


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "made"),
    [
        ([1], [1, 2], [1, 3], [1, 2, 3]),
        ([], ["x"], ["y"], ["x", "y"]),
        ([1], [1, 2, 3], [1, 2, 4], [1, 2, 3, 4]),
        ([1], [1, 2], [1, 2, 3], [1, 2, 3]),
        ([1], [1, 2, 3], [1, 3, 2], [1, 2, 3, 3, 2]),
        ([1], [1, 2], [1, 2.0], [1, 2, 2.0]),
        ([1], [2], [1, 3], None),
        ([1, 2], [1], [1, 2, 3], None),
        (MISSING, [1], [2], None),
        ((1,), (1, 2), (1, 3), None),
    ],
)
def test_lists_without_ids_merge_when_both_sides_appended(base, ours, theirs, made):
    merged = merge({} if base is MISSING else {"x": base}, {"x": ours}, {"x": theirs})
    if made is None:
        assert merged == Merged(None, (MergeConflict("x", base, ours, theirs),))
    else:
        assert repr(merged) == repr(Merged({"x": made}, ()))


def test_channels_that_both_sides_began_merge_by_key_and_id():
    merged = merge({}, {"x": {"a": 1, "l": [{"id": 1}]}}, {"x": {"b": 2, "l": [{"id": 2}]}})
    assert merged.state == {"x": {"a": 1, "b": 2, "l": [{"id": 1}, {"id": 2}]}}


def test_sets_merge_member_by_member():
    merged = merge({"x": {1, 2, 3}}, {"x": {1, 2, 4}}, {"x": {2, 3, 5}})
    assert merged == Merged({"x": {2, 4, 5}}, ())
    assert type(merge({"x": frozenset({1})}, {"x": frozenset()}, {"x": frozenset({1, 2})}).state["x"]) is frozenset


class Point(msgspec.Struct, frozen=True):
    x: int
    y: int


def test_objects_are_never_mixed():
    base, ours, theirs = ({"p": point} for point in (Point(0, 0), Point(1, 0), Point(0, 1)))
    assert [conflict.path for conflict in merge(base, ours, theirs).conflicts] == ["p"]
    assert merge(base, ours, base).state == ours


class Lazy(LazyPart):
    def __init__(self, value, known=True):
        self.value, self.known, self.loads = value, known, 0

    def same(self, other):
        return (repr(self.value) == repr(other.value)) if self.known else None

    def load(self):
        self.loads += 1
        return self.value


@pytest.mark.parametrize("known", [True, False])
def test_lazy_parts_merge_like_their_values(known):
    big, base, ours, theirs = (Lazy(value, known) for value in (["big"], {"a": 1}, {"a": 2}, {"a": 1, "b": 3}))
    merged = merge({"x": base, "y": big}, {"x": ours, "y": big}, {"x": theirs, "y": big})
    assert merged == Merged({"x": {"a": 2, "b": 3}, "y": ["big"]}, ())


@pytest.mark.parametrize("resolve", ["both", 1, True])
def test_what_settles_nothing_is_refused(resolve):
    with pytest.raises(Invalid) as caught:
        merge({}, {}, {}, resolve=resolve)
    assert caught.value.field == "resolve"


def test_states_must_be_mappings():
    with pytest.raises(Invalid) as caught:
        merge({}, {}, [])
    assert caught.value.field == "theirs"
