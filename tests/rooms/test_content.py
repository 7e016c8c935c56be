"""Parts, drafts and token usage: what is kept, what is refused, and how the refusal names the place."""

import decimal
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.rooms.conversations.content import (
    FilePart,
    OpaquePart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    decode_parts,
    encode_parts,
    plain_text,
    validate_content,
)
from perdure.rooms.conversations.draft import Draft, MessageRole
from perdure.rooms.conversations.usage import TokenUsage, cost_of_nanos, nanos_of_cost
from perdure.values import limits
from perdure.values.errors import Invalid, OverLimit, Undecodable

PARTS = (
    TextPart("Look: ", extra={"anthropic": {"cache_control": {"type": "ephemeral"}}}),
    TextPart("No.", refusal=True),
    FilePart("image", uri="https://e.org/cat.png", detail="low", name="cat.png"),
    ToolCallPart("call_1", "sql", "select 1", custom=True),
    ToolResultPart("call_1", (TextPart("one"), FilePart("file", text="Tides."), OpaquePart("anthropic", {"a": [1.5]}))),
    ToolResultPart("call_2", "", is_error=True),
    ReasoningPart("secret thought", "sig", provider="anthropic", summary=("a", "b")),
    OpaquePart("openai_responses", {"type": "mcp_call", "n": None}),
)


def nested(levels):
    value = "end"
    for _ in range(levels):
        value = [value]
    return value


def test_parts_survive_their_json():
    assert decode_parts(encode_parts(PARTS)) == PARTS
    assert validate_content(list(PARTS), "assistant") == PARTS


def test_fields_at_their_default_are_left_out_of_the_json():
    assert encode_parts([TextPart("x")]) == '[{"type":"text","text":"x"}]'


def test_dicts_in_our_json_form_become_parts():
    given_dicts = [{"type": "text", "text": "x"}, {"type": "tool_call", "id": "a", "name": "f"}, TextPart("y")]
    assert validate_content(given_dicts, "assistant") == (TextPart("x"), ToolCallPart("a", "f"), TextPart("y"))


def test_what_is_kept_shares_nothing_with_what_was_given():
    data = {"a": [1]}
    (kept,) = validate_content([OpaquePart("x", data)], "user")
    data["a"].append(2)
    assert kept.data == {"a": [1]}


@pytest.mark.parametrize("text", ["", "[", "{}", '[{"type":"nothing"}]', '[{"type":"text"}]', "[" * 100_000, "\ud800"])
def test_damaged_parts_are_undecodable(text):
    with pytest.raises(Undecodable):
        decode_parts(text)


def test_the_search_sees_words_calls_and_results_but_no_reasoning():
    assert plain_text(PARTS) == "Look: \nNo.\ncat.png\nsql select 1\none\nTides."
    assert plain_text("just text") == "just text"


@pytest.mark.parametrize(
    ("content", "role", "kept"),
    [
        ("", "tool", ""),
        ([ToolResultPart("a", "")], "tool", (ToolResultPart("a"),)),
        ([TextPart(""), ToolCallPart("a", "f")], "assistant", (TextPart(""), ToolCallPart("a", "f"))),
        ([TextPart(" "), FilePart("image", file_id="f")], "user", (TextPart(" "), FilePart("image", file_id="f"))),
    ],
)
def test_content_that_may_be_empty(content, role, kept):
    assert validate_content(content, role) == kept


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("", "content"),
        (" \n", "content"),
        ([], "content"),
        ([TextPart(" "), TextPart("")], "content"),
        (None, "content"),
        (b"x", "content"),
        ("a\0b", "content"),
        ("a\ud800", "content"),
        (["x"], "content[0]"),
        ([TextPart("x"), TextPart("\0")], "content[1].text"),
        ([TextPart(5)], "content[0].text"),
        ([{"type": "text"}], "content[0].text"),
        ([{"type": "image_url", "image_url": {}}], "content[0].type"),
        ([{"text": "x"}], "content[0].type"),
        ([{"type": "text", "text": "x", "color": "red"}], "content[0]"),
        ([{"type": "file", "kind": "video", "uri": "x"}], "content[0].kind"),
        ([FilePart("image")], "content[0]"),
        ([ToolCallPart(" ", "f")], "content[0].id"),
        ([ToolCallPart("a", "")], "content[0].name"),
        ([ToolResultPart("a", (FilePart("file"),))], "content[0].content[0]"),
        ([ToolResultPart("a", (ToolCallPart("a", "f"),))], "content[0].content[0].type"),
        ([TextPart("x", extra={"a": [float("nan")]})], "content[0].extra.a[0]"),
        ([TextPart("x", extra={"a": 2**63})], "content[0].extra.a"),
        ([TextPart("x", extra={"a": datetime.now(UTC)})], "content[0].extra.a"),
        ([TextPart("x", extra={1: 2})], "content[0].extra"),
        ([OpaquePart("p", {"a\0": 1})], "a key of content[0].data"),
    ],
)
def test_content_that_is_refused_is_named_by_its_place(content, field):
    with pytest.raises(Invalid) as error:
        validate_content(content, "user")
    assert error.value.field == field


