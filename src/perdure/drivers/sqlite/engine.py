"""One SQLite database: a writer's connection, readers' connections, commits that several recipes share, WAL upkeep.

Everything here blocks and may be called from any thread. The two drivers beside it (``blocking.py``, ``aio.py``)
decide on which thread it runs.

*Shared commits.* ``write`` takes a batch: the recipes run one after another, each under its own savepoint, and one
COMMIT ends the lot. Nobody is answered before that commit; one that fails is rolled back alone.

*A failed fsync is never trusted.* After an I/O error the connection is closed and opened anew, as the kernel may
report a lost page only once.

*The write-ahead log* is moved into the file by ``upkeep.py``, off the write path.
"""

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import apsw

from perdure.drivers.book import Variant, book
from perdure.drivers.sqlite import log
from perdure.drivers.sqlite.connection import Patience, Place, check_engine, connect, page_checksums
from perdure.drivers.sqlite.errors import translate
from perdure.drivers.sqlite.filters import render
from perdure.drivers.sqlite.upkeep import Upkeep, abandon
from perdure.drivers.sqlite.watching import Watch
from perdure.grammar import Ask, Mode, Op, Outcome, Scope, merged_runs, outcomes_of
from perdure.values.config import PersistenceConfig
from perdure.values.errors import ChecksumMismatch, Closed, Damaged, Invalid, OutcomeUnknown, Unavailable

T = TypeVar("T")
Job = tuple[Op[Any], Scope]

_ENGINE_ERRORS = (apsw.Error, UnicodeDecodeError, OverflowError, MemoryError)
_STRANGE_ROWS = (TypeError, ValueError, LookupError, AttributeError, AssertionError)
"""What a recipe raises when a row is not of its table; or when the recipe is wrong, which the file can tell."""
_log = logging.getLogger("perdure.sqlite")


