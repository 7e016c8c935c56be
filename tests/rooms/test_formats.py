"""Provider formats: what comes in goes out unchanged, and crosses to another provider with its calls intact."""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from anthropic.types import Message as AnthropicMessage
from anthropic.types import MessageParam
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage, ChatCompletionMessageParam
from openai.types.responses import ResponseInputItemParam
from pydantic import TypeAdapter

from perdure.rooms.conversations.content import (
    FilePart,
    OpaquePart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    decode_parts,
    encode_parts,
    tool_calls,
    tool_results,
)
from perdure.rooms.conversations.draft import Draft
from perdure.rooms.conversations.formats import (
    from_anthropic,
    from_openai_chat,
    from_openai_responses,
    to_anthropic,
    to_openai_chat,
    to_openai_responses,
    usage_from_anthropic,
    usage_from_openai,
    usage_from_openai_responses,
)
from perdure.rooms.conversations.formats.anthropic import arguments_of_input, input_of_arguments
from perdure.rooms.conversations.usage import TokenUsage
from perdure.values.errors import Invalid

CHAT_TYPE = TypeAdapter(list[ChatCompletionMessageParam])
ITEM_TYPE = TypeAdapter(list[ResponseInputItemParam])
ANTHROPIC_TYPE = TypeAdapter(list[MessageParam])


def conforms(kind: TypeAdapter, value: Any) -> None:
    """Fails unless ``value`` is of that type all the way down (pydantic checks an Iterable only when it is read)."""

    def read(found: Any) -> None:
        if isinstance(found, dict):
            found = found.values()
        if isinstance(found, Iterable) and not isinstance(found, str):
            for item in found:
                read(item)

    read(kind.validate_python(value))


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PDF = "JVBERi0xLjQKJcOkw7zDtsOfCg=="


def call(call_id: str, name: str = "get_weather", arguments: str = '{"city": "Paris"}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


CHAT: dict[str, list[dict[str, Any]]] = {
    "a talk": [
        {"role": "developer", "content": "Answer briefly."},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": "Hello", "name": "ada"},
        {"role": "assistant", "content": "absent"},
    ],
    "parallel tool calls": [
        {"role": "user", "content": "Weather in Paris and Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [call("call_1"), call("call_2", arguments="{}")]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"celsius": 21}'},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "rain"}], "name": "weather"},
        {"role": "assistant", "content": "Sun in Paris, rain in Rome."},
    ],
    "spellings of no content": [
        {"role": "assistant", "tool_calls": [call("a")]},
        {"role": "tool", "tool_call_id": "a", "content": ""},
        {"role": "assistant", "content": "", "tool_calls": [call("b")]},
        {"role": "tool", "tool_call_id": "b", "content": None},
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call("c")]},
        {"role": "tool", "tool_call_id": "c"},
        {"role": "assistant", "content": [{"type": "text", "text": "Again."}], "tool_calls": [call("d")]},
        {"role": "tool", "tool_call_id": "d", "content": []},
        {"role": "assistant", "content": [], "tool_calls": [{"id": "e", "function": {"name": "f", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "e", "content": "1"},
        {"role": "assistant", "content": ""},
    ],
    "an answer as the API gives it": [
        {
            "role": "assistant",
            "content": "It is on the page.",
            "refusal": None,
            "annotations": [{"type": "url_citation", "url_citation": {"url": "https://e.org", "title": "E"}}],
            "audio": None,
            "function_call": None,
            "tool_calls": None,
        },
        {"role": "assistant", "content": "Next.", "tool_calls": [], "reasoning_content": "hm"},
    ],
    "files": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "image_url", "image_url": {"url": "https://e.org/cat.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                {"type": "image_url", "image_url": {"url": "data:image/svg+xml,%3Csvg/%3E", "quality": 3}},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
                {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mpeg"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
                {"type": "file", "file": {"file_data": PDF}},
                {"type": "file", "file": {"file_id": "file-123"}},
                {"type": "video_url", "video_url": {"url": "https://e.org/cat.mp4"}},
            ],
        }
    ],
    "refusals": [
        {"role": "assistant", "content": None, "refusal": "I can't help with that."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Well,"}, {"type": "refusal", "refusal": "no."}]},
    ],
    "custom tools": [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ],
    "legacy functions": [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "42"},
        {"role": "assistant", "content": None, "function_call": {"name": "g", "arguments": "{"}},
        {"role": "function", "name": "g", "content": None},
    ],
    "spoken answers": [
        {"role": "assistant", "content": None, "audio": {"id": "audio_1", "transcript": "Hi.", "expires_at": 17}},
        {"role": "assistant", "audio": {"id": "audio_2"}},
    ],
}
CHAT_UNTYPED = {"files", "an answer as the API gives it", "spellings of no content"}  # more than the client's types say


@pytest.mark.parametrize("name", CHAT)
def test_chat_messages_come_back_unchanged(name):
    messages = CHAT[name]
    if name not in CHAT_UNTYPED:
        conforms(CHAT_TYPE, messages)
    drafts = from_openai_chat(messages)
    assert len(drafts) == len(messages)
    assert to_openai_chat(stored(drafts)) == messages


def stored(drafts):
    """Drafts after a journey through the JSON of the store."""
    found = []
    for draft in drafts:
        content = draft.content if isinstance(draft.content, str) else decode_parts(encode_parts(draft.content))
        metadata = json.loads(json.dumps(draft.metadata or {}))
        found.append(Draft(draft.role, content, name=draft.name, metadata=metadata))
    return found


ITEMS: dict[str, list[dict[str, Any]]] = {
    "messages": [
        {"role": "user", "content": "Hello"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"role": "assistant", "content": "Hi.", "phase": "final_answer"},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "See here.", "annotations": []},
                {
                    "type": "output_text",
                    "text": "And there.",
                    "logprobs": [],
                    "annotations": [
                        {"type": "url_citation", "url": "https://e.org", "title": "E", "start_index": 0, "end_index": 3}
                    ],
                },
                {"type": "refusal", "refusal": "No more."},
            ],
        },
    ],
    "files": [
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "https://e.org/cat.png", "detail": "auto"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "high"},
                {"type": "input_image", "file_id": "file-1", "detail": "low", "image_url": None},
                {"type": "input_file", "file_url": "https://e.org/a.pdf"},
                {"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"},
                {"type": "input_file", "file_id": "file-2", "detail": "high"},
            ],
        }
    ],
    "function calls": [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Look it up."}],
            "encrypted_content": "gAAAA",
            "status": "completed",
        },
        {"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "reasoning", "id": "rs_3", "summary": [], "encrypted_content": None, "content": []},
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "get_weather",
            "arguments": '{"city":"Paris"}',
            "status": "completed",
            "namespace": "weather",
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "21", "id": "fco_1", "status": "completed"},
        {"type": "function_call", "call_id": "call_2", "name": "draw", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "call_2",
            "output": [
                {"type": "input_text", "text": "a map"},
                {"type": "input_image", "image_url": "https://e.org/map.png"},
            ],
        },
        {"type": "function_call_output", "call_id": None, "name": "f", "output": "x"},
        {"type": "custom_tool_call", "call_id": "call_3", "name": "sql", "input": "select 1", "id": "ct_1"},
        {"type": "custom_tool_call_output", "call_id": "call_3", "output": "1"},
    ],
    "other items": [
        {
            "type": "web_search_call",
            "id": "ws_1",
            "status": "completed",
            "action": {"type": "search", "query": "perdure", "queries": ["perdure"]},
        },
        {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["a"], "results": None},
        {"type": "mcp_approval_request", "id": "mcpr_1", "name": "f", "arguments": "{}", "server_label": "s"},
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
        {"type": "mcp_call", "id": "mcp_1", "name": "f", "arguments": "{}", "server_label": "s", "output": "ok"},
        {
            "type": "computer_call",
            "id": "cu_1",
            "call_id": "call_4",
            "status": "completed",
            "pending_safety_checks": [],
            "action": {"type": "screenshot"},
        },
        {
            "type": "computer_call_output",
            "call_id": "call_4",
            "output": {"type": "computer_screenshot", "image_url": "https://e.org/s.png"},
        },
        {"type": "item_reference", "id": "msg_9"},
        {"id": "msg_10"},
        {"type": "an_item_of_tomorrow", "payload": [1, 2.5, None]},
    ],
    "unusual spellings": [
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://e.org/cat.png"}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "no annotations"}]},
        {"role": "assistant", "content": [{"type": "input_text", "text": "an example of an answer"}]},
        {"role": "user", "content": [{"type": "output_text", "text": "quoted", "annotations": []}]},
        {"role": "user", "content": [{"type": "computer_screenshot", "image_url": "https://e.org/s.png"}]},
        {"type": "reasoning", "id": "rs_1", "content": [{"type": "text", "text": "other"}]},
        {"type": "message", "id": "msg_1", "role": "assistant", "content": [], "status": "incomplete"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]},
        {"role": "assistant", "content": ""},
        {"type": "function_call", "call_id": "call_1", "name": "a.name", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": ""},
        {"type": "item_reference", "id": "fc_2"},
        {"type": "function_call_output", "call_id": "call_2", "output": "of a call behind the reference"},
    ],
}


