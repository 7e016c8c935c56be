"""Import and export: what goes out comes back, byte for byte, whatever is in it."""

import io
import json
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Conflict,
    Draft,
    FilePart,
    Invalid,
    NotFound,
    ReasoningPart,
    TextPart,
    TokenUsage,
    ToolCallPart,
    ToolResultPart,
)  # fmt: skip
from perdure.testing.drivers import Opener
from perdure.testing.suite.tools import WILD, TurnedClock, refusal, said, texts

SAMPLE = resources.files("perdure.samples") / "support_agent.jsonl"
HELLO = [
    {"type": "conversation", "id": "c1", "agent_id": "helper", "user_id": "ann"},
    {"type": "message", "conversation_id": "c1", "id": "m1", "role": "user", "content": "Hello"},
]


def jsonl(*records: Any) -> list[str]:
    """Lines of JSON."""
    return [json.dumps(record, ensure_ascii=False) for record in records]


async def exported(store: Any, **scope: Any) -> bytes:
    """An export as bytes."""
    file = io.BytesIO()
    report = await store.export_conversations(file, **scope)
    assert report.bytes == len(file.getvalue())
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert report.conversations == sum(line["type"] == "conversation" for line in lines)
    assert report.messages == sum(line["type"] == "message" for line in lines)
    return file.getvalue()


async def moved(store: Any) -> None:
    """Checks that an export of a store, loaded into a tenant of its own, gives the same export."""
    before = await exported(store)
    twin = store.for_tenant("twin")
    report = await twin.import_conversations(io.BytesIO(before))
    assert (report.skipped, report.broken) == (0, 0)
    assert await exported(twin) == before
    again = await twin.import_conversations(io.BytesIO(before))
    assert (again.conversations, again.messages, again.skipped) == (0, 0, report.messages)
    assert await exported(twin) == before


async def rich(store: Any, clock: TurnedClock) -> None:
    """A store with something of everything."""
    one = await store.create_conversation(
        "helper", "ann", {"title": 'Ünï\n"code"', "tags": ["b", "a"], "context": WILD, "settings": {"t": 0.5}}, id="z/1"
    )
    clock.turn(microseconds=1)
    first = await store.add_message(one.id, "system", "Be\u2028brief.\r\n", metadata=WILD)
    clock.turn(seconds=1)
    parts = [
        TextPart("look", extra={"openai_chat": {"x": [1, None]}}), FilePart(kind="image", data="aGk=", media_type="image/png"),
        ToolCallPart(id="call", name="f", arguments='{"a": 1}'),
    ]  # fmt: skip
    usage = TokenUsage(10, 5, 20, "größe-1", "0.000000001")
    await store.add_message(one.id, "assistant", parts, name="Bob", token_usage=usage, parent_id=first.id)
    await store.add_message(one.id, "tool", [ToolResultPart(tool_call_id="call", content="", is_error=True)])
    await store.add_message(one.id, "user", "gone")
    await store.delete_message((await store.get_messages(one.id, last=1))[0].id)
    await store.add_message(
        one.id, "assistant", "done", token_usage={"input_tokens": 0}, created_at="1999-12-31T23:59:59.5"
    )
    await store.edit_message(first.id, "Be kind.")
    await store.create_conversation("helper", "bob", id="a", created_at="2001-01-01")
    await store.add_messages(
        "a", [Draft("user", f"{n} \x01 🎉", token_usage=TokenUsage(n, cost="12.5")) for n in range(60)]
    )


async def test_what_is_exported_comes_back_byte_for_byte(opener: Opener) -> None:
    clock = TurnedClock("2026-03-01T12:00:00.000999")
    async with opener(clock=clock) as store:
        await rich(store, clock)
        await moved(store)
        twin = store.for_tenant("twin")
        for name in ("z/1", "a"):
            ours = await store.get_conversation(name, include_messages=True)
            theirs = await twin.get_conversation(name, include_messages=True)
            assert (ours.metadata, ours.created_at, ours.message_count, ours.token_usage) == (
                theirs.metadata, theirs.created_at, theirs.message_count, theirs.token_usage
            )  # fmt: skip
            for mine, other in zip(ours.messages, theirs.messages, strict=True):
                assert (mine.id, mine.role, mine.name, mine.content, mine.metadata, mine.token_usage) == (
                    other.id, other.role, other.name, other.content, other.metadata, other.token_usage
                )  # fmt: skip
                assert (mine.created_at, mine.parent_id) == (other.created_at, other.parent_id)
                assert {k: type(v) for k, v in mine.metadata.items()} == {k: type(v) for k, v in other.metadata.items()}
        assert await twin.token_report("user_id", "model", "day") == await store.token_report("user_id", "model", "day")


