"""The newest turns that fit into a number of tokens. Pure."""

from collections.abc import Callable, Sequence

from perdure.rooms.conversations.content import tool_calls, tool_results
from perdure.rooms.conversations.draft import MessageRole
from perdure.rooms.conversations.values import Message

TokenCounter = Callable[[Message], int]

_OVERHEAD = 4
_CHARS = 4


def estimate_tokens(message: Message) -> int:
    """A message's tokens without a tokenizer: four for its frame and one for each started four bytes of text.

    That is about right for English and errs high for other scripts, so a window built with it fits.
    """
    return _OVERHEAD + -(-len(message.text.encode()) // _CHARS)


def turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages in groups that must not be torn apart: a call with its results, anything else alone."""
    groups: list[list[Message]] = []
    open_calls: set[str] = set()
    for message in messages:
        answers = set(tool_results(message.content))
        if groups and (open_calls or answers & _calls(groups[-1])):
            groups[-1].append(message)
        else:
            groups.append([message])
        open_calls = (open_calls | set(tool_calls(message.content))) - answers
        if open_calls and message.role is MessageRole.USER and not answers:
            open_calls = set()  # the user went on: those calls will not be answered any more
    return groups


def _calls(group: Sequence[Message]) -> set[str]:
    return {call for message in group for call in tool_calls(message.content)}


def fit(
    messages: Sequence[Message], max_tokens: int, counter: TokenCounter, *, keep: Sequence[Message] = ()
) -> list[Message]:
    """``keep`` and the newest whole groups of ``messages`` whose tokens together are at most ``max_tokens``."""
    left = max_tokens - sum(counter(message) for message in keep)
    chosen: list[list[Message]] = []
    for group in reversed(turns(messages)):
        cost = sum(counter(message) for message in group)
        if cost > left:
            break
        left -= cost
        chosen.append(group)
    return [*keep, *(message for group in reversed(chosen) for message in group)]
