"""The bundled sample history is what its README says, and every line of it can be stored."""

import json
import re
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from itertools import pairwise

import pytest

from perdure.rooms.conversations.content import (
    FilePart,
    ReasoningPart,
    ToolCallPart,
    ToolResultPart,
    encode_parts,
    plain_text,
)
from perdure.rooms.conversations.draft import Draft, MessageRole
from perdure.rooms.conversations.values import metadata_of

CONVERSATION_FIELDS = {"id", "agent_id", "user_id", "created_at", "metadata"}
DRAFT_FIELDS = {"id", "role", "name", "content", "created_at", "metadata", "token_usage", "parent_id"}


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.fixture(scope="module")
def lines():
    raw = files("perdure.samples").joinpath("support_agent.jsonl").read_bytes()
    assert raw.endswith(b"\n")
    return raw.decode().removesuffix("\n").split("\n")


@pytest.fixture(scope="module")
def records(lines):
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def conversations(records):
    return [record for record in records if record["type"] == "conversation"]


@pytest.fixture(scope="module")
def messages(records):
    return [record for record in records if record["type"] == "message"]


@pytest.fixture(scope="module")
def threads(conversations, messages):
    """Messages by conversation, with their drafts, in the order of the file."""
    found = {conversation["id"]: [] for conversation in conversations}
    for message in messages:
        draft = Draft(**{name: message[name] for name in DRAFT_FIELDS & message.keys()})
        found[message["conversation_id"]].append((message, draft))
    return found


def parts_of(threads, kind):
    return [
        part
        for thread in threads.values()
        for _, draft in thread
        if not isinstance(draft.content, str)
        for part in draft.content
        if isinstance(part, kind)
    ]


def texts_about(threads, words):
    """The conversations in which all of the words stand in one message."""
    return {
        conversation
        for conversation, thread in threads.items()
        for _, draft in thread
        if all(word in plain_text(draft.content).casefold() for word in words)
    }


def test_every_line_is_a_compact_json_object_of_a_known_type(lines, records):
    assert [compact(record) for record in records] == lines
    assert {record["type"] for record in records} == {"conversation", "message"}


def test_messages_follow_their_conversation(records):
    current = None
    for record in records:
        if record["type"] == "conversation":
            assert record.keys() == CONVERSATION_FIELDS | {"type"}
            current = record["id"]
        else:
            assert record.keys() - DRAFT_FIELDS == {"type", "conversation_id"}
            assert record["conversation_id"] == current


def test_counts_are_those_of_the_readme(conversations, messages, threads):
    readme = files("perdure.samples").joinpath("README.md").read_text(encoding="utf-8")
    assert f"{len(conversations)} conversations and {len(messages)} messages" in readme
    assert 12 <= len(conversations) <= 16
    assert 320 <= len(messages) <= 420
    lengths = sorted(len(thread) for thread in threads.values())
    assert lengths[0] == 8
    assert lengths[-1] >= 50
    assert len(set(lengths)) >= 10
    users = {conversation["user_id"] for conversation in conversations}
    agents = {conversation["agent_id"] for conversation in conversations}
    assert all(f"`{name}`" in readme for name in users | agents)
    assert (len(users), len(agents)) == (4, 4)


def test_ids_are_unique(conversations, messages, threads):
    ids = [record["id"] for record in (*conversations, *messages)]
    ids += [part.id for part in parts_of(threads, ToolCallPart)]
    assert [name for name, times in Counter(ids).items() if times > 1] == []


def test_times_increase_within_a_conversation_and_stay_in_the_period(conversations, threads):
    starts = []
    for conversation in conversations:
        start = datetime.fromisoformat(conversation["created_at"])
        times = [datetime.fromisoformat(message["created_at"]) for message, _ in threads[conversation["id"]]]
        assert start <= times[0]
        assert all(before < after for before, after in pairwise(times))
        assert datetime(2026, 9, 21, tzinfo=UTC) <= start
        assert times[-1] < datetime(2026, 10, 31, tzinfo=UTC)
        starts.append(start)
    assert starts == sorted(starts)


def test_every_tool_result_answers_an_earlier_call_and_every_call_is_answered(threads):
    for thread in threads.values():
        waiting = []
        for _, draft in thread:
            parts = [] if isinstance(draft.content, str) else draft.content
            calls = [part.id for part in parts if isinstance(part, ToolCallPart)]
            answers = [part.tool_call_id for part in parts if isinstance(part, ToolResultPart)]
            assert (draft.role == MessageRole.TOOL) == bool(answers)
            assert draft.role == MessageRole.ASSISTANT or not calls
            assert answers == waiting  # at once, all of them, and in order
            waiting = calls
        assert waiting == []