class SqliteEngine:
    """Connections to one SQLite database and the recipes run on them."""

    def __init__(self, config: PersistenceConfig, ring: Callable[[], None]) -> None:
        self.config = config
        self._ring = ring  # after each commit
        self.book = book("sqlite")
        path = config.sqlite_path
        self.place = Place(path or f"file:/perdure-{uuid.uuid4().hex}?vfs=memdb", path is None)
        self.shown_path = path or ":memory:"
        self.writer_lock = threading.Lock()
        self._patience = Patience(config.busy_timeout)
        self._writer: apsw.Connection | None = None
        self._inside: apsw.Connection | None = None  # with the transaction of ``begin``
        self._suspect = False
        self._readers: list[apsw.Connection] = []
        self._readers_free = threading.Semaphore(config.pool_size)
        self._closed = True
        self._upkeep = Upkeep(self.another_connection, self.writer_lock, self.shown_path, self._distrust_writer)
        self._watch = Watch(self.another_connection, ring, self.shown_path)

    # -- life ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Opens the writer's connection; the folder must exist."""
        check_engine()
        self._check_place()
        self._closed = False
        with self.writer_lock:
            connection = self.connection()
            if not self.place.memory:
                self._check_log(connection)

    def _check_place(self) -> None:
        """Tells a mistyped address from a disk that fails: the first is the caller's, and no retry helps."""
        path = Path(self.place.path)
        if self.place.memory:
            return
        if path.is_dir():
            raise Invalid(f"{self.shown_path} is a folder, not a database", field="connection_string")
        if not path.absolute().parent.is_dir():
            raise Invalid(
                f"there is no folder {path.absolute().parent}", field="connection_string", hint="make it first"
            )

    def close(self) -> None:
        """Closes every connection; the last process to do so leaves one file behind."""
        self._closed = True
        self._upkeep.stop()
        self._watch.stop()
        with self.writer_lock:
            if self._suspect:
                self._abandon_writer()
            open_ones = [*self._readers, *([] if self._writer is None else [self._writer])]
            self._readers, self._writer = [], None
            for connection in open_ones:
                connection.set_wal_hook(None)
                try:
                    connection.close()
                except apsw.Error as error:  # it is closed; what the log holds stays there for the next one
                    _log.warning("closing %s: %s", self.shown_path, error)

    def _check_log(self, connection: apsw.Connection) -> None:
        try:
            lost = log.lost_frames(connection, self.place.path)
            if not lost:
                return
            if log.outlived_the_machine(self.place.path):
                _log.warning(
                    "the last %d frames of the log of %s cannot be read; it ends before them", lost, self.shown_path
                )
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                return
        except apsw.BusyError:
            return
        except _ENGINE_ERRORS as error:
            raise translate(error, self.shown_path) from error
        self._closed = True
        self._abandon_writer()
        raise ChecksumMismatch(
            f"the write-ahead log of {self.shown_path} is damaged: {lost} of its frames, committed, cannot be read",
            hint="restore a backup",
        )

    def _abandon_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            abandon(writer)

    def _distrust_writer(self) -> None:
        self._suspect = True

    def another_connection(self) -> apsw.Connection:
        """A connection beside the writer's and the readers'; whoever asks closes it."""
        try:
            return connect(self.place, self.config, Patience(self.config.busy_timeout))
        except _ENGINE_ERRORS as error:
            raise translate(error, self.shown_path) from error

    def connection(self) -> apsw.Connection:
        """The writer's connection, opened anew when the last one met an I/O error. The lock is held."""
        if self._closed:
            raise Closed(f"the store at {self.shown_path} is closed")
        if self._suspect:
            self._abandon_writer()
        if self._writer is None:
            try:
                self._writer = connect(self.place, self.config, self._patience)
            except _ENGINE_ERRORS as error:
                raise translate(error, self.shown_path) from error
            self._writer.set_wal_hook(self._upkeep.on_commit)
            self._suspect = False
        return self._writer

    @property
    def has_page_checksums(self) -> bool:
        """Whether pages are checked as they are read."""
        with self.writer_lock:
            return not self.place.memory and page_checksums(self.connection())

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While the block lasts, the bell also rings for commits of others; in memory there are none."""
        if self.place.memory:
            yield
            return
        with self._watch.attended():
            yield

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, jobs: Sequence[Job], *, wait: bool = True) -> list[Outcome]:
        """The outcomes of recipes that share one commit, in order. The lock must be held.

        With ``wait=False`` the first thing that would have to be waited for raises ``Busy``, before anything ran.
        """
        connection = self.connection()
        self._begin(connection, wait=wait)
        try:
            if len(jobs) == 1:
                outcomes: list[Outcome] = [(self.run(connection, *jobs[0]), None)]
            else:
                outcomes = self._run_each(connection, jobs)
            self._commit(connection)
        except _ENGINE_ERRORS as error:  # of a savepoint
            self._note_io_error(error)
            self._rollback(connection)
            raise translate(error, self.shown_path) from error
        except BaseException:
            self._rollback(connection)
            raise
        return outcomes

    def _begin(self, connection: apsw.Connection, *, wait: bool) -> None:
        self._patience.on = wait
        try:
            connection.execute("begin immediate")
        except _ENGINE_ERRORS as error:
            self._note_io_error(error)
            raise translate(error, self.shown_path) from error
        finally:
            self._patience.on = True

    def _run_each(self, connection: apsw.Connection, jobs: Sequence[Job]) -> list[Outcome]:
        """The recipes of a batch, one after another; those that can be merged run as one, and alone if that fails."""
        outcomes: list[Outcome] = []
        for run in merged_runs(jobs):
            op, scope = jobs[run[0]]
            if len(run) > 1 and op.traits.merge is not None:
                merged = op.traits.merge([jobs[index][0] for index in run])
                answers, error = self._run_alone(connection, (merged, scope))
                if error is None:
                    outcomes += outcomes_of(answers)
                    continue
            outcomes += [self._run_alone(connection, jobs[index]) for index in run]
        return outcomes

    def _run_alone(self, connection: apsw.Connection, job: Job) -> Outcome:
        """One recipe of a batch; its failure takes back its own changes only."""
        connection.execute("savepoint one")
        try:
            answer = self.run(connection, *job)
        except Exception as error:
            if not connection.in_transaction:  # SQLite gave up the whole transaction (disk full, I/O error)
                raise
            connection.execute("rollback to one")
            connection.execute("release one")
            return None, error
        connection.execute("release one")
        return answer, None

    def _commit(self, connection: apsw.Connection) -> None:
        try:
            connection.execute("commit")
        except apsw.IOError as error:
            self._suspect = True
            raise OutcomeUnknown(
                f"the disk failed while committing to {self.shown_path}: {error}",
                hint="ask again with the same idempotency_key",
            ) from error
        except _ENGINE_ERRORS as error:
            raise translate(error, self.shown_path) from error
        self._ring()

    def _rollback(self, connection: apsw.Connection) -> None:
        if connection.in_transaction:
            try:
                connection.execute("rollback")
            except apsw.Error:
                _log.warning("rollback failed on %s; the connection is opened anew", self.shown_path)
                self._suspect = True

    def _note_io_error(self, error: Exception) -> None:
        if isinstance(error, apsw.IOError):
            self._suspect = True

    # -- transactions that span several calls ----------------------------------------------------------------------

    def begin(self) -> None:
        """Opens a transaction for ``run_inside``. The lock must be held until ``end``."""
        self._inside = None
        connection = self.connection()
        self._begin(connection, wait=True)
        self._inside = connection

    def run_inside(self, op: Op[T], scope: Scope) -> T:
        """One recipe inside the open transaction; a failing one takes back its own changes only."""
        try:
            answer, error = self._run_alone(self._open_transaction(), (op, scope))
        except _ENGINE_ERRORS as failure:
            self._note_io_error(failure)
            raise translate(failure, self.shown_path) from failure
        if error is not None:
            raise error
        return answer

    def end(self, *, keep: bool) -> None:
        """Commits the open transaction, or takes it back."""
        try:
            if keep:
                self._commit(self._open_transaction())
        finally:
            connection, self._inside = self._inside, None
            if connection is not None:
                self._rollback(connection)

    def _open_transaction(self) -> apsw.Connection:
        """The connection that ``begin`` opened a transaction on, if SQLite has not given it up (a full disk)."""
        if self._inside is None or not self._inside.in_transaction:
            raise Unavailable("the disk failed inside the transaction; nothing of it was kept", retry_after=0.5)
        return self._inside

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, op: Op[T], scope: Scope) -> T:
        """The answer of a recipe that changes nothing, from one snapshot."""
        if self.place.memory:
            with self.writer_lock:
                return self.run(self.connection(), op, scope)
        with self._reader() as connection:
            connection.execute("begin")
            try:
                return self.run(connection, op, scope)
            finally:
                if connection.in_transaction:
                    connection.execute("commit")

    def has_free_reader(self) -> bool:
        """Whether a short read would find a connection without waiting for one."""
        free = self._readers_free.acquire(blocking=False)
        if free:
            self._readers_free.release()
        return free

    @contextmanager
    def _reader(self) -> Iterator[apsw.Connection]:
        if self._closed:
            raise Closed(f"the store at {self.shown_path} is closed")
        if not self._readers_free.acquire(timeout=self.config.pool_timeout):
            raise Unavailable("every reader's connection stayed in use for longer than pool_timeout", retry_after=1.0)
        connection = None
        try:
            try:
                connection = self._readers.pop()
            except IndexError:
                patience = Patience(self.config.busy_timeout)
                connection = connect(self.place, self.config, patience, read_only=True)
            yield connection
        except _ENGINE_ERRORS as error:
            raise translate(error, self.shown_path) from error
        finally:
            if connection is not None:
                if self._closed:
                    connection.close()
                else:
                    self._readers.append(connection)
            self._readers_free.release()

    # -- statements ------------------------------------------------------------------------------------------------

    def run(self, connection: apsw.Connection, op: Op[T], scope: Scope) -> T:
        """Drives a recipe to its end, question by question."""
        steps = op.start()
        answer: Any = None
        try:
            while True:
                ask = steps.send(answer)
                try:
                    answer = self._answer(connection, ask, scope)
                except _ENGINE_ERRORS as error:
                    self._note_io_error(error)
                    raise translate(error, self.shown_path) from error
        except StopIteration as stop:
            return stop.value
        except _STRANGE_ROWS as error:
            self._ask_the_file(connection, error)
            raise
        finally:
            steps.close()

    def _ask_the_file(self, connection: apsw.Connection, error: Exception) -> None:
        """Raises ``Damaged`` when rows that made no sense came from a damaged file (a page in another's place)."""
        try:
            problems = [str(row[0]) for row in connection.execute("pragma integrity_check(1)")]
        except _ENGINE_ERRORS as worse:
            raise translate(worse, self.shown_path) from error
        if problems != ["ok"]:
            raise Damaged(f"{self.shown_path} is damaged: {problems[0]}", hint="restore a backup") from error

    def _answer(self, connection: apsw.Connection, ask: Ask, scope: Scope) -> Any:
        if ask.mode is Mode.TOGETHER:
            return [self._answer(connection, one, scope) for one in ask.asks]
        statement = self.book[ask.name]
        variant = statement.variant(ask.flags)
        text = variant.text
        if self.config.echo_sql:
            _log.info("%s: %s", statement.name, text)
        if ask.mode is Mode.MANY:
            connection.executemany(text, (_bound(variant, row, scope) for row in ask.rows))
            return None
        params = _bound(variant, ask.params, scope)
        if ask.where is not None:
            fragment, values = render(ask.where.filter, ask.where.columns, ask.where.metadata, "w")
            text = text.replace("{where}", fragment)
            params.update(values)
        rows = cast("list[Any]", connection.execute(text, params).fetchall())  # to the end: RETURNING must finish
        if ask.mode is Mode.ALL:
            return rows
        if ask.mode is Mode.ONE:
            return rows[0] if rows else None
        return connection.changes()

    def execute(self, sql: str, params: Any) -> list[tuple[Any, ...]]:
        """The rows of an administrator's statement, in a transaction of its own. The lock must be held."""
        connection = self.connection()
        self._begin(connection, wait=True)
        try:
            rows = cast("list[Any]", connection.execute(sql, params).fetchall())
            self._commit(connection)
        except _ENGINE_ERRORS as error:
            self._note_io_error(error)
            raise translate(error, self.shown_path) from error
        finally:
            self._rollback(connection)
        return rows

    # -- the write-ahead log -----------------------------------------------------------------------------------------

    def checkpoint_log(self) -> int:
        """Moves the whole log into the file now; returns the bytes that remain in it."""
        with self.writer_lock:
            try:
                self.connection().wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError:
                _log.info("others are using %s; its log stays as it is", self.shown_path)
            except _ENGINE_ERRORS as error:
                self._note_io_error(error)
                raise translate(error, self.shown_path) from error
        file = Path(f"{self.place.path}-wal")
        return file.stat().st_size if file.exists() else 0


def _bound(variant: Variant, params: dict[str, Any], scope: Scope) -> dict[str, Any]:
    """The parameters with the scope's own bound over whatever a recipe may have put there."""
    params["tenant"] = scope.tenant
    if variant.names_actor:
        params["actor"] = scope.actor
        params["reason"] = scope.reason
    for name in variant.lists:
        params[name] = json.dumps(params[name])
    return params