@pytest.mark.parametrize("name", ITEMS)
def test_responses_items_come_back_unchanged_one_draft_each(name):
    items = ITEMS[name]
    if name in {"messages", "files", "function calls"}:
        conforms(ITEM_TYPE, items)
    drafts = from_openai_responses(items)
    assert len(drafts) == len(items)
    assert to_openai_responses(stored(drafts)) == items


ANTHROPIC: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "a talk": ("Be brief.", [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]),
    "blocks": (
        [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    {"type": "image", "source": {"type": "url", "url": "https://e.org/cat.png"}},
                    {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                        "title": "A paper",
                        "context": "read in class",
                        "citations": {"enabled": True},
                        "cache_control": {"type": "ephemeral"},
                    },
                    {"type": "document", "source": {"type": "url", "url": "https://e.org/a.pdf"}},
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Tides."}},
                    {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
                    {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]},
                    {"type": "text", "text": "Compare."},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "They differ.", "signature": "EqQB"},
                    {"type": "redacted_thinking", "data": "EmwKAhgB"},
                    {"type": "text", "text": "They differ.", "citations": None},
                ],
            },
        ],
    ),
    "tools": (
        None,
        [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Looking."},
                    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich", "days": [1]}},
                    {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}, "caller": {"type": "direct"}},
                    {"type": "tool_use", "id": "toolu_3", "name": "log", "input": {"_raw": "{}"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "content": [
                            {"type": "text", "text": "sun"},
                            {"type": "image", "source": {"type": "url", "url": "https://e.org/sun.png"}},
                            {"type": "tool_reference", "tool_name": "maps"},
                        ],
                    },
                    {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no clock", "is_error": True},
                    {"type": "tool_result", "tool_use_id": "toolu_3"},
                ],
            },
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_4", "name": "now", "input": {}}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_4", "content": "", "is_error": False},
                    {"type": "text", "text": "And tomorrow?"},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
                    {
                        "type": "web_search_tool_result",
                        "tool_use_id": "srvtoolu_1",
                        "content": [
                            {
                                "type": "web_search_result",
                                "url": "https://e.org",
                                "title": "E",
                                "encrypted_content": "a",
                            }
                        ],
                    },
                    {"type": "text", "text": "Rain."},
                ],
            },
        ],
    ),
    "a system message amid the talk": (
        None,
        [
            {"role": "user", "content": "Hello"},
            {"role": "system", "content": [{"type": "text", "text": "The user is a doctor."}]},
            {"role": "assistant", "content": "Good day."},
        ],
    ),
}


@pytest.mark.parametrize("name", ANTHROPIC)
def test_anthropic_messages_come_back_unchanged(name):
    system, messages = ANTHROPIC[name]
    conforms(ANTHROPIC_TYPE, messages)
    drafts = from_anthropic(messages, system)
    assert len(drafts) == len(messages) + (system is not None)
    assert to_anthropic(stored(drafts)) == (system, messages)


