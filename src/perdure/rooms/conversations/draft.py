"""A message before it is stored, and what every stored or drafted message has in common."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec
from msgspec.structs import force_setattr

from perdure.rooms.conversations.content import Content, Part, validate_content
from perdure.rooms.conversations.usage import TokenUsage
from perdure.values import limits
from perdure.values.clock import Micros, to_micros
from perdure.values.errors import Invalid


class MessageRole(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    DEVELOPER = "developer"


_ROLES = ", ".join(MessageRole)


class MessageLike(Protocol):
    """What can be turned into a provider's format: a draft or a stored message."""

    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str | None: ...  # noqa: D102
    @property
    def content(self) -> str | Sequence[Part]: ...  # noqa: D102
    @property
    def metadata(self) -> Mapping[str, Any] | None: ...  # noqa: D102


class Draft(msgspec.Struct, frozen=True):
    """A message to be stored.

    ``content`` is text or parts (structs, or dicts in their JSON form), kept as text or a tuple; ``token_usage``
    may be a mapping of its fields; ``created_at`` may be a datetime or ISO-8601 text and is kept in microseconds
    since 1970 UTC. ``metadata`` is checked when it is stored.

    Raises:
        Invalid: a field is not of its form; ``field`` names it.
        OverLimit: a field is above its limit.
    """

    role: MessageRole
    content: Content
    name: str | None = None
    metadata: dict[str, Any] | None = None
    token_usage: TokenUsage | None = None
    parent_id: str | None = None
    created_at: Micros | None = None
    id: str | None = None

    if TYPE_CHECKING:  # what may be given is wider than what is kept

        def __init__(
            self,
            role: str,
            content: str | Sequence[Part] | Sequence[Mapping[str, Any]],
            name: str | None = None,
            metadata: Mapping[str, Any] | None = None,
            token_usage: TokenUsage | Mapping[str, Any] | None = None,
            parent_id: str | None = None,
            created_at: Micros | datetime | str | None = None,
            id: str | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        role = message_role(self.role)
        force_setattr(self, "role", role)
        force_setattr(self, "content", validate_content(self.content, role))
        if self.name is not None:
            limits.text(self.name, "name", limits.NAME_BYTES)
        if self.metadata is not None:
            force_setattr(self, "metadata", _metadata(self.metadata))
        if self.token_usage is not None:
            force_setattr(self, "token_usage", token_usage_of(self.token_usage))
        if self.parent_id is not None:
            limits.identifier(self.parent_id, "parent_id")
        if self.created_at is not None:
            force_setattr(self, "created_at", _moment(self.created_at))
        if self.id is not None:
            limits.identifier(self.id, "id")


def message_role(role: object, field: str = "role") -> MessageRole:
    """The role of that name; Invalid lists the known ones."""
    try:
        return MessageRole(role)  # pyright: ignore[reportArgumentType]
    except ValueError:
        raise Invalid(f"{field} must be one of {_ROLES}, not {str(role)[:40]!r}", field=field) from None


def token_usage_of(usage: object, field: str = "token_usage") -> TokenUsage:
    """Token usage from itself or from a mapping of its fields; an unknown field is Invalid and lists the known ones."""
    if isinstance(usage, TokenUsage):
        return usage
    if not isinstance(usage, Mapping):
        raise Invalid(f"{field} must be a TokenUsage or a mapping, not {type(usage).__name__}", field=field)
    fields = {str(name): value for name, value in cast("Mapping[object, Any]", usage).items()}
    unknown = sorted(fields.keys() - set(TokenUsage.__struct_fields__))
    if unknown:
        known = ", ".join(TokenUsage.__struct_fields__)
        raise Invalid(f"{field} has no field {unknown[0]!r}; there are {known}", field=f"{field}.{unknown[0]}")
    return TokenUsage(**fields)


def _metadata(metadata: object) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        raise Invalid(f"metadata must be a mapping, not {type(metadata).__name__}", field="metadata")
    return dict(cast("Mapping[str, Any]", metadata))


def _moment(created_at: object) -> Micros:
    if isinstance(created_at, int) and not isinstance(created_at, bool):
        return created_at
    if isinstance(created_at, datetime | str):
        return to_micros(created_at, "created_at")
    raise Invalid(
        f"created_at must be a datetime, ISO-8601 text or microseconds, not {type(created_at).__name__}",
        field="created_at",
    )
