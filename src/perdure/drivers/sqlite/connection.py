"""How a connection to an SQLite file is opened: settings, page checksums, waiting for others.

New files carry a checksum on each page (SQLite's own checksum VFS, which apsw brings along): bare SQLite found a
tenth of random bit flips, this finds all of them, for nothing measurable (docs/decisions/0004). ``places.py`` binds
them to the page's place. Existing files without the reserved bytes are opened as they are.
"""

import ctypes
import os
import random
import threading
import time
from functools import cache
from typing import Any
from urllib.parse import quote

import apsw
import msgspec
from apsw import sqlite_extra

from perdure.drivers.sqlite import places
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Damaged

_RESERVED_BYTES = 8
_OLDEST = (3, 51, 3)
_PROGRESS_STEPS = 10_000
_loading = threading.Lock()


class Place(msgspec.Struct, frozen=True):
    """Where the database is: a file, or this process's memory."""

    path: str
    memory: bool


@cache
def checksum_vfs() -> str | None:
    """The name of the VFS that writes and checks page checksums; None where apsw brings none for this platform."""
    if not sqlite_extra.has("cksumvfs"):
        return None
    with _loading:  # of two at once the second would find the first one's in its way
        places.register()
        carrier = apsw.Connection(":memory:")
        sqlite_extra.load(carrier, "cksumvfs")
        carrier.close()
    return "cksmvfs" if "cksmvfs" in apsw.vfs_names() else None


def check_engine() -> None:
    """Refuses an SQLite whose write-ahead log can be reset under other processes (fixed in 3.51.3)."""
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < _OLDEST:
        raise Damaged(
            f"SQLite {apsw.sqlite_lib_version()} can corrupt a file that several processes share",
            hint="pip install -U apsw",
        )


class Patience:
    """SQLite's busy handler: short, uneven naps until a deadline, so that no writer starves behind the others.

    SQLite's own handler backs off to 100 ms and let one of eight writers wait for 0.7 s. ``on`` is off while
    nobody may wait (on the event loop's thread).
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.on = True
        self._deadline = 0.0
        self._random = random.Random()

    def __call__(self, tries: int) -> bool:
        """Whether to try again, after a nap."""
        if not self.on:
            return False
        now = time.monotonic()
        if tries == 0:
            self._deadline = now + self.seconds
        elif now >= self._deadline:
            return False
        time.sleep(self._random.uniform(0.0002, 0.001 + 0.0005 * min(tries, 8)))
        return True


class _StatementClock:
    """Stops a statement that runs for longer than ``statement_timeout``."""

    def __init__(self, connection: apsw.Connection, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._started = time.monotonic()

    def begin(self, _cursor: Any, _sql: str, _bindings: Any) -> bool:
        self._started = time.monotonic()
        return True

    def __call__(self) -> bool:
        return time.monotonic() - self._started > self._seconds


def connect(place: Place, config: PersistenceConfig, patience: Patience, *, read_only: bool = False) -> apsw.Connection:
    """An open connection with every setting of ``config`` in force.

    Raises apsw's own errors; the engine translates them.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_NOMUTEX
    if place.memory:
        connection = apsw.Connection(place.path, flags | apsw.SQLITE_OPEN_URI, statementcachesize=256)
    else:
        vfs = checksum_vfs()
        options: dict[str, Any] = {"vfs": vfs} if vfs else {}
        uri = f"file:{quote(os.fsencode(place.path), safe='')}?{places.WANTED}=1"
        connection = apsw.Connection(uri, flags | apsw.SQLITE_OPEN_URI, statementcachesize=256, **options)
    connection.set_busy_handler(patience)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    # Without it this SQLite (built with STAT4) prepares a statement anew whenever a value in its WHERE changes: 5 us each.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    if not place.memory:
        _reserve(connection)
        _enter_wal(connection, patience)
    connection.execute("pragma foreign_keys = on")
    connection.execute(f"pragma synchronous = {'full' if config.durability == 'full' else 'normal'}")
    connection.execute("pragma wal_autocheckpoint = 0")  # the engine's upkeep does it, off the write path
    connection.execute(f"pragma cache_size = {-(config.effective_cache_size or 16 * 1024 * 1024) // 1024}")
    connection.execute("pragma temp_store = memory")
    connection.execute("pragma secure_delete = on")  # what is erased leaves no bytes in free space
    if read_only:
        connection.execute("pragma query_only = on")
    if config.statement_timeout:
        clock = _StatementClock(connection, config.statement_timeout)
        connection.set_progress_handler(clock, _PROGRESS_STEPS)
        connection.set_exec_trace(clock.begin)
    return connection


def _reserve(connection: apsw.Connection) -> None:
    """Makes room for a checksum on each page; SQLite ignores it unless the file is still empty."""
    wanted = ctypes.c_int(_RESERVED_BYTES)
    connection.file_control("main", apsw.SQLITE_FCNTL_RESERVE_BYTES, ctypes.addressof(wanted))


def _enter_wal(connection: apsw.Connection, patience: Patience) -> None:
    """Switches to the write-ahead log. Several first openers at once get BUSY without the handler being asked."""
    deadline = time.monotonic() + patience.seconds
    tries = 0
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
        except apsw.BusyError:
            if time.monotonic() >= deadline:
                raise
            patience(tries)
            tries += 1
        else:
            return


def page_checksums(connection: apsw.Connection) -> bool:
    """Whether this file's pages carry checksums that are checked as they are read."""
    row = next(iter(connection.execute("pragma checksum_verification")), None)
    return row is not None and str(row[0]) == "1"
