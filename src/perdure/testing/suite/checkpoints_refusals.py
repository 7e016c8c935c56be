"""Checkpoints: whatever is wrong with a call, its error names the parameter, and nothing was changed."""

from typing import Any

import pytest

from perdure import CheckpointConfig, RecoveryPolicy
from perdure.testing.suite.checkpoint_tools import contents, saved
from perdure.testing.suite.tools import refusal
from perdure.values.errors import Invalid, NotFound, OverLimit

_IDS = [7, b"t", ["t"], "", " \n", "a\0b", "\ud800", "x" * 513]
_ID = [None, *_IDS]
_NAMES = [7, b"t", "", " ", "a\0b", "\ud800", "x" * 1_025]
_NAME = [None, *_NAMES]
_TAGS = [7, None, [7], [None], [[]], [""], ["a\0b"], "", ["x" * 1_025], [str(n) for n in range(257)]]
_TIMES = [7, "noon", "", [], 1.5]
_TIME = [None, *_TIMES]
_LIMIT = [-1, 1_001, 1.5, "1", None, True]
_MAPPINGS = [7, "x", [], {"a": object()}, {"a": "x" * (4 * 1024 * 1024 + 1)}]
_STATE = [None, 7, "x", [], {1: 2}, {"a": object()}, {"a": {"b": [lambda: 1]}}]

WRONG: dict[str, dict[str, list[Any]]] = {
    "save": {
        "thread_id": _ID, "state": _STATE, "metadata": _MAPPINGS, "tags": _TAGS, "status": ["fine", "", 0, None, []],
        "parent": _IDS, "branch": _NAME, "run_id": _IDS, "node": _IDS, "idempotency_key": _IDS,
    },
    "step": {"thread_id": _ID, "state": _STATE, "node": _IDS, "metadata": _MAPPINGS},
    "guard": {"thread_id": _ID, "state": _STATE[:5]},
    "get": {"checkpoint_id": _ID},
    "latest": {"thread_id": _ID, "branch": _NAME},
    "latest_state": {"thread_id": _ID, "branch": _NAME},
    "list_threads": {"limit": _LIMIT, "cursor": [7, "", "x", b"x"]},
    "get_history": {"thread_id": _ID, "branch": _NAMES, "limit": _LIMIT, "cursor": [7, "", "x", "-1", "٣", "9" * 30]},
    "find_checkpoint": {
        "thread_id": _ID, "tags": _TAGS, "before_timestamp": _TIMES, "after_timestamp": _TIMES,
        "with_state_matching": [7, [], {"$x": 1}, {"a": {"$gt": None}}, {"a": object()}, {7: 1}],
    },
    "restore": {"checkpoint_id": _ID},
    "restore_at": {"thread_id": _ID, "timestamp": _TIME, "branch": _NAMES},
    "replay": {"thread_id": _ID, "from_checkpoint": _IDS, "to_checkpoint": _IDS, "branch": _NAME},
    "recover": {"thread_id": _ID, "policy": ["x", 7, None, []], "tags": _TAGS},
    "create_branch": {"from_checkpoint": _ID, "branch_name": _NAME, "metadata": _MAPPINGS},
    "branches": {"thread_id": _ID},
    "compare": {"checkpoint_a": _ID, "checkpoint_b": _ID},
    "merge": {
        "thread_id": _ID, "into": _NAME, "source": _NAME, "base": _IDS, "resolve": ["x", 7, []],
        "metadata": _MAPPINGS, "tags": _TAGS,
    },
    "apply_retention": {"thread_id": _IDS, "now": _TIMES},
    "delete_thread": {"thread_id": _ID},
    "delete_for_runs": {"run_ids": [7, None, [7], [None], [[]], "", [""], [str(n) for n in range(1_001)]]},
    "copy_thread": {"source_thread_id": _ID, "target_thread_id": _ID},
    "export_thread": {"thread_id": _ID},
    "import_thread": {"data": [7, None, "x", b"", b"x", b"{}", b"\xff"], "thread_id": _IDS},
    "verify": {"thread_id": _IDS},
    "register_schema": {"thread_id": _ID, "schema": [7, None, {"type": 7}, object]},
}  # fmt: skip
"""For each parameter of each verb, values that it cannot have."""


async def _call(checkpointer: Any, verb: str, given: dict[str, Any]) -> Any:
    if verb == "replay":
        return [one async for one in checkpointer.replay(**given)]
    if verb == "guard":
        async with checkpointer.guard(**given):
            return None
    if verb == "register_schema":
        return checkpointer.register_schema(**given)
    return await getattr(checkpointer, verb)(**given)


