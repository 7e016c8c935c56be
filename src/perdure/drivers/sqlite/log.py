"""Whether the write-ahead log was read to its end.

When SQLite opens a log that a killed process left it reads up to the first frame whose checksum is wrong and takes that
for the end, because a torn end looks the same. So one flipped bit in the middle would silently take back every commit
after it, and mix old pages with new ones where some of them had been moved into the file. A process that is killed
while it commits leaves no commit frame behind the end, though: where one stands there, the log is damaged.

Only when the machine itself went down may frames be missing in the middle, because not all had reached the disk. So of
a log from before the last start of the machine this is logged, not raised.
"""

import time
from pathlib import Path

import apsw

_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_SALTS = slice(8, 16)
_TRIES = 3
_NOTHING = -1
"""SQLITE_CHECKPOINT_NOOP: tells how long the log is and moves nothing."""


def lost_frames(connection: apsw.Connection, path: str) -> int:
    """How many frames of the log, up to its last commit, SQLite has not taken in; 0 when it was read to its end."""
    file = Path(f"{path}-wal")
    lost = _last_commit(file) - _frames(connection)
    for _ in range(_TRIES):  # it may be a commit that another process is just making, or a log it just began anew
        if lost <= 0:
            return 0
        try:
            connection.execute("begin immediate")
        except apsw.BusyError:
            return 0
        last = _last_commit(file)
        connection.execute("rollback")
        lost = last - _frames(connection)
    return lost


def outlived_the_machine(path: str) -> bool:
    """Whether the log was last written before the machine was started; true too where nobody can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is None:
        return True
    started_at = time.time() - time.clock_gettime(clock)
    return Path(f"{path}-wal").stat().st_mtime < started_at


def _frames(connection: apsw.Connection) -> int:
    return connection.wal_checkpoint(mode=_NOTHING)[0]


def _last_commit(log: Path) -> int:
    """The number of the last frame that ends a commit of the log's present round; 0 when there is none."""
    try:
        file = log.open("rb", buffering=0)  # SQLite keeps its locks on other files, so closing this one drops none
    except FileNotFoundError:
        return 0
    with file:
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES:
            return 0
        size = _FRAME_HEADER_BYTES + _page_bytes(header)
        salts = int.from_bytes(header[16:24])
        frames = (log.stat().st_size - _HEADER_BYTES) // size
        for number in range(frames, 0, -1):
            file.seek(_HEADER_BYTES + (number - 1) * size)
            frame = file.read(_FRAME_HEADER_BYTES)
            # One bit of either may be the damage. Those of an earlier round of the log differ in about 16.
            near = (int.from_bytes(frame[_SALTS]) ^ salts).bit_count() <= 1
            if near and any(frame[4:8]):
                return number
    return 0


def _page_bytes(header: bytes) -> int:
    """The page's size that a log's head tells; it is a power of two, so a flipped bit shows."""
    size = int.from_bytes(header[8:12])
    return size if 512 <= size <= 65536 and size.bit_count() == 1 else 4096
