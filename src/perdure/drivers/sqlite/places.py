"""Page checksums that hold in one place only: a sound page in another's place is as wrong as a damaged one.

SQLite's checksum VFS writes 8 bytes at the end of each page. They say nothing of where the page belongs, or to which
file. So beneath it the places VFS combines them, on their way to the disk, with a number that only this place in this
file has, and takes it off on the way back: what was written in one place and is read in another does not match its
checksum. PostgreSQL mixes a block's number into its checksum for the same reason.

Files written so are marked in their header, in bytes that SQLite leaves alone: eight say so, eight are drawn for the
file. Other files are read and written as they are. The write-ahead log needs none of this (its frames name their pages
and are chained): its methods stay SQLite's own, so that a commit costs no more than a few calls passed on.
"""

import os
from functools import cache
from typing import Any

import apsw

from perdure.values.errors import Misused

WANTED = "perdure_places"
"""The parameter of a file's URI with which a new file is marked."""
_MARK = b"places/1"
_MARKED = slice(72, 80)
_DRAWN = slice(80, 88)
_HEADER_BYTES = 100
_RESERVED = 20
_CHECKSUM_BYTES = 8
_SMALLEST_PAGE = 512
"""Shorter reads and writes are of the header; the checksum VFS goes by the same number."""
_NEW = b"SQLite format 3\0"


class _Database(apsw.VFSFile):
    """The database file itself, not its log."""

    def __init__(self, vfs: "_PlacesVFS", name: Any, flags: list[int]) -> None:
        super().__init__(vfs.beneath, name, flags)
        self._vfs = vfs
        named = isinstance(name, apsw.URIFilename)
        self._path = name.filename() if named else str(name)
        self._wanted = named and name.uri_boolean(WANTED, False)
        self._settled = False
        self._key: int | None = None
        """What was drawn for the file; None, once settled, when it is not marked."""

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        data = super().xRead(amount, offset)
        if len(data) < amount or amount < _SMALLEST_PAGE:
            return data
        if not self._settled:
            self._settle(super().xRead(_HEADER_BYTES, 0))
        if self._key is None:
            return data
        return _turned(data, offset ^ self._key) if offset else _headed(data, bytes(16))

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        if len(data) >= _SMALLEST_PAGE:
            if not self._settled:
                self._settle(super().xRead(_HEADER_BYTES, 0) if super().xFileSize() else self._begun(data, offset))
            if self._key is not None:
                data = _turned(data, offset ^ self._key) if offset else self._first_page(data)
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        if newsize == 0:  # its making was rolled back
            self._settled, self._key = False, None

    def _settle(self, header: bytes) -> None:
        self._settled = True
        self._key = int.from_bytes(header[_DRAWN]) if header[_MARKED] == _MARK else None
        self._vfs.marked[self._path] = self._key is not None

    def _begun(self, data: Any, offset: int) -> bytes:
        """The header of a new file whose first page this is."""
        head = bytes(data[:_HEADER_BYTES])
        marks = self._wanted and offset == 0 and head.startswith(_NEW) and head[_RESERVED] == _CHECKSUM_BYTES
        return _headed(head, _MARK + os.urandom(8)) if marks else head

    def _first_page(self, data: Any) -> bytes:
        if data[_RESERVED] != _CHECKSUM_BYTES:
            raise apsw.IOError("a file whose checksums are bound to places cannot give up its checksums")
        return _headed(data, _MARK + (self._key or 0).to_bytes(8))


def _turned(data: Any, number: int) -> bytes:
    """A page whose checksum is combined with a number; the same once more undoes it."""
    checksum = int.from_bytes(data[-_CHECKSUM_BYTES:]) ^ number
    return data[:-_CHECKSUM_BYTES] + checksum.to_bytes(8)


def _headed(data: Any, mark: bytes) -> bytes:
    """A first page (its checksum is left as it is: no other page begins like it) with these 16 bytes as its mark."""
    return data[: _MARKED.start] + mark + data[_DRAWN.stop :]


class _PlacesVFS(apsw.VFS):
    def __init__(self, name: str, beneath: str) -> None:
        super().__init__(name, beneath, makedefault=True)
        self.beneath = beneath
        self.marked: dict[str, bool] = {}

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return _Database(self, name, flags)
        return apsw.VFSFile(self.beneath, name, flags)


@cache
def _vfs() -> _PlacesVFS:
    """The one VFS of this process; SQLite holds on to it."""
    if "cksmvfs" in apsw.vfs_names():
        raise Misused(
            "another library has loaded SQLite's checksum VFS; perdure's must come before it",
            hint="open the store, or call perdure.drivers.sqlite.connection.checksum_vfs(), first",
        )
    return _PlacesVFS("perdure-places", apsw.vfs_names()[0])


def register() -> None:
    """Makes it SQLite's default, so that the checksum VFS, loaded next, is put on top of it."""
    _vfs()


def is_marked(connection: apsw.Connection) -> bool:
    """Whether the checksums of this connection's file, of which it has read something, are bound to their places."""
    return _vfs().marked.get(connection.filename, False)