def test_content_has_limits(monkeypatch):
    deepest = limits.METADATA_DEPTH - 2  # below the part and its data
    validate_content([OpaquePart("p", {"a": nested(deepest)})], "user")
    with pytest.raises(OverLimit):
        validate_content([OpaquePart("p", {"a": nested(deepest + 1)})], "user")
    monkeypatch.setattr(limits, "CONTENT_BYTES", 100)
    with pytest.raises(OverLimit):
        validate_content("x" * 101, "user")
    with pytest.raises(OverLimit):
        validate_content([TextPart("x" * 50), TextPart("x" * 50)], "user")


def test_a_draft_keeps_what_it_was_given():
    draft = Draft(
        "user", [{"type": "text", "text": "x"}], name="ada", metadata={"at": datetime(2026, 1, 1, tzinfo=UTC)},
        token_usage={"input_tokens": 3}, created_at="2026-01-01T00:00:00",
    )  # fmt: skip
    assert draft.role is MessageRole.USER
    assert draft.content == (TextPart("x"),)
    assert draft.token_usage == TokenUsage(3)
    assert draft.created_at == 1_767_225_600_000_000


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"role": "robot"}, "role"),
        ({"name": " "}, "name"),
        ({"metadata": [1]}, "metadata"),
        ({"token_usage": 5}, "token_usage"),
        ({"token_usage": {"tokens": 5}}, "token_usage.tokens"),
        ({"created_at": 1.5}, "created_at"),
        ({"created_at": "soon"}, "created_at"),
        ({"parent_id": ""}, "parent_id"),
        ({"id": "x" * 513}, "id"),
    ],
)
def test_a_draft_that_is_refused_names_its_field(fields, field):
    with pytest.raises(Invalid) as error:
        Draft(**{"role": "user", "content": "x"} | fields)
    assert error.value.field == field


def test_a_total_above_the_sum_is_kept_and_one_below_is_refused():
    assert TokenUsage(3, 4).total_tokens == 7
    assert TokenUsage(3, 4, 9).total_tokens == 9
    with pytest.raises(Invalid, match="total_tokens is 6, below the sum"):
        TokenUsage(3, 4, 6)


@pytest.mark.parametrize(
    "fields", [{"input_tokens": -1}, {"output_tokens": 1.0}, {"input_tokens": True}, {"model": ""}]
)
def test_counts_and_model_are_checked(fields):
    with pytest.raises(Invalid) as error:
        TokenUsage(**fields)
    assert error.value.field in fields


@pytest.mark.parametrize(
    ("cost", "nanos"),
    [
        (None, 0), (0, 0), ("0.00", 0), (2, 2_000_000_000), ("0.000000001", 1), (Decimal("1.50"), 1_500_000_000),
        ("1E-9", 1), ("1.0000000000000", 1_000_000_000), (0.1 + 0.2, 300_000_000), (1e-9, 1), (1e-10, 0),
        (0.5e-9, 0), (1.5e-9, 2), (2.5e-9, 2), (2.51e-9, 3), (5e-324, 0),
    ],
)  # fmt: skip
def test_money_is_exact_and_only_floats_are_rounded_half_even(cost, nanos):
    usage = TokenUsage(cost=cost)
    assert usage.cost_nanos == nanos
    assert usage == TokenUsage.stored(0, 0, 0, None, nanos)


@pytest.mark.parametrize(
    "cost", ["0.0000000001", Decimal("1e-1000000"), -1, "-0.5", "NaN", float("inf"), float("nan"), "ten", "", True, [1]]
)
def test_money_that_is_refused(cost):
    with pytest.raises(Invalid) as error:
        TokenUsage(cost=cost)
    assert error.value.field == "cost"


@pytest.mark.parametrize("cost", ["1e1000000", 10**400, 1e300, "10000000.000000001"])
def test_money_above_the_limit_is_refused(cost):
    with pytest.raises(OverLimit):
        TokenUsage(cost=cost)


@settings(deadline=None)
@given(st.integers(0, limits.COST_NANOS), st.integers(1, 5))
def test_nanos_survive_their_decimal_whatever_the_callers_precision(nanos, precision):
    with decimal.localcontext(prec=precision):
        assert nanos_of_cost(cost_of_nanos(nanos)) == nanos
        assert TokenUsage(cost=cost_of_nanos(nanos)).cost_nanos == nanos
