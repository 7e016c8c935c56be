"""The files of imports and exports: numbered lines with a limit, and a target that is whole or not there."""

import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from perdure.rooms.conversations.foreign import format_of, is_archive
from perdure.values import limits
from perdure.values.errors import Invalid, OverLimit

_MEMORY_BYTES = 8 * 1024 * 1024
"""What a spool keeps in memory before it goes to disk."""
_PEEK_LINES = 20
_decode = msgspec.json.Decoder().decode

Line = tuple[int, bytes | None]
"""A line with its number, counted from 1; None in place of one above the limit."""


def _kind(value: Any) -> str:
    return type(value).__name__


class Spool:
    """An import's source as a file that can be read twice: a file itself, or lines that were put aside."""

    def __init__(self, source: object) -> None:
        self._lines: Iterator[Any] | None = None
        if isinstance(source, str | os.PathLike):
            self.file: Any = Path(os.fspath(source)).open("rb")  # noqa: SIM115 - closed by close()
            self._owned = True
        elif isinstance(source, bytes | bytearray | Mapping) or not isinstance(source, Iterable):
            raise Invalid(
                f"source must be a path or lines, not {_kind(source)}", field="source",
                hint="a path, an open file, or an iterable of lines",
            )  # fmt: skip
        else:
            self.file = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115 - closed by close()
            self._owned = True
            self._lines = iter(cast("Iterable[Any]", source))

    def take(self, count: int) -> bool:
        """Puts the next lines of the source aside; whether there may be more."""
        if self._lines is None:
            return False
        for _ in range(count):
            line = next(self._lines, None)
            if line is None:
                return False
            raw = line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line
            if not isinstance(raw, bytes):
                raise Invalid(f"a line must be text or bytes, not {type(line).__name__}", field="source")
            self.file.write(raw if raw.endswith(b"\n") else raw + b"\n")
        return True

    def size(self) -> int:
        """How many bytes there are, 0 where that cannot be known."""
        try:
            self.file.seek(0, os.SEEK_END)
            return self.file.tell()
        except OSError:
            return 0

    def close(self) -> None:
        """Gives the file back."""
        self.file.close()


class Numbered:
    """The lines of a file, or the records of one JSON document, in portions."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._number = 0
        self._records: list[msgspec.Raw] | None = None
        self.sample: Any = None
        """The first record that could be read, to know the format by."""
        self.rewind()

    def rewind(self) -> None:
        """Begins anew."""
        self._file.seek(0)
        self._number = 0

    def look(self) -> None:
        """Finds out whether the file is JSON Lines or one JSON document, and what it holds."""
        first: bytes | None = None
        for _, raw in self.portion(_PEEK_LINES, _MEMORY_BYTES):
            if raw is None or not raw.strip():
                continue
            first = first or raw.strip().removeprefix(b"\xef\xbb\xbf")
            try:
                self.sample = _decode(raw.strip().removeprefix(b"\xef\xbb\xbf"))
                break
            except (ValueError, RecursionError):  # msgspec's errors and those of Unicode are ValueErrors
                continue
        if first is not None and (first[-1:] in b"[{," or is_archive(self.sample)):
            self._look_at_document()
        self.rewind()

    def _look_at_document(self) -> None:
        """One document that spans lines, or a whole archive in one."""
        self._file.seek(0)
        raw = self._file.read(limits.JSON_LINE_BYTES + 1)
        if len(raw) > limits.JSON_LINE_BYTES:
            limit = limits.JSON_LINE_BYTES
            raise OverLimit(
                f"one JSON document may have {limit:,} bytes; this one is larger", field="source", limit=limit,
                hint="write a line of JSON for each conversation",
            )  # fmt: skip
        raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            value = _decode(raw)
        except (ValueError, RecursionError):
            return
        self.sample = value
        if is_archive(value):
            self._records = msgspec.json.decode(raw, type=list[msgspec.Raw])
        elif format_of(value) is not None:
            self._records = [msgspec.Raw(raw)]

    def portion(self, count: int, size: int) -> list[Line]:
        """The next lines: at most ``count``, and about ``size`` bytes; none at the end."""
        if self._records is not None:
            chosen = self._records[self._number : self._number + 1]
            self._number += len(chosen)
            return [(self._number, bytes(record)) for record in chosen]
        lines: list[Line] = []
        while len(lines) < count and size > 0:
            raw: bytes | None = self._file.readline(limits.JSON_LINE_BYTES + 1)
            if not raw:
                break
            self._number += 1
            size -= len(raw)
            if len(raw) > limits.JSON_LINE_BYTES:
                self._skip(raw)
                raw = None
            lines.append((self._number, raw))
        return lines

    def _skip(self, raw: bytes) -> None:
        """Reads on to the end of a line that is too long."""
        while raw and not raw.endswith(b"\n"):
            raw = self._file.readline(_MEMORY_BYTES)

    @property
    def position(self) -> int:
        """How far it has read, in bytes."""
        return self._file.tell()


class Target:
    """Where an export goes. A file at a path appears when all of it is on disk, and is left as it was on failure."""

    def __init__(self, target: Any) -> None:
        self._path: Path | None = None
        self._file: Any = None
        self._write: Callable[[bytes], Any]
        if isinstance(target, str | os.PathLike):
            self._open(Path(os.path.realpath(os.fspath(target))))
        elif callable(getattr(target, "write", None)):
            self._write = target.write
        elif callable(target):
            self._write = target
        else:
            raise Invalid(
                f"target must be a path, a binary file or a callable, not {type(target).__name__}", field="target"
            )

    def _open(self, path: Path) -> None:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            self._file = path.open("wb")  # a pipe or a device cannot be replaced
        else:
            self._path = path
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by __exit__
                dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
            )
        self._write = self._file.write

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        self._write(chunk)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        done = False
        try:
            if kind is None and self._path is not None:
                self._file.flush()
                os.fsync(self._file.fileno())
                done = True
        finally:
            self._file.close()
            if self._path is not None and not done:
                Path(self._file.name).unlink(missing_ok=True)
        if self._path is not None and done:
            Path(self._file.name).replace(self._path)
            _sync_folder(self._path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes the new name of a file as durable as its bytes, where folders can be synced."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
