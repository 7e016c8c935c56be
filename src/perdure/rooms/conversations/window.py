"""The newest turns that fit into a number of tokens. Pure."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from perdure.rooms.conversations.content import tool_calls, tool_results
from perdure.rooms.conversations.values import Message

TokenCounter = Callable[[Message], int]

_OVERHEAD = 4
_CHARS = 4


def estimate_tokens(message: Message) -> int:
    """A message's tokens without a tokenizer: four for its frame and one for each started four bytes of text.

    That is about right for English and errs high for other scripts, so a window built with it fits.
    """
    return _OVERHEAD + -(-len(message.text.encode()) // _CHARS)


def turns(messages: Sequence[Message]) -> list[Sequence[Message]]:
    """Messages in groups that must not be torn apart: from a call to the last of its results, anything else alone."""
    callers: dict[str, int] = {}
    starts: list[int] = []
    for place, message in enumerate(messages):
        starts.append(place)
        begin = min([place, *(callers[call] for call in tool_results(message.content) if call in callers)])
        while starts[-1] > begin:
            starts.pop()
        callers.update(dict.fromkeys(tool_calls(message.content), place))
    return [messages[start:end] for start, end in pairwise([*starts, len(messages)])]


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
    """``keep`` and the newest whole groups of ``messages`` whose tokens together are at most ``max_tokens``."""
    left = max_tokens - sum(counter(message) for message in keep)
    chosen: list[Sequence[Message]] = []
    for group in reversed(turns(messages)):
        cost = sum(counter(message) for message in group)
        if cost > left:
            break
        left -= cost
        chosen.append(group)
    return [*keep, *(message for group in reversed(chosen) for message in group)]
