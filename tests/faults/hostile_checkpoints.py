"""Every public parameter of the checkpointer that takes text, for the table of the attack."""

from typing import Any

from hostile import SECRET, Parameter

import perdure.sync

_MADE: dict[int, Any] = {}


def checkpointer(s: Any) -> Any:
    """The checkpointer of a store; one for each, so that what it remembers is attacked too."""
    store = getattr(s, "_store", s)
    if id(store) not in _MADE or _MADE[id(store)]._store is not store:
        _MADE[id(store)] = perdure.sync.Checkpointer(store, perdure.CheckpointConfig(max_checkpoints_per_thread=3))
    return _MADE[id(store)]


def furnish(store: Any) -> None:
    """A thread that is open, and a secret one of another tenant."""
    checkpointer(store).save("open", {"n": 1, "text": "hello"})
    other = perdure.sync.Checkpointer(store.for_tenant("other"))
    other.save("open", {"n": SECRET}, {"m": SECRET}, [SECRET], run_id="secret-run", node=SECRET)


def _saved(s: Any, state: Any = None, thread: str = "open", **given: Any) -> Any:
    c = checkpointer(s)
    return c.get(c.save(thread, {"n": 1} if state is None else state, **given))


def _back(s: Any, state: Any) -> Any:
    c = checkpointer(s)
    return c.restore(c.save("open", state))


def _newest(s: Any) -> str:
    return _saved(s).id


def _branched(s: Any, x: str, n: int) -> list[tuple[Any, Any]]:
    c, thread = checkpointer(s), f"branches {n}"
    start = _saved(s, thread=thread).id
    c.create_branch(start, x, {"v": x})
    made = c.save(thread, {"v": x}, branch=x)
    (found,) = [one for one in c.branches(thread) if one.name != "main"]
    history = [one.id for one in c.get_history(thread, branch=x)]
    merged = c.merge(thread, "main", x)
    return [
        (x, found.name), ({"v": x}, found.metadata), (x, c.get(made).branch), (made, c.latest(thread, x).id),
        ({"v": x}, c.latest_state(thread, x)), ([made], history), (start, merged.base_id),
    ]  # fmt: skip


def _thread(s: Any, x: str, n: int) -> list[tuple[Any, Any]]:
    c, name, twin = checkpointer(s), f"{n}{x}", f"{n}-{x}"
    made = c.save(name, {"v": x})
    c.copy_thread(name, twin)
    found = [(name, c.latest(name).thread_id), ({"v": x}, c.latest_state(twin)), (True, c.verify(name).ok)]
    found += [(name, c.apply_retention(name)[0].thread_id), (made, c.recover(name)[0].id)]
    data = c.export_thread(name)
    found += [(True, c.delete_thread(name)), (name, c.import_thread(data)), (True, c.delete_thread(twin))]
    return [*found, ({"v": x}, c.restore(made))]


def _tagged(s: Any, x: str) -> list[tuple[Any, Any]]:
    c, made = checkpointer(s), _saved(s, tags=[x])
    found = [
        ((x,), made.tags),
        (made.id, c.find_checkpoint("open", x).id),
        (made.id, c.recover("open", "tagged", x)[0].id),
    ]
    c.untag(made.id, x)
    c.tag(made.id, x)
    return [*found, ((x,), c.get(made.id).tags)]


def _run(s: Any, x: str, n: int) -> list[tuple[Any, Any]]:
    made = _saved(s, run_id=f"{n}{x}")
    return [(f"{n}{x}", made.run_id), (1, checkpointer(s).delete_for_runs(f"{n}{x}"))]


def _stepped(s: Any, x: str) -> list[tuple[Any, Any]]:
    c = checkpointer(s)
    made = c.step("open", {"v": x}, x, tool_side_effect=True, metadata={"v": x})
    return [(x, c.get(made).node), (x, c.get(made).metadata["v"]), ({"v": x}, c.restore(made))]


def _guarded(s: Any, x: str) -> list[tuple[Any, Any]]:
    try:
        with checkpointer(s).guard("open", {"v": x}, node=x):
            raise ValueError(x)  # noqa: TRY301 - a block that fails
    except ValueError as error:
        if getattr(error, "__notes__", ()):
            return []
    found = checkpointer(s).latest("open")
    return [("failed", found.status), (x, found.node), ("ValueError", found.metadata["error"]["type"])]