# -- what the drafts hold ------------------------------------------------------------------------------------------


def test_a_chat_call_and_its_result_share_an_id():
    asked, answered = from_openai_chat(CHAT["parallel tool calls"])[1:3]
    assert asked.content[0] == ToolCallPart("call_1", "get_weather", '{"city": "Paris"}')
    assert tool_calls(asked.content) == ("call_1", "call_2")
    assert answered.role == "tool"
    assert tool_results(answered.content) == ("call_1",)


def test_a_legacy_function_call_and_its_result_share_an_id():
    drafts = from_openai_chat(CHAT["legacy functions"])
    assert [tool_calls(d.content) or tool_results(d.content) for d in drafts] == [
        ("function_call_0",), ("function_call_0",), ("function_call_2",), ("function_call_2",),
    ]  # fmt: skip


def test_an_image_in_a_data_url_becomes_data():
    (draft,) = from_openai_chat(CHAT["files"])
    assert draft.content[2] == FilePart("image", data=PNG, media_type="image/png")
    assert draft.content[1] == FilePart("image", uri="https://e.org/cat.png", detail="low")


def test_an_anthropic_message_of_tool_results_becomes_a_tools_and_a_mixed_one_stays_the_users():
    drafts = from_anthropic(ANTHROPIC["tools"][1])
    assert [str(d.role) for d in drafts] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert tool_results(drafts[4].content) == ("toolu_4",)
    assert drafts[2].content[1] == ToolResultPart("toolu_2", "no clock", is_error=True)


def test_provider_items_without_a_common_form_are_opaque_and_paired_by_call_id():
    drafts = from_openai_responses(ITEMS["other items"])
    assert all(isinstance(d.content[0], OpaquePart) for d in drafts)
    assert tool_calls(drafts[5].content) == ("call_4",)
    assert (str(drafts[6].role), tool_results(drafts[6].content)) == ("tool", ("call_4",))


def test_reasoning_keeps_what_its_provider_wants_back():
    (part,) = from_openai_responses(ITEMS["function calls"])[0].content
    assert (part.id, part.encrypted, part.summary) == ("rs_1", "gAAAA", ("Look it up.",))
    thinking = from_anthropic(ANTHROPIC["blocks"][1])[1].content[0]
    assert thinking == ReasoningPart("They differ.", "EqQB", provider="anthropic")


def test_the_clients_own_objects_are_read():
    answer = ChatCompletionMessage.model_validate(
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call("call_1")]}
    )
    (draft,) = from_openai_chat([answer])
    assert tool_calls(draft.content) == ("call_1",)
    message = AnthropicMessage.model_validate(
        {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
            "stop_sequence": None, "content": [{"type": "text", "text": "Hi."}],
            "usage": {"input_tokens": 10, "output_tokens": 2, "cache_read_input_tokens": 5},
        }
    )  # fmt: skip
    whole, blocks = from_anthropic([message, {"role": "assistant", "content": message.content}])
    assert whole.token_usage == TokenUsage(15, 2, model="claude")
    assert to_anthropic([whole])[1][1:] == [{"role": "assistant", "content": [{"type": "text", "text": "Hi."}]}]
    assert blocks.content == (TextPart("Hi."),)


# -- from one provider to another ----------------------------------------------------------------------------------


def test_a_chat_with_tools_goes_to_anthropic_and_back_with_its_calls():
    messages = CHAT["parallel tool calls"]
    system, turns = to_anthropic(from_openai_chat(messages))
    conforms(ANTHROPIC_TYPE, turns)
    assert system is None
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant"]
    assert [block["tool_use_id"] for block in turns[2]["content"]] == ["call_1", "call_2"]
    back = to_openai_chat(from_anthropic(turns))
    conforms(CHAT_TYPE, back)
    assert [message["role"] for message in back] == ["user", "assistant", "tool", "tool", "assistant"]
    before, after = messages[1]["tool_calls"], back[1]["tool_calls"]
    for old, new in zip(before, after, strict=True):
        assert (old["id"], old["function"]["name"]) == (new["id"], new["function"]["name"])
        assert json.loads(old["function"]["arguments"]) == json.loads(new["function"]["arguments"])


@pytest.mark.parametrize(
    "arguments",
    ['{"a": 1', "[1]", "select 1", '"x"', "null", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', '{"_raw": "x"}'],
)
def test_arguments_that_no_input_can_hold_come_back_as_they_were(arguments):
    given = input_of_arguments(arguments)
    if arguments != '{"_raw": "x"}':
        assert given == {"_raw": arguments}
    assert input_of_arguments(arguments_of_input(given)) == given
    assert arguments_of_input(given).replace(" ", "") in {arguments.replace(" ", ""), "x"}


def test_system_and_developer_messages_form_anthropics_prompt():
    system, messages = to_anthropic(from_openai_chat(CHAT["a talk"]))
    assert system == [{"type": "text", "text": "Answer briefly."}, {"type": "text", "text": "Be kind."}]
    assert [message["role"] for message in messages] == ["user", "assistant"]


def test_anthropic_turns_alternate_and_results_come_first():
    drafts = [
        Draft("assistant", [ToolCallPart("a", "f", "{}")]),
        Draft("assistant", [ToolCallPart("b:1", "f", "{}")]),
        Draft("user", "Hurry up."),
        Draft("tool", [ToolResultPart("a", "1")]),
        Draft("tool", [ToolResultPart("b:1", "2")]),
    ]
    _, (_, asked, answered) = to_anthropic([Draft("user", "Go."), *drafts])
    assert [block["id"] for block in asked["content"]] == ["a", "b_1"]
    assert [block["type"] for block in answered["content"]] == ["tool_result", "tool_result", "text"]
    assert answered["content"][1]["tool_use_id"] == "b_1"


def test_parallel_calls_of_responses_become_one_chat_message():
    items = [
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}", "status": "completed"},
        {"role": "assistant", "content": "Wait."},
        {"type": "function_call", "call_id": "b", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "function_call_output", "call_id": "b", "output": "2"},
    ]
    messages = to_openai_chat(from_openai_responses(items))
    conforms(CHAT_TYPE, messages)
    assert messages == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Wait.", "tool_calls": [call("a", "f", "{}"), call("b", "f", "{}")]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
    ]


