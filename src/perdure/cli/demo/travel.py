"""The step of the demo about checkpoints: a run is killed, goes on where it was, and is asked what if."""

import secrets
from typing import TYPE_CHECKING, Any

from perdure.cli import state_diff
from perdure.cli.checkpoint_tree import short_ids, show_tree, tree_of
from perdure.cli.demo import agent, crash
from perdure.cli.demo.steps import INDENT, Figures, check
from perdure.cli.progress import Activity
from perdure.cli.screen import Screen, one_line, plural
from perdure.sync.checkpoints import Checkpointer

if TYPE_CHECKING:
    from perdure.rooms.checkpoints.values import Checkpoint
    from perdure.rooms.conversations.values import Conversation
    from perdure.sync.store import Store

BRANCH = "what-if"
PATIENCE_SECONDS = 20.0
"""A run is killed then in any case."""
_BACK = 2
"""How many steps before the end the other course begins."""
_SHOWN = 5


def resume(screen: Screen, place: Any, conversation: "Conversation") -> Figures:
    """A run is killed at a random step; from its last checkpoint it goes on with the next one."""
    with place.open() as store:
        messages = agent.script(store, conversation.id)
    total = len(messages)
    screen.say(
        f'Another process plays "{one_line(conversation.metadata.title or conversation.id)}", {plural(total, "message")}, as an '
        "agent: a step for each, and a checkpoint of its state after each. SIGKILL ends it at a random one.",
        indent=INDENT,
    )  # fmt: skip
    screen.say()
    target = max(1, total // 4 + secrets.randbelow(max(total // 2, 1)))
    with Activity(screen, "Running until killed"):
        told = max(
            crash.run_until(agent.__name__, place.url, (place.tenant, conversation.id), target, PATIENCE_SECONDS)
        )
    with place.open() as store:
        return _go_on(screen, store, conversation.id, messages, told)


def _go_on(screen: Screen, store: "Store", conversation: str, messages: list[Any], told: int) -> Figures:
    total = len(messages)
    found = Checkpointer(store).recover(agent.THREAD)
    check(found is not None, "a run that was killed has a checkpoint")
    assert found is not None
    checkpoint, state = found
    step: int = state["step"]
    check(told <= step <= told + 1, "the last checkpoint that was acknowledged is there")
    check(state == agent.played(conversation, messages, step), "a restored state is whole")
    screen.say(
        f"It was killed after step {told:,} of {total:,}. Its last checkpoint, {short_ids([checkpoint.id, ''])[checkpoint.id]}, "
        f"is of step {step:,}" + (", saved and not yet reported" if step > told else "") + ":",
        indent=INDENT,
    )  # fmt: skip
    if step < total:
        screen.say(f"-> the run goes on with step {step + 1:,}.", style="bold green", indent=INDENT)
    final = agent.run(store, conversation)
    check(final == agent.played(conversation, messages, total), "a resumed run ends where an undisturbed one does")
    screen.say()
    screen.say(
        f"All {plural(total, 'step')} are done now, none of them twice, and the state is the same as that of a run that nobody "
        "disturbed.",
        indent=INDENT,
    )  # fmt: skip
    history = Checkpointer(store).get_history(agent.THREAD, limit=agent.STEPS + 1)
    check(len(history) == total, "each step has one checkpoint")
    return {
        "thread": agent.THREAD, "steps": total, "reported_step": told, "checkpoint": checkpoint.id,
        "checkpoint_step": step, "resumed_with_step": step + 1 if step < total else None, "checkpoints": len(history),
    }  # fmt: skip


def what_if(screen: Screen, store: "Store") -> Figures:
    """Another course from a checkpoint, and what is different at its end."""
    checkpointer = Checkpointer(store)
    history = checkpointer.get_history(agent.THREAD, limit=agent.STEPS + 1)
    start = history[min(_BACK, len(history) - 1)]
    checkpointer.create_branch(start.id, BRANCH)
    state = checkpointer.restore(start.id)
    said = {"id": "what-if", "role": "user", "text": "What if we wait until Tuesday?"}
    state |= {"step": state["step"] + 1, "messages": [*state["messages"], said]}
    head = checkpointer.save(agent.THREAD, state, branch=BRANCH, node="user", tags=("idea",))
    screen.say(f"A branch from step {state['step'] - 1:,} copies nothing, and asks what if:", indent=INDENT)
    screen.say()
    _tree(screen, checkpointer)
    difference = checkpointer.compare(history[0].id, head)
    check("messages[id=what-if]" in difference.added, "branches differ in what was said on them")
    screen.say()
    screen.say(f"What is different at the end of {BRANCH} against main:", indent=INDENT)
    state_diff.show(screen, difference, INDENT + 2, _SHOWN + 3)
    return {
        "branch": BRANCH, "from": start.id, "head": head, "added": len(difference.added),
        "removed": len(difference.removed), "changed": len(difference.changed),
    }  # fmt: skip


def _tree(screen: Screen, checkpointer: Checkpointer) -> None:
    if screen.json:
        return
    rows: list[Checkpoint] = checkpointer.get_history(agent.THREAD, limit=_SHOWN)
    show_tree(screen, tree_of(rows, checkpointer.branches(agent.THREAD), ours=True), indent=INDENT + 2)


def forget(store: "Store") -> None:
    """Removes what the run saved."""
    Checkpointer(store).delete_thread(agent.THREAD)
