"""Checkpoints step by step: what each strategy saves, failed states, recovery, and what restored states must look like."""

import dataclasses
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict

import msgspec
import pytest

from perdure import CheckpointConfig, CheckpointStrategy, RecoveryPolicy
from perdure.testing.suite.checkpoint_tools import restored, rows, saved
from perdure.testing.suite.tools import TurnedClock, refusal
from perdure.values.errors import Invalid

two_drivers = pytest.mark.parametrize("opener", ["sqlite", "postgres-blocking"], indirect=True)
"""For what no engine has to do with."""

_SEVEN = [{"n": n, "filler": "x" * 1_000} for n in range(7)]


# -- step --------------------------------------------------------------------------------------------------------------------


async def test_a_strategy_decides_which_steps_are_saved(opener):
    """The others leave nothing."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        for number, (strategy, settings, expected) in enumerate([
            ("manual", {}, []),
            ("every_step", {}, [0, 1, 2, 3, 4, 5, 6]),
            ("interval", {"checkpoint_interval": 3}, [2, 5]),
            ("time", {"checkpoint_seconds": 2}, [0, 2, 4, 6]),
            ("every_step", {"auto_checkpoint": False}, []),
        ]):  # fmt: skip
            checkpointer = opener.checkpointer(store, CheckpointConfig(**settings), strategy=strategy)
            thread, made = f"t{number}", []
            for state in _SEVEN:
                made.append(await checkpointer.step(thread, state, f"node {state['n']}"))
                clock.turn(seconds=1)
            assert [number for number, one in enumerate(made) if one is not None] == expected
            history = [(one.id, one.node, one.status) for one in await checkpointer.get_history(thread)]
            assert history == [(made[number], f"node {number}", "ok") for number in reversed(expected)]
            assert await restored(checkpointer, [made[at] for at in expected]) == [_SEVEN[at] for at in expected]


async def test_the_adaptive_strategy_saves_when_a_loss_would_be_dear(opener):
    """Much changed, a tool acted, an error came, or time passed; what did not change is never worth it."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        checkpointer = opener.checkpointer(store, CheckpointConfig(checkpoint_seconds=60, checkpoint_interval=10))
        state: dict[str, Any] = {"messages": [{"role": "user", "content": "x" * 2_000}], "n": 0}
        tool = {"role": "tool", "content": "sent"}
        for name, seconds, change, more, reason in [
            ("the first", 0, {}, {}, "loss"),
            ("nothing new", 999, {}, {}, None),
            ("a little", 1, {"n": 1}, {}, "loss"),
            ("a little, at once", 0, {"n": 2}, {}, None),
            ("a tool's message", 0, {"messages": [*state["messages"], tool]}, {}, "tool"),
            ("the same tool's message", 0, {"n": 3}, {}, None),
            ("a tool that is told of", 0, {"n": 4}, {"tool_side_effect": True}, "tool"),
            ("much", 0, {"plan": "y" * 2_000}, {}, "loss"),
            ("a minute", 60, {"n": 5}, {}, "loss"),
            ("an error", 0, {"n": 6}, {"error": ValueError("no")}, "error"),
        ]:
            clock.turn(seconds=seconds)
            state = {**state, **change}
            made = await checkpointer.step("t", state, **more)
            assert (made is not None) is (reason is not None), name
            if made is not None:
                found = await checkpointer.get(made)
                assert (found.metadata["strategy"], found.metadata["reason"]) == ("adaptive", reason), name
        assert found.status == "failed"
        assert found.metadata["error"] == {"type": "ValueError", "message": "no"}


