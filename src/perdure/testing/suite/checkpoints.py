"""Checkpoints: a state that was saved comes back to the type, and history says what was saved when."""

import dataclasses
import enum
import math
from datetime import UTC, date, datetime, time, timedelta, timezone

import msgspec
import numpy as np
import pydantic

from perdure import Checkpoint, CheckpointConfig
from perdure.testing.suite.checkpoint_tools import alike, contents, restored, rows, saved, sound
from perdure.testing.suite.tools import WILD, TurnedClock, refusal
from perdure.values.errors import Conflict, Invalid, NotFound, Undecodable


@dataclasses.dataclass
class Flight:
    number: str
    seats: set[str]


class Point(msgspec.Struct, frozen=True):
    x: float
    y: tuple[int, ...] = ()


class Plan(pydantic.BaseModel):
    goal: str
    steps: list[str] = []


class Mood(enum.Enum):
    CALM = 1
    BUSY = 2


_TYPES = {"flight": Flight, "point": Point, "plan": Plan, "mood": Mood}
_EVERYTHING = {
    **WILD,
    "tuple": (1, (2.0, "x"), []),
    "set": {1, "one", b"1", (1, 2)},
    "frozen": frozenset({1.5}),
    "nan": math.nan,
    "minus": [-0.0, 0.0, 0, False],
    "big": [2**64, -(2**200)],
    "naive": datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - it must come back without a zone
    "zoned": datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "day": date(2026, 2, 28),
    "hour": time(23, 59, 59, 999_999),
    "span": timedelta(days=-1, microseconds=3),
    "keys": {1: "a", None: "b", (1, 2): "c"},
    "bytes": {"mutable": bytearray(b"\x00\x01"), "fixed": b""},
    "array": np.arange(12, dtype="float32").reshape(3, 4),
    "objects": [Flight("SK 4035", {"12A"}), Point(1.0, (2, 3)), Plan(goal="Oslo"), Mood.BUSY],
}


def _registered(checkpointer):
    for name, cls in _TYPES.items():
        checkpointer.register_type(name, cls)
    return checkpointer


# -- what a state may hold ---------------------------------------------------------------------------------------------------


async def test_every_kind_of_value_comes_back_to_the_type(opener):
    """From memory, and in another process; each answer is one's own, whatever is done to it."""
    async with opener() as store:
        checkpointer = _registered(opener.checkpointer(store))
        own = {"list": [1, {"a": 1}], **_EVERYTHING}
        made = await checkpointer.save("t", own)
        own["list"].append("later")
        for _ in range(2):
            back = await checkpointer.latest_state("t")
            assert alike(back, {"list": [1, {"a": 1}], **_EVERYTHING})
            back["list"][1]["a"] = "changed"
            back["objects"][0].seats.add("13B")
        (await checkpointer.restore(made))["list"].clear()
        assert alike(await checkpointer.restore(made), {"list": [1, {"a": 1}], **_EVERYTHING})
    async with opener() as store:
        checkpointer = _registered(opener.checkpointer(store))
        assert alike(await checkpointer.latest_state("t"), {"list": [1, {"a": 1}], **_EVERYTHING})
        await sound(checkpointer)


async def test_a_type_that_nobody_registered_is_refused_when_it_is_saved(opener):
    """With the path and the call that registers it. What reads it needs it too; history does not."""
    async with opener() as store:
        knows, other = opener.checkpointer(store), opener.checkpointer(store)
        error = await refusal(Invalid, knows.save("t", {"plans": [{"flight": Flight("x", set())}]}))
        assert error.field == "state.plans[0].flight"
        assert "register_type(" in str(error)
        assert set((await rows(store)).values()) == {0}
        knows.register_type("flight", Flight)
        made = await knows.save("t", {"flight": Flight("x", set())}, {"n": 1})
        error = await refusal(Undecodable, other.restore(made))
        assert "flight" in str(error)
        assert [one.metadata for one in await other.get_history("t")] == [{"n": 1}]
        assert not (await other.verify()).ok
        other.register_type("flight", Flight, 2, upgrade=lambda version, fields: {**fields, "number": f"was {version}"})
        assert await other.restore(made) == {"flight": Flight("was 1", set())}


# -- what a checkpoint says --------------------------------------------------------------------------------------------------