async def test_each_wrong_parameter_is_named_and_nothing_is_changed(opener):
    """Whatever else is right."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store, strategy="every_step")
        a, b = await saved(checkpointer, "t", {"n": 1}, {"n": 2})
        await checkpointer.create_branch(a, "side")
        exported = await checkpointer.export_thread("t")
        good: dict[str, dict[str, Any]] = {
            "create_branch": {"from_checkpoint": a, "branch_name": "new"},
            "compare": {"checkpoint_a": a, "checkpoint_b": b},
            "merge": {"thread_id": "t", "into": "main", "source": "side"},
            "restore_at": {"thread_id": "t", "timestamp": "2030-01-01"},
            "recover": {"thread_id": "t", "policy": "tagged", "tags": "a"},
            "copy_thread": {"source_thread_id": "t", "target_thread_id": "u"},
            "import_thread": {"data": exported, "thread_id": "u"},
            "register_schema": {"thread_id": "t", "schema": {}},
        }
        wrong = []
        before = await contents(store)
        for verb, parameters in WRONG.items():
            for name, values in parameters.items():
                usual = {"thread_id": "t", "state": {"n": 3}} if "state" in parameters else {"thread_id": "t"}
                given = {key: value for key, value in usual.items() if key in parameters}
                for value in values:
                    call = {**good.get(verb, given), name: value}
                    outcome = await _outcome(_call(checkpointer, verb, call))
                    if outcome.split(".")[0] != name:
                        wrong.append(f"{verb}({name}={str(value)[:40]!r}): {outcome}")
        for verb in ("tag", "untag"):
            for value in _ID:
                assert await _outcome(getattr(checkpointer, verb)(value, "x")) == "checkpoint_id"
            for value in ((), (7,), ([],), ("",), ("x" * 1_025,), tuple(map(str, range(257)))):
                assert await _outcome(getattr(checkpointer, verb)(a, *value)) == "tags"
        assert not wrong, "\n".join(wrong)
        assert await contents(store) == before


async def _outcome(call: Any) -> str:
    """The field that an ``Invalid`` (or ``OverLimit``) names, or what happened instead."""
    try:
        answer = await call
    except Invalid as error:
        return error.field
    except Exception as error:  # broad: it is told as the outcome
        return f"raised {error!r}"
    return f"answered {answer!r}"


async def test_what_is_not_there_cannot_be_changed_or_read(opener):
    """Every verb that names a checkpoint, a thread or a branch."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        (made,) = await saved(checkpointer, "t", {"n": 1})
        before = await contents(store)
        for field, verb, *given in [
            ("checkpoint_id", "restore", "none"), ("checkpoint_id", "tag", "none", "a"),
            ("checkpoint_id", "untag", "none", "a"), ("checkpoint_id", "create_branch", "none", "b"),
            ("checkpoint_a", "compare", "none", made), ("checkpoint_b", "compare", made, "none"),
            ("into", "merge", "t", "none", "main"), ("source", "merge", "t", "main", "none"),
            ("base", "merge", "t", "main", "main", "none"), ("into", "merge", "none", "main", "main"),
            ("branch", "save", "t", {}, None, (), "ok", None, "none"), ("branch", "save", "new", {}, None, (), "ok", None, "none"),
            ("thread_id", "apply_retention", "none"), ("thread_id", "copy_thread", "none", "u"),
            ("thread_id", "export_thread", "none"), ("thread_id", "verify", "none"),
        ]:  # fmt: skip
            error = await refusal(NotFound, getattr(checkpointer, verb)(*given))
            assert error.details["field"] == field, verb
        for empty, verb, *given in [
            (False, "delete_thread", "none"), (0, "delete_for_runs", "none"), ([], "branches", "none"),
            (None, "recover", "none"),
        ]:  # fmt: skip
            assert await getattr(checkpointer, verb)(*given) == empty
        assert await contents(store) == before


async def test_recovery_by_asking_takes_only_an_answer_that_is_one(opener):
    """A callback that is none, or that answers something else, is refused."""
    async with opener() as store:
        checkpointer = opener.checkpointer(store)
        await saved(checkpointer, "t", {"n": 1})
        for ask in (None, 7, lambda _: 7, lambda _: b"x"):
            error = await refusal(Invalid, checkpointer.recover("t", RecoveryPolicy.ASK, ask=ask))
            assert error.field == "ask"


async def test_settings_of_another_kind_are_refused(opener):
    """Where the checkpointer is made."""
    async with opener() as store:
        for field, value in [("config", {}), ("config", 7), ("strategy", "often"), ("strategy", 7)]:
            with pytest.raises(Invalid) as error:
                opener.checkpointer(store, **{field: value})
            assert error.value.field == field
        with pytest.raises(OverLimit) as error:
            opener.checkpointer(store, CheckpointConfig(keep_minimum=10**9))
        assert error.value.field == "keep_minimum"