@pytest.mark.parametrize("source", ["chat", "responses", "anthropic"])
def test_every_example_goes_to_every_provider(source):
    """What was said anywhere can be said everywhere, in the form that the clients' types describe."""
    if source == "chat":
        drafts = [from_openai_chat(messages) for messages in CHAT.values()]
    elif source == "responses":
        drafts = [from_openai_responses(items) for items in ITEMS.values()]
    else:
        drafts = [from_anthropic(messages, system) for system, messages in ANTHROPIC.values()]
    for example in drafts:
        if source != "anthropic":
            _, messages = to_anthropic(example)
            conforms(ANTHROPIC_TYPE, messages)
            assert not foreign(messages)
            assert all(a["role"] != b["role"] for a, b in pairwise(messages))
        if source != "chat":
            conforms(CHAT_TYPE, to_openai_chat(example))
            assert not foreign(to_openai_chat(example))
        if source != "responses":
            assert not foreign(to_openai_responses(example))
            calls = [c for d in example for c in tool_calls(d.content)]
            items = to_openai_responses(example)
            # The types want an id in an assistant's list of texts, which the API does not.
            listed = [i for i in items if i.get("role") == "assistant" and isinstance(i["content"], list)]
            conforms(ITEM_TYPE, [item for item in items if item not in listed])
            assert [i["call_id"] for i in items if i.get("type") in {"function_call", "custom_tool_call"}] == calls


def foreign(messages: list[dict[str, Any]]) -> list[str]:
    """Fields that only a provider other than the source knows; none may leak."""
    words = ("cache_control", "citations", 'annotations": [{', "logprobs", "prompt_cache_breakpoint")
    text = json.dumps(messages)
    return [word for word in words if word in text]


def test_files_cross_when_they_can_and_leave_a_note_when_not():
    drafts = from_openai_chat(CHAT["files"])
    _, (message,) = to_anthropic(drafts)
    blocks = message["content"]
    assert blocks[2]["source"] == {"type": "base64", "media_type": "image/png", "data": PNG}
    assert {"type": "text", "text": "[audio: audio/wav]"} in blocks
    assert [b["title"] for b in blocks if b["type"] == "document"] == ["a.pdf"]
    text = FilePart("file", data="VGlkZXMu", media_type="text/markdown", name="t.md")
    assert to_anthropic([Draft("user", [text])])[1][0]["content"] == [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Tides."}, "title": "t.md"}
    ]
    assert to_openai_chat(from_anthropic(ANTHROPIC["blocks"][1]))[0]["content"][2] == {
        "type": "text", "text": "[image: not shown]",
    }  # fmt: skip


def test_a_tools_bare_text_answers_the_oldest_open_call():
    drafts = [
        Draft("assistant", [ToolCallPart("a", "f", "{}"), ToolCallPart("b", "f", "{}")]),
        Draft("tool", "second", metadata={"tool_call_id": "b"}),
        Draft("tool", "first"),
        Draft("tool", "nobody asked"),
    ]
    assert to_openai_chat(drafts)[1:] == [
        {"role": "tool", "tool_call_id": "b", "content": "second"},
        {"role": "tool", "tool_call_id": "a", "content": "first"},
        {"role": "user", "content": "nobody asked"},
    ]


# -- what providers refuse -----------------------------------------------------------------------------------------

NOT_THERE = "The result of this call is not available."


def conversation(*items: Any) -> list[Draft]:
    """Drafts in short: ``"a?"`` calls, ``"a!"`` answers, ``"a?b?"`` calls both, anything else is the user's."""
    drafts = []
    for item in items:
        if isinstance(item, Draft):
            drafts.append(item)
        elif item.endswith("?"):
            drafts.append(Draft("assistant", [ToolCallPart(name, "f", "{}") for name in item[:-1].split("?")]))
        elif item.endswith("!"):
            drafts.append(Draft("tool", [ToolResultPart(item[:-1], f"result {item[:-1]}")]))
        else:
            drafts.append(Draft("user", item))
    return drafts


def outlined(drafts: list[Draft]) -> list[list[str]]:
    """The requests to the three providers in short, in which a missing result is ``"-a!"``."""
    chat, items, claude = [], [], []
    for message in to_openai_chat(drafts):
        chat.append("".join(f"{c['id']}?" for c in message.get("tool_calls", ())))
        if message["role"] == "tool":
            chat[-1] += f"{'-' * (message['content'] == NOT_THERE)}{message['tool_call_id']}!"
        elif message.get("content") is not None:
            said = message["content"]
            chat[-1] += said if isinstance(said, str) else said[0]["text"]
    for item in to_openai_responses(drafts):
        if item.get("type") == "function_call":
            items.append(f"{item['call_id']}?")
        elif item.get("type") == "function_call_output":
            items.append(f"{'-' * (item['output'] == NOT_THERE)}{item['call_id']}!")
        else:
            said = item["content"]
            items.append(said if isinstance(said, str) else said[0]["text"])
    for message in to_anthropic(drafts)[1]:
        blocks = message["content"]
        for block in [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks:
            if block["type"] == "tool_use":
                claude.append(f"{block['id']}?")
            elif block["type"] == "tool_result":
                assert block.get("is_error", False) == (block["content"] == NOT_THERE)
                claude.append(f"{'-' * (block['content'] == NOT_THERE)}{block['tool_use_id']}!")
            else:
                claude.append(block["text"])
    return [chat, items, claude]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["hi", "a?"], ["hi", "a?", "-a!"]),
        (["hi", "a?", "well"], ["hi", "a?", "-a!", "well"]),
        (["hi", "a?", "b?", "b!"], ["hi", "a?", "-a!", "b?", "b!"]),
        (["hi", "a?b?", "b!", "well"], ["hi", "a?b?", "b!", "-a!", "well"]),
        (["hi", "a?", Draft("assistant", "It is done."), "ok"], ["hi", "a?", "-a!", "It is done.", "ok"]),
        (["hi", "a?", "well", "a!", "bye"], ["hi", "a?", "a!", "well", "bye"]),
        (["hi", "a?", Draft("system", "Wait."), "a!"], ["hi", "a?", "a!", "Wait."]),
        (["hi", "a?b?", "b!", "well", "a!"], ["hi", "a?b?", "b!", "a!", "well"]),
        (["hi", "a!", "a?", "a!", "a!"], ["hi", "result a", "a?", "a!", "result a"]),
        (["hi", Draft("tool", [ToolResultPart("x", " ")]), "well"], ["hi", "well"]),
        (["hi", Draft("tool", " "), "well"], ["hi", "well"]),
        (["hi", Draft("assistant", [ToolCallPart("a", "f", "{}"), ToolResultPart("a", "result a"), TextPart("So.")])],
         ["hi", "a?", "a!", "So."]),
    ],
)  # fmt: skip
def test_calls_and_results_stand_together_whatever_is_stored(given, expected):
    chat, items, claude = outlined(conversation(*given))
    assert chat == expected
    split = [piece for word in expected for piece in (["a?", "b?"] if word == "a?b?" else [word])]
    assert items == split
    assert claude == [piece for piece in split if piece != "Wait."]  # that is in the prompt


