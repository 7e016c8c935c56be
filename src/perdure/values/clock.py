"""Time is an integer of microseconds since 1970 in UTC; people see aware datetimes."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from perdure.values.errors import Invalid, Undecodable

Micros = int
Clock = Callable[[], Micros]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)


def system_clock() -> Micros:
    """The wall clock of this machine."""
    return time.time_ns() // 1_000


def to_datetime(micros: Micros) -> datetime:
    """The aware UTC datetime of a stored time. Raises ``Undecodable`` for what no time can be: a damaged row."""
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except (TypeError, OverflowError):
        raise Undecodable(f"a stored time is none: {str(micros)[:40]!r}", hint="run: perdure doctor") from None


def to_micros(value: datetime | str, field: str = "time") -> Micros:
    """A datetime (naive ones are read as UTC) or ISO-8601 text as microseconds."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise Invalid(f"{field} is not an ISO-8601 time: {value[:40]!r}", field=field) from None
    if not isinstance(value, datetime):
        raise Invalid(f"{field} must be a datetime or ISO-8601 text, not {type(value).__name__}", field=field)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return (value - _EPOCH) // _MICRO


_LAST = to_micros(datetime.max.replace(tzinfo=UTC))


def recordable(micros: Micros, field: str) -> Micros:
    """``micros`` when something stored can have happened then: in the years 1970 to 9999 of UTC, else Invalid."""
    if not 0 <= micros <= _LAST:
        raise Invalid(f"{field} lies {'before 1970' if micros < 0 else 'after 9999'}", field=field)
    return micros