async def test_the_sample_history_comes_back_as_it_is(opener: Opener) -> None:
    async with opener() as store:
        with resources.as_file(SAMPLE) as path:
            report = await store.import_conversations(path)
        assert (report.conversations, report.messages, report.skipped, report.errors) == (16, 402, 0, [])
        ours = [json.loads(line) for line in (await exported(store)).splitlines()]
        theirs = [json.loads(line) for line in SAMPLE.read_bytes().replace(b".000Z", b"Z").splitlines()]
        assert ours == theirs
        assert [one for one in (await store.doctor())["problems"] if "fsync" not in one] == []


async def test_an_export_may_be_of_one_user_or_agent(opener: Opener) -> None:
    async with opener() as store:
        mine = await said(store, "a")
        await said(store, "b", user="bob")
        await store.create_conversation("other", "ann", id="third")
        assert [json.loads(x)["type"] for x in (await exported(store, user_id="bob")).splitlines()] == [
            "conversation",
            "message",
        ]
        assert json.loads((await exported(store, agent_id="other")).splitlines()[0])["id"] == "third"
        both = (await exported(store, user_id="ann", agent_id="helper")).splitlines()
        assert json.loads(both[0])["id"] == mine.id
        assert len(both) == 2
        assert await exported(store, user_id="nobody") == b""
        assert (await refusal(Invalid, store.export_conversations(io.BytesIO(), user_id=" "))).field == "user_id"


async def test_forks_come_back_as_forks(opener: Opener) -> None:
    """Each shared message stands in the file once; forks of forks and empty forks too."""
    async with opener() as store:
        source = await said(store, "a", "b", "c", "d", id="source")
        await store.fork_conversation(source.id, 3, "left")
        await store.add_message("left", "user", "left own")
        await store.fork_conversation("left", 4, "leaf")
        await store.add_message("leaf", "user", "leaf own")
        await store.fork_conversation(source.id, 0, "empty")
        await store.fork_conversation("leaf", 1, "early")
        await store.delete_message((await store.get_messages(source.id))[2].id)
        await moved(store)
        twin = store.for_tenant("twin")
        assert await texts(twin, "leaf") == ["a", "b", "left own", "leaf own"]
        assert await texts(twin, "early") == ["a"]
        shared = (await twin.get_messages("source"))[0]
        await twin.edit_message(shared.id, "edited")
        assert [(await texts(twin, name))[0] for name in ("source", "left", "leaf", "early")] == ["edited"] * 4


async def test_forks_of_a_deleted_conversation_come_back(opener: Opener) -> None:
    async with opener() as store:
        await said(store, "a", "b", "c", "d", id="source")
        await store.fork_conversation("source", 2, "short")
        await store.fork_conversation("source", 3, "long")
        await store.add_message("short", "user", "short own")
        await store.delete_conversation("source")
        before = await exported(store)
        await moved(store)
        twin = store.for_tenant("twin")
        assert await texts(twin, "short") == ["a", "b", "short own"]
        assert await texts(twin, "long") == ["a", "b", "c"]
        assert (await store.import_conversations(io.BytesIO(before))).skipped == 4  # also into where it comes from
        assert await exported(store) == before


