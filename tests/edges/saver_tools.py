"""What the tests of LangGraph's saver share: checkpoints made by hand, and what is the same of two answers."""

from langgraph.checkpoint.base import empty_checkpoint

NAMESPACE = ""


def config_of(thread="t", checkpoint_id=None, namespace=NAMESPACE):
    """A configuration that names a thread, a namespace and maybe a checkpoint."""
    named = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}
    if checkpoint_id is not None:
        named["configurable"]["checkpoint_id"] = checkpoint_id
    return named


def checkpoint_of(values=None, versions=None, **others):
    """A checkpoint with these channels; each has the version "1" unless given."""
    made = empty_checkpoint()
    made["channel_values"] = dict(values or {})
    made["channel_versions"] = dict.fromkeys(made["channel_values"], "1") if versions is None else dict(versions)
    return {**made, **others}


def number(at):
    """An id that sorts as its number."""
    return f"00000000-0000-0000-0000-{at:012}"


def put(saver, config, values=None, versions=None, *, new=None, metadata=None, **others):
    """Puts a checkpoint; all versions are new unless given. The configuration that names it."""
    made = checkpoint_of(values, versions, **others)
    new_versions = made["channel_versions"] if new is None else new
    return saver.put(config, made, {"source": "loop", "step": 0, **(metadata or {})}, new_versions)


def values_of(saver, config):
    """The channels of a checkpoint."""
    return saver.get_tuple(config).checkpoint["channel_values"]


def ids(found):
    """The ids of checkpoints, in their order."""
    return [one.config["configurable"]["checkpoint_id"] for one in found]


def plain(found):
    """All that a list of checkpoints says."""
    return [(one.config, one.checkpoint, one.metadata, one.parent_config, one.pending_writes) for one in found]