def _once(s: Any, x: str) -> list[tuple[Any, Any]]:
    c = checkpointer(s)
    first = c.save("once", {"n": 1}, idempotency_key=x)
    return [(first, c.save("once", {"n": 1}, idempotency_key=x))]


def _replayed(s: Any, **asked: Any) -> Any:
    return [one.id for one, _ in checkpointer(s).replay("open", **asked)]


CHECKPOINTS: dict[str, Parameter] = {
    "checkpoint thread_id source_thread_id target_thread_id": _thread,
    "checkpoint channel": lambda s, x, n: [({x: 1, "n": n}, _back(s, {x: 1, "n": n}))],
    "checkpoint value": lambda s, x, n: [({"v": [x, {x: (x,)}], "n": n}, _back(s, {"v": [x, {x: (x,)}], "n": n}))],
    "checkpoint metadata": lambda s, x, n: [({x: x}, _saved(s, metadata={x: x}).metadata)],
    "checkpoint tags": lambda s, x, n: _tagged(s, x),
    "checkpoint status": lambda s, x, n: _saved(s, status=x),
    "checkpoint parent": lambda s, x, n: _saved(s, parent=x),
    "checkpoint branch branch_name into source": _branched,
    "checkpoint run_id run_ids": _run,
    "checkpoint node": lambda s, x, n: [(x, _saved(s, node=x).node)],
    "checkpoint step": lambda s, x, n: _stepped(s, x),
    "checkpoint guard": lambda s, x, n: _guarded(s, x),
    "checkpoint idempotency_key": lambda s, x, n: _once(s, x),
    "checkpoint get checkpoint_id": lambda s, x, n: [(None, checkpointer(s).get(x))],
    "checkpoint restore checkpoint_id": lambda s, x, n: checkpointer(s).restore(x),
    "checkpoint tag checkpoint_id": lambda s, x, n: checkpointer(s).tag(x, "t"),
    "checkpoint from_checkpoint": lambda s, x, n: checkpointer(s).create_branch(x, "b"),
    "checkpoint compare checkpoint_a": lambda s, x, n: checkpointer(s).compare(x, _newest(s)),
    "checkpoint compare checkpoint_b": lambda s, x, n: checkpointer(s).compare(_newest(s), x),
    "checkpoint replay from_checkpoint": lambda s, x, n: _replayed(s, from_checkpoint=x),
    "checkpoint replay to_checkpoint": lambda s, x, n: _replayed(s, to_checkpoint=x),
    "checkpoint replay branch": lambda s, x, n: [([], _replayed(s, branch=x))] if x != "main" else [],
    "checkpoint history cursor": lambda s, x, n: checkpointer(s).get_history("open", cursor=x, limit=3),
    "checkpoint threads cursor": lambda s, x, n: checkpointer(s).list_threads(3, x),
    "checkpoint before_timestamp": lambda s, x, n: checkpointer(s).find_checkpoint("open", before_timestamp=x),
    "checkpoint after_timestamp": lambda s, x, n: checkpointer(s).find_checkpoint("open", after_timestamp=x),
    "checkpoint timestamp": lambda s, x, n: checkpointer(s).restore_at("open", x),
    "checkpoint retention now": lambda s, x, n: checkpointer(s).apply_retention("open", x, dry_run=True),
    "checkpoint with_state_matching field": lambda s, x, n: checkpointer(s).find_checkpoint(
        "once", with_state_matching={x: "secret"}
    ),
    "checkpoint with_state_matching operand": lambda s, x, n: checkpointer(s).find_checkpoint(
        "once", with_state_matching={"n": x}
    ),
    "checkpoint policy": lambda s, x, n: checkpointer(s).recover("open", x),
    "checkpoint base": lambda s, x, n: checkpointer(s).merge("open", "main", "main", x),
    "checkpoint resolve": lambda s, x, n: checkpointer(s).merge("open", "main", "main", resolve=x),
    "checkpoint import": lambda s, x, n: checkpointer(s).import_thread(x.encode("utf-8", "surrogatepass")),
    "checkpoint schema": lambda s, x, n: checkpointer(s).register_schema(f"none {n}", {"type": x}),
}