def test_a_legacy_function_that_did_not_answer_is_answered_by_its_name():
    call_ = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    messages = to_openai_chat(from_openai_chat([call_]))
    assert messages == [call_, {"role": "function", "name": "f", "content": NOT_THERE}]


def test_opaque_calls_without_their_output_are_answered_or_left_out():
    items = [
        {"type": "shell_call", "call_id": "s", "action": {"commands": ["ls"]}, "status": "completed"},
        {"type": "local_shell_call", "id": "l1", "call_id": "l", "status": "completed",
         "action": {"type": "exec", "command": ["ls"], "env": {}}},
        {"type": "apply_patch_call", "call_id": "p", "status": "completed",
         "operation": {"type": "delete_file", "path": "x"}},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "computer_call", "id": "cu_1", "call_id": "c", "status": "completed", "pending_safety_checks": [],
         "action": {"type": "screenshot"}},
        {"role": "user", "content": "And?"},
        {"type": "computer_call_output", "call_id": "gone",
         "output": {"type": "computer_screenshot", "image_url": "https://e.org/s.png"}},
    ]  # fmt: skip
    found = to_openai_responses(from_openai_responses(items))
    conforms(ITEM_TYPE, found)
    assert [item.get("type") for item in found] == [
        "shell_call", "shell_call_output", "local_shell_call", "local_shell_call_output", "apply_patch_call",
        "apply_patch_call_output", None,
    ]  # fmt: skip
    assert found[3]["id"] == "l"
    assert NOT_THERE in json.dumps(found[1])


def test_reasoning_that_nothing_follows_is_left_out():
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}
    items = [thought, user, thought, answer, thought]
    assert to_openai_responses(from_openai_responses(items)) == [user, thought, answer]


def test_names_are_spelled_as_providers_take_them():
    drafts = [
        Draft("user", "Hi", name="Zoë Ünal"),
        Draft("assistant", [ToolCallPart("a", "maps.find/" + "x" * 200, "{}")], name="a" * 70),
        Draft("tool", [ToolResultPart("a", "1")], name="maps.find"),
    ]
    asked, called, result = to_openai_chat(drafts)
    assert (asked["name"], called["name"], result["name"]) == ("Zo___nal", "a" * 64, "maps_find")
    spelled = "maps_find_" + "x" * 200
    assert called["tool_calls"][0]["function"]["name"] == spelled[:64]
    assert to_openai_responses(drafts)[1]["name"] == spelled[:64]
    assert to_anthropic(drafts)[1][1]["content"][0]["name"] == spelled[:128]


@pytest.mark.parametrize("change", [None, "Eve"])
def test_a_name_that_came_from_chat_goes_back_until_it_is_changed(change):
    (draft,) = from_openai_chat([{"role": "user", "content": "Hi", "name": "Ann Lee"}])
    renamed = Draft("user", "Hi", name=change or draft.name, metadata=draft.metadata)
    assert to_openai_chat([renamed])[0]["name"] == (change or "Ann Lee")


def test_an_assistant_that_begins_gets_a_turn_of_the_user_before():
    assert to_anthropic([Draft("system", "Be brief."), Draft("assistant", "Hello!"), Draft("user", "Hi")]) == (
        "Be brief.",
        [
            {"role": "user", "content": "(conversation begins)"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "Hi"},
        ],
    )


def test_a_system_message_amid_the_talk_joins_the_prompt_when_nothing_is_left_before_it():
    drafts = from_anthropic(ANTHROPIC["a system message amid the talk"][1])[1:]
    system, messages = to_anthropic(drafts)
    assert system == [{"type": "text", "text": "The user is a doctor."}]
    assert [message["role"] for message in messages] == ["user", "assistant"]