def test_parents_are_earlier_messages_of_the_same_conversation(threads):
    named = 0
    for thread in threads.values():
        seen = set()
        for message, draft in thread:
            assert draft.parent_id is None or draft.parent_id in seen
            named += draft.parent_id is not None
            seen.add(message["id"])
    assert named >= 1


def test_contents_and_metadata_are_in_stored_form(conversations, messages, threads):
    for thread in threads.values():
        for message, draft in thread:
            if not isinstance(draft.content, str):
                # Parts read in and written out are the same, so that an export of the sample is the sample.
                assert json.loads(encode_parts(draft.content)) == message["content"]
    for conversation in conversations:
        metadata = metadata_of(conversation["metadata"])
        assert metadata.title
        assert metadata.tags
        assert metadata.participants
        assert metadata.settings
        assert any(isinstance(value, dict) for value in metadata.context.values())
    assert sum("metadata" in message for message in messages) >= 5


def test_arguments_of_calls_are_json_objects(threads):
    calls = parts_of(threads, ToolCallPart)
    assert len(calls) >= 100
    assert all(isinstance(json.loads(call.arguments), dict) for call in calls)


def test_token_usage_is_plausible(threads):
    usages = [draft.token_usage for thread in threads.values() for _, draft in thread if draft.token_usage]
    roles = {draft.role for thread in threads.values() for _, draft in thread if draft.token_usage}
    assert roles == {MessageRole.ASSISTANT}
    assert {usage.model for usage in usages} == {"large-1", "small-1"}
    assert all(usage.input_tokens and usage.output_tokens for usage in usages)
    assert all(Decimal(0) < usage.cost < Decimal("0.2") for usage in usages)
    apart = [usage for usage in usages if usage.total_tokens > usage.input_tokens + usage.output_tokens]
    assert 5 <= len(apart) <= len(usages) // 10


def test_all_roles_and_parts_occur(threads):
    assert {draft.role for thread in threads.values() for _, draft in thread} == set(MessageRole)
    assert {part.kind for part in parts_of(threads, FilePart)} == {"image", "file"}
    assert len(parts_of(threads, ReasoningPart)) >= 8
    failed = [part for part in parts_of(threads, ToolResultPart) if part.is_error]
    assert len(failed) >= 12
    assert all(part.content for part in failed)
    speakers = {draft.name for thread in threads.values() for _, draft in thread if draft.role == MessageRole.USER}
    assert speakers == {"Maren Holt", "Tomás Figueiredo", "Yuki Arakawa", "Jonas Brandt"}


@pytest.mark.parametrize(
    "pattern",
    [
        "[\U0001f300-\U0001faff]",
        "```\\w+\n",
        "Traceback \\(most recent call last\\)",
        "\\bich lade\\b|\\bIch rede\\b",
        "\\bFalei com ela\\b",
        "[\u3040-\u309f]{3}",
        "^\\| --|^\\|---",
    ],
    ids=["emoji", "code", "traceback", "german", "portuguese", "japanese", "table"],
)
def test_texts_have(threads, pattern):
    texts = [plain_text(draft.content) for thread in threads.values() for _, draft in thread]
    assert any(re.search(pattern, text, re.MULTILINE) for text in texts)


@pytest.mark.parametrize(
    ("words", "at_least"),
    [
        (["flaky"], 3),
        (["postgres"], 5),
        (["refund"], 3),
        (["balsa do tejo"], 2),
        (["peanut"], 3),
        (["window seat"], 2),
        (["fedora"], 2),
        (["lisbon"], 3),
        (["deploy day", "friday"], 2),
        (["tuesday", "deploy"], 3),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_topics_run_across_conversations(threads, words, at_least):
    assert len(texts_about(threads, words)) >= at_least


def test_no_prose_is_said_twice(threads):
    """Filler would repeat itself; people repeat only short words, and an agent its standing instructions."""
    said = Counter(
        draft.content
        for thread in threads.values()
        for _, draft in thread
        if isinstance(draft.content, str) and draft.role != MessageRole.SYSTEM
    )
    assert {text: times for text, times in said.items() if times > 1} == {"go": 4}