async def test_counting_goes_on_from_any_save_and_from_any_handle(opener):
    """An explicit save begins the count anew. Threads are counted apart."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store, CheckpointConfig(checkpoint_interval=3), strategy="interval")
        assert [await checkpointer.step("t", {"n": n}) for n in range(2)] == [None, None]
        await checkpointer.save("t", {"n": "saved"})
        assert [await checkpointer.step("t", {"n": n}) is None for n in range(2)] == [True, True]
        assert await checkpointer.step("u", {"n": 0}) is None
        async with store.transaction() as t:
            assert await checkpointer.using(t).step("t", {"n": 3}, metadata={"by": "hand"}) is not None
        assert (await checkpointer.latest("t")).metadata["by"] == "hand"
        assert checkpointer.using(store).strategy is CheckpointStrategy.INTERVAL


# -- errors ------------------------------------------------------------------------------------------------------------------


async def test_a_failed_state_is_saved_and_the_error_goes_on(opener):
    """As the state is then. Nothing is saved when nothing fails; what cannot be saved is told with the error."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        state: dict[str, Any] = {"done": []}
        async with checkpointer.guard("t", state) as inside:
            inside["done"].append("one")
        assert await checkpointer.latest("t") is None
        with pytest.raises(KeyError) as caught:
            async with checkpointer.guard("t", state, node="tools"):
                state["done"].append("two")
                raise KeyError("gone")
        assert not hasattr(caught.value, "__notes__")
        found = await checkpointer.latest("t")
        assert (found.status, found.node) == ("failed", "tools")
        assert found.metadata["error"] == {"type": "KeyError", "message": "'gone'"}
        assert await checkpointer.latest_state("t") == {"done": ["one", "two"]}
        assert list(await checkpointer.get_history("t")) == []
        with pytest.raises(ZeroDivisionError) as caught:
            async with checkpointer.guard("t", state):
                state["bad"] = object()
                raise ZeroDivisionError
        assert "not saved" in caught.value.__notes__[0]
        assert "state.bad" in caught.value.__notes__[0]
        assert len(await checkpointer.get_history("t", include_failed=True)) == 1