async def test_a_checkpoint_says_what_it_was_saved_with(opener):
    """Whether it is asked for by its id or as the newest."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        checkpointer = opener.checkpointer(store)
        assert await checkpointer.latest("t") is None
        assert await checkpointer.latest_state("t") is None
        assert await checkpointer.get("none") is None
        first = await checkpointer.save("t", {"n": 1})
        clock.turn(seconds=2)
        second = await checkpointer.save(
            "t", {"n": 2}, {"why": (1, b"x", clock.now)}, ["b", "a", "b"], "completed", first, "main", "run", node="agent"
        )  # fmt: skip
        found = await checkpointer.get(second)
        assert found == Checkpoint(
            second, "t", 1, first, "main", "completed", ("a", "b"), {"why": (1, b"x", clock.now)}, "agent", "run",
            found.size, clock.now,
        )  # fmt: skip
        assert found.size > 0
        assert await checkpointer.latest("t") == found
        assert await checkpointer.latest("t", "other") is None
        assert (await checkpointer.get(first)).parent_id is None
        assert await restored(checkpointer, [first, second]) == [{"n": 1}, {"n": 2}]
        await refusal(NotFound, checkpointer.restore("none"))
        assert [(one.id, one.space, one.saved) for one in await checkpointer.list_threads()] == [("t", "", 2)]


async def test_a_state_is_made_from_the_newest_or_it_is_refused(opener):
    """Its parent may be named twice over, and must be the newest of its own thread and branch."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        first, second = await saved(checkpointer, "t", {"n": 1}, {"n": 2})
        (other,) = await saved(checkpointer, "other", {"n": 1})
        await checkpointer.create_branch(first, "side")
        before = await contents(store)
        for kind, field, more in [
            (Conflict, "parent", {"parent": first}),
            (Conflict, "parent", {"metadata": {"parent_checkpoint": first}}),
            (Conflict, "parent", {"parent": second, "branch": "side"}),
            (Invalid, "parent", {"parent": other}),
            (Invalid, "parent", {"metadata": {"parent_checkpoint": other}}),
            (Invalid, "parent", {"parent": "none"}),
            (Invalid, "parent", {"parent": second, "metadata": {"parent_checkpoint": first}}),
            (Invalid, "metadata.parent_checkpoint", {"metadata": {"parent_checkpoint": 7}}),
            (NotFound, "branch", {"branch": "nowhere"}),
        ]:
            error = await refusal(kind, checkpointer.save("t", {"n": 3}, **more))
            assert error.details["field"] == field, more
        assert await contents(store) == before
        third = await checkpointer.save("t", {"n": 3}, {"parent_checkpoint": second})
        side = await checkpointer.save("t", {"n": 4}, parent=first, branch="side")
        assert [(await checkpointer.get(one)).parent_id for one in (third, side)] == [second, first]


# -- history -----------------------------------------------------------------------------------------------------------------


async def test_history_is_newest_first_page_by_page(opener):
    """Failed ones on request; a page goes on where the last one ended, whatever was saved since."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        ids = []
        for number in range(11):
            status = "failed" if number % 4 == 1 else "ok"
            ids.append(await checkpointer.save("t", {"n": number}, {"n": number}, status=status))
        working = [one for number, one in enumerate(ids) if number % 4 != 1][::-1]

        async def pages(limit, **more):
            found, cursor = [], None
            while True:
                page = await checkpointer.get_history("t", limit=limit, cursor=cursor, **more)
                assert len(page) <= limit
                found += page
                cursor = page.next_cursor
                if cursor is None:
                    return found

        for limit in (1, 3, 11, 1_000):
            assert [one.id for one in await pages(limit)] == working
            assert [one.id for one in await pages(limit, include_failed=True)] == ids[::-1]
        assert [one.metadata for one in await pages(5, include_failed=True)] == [{"n": n} for n in range(10, -1, -1)]
        assert {str(one.metadata) for one in await pages(5, include_metadata=False)} == {"{}"}
        page = await checkpointer.get_history("t", include_failed=True, limit=4)
        await checkpointer.save("t", {"n": "newer"})
        rest = await checkpointer.get_history("t", include_failed=True, cursor=page.next_cursor)
        assert [one.id for one in (*page, *rest)] == ids[::-1]
        empty = await checkpointer.get_history("t", limit=0)
        assert (list(empty), list(await checkpointer.get_history("nowhere"))) == ([], [])


async def test_history_of_a_branch_is_what_was_saved_on_it(opener):
    """What came before is on the branch that it began at."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        main = await saved(checkpointer, "t", {"n": 0}, {"n": 1})
        await checkpointer.create_branch(main[0], "side")
        side = await saved(checkpointer, "t", {"n": 2}, {"n": 3}, branch="side")
        main += await saved(checkpointer, "t", {"n": 4})
        for branch, expected in (("side", side), ("main", main), (None, [*main[:2], *side, *main[2:]]), ("none", [])):
            assert [one.id for one in await checkpointer.get_history("t", branch=branch)] == expected[::-1]


