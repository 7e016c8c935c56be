"""Noticing that somebody else has committed to an SQLite file.

SQLite tells nobody, but ``pragma data_version`` on one and the same connection differs once any other connection, of
whatever process, has committed. While somebody waits, a thread asks for that number on a connection of its own; it is a
read of shared memory. When nobody waits it sleeps, and it ends with the store.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apsw

from perdure.values.errors import PerdureError

_POLL_SECONDS = 0.05
_log = logging.getLogger("perdure.sqlite")


class Watch:
    """Calls ``ring`` after commits of others, as long as somebody attends."""

    def __init__(self, connect: Callable[[], apsw.Connection], ring: Callable[[], None], path: str) -> None:
        self._connect = connect
        self._ring = ring
        self._path = path
        self._lock = threading.Lock()
        self._attending = 0
        self._attended = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: Any = None

    @contextmanager
    def attended(self) -> Iterator[None]:
        """While the block lasts, the file is watched."""
        with self._lock:
            self._attending += 1
            if self._thread is None and not self._ending.is_set():
                self._thread = threading.Thread(target=self._run, name="perdure-watch", daemon=True)
                self._thread.start()
            self._attended.set()
        try:
            yield
        finally:
            with self._lock:
                self._attending -= 1
                if not self._attending and not self._ending.is_set():
                    self._attended.clear()

    def stop(self) -> None:
        """Ends the thread and closes its connection."""
        with self._lock:
            self._ending.set()
            self._attended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        connection: apsw.Connection | None = None
        while self._attended.wait() and not self._ending.is_set():
            try:
                if connection is None:
                    connection = self._connect()
                self._look(connection)
            except (apsw.Error, PerdureError) as error:  # who waits looks for himself now and then
                _log.debug("watching %s: %s", self._path, error)
                if connection is not None:
                    connection.close(force=True)
                    connection = None
            self._ending.wait(_POLL_SECONDS)
        if connection is not None:
            connection.close()

    def _look(self, connection: apsw.Connection) -> None:
        """Rings when the number differs from the last one; at the first look too, as nobody knows what came before."""
        version = connection.pragma("data_version")
        if version != self._seen:
            self._seen = version
            self._ring()
