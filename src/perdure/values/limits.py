"""Named limits with their units: what is above one is ``OverLimit``, and the error names it."""

from perdure.values.errors import Invalid, OverLimit

ID_BYTES = 512
"""An id given by a caller, in bytes of UTF-8."""
NAME_BYTES = 1_024
"""A speaker's name, a tag, a participant, a model's name."""
TITLE_BYTES = 4_096
CONTENT_BYTES = 64 * 1024 * 1024
"""One message's content."""
METADATA_BYTES = 4 * 1024 * 1024
"""Metadata of one conversation or message, encoded."""
METADATA_DEPTH = 64
"""Levels of lists and objects in metadata and content parts."""
LABELS = 256
"""Tags, or participants, of one conversation."""
PAGE = 1_000
"""Rows that one page may hold."""
DRAFTS = 10_000
"""Messages in one ``add_messages`` or ``flush``."""
TOKENS = 10**12
"""Tokens in one count; sums of many millions of such messages still fit 64 bits."""
COST_NANOS = 10**13
"""Cost of one message, in nano-units of money (ten thousand units); sums of a million such messages still fit."""
QUERY_BYTES = 16 * 1024
"""A full-text query."""
QUERY_TERMS = 64
"""Different words of a full-text query that count."""
FILTER_CLAUSES = 256
"""Comparisons in one filter."""
FILTER_DEPTH = 16
FILTER_VALUES = 1_000
"""Values in one ``$in``."""
IDEMPOTENCY_KEY_BYTES = 512
IDEMPOTENCY_HOURS = 24
WAIT_SECONDS = 60
"""How long one call may wait for something to happen."""
STATE_DEPTH = 255
"""Levels of containers in a checkpoint's value: what the packer of msgpack holds in one piece."""
TYPE_VERSION = 2**31 - 1
"""The version of a registered type."""
JSON_LINE_BYTES = 512 * 1024 * 1024
"""One line of an import: the largest message fits, were each of its characters written as an escape."""


def text(value: object, field: str, limit: int, *, blank: bool = False) -> str:
    """``value`` when it is text that every engine can hold, within ``limit`` bytes of UTF-8.

    NUL and lone surrogates are Invalid: PostgreSQL cannot store the first, nothing can encode the second.
    Unless ``blank`` is true, text of nothing but white space is Invalid too.
    """
    if not isinstance(value, str):
        raise Invalid(f"{field} must be text, not {type(value).__name__}", field=field)
    if not value.isascii():
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise Invalid(f"{field} holds a lone surrogate, which is not text", field=field) from None
    else:
        size = len(value)
    if size > limit:
        raise OverLimit(f"{field} has {size:,} bytes; the limit is {limit:,}", field=field, limit=limit)
    if "\0" in value:
        raise Invalid(f"{field} holds a NUL character, which cannot be stored", field=field)
    if not blank and (not value or value.isspace()):
        raise Invalid(f"{field} must not be blank", field=field)
    return value


def identifier(value: object, field: str) -> str:
    """``value`` when it can be an id: opaque text that is not blank, of at most 512 bytes."""
    return text(value, field, ID_BYTES)


def count(value: object, field: str, low: int, high: int) -> int:
    """``value`` when it is an integer (no bool) of at least ``low`` and at most ``high``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise Invalid(f"{field} must be an integer, not {type(value).__name__}", field=field)
    if value < low:
        raise Invalid(f"{field} must be at least {low:,}, not {value}", field=field, limit=low)
    if value > high:
        raise OverLimit(f"{field} is {value}; the limit is {high:,}", field=field, limit=high)
    return value


def span(value: object, field: str, high: float) -> float:
    """``value`` when it is a finite number (no bool) of seconds from 0 to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(f"{field} must be a number of seconds, not {type(value).__name__}", field=field)
    if not value >= 0:  # also NaN
        raise Invalid(f"{field} must be at least 0 seconds", field=field, limit=0)
    if value > high:
        raise OverLimit(f"{field} is longer than {high:g} seconds", field=field, limit=high)
    return float(value)
