"""Provider formats, both ways; each module says what round-trips and what is adapted."""

from perdure.rooms.conversations.formats.anthropic import from_anthropic, to_anthropic, usage_from_anthropic
from perdure.rooms.conversations.formats.openai_chat import from_openai_chat, to_openai_chat, usage_from_openai
from perdure.rooms.conversations.formats.openai_responses import (
    from_openai_responses,
    to_openai_responses,
    usage_from_openai_responses,
)

__all__ = [
    "from_anthropic",
    "from_openai_chat",
    "from_openai_responses",
    "to_anthropic",
    "to_openai_chat",
    "to_openai_responses",
    "usage_from_anthropic",
    "usage_from_openai",
    "usage_from_openai_responses",
]
