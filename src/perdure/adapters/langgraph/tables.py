"""The tables of LangGraph's own savers, read thread by thread: those of ``SqliteSaver``, and of ``PostgresSaver``."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from langgraph.checkpoint.serde.types import TASKS

from perdure.values.config import PersistenceConfig
from perdure.values.errors import Busy, Damaged, Invalid, MissingExtra, NotFound

_SENDS_IN_STATE = 4
"""The version of checkpoints from which pending sends are a channel's value; before, they were the parent's writes."""
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Typed(NamedTuple):
    """A value as a serializer wrote it."""

    form: str
    data: bytes


Channels = Mapping[str, Typed | list[Typed]]
"""By name a channel's value in one piece, or the items of a list."""


class Row(NamedTuple):
    """A checkpoint of a source: the channels as they were written, and everything else."""

    id: str
    parent: str | None
    whole: Typed | None
    """The checkpoint in one piece, or else:"""
    rest: Mapping[str, Any]
    channels: Channels
    metadata: Mapping[str, Any]


class Write(NamedTuple):
    """What a task wrote, in a source."""

    checkpoint: str
    task_id: str
    task_path: str
    idx: int
    channel: str
    value: Typed


class Tables(Protocol):
    """A source that is open."""

    def threads(self) -> list[str]:
        """The ids of all threads."""
        ...

    def reading(self) -> AbstractContextManager[object]:
        """Inside, everything is as it was at one moment."""
        ...

    def namespaces(self, thread_id: str) -> list[str]:
        """The namespaces of a thread."""
        ...

    def checkpoints(self, thread_id: str, namespace: str) -> Iterator[Row]:
        """Checkpoints, the lowest id first."""
        ...

    def writes(self, thread_id: str, namespace: str) -> Iterator[Write]:
        """What tasks wrote, by checkpoint."""
        ...


def opened(config: PersistenceConfig) -> AbstractContextManager[Tables]:
    """The tables of a file, or of a PostgreSQL database, for the time of a ``with`` block."""
    if config.engine == "postgres":
        return _postgres(config)
    if config.sqlite_path is None:
        raise Invalid("a database in memory cannot be imported from outside", field="source", hint="give the file")
    return _sqlite(config.sqlite_path, config.busy_timeout)


def _lacking(where: str, what: str) -> Invalid:
    return Invalid(f"{where} holds no tables of LangGraph's savers: there is no {what}", field="source")


