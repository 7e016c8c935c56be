"""Takes over what LangGraph's own savers stored: the file of ``SqliteSaver``, the tables of ``PostgresSaver``.

The source is only read, thread by thread, each in one snapshot. Values are not made into objects on the way: what the
serializer wrote of one is taken over as it is, so no class need be there and nothing of the source is run. Only the old
forms ``json`` and ``pickle`` are read and written anew by the saver's serializer.
"""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec
from langgraph.checkpoint.base import WRITES_IDX_MAP, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from perdure.adapters.langgraph.encoding import Encoder, foreign
from perdure.adapters.langgraph.saver import PerdureSaver, config_of, many, thread
from perdure.adapters.langgraph.tables import Row, Tables, Typed, Write, opened
from perdure.rooms.checkpoints.frames import TaskWrite
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Undecodable

_PLAIN = frozenset({"null", "bytes", "bytearray", "msgpack"})
"""Forms that need no object to be read."""


class CheckpointImport(msgspec.Struct, frozen=True):
    """What was taken over: ``checkpoints`` and ``writes`` that are new; ``skipped`` counts checkpoints that were there."""

    threads: int = 0
    checkpoints: int = 0
    writes: int = 0
    skipped: int = 0


def import_checkpoints(
    source: str | os.PathLike[str] | PersistenceConfig,
    saver: PerdureSaver,
    thread_ids: Sequence[str] | None = None,
    on_progress: Callable[[CheckpointImport], object] | None = None,
) -> CheckpointImport:
    """Copies the checkpoints of LangGraph's own savers, with their ids, parents, metadata and writes; what was new.

    ``source`` is the path of a ``SqliteSaver``'s file, of any version of its tables, or the ``postgresql://`` address of a
    ``PostgresSaver``'s database, or a ``PersistenceConfig`` with either. It may be in use: each thread is read as it is at
    one moment. ``thread_ids`` chooses some threads; ``on_progress`` is told after each. What the saver has already is left
    as it is, so a copy that was interrupted, or whose source went on, is completed by another call.

    The saver's serializer must be the source's when that one encrypts. Raises ``NotFound`` for a file that is not there,
    ``Invalid`` for a database without such tables.
    """
    chosen = None if thread_ids is None else [thread(one, "thread_ids") for one in many(thread_ids, "thread_ids")]
    total: CheckpointImport = CheckpointImport()
    with opened(source if isinstance(source, PersistenceConfig) else PersistenceConfig(os.fspath(source))) as tables:
        for thread_id in tables.threads() if chosen is None else dict.fromkeys(chosen):
            with tables.reading():
                for namespace in tables.namespaces(thread_id):
                    total = _import(tables, saver, thread_id, namespace, total)
            total = msgspec.structs.replace(total, threads=total.threads + 1)
            if on_progress is not None:
                on_progress(total)
    return total


# -- into the saver ----------------------------------------------------------------------------------------------------------


class Unread:
    """Reads what LangGraph's serializer wrote without making objects of it, and writes that again."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """A value that was read by this."""
        if obj is None:
            return "null", b""
        if isinstance(obj, bytes | bytearray):
            return type(obj).__name__, bytes(obj)
        return "msgpack", msgspec.msgpack.encode(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """A value of one of the plain forms, with what is an object left as it was written."""
        form, written = data
        if form == "null":
            return None
        if form == "msgpack":
            return msgspec.msgpack.decode(written)
        if form in ("bytes", "bytearray"):
            return bytearray(written) if form == "bytearray" else bytes(written)
        raise Undecodable(f"a value has the form {form!r}", hint="give the saver the serializer that wrote it")


class _Reader:
    """Reads values for two savers: one that takes them as they were written, and one that takes objects."""

    def __init__(self, saver: PerdureSaver) -> None:
        self.made = _twin(saver, saver.serde)
        unread = _unread(saver.serde)
        self.unread = self.made if unread is None else _twin(saver, unread)

    def saver_for(self, values: Sequence[Typed]) -> PerdureSaver:
        """The one that can take all of these."""
        return self.unread if all(value.form.split("+")[0] in _PLAIN for value in values) else self.made


def _twin(saver: PerdureSaver, serde: SerializerProtocol) -> PerdureSaver:
    """The saver with another serializer, which nobody else's objects meet."""
    twin = copy.copy(saver)
    twin.serde = serde
    twin._encoder = Encoder()  # pyright: ignore[reportPrivateUsage]
    return twin


def _unread(serde: SerializerProtocol) -> SerializerProtocol | None:
    """One that does not make objects; None for a serializer of which nothing is known."""
    if isinstance(serde, EncryptedSerializer):
        inner = _unread(serde.serde)
        return None if inner is None else EncryptedSerializer(serde.cipher, inner)
    return Unread() if type(serde) is JsonPlusSerializer else None


def _import(
    tables: Tables, saver: PerdureSaver, thread_id: str, namespace: str, total: CheckpointImport
) -> CheckpointImport:
    frames = saver._frames  # pyright: ignore[reportPrivateUsage]
    reader = _Reader(saver)
    ids, written = frames.there(thread_id, namespace)
    added = skipped = writes = 0
    for row in tables.checkpoints(thread_id, namespace):
        if row.id in ids:
            skipped += 1
            continue
        into = reader.saver_for(_values(row))
        checkpoint = _checkpoint(row, into.serde)
        config = config_of(thread_id, namespace, row.parent or "")
        into.put(config, checkpoint, cast("CheckpointMetadata", row.metadata), checkpoint["channel_versions"])
        added += 1
    for checkpoint_id, own in _grouped(tables.writes(thread_id, namespace)):
        rows = [
            _task_write(write, reader.saver_for([write.value]).serde)
            for write in own
            if (checkpoint_id, write.task_id, write.idx) not in written
        ]
        if rows:
            frames.put_writes(thread_id, namespace, checkpoint_id, rows, replace=False)
            writes += len(rows)
    return CheckpointImport(total.threads, total.checkpoints + added, total.writes + writes, total.skipped + skipped)


def _values(row: Row) -> list[Typed]:
    """All that is typed in a checkpoint."""
    found = [] if row.whole is None else [row.whole]
    for value in row.channels.values():
        found += value if isinstance(value, list) else [value]
    return found


def _checkpoint(row: Row, serde: SerializerProtocol) -> Checkpoint:
    if row.whole is not None:
        return cast("Checkpoint", {**serde.loads_typed(row.whole), "id": row.id})
    values = {
        name: [serde.loads_typed(one) for one in value] if isinstance(value, list) else serde.loads_typed(value)
        for name, value in row.channels.items()
    }
    inline: Mapping[str, Any] = row.rest.get("channel_values") or {}
    return cast("Checkpoint", {**row.rest, "id": row.id, "channel_values": {**inline, **values}})


def _task_write(write: Write, serde: SerializerProtocol) -> TaskWrite:
    idx = WRITES_IDX_MAP.get(write.channel, write.idx)
    value = (write.channel, serde.loads_typed(write.value))
    return TaskWrite(write.task_id, idx, write.task_path, foreign(value, serde))


def _grouped(writes: Iterator[Write]) -> Iterator[tuple[str, list[Write]]]:
    own: list[Write] = []
    for write in writes:
        if own and own[0].checkpoint != write.checkpoint:
            yield own[0].checkpoint, own
            own = []
        own.append(write)
    if own:
        yield own[0].checkpoint, own


# -- sources -----------------------------------------------------------------------------------------------------------------
