"""LangGraph's checkpoints on perdure: a ``BaseCheckpointSaver`` over SQLite or PostgreSQL.

One object serves both worlds. It holds one blocking store; the ``a…`` methods call that in a worker thread, so the
object belongs to no event loop, survives any number of them and shallow copies, and works with ``":memory:"``. Everything
is kept as perdure's own checkpoints are: appended messages are stored once, branches share what they have in common, and
with a key all of it is sealed.
"""

import asyncio
import os
import random
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Self, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from perdure import sync
from perdure.adapters.langgraph.deltas import ancestors_needed
from perdure.adapters.langgraph.encoding import (
    CHANNEL,
    Encoder,
    checkpoint_of,
    foreign,
    given_metadata,
    native,
    plain_metadata,
    state_of,
    value_of,
)
from perdure.adapters.langgraph.opening import Done, Opening, blocking
from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.rooms.checkpoints.frames import Frame, TaskWrite
from perdure.rooms.checkpoints.ops import Found
from perdure.rooms.checkpoints.tree import Branching, Part
from perdure.services.store import Store as AsyncStore
from perdure.sync.checkpoint_frames import FrameCheckpoints
from perdure.values import limits
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Invalid

_VERSIONS = 1_000
"""Threads whose newest versions are remembered."""
_BATCH = 64
_NAMESPACE_BYTES = 1_536
"""A namespace: some 25 subgraphs in each other. With a tenant's and a thread's id it must fit in a key of PostgreSQL."""
_PATH_BYTES = 65_536
list_of = list


class LangGraphCheckpoints(FrameCheckpoints):
    """LangGraph's checkpoints: its namespaces are spaces of their own."""

    family = "langgraph:"


