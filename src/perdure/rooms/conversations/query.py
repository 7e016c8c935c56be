"""A caller's query for conversations, checked and turned into the flags and parameters of one statement."""

import base64
import binascii
import difflib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from perdure.grammar import Params, Row, Where
from perdure.rooms.conversations.ops import Query
from perdure.rooms.conversations.values import Conversation, Page
from perdure.values import filters as algebra
from perdure.values import limits
from perdure.values.clock import to_micros
from perdure.values.errors import Invalid

# Each order: the place of its column in a row, for the cursor.
_ORDERS = {"last_message_at": 7, "created_at": 5, "message_count": 9, "cost": 13}


def _labels(value: Any, field: str) -> list[str]:
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise Invalid(f"{field} must be a list of texts", field=field)
    limits.count(len(value), f"the number of {field}", 0, limits.LABELS)  # type: ignore[arg-type]
    return sorted({limits.text(item, field, limits.NAME_BYTES) for item in value})  # type: ignore[misc]


def _number(value: Any, field: str) -> int:
    return limits.count(value, field, 0, 2**53)


_FILTERS: dict[str, Callable[[Any, str], Any]] = {
    "created_after": to_micros,
    "created_before": to_micros,
    "tags": _labels,
    "any_tags": _labels,
    "min_messages": _number,
    "max_messages": _number,
    "participant": lambda value, field: limits.text(value, field, limits.NAME_BYTES),
    "title_contains": lambda value, field: limits.text(value, field, limits.TITLE_BYTES, blank=True).casefold(),
}


def build(
    *, user_id: str | None, agent_id: str | None, filters: Mapping[str, Any] | None, order_by: str, descending: bool,
    limit: int, cursor: str | None, include_messages: bool,
) -> Query:  # fmt: skip
    """The checked query. Raises ``Invalid`` (naming the known filters and orders) and ``OverLimit``."""
    if order_by not in _ORDERS:
        raise Invalid(f"cannot order by {order_by!r}; there are {', '.join(_ORDERS)}", field="order_by")
    limits.count(limit, "limit", 0, limits.PAGE)
    params: Params = {}
    for name, value in (("user_id", user_id), ("agent_id", agent_id)):
        if value is not None:
            params[name] = limits.identifier(value, name)
    where = _filters(filters or {}, params)
    flags = set(params)
    if params.get("tags") == []:
        flags.discard("tags")
        del params["tags"]
    if "tags" in params:
        params["tag_count"] = len(params["tags"])
    if where is not None:
        flags.add("where")
    if cursor is not None:
        flags.add("cursor")
        params["key"], params["after_id"] = _read_cursor(cursor, order_by, bool(descending))
    return Query(params, frozenset(flags), where, order_by, bool(descending), limit, bool(include_messages))


def _filters(filters: Mapping[str, Any], params: Params) -> Where | None:
    if not isinstance(filters, Mapping):
        raise Invalid(f"filters must be a mapping, not {type(filters).__name__}", field="filters")
    where: Where | None = None
    for name, value in filters.items():
        if name == "context":
            tree = algebra.parse(value, {}, "filters.context")
            where = Where(tree, {}, "(c.metadata -> 'context')")
        elif name in _FILTERS:
            params[name] = _FILTERS[name](value, f"filters.{name}")
        else:
            known = [*_FILTERS, "context"]
            raise Invalid(
                f"there is no filter {str(name)[:60]!r}; there are {', '.join(known)}", field=f"filters.{name}",
                hint=_advice(str(name), known),
            )  # fmt: skip
    return where


def _advice(name: str, known: list[str]) -> str:
    """What was probably meant."""
    if name in {"user_id", "agent_id"}:
        return f"{name} is an argument of its own"
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else 'keys of your own are filtered by {"context": {...}}'


def page_of(query: Query, found: list[tuple[Row, Conversation]]) -> Page[Conversation]:
    """The page of what was found (one more than the limit when there is a next page)."""
    kept = [conversation for _, conversation in found[: query.limit]]
    if len(found) <= query.limit:
        return Page(kept)
    last = found[query.limit - 1][0]
    key = msgspec.json.encode([query.order_by, query.descending, last[_ORDERS[query.order_by]], last[1]])
    return Page(kept, base64.urlsafe_b64encode(key).decode())


def _read_cursor(cursor: str, order_by: str, descending: bool) -> tuple[int, str]:
    try:
        order, downwards, key, last_id = msgspec.json.decode(
            base64.b64decode(cursor, b"-_", validate=True), type=tuple[str, bool, int, str]
        )
    except (msgspec.MsgspecError, binascii.Error, ValueError, TypeError, AttributeError):
        raise Invalid("cursor is not one that query_conversations gave", field="cursor") from None
    if downwards != descending:
        raise Invalid("cursor belongs to the other direction: descending has changed", field="cursor")
    if order != order_by or not -(2**63) <= key < 2**63:
        raise Invalid(f"cursor belongs to an order by {order[:40]!r}, not {order_by!r}", field="cursor")
    return key, limits.text(last_id, "cursor", limits.ID_BYTES)
