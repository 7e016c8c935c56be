"""The newest turns that fit into a number of tokens. Pure."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from perdure.rooms.conversations.content import SILENCE, OpaquePart, ReasoningPart, tool_calls, tool_results
from perdure.rooms.conversations.draft import MessageRole
from perdure.rooms.conversations.values import Message
from perdure.values.errors import Invalid

TokenCounter = Callable[[Message], int]

_OVERHEAD = 4
_CHARS = 4


def estimate_tokens(message: Message) -> int:
    """A message's tokens without a tokenizer: four for its frame and one for each started four bytes of text.

    That is about right for English and errs high for other scripts, so a window built with it fits.
    """
    return _OVERHEAD + -(-len(message.text.encode()) // _CHARS)


def turns(messages: Sequence[Message]) -> list[Sequence[Message]]:
    """Messages in groups that must not be torn apart, anything else alone.

    A group goes from a call to the last of its results, and from an assistant's reasoning, when that is a message of
    its own, to the assistant's message after it.
    """
    callers: dict[str, int] = {}
    starts: list[int] = []
    for place, message in enumerate(messages):
        starts.append(place)
        begin = min([place, *(callers[call] for call in tool_results(message.content) if call in callers)])
        if place and message.role == MessageRole.ASSISTANT and _is_thought(messages[place - 1]):
            begin = min(begin, place - 1)
        while starts[-1] > begin:
            starts.pop()
        callers.update(dict.fromkeys(tool_calls(message.content), place))
    return [messages[start:end] for start, end in pairwise([*starts, len(messages)])]


def _is_thought(message: Message) -> bool:
    """Whether it is an assistant's reasoning (or an item of its provider) that goes on in the next message."""
    return (
        message.role == MessageRole.ASSISTANT
        and not isinstance(message.content, str)
        and message.content != SILENCE
        and all(isinstance(part, ReasoningPart | OpaquePart) for part in message.content)
    )


def strays(messages: Sequence[Message]) -> bool:
    """Whether a result is among the messages whose call is not: it may stand further back."""
    called: set[str] = set()
    for message in messages:
        if not called.issuperset(tool_results(message.content)):
            return True
        called.update(tool_calls(message.content))
    return False


def fit(
    messages: Sequence[Message], max_tokens: int, counter: TokenCounter, *, keep: Sequence[Message] = ()
) -> list[Message]:
    """The newest of ``keep`` and the newest whole groups of ``messages``, together of at most ``max_tokens``.

    The newest group comes first, then ``keep`` from its newest on, then older groups. Raises ``Invalid`` when the
    newest group and the newest of ``keep`` do not fit.
    """
    groups = list(turns(messages))
    needed = sum(counter(message) for message in groups[-1]) if groups else 0
    needed += counter(keep[-1]) if keep else 0
    if needed > max_tokens:
        raise Invalid(
            f"the newest turn and system message need {needed} tokens, and max_tokens is {max_tokens}",
            field="max_tokens", needed=needed, limit=max_tokens,
        )  # fmt: skip
    left = max_tokens - (sum(counter(message) for message in groups[-1]) if groups else 0)
    kept: list[Message] = []
    for message in reversed(keep):
        left -= counter(message)
        if left < 0:
            left += counter(message)
            break
        kept.append(message)
    chosen: list[Sequence[Message]] = groups[-1:]
    for group in reversed(groups[:-1]):
        left -= sum(counter(message) for message in group)
        if left < 0:
            break
        chosen.append(group)
    return [*reversed(kept), *(message for group in reversed(chosen) for message in group)]
