"""Our messages on their way out, in an order that providers take.

A store holds what happened: a process may have died between a call and its result, a result may have been deleted or
have come late. Providers refuse such requests, so for all formats alike

- results stand right after the assistant's turn with their calls. Assistant messages that follow a call belong to its
  turn as long as a result of the turn is still to come;
- a call that nothing answers is answered with ``UNAVAILABLE``, as an error;
- a result that answers no call, or one that was answered before, becomes the user's words, or is left out when it
  has none (blank, or an item of the provider);
- of calls with the same id, a result answers the newest before it that is open.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple, cast

from perdure.rooms.conversations.content import (
    Content,
    FilePart,
    OpaquePart,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    tool_calls,
    tool_results,
)  # fmt: skip
from perdure.rooms.conversations.draft import MessageLike

Json = dict[str, Any]

UNAVAILABLE = "The result of this call is not available."
"""What stands for the result of a call that nothing answers."""

_STAYS = -1
"""In the place of a calling turn: the result stays where it is, its call may be behind a reference."""
_SHELL = [{"stdout": "", "stderr": UNAVAILABLE, "outcome": {"type": "exit", "exit_code": 1}}]
_NO_OUTPUT: dict[str, Json | None] = {
    "local_shell_call": {"type": "local_shell_call_output", "output": UNAVAILABLE},
    "shell_call": {"type": "shell_call_output", "output": _SHELL},
    "apply_patch_call": {"type": "apply_patch_call_output", "status": "failed", "output": UNAVAILABLE},
    "computer_call": None,
}
"""The output for an opaque call that nothing answers; None where there is none in words, and the call is left out."""


class Turn(NamedTuple):
    """One message of ours on its way out; ``own`` is what the format itself has left in its metadata."""

    role: str
    name: str | None
    content: Content
    own: Json


def turns(messages: Iterable[MessageLike], form: str) -> Iterator[Turn]:
    """The messages as turns of one kind each (results, with ``role="tool"``, or anything else), results after calls.

    Opaque items of other formats are left out. A tool's message of text only answers ``metadata["tool_call_id"]``,
    else the oldest call that is still open; when there is none, it becomes the user's words.
    """
    flat = [piece for turn in _attached(messages, form) for piece in _pieces(turn, form)]
    goals = _goals(flat)
    answers: dict[int, list[int]] = {}
    for place, found in goals.items():
        for caller in found:
            if caller is not None:
                answers.setdefault(caller, []).append(place)
    missing = _missing(flat, goals)
    block: list[int] = []
    for place, turn in enumerate(flat):
        if block and (turn.role != "assistant" or all(place > max(answers.get(one, [-1])) for one in block)):
            yield from _closed(block, flat, goals, answers, missing, form)
            block = []
        if turn.role == "tool":
            yield from _strays(turn, goals[place])
            continue
        yield turn._replace(content=_sendable(turn.content, missing.get(place, ())))
        if tool_calls(turn.content):
            block.append(place)
    yield from _closed(block, flat, goals, answers, missing, form)


# -- taking apart --------------------------------------------------------------------------------------------------


def _attached(messages: Iterable[MessageLike], form: str) -> Iterator[Turn]:
    """The messages, with results of tools that do not say which call they answer attached to one."""
    waiting: dict[str, None] = {}
    for message in messages:
        role = str(message.role)
        content = message.content if isinstance(message.content, str) else tuple(message.content)
        metadata = message.metadata or {}
        if role == "tool" and (isinstance(content, str) or all(isinstance(p, TextPart | FilePart) for p in content)):
            call = metadata.get("tool_call_id") or next(iter(waiting), None)
            if isinstance(call, str):
                content = (ToolResultPart(call, cast("str | tuple[TextPart, ...]", content)),)
            elif isinstance(content, str) and not content.strip():
                continue
            else:
                role = "user"
        waiting |= dict.fromkeys(tool_calls(content))
        for call in tool_results(content):
            waiting.pop(call, None)
        yield Turn(role, message.name, content, dict(metadata.get(form) or {}))


def _pieces(turn: Turn, form: str) -> Iterator[Turn]:
    """A message as turns of one kind; the first of its own role keeps what the format has left in its metadata."""
    if isinstance(turn.content, str):
        yield turn
        return
    visible = [part for part in turn.content if not isinstance(part, OpaquePart) or part.provider == form]
    fresh = True
    for role, parts in groupby(visible, lambda part: _role_of(part, turn.role)):
        ours = role == turn.role
        yield Turn(role, turn.name if ours else None, tuple(parts), turn.own if ours and fresh else {})
        fresh = fresh and not ours


def _role_of(part: Part, role: str) -> str:
    """Who says a part: calls are the assistant's and results a tool's, wherever they stand."""
    if tool_results((part,)):
        return "tool"
    if tool_calls((part,)):
        return "assistant"
    return "user" if role == "tool" else role


# -- calls and results ---------------------------------------------------------------------------------------------


def _goals(flat: list[Turn]) -> dict[int, list[int | None]]:
    """For each turn of results and each of its parts, the place of the turn with the call; None when there is none."""
    goals: dict[int, list[int | None]] = {}
    waiting: dict[str, list[int]] = {}
    referring = False
    for place, turn in enumerate(flat):
        if turn.role == "tool":
            goals[place] = []
            for call in tool_results(turn.content):
                callers = waiting.get(call)
                goals[place].append(callers.pop() if callers else _STAYS if referring else None)
            continue
        for call in tool_calls(turn.content):
            waiting.setdefault(call, []).append(place)
        referring = referring or any(_is_reference(part) for part in turn.content)
    return goals


def _is_reference(part: Part | str) -> bool:
    return isinstance(part, OpaquePart) and part.data.get("type", "item_reference") == "item_reference"


def _missing(flat: list[Turn], goals: dict[int, list[int | None]]) -> dict[int, list[Part]]:
    """The calls that nothing answers, by the place of their turn."""
    answered: Counter[tuple[int, str]] = Counter()
    for place, callers in goals.items():
        for caller, call in zip(callers, tool_results(flat[place].content), strict=True):
            if caller is not None:
                answered[caller, call] += 1
    missing: dict[int, list[Part]] = {}
    for place, turn in enumerate(flat):
        if isinstance(turn.content, str) or turn.role == "tool":
            continue
        for part in turn.content:
            for call in tool_calls((part,)):
                answered[place, call] -= 1
                if answered[place, call] < 0:
                    missing.setdefault(place, []).append(part)
    return missing


def _sendable(content: Content, missing: Iterable[Part]) -> Content:
    """A content without the calls for which no result could be made."""
    dropped = [
        part
        for part in missing
        if isinstance(part, OpaquePart) and _NO_OUTPUT.get(str(part.data.get("type")), {}) is None
    ]
    if isinstance(content, str) or not dropped:
        return content
    return tuple(part for part in content if not any(part is one for one in dropped))


def _closed(
    block: list[int],
    flat: list[Turn],
    goals: dict[int, list[int | None]],
    answers: dict[int, list[int]],
    missing: dict[int, list[Part]],
    form: str,
) -> Iterator[Turn]:
    """The results for the calls of some turns: those that are there in their order, then those that are missing."""
    for place in sorted({place for caller in block for place in answers.get(caller, ())}):
        turn = flat[place]
        parts = tuple(
            cast("Part", part) for part, goal in zip(turn.content, goals[place], strict=True) if goal in block
        )
        yield turn if len(parts) == len(turn.content) else turn._replace(content=parts)
    for caller in block:
        for part in missing.get(caller, ()):
            turn = _unavailable(part, form)
            if turn is not None:
                yield turn


def _unavailable(part: Part, form: str) -> Turn | None:
    """The synthetic result of a call; legacy functions of OpenAI's chat are answered by name."""
    if isinstance(part, ToolCallPart):
        result = ToolResultPart(part.id, UNAVAILABLE, is_error=True)
        if "function_call" in (part.extra.get(form) or {}):
            return Turn("tool", part.name, (result,), {"role": "function"})
        return Turn("tool", None, (result,), {})
    assert isinstance(part, OpaquePart)
    output = _NO_OUTPUT.get(str(part.data.get("type")))
    if output is None:
        return None
    key = "id" if output["type"] == "local_shell_call_output" else "call_id"
    return Turn("tool", None, (OpaquePart(form, {**output, key: part.data["call_id"]}),), {})


def _strays(turn: Turn, goals: list[int | None]) -> Iterator[Turn]:
    """What of a turn of results answers no call: as the user's words, when it has any."""
    for part, goal in zip(cast("tuple[Part, ...]", turn.content), goals, strict=True):
        if goal == _STAYS:
            yield turn._replace(content=(part,))
        elif goal is None and isinstance(part, ToolResultPart):
            said = part.content
            if not isinstance(said, str):
                said = tuple(
                    item for item in said
                    if isinstance(item, FilePart) or (isinstance(item, TextPart) and item.text.strip())
                )  # fmt: skip
            if said and not (isinstance(said, str) and not said.strip()):
                yield Turn("user", None, said, {})