@contextmanager
def _sqlite(path: str, timeout: float) -> Iterator[Tables]:
    if not Path(path).is_file():
        raise NotFound(f"there is no file {path}", field="source")
    try:
        # Python's own SQLite, not apsw's: the savers use it, and two of them in one process must not share a file.
        address = Path(path).resolve().as_uri() + "?mode=ro"
        with closing(sqlite3.connect(address, timeout, uri=True, isolation_level=None)) as connection:
            yield SqliteTables(connection, path)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in _LOCKED:
            raise Busy(f"{path} is locked: {error}", retry_after=1.0) from error
        raise Damaged(f"{path} cannot be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise Damaged(f"{path} cannot be read: {error}") from error


class SqliteTables:
    """The file of a ``SqliteSaver``."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._run = connection.execute
        for table in ("checkpoints", "writes"):
            columns = {row[1] for row in self._run(f"pragma table_info({table})")}
            for needed in ("checkpoint_ns", "checkpoint_id", "type"):
                if needed not in columns:
                    raise _lacking(path, f"{table}.{needed}")
            self._path = "task_path" if "task_path" in columns else "''"

    def threads(self) -> list[str]:
        """The ids of all threads."""
        found = self._run("select thread_id from checkpoints union select thread_id from writes order by 1")
        return [str(row[0]) for row in found]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, everything is as it was at one moment."""
        self._run("begin")
        try:
            yield
        finally:
            self._run("rollback")

    def namespaces(self, thread_id: str) -> list[str]:
        """The namespaces of a thread."""
        parts = [f"select checkpoint_ns from {table} where thread_id = :t" for table in ("checkpoints", "writes")]
        return [row[0] for row in self._run(" union ".join(parts) + " order by 1", {"t": thread_id})]

    def checkpoints(self, thread_id: str, namespace: str) -> Iterator[Row]:
        """Checkpoints, the lowest id first."""
        found = self._run(
            "select checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata from checkpoints"
            " where thread_id = ? and checkpoint_ns = ? order by checkpoint_id",
            (thread_id, namespace),
        )
        for id, parent, form, whole, metadata in found:
            facts: dict[str, Any] = {} if metadata is None else json.loads(metadata)
            yield Row(id, parent, Typed(form, whole), {}, {}, facts)

    def writes(self, thread_id: str, namespace: str) -> Iterator[Write]:
        """What tasks wrote, by checkpoint."""
        found = self._run(
            f"select checkpoint_id, task_id, {self._path}, idx, channel, type, value from writes"
            " where thread_id = ? and checkpoint_ns = ? order by checkpoint_id, task_id, idx",
            (thread_id, namespace),
        )
        for id, task_id, path, idx, channel, form, value in found:
            yield Write(id, task_id, path, idx, channel, Typed(form, value))


@contextmanager
def _postgres(config: PersistenceConfig) -> Iterator[Tables]:
    try:
        import psycopg  # noqa: PLC0415  # an extra of its own

        from perdure.drivers.postgres.errors import translate  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtra("PostgreSQL needs psycopg", hint="pip install 'perdure[postgres]'") from error
    try:
        with psycopg.connect(config.connection_string, autocommit=True) as connection:
            connection.execute("set default_transaction_read_only = on")
            connection.execute("set default_transaction_isolation = 'repeatable read'")
            yield PostgresTables(connection, config.safe_url)
    except psycopg.Error as error:
        raise translate(error, config.safe_url) from error


class PostgresTables:
    """The tables of a ``PostgresSaver``."""

    def __init__(self, connection: Any, where: str) -> None:
        self._connection = connection
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            found = connection.execute(
                "select attname::text from pg_attribute where attrelid = to_regclass(%s) and attnum > 0", (table,)
            )
            columns = {row[0] for row in found}
            needed = "version" if table == "checkpoint_blobs" else "checkpoint_id"  # the shallow saver has neither
            if not {needed, "checkpoint_ns"} <= columns:
                raise _lacking(where, f"{table}.{needed}")
            self._path = "task_path" if "task_path" in columns else "''"

    def _rows(self, text: str, *values: Any) -> Iterator[Any]:
        """Rows as the server sends them, some at a time."""
        with self._connection.cursor(name="perdure_import") as cursor:
            cursor.itersize = 100
            cursor.execute(text, values)
            yield from cursor

    def threads(self) -> list[str]:
        """The ids of all threads."""
        found = self._connection.execute(
            "select thread_id from checkpoints union select thread_id from checkpoint_writes order by 1"
        )
        return [row[0] for row in found]

    def reading(self) -> AbstractContextManager[object]:
        """Inside, everything is as it was at one moment."""
        return self._connection.transaction()

    def namespaces(self, thread_id: str) -> list[str]:
        """The namespaces of a thread."""
        tables = ("checkpoints", "checkpoint_writes")
        parts = [f"select checkpoint_ns from {table} where thread_id = %(t)s" for table in tables]
        return [row[0] for row in self._connection.execute(" union ".join(parts) + " order by 1", {"t": thread_id})]

    def checkpoints(self, thread_id: str, namespace: str) -> Iterator[Row]:
        """Checkpoints, the lowest id first."""
        found = self._rows(
            "select checkpoint_id, parent_checkpoint_id, checkpoint, metadata,"
            " (select array_agg(array[v.key, v.value]) from jsonb_each_text(checkpoint -> 'channel_versions') v)"
            ' from checkpoints where thread_id = %s and checkpoint_ns = %s order by checkpoint_id collate "C"',
            thread_id, namespace,
        )  # fmt: skip
        held: dict[tuple[str, str], Typed] = {}
        for id, parent, rest, metadata, versions in found:
            held = self._blobs(thread_id, namespace, {(name, version) for name, version in versions or ()}, held)
            channels: Channels = {name: value for (name, _), value in held.items() if value.form != "empty"}
            if parent and rest.get("v", _SENDS_IN_STATE) < _SENDS_IN_STATE:
                sends = self._sends(thread_id, namespace, parent)
                yield _with_sends(Row(id, parent, None, rest, channels, metadata or {}), sends)
            else:
                yield Row(id, parent, None, rest, channels, metadata or {})

    def _blobs(
        self, thread_id: str, namespace: str, wanted: set[tuple[str, str]], held: dict[tuple[str, str], Typed]
    ) -> dict[tuple[str, str], Typed]:
        """Values by channel and version; those that are held already are not fetched."""
        missing = sorted(wanted - held.keys())
        kept = {place: value for place, value in held.items() if place in wanted}
        if missing:
            found = self._connection.execute(
                "select b.channel, b.version, b.type, b.blob from checkpoint_blobs b"
                " join unnest(%s::text[], %s::text[]) as w (channel, version) using (channel, version)"
                " where b.thread_id = %s and b.checkpoint_ns = %s",
                ([name for name, _ in missing], [version for _, version in missing], thread_id, namespace),
            )
            kept |= {(name, version): Typed(form, blob or b"") for name, version, form, blob in found}
        return kept

    def _sends(self, thread_id: str, namespace: str, checkpoint_id: str) -> list[Typed]:
        """What tasks sent beside a checkpoint, in order."""
        found = self._connection.execute(
            "select type, blob from checkpoint_writes where thread_id = %s and checkpoint_ns = %s and checkpoint_id = %s"
            f" and channel = %s order by {self._path}, task_id, idx",
            (thread_id, namespace, checkpoint_id, TASKS),
        )
        return [Typed(form, blob) for form, blob in found]

    def writes(self, thread_id: str, namespace: str) -> Iterator[Write]:
        """What tasks wrote, by checkpoint."""
        found = self._rows(
            f"select checkpoint_id, task_id, {self._path}, idx, channel, type, blob from checkpoint_writes"
            " where thread_id = %s and checkpoint_ns = %s order by checkpoint_id, task_id, idx",
            thread_id, namespace,
        )  # fmt: skip
        for id, task_id, path, idx, channel, form, blob in found:
            yield Write(id, task_id, path, idx, channel, Typed(form, blob))


def _with_sends(row: Row, sends: list[Typed]) -> Row:
    """A checkpoint of before version 4 with what its parent's tasks sent, as LangGraph's own saver reads it."""
    if not sends:
        return row
    versions: Mapping[str, Any] = row.rest.get("channel_versions") or {}
    newest = max(versions.values()) if versions else f"{1:032}.{0:08}"
    rest = {**row.rest, "channel_versions": {**versions, TASKS: newest}}
    return row._replace(rest=rest, channels={**row.channels, TASKS: sends})