# -- finding -----------------------------------------------------------------------------------------------------------------

_FILTERS = [
    ({}, lambda s: True),
    ({"n": 3}, lambda s: s["n"] == 3),
    ({"n": 3.0}, lambda s: s["n"] == 3),
    ({"n": True}, lambda s: False),
    ({"n": {"$gte": 2, "$lt": 5}}, lambda s: 2 <= s["n"] < 5),
    ({"plan.done": True}, lambda s: s["plan"]["done"]),
    ({"plan.note": {"$exists": False}}, lambda s: "note" not in s["plan"]),
    ({"plan.note": None}, lambda s: s["plan"].get("note", 0) is None),
    ({"metadata.x": 4}, lambda s: s["metadata"]["x"] == 4),
    ({"x": {"$exists": True}}, lambda s: False),
    ({"who": {"$in": ["ann", "bo"]}}, lambda s: s["who"] in {"ann", "bo"}),
    ({"who": {"$nin": ["ann", "bo"]}}, lambda s: s["who"] not in {"ann", "bo"}),
    ({"who": {"$contains": "a"}}, lambda s: "a" in s["who"]),
    ({"seen": {"$contains": 2}}, lambda s: 2 in s["seen"]),
    ({"when": {"$gt": datetime(2026, 1, 3, tzinfo=UTC)}}, lambda s: s["when"].day > 3),
    ({"$or": [{"n": 1}, {"who": "cy"}]}, lambda s: s["n"] == 1 or s["who"] == "cy"),
    ({"$not": {"plan.done": True}, "n": {"$lt": 7}}, lambda s: not s["plan"]["done"] and s["n"] < 7),
    ({"$and": [{"who": "ann"}, {"n": {"$ne": 6}}]}, lambda s: s["who"] == "ann" and s["n"] != 6),
    ({"large": {"$gt": 1.5}}, lambda s: s["large"] > 1),
    ({"nothing.at.all": 1}, lambda s: False),
]


async def test_the_newest_state_that_a_filter_fits_is_found(opener):
    """The same one as by asking Python about each."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        states = [
            {
                "n": n, "who": ["ann", "bo", "cy", "dee"][n % 4], "seen": list(range(n % 4)), "large": 10 ** (400 * (n % 2)),
                "when": datetime(2026, 1, 1 + n % 5, 12, tzinfo=UTC), "metadata": {"x": n % 6},
                "plan": {"done": n % 3 == 0} | ({"note": None} if n % 5 == 2 else {"note": "x"} if n % 5 == 1 else {}),
            }
            for n in range(9)
        ]  # fmt: skip
        ids = await saved(checkpointer, "t", *states)
        for tree, fits in _FILTERS:
            expected = [one for one, state in zip(ids, states, strict=True) if fits(state)]
            found = await checkpointer.find_checkpoint("t", with_state_matching=tree)
            assert (found and found.id) == (expected[-1] if expected else None), tree
        assert await checkpointer.find_checkpoint("nowhere") is None


async def test_tags_and_times_narrow_what_is_found(opener):
    """All tags must be there; the times are exclusive. A failed one is found too."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        checkpointer = opener.checkpointer(store)
        times = [clock.now]
        ids = []
        for tags in ("a", ["a", "b"], ["b"], ["a", "b", "c"], ()):
            ids.append(await checkpointer.save("t", {"n": len(ids)}, tags=tags, status="failed"))
            times.append(clock.turn(seconds=1))
        for expected, asked in [
            (4, {}),
            (3, {"tags": "a"}),
            (3, {"tags": ["a", "b"]}),
            (None, {"tags": ["a", "z"]}),
            (1, {"tags": ["a", "b"], "before_timestamp": times[3]}),
            (2, {"before_timestamp": times[3]}),
            (None, {"before_timestamp": times[0]}),
            (None, {"after_timestamp": times[4]}),
            (4, {"after_timestamp": times[3].isoformat()}),
            (0, {"tags": "a", "with_state_matching": {"n": {"$lt": 1}}}),
            (None, {"tags": "b", "after_timestamp": times[1], "with_state_matching": {"n": 1}}),
        ]:
            found = await checkpointer.find_checkpoint("t", **asked)
            assert (found and found.id) == (None if expected is None else ids[expected]), asked