async def test_a_conversation_that_is_there_gets_what_it_lacks(opener: Opener) -> None:
    async with opener() as store:
        await store.import_conversations(jsonl(*HELLO))
        await store.add_message("c1", "assistant", "Hi", id="m2")
        more = {"type": "message", "conversation_id": "c1", "role": "user", "content": "More", "id": "m3"}
        report = await store.import_conversations(jsonl(*HELLO, {**more, "id": "m2", "content": "another"}, more))
        assert (report.conversations, report.messages, report.skipped) == (0, 1, 2)
        assert await texts(store, "c1") == ["Hello", "Hi", "More"]
        alone = await store.import_conversations(jsonl({**more, "id": "m4", "content": "Alone"}))
        assert alone.messages == 1
        await store.delete_message("m4")
        assert (await store.import_conversations(jsonl({**more, "id": "m4"}))).skipped == 1  # it is not brought back


async def test_lines_written_by_hand_need_little(opener: Opener) -> None:
    clock = TurnedClock()
    lines = jsonl(
        {"type": "conversation", "id": "c1"}, {"type": "message", "role": "user", "content": "One"},
        {"type": "message", "role": "user", "content": "One"},
    )  # fmt: skip
    async with opener(clock=clock) as store:
        for _ in range(2):
            await store.import_conversations(
                ["\ufeff" + lines[0], "", *lines[1:], "  \n"], agent_id="helper", user_id="ann"
            )
        found = await store.get_conversation("c1", include_messages=True)
        assert (found.agent_id, found.user_id, found.created_at) == ("helper", "ann", clock.now)
        assert [message.text for message in found.messages] == ["One", "One"]


BROKEN = {
    "not json": "not JSON",
    "{}": "type",
    '"text"': "array|object",
    '{"type":"message","conversation_id":"c1","role":"user"}': "content",
    '{"type":"message","conversation_id":"c1","role":"king","content":"x"}': "role must be one of",
    '{"type":"message","conversation_id":"c1","role":"user","content":"  "}': "content must not be blank",
    '{"type":"message","conversation_id":"c1","role":"user","content":"\\u0000"}': "NUL",
    '{"type":"message","conversation_id":"c1","role":"user","content":"x","typo":1}': "typo",
    '{"type":"message","conversation_id":"c1","role":"user","content":[{"type":"x"}]}': "part",
    '{"type":"message","conversation_id":"c1","role":"user","content":"x","created_at":"yesterday"}': "created_at",
    '{"type":"message","conversation_id":"c1","role":"user","content":"x","metadata":{"$odd":1}}': "metadata",
    '{"type":"message","conversation_id":"c1","role":"user","content":"x","metadata":[1]}': "object|metadata",
    '{"type":"message","conversation_id":"c1","role":"user","content":"x","token_usage":{"input_tokens":-1}}': "input_tokens",
    '{"type":"message","conversation_id":"nowhere","role":"user","content":"x"}': "no conversation 'nowhere'",
    '{"type":"conversation","id":"c2","agent_id":"helper"}': "user_id is missing",
    '{"type":"conversation","id":"","agent_id":"helper","user_id":"ann"}': "id must not be blank",
    '{"type":"conversation","id":"c2","agent_id":"helper","user_id":"ann","metadata":{"titel":"x"}}': "titel",
    '{"type":"message","conversation_id":"c1","role":"user","content":' + "[" * 5_000: "not JSON",
}  # fmt: skip


async def test_a_broken_line_is_named_and_nothing_is_loaded(opener: Opener) -> None:
    lines = [*jsonl(*HELLO), *BROKEN]
    async with opener() as store:
        error = await refusal(Invalid, store.import_conversations(lines))
        assert error.details["broken"] == len(BROKEN)
        assert [one["line"] for one in error.details["errors"]] == list(range(3, len(lines) + 1))
        for one, words in zip(error.details["errors"], BROKEN.values(), strict=True):
            assert any(word in one["reason"] for word in words.split("|")), one
        assert await exported(store) == b""
        assert (await store.changes()) == []
        report = await store.import_conversations(lines, skip_broken=True)
        assert (report.conversations, report.messages, report.broken) == (1, 1, len(BROKEN))
        assert [one.line for one in report.errors] == list(range(3, len(lines) + 1))
        assert await texts(store, "c1") == ["Hello"]


async def test_a_hundred_broken_lines_are_listed_and_all_are_counted(opener: Opener) -> None:
    async with opener() as store:
        error = await refusal(Invalid, store.import_conversations([*jsonl(*HELLO), *["?"] * 250]))
        assert (error.details["broken"], len(error.details["errors"])) == (250, 100)
        report = await store.import_conversations([*jsonl(*HELLO), *["?"] * 250], skip_broken=True)
        assert (report.broken, len(report.errors), report.messages) == (250, 100, 1)


