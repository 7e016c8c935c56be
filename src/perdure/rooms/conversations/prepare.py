"""A caller's message, checked and turned into the values of its row. Pure; nothing is written before all is checked."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from perdure.rooms.conversations.content import Content, validate_content
from perdure.rooms.conversations.draft import Draft, MessageRole, token_usage_of
from perdure.rooms.conversations.usage import TokenUsage
from perdure.rooms.conversations.values import Message, Prepared, body_of
from perdure.values import limits, tagged
from perdure.values.clock import Micros, recordable, to_micros
from perdure.values.errors import Invalid
from perdure.values.ids import new_id

_ROLES: dict[str, str] = {role.value: role.value for role in MessageRole}
_FIELDS = ("role", "content", "name", "metadata", "token_usage", "parent_id", "created_at", "id")


class Unset:
    """The type of ``UNSET``: an argument that was not given (None is a value)."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


def prepare(
    role: str,
    content: Content | Sequence[Any],
    now: Micros,
    *,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    token_usage: TokenUsage | Mapping[str, Any] | None = None,
    parent_id: str | None = None,
    created_at: datetime | str | Micros | None = None,
    id: str | None = None,
) -> Prepared:
    """The checked values of a message's row. Raises ``Invalid`` or ``OverLimit`` naming the field."""
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise Invalid(f"role must be one of {', '.join(_ROLES)}, not {str(role)[:40]!r}", field="role")
    return _prepared(
        known, validate_content(content, known), now, name, metadata, usage_from(token_usage), parent_id, created_at, id
    )


def _prepared(
    role: str, content: Content, now: Micros, name: str | None, metadata: Mapping[str, Any] | None,
    usage: TokenUsage | None, parent_id: str | None, created_at: datetime | str | Micros | None, id: str | None,
) -> Prepared:  # fmt: skip
    body, form = body_of(content)
    encoded = None
    if metadata:
        if not isinstance(metadata, Mapping):
            raise Invalid(f"metadata must be a mapping, not {type(metadata).__name__}", field="metadata")
        encoded = tagged.encode(dict(metadata), "metadata", limits.METADATA_BYTES, limits.METADATA_DEPTH)
    if name is not None:
        limits.text(name, "name", limits.NAME_BYTES)
    if parent_id is not None:
        limits.identifier(parent_id, "parent_id")
    own_id = new_id() if id is None else limits.identifier(id, "id")
    at = now if created_at is None else _time(created_at)
    return Prepared(own_id, role, name, body, form, encoded, usage, parent_id, at, content)


def _time(value: datetime | str | Micros) -> Micros:
    micros = value if isinstance(value, int) and not isinstance(value, bool) else to_micros(value, "created_at")  # type: ignore[arg-type]
    return recordable(micros, "created_at")


def usage_from(value: TokenUsage | Mapping[str, Any] | None) -> TokenUsage | None:
    """Token usage from what callers give: a ``TokenUsage``, a mapping of its fields, or None."""
    return None if value is None else token_usage_of(value)


def prepare_each(drafts: Iterable[Draft | Mapping[str, Any]], now: Micros, field: str) -> list[Prepared]:
    """The rows of many drafts; an error names the place, as in ``drafts[3].role``."""
    prepared: list[Prepared] = []
    for index, draft in enumerate(drafts):
        if index >= limits.DRAFTS:
            limits.count(index + 1, f"the number of {field}", 0, limits.DRAFTS)
        try:
            prepared.append(_prepare_one(draft, now))
        except Invalid as error:
            place = f"{field}[{index}]"
            inner = error.details.pop("field", "")
            raise type(error)(
                f"{place}: {error.message}", field=f"{place}.{inner}" if inner else place, hint=error.hint,
                **error.details,
            ) from error  # fmt: skip
    return prepared


def _prepare_one(draft: Draft | Mapping[str, Any], now: Micros) -> Prepared:
    if isinstance(draft, Mapping):
        unknown = [str(key) for key in draft if key not in _FIELDS]
        if unknown:
            raise Invalid(
                f"a message has no field {min(unknown)[:40]!r}; there are {', '.join(_FIELDS)}", field=min(unknown)
            )
        values = dict(draft)
        for needed in ("role", "content"):
            if needed not in values:
                raise Invalid(f"{needed} is missing", field=needed)
        return prepare(values.pop("role"), values.pop("content"), now, **values)
    if not isinstance(draft, Draft):
        raise Invalid(f"a message must be a Draft or a mapping, not {type(draft).__name__}")
    return _prepared(  # a Draft has checked its content when it was made
        draft.role.value, draft.content, now, draft.name, draft.metadata, draft.token_usage, draft.parent_id,
        draft.created_at, draft.id,
    )  # fmt: skip


def edited(old: Message, now: Micros, content: Any, name: Any, metadata: Any, token_usage: Any) -> Prepared:
    """The row of a message with some of its values replaced."""
    return prepare(
        old.role.value,
        old.content if isinstance(content, Unset) else content,
        now,
        name=old.name if isinstance(name, Unset) else name,
        metadata=old.metadata if isinstance(metadata, Unset) else metadata,
        token_usage=old.token_usage if isinstance(token_usage, Unset) else token_usage,
        id=old.id,
    )