async def test_the_state_at_a_time_is_the_one_that_was_saved_last_by_then(opener):
    """Also where the clock went back: what was saved later is the newer one."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        checkpointer = opener.checkpointer(store)
        begin = clock.now
        (first,) = await saved(checkpointer, "t", {"n": 0})
        noon = clock.turn(hours=2)
        await saved(checkpointer, "t", {"n": 1}, {"n": 2})
        clock.turn(hours=-1)
        await saved(checkpointer, "t", {"n": 3})
        await checkpointer.create_branch(first, "side")
        await saved(checkpointer, "t", {"n": 4}, branch="side")
        for hours, branch, expected in [
            (0, None, 0), (0.99, None, 0), (1, None, 4), (1, "main", 3), (1.5, None, 4), (2, None, 4), (99, None, 4),
            (2, "main", 3), (2, "side", 4),
        ]:  # fmt: skip
            asked = begin + timedelta(hours=hours)
            assert await checkpointer.restore_at("t", asked, branch) == {"n": expected}, (hours, branch)
        assert await checkpointer.restore_at("t", noon.isoformat()) == {"n": 4}
        await refusal(NotFound, checkpointer.restore_at("t", begin - timedelta(microseconds=1)))
        await refusal(NotFound, checkpointer.restore_at("t", begin, "side"))
        await refusal(NotFound, checkpointer.restore_at("nowhere", begin))


async def test_replay_goes_over_each_state_on_the_way(opener):
    """Oldest first, from where a branch comes from; only what is on the way."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        states = [{"items": [{"id": n} for n in range(size)], "n": size} for size in (1, 2, 90, 91, 40)]
        ids = await saved(checkpointer, "t", *states)
        await checkpointer.create_branch(ids[2], "side")
        side = {"items": "another type", "n": None}
        (branched,) = await saved(checkpointer, "t", side, branch="side")

        async def replayed(**asked):
            return [(one.id, state) async for one, state in checkpointer.replay("t", **asked)]

        whole = list(zip(ids, states, strict=True))
        on_side = [*whole[:3], (branched, side)]
        assert await replayed() == whole
        assert await replayed(branch="side") == on_side
        assert await replayed(to_checkpoint=branched) == on_side
        assert await replayed(from_checkpoint=ids[1], to_checkpoint=ids[3]) == whole[1:4]
        assert await replayed(from_checkpoint=ids[2], branch="side") == on_side[2:]
        assert await replayed(branch="none") == []
        assert [one async for one in checkpointer.replay("nowhere")] == []
        for asked, kind, field in [
            ({"from_checkpoint": "none"}, NotFound, "from_checkpoint"),
            ({"to_checkpoint": "none"}, NotFound, "to_checkpoint"),
            ({"from_checkpoint": ids[3], "branch": "side"}, Invalid, "from_checkpoint"),
            ({"from_checkpoint": ids[3], "to_checkpoint": ids[1]}, Invalid, "from_checkpoint"),
        ]:
            error = await refusal(kind, replayed(**asked))
            assert error.details["field"] == field


async def test_a_state_is_stored_as_it_is_without_compression(opener):
    """And either kind reads the other's."""
    async with opener() as store:
        plain = opener.checkpointer(store, CheckpointConfig(compression="none"))
        packed = opener.checkpointer(store)
        text = "the same words again and again " * 200
        one, other = await plain.save("a", {"t": text}), await packed.save("b", {"t": text})
        assert (await plain.get(one)).size > len(text) > 10 * (await plain.get(other)).size
        assert await plain.restore(other) == await packed.restore(one) == {"t": text}