async def test_invalid_bytes_are_a_broken_line(opener: Opener) -> None:
    async with opener() as store:
        lines = [line.encode() for line in jsonl(*HELLO)]
        error = await refusal(Invalid, store.import_conversations([*lines, b'{"type":"message","content":"\xff"}']))
        assert [one["line"] for one in error.details["errors"]] == [3]


async def test_what_is_somebody_elses_is_not_touched(opener: Opener) -> None:
    """Another user's conversation, another conversation's message, a fork of what is not there."""
    async with opener() as store:
        mine = await said(store, "mine", id="c1", user="bob")
        taken = (await store.get_messages(mine.id))[0].id
        before = await exported(store)
        error = await refusal(Conflict, store.import_conversations(jsonl(*HELLO)))
        assert error.details["errors"][0]["line"] == 1
        assert await exported(store) == before
        other = {**HELLO[0], "id": "c2"}
        clash = {**HELLO[1], "conversation_id": "c2", "id": taken}
        lost = {**HELLO[0], "id": "c3", "fork_of": {"conversation_id": "c1", "message_id": "nowhere"}}
        theft = {**HELLO[0], "id": "c4", "fork_of": {"conversation_id": "c1", "message_id": taken}}
        inner = {**HELLO[1], "conversation_id": "c3", "id": "m9"}
        report = await store.import_conversations(jsonl(*HELLO, other, clash, lost, theft, inner), skip_broken=True)
        assert [one.line for one in report.errors] == [1, 2, 4, 5, 6, 7]
        assert (report.conversations, report.messages, report.broken) == (1, 0, 6)
        assert await texts(store, "c1") == ["mine"]
        assert await store.get_conversation("c3") is None
        assert await store.get_conversation("c4") is None


async def test_the_users_own_name_stands_in_place_of_the_files(opener: Opener) -> None:
    async with opener() as store:
        with resources.as_file(SAMPLE) as path:
            await store.import_conversations(path, user_id="me", agent_id="mine")
        found = await store.query_conversations(user_id="me", agent_id="mine", limit=100)
        assert len(found) == 16


async def test_an_import_is_recorded_and_can_be_searched(opener: Opener) -> None:
    async with opener() as store:
        await store.acting_as("ann").import_conversations(jsonl(*HELLO))
        assert [(c.kind, c.verb, c.object_id, c.actor) for c in await store.changes()] == [
            ("conversation", "create", "c1", "ann"), ("message", "add", "m1", "ann")
        ]  # fmt: skip
        assert [hit.message.id for hit in await store.search_messages("hello")] == ["m1"]


async def test_an_import_in_a_transaction_is_taken_back_with_it(opener: Opener) -> None:
    async with opener() as store:
        with pytest.raises(ZeroDivisionError):
            async with store.transaction() as t:
                assert (await t.import_conversations(jsonl(*HELLO))).messages == 1
                raise ZeroDivisionError
        assert await store.get_conversation("c1") is None


def names_in(folder: Path, part: str) -> list[str]:
    """The files of a folder whose names hold a word."""
    return [one.name for one in folder.iterdir() if part in one.name]


async def test_a_file_appears_when_it_is_whole(opener: Opener, tmp_path: Path) -> None:
    async with opener() as store:
        await said(store, "a", "b")
        path = tmp_path / "out.jsonl"
        report = await store.export_conversations(path)
        assert path.stat().st_size == report.bytes
        before = path.read_bytes()

        def fail(progress: Any) -> None:
            raise ZeroDivisionError

        await store.add_message((await store.query_conversations())[0].id, "user", "c")
        with pytest.raises(ZeroDivisionError):
            await store.export_conversations(path, on_progress=fail)
        assert path.read_bytes() == before
        assert names_in(tmp_path, "out") == [path.name]
        link = tmp_path / "link.jsonl"
        link.symlink_to(path)
        await store.export_conversations(link)
        assert link.is_symlink()
        assert path.read_bytes() == await exported(store)
        with pytest.raises(FileNotFoundError):
            await store.export_conversations(tmp_path / "no" / "folder.jsonl")
        with pytest.raises(FileNotFoundError):
            await store.import_conversations(tmp_path / "nothing.jsonl")
        chunks: list[bytes] = []
        await store.export_conversations(chunks.append)
        assert b"".join(chunks) == b"".join([chunk async for chunk in store.export_lines()]) == path.read_bytes()


