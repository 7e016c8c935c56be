"""What PostgreSQL and psycopg say, in perdure's words. The one place that translates it."""

import psycopg
import psycopg_pool
from psycopg import errors as pg

from perdure.values.errors import (
    Busy,
    Closed,
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
    "messages_by_id": "there is a message with this id already",
    "conversations_by_id": "there is a conversation with this id already",
}

RETRY = (pg.DeadlockDetected, pg.SerializationFailure)
"""Errors that mean: run the whole transaction again."""


_NO_CONNECTION = (psycopg_pool.PoolClosed, psycopg_pool.PoolTimeout, psycopg_pool.TooManyRequests)


def is_broken(error: Exception) -> bool:
    """Whether the connection is gone, as opposed to a statement that was refused or a pool that gave none."""
    if isinstance(error, _NO_CONNECTION):
        return False
    if isinstance(
        error, pg.AdminShutdown | pg.CrashShutdown | pg.CannotConnectNow | pg.IdleInTransactionSessionTimeout
    ):
        return True
    return isinstance(error, psycopg.OperationalError) and error.sqlstate is None


def translate(error: Exception, where: str) -> PerdureError:
    """The error to raise for one that psycopg raised while talking to the server at ``where``."""
    if isinstance(error, psycopg_pool.PoolClosed):
        return Closed(f"the store at {where} is closed")
    if isinstance(error, psycopg_pool.PoolTimeout | psycopg_pool.TooManyRequests):
        return Unavailable(f"no connection to {where} within pool_timeout", retry_after=1.0)
    if isinstance(error, psycopg.OperationalError) and str(error).startswith(_CONNECTING):
        if any(sign in str(error) for sign in _NO_ENTRY):
            return Forbidden(f"{where} does not let us in: {_reason(error)}", hint="check the address and the login")
        return Disconnected(f"cannot connect to {where}: {_reason(error)}", retry_after=1.0)
    if isinstance(error, psycopg.Error) and is_broken(error):
        return Disconnected(f"the connection to {where} is gone; nothing was changed", retry_after=0.5)
    if isinstance(error, (*RETRY, pg.LockNotAvailable, pg.QueryCanceled)):
        return Busy(f"others held what this call needed, or it took too long: {_first_line(error)}", retry_after=0.1)
    if isinstance(error, pg.UniqueViolation):
        constraint = error.diag.constraint_name or ""
        return Conflict(_UNIQUE.get(constraint, f"the change would break the uniqueness of {constraint}"))
    if isinstance(error, psycopg.IntegrityError):
        return Conflict(f"the change would break a rule of the schema: {_first_line(error)}")
    if isinstance(error, pg.DiskFull | pg.OutOfMemory | pg.TooManyConnections | pg.InsufficientResources):
        return Unavailable(f"{where} has run out of something: {_first_line(error)}", hint="nothing was changed")
    if isinstance(error, pg.DataCorrupted | pg.IndexCorrupted):
        return Damaged(f"{where} reports damaged data: {_first_line(error)}", hint="restore a backup")
    if isinstance(error, pg.ReadOnlySqlTransaction | pg.InsufficientPrivilege):
        return Forbidden(f"{where} does not allow that: {_first_line(error)}")
    if isinstance(error, pg.UndefinedTable | pg.InvalidSchemaName | pg.UndefinedColumn):
        return SchemaBehind(f"{where} lacks a part of the schema: {_first_line(error)}", hint="run: perdure init")
    if isinstance(error, psycopg.DataError):
        return Invalid(f"PostgreSQL refused a value: {_first_line(error)}")
    if isinstance(error, psycopg.OperationalError):
        return Unavailable(f"{where} could not do that now: {_first_line(error)}")
    return Misused(f"PostgreSQL refused a statement: {_first_line(error)}")


_CONNECTING = ("connection failed", "failed to resolve host", "connection timeout", "connection is bad")
_NO_ENTRY = ("does not exist", "authentication failed", "no password supplied", "no pg_hba.conf entry")


def _reason(error: Exception) -> str:
    """The part of a connection error that says why; what stands before it repeats the address."""
    return _first_line(error).rpartition("failed: ")[2]


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
