"""What SQLite says, in perdure's words. The one place that translates it."""

import apsw

from perdure.values.errors import (
    Busy,
    ChecksumMismatch,
    Conflict,
    Damaged,
    Disconnected,
    Forbidden,
    Invalid,
    Misused,
    PerdureError,
    SchemaBehind,
    Unavailable,
)  # fmt: skip

_UNIQUE = {
    "messages.tenant, messages.id": "there is a message with this id already",
    "conversations.tenant, conversations.id": "there is a conversation with this id already",
}
_LACKING = ("no such table", "no such column", "no such index")
_IOERR_DATA = int(apsw.SQLITE_IOERR_DATA)
_IOERR_CORRUPTFS = int(apsw.SQLITE_IOERR_CORRUPTFS)


def translate(error: Exception, path: str) -> PerdureError:
    """The error to raise for one that apsw raised while working on the file at ``path``."""
    if isinstance(error, UnicodeDecodeError):
        return ChecksumMismatch(f"{path} holds text that is not UTF-8: the file is damaged", hint="restore a backup")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return Busy(f"others kept writing to {path} for longer than busy_timeout", retry_after=0.1)
    if isinstance(error, MemoryError):
        return Unavailable(f"there is not enough memory to answer from {path}", hint="or it is damaged: perdure doctor")
    if isinstance(error, apsw.FullError):
        return Unavailable(f"there is no space left to write {path}", hint="free some space; nothing was changed")
    if isinstance(error, apsw.IOError):
        if getattr(error, "extendedresult", 0) in {_IOERR_DATA, _IOERR_CORRUPTFS}:
            return ChecksumMismatch(f"a page of {path} does not match its checksum", hint="restore a backup")
        return Disconnected(f"the disk failed while reading or writing {path}: {error}", hint="nothing was changed")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return Damaged(f"{path} is damaged or is not a database: {error}", hint="restore a backup")
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError | apsw.AuthError):
        return Forbidden(f"{path} may not be written: {error}")
    if isinstance(error, apsw.CantOpenError):
        return Unavailable(f"cannot open {path}", hint="does its folder exist, and may it be written?")
    if isinstance(error, apsw.InterruptError):
        return Busy("the statement ran for longer than statement_timeout and was stopped")
    if isinstance(error, apsw.ConstraintError):
        for columns, sentence in _UNIQUE.items():
            if columns in str(error):
                return Conflict(sentence)
        return Conflict(f"the change would break a rule of the schema: {error}")
    if isinstance(error, apsw.TooBigError | apsw.MismatchError | apsw.RangeError):
        return Invalid(f"SQLite refused a value: {error}")
    if isinstance(error, apsw.SQLError) and str(error).startswith(_LACKING):  # SQLite has no code of its own for it
        return SchemaBehind(f"{path} lacks a part of the schema: {error}", hint="run: perdure init")
    return Misused(f"SQLite refused a statement: {error}")