@pytest.mark.parametrize("wrong", [None, 5, b"{}", {"a": 1}])
async def test_a_source_that_is_none_is_refused(opener: Opener, wrong: Any) -> None:
    async with opener() as store:
        assert (await refusal(Invalid, store.import_conversations(wrong))).field == "source"


async def test_a_format_that_there_is_not_is_refused(opener: Opener) -> None:
    async with opener() as store:
        assert (await refusal(Invalid, store.import_conversations(jsonl(*HELLO), format="csv"))).field == "format"
        assert (await refusal(Invalid, store.import_conversations(jsonl({"a": 1})))).field == "format"
        assert (await refusal(Invalid, store.export_conversations(5))).field == "target"
        assert (await store.import_conversations([])).messages == 0


async def test_progress_is_told(opener: Opener, tmp_path: Path) -> None:
    async with opener() as store:
        told: list[Any] = []
        with resources.as_file(SAMPLE) as path:
            await store.import_conversations(path, on_progress=told.append)
            size = path.stat().st_size
        assert {one.stage for one in told} == {"check", "load"}
        assert (told[-1].bytes, told[-1].total_bytes, told[-1].conversations, told[-1].messages) == (
            size,
            size,
            16,
            402,
        )
        told.clear()
        report = await store.export_conversations(tmp_path / "out.jsonl", on_progress=told.append)
        assert (told[-1].stage, told[-1].bytes, told[-1].messages) == ("export", report.bytes, 402)


# -- other formats -------------------------------------------------------------------------------------------------------

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather?", "name": "Ann"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    {"role": "assistant", "content": "Sunny."},
]  # fmt: skip
CLAUDE = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}]},
    {"role": "assistant", "content": "Sunny."},
]
ITEMS = [
    {"role": "user", "content": "Weather?"},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
]


async def test_a_conversation_speaks_each_providers_format(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        assert await store.to_openai(made.id) == [] == await store.to_openai("nowhere")
        added = await store.import_openai(made.id, CHAT)
        assert [message.seq for message in added] == [1, 2, 3, 4, 5]
        assert await store.to_openai(made.id) == CHAT
        assert [m["role"] for m in await store.to_openai(made.id, max_tokens=20)] == ["system", "assistant"]
        system, messages = await store.to_anthropic(made.id)
        assert (system, [m["role"] for m in messages]) == ("Be brief.", ["user", "assistant", "user", "assistant"])
        other = await store.create_conversation("helper", "ann")
        await store.import_anthropic(other.id, CLAUDE, system="Be brief.")
        assert await store.to_anthropic(other.id) == ("Be brief.", CLAUDE)
        third = await store.create_conversation("helper", "ann")
        await store.import_openai_responses(third.id, ITEMS)
        assert await store.to_openai_responses(third.id) == ITEMS
        await refusal(NotFound, store.import_openai("nowhere", CHAT))
        assert (
            await refusal(Invalid, store.import_openai(made.id, [*CHAT, {"role": "x"}]))
        ).field == "messages[5].role"
        assert (await store.get_conversation(made.id)).message_count == 5


FOREIGN: dict[str, tuple[list[str], str]] = {
    "requests": (jsonl({"model": "m", "messages": CHAT, "temperature": 0.5}, {"messages": CHAT}), "openai"),
    "lists": (jsonl(CHAT, CHAT[:2]), "openai"),
    "one list": (json.dumps(CHAT, indent=2).split("\n"), "openai"),
    "one request": (json.dumps({"messages": CHAT}, indent=2).split("\n"), "openai"),
    "archive of requests": ([json.dumps([{"messages": CHAT}, {"messages": CHAT}])], "openai"),
    "batch": (
        jsonl({"custom_id": "b1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": CHAT}}),
        "openai",
    ),
    "anthropic requests": (jsonl({"system": "Be brief.", "messages": CLAUDE, "max_tokens": 5}), "anthropic"),
    "anthropic lists": (jsonl(CLAUDE), "anthropic"),
    "responses": (jsonl({"input": ITEMS, "instructions": "Be brief."}, {"input": "Hello"}), "openai-responses"),
    "items": (jsonl(ITEMS), "openai-responses"),
}


