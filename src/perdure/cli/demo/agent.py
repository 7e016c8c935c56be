"""The agent whose run the demo kills: it plays a conversation message by message, and saves its state after each.

``python -m perdure.cli.demo.agent TENANT CONVERSATION``; the store is ``PERDURE_URL``, so that no password shows in the
list of processes. It goes on after its last checkpoint, if it has one.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import perdure.sync
from perdure.rooms.conversations.content import ToolCallPart
from perdure.sync.checkpoints import Checkpointer

if TYPE_CHECKING:
    from perdure.rooms.conversations.values import Message
    from perdure.sync.store import Store

State = dict[str, Any]
THREAD = "demo-run"
STEPS = 60
"""Messages that are played at most."""
THINKING_SECONDS = 0.01
"""What the model would take for a step; without it nobody could kill the agent in the middle of its run."""


def script(store: "Store", conversation: str) -> "list[Message]":
    """The messages that are played."""
    return list(store.get_messages(conversation, STEPS))


def played(conversation: str, messages: "Sequence[Message]", steps: int) -> State:
    """The state after some steps: what the agent would know if nothing had happened to it."""
    state: State = {
        "conversation": conversation, "step": 0, "plan": {"steps": len(messages), "done": not messages}, "tools": {},
        "messages": [],
    }  # fmt: skip
    for message in messages[:steps]:
        state = advanced(state, message)
    return state


def advanced(state: State, message: "Message") -> State:
    """The state one step later."""
    content = message.content
    calls = [part.name for part in content if isinstance(part, ToolCallPart)] if not isinstance(content, str) else []
    step = state["step"] + 1
    said = {"id": message.id, "role": str(message.role), "text": message.text}
    return {
        **state,
        "step": step,
        "plan": {**state["plan"], "done": step >= state["plan"]["steps"]},
        "tools": {name: state["tools"].get(name, 0) + calls.count(name) for name in [*state["tools"], *calls]},
        "messages": [*state["messages"], said | ({"calls": calls} if calls else {})],
    }


def run(store: "Store", conversation: str, tell: Callable[[int], object] | None = None) -> State:
    """Plays what is left after the last checkpoint, and tells of each step that is saved; the state at the end."""
    checkpointer = Checkpointer(store)
    messages = script(store, conversation)
    state = checkpointer.latest_state(THREAD) or played(conversation, messages, 0)
    for message in messages[state["step"] :]:
        state = advanced(state, message)
        checkpointer.save(THREAD, state, node=str(message.role))
        if tell is not None:
            tell(state["step"])
            time.sleep(THINKING_SECONDS)
    return state


def main() -> None:
    """Runs until it is killed; when it is done before, it waits for that."""
    tenant, conversation = sys.argv[1:3]
    with perdure.sync.open() as whole:
        # Straight to the pipe: what was acknowledged is known at once.
        run(whole.for_tenant(tenant), conversation, lambda step: os.write(1, b"%d\n" % step))
        sys.stdin.read()


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        sys.exit(1)