class _Latest:
    """By thread and namespace, the id and the channels' versions of the checkpoint that was put last."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], tuple[str, dict[str, Any], frozenset[str]]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str]) -> tuple[str, dict[str, Any], frozenset[str]] | None:
        return self._known.get(key)

    def put(self, key: tuple[str, str], checkpoint: Checkpoint) -> None:
        known = (checkpoint["id"], dict(checkpoint["channel_versions"]), frozenset(checkpoint["channel_values"]))
        with self._lock:
            self._known[key] = known
            self._known.move_to_end(key)
            if len(self._known) > _VERSIONS:
                self._known.popitem(last=False)


class PerdureSaver(BaseCheckpointSaver[Any]):
    """A LangGraph checkpointer on a perdure store.

    ``store`` is a blocking store (``perdure.sync.open``), which stays yours to close, or an async one, beside which a
    blocking one is opened on the same database, or an address: close this object then. ``config`` says how states are
    compressed and sealed (``CheckpointConfig(encryption_key=…)``). A handle for one tenant keeps to that tenant.

    ``prune``, ``delete_for_runs`` and ``copy_thread`` keep what delta channels need: the checkpoints back to the one that
    holds each channel's value stay, with what their tasks wrote.
    """

    def __init__(
        self,
        store: "sync.Store | AsyncStore | str | os.PathLike[str] | PersistenceConfig",
        *,
        serde: SerializerProtocol | None = None,
        config: CheckpointConfig | None = None,
    ) -> None:
        super().__init__(serde=serde)
        self._store, self._is_owner = blocking(store, "PerdureSaver")
        self._frames = LangGraphCheckpoints(self._store, config)
        self._encoder = Encoder()
        self._latest = _Latest()

    @classmethod
    def from_conn_string(
        cls,
        conn_string: "str | os.PathLike[str] | PersistenceConfig",
        *,
        serde: SerializerProtocol | None = None,
        config: CheckpointConfig | None = None,
    ) -> "Opening[Self]":
        """A context manager, for ``with`` and ``async with``, that gives a saver which is set up."""
        return Opening(lambda: cls(conn_string, serde=serde, config=config), lambda saver: saver.setup())

    # -- life ------------------------------------------------------------------------------------------------------------

    def setup(self) -> Done:
        """Makes the tables where they are missing; the first use does so too. The answer may be awaited or not."""
        if self._store._session is None:  # pyright: ignore[reportPrivateUsage]
            self._store.initialize()  # the handle of a transaction is set up already
        return Done()

    def close(self) -> None:
        """Closes the store if this object opened it."""
        if self._is_owner:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    # -- put -------------------------------------------------------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Saves a checkpoint after the one that ``config`` names; the configuration that names it."""
        thread_id, namespace, parent = place(config)
        facts = get_checkpoint_metadata(config, metadata)
        known = self._latest.get((thread_id, namespace))

        def parts(may_keep: bool) -> tuple[Branching, list[str]]:
            kept: list[str] = []
            made: dict[str, Part] = {}
            versions = checkpoint["channel_versions"]
            for name, value in checkpoint["channel_values"].items():
                unchanged = (
                    may_keep and known is not None and known[0] == parent and name in known[2]
                    and name not in new_versions and name in versions and versions[name] == known[1].get(name)
                )  # fmt: skip
                if unchanged:
                    kept.append(CHANNEL + name)
                else:
                    made[name] = self._encoder.part(value, self.serde, (thread_id, namespace, name))
            return state_of(checkpoint, made, parent, self.serde), kept

        checkpoint_id, run_id = limits.identifier(checkpoint["id"], "checkpoint.id"), facts.get("run_id")
        self._frames.put(
            thread_id, namespace, checkpoint_id, parent, plain_metadata(facts, self.serde), parts,
            limits.identifier(run_id, "metadata.run_id") if isinstance(run_id, str) and run_id else None,
        )  # fmt: skip
        self._latest.put((thread_id, namespace), checkpoint)
        return config_of(thread_id, namespace, checkpoint_id)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keeps what a task wrote beside a checkpoint."""
        thread_id, namespace, checkpoint_id = place(config)
        if checkpoint_id is None:
            raise Invalid("put_writes needs the id of a checkpoint in its configuration", field="checkpoint_id")
        limits.identifier(task_id, "task_id")
        limits.text(task_path, "task_path", _PATH_BYTES, blank=True)
        rows = [
            TaskWrite(task_id, WRITES_IDX_MAP.get(channel, number), task_path, foreign((channel, value), self.serde))
            for number, (channel, value) in enumerate(writes)
        ]
        replace = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        self._frames.put_writes(thread_id, namespace, checkpoint_id, rows, replace=replace)

    # -- get -------------------------------------------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that ``config`` names, the newest when it names none; None when there is none."""
        thread_id, namespace, checkpoint_id = place(config)
        frame = self._frames.get(thread_id, namespace, checkpoint_id)
        return None if frame is None else self._tuple(frame, config if checkpoint_id else None)

    def _tuple(self, frame: Frame, config: RunnableConfig | None = None) -> CheckpointTuple:
        row, owner = frame.found.row, frame.found.thread
        namespace = owner.space.removeprefix(LangGraphCheckpoints.family)
        checkpoint, parent = checkpoint_of(frame.state, self.serde, self._encoder, (owner.id, namespace))
        return CheckpointTuple(
            config or config_of(owner.id, namespace, row.id),
            cast("Checkpoint", checkpoint),
            cast("CheckpointMetadata", given_metadata(self._frames.metadata_of(frame.found), self.serde)),
            None if parent is None else config_of(owner.id, namespace, parent),
            [self._write(write) for write in frame.writes],
        )

    def _write(self, write: TaskWrite) -> PendingWrite:
        channel, value = native(write.payload, self.serde)
        return write.task_id, channel, value

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, the greatest id first; ``filter`` is by equal metadata."""
        configurable = {} if config is None else config.get("configurable") or {}
        thread_id = configurable.get("thread_id")
        wanted = configurable.get("checkpoint_id")
        edge = None if before is None else (before.get("configurable") or {}).get("checkpoint_id")

        def fits(checkpoint_id: str, metadata: Mapping[str, Any]) -> bool:
            if wanted is not None and checkpoint_id != wanted:
                return False
            if not filter:
                return True
            known = given_metadata(metadata, self.serde)
            return all(known.get(name) == value for name, value in filter.items())

        found = self._frames.list(
            None if thread_id is None else thread(thread_id), configurable.get("checkpoint_ns"), edge, fits, limit
        )
        for frame in found:
            yield self._tuple(frame)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What channels were made of: what was written to them since a checkpoint that holds their value, and that."""
        thread_id, namespace, checkpoint_id = place(config)
        found = self._frames.ancestors(thread_id, namespace, checkpoint_id, [CHANNEL + name for name in channels])
        history = {name: DeltaChannelHistory(writes=[]) for name in channels}
        missing = set(history)
        for ancestor in found:  # the nearest first
            for write in reversed([self._write(write) for write in ancestor.writes]):
                if write[1] in missing:
                    history[write[1]]["writes"].append(write)
            for name in [name for name in missing if CHANNEL + name in ancestor.parts]:
                history[name]["seed"] = value_of(ancestor.parts[CHANNEL + name], self.serde)
                missing.remove(name)
        for entry in history.values():
            entry["writes"].reverse()
        return history

    def get_next_version(self, current: Any, channel: None) -> Any:  # noqa: ARG002
        """The version after ``current``: text that sorts, or a number after a number."""
        if isinstance(current, int | float) and not isinstance(current, bool):
            return int(current) + 1
        number = 0 if current is None else int(str(current).split(".")[0])
        return f"{number + 1:032}.{random.randrange(10**8):08}"

    # -- taking away -----------------------------------------------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> None:
        """Deletes a thread's checkpoints and writes, in every namespace."""
        self._frames.delete_thread(thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints that runs made, but for those that a delta channel of another one needs."""
        runs = [limits.identifier(str(run_id), "run_ids") for run_id in many(run_ids, "run_ids")]
        self._frames.delete_for_runs(runs, self._needed)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies a thread, with all its checkpoints and writes, in place of what the target was.

        The target stays as it is when there is nothing to copy.
        """
        source, target = thread(source_thread_id, "source_thread_id"), thread(target_thread_id, "target_thread_id")
        if source != target:
            self._frames.copy_thread(source, target)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Deletes threads (``"delete"``), or all but the newest checkpoint of each namespace (``"keep_latest"``)."""
        if strategy not in ("keep_latest", "delete"):
            raise Invalid(f'strategy is "keep_latest" or "delete", not {strategy!r}', field="strategy")
        for thread_id in [thread(one, "thread_ids") for one in many(thread_ids, "thread_ids")]:
            if strategy == "delete":
                self._frames.delete_thread(thread_id)
            else:
                self._frames.keep_newest(thread_id, self._needed)

    def _needed(self, found: Sequence[Found], staying: set[str]) -> set[str]:
        return ancestors_needed(found, staying, self._frames.metadata_of)

    # -- awaited ---------------------------------------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that ``config`` names, the newest when it names none; None when there is none."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, the greatest id first; ``filter`` is by equal metadata."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        while batch := await asyncio.to_thread(lambda: list_of(islice(found, _BATCH))):
            for one in batch:
                yield one

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Saves a checkpoint after the one that ``config`` names; the configuration that names it."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keeps what a task wrote beside a checkpoint."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Deletes a thread's checkpoints and writes, in every namespace."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints that runs made, but for those that a delta channel of another one needs."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies a thread, with all its checkpoints and writes, in place of what the target was."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Deletes threads (``"delete"``), or all but the newest checkpoint of each namespace (``"keep_latest"``)."""
        await asyncio.to_thread(lambda: self.prune(thread_ids, strategy=strategy))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What channels were made of: what was written to them since a checkpoint that holds their value, and that."""
        return await asyncio.to_thread(lambda: self.get_delta_channel_history(config=config, channels=channels))


def place(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Thread, namespace and checkpoint that a configuration names. ``Invalid`` when it names no thread."""
    configurable = config.get("configurable") or {}
    if "thread_id" not in configurable:
        raise Invalid("the configuration names no thread_id", field="configurable.thread_id")
    thread_id = thread(configurable["thread_id"], "configurable.thread_id")
    namespace = limits.text(configurable.get("checkpoint_ns") or "", "checkpoint_ns", _NAMESPACE_BYTES, blank=True)
    checkpoint_id = configurable.get("checkpoint_id")
    if checkpoint_id:
        return thread_id, namespace, limits.identifier(str(checkpoint_id), "configurable.checkpoint_id")
    return thread_id, namespace, None


def thread(thread_id: object, field: str = "thread_id") -> str:
    """A thread's id as text: LangGraph's own savers take numbers and UUIDs too."""
    return limits.identifier(str(thread_id), field)


def many(ids: Sequence[str], field: str) -> Sequence[str]:
    """Some ids; one text would be taken for its letters."""
    if isinstance(ids, str):
        raise Invalid(f"{field} is a list of ids, not one", field=field, hint=f"[{ids!r}]")
    return ids


def config_of(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    """The configuration that names a checkpoint."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}}
