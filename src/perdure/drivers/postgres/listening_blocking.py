# Generated from perdure/drivers/postgres/listening.py by tools/generate_sync.py; change that file and run `make sync`.
"""Telling other processes that something was committed, and hearing it from them.

A NOTIFY takes a lock of the whole database when its transaction commits and holds it until the disk has it, so one in each
writing transaction would make all writers wait for each other. Here it has a transaction of its own, after the writer's,
which does not wait for the disk, and many commits share one. It says which schema has news, nothing of what they are: who
hears it asks the feed. One that gets lost (a crash, a broken connection) costs a second, since readers also look unasked.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import psycopg
import psycopg_pool

from perdure.drivers.postgres.statements_blocking import Connection
from perdure.kit import blocking as kit
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Misused

_GAP_SECONDS = 0.02
"""Between two announcements of one store."""
_SLICE_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_CONNECT_SECONDS = 10
_ANNOUNCE = "select set_config('synchronous_commit', 'off', true), pg_notify('perdure', %s)"
_log = logging.getLogger("perdure.postgres")


class Announcer:
    """Tells that a schema has news, soon and not too often."""

    def __init__(
        self, connection: Callable[[], AbstractContextManager[Connection]], ring: Callable[[], None], schema: str
    ) -> None:
        self._connection = connection
        self._ring = ring
        self._schema = schema
        self._background = kit.Background()
        self._lock = threading.Lock()
        self._news = self._at_work = self._over = False

    def tell(self) -> None:
        """Wakes who waits in this store, now, and those elsewhere, in a moment; it does not wait."""
        self._ring()
        with self._lock:
            self._news = True
            if self._at_work or self._over:
                return
            self._at_work = True
            with contextlib.suppress(RuntimeError):  # the interpreter is going down and starts no thread any more
                self._background.start(self._work)

    def stop(self) -> None:
        """Sends what is still to be told, and nothing after it."""
        with self._lock:
            self._over = True
        self._background.stop()

    def _work(self) -> None:
        while self._has_news():
            self.announce()
            self._background.pause(_GAP_SECONDS)

    def _has_news(self) -> bool:
        with self._lock:
            self._at_work, self._news = self._news, False
            return self._at_work

    def announce(self) -> None:
        """Sends one announcement; where that fails, readers will look unasked."""
        try:
            with self._connection() as connection:
                connection.execute(_ANNOUNCE, (self._schema,))
        except (psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed, Misused) as error:
            _log.debug("a change was not announced: %s", error)


class Listener:
    """Hears announcements, on one connection, made when somebody first waits and made again when it broke."""

    def __init__(self, config: PersistenceConfig, ring: Callable[[], None]) -> None:
        self._config = config
        self._ring = ring
        self._background = kit.Background()
        self._lock = threading.Lock()
        self._over = False

    def start(self) -> None:
        """Begins to listen, if it has not begun.

        Not behind a pooler in transaction mode (``prepare_threshold=None``), which gives the connection that asked for
        announcements to somebody else the moment after; readers there look once a second.
        """
        with self._lock:
            if not (self._over or self._background.running or self._config.prepare_threshold is None):
                self._background.start(self._work)

    def stop(self, announce: Callable[[], None]) -> None:
        """Ends it; ``announce`` makes it hear something, so that it need not be waited for."""
        with self._lock:
            self._over = True
        if self._background.running:
            announce()
        self._background.stop()

    def _work(self) -> None:
        while not self._over:
            try:
                with psycopg.Connection.connect(
                    self._config.connection_string, autocommit=True, connect_timeout=_CONNECT_SECONDS
                ) as connection:
                    connection.execute("listen perdure")
                    self._ring()  # something may have come while nobody listened
                    self._hear(connection)
            except psycopg.Error as error:
                _log.info("listening for changes at %s: %s", self._config.safe_url, error)
            if not self._background.pause(_RETRY_SECONDS):
                return

    def _hear(self, connection: Connection) -> None:
        while not self._over:
            # In slices that end with what they heard: a generator that is left earlier keeps the connection's lock.
            for heard in connection.notifies(timeout=_SLICE_SECONDS, stop_after=1):
                if heard.payload == self._config.schema:
                    self._ring()
