"""Everything perdure raises, in four families.

The family says who has to act; the subclass says what happened::

    PerdureError(code, message, hint)
    ├─ Refused       the caller's fault: change the call
    │   ├─ NotFound · Conflict · Invalid · OverLimit · Forbidden · QuotaExceeded
    ├─ Unavailable   nobody's fault: try again        (.retry_after seconds, or None)
    │   ├─ Busy · Disconnected · OutcomeUnknown · EmbedderDown
    ├─ Damaged       the data's fault: do not try again
    │   ├─ SchemaBehind · SchemaAhead · ChecksumMismatch · Undecodable · WrongKey
    └─ Misused       the programmer's fault: mend the program
        └─ Closed · MissingExtra

The leaf classes are also attributes of their family (``Unavailable.OutcomeUnknown``), so that an
``except`` clause can spell out the family it means. The edges translate by family, never by leaf.
"""

from typing import Any, ClassVar


class PerdureError(Exception):
    """The base of all errors of perdure.

    ``code`` is a stable dotted word for programs, ``message`` one sentence for people, ``hint`` what to
    do next (or ""). ``details`` holds named facts (``field``, ``limit``, ...) as plain JSON values.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.details)


def _rebuild(kind: type[PerdureError], message: str, hint: str, details: dict[str, Any]) -> PerdureError:
    """Pickle's way back (errors cross process boundaries in the fault tests and in worker pools)."""
    error = kind.__new__(kind)
    PerdureError.__init__(error, message, hint=hint, **details)
    return error


class Refused(PerdureError):
    """The call asked for something it may not have; nothing was changed."""

    code = "refused"
    exit_code = 2


class NotFound(Refused):
    """A changing verb named something that is not there."""

    code = "refused.not_found"


class Conflict(Refused):
    """Somebody else changed it first, or the same key stands for other content."""

    code = "refused.conflict"


class Invalid(Refused):
    """A value is not of the form it must have; ``details['field']`` names it."""

    code = "refused.invalid"

    def __init__(self, message: str, *, field: str = "", hint: str = "", **details: Any) -> None:
        super().__init__(message, hint=hint, field=field, **details)

    @property
    def field(self) -> str:
        """The name of the field that was refused."""
        return str(self.details.get("field", ""))


class OverLimit(Invalid):
    """A size or a count is above its named limit (``details['limit']``)."""

    code = "refused.over_limit"


class Forbidden(Refused):
    """The handle may not do that."""

    code = "refused.forbidden"


class QuotaExceeded(Refused):
    """A tenant has used up what it was given."""

    code = "refused.quota_exceeded"


class Unavailable(PerdureError):
    """It did not work now and may work later. ``retry_after`` is in seconds, None when not known."""

    code = "unavailable"
    exit_code = 3

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str = "", **details: Any) -> None:
        super().__init__(message, hint=hint, retry_after=retry_after, **details)

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before another try, or None when nobody knows."""
        value = self.details.get("retry_after")
        return float(value) if value is not None else None


class Busy(Unavailable):
    """Others held what this call needed for longer than the time limit."""

    code = "unavailable.busy"


class Disconnected(Unavailable):
    """The server or the disk did not answer; the change was not made."""

    code = "unavailable.disconnected"


class OutcomeUnknown(Unavailable):
    """The connection broke while committing: the change is wholly there or wholly absent.

    Calling again with the same ``idempotency_key`` settles it.
    """

    code = "unavailable.outcome_unknown"


class EmbedderDown(Unavailable):
    """The embedding service did not answer."""

    code = "unavailable.embedder_down"


class Damaged(PerdureError):
    """What is stored is not what was written; it is reported, never guessed."""

    code = "damaged"
    exit_code = 4


class SchemaBehind(Damaged):
    """The database is older than the library and must be migrated first."""

    code = "damaged.schema_behind"


class SchemaAhead(Damaged):
    """The database is newer than the library; it was left untouched."""

    code = "damaged.schema_ahead"


class ChecksumMismatch(Damaged):
    """Bytes changed on the way between writing and reading."""

    code = "damaged.checksum_mismatch"


class Undecodable(Damaged):
    """A stored value cannot be decoded."""

    code = "damaged.undecodable"


class WrongKey(Damaged):
    """The encryption key is not the one the data was written with."""

    code = "damaged.wrong_key"


class Misused(PerdureError):
    """The program is wrong: no retry and no other input will help."""

    code = "misused"
    exit_code = 5


class Closed(Misused):
    """The store was closed before this call."""

    code = "misused.closed"


class MissingExtra(Misused):
    """A part that this call needs is not installed; the hint is the ``pip install`` line."""

    code = "misused.missing_extra"


for _family in (Refused, Unavailable, Damaged, Misused):
    for _leaf in [kind for kind in list(globals().values()) if isinstance(kind, type)]:
        if issubclass(_leaf, _family) and _leaf is not _family:
            setattr(_family, _leaf.__name__, _leaf)