@pytest.mark.parametrize("name", FOREIGN)
async def test_foreign_histories_are_known_by_their_form(opener: Opener, name: str) -> None:
    lines, form = FOREIGN[name]
    async with opener() as store:
        report = await store.import_conversations(lines, user_id="ann")
        assert report.conversations >= 1
        found = await store.query_conversations(user_id="ann", agent_id=form, limit=100, include_messages=True)
        assert len(found) == report.conversations
        assert sum(len(one.messages) for one in found) == report.messages
        again = await store.import_conversations(lines, user_id="ann", format=form)
        assert (again.conversations, again.messages, again.skipped) == (0, 0, report.messages)
        assert (await refusal(Invalid, store.import_conversations(lines))).details["errors"][0]["line"] == 1


async def test_requests_keep_their_settings_and_their_user(opener: Opener) -> None:
    async with opener() as store:
        await store.import_conversations(jsonl({"id": "r1", "model": "m", "user": "ann", "messages": CHAT, "seed": 7}))
        found = await store.get_conversation("r1")
        assert (found.user_id, found.metadata.settings, found.message_count) == ("ann", {"model": "m", "seed": 7}, 5)
        assert await store.to_openai("r1") == CHAT


EMPTY: dict[str, tuple[Any, str]] = {
    "chat": ([*CHAT, {"role": "assistant", "content": ""}, {"role": "user", "content": "Hello?"}], "openai"),
    "null": ({"messages": [CHAT[1], {"role": "assistant", "content": None, "refusal": None}]}, "openai"),
    "claude": ({"system": "Be brief.", "messages": [*CLAUDE, {"role": "assistant", "content": []}]}, "anthropic"),
    "items": (
        [*ITEMS, {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": []}],
        "openai-responses",
    ),
}


@pytest.mark.parametrize("name", EMPTY)
async def test_a_history_with_an_empty_answer_is_read_and_comes_back(opener: Opener, name: str) -> None:
    record, form = EMPTY[name]
    async with opener() as store:
        report = await store.import_conversations(jsonl(record), user_id="ann", format=form)
        assert report.broken == 0
        (found,) = await store.query_conversations(user_id="ann", include_messages=True)
        assert [m.content for m in found.messages].count((ReasoningPart(),)) == 1
        if name == "chat":
            assert await store.to_openai(found.id) == record
        elif name == "items":
            assert await store.to_openai_responses(found.id) == record
        elif name == "claude":
            assert await store.to_anthropic(found.id) == ("Be brief.", CLAUDE)
        else:
            assert (await store.to_openai(found.id))[1] == {"role": "assistant", "content": "", "refusal": None}
        await moved(store)


def chatgpt() -> Any:
    """An archive in ChatGPT's form: a tree with a branch that was left."""

    def node(
        name: str, parent: str | None, role: str, content: Any, at: float | None = 1_700_000_000.5
    ) -> dict[str, Any]:
        message = {
            "id": name, "author": {"role": role, "name": None, "metadata": {}}, "create_time": at, "content": content,
            "metadata": {"model_slug": "gpt-5"} if role == "assistant" else {}, "recipient": "all",
        }  # fmt: skip
        return {"id": name, "message": message, "parent": parent, "children": []}

    mapping = {
        "root": {"id": "root", "message": None, "parent": None, "children": ["s"]},
        "s": node("s", "root", "system", {"content_type": "text", "parts": [""]}, None),
        "u": node("u", "s", "user", {"content_type": "multimodal_text", "parts": [
            {"content_type": "image_asset_pointer", "asset_pointer": "file-service://f1"}, "What is this?"]}),
        "old": node("old", "u", "assistant", {"content_type": "text", "parts": ["A dog."]}),
        "new": node("new", "u", "assistant", {"content_type": "text", "parts": ["A cat."]}),
        "code": node("code", "new", "assistant", {"content_type": "code", "language": "python", "text": "print(1)"}),
    }  # fmt: skip
    return {"id": "g1", "title": "Pets", "create_time": 1_700_000_000.25, "mapping": mapping, "current_node": "code"}


async def test_an_archive_of_chatgpt_gives_the_branch_that_was_shown(opener: Opener) -> None:
    async with opener() as store:
        report = await store.import_conversations([json.dumps([chatgpt(), {**chatgpt(), "id": "g2"}])], user_id="ann")
        assert (report.conversations, report.messages) == (2, 6)
        found = await store.get_conversation("g1", include_messages=True)
        assert (found.metadata.title, found.created_at.timestamp()) == ("Pets", 1_700_000_000.25)
        assert [(m.role, m.text) for m in found.messages] == [
            ("user", "What is this?"), ("assistant", "A cat."), ("assistant", "print(1)")
        ]  # fmt: skip
        assert found.messages[0].content[0] == FilePart(kind="image", uri="file-service://f1")
        assert found.messages[1].metadata == {"model": "gpt-5"}
        assert found.messages[1].created_at.timestamp() == 1_700_000_000.5


async def test_an_archive_of_claude_comes_in(opener: Opener) -> None:
    talk = {
        "uuid": "k1", "name": "Rome", "created_at": "2026-01-02T03:04:05.000001Z", "account": {"uuid": "acc"},
        "chat_messages": [
            {"uuid": "h", "sender": "human", "text": "Weather?", "created_at": "2026-01-02T03:04:06Z",
             "content": [{"type": "text", "text": "Weather?", "citations": []}], "files": []},
            {"uuid": "a", "sender": "assistant", "text": "", "created_at": "2026-01-02T03:04:07Z",
             "content": [{"type": "tool_use", "name": "weather", "input": {"city": "Rome"}},
                         {"type": "tool_result", "name": "weather", "content": [{"type": "text", "text": "sunny"}]},
                         {"type": "text", "text": "Sunny."}]},
            {"uuid": "e", "sender": "human", "text": " ", "content": []},
        ],
    }  # fmt: skip
    async with opener() as store:
        report = await store.import_conversations(json.dumps([talk], indent=1).split("\n"))
        assert (report.conversations, report.messages) == (1, 2)
        found = await store.get_conversation("k1", include_messages=True)
        assert (found.user_id, found.agent_id, found.metadata.title) == ("acc", "anthropic", "Rome")
        assert found.messages[0].content == "Weather?"
        call, result, text = found.messages[1].content
        assert (call.name, call.arguments, result.content, text.text) == (
            "weather",
            '{"city":"Rome"}',
            "sunny",
            "Sunny.",
        )
        assert result.tool_call_id == call.id


def _many(count: int) -> Iterator[str]:
    """Lines of a large history, made as they are asked for."""
    yield json.dumps({"type": "conversation", "id": "big", "agent_id": "helper", "user_id": "ann"})
    for n in range(count):
        yield json.dumps(
            {
                "type": "message",
                "conversation_id": "big",
                "id": f"m{n}",
                "role": "user",
                "content": f"message {n} " * 20,
            }
        )


async def peak_of(store: Any, lines: Iterable[str]) -> tuple[Any, int]:
    """What an import reports, and how many bytes of memory it took at most."""
    import gc
    import tracemalloc

    gc.collect()
    tracemalloc.start()
    try:
        report = await store.import_conversations(lines)
        return report, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_memory_stays_flat_however_much_is_loaded(opener: Opener) -> None:
    async with opener() as store:
        report, peak = await peak_of(store, _many(20_000))
        assert report.messages == 20_000
        # The lines have more than 6 MB; 8 MB of a spool may be kept in memory.
        assert peak < 24 * 1024 * 1024
        assert (await store.get_conversation("big")).message_count == 20_000
        chunks = [len(chunk) async for chunk in store.export_lines()]
        assert len(chunks) > 1
        assert max(chunks) < 8 * 1024 * 1024