async def test_recovery_takes_what_its_policy_says(opener):
    """The newest, the newest good one, the newest with all tags, or what is picked."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        ids = []
        for number, (status, tags) in enumerate([("ok", "a"), ("ok", ["a", "b"]), ("completed", ()), ("failed", "a")]):
            ids.append(await checkpointer.save("t", {"n": number}, tags=tags, status=status))
        (other,) = await saved(checkpointer, "u", {"n": "u"})
        offered = []

        def pick(candidates):
            offered.extend(candidates)
            return candidates[-1]

        for policy, more, expected in [
            ("latest", {}, 3),
            (RecoveryPolicy.LATEST, {}, 3),
            ("latest_good", {}, 2),
            ("tagged", {"tags": "a"}, 3),
            ("tagged", {"tags": ["b", "a"]}, 1),
            ("tagged", {"tags": "z"}, None),
            ("ask", {"ask": pick}, 0),
            ("ask", {"ask": lambda _: ids[1]}, 1),
            ("ask", {"ask": lambda _: None}, None),
            ("ask", {"ask": lambda _: other}, None),
            ("ask", {"ask": lambda _: "none"}, None),
        ]:
            found = await checkpointer.recover("t", policy, **more)
            assert (found and (found[0].id, found[1])) == (
                expected if expected is None else (ids[expected], {"n": expected})
            )
        assert [one.id for one in offered] == ids[::-1]
        assert (await checkpointer.recover("t"))[0].id == ids[2]


# -- schemas -----------------------------------------------------------------------------------------------------------------


class Message(msgspec.Struct):
    id: str
    content: str | None = None


@dataclasses.dataclass
class Plan:
    goal: str
    steps: list[str] = dataclasses.field(default_factory=list)


class Struct(msgspec.Struct):
    messages: list[Message]
    plan: Plan
    scores: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = {}
    when: datetime | None = None


class Typed(TypedDict):
    n: int
    name: str


_JSON = {
    "type": "object",
    "required": ["n"],
    "properties": {
        "n": {"type": "integer"},
        "list": {"items": {"$ref": "#/$defs/item"}},
        "a.b": {"properties": {"c": {"type": "string"}}},
    },
    "$defs": {"item": {"type": "object", "required": ["id"]}},
}
_GOOD = {
    "json": {"n": 1, "list": [{"id": 1}], "else": b"anything"},
    "type": {
        "messages": [{"id": "m1"}, {"id": "m2", "content": "x"}], "plan": {"goal": "g"}, "scores": {"a": 1.0},
        "when": datetime(2026, 1, 1, tzinfo=UTC), "else": 1,
    },
    "typed": {"n": 1, "name": "x"},
}  # fmt: skip
_BAD = [
    ("json", {"n": "x", "list": [{"id": 1}, 7, {}], "a.b": {"c": 1}}, ["n", "list[1]", "list[2]", '["a.b"].c']),
    ("json", {}, ["state"]),
    ("type", {"plan": {"goal": 7, "steps": ["a", 1, 2]}}, ["messages", "plan.goal", "plan.steps[1]", "plan.steps[2]"]),
    (
        "type",
        {**_GOOD["type"], "messages": [{"id": 1}, {"content": 5}, 3], "scores": {"a": 1.0, "b": -1, "c d": "x"}},
        ["messages[0].id", "messages[1].id", "messages[1].content", "messages[2]", "scores.b", 'scores["c d"]'],
    ),
    ("type", {**_GOOD["type"], "when": 7}, ["when"]),
    ("typed", {"n": "x"}, ["n", "name"]),
]


@two_drivers
async def test_a_state_that_does_not_fit_its_schema_is_refused_with_each_path(opener):
    """By JSON Schema and by type; the state itself is there all the same."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        for name, schema in (("json", _JSON), ("type", Struct), ("typed", Typed)):
            checkpointer.register_schema(name, schema)
            (made,) = await saved(checkpointer, name, _GOOD[name])
            assert await checkpointer.restore(made) == _GOOD[name]
        for name, state, paths in _BAD:
            (made,) = await saved(checkpointer, name, state)
            for call in (checkpointer.restore(made), checkpointer.restore_at(name, "2099-01-01")):
                error = await refusal(Invalid, call)
                assert error.field == "state"
                assert sorted(error.details["paths"]) == sorted(paths)
                assert all(path in str(error) for path in paths)
            assert await checkpointer.restore(made, validate_schema=False) == state
            assert await checkpointer.restore_at(name, "2099-01-01", validate_schema=False) == state


@two_drivers
async def test_a_schema_stands_for_a_thread_or_for_those_that_begin_so(opener):
    """The longest name that fits counts."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        checkpointer.register_schema("a:", {"required": ["one"]})
        checkpointer.register_schema("a:b:*", {"required": ["two"]})
        checkpointer.register_schema("a:b:c", {"required": ["three"]})
        for thread, wanted in [("a:x", "one"), ("a:b:x", "two"), ("a:b:c", "three"), ("a:b:cd", "two"), ("b", None)]:
            (made,) = await saved(checkpointer, thread, {})
            if wanted is None:
                assert await checkpointer.restore(made) == {}
            else:
                assert repr(wanted) in str(await refusal(Invalid, checkpointer.restore(made)))
        checkpointer.register_schema("a:x", {"required": []})
        assert await checkpointer.restore((await checkpointer.latest("a:x")).id) == {}


@two_drivers
async def test_a_schema_that_refers_elsewhere_is_refused_and_nothing_is_fetched(opener):
    """A reference is looked up in the schema only."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        checkpointer.register_schema("t", {"$ref": "http://127.0.0.1:9/schema.json"})
        (made,) = await saved(checkpointer, "t", {"n": 1})
        assert (await refusal(Invalid, checkpointer.restore(made))).field == "schema"
        for schema in ({"type": 7}, {"properties": 7}, int, object):
            with pytest.raises(Invalid) as error:
                checkpointer.register_schema("t", schema)
            assert error.value.field == "schema"
        assert (await rows(store))["checkpoints"] == 1