HISTORY_IDS = st.sampled_from(["a", "b", "a:", "a_"])
HISTORY_CALLS = st.builds(lambda call_id, name: ToolCallPart(call_id, name, "{}"), HISTORY_IDS, st.sampled_from("fg."))
HISTORY_RESULTS = st.builds(ToolResultPart, HISTORY_IDS, st.sampled_from(["", "1", (), (TextPart("2"),)]))
THOUGHT = ReasoningPart("hm", provider="openai", id="rs_1")
HISTORY = st.lists(
    st.one_of(
        st.sampled_from([Draft("user", "u"), Draft("system", "s"), Draft("assistant", "t"), Draft("tool", "bare")]),
        st.sampled_from([Draft("assistant", [ReasoningPart()]), Draft("assistant", [THOUGHT])]),
        st.lists(HISTORY_CALLS, min_size=1, max_size=3).map(lambda parts: Draft("assistant", parts)),
        st.lists(HISTORY_RESULTS, min_size=1, max_size=3).map(lambda parts: Draft("tool", parts)),
        st.builds(
            Draft,
            st.sampled_from(["user", "assistant", "tool"]),
            st.lists(HISTORY_CALLS | HISTORY_RESULTS | st.just(TextPart("x")) | st.just(THOUGHT), min_size=2, max_size=4)
            .filter(lambda parts: any(not isinstance(part, TextPart | ReasoningPart) for part in parts)),
        ),
    ),
    max_size=10,
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(HISTORY)
def test_any_history_becomes_requests_that_providers_take(drafts):
    check_chat(to_openai_chat(drafts))
    check_items(to_openai_responses(drafts))
    check_claude(to_anthropic(drafts)[1])


def check_chat(messages: list[dict[str, Any]]) -> None:
    """Each list of calls is followed by its results, each once, and there are no others."""
    conforms(CHAT_TYPE, messages)
    awaited: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            awaited.remove(message["tool_call_id"])
        else:
            assert not awaited
            awaited = [call["id"] for call in message.get("tool_calls", ())]
    assert not awaited


def check_items(items: list[dict[str, Any]]) -> None:
    """Each call is answered once, later, and before the user speaks; reasoning is followed by the assistant."""
    awaited: list[str] = []
    for item, following in pairwise([*items, {"role": "user", "content": "end"}]):
        kind = item.get("type")
        if kind == "function_call":
            awaited.append(item["call_id"])
        elif kind == "function_call_output":
            awaited.remove(item["call_id"])
        elif kind == "reasoning":
            assert following.get("role") == "assistant" or following.get("type") in {"reasoning", "function_call"}
        assert not awaited or item.get("role") not in {"user", "system"}
    assert not awaited


def check_claude(messages: list[dict[str, Any]]) -> None:
    """The user begins, sides alternate, ids are unique and results stand first in the next message, each once."""
    conforms(ANTHROPIC_TYPE, messages)
    assert [message["role"] for message in messages] == [("user", "assistant")[n % 2] for n in range(len(messages))]
    calls: list[str] = []
    awaited: list[str] = []
    for message in messages:
        blocks = message["content"] if isinstance(message["content"], list) else [{"type": "text"}]
        kinds = [block["type"] for block in blocks]
        assert kinds == sorted(kinds, key=lambda kind: kind != "tool_result")
        assert sorted(b["tool_use_id"] for b in blocks if b["type"] == "tool_result") == sorted(awaited)
        awaited = [block["id"] for block in blocks if block["type"] == "tool_use"]
        calls += awaited
    assert not awaited
    assert len(set(calls)) == len(calls)


# -- answers that say nothing --------------------------------------------------------------------------------------

SILENT = (ReasoningPart(),)


@pytest.mark.parametrize("content", ["", None, " \n", [], [{"type": "text", "text": ""}], ...])
def test_an_empty_chat_answer_is_empty_again(content):
    message = {"role": "assistant", "content": content, "refusal": None}
    if content is ...:
        del message["content"]
    (draft,) = from_openai_chat([message])
    assert draft.content == SILENT
    assert to_openai_chat(stored([draft])) == [{"role": "assistant", "content": "", "refusal": None}]


@pytest.mark.parametrize("content", ["", [], [{"type": "output_text", "text": "", "annotations": []}]])
def test_an_empty_answer_of_responses_is_what_it_was(content):
    item = {"type": "message", "id": "msg_1", "role": "assistant", "content": content, "status": "completed"}
    (draft,) = from_openai_responses([item])
    assert draft.content == SILENT
    assert to_openai_responses(stored([draft])) == [item]
    assert to_openai_chat([draft]) == [{"role": "assistant", "content": ""}]
    spoken = Draft("assistant", "Now I speak.", metadata=draft.metadata)
    assert to_openai_responses([spoken])[0]["content"] == "Now I speak."


@pytest.mark.parametrize("content", ["", [], [{"type": "text", "text": " "}]])
def test_an_empty_answer_of_anthropics_is_left_out(content):
    user = {"role": "user", "content": "Hi"}
    drafts = from_anthropic([user, {"role": "assistant", "content": content}, user])
    assert drafts[1].content == SILENT
    assert to_anthropic(drafts) == (None, [{"role": "user", "content": [{"type": "text", "text": "Hi"}] * 2}])
    assert to_openai_chat(drafts)[1] == to_openai_responses(drafts)[1] == {"role": "assistant", "content": ""}


# -- broken input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"content": "x"}, "role"),
        ({"role": "robot", "content": "x"}, "role"),
        ({"role": "user"}, "content"),
        ({"role": "user", "content": 5}, "content"),
        ({"role": "user", "content": " "}, "content"),
        ({"role": "assistant", "content": 5}, "content"),
        ({"role": "user", "content": ["x"]}, "content[0]"),
        ({"role": "user", "content": [{"text": "x"}]}, "content[0].type"),
        ({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text"}]}, "content[1].text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "content[0].image_url"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "content[0].image_url.url"),
        ({"role": "user", "content": b"x"}, "content"),
        ({"role": "user", "content": "a\0b"}, "content"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "assistant", "tool_calls": {}, "content": [{"type": "text", "text": "\ud800"}]}, "content[0].text"),
        ({"role": "assistant", "tool_calls": [{"type": "function"}]}, "tool_calls[0].id"),
        ({"role": "assistant", "tool_calls": [{"id": "a", "type": "robot"}]}, "tool_calls[0].type"),
        ({"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f"}}]},
         "tool_calls[0].function.arguments"),
    ],
)  # fmt: skip
def test_a_broken_chat_message_is_named_by_its_place(message, field):
    with pytest.raises(Invalid) as error:
        from_openai_chat([{"role": "user", "content": "fine"}, message])
    assert error.value.field == f"messages[1].{field}"
    assert error.value.message.startswith(f"messages[1].{field}")


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"type": 5}, "type"),
        ({"type": "message", "content": "x"}, "role"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "content[0].text"),
        ({"type": "function_call", "call_id": "a", "name": "f"}, "arguments"),
        ({"type": "function_call_output", "call_id": "a"}, "output"),
        ({"type": "reasoning", "summary": [{}]}, "summary[0].text"),
    ],
)
def test_a_broken_item_is_named_by_its_place(item, field):
    with pytest.raises(Invalid) as error:
        from_openai_responses([item])
    assert error.value.field == f"items[0].{field}"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "tool", "content": "x"}, "role"),
        ({"role": "user", "content": None}, "content"),
        ({"role": "user", "content": []}, "content"),
        ({"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f"}]}, "content[0].input"),
        ({"role": "user", "content": [{"type": "image", "source": {}}]}, "content[0].source.type"),
        ({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [3]}]},
         "content[0].content[0]"),
        ({"role": "user", "content": [{"type": "tool_result"}]}, "content[0].tool_use_id"),
    ],
)  # fmt: skip
def test_a_broken_anthropic_message_is_named_by_its_place(message, field):
    with pytest.raises(Invalid) as error:
        from_anthropic([message])
    assert error.value.field == f"messages[0].{field}"


