"""Moving SQLite's write-ahead log into the file, so that it stays short.

Where a pass is quick (memory, a disk that need not be waited for) it is done right after the commit that made the log
``_PASS_PAGES`` long: nothing is as cheap. Where it is not, a thread of its own does it beside the writers, on a connection
of its own. Such a pass never gets past their newest commits, so the log would grow for ever (395 MB were measured);
once it has ``_LONG_PAGES`` a second pass holds the writer's lock for the little that is left, and the log begins anew.
"""

import logging
import threading
import time
from collections.abc import Callable

import apsw

from perdure.values.errors import PerdureError

_PASS_PAGES = 1_000
_LONG_PAGES = 4_000
_QUICK_SECONDS = 0.005
_log = logging.getLogger("perdure.sqlite")


def abandon(connection: apsw.Connection) -> None:
    """Closes a connection that met an I/O error without moving the log: a failed sync must not be tried again on it."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.set_wal_hook(None)
    connection.close(force=True)


class Upkeep:
    """The thread that keeps the log of one database short."""

    def __init__(
        self,
        connect: Callable[[], apsw.Connection],
        writer_lock: threading.Lock,
        path: str,
        distrust_writer: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._distrust_writer = distrust_writer
        self._writer_lock = writer_lock
        self._path = path
        self._pages = 0
        self._next_pass = _PASS_PAGES
        self._wanted = threading.Event()
        self._ending = False
        self._quick = False  # until the first pass has shown it
        self._thread: threading.Thread | None = None

    def on_commit(self, connection: apsw.Connection, _database: str, pages: int) -> int:
        """SQLite's WAL hook: how many pages the log holds after a commit."""
        if pages < self._pages:  # the log began anew
            self._next_pass = _PASS_PAGES
        self._pages = pages
        if pages >= self._next_pass:
            self._next_pass = pages + _PASS_PAGES
            try:
                if self._quick:
                    self._timed_pass(connection)
                else:
                    self._call_thread()
            except Exception as error:  # broad: logged; the commit stands, and must not be taken for a failed one
                self._tell(error)
                if isinstance(error, apsw.IOError):
                    self._distrust_writer()
        return int(apsw.SQLITE_OK)

    def _call_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="perdure-upkeep", daemon=True)
            thread.start()
            self._thread = thread
        self._wanted.set()

    def _timed_pass(self, connection: apsw.Connection) -> None:
        started = time.perf_counter()
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        finally:
            self._quick = time.perf_counter() - started < _QUICK_SECONDS

    def _tell(self, error: Exception) -> None:
        if isinstance(error, apsw.BusyError):
            _log.debug("upkeep of %s met other users and will be tried again", self._path)
        else:
            _log.warning("upkeep of %s failed: %s", self._path, error)

    def stop(self) -> None:
        """Lets a pass that is under way finish and ends the thread."""
        self._ending = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        connection: apsw.Connection | None = None
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._ending:
                break
            try:
                if connection is None:
                    connection = self._connect()
                self._pass(connection)
            except (apsw.Error, PerdureError) as error:
                self._tell(error)
                if connection is not None and isinstance(error, apsw.IOError):
                    abandon(connection)
                    connection = None
        if connection is not None:
            connection.close()

    def _pass(self, connection: apsw.Connection) -> None:
        self._timed_pass(connection)
        if self._quick or self._pages >= _LONG_PAGES:
            with self._writer_lock:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
