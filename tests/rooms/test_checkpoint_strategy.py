"""When a step is saved; the decisions are pinned here."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.rooms.checkpoints.strategy import (
    CheckpointStrategy,
    Decider,
    Decision,
    RecoveryPolicy,
    Seen,
    Step,
    decide,
    expected_loss,
    shows_tool_result,
)

RULE = CheckpointConfig(checkpoint_interval=5, checkpoint_seconds=60)
SECOND = 1_000_000
SAVED = 1_000 * SECOND
ADAPTIVE = CheckpointStrategy.ADAPTIVE
laws = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def decided(strategy, steps_before=0, seconds=0.0, share=0.0, tool=False, error=False, rule=RULE):
    """The decision on a step so many seconds after the last checkpoint, after so many steps that were not saved."""
    step = Step(SAVED + round(seconds * SECOND), share, tool, error)
    return decide(CheckpointStrategy(strategy), rule, Seen(steps_before, SAVED), step)


@pytest.mark.parametrize(
    ("strategy", "steps_before", "seconds", "share", "tool", "error", "save", "reason"),
    [
        ("manual", 99, 9999, 1.0, True, True, False, "manual"),
        ("every_step", 0, 0, 0.0, False, False, True, "every_step"),
        ("interval", 3, 9999, 1.0, True, True, False, "not_yet"),
        ("interval", 4, 0, 0.0, False, False, True, "interval"),
        ("interval", 7, 0, 0.0, False, False, True, "interval"),
        ("time", 99, 59.9, 1.0, True, True, False, "not_yet"),
        ("time", 0, 60, 0.0, False, False, True, "time"),
        ("time", 0, -1, 0.0, False, False, True, "time"),
        # Events are saved at once, even when nothing else changed.
        ("adaptive", 0, 0, 0.0, True, False, True, "tool"),
        ("adaptive", 0, 0, 0.0, False, True, True, "error"),
        ("adaptive", 0, 0, 0.0, True, True, True, "error"),
        # What did not change cannot be lost.
        ("adaptive", 99, 9999, 0.0, False, False, False, "unchanged"),
        # loss = share / 0.25 + steps / 5 + seconds / 60, the step itself counted.
        ("adaptive", 0, 0, 0.19, False, False, False, "not_yet"),
        ("adaptive", 0, 0, 0.21, False, False, True, "loss"),
        ("adaptive", 0, 0, 1.0, False, False, True, "loss"),
        ("adaptive", 3, 0, 0.01, False, False, False, "not_yet"),
        ("adaptive", 4, 0, 0.01, False, False, True, "loss"),
        ("adaptive", 0, 40, 0.01, False, False, False, "not_yet"),
        ("adaptive", 0, 48, 0.01, False, False, True, "loss"),
        ("adaptive", 1, 15, 0.05, False, False, False, "not_yet"),
        ("adaptive", 1, 15, 0.1, False, False, True, "loss"),
        ("adaptive", 1, 30, 0.05, False, False, True, "loss"),
        ("adaptive", 0, -1, 0.01, False, False, True, "loss"),
    ],
)
def test_decisions(strategy, steps_before, seconds, share, tool, error, save, reason):
    assert decided(strategy, steps_before, seconds, share, tool, error) == Decision(save, reason)


def test_the_loss_is_the_documented_sum():
    step = Step(SAVED + 15 * SECOND, 0.05)
    assert expected_loss(RULE, Seen(1, SAVED), step) == pytest.approx(0.05 / 0.25 + 2 / 5 + 15 / 60)


@pytest.mark.parametrize(
    ("strategy", "save"),
    [("manual", False), ("every_step", True), ("interval", False), ("time", True), ("adaptive", True)],
)
def test_the_first_step_of_a_thread(strategy, save):
    assert decide(CheckpointStrategy(strategy), RULE, Seen(), Step(SAVED)).save is save


@pytest.mark.parametrize("strategy", list(CheckpointStrategy))
def test_with_auto_checkpoint_off_nothing_is_saved(strategy):
    off = CheckpointConfig(auto_checkpoint=False)
    assert decided(strategy, 99, 9999, 1.0, True, True, off) == Decision(False, "auto_off")


@laws
@given(st.integers(0, 20), st.floats(0, 200), st.floats(0.001, 1), st.floats(0, 1), st.integers(0, 5), st.floats(0, 60))
def test_what_is_worth_saving_stays_so_when_more_is_at_stake(
    steps, seconds, share, more_share, more_steps, more_seconds
):
    if decided(ADAPTIVE, steps, seconds, share).save:
        assert decided(ADAPTIVE, steps + more_steps, seconds + more_seconds, min(1, share + more_share)).save


@laws
@given(st.lists(st.tuples(st.floats(0.001, 1), st.integers(0, 20 * SECOND)), max_size=40))
def test_adaptive_never_lets_more_than_the_settings_allow_be_lost(steps):
    decider, now, since, last = Decider(ADAPTIVE, RULE), SAVED, 0, None
    for share, pause in steps:
        now += pause
        since += 1
        if decider.step(now, changed_share=share).save:
            decider.saved(now)
            since, last = 0, now
        assert since < RULE.checkpoint_interval
        assert now - last < RULE.checkpoint_seconds * SECOND


def run(strategy, count, rule=RULE, **step):
    """Which of so many steps, one a second, are saved."""
    decider, saved = Decider(CheckpointStrategy(strategy), rule), []
    for n in range(1, count + 1):
        if decider.step(SAVED + n * SECOND, changed_share=step.get("share", 0.0)).save:
            saved.append(n)
            decider.saved(SAVED + n * SECOND)
    return saved


def test_steps_of_a_thread():
    assert run("interval", 12) == [5, 10]
    assert run("every_step", 3) == [1, 2, 3]
    assert run("manual", 100) == []
    assert run("time", 130) == [1, 61, 121]
    assert run("adaptive", 9, share=0.01) == [1, 6]
    assert run("adaptive", 100) == [1]


def test_a_step_that_could_not_be_saved_is_asked_again():
    decider = Decider(CheckpointStrategy.INTERVAL, CheckpointConfig(checkpoint_interval=2))
    assert [decider.step(SAVED, changed_share=0).save for _ in range(4)] == [False, True, True, True]


def test_names_of_the_choices():
    assert [one.name for one in CheckpointStrategy] == ["MANUAL", "EVERY_STEP", "INTERVAL", "TIME", "ADAPTIVE"]
    assert [one.name for one in RecoveryPolicy] == ["LATEST", "LATEST_GOOD", "TAGGED", "ASK"]


@pytest.mark.parametrize(
    "item",
    [
        {"role": "tool", "content": "42"},
        {"role": "function", "content": "42"},
        {"type": "tool", "content": "42"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
        {"role": "assistant", "content": [{"type": "text"}, {"type": "tool_use"}]},
        {"role": "user", "content": ({"type": "tool_result"},)},
        SimpleNamespace(type="tool", content="42"),
        SimpleNamespace(type="ai", content="", tool_calls=[{"name": "search"}]),
    ],
)
def test_messages_that_tell_of_a_tool(item):
    assert shows_tool_result(item)


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "tool"},
        {"role": "assistant", "content": "done", "tool_calls": []},
        {"role": "assistant", "content": [{"type": "text", "text": "tool_use"}], "tool_calls": None},
        {"role": ["tool"], "type": {"tool": 1}, "content": 7},
        SimpleNamespace(type="ai", content="", tool_calls=[]),
        "tool", 7, None, ["tool"], {},
    ],
)  # fmt: skip
def test_messages_that_do_not(item):
    assert not shows_tool_result(item)