def test_messages_must_be_a_list_of_objects():
    with pytest.raises(Invalid, match="messages must be a list"):
        from_openai_chat({"role": "user", "content": "x"})
    with pytest.raises(Invalid, match=r"messages\[0\] must be an object"):
        from_anthropic(["x"])


# -- usage ---------------------------------------------------------------------------------------------------------


def test_usage_of_each_provider():
    chat = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 22, "prompt_tokens_details": None}
    assert usage_from_openai(chat, "gpt") == TokenUsage(10, 5, 22, "gpt")
    assert usage_from_openai({"prompt_tokens": 10, "completion_tokens": None, "total_tokens": 3}) == TokenUsage(10, 0)
    assert usage_from_openai_responses({"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}) == TokenUsage(7, 2)
    cached = {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 400}
    assert usage_from_anthropic(cached, "claude") == TokenUsage(431, 2, model="claude")
    with pytest.raises(Invalid) as error:
        usage_from_openai({"prompt_tokens": "10"})
    assert error.value.field == "usage.prompt_tokens"


# -- any conversation ----------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20).filter(
    lambda text: text.strip() != ""
)
IDS = st.text("abcXYZ019_-", min_size=1, max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)


def objects(values):
    return st.dictionaries(WORDS | st.just("_raw"), values, max_size=3)


JSONS = st.recursive(SCALARS | WORDS, lambda inner: st.lists(inner, max_size=3) | objects(inner), max_leaves=6)
UNKNOWN_FIELDS = st.dictionaries(st.sampled_from(["x_one", "x_two"]), JSONS, max_size=2)


def block(kind: str, unknown=UNKNOWN_FIELDS, **fields):
    """A dict of that type with the given fields, and perhaps fields that nobody knows."""
    return st.builds(lambda known, rest: {"type": kind, **known, **rest}, st.fixed_dictionaries(fields), unknown)


def perhaps(required: dict, optional: dict):
    return st.fixed_dictionaries(required, optional=optional)


CHAT_TEXT = block("text", text=WORDS)
CHAT_PARTS = st.one_of(
    CHAT_TEXT,
    block("image_url", image_url=perhaps({"url": WORDS | st.just(f"data:image/png;base64,{PNG}")}, {"detail": IDS})),
    block("input_audio", input_audio=st.fixed_dictionaries({"data": IDS, "format": st.sampled_from(["wav", "mp3"])})),
    block("file", file=perhaps({"file_id": IDS}, {"filename": WORDS, "file_data": st.just(PDF) | st.just("")})),
)
CHAT_CALL = st.one_of(
    block("function", id=IDS, function=st.fixed_dictionaries({"name": IDS, "arguments": WORDS | st.just("{}")})),
    block("custom", id=IDS, custom=st.fixed_dictionaries({"name": IDS, "input": WORDS})),
)
CHAT_SPEAKER = st.builds(
    lambda role, known, rest: {"role": role, **known, **rest},
    st.sampled_from(["user", "system", "developer"]),
    perhaps({"content": WORDS | st.lists(CHAT_PARTS, min_size=1, max_size=3).filter(bool)}, {"name": WORDS}),
    UNKNOWN_FIELDS,
)
ASSISTANT_SAYS = st.lists(CHAT_TEXT | block("refusal", refusal=WORDS), min_size=1, max_size=3)
CHAT_ANSWER = st.builds(
    lambda known, rest: {"role": "assistant", **known, **rest},
    perhaps({"content": WORDS | ASSISTANT_SAYS}, {"refusal": st.none() | WORDS, "name": WORDS}),
    UNKNOWN_FIELDS,
)
CHAT_CALLS = st.builds(
    lambda known, result: [
        {"role": "assistant", **known},
        *({"role": "tool", "tool_call_id": c["id"], "content": result} for c in known["tool_calls"]),
    ],
    perhaps(
        {"tool_calls": st.lists(CHAT_CALL, min_size=1, max_size=3, unique_by=lambda c: c["id"])},
        {"content": st.none() | st.just("") | WORDS | st.lists(CHAT_TEXT, max_size=2), "refusal": st.none() | WORDS},
    ),
    st.text("ab \n") | st.lists(CHAT_TEXT, max_size=2),
)


@settings(deadline=None)
@given(st.lists(st.lists(CHAT_SPEAKER | CHAT_ANSWER, max_size=2) | CHAT_CALLS, max_size=4))
def test_any_chat_comes_back_unchanged(groups):
    messages = [message for group in groups for message in group]
    before = json.dumps(messages)
    assert to_openai_chat(stored(from_openai_chat(messages))) == messages
    assert json.dumps(messages) == before


ITEM_FIELDS = st.dictionaries(st.sampled_from(["id", "status", "x_one"]), IDS | st.none(), max_size=3)
ITEM_FILE = {"file_id": IDS | st.none(), "filename": WORDS, "detail": IDS, "x_one": JSONS}
ITEM_PARTS = st.one_of(
    block("input_text", text=WORDS),
    block("output_text", text=WORDS),
    block("output_text", text=WORDS, annotations=st.lists(JSONS, max_size=1)),
    perhaps({"type": st.just("input_file"), "file_url": WORDS}, ITEM_FILE),
    perhaps({"type": st.just("input_file"), "file_data": st.just(PDF)}, ITEM_FILE),
    perhaps({"type": st.just("input_image"), "image_url": WORDS}, {"detail": IDS, "file_id": IDS, "x_one": JSONS}),
    block("something_new", payload=JSONS),
)
ANSWER_PARTS = st.lists(ITEM_PARTS | block("refusal", refusal=WORDS), min_size=1, max_size=3)
MESSAGE_FIELDS = {"type": st.just("message"), "id": IDS, "status": IDS, "phase": IDS | st.none()}
ANY_ITEM = st.one_of(
    perhaps({"role": st.just("user"), "content": WORDS | st.lists(ITEM_PARTS, min_size=1, max_size=3)}, MESSAGE_FIELDS),
    perhaps({"role": st.just("assistant"), "content": WORDS | ANSWER_PARTS}, MESSAGE_FIELDS),
    block("web_search_call", ITEM_FIELDS, action=objects(JSONS)),
)
ANY_CALL = st.one_of(
    st.tuples(
        block("function_call", ITEM_FIELDS, name=WORDS, arguments=WORDS),
        block("function_call_output", ITEM_FIELDS, output=st.text("ab ") | st.lists(ITEM_PARTS, max_size=2)),
    ),
    st.tuples(
        block("custom_tool_call", ITEM_FIELDS, name=WORDS, input=WORDS),
        block("custom_tool_call_output", ITEM_FIELDS, output=WORDS),
    ),
)
ANY_THOUGHT = block(
    "reasoning",
    ITEM_FIELDS,
    summary=st.lists(st.fixed_dictionaries({"type": st.just("summary_text"), "text": st.text("ab")}), max_size=2),
)
ANY_CALLS = st.builds(
    lambda thoughts, pairs: [
        *thoughts,
        *({**asked, "call_id": f"c{n}"} for n, (asked, _) in enumerate(pairs)),
        *({**given, "call_id": f"c{n}"} for n, (_, given) in enumerate(pairs)),
    ],
    st.lists(ANY_THOUGHT, max_size=2),
    st.lists(ANY_CALL, min_size=1, max_size=3),
)


@settings(deadline=None)
@given(st.lists(st.lists(ANY_ITEM, max_size=3) | ANY_CALLS, max_size=4))
def test_any_items_come_back_unchanged(groups):
    items = [item for group in groups for item in group]
    assert to_openai_responses(stored(from_openai_responses(items))) == items


CLAUDE_TEXT = block("text", text=WORDS)
CLAUDE_SHOWN = st.one_of(
    CLAUDE_TEXT,
    block("image", source=st.fixed_dictionaries({"type": st.just("url"), "url": IDS.map("https://e.org/{}".format)})),
    block(
        "image",
        source=st.fixed_dictionaries(
            {"type": st.just("base64"), "media_type": st.sampled_from(["image/png", "image/x"]), "data": IDS}
        ),
    ),
    block(
        "document",
        source=st.fixed_dictionaries({"type": st.just("text"), "media_type": st.just("text/plain"), "data": WORDS}),
        title=WORDS | st.none(),
    ),
    block("search_result", source=WORDS, title=WORDS),
)
CLAUDE_RESULT = st.builds(
    lambda known, rest: {"type": "tool_result", **known, **rest},
    perhaps(
        {},
        {"content": st.text("ab ") | st.lists(CLAUDE_SHOWN, max_size=2), "is_error": st.booleans()},
    ),
    UNKNOWN_FIELDS,
)
CLAUDE_ASKS = WORDS | st.lists(CLAUDE_SHOWN, min_size=1, max_size=3)
CLAUDE_ANSWERS = WORDS | st.lists(
    st.one_of(
        CLAUDE_TEXT,
        st.tuples(block("tool_use", name=WORDS, input=objects(JSONS)), CLAUDE_RESULT),
        block("thinking", thinking=st.text("ab"), signature=IDS),
        block("redacted_thinking", data=IDS),
        block("server_tool_use", id=IDS, name=IDS, input=objects(JSONS)),
    ),
    min_size=1,
    max_size=3,
)


@settings(deadline=None)
@given(
    st.none() | WORDS | st.lists(CLAUDE_TEXT, min_size=1, max_size=2),
    st.lists(st.tuples(CLAUDE_ASKS, st.booleans(), CLAUDE_ANSWERS)),
)
def test_any_anthropic_conversation_comes_back_unchanged(system, pairs):
    messages, results, calls = [], [], 0
    for asks, at_once, answers in [*pairs, ("Bye.", False, None)]:
        said = [{"type": "text", "text": asks}] if results and isinstance(asks, str) else asks
        messages.append({"role": "user", "content": [*results, *said] if results else said})
        if results and at_once:  # nothing but results
            messages[-1]["content"] = results
        results, blocks = [], answers
        for place, found in enumerate(answers if isinstance(answers, list) else ()):
            if isinstance(found, tuple):
                calls += 1
                blocks = [*blocks[:place], {**found[0], "id": f"t{calls}"}, *blocks[place + 1 :]]
                results.append({**found[1], "tool_use_id": f"t{calls}"})
        if answers is not None:
            messages.append({"role": "assistant", "content": blocks})
    assert to_anthropic(stored(from_anthropic(messages, system))) == (system, messages)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])) | objects(JSONS).map(json.dumps))
def test_any_arguments_survive_the_journey_to_anthropic_and_back(arguments):
    back = arguments_of_input(input_of_arguments(arguments))
    try:
        expected = json.loads(arguments)
    except ValueError:
        expected = None
    if isinstance(expected, dict) and set(expected) != {"_raw"}:
        assert json.loads(back) == expected
    elif not isinstance(expected, dict):
        assert back == (arguments if arguments.strip() else "{}")
