"""Groups of messages that a window must not tear apart."""

from datetime import UTC, datetime

import pytest

from perdure.rooms.conversations.content import OpaquePart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from perdure.rooms.conversations.draft import MessageRole
from perdure.rooms.conversations.values import Message
from perdure.rooms.conversations.window import turns

THOUGHT = ("assistant", (ReasoningPart(id="rs_1", provider="openai"),))
SEARCH = ("assistant", (OpaquePart("openai_responses", {"type": "web_search_call", "id": "ws_1"}),))
CALL = ("assistant", (ToolCallPart("a", "f"),))
RESULT = ("tool", (ToolResultPart("a", "1"),))
MIXED = ("assistant", (ReasoningPart("hm"), TextPart("t")))
SILENCE = ("assistant", (ReasoningPart(),))
ANSWER = ("assistant", "a")
USER = ("user", "u")


@pytest.mark.parametrize(
    ("said", "sizes"),
    [
        ([USER, THOUGHT, ANSWER, USER], [1, 2, 1]),
        ([USER, THOUGHT, CALL, RESULT, THOUGHT, ANSWER], [1, 3, 2]),
        ([CALL, THOUGHT, CALL, RESULT], [1, 3]),
        ([THOUGHT, SEARCH, THOUGHT, ANSWER, ANSWER], [4, 1]),
        ([CALL, USER, THOUGHT, ANSWER, RESULT, USER], [5, 1]),
        ([USER, THOUGHT, USER, ANSWER], [1, 1, 1, 1]),
        ([MIXED, ANSWER, SILENCE, ANSWER], [1, 1, 1, 1]),
        ([THOUGHT], [1]),
        ([], []),
    ],
)
def test_reasoning_stays_with_what_the_assistant_says_next(said, sizes):
    messages = [
        Message(str(n), "c", n, MessageRole(role), content, None, {}, None, datetime(2026, 1, 1, tzinfo=UTC), None)
        for n, (role, content) in enumerate(said)
    ]
    groups = turns(messages)
    assert [len(group) for group in groups] == sizes
    assert [message for group in groups for message in group] == messages
