"""When ``step()`` writes a checkpoint, and which one recovery takes.

``ADAPTIVE`` asks what a crash would cost now, in checkpoints::

    loss = changed_share / WORTH_SHARE + steps / checkpoint_interval + seconds / checkpoint_seconds

and saves once it reaches 1. Each term is a part of what makes a checkpoint worth its price by itself:

- ``changed_share / WORTH_SHARE``: the share of the state that is new since the last checkpoint is what a crash takes.
  A save writes only what changed, so its price is mostly that of one commit; a quarter of a state is worth that.
- ``steps / checkpoint_interval`` and ``seconds / checkpoint_seconds``: the steps taken and the time passed since then
  are what has to be done again (model calls, mostly). The two settings say from where on that is too much, as they
  do for ``INTERVAL`` and ``TIME``.

They add up because a crash loses all of it together. A state that did not change has no loss, however long ago it
was saved: restoring the last checkpoint gives the same. Two events save at once, whatever the loss: a tool was called,
for what it did outside is not undone, and done twice when its step is repeated; and an error, for what follows it may
be the end of the process.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, Protocol, cast

import msgspec

from perdure.values.clock import Micros

WORTH_SHARE = 0.25
"""The share of a state whose loss alone is worth a checkpoint."""
_SECOND = 1_000_000
"""Microseconds."""
_TOOL_WORDS = frozenset({"tool", "function"})
"""Roles and types of messages with a tool's result; "function" is the older word for it."""
_TOOL_PARTS = frozenset({"tool_call", "tool_use", "tool_result"})
"""Types of parts of a message's content that are about a tool."""


class CheckpointStrategy(StrEnum):
    """When ``step()`` saves: never, always, each so many calls, each so many seconds, or when losing is expensive."""

    MANUAL = "manual"
    EVERY_STEP = "every_step"
    INTERVAL = "interval"
    TIME = "time"
    ADAPTIVE = "adaptive"


class RecoveryPolicy(StrEnum):
    """What ``recover`` takes: the newest, the newest good one, the newest with all tags, or what a callback picks."""

    LATEST = "latest"
    LATEST_GOOD = "latest_good"
    TAGGED = "tagged"
    ASK = "ask"


Reason = Literal[
    "auto_off", "manual", "every_step", "interval", "time", "tool", "error", "loss", "unchanged", "not_yet"
]  # fmt: skip


class Rule(Protocol):
    """What a strategy is told; a ``CheckpointConfig`` is one."""

    @property
    def auto_checkpoint(self) -> bool: ...  # noqa: D102
    @property
    def checkpoint_interval(self) -> int: ...  # noqa: D102
    @property
    def checkpoint_seconds(self) -> float: ...  # noqa: D102


class Seen(msgspec.Struct, frozen=True):
    """What is remembered of a thread: the steps since its last checkpoint, and when that was (None: there is none)."""

    steps: int = 0
    saved_at: Micros | None = None


class Step(msgspec.Struct, frozen=True):
    """One call of ``step()``. ``changed_share`` (0 to 1) is against the last checkpoint, 1 when there is none."""

    now: Micros
    changed_share: float = 1.0
    tool_side_effect: bool = False
    error: bool = False


class Decision(msgspec.Struct, frozen=True):
    """Whether to save, and why."""

    save: bool
    reason: Reason


def decide(strategy: CheckpointStrategy, rule: Rule, seen: Seen, step: Step) -> Decision:
    """Whether this step is saved, given what was seen of the thread before it.

    ``INTERVAL`` saves each ``checkpoint_interval``-th call since the last checkpoint, ``TIME`` the first call and then
    the first after ``checkpoint_seconds``. A clock that went back counts as time that is up.
    """
    if not rule.auto_checkpoint:
        return Decision(False, "auto_off")
    if strategy is CheckpointStrategy.MANUAL:
        return Decision(False, "manual")
    if strategy is CheckpointStrategy.EVERY_STEP:
        return Decision(True, "every_step")
    if strategy is CheckpointStrategy.INTERVAL:
        return _when(seen.steps + 1 >= rule.checkpoint_interval, "interval")
    if strategy is CheckpointStrategy.TIME:
        return _when(_time(rule, seen, step) >= 1, "time")
    if step.error:
        return Decision(True, "error")
    if step.tool_side_effect:
        return Decision(True, "tool")
    if step.changed_share <= 0 and seen.saved_at is not None:
        return Decision(False, "unchanged")
    return _when(expected_loss(rule, seen, step) >= 1, "loss")


def expected_loss(rule: Rule, seen: Seen, step: Step) -> float:
    """What a crash after this step would cost, in checkpoints: see the module's formula."""
    share = min(max(step.changed_share, 0.0), 1.0)
    return share / WORTH_SHARE + (seen.steps + 1) / rule.checkpoint_interval + _time(rule, seen, step)


def _when(due: bool, reason: Reason) -> Decision:
    return Decision(True, reason) if due else Decision(False, "not_yet")


def _time(rule: Rule, seen: Seen, step: Step) -> float:
    """The time since the last checkpoint as a share of ``checkpoint_seconds``; 1 when it cannot be told."""
    if seen.saved_at is None or step.now < seen.saved_at:
        return 1.0
    return (step.now - seen.saved_at) / _SECOND / rule.checkpoint_seconds


# -- a thread's steps --------------------------------------------------------------------------------------------------


class Decider:
    """Decides for the steps of one thread, and remembers what this process has seen of it."""

    def __init__(self, strategy: CheckpointStrategy, rule: Rule) -> None:
        self._strategy = strategy
        self._rule = rule
        self._seen = Seen()

    def step(
        self, now: Micros, *, changed_share: float, tool_side_effect: bool = False, error: bool = False
    ) -> Decision:
        """Counts a step and says whether to save it; until ``saved`` is told, it counts as not saved."""
        decision = decide(self._strategy, self._rule, self._seen, Step(now, changed_share, tool_side_effect, error))
        self._seen = Seen(self._seen.steps + 1, self._seen.saved_at)
        return decision

    def saved(self, now: Micros) -> None:
        """Begins to count anew: a checkpoint was saved."""
        self._seen = Seen(0, now)


# -- tools -------------------------------------------------------------------------------------------------------------


def shows_tool_result(item: Any) -> bool:
    """Whether an item that is new in a list is a tool's message, a call of one, or has a part that is about one."""
    if _is_one_of(item, "role", _TOOL_WORDS) or _is_one_of(item, "type", _TOOL_WORDS) or _has_calls(item):
        return True
    content = _field(item, "content")
    if not isinstance(content, list | tuple):
        return False
    return any(_is_one_of(part, "type", _TOOL_PARTS) for part in cast("Sequence[Any]", content))


def _has_calls(item: Any) -> bool:
    calls = _field(item, "tool_calls")
    return isinstance(calls, list | tuple) and len(cast("Sequence[Any]", calls)) > 0


def _is_one_of(item: Any, name: str, words: frozenset[str]) -> bool:
    found = _field(item, name)
    return isinstance(found, str) and found in words


def _field(item: Any, name: str) -> Any:
    """A mapping's value, or an object's attribute; None when it has none."""
    return cast("Mapping[str, Any]", item).get(name) if isinstance(item, Mapping) else getattr(item, name, None)
