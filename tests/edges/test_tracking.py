"""Recording model calls: the real clients of OpenAI and Anthropic against a server of our own, async and blocking."""

import asyncio
import contextlib
import gc
import inspect
import json
import logging
import socket
import struct
import threading
from collections import deque
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import openai
import pytest
from openai._legacy_response import LegacyAPIResponse

import perdure
import perdure.sync
from perdure.testing.drivers import Awaitable

CHAT, RESPONSES, CLAUDE = "openai", "openai-responses", "anthropic"


# -- the server ------------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Gives the next of the replies that the test laid out."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        self.server.requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        reply = self.server.replies.popleft()
        if isinstance(reply, Events):
            self._stream(reply)
            return
        status, body = reply if isinstance(reply, tuple) else (200, reply)
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.send_header("x-request-id", "req_1")
        self.end_headers()
        self.wfile.write(raw)

    def _stream(self, reply):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in reply.events:
            name = f"event: {event['type']}\n" if isinstance(event, dict) and "type" in event else ""
            data = event if isinstance(event, str) else json.dumps(event)
            raw = f"{name}data: {data}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
            self.wfile.flush()
        if reply.dies:  # a reset, not an end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_WR)
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")


class Events:
    """A stream, which may break off."""

    def __init__(self, events, dies=False):
        self.events = events
        self.dies = dies


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients that hang up are part of the tests


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.replies, server.requests = deque(), []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# -- what the APIs answer ----------------------------------------------------------------------------------------------------


def chat(content="Sunny.", calls=None, finish="stop", **fields):
    message = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    if calls:
        message["tool_calls"] = calls
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_764_000_000, "model": "gpt-5-2026-01-01",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15,
                  "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}},
        **fields,
    }  # fmt: skip


CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}


def chunk(delta=None, finish=None, **fields):
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    return {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5-2026-01-01",
        "choices": choices, **fields,
    }  # fmt: skip


CHUNKS = [
    chunk({"role": "assistant", "content": "", "refusal": None}),
    chunk({"content": "Sun"}),
    chunk({"content": "ny."}),
]
CHAT_END = [chunk({}, "stop"), "[DONE]"]
CHAT_USAGE = chunk(usage={"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15})


def response(**fields):
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5-2026-01-01", "status": "completed",
        "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True,
        "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "easy"}]},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
             "content": [{"type": "output_text", "text": "Sunny.", "annotations": []}]},
        ],
        "usage": {"input_tokens": 12, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 3,
                  "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 15},
        **fields,
    }  # fmt: skip


def response_events():
    done = response()
    item = done["output"][1]
    empty = {**done, "status": "in_progress", "output": [], "usage": None}
    started = {**item, "status": "in_progress", "content": []}
    place = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    events = [
        {"type": "response.created", "response": empty},
        {"type": "response.output_item.added", "output_index": 0, "item": {**done["output"][0], "summary": []}},
        {"type": "response.output_item.done", "output_index": 0, "item": done["output"][0]},
        {"type": "response.output_item.added", "output_index": 1, "item": started},
        {
            "type": "response.content_part.added",
            "part": {"type": "output_text", "text": "", "annotations": []},
            **place,
        },
        {"type": "response.output_text.delta", "delta": "Sun", "logprobs": [], **place},
        {"type": "response.output_text.delta", "delta": "ny.", "logprobs": [], **place},
        {"type": "response.output_text.done", "text": "Sunny.", "logprobs": [], **place},
        {"type": "response.content_part.done", "part": item["content"][0], **place},
        {"type": "response.output_item.done", "output_index": 1, "item": item},
        {"type": "response.completed", "response": done},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def claude(*blocks, stop="end_turn", **fields):
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-5", "stop_reason": stop,
        "stop_sequence": None, "content": list(blocks) or [{"type": "text", "text": "Sunny.", "citations": None}],
        "usage": {"input_tokens": 10, "output_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2},
        **fields,
    }  # fmt: skip


TOOL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}


def claude_events():
    start = claude(stop=None)
    return [
        {"type": "message_start", "message": {**start, "content": [], "usage": {**start["usage"], "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Sun"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ny."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {**TOOL, "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"city":'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"Rome"}'}},
        {"type": "content_block_stop", "index": 1},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 3},
        },
        {"type": "message_stop"},
    ]


ASKED = [{"role": "user", "content": "Weather?"}]


# -- both worlds ---------------------------------------------------------------------------------------------------------------


class World:
    """A store and clients that go together; answers and streams are awaited where that is needed."""

    def __init__(self, kind, url, path):
        self.awaits = kind == "async"
        self.url = url
        self.path = path
        self.clients = []

    @contextlib.asynccontextmanager
    async def store(self):
        if self.awaits:
            async with perdure.open(f"sqlite:///{self.path}") as store:
                yield store
        else:
            with perdure.sync.open(f"sqlite:///{self.path}") as store:
                yield Awaitable(store)

    def openai(self, **settings):
        kind = openai.AsyncOpenAI if self.awaits else openai.OpenAI
        return self._kept(kind(api_key="k", base_url=f"{self.url}/v1", max_retries=0, **settings))

    def anthropic(self, **settings):
        kind = anthropic.AsyncAnthropic if self.awaits else anthropic.Anthropic
        return self._kept(kind(api_key="k", base_url=self.url, max_retries=0, **settings))

    def _kept(self, client):
        self.clients.append(client)
        return client

    async def close(self):
        for client in self.clients:
            await self.of(client.close())

    async def of(self, answer):
        return await answer if inspect.isawaitable(answer) else answer

    async def each(self, stream):
        if self.awaits:
            async for event in stream:
                yield event
        else:
            for event in stream:
                yield event

    async def all(self, stream):
        return [event async for event in self.each(stream)]

    @contextlib.asynccontextmanager
    async def inside(self, manager):
        if self.awaits:
            async with manager as inside:
                yield inside
        else:
            with manager as inside:
                yield inside

    def tracker(self, tracker):
        """The tracker with its verbs awaited."""
        return tracker if self.awaits else _Awaited(tracker)


class _Awaited:
    def __init__(self, tracker):
        self._tracker = tracker

    def __getattr__(self, name):
        member = getattr(self._tracker, name)
        if name not in {"record", "add"}:
            return member

        async def call(*args, **kwargs):
            return member(*args, **kwargs)

        return call


@pytest.fixture(params=["async", "blocking"])
def world(request, server, tmp_path):
    return World(request.param, server.url, tmp_path / "agent.db")


@contextlib.asynccontextmanager
async def tracked(world):
    """A store with a conversation, and a tracker of it."""
    async with world.store() as store:
        made = await store.create_conversation("helper", "ann")
        async with store.track(made.id) as t:
            yield store, made.id, world.tracker(t)
        await world.close()


async def messages_of(store, conversation_id):
    return list(await store.get_messages(conversation_id, limit=1_000))


def roles_of(messages):
    return [(message.role.value, message.text) for message in messages]


def asking(world, client, api, stream=False, messages=None):
    """A call of each API, in its own words."""
    extra = {"stream": True} if stream else {}
    messages = messages if messages is not None else ASKED
    if api == CHAT:
        return client.chat.completions.create(model="gpt-5", messages=messages, **extra)
    if api == RESPONSES:
        return client.responses.create(model="gpt-5", input=messages, **extra)
    return client.messages.create(model="claude-opus-5", max_tokens=64, messages=messages, **extra)


REPLIES = {CHAT: chat, RESPONSES: response, CLAUDE: claude}
STREAMS = {CHAT: lambda: [*CHUNKS, *CHAT_END], RESPONSES: response_events, CLAUDE: claude_events}


def client_of(world, api):
    return world.anthropic() if api == CLAUDE else world.openai()


each_api = pytest.mark.parametrize("api", [CHAT, RESPONSES, CLAUDE])


# -- calls ----------------------------------------------------------------------------------------------------------------------


@each_api
async def test_a_call_is_recorded_and_answered_as_ever(world, server, api):
    async with tracked(world) as (store, conversation, t):
        server.replies.extend([REPLIES[api](), REPLIES[api]()])
        client = client_of(world, api)
        bare = await world.of(asking(world, client, api))
        wrapped = t.wrap(client)
        assert isinstance(wrapped, type(client))
        answer = await world.of(asking(world, wrapped, api))
        assert type(answer) is type(bare)
        assert answer == bare
        assert answer._request_id == bare._request_id
        assert server.requests[0] == server.requests[1]
        found = await messages_of(store, conversation)
        expected = [("user", "Weather?"), ("assistant", "Sunny.")]
        assert [one for one in roles_of(found) if one[1]] == expected
        last = found[-1]
        usage = {CHAT: (12, 3, 15), RESPONSES: (12, 3, 15), CLAUDE: (12, 3, 15)}[api]
        assert (last.token_usage.input_tokens, last.token_usage.output_tokens, last.token_usage.total_tokens) == usage
        model = "claude-opus-5" if api == CLAUDE else "gpt-5-2026-01-01"
        assert (last.token_usage.model, last.metadata["model"]) == (model, model)
        assert last.metadata["provider"] == ("anthropic" if api == CLAUDE else "openai")
        assert last.metadata["finish_reason"] == {CHAT: "stop", RESPONSES: "completed", CLAUDE: "end_turn"}[api]
        assert last.metadata["latency_ms"] > 0
        assert last.token_usage.cost == Decimal(0)
        assert (t.calls, t.errors, t.failures) == (1, 0, 0)
        assert (await store.stats())["tracking_failures"] == 0
        assert (await store.get_conversation(conversation)).token_usage.total_tokens == 15


@each_api
async def test_a_stream_is_recorded_and_gives_every_event(world, server, api):
    async with tracked(world) as (store, conversation, t):
        server.replies.extend([Events(STREAMS[api]()), Events(STREAMS[api]())])
        client = client_of(world, api)
        bare = await world.of(asking(world, client, api, stream=True))
        events = await world.all(bare)
        stream = await world.of(asking(world, t.wrap(client), api, stream=True))
        assert type(stream) is type(bare)
        assert stream.response.status_code == 200
        assert await messages_of(store, conversation) == []
        assert await world.all(stream) == events
        found = await messages_of(store, conversation)
        assert [text for _, text in roles_of(found) if text][:1] == ["Weather?"]
        assert "Sunny." in found[-1].text
        assert "interrupted" not in found[-1].metadata
        assert (found[-1].token_usage is None) == (api == CHAT)
        if api == CLAUDE:
            assert found[-1].content[1] == perdure.ToolCallPart(
                id="toolu_1", name="weather", arguments='{"city":"Rome"}'
            )
            assert found[-1].metadata["finish_reason"] == "tool_use"
            assert found[-1].token_usage.total_tokens == 15
        assert t.failures == 0


async def test_a_chat_stream_tells_usage_when_asked_to(world, server):
    async with tracked(world) as (store, conversation, t):
        server.replies.append(Events([*CHUNKS, CHAT_END[0], CHAT_USAGE, CHAT_END[1]]))
        stream = await world.of(
            t.wrap(world.openai()).chat.completions.create(
                model="gpt-5", messages=ASKED, stream=True, stream_options={"include_usage": True}
            )
        )
        async with world.inside(stream) as same:
            assert same is stream
            await world.all(same)
        assert (await messages_of(store, conversation))[-1].token_usage.total_tokens == 15


async def test_a_whole_turn_with_tools_is_stored_once(world, server):
    """The history is handed over each turn, the answers as the client gave them or as plain JSON."""
    async with tracked(world) as (store, conversation, t):
        server.replies.extend([chat(None, [CALL], "tool_calls"), chat(), chat("Bye.")])
        client = t.wrap(world.openai())
        history = [{"role": "system", "content": "Be brief."}, *ASKED]
        answer = await world.of(asking(world, client, CHAT, messages=history))
        history += [answer.choices[0].message, {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}]
        await world.of(asking(world, client, CHAT, messages=history))
        history += [{"role": "assistant", "content": "Sunny."}, {"role": "user", "content": "Thanks"}]
        history[2] = {"role": "assistant", "content": "", "tool_calls": [CALL]}
        await world.of(asking(world, client, CHAT, messages=iter(history)))
        found = await messages_of(store, conversation)
        assert roles_of(found) == [
            ("system", "Be brief."), ("user", "Weather?"), ("assistant", 'weather {"city":"Rome"}'), ("tool", "sunny"),
            ("assistant", "Sunny."), ("user", "Thanks"), ("assistant", "Bye."),
        ]  # fmt: skip
        assert len(server.requests[2]["messages"]) == 6
        assert (await store.get_conversation(conversation)).token_usage.total_tokens == 45
        assert (await store.to_openai(conversation))[2]["tool_calls"] == [CALL]


async def test_a_turn_with_anthropics_tools_is_stored_once(world, server):
    async with tracked(world) as (store, conversation, t):
        server.replies.extend(
            [claude({"type": "text", "text": "Let me see."}, TOOL, stop="tool_use"), claude(), claude()]
        )
        client = t.wrap(world.anthropic())
        history = [*ASKED]

        async def ask():
            return await world.of(
                client.messages.create(model="claude-opus-5", max_tokens=9, system="Be brief.", messages=history)
            )

        answer = await ask()
        marked = {
            "type": "tool_result",
            "tool_use_id": "toolu_1",
            "content": "sunny",
            "cache_control": {"type": "ephemeral"},
        }
        history += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [marked]}]
        await ask()
        del marked["cache_control"]
        history += [
            {"role": "assistant", "content": "Sunny."},
            {"role": "user", "content": [{"type": "text", "text": "Thanks"}]},
        ]
        await ask()
        found = await messages_of(store, conversation)
        assert [message.role.value for message in found] == [
            "system", "user", "assistant", "tool", "assistant", "user", "assistant"
        ]  # fmt: skip
        assert found[2].content[1].arguments == '{"city":"Rome"}'
        system, messages = await store.to_anthropic(conversation)
        assert (system, [m["role"] for m in messages]) == ("Be brief.", ["user", "assistant"] * 3)


async def test_a_turn_with_responses_tools_is_stored_once(world, server):
    call = {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c1",
        "name": "weather",
        "arguments": "{}",
        "status": "completed",
    }
    async with tracked(world) as (store, conversation, t):
        server.replies.extend([response(output=[response()["output"][0], call]), response(), response()])
        client = t.wrap(world.openai())
        items = [*ASKED]
        answer = await world.of(client.responses.create(model="gpt-5", instructions="Be brief.", input=items))
        items += [*answer.output, {"type": "function_call_output", "call_id": "c1", "output": "sunny"}]
        await world.of(client.responses.create(model="gpt-5", instructions="Be brief.", input=items))
        await world.of(client.responses.create(model="gpt-5", input="Weather?", previous_response_id="resp_1"))
        found = await messages_of(store, conversation)
        assert [(m.role.value, m.text) for m in found if m.text] == [
            ("system", "Be brief."), ("user", "Weather?"), ("assistant", "weather {}"), ("tool", "sunny"),
            ("assistant", "Sunny."), ("user", "Weather?"), ("assistant", "Sunny."),
        ]  # fmt: skip
        assert (await store.get_conversation(conversation)).token_usage.total_tokens == 45


async def test_an_answer_that_says_nothing_still_counts(world, server):
    async with tracked(world) as (store, conversation, t):
        server.replies.extend([chat(""), chat(None)])
        client = t.wrap(world.openai())
        await world.of(asking(world, client, CHAT))
        await world.of(asking(world, client, CHAT))
        found = await messages_of(store, conversation)
        assert [message.role.value for message in found] == ["user", "assistant", "assistant"]
        assert (await store.get_conversation(conversation)).token_usage.total_tokens == 30
        assert [message.content for message in found[1:]] == [(perdure.ReasoningPart(),)] * 2
        history = await store.to_openai(conversation)
        assert [(one["role"], one["content"]) for one in history] == [("user", "Weather?"), *[("assistant", "")] * 2]
        server.replies.append(chat())
        await world.of(asking(world, client, CHAT, messages=history))
        assert [message.seq for message in await messages_of(store, conversation)] == [1, 2, 3, 4]
        assert t.failures == 0


@each_api
async def test_an_empty_answer_is_stored_in_one_form_and_known_again(world, server, api):
    async with tracked(world) as (store, conversation, t):
        server.replies.append({
            CHAT: lambda: chat(""),
            RESPONSES: lambda: response(output=[{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                                                 "content": []}]),
            CLAUDE: lambda: claude(content=[]),
        }[api]())  # fmt: skip
        client = t.wrap(client_of(world, api))
        await world.of(asking(world, client, api))
        found = await messages_of(store, conversation)
        assert [(m.role.value, m.content) for m in found[1:]] == [("assistant", (perdure.ReasoningPart(),))]
        server.replies.append(REPLIES[api]())
        history = [*ASKED, {"role": "assistant", "content": ""}, {"role": "user", "content": "Well?"}]
        await world.of(asking(world, client, api, messages=history))
        added = (await messages_of(store, conversation))[len(found) :]
        assert roles_of(added)[0] == ("user", "Well?")
        assert t.failures == 0


@each_api
async def test_what_stands_for_missing_results_in_a_request_is_not_recorded(world, server, api):
    async with tracked(world) as (store, conversation, t):
        await store.add_messages(conversation, [
            perdure.Draft("assistant", "Hello!"),
            perdure.Draft("user", "Weather?"),
            perdure.Draft("assistant", [perdure.ToolCallPart("c1", "weather", "{}")]),
        ])  # fmt: skip
        if api == RESPONSES:
            sent = await store.to_openai_responses(conversation)
        elif api == CHAT:
            sent = await store.to_openai(conversation)
        else:
            _, sent = await store.to_anthropic(conversation)
        assert "not available" in str(sent)
        server.replies.append(REPLIES[api]())
        await world.of(asking(world, t.wrap(client_of(world, api)), api, messages=sent))
        roles = [message.role.value for message in await messages_of(store, conversation)]
        assert roles[:3] == ["assistant", "user", "assistant"]
        assert set(roles[3:]) == {"assistant"}
        assert t.failures == 0


async def test_of_several_choices_the_first_is_kept(world, server):
    async with tracked(world) as (store, conversation, t):
        one = chat()["choices"][0]
        server.replies.append(
            chat(choices=[one, {**one, "index": 1, "message": {**one["message"], "content": "Rain."}}])
        )
        answer = await world.of(asking(world, t.wrap(world.openai()), CHAT))
        assert [choice.message.content for choice in answer.choices] == ["Sunny.", "Rain."]
        found = await messages_of(store, conversation)
        assert (found[-1].content, found[-1].metadata["choices"]) == ("Sunny.", 2)


# -- managers, parsers and the rest of the clients --------------------------------------------------------------------------------


async def test_anthropics_manager_of_streams_is_recorded(world, server):
    async with tracked(world) as (store, conversation, t):
        server.replies.extend([Events(claude_events()), Events(claude_events())])
        client = world.anthropic()
        arguments = {"model": "claude-opus-5", "max_tokens": 9, "messages": ASKED}
        async with world.inside(client.messages.stream(**arguments)) as stream:
            kind, text = type(stream), [piece async for piece in world.each(stream.text_stream)]
        manager = t.wrap(client).messages.stream(**arguments)
        assert isinstance(
            manager, anthropic.AsyncMessageStreamManager if world.awaits else anthropic.MessageStreamManager
        )
        async with world.inside(manager) as stream:
            assert type(stream) is kind
            assert [piece async for piece in world.each(stream.text_stream)] == text
            final = await world.of(stream.get_final_message())
        assert final.content[1].input == {"city": "Rome"}
        found = await messages_of(store, conversation)
        assert roles_of(found) == [("user", "Weather?"), ("assistant", 'Sunny.\nweather {"city":"Rome"}')]
        assert found[-1].token_usage.total_tokens == 15


async def test_openais_managers_and_parsers_are_recorded(world, server):
    async with tracked(world) as (store, conversation, t):
        server.replies.extend([Events([*CHUNKS, *CHAT_END]), Events(response_events()), chat(), response()])
        client = t.wrap(world.openai())
        async with world.inside(client.chat.completions.stream(model="gpt-5", messages=ASKED)) as stream:
            await world.all(stream)
            assert (await world.of(stream.get_final_completion())).choices[0].message.content == "Sunny."
        async with world.inside(client.responses.stream(model="gpt-5", input=ASKED)) as stream:
            assert (await world.of(stream.get_final_response())).output_text == "Sunny."
        parsed = await world.of(client.chat.completions.parse(model="gpt-5", messages=ASKED))
        assert parsed.choices[0].message.content == "Sunny."
        assert (await world.of(client.responses.parse(model="gpt-5", input=ASKED))).output_text == "Sunny."
        found = await messages_of(store, conversation)
        assert [text for _, text in roles_of(found) if text] == ["Weather?", *["Sunny."] * 4]
        assert (t.calls, t.failures) == (4, 0)


async def test_everything_else_passes_through(world, server):
    async with tracked(world) as (store, conversation, t):
        client = world.openai()
        wrapped = t.wrap(client)
        server.replies.extend(
            [
                chat(),
                chat(),
                {"object": "list", "data": [], "model": "e", "usage": {"prompt_tokens": 1, "total_tokens": 1}},
            ]
        )
        raw = await world.of(wrapped.chat.completions.with_raw_response.create(model="gpt-5", messages=ASKED))
        assert isinstance(raw, LegacyAPIResponse)
        assert raw.parse().choices[0].message.content == "Sunny."
        assert await messages_of(store, conversation) == []
        assert (wrapped.api_key, wrapped.base_url, repr(wrapped)) == (client.api_key, client.base_url, repr(client))
        assert "chat" in dir(wrapped)
        wrapped.timeout = 7.0
        assert client.timeout == 7.0
        with pytest.raises(AttributeError):
            wrapped.nothing  # noqa: B018
        other = world._kept(wrapped.with_options(timeout=3.0))
        assert other.timeout == 3.0
        await world.of(asking(world, other, CHAT))
        assert len(await messages_of(store, conversation)) == 2
        assert (await world.of(wrapped.embeddings.create(model="e", input="x", encoding_format="float"))).data == []
        async with world.inside(wrapped) as same:
            assert same is wrapped
        assert client.is_closed()


async def test_clients_of_the_other_kind_are_refused(world):
    async with tracked(world) as (_, _, t):
        for maker in (openai.OpenAI, openai.AsyncOpenAI):
            client = maker(api_key="k")
            if maker.__name__.startswith("Async") == world.awaits:
                assert t.wrap(client).api_key == "k"
            else:
                with pytest.raises(perdure.Misused):
                    t.wrap(client)
        with pytest.raises(perdure.Misused):
            t.wrap((anthropic.Anthropic if world.awaits else anthropic.AsyncAnthropic)(api_key="k"))
        for wrong in (None, "client", object(), openai.OpenAI):
            with pytest.raises(perdure.Invalid):
                t.wrap(wrong)

        class Mine(openai.AsyncOpenAI if world.awaits else openai.OpenAI):
            pass

        assert isinstance(t.wrap(Mine(api_key="k")), Mine)


# -- errors of calls ----------------------------------------------------------------------------------------------------------------


@each_api
@pytest.mark.parametrize(("status", "kind"), [(429, "RateLimitError"), (500, "InternalServerError")])
async def test_a_failed_call_raises_as_ever_and_leaves_a_note(world, server, api, status, kind):
    async with tracked(world) as (store, conversation, t):
        body = {"type": "error", "error": {"type": "x", "code": "slow_down", "message": "not now"}}
        server.replies.extend([(status, body), (status, body), REPLIES[api]()])
        client = t.wrap(client_of(world, api))
        package = anthropic if api == CLAUDE else openai
        for _ in range(2):
            with pytest.raises(getattr(package, kind)) as caught:
                await world.of(asking(world, client, api))
            assert caught.value.status_code == status
        found = await messages_of(store, conversation)
        assert roles_of(found) == [("user", "Weather?")]
        notes = found[0].metadata["errors"]
        assert [(note["type"], note["status"]) for note in notes] == [(kind, status)] * 2
        assert "not now" in notes[0]["message"]
        assert notes[0]["latency_ms"] > 0
        await world.of(asking(world, client, api))
        found = await messages_of(store, conversation)
        assert [text for _, text in roles_of(found) if text] == ["Weather?", "Sunny."]
        assert (t.calls, t.errors, t.failures) == (3, 2, 0)


async def test_a_server_that_is_not_there_is_a_failed_call(world, server):
    async with tracked(world) as (store, conversation, t):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            nobody = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        client = t.wrap(world.openai().with_options(base_url=nobody))
        with pytest.raises(openai.APIConnectionError):
            await world.of(asking(world, client, CHAT))
        (message,) = await messages_of(store, conversation)
        assert message.metadata["errors"][0]["type"] == "APIConnectionError"


@each_api
async def test_a_manager_whose_call_fails_leaves_a_note(world, server, api):
    async with tracked(world) as (store, conversation, t):
        server.replies.append((429, {"error": {"message": "not now"}}))
        client = t.wrap(client_of(world, api))
        manager = {
            CHAT: lambda: client.chat.completions.stream(model="m", messages=ASKED),
            RESPONSES: lambda: client.responses.stream(model="m", input=ASKED),
            CLAUDE: lambda: client.messages.stream(model="m", max_tokens=9, messages=ASKED),
        }[api]()
        with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)):
            async with world.inside(manager):
                pass
        (message,) = await messages_of(store, conversation)
        assert message.metadata["errors"][0]["status"] == 429


@each_api
async def test_a_stream_that_breaks_records_what_came(world, server, api):
    """The server dies in the middle."""
    async with tracked(world) as (store, conversation, t):
        cut = {CHAT: 3, RESPONSES: 7, CLAUDE: 5}[api]
        server.replies.append(Events(STREAMS[api]()[:cut], dies=True))
        stream = await world.of(asking(world, t.wrap(client_of(world, api)), api, stream=True))
        with pytest.raises(Exception, match=r".") as caught:
            await world.all(stream)
        found = await messages_of(store, conversation)
        assert [text for _, text in roles_of(found) if text] == ["Weather?", "Sunny."]
        assert found[-1].metadata["error"]["type"] == type(caught.value).__name__
        assert (t.errors, t.failures) == (1, 0)


@each_api
async def test_a_stream_that_is_closed_early_records_what_came(world, server, api):
    async with tracked(world) as (store, conversation, t):
        server.replies.append(Events(STREAMS[api]()))
        stream = await world.of(asking(world, t.wrap(client_of(world, api)), api, stream=True))
        async with world.inside(stream), contextlib.aclosing(world.each(stream)) as events:
            async for event in events:
                if "Sun" in event.to_json():
                    break
        found = await messages_of(store, conversation)
        assert found[-1].text == "Sun"
        assert found[-1].metadata["interrupted"] is True
        assert stream.response.is_closed
        assert (t.errors, t.failures) == (0, 0)


async def test_a_stream_that_nobody_reads_records_the_request(world, server):
    async with tracked(world) as (store, conversation, t):
        server.replies.append(Events([*CHUNKS, *CHAT_END]))
        stream = await world.of(asking(world, t.wrap(world.openai()), CHAT, stream=True))
        await world.of(stream.close())
        assert roles_of(await messages_of(store, conversation)) == [("user", "Weather?")]


async def test_what_came_of_open_streams_is_recorded_at_the_end_of_the_block(world, server):
    async with world.store() as store:
        made = await store.create_conversation("helper", "ann")
        server.replies.extend([Events([*CHUNKS, *CHAT_END]), chat()])
        async with store.track(made.id) as t:
            client = t.wrap(world.openai())
            stream = await world.of(asking(world, client, CHAT, stream=True))
            events = [event async for event in _first(world, stream, 2)]
            assert len(events) == 2
        found = await messages_of(store, made.id)
        assert (found[-1].text, found[-1].metadata["interrupted"]) == ("Sun", True)
        assert [
            event.choices[0].delta.content for event in await world.all(stream) if event.choices[0].delta.content
        ] == ["ny."]
        await world.of(asking(world, client, CHAT))  # it goes on, unrecorded
        assert await messages_of(store, made.id) == found
        await world.of(stream.close())
        await world.close()


async def _first(world, stream, count):
    for _ in range(count):
        yield await stream.__anext__() if world.awaits else next(stream)


async def test_a_stream_that_is_dropped_is_closed_as_ever(server, tmp_path):
    """Nothing of ours keeps a blocking stream alive."""
    server.replies.append(Events(claude_events()))
    with (
        perdure.sync.open(tmp_path / "agent.db") as store,
        anthropic.Anthropic(api_key="k", base_url=server.url) as client,
    ):
        store.create_conversation("helper", "ann", id="c")
        with store.track("c") as t:
            stream = t.wrap(client).messages.create(model="m", max_tokens=9, messages=ASKED, stream=True)
            next(stream)
            response = stream.response
            gc.disable()
            try:
                del stream
                assert response.is_closed
            finally:
                gc.enable()


async def test_a_call_that_is_cancelled_records_its_request(server, tmp_path):
    async with (
        perdure.open(tmp_path / "agent.db") as store,
        openai.AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1") as client,
    ):
        await store.create_conversation("helper", "ann", id="c")
        server.replies.append(Events([]))
        async with store.track("c") as t:
            task = asyncio.create_task(t.wrap(client).chat.completions.create(model="m", messages=ASKED))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert roles_of(await messages_of(store, "c")) == [("user", "Weather?")]


# -- failures to record ---------------------------------------------------------------------------------------------------------------


@each_api
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_to_record_never_fails_a_call(world, server, api, stream, caplog):
    """The conversation is gone."""
    async with tracked(world) as (store, conversation, t):
        client = t.wrap(client_of(world, api))
        await store.delete_conversation(conversation)
        with caplog.at_level(logging.WARNING, "perdure.tracking"):
            server.replies.append(Events(STREAMS[api]()) if stream else REPLIES[api]())
            answer = await world.of(asking(world, client, api, stream))
            if stream:
                assert len(await world.all(answer)) >= len(STREAMS[api]()) - 2  # [DONE] and pings are not events
        assert (t.calls, t.errors, t.failures) == (1, 0, 1)
        assert (await store.stats())["tracking_failures"] == 1
        assert [record.getMessage() for record in caplog.records] == ["tracking_failed code=refused.not_found"]


async def test_a_locked_database_does_not_fail_a_call(world, server, caplog):
    import apsw

    config = perdure.PersistenceConfig(f"sqlite:///{world.path}", busy_timeout="50ms")
    store = perdure.Store(config) if world.awaits else Awaitable(perdure.sync.Store(config))
    await store.initialize()
    await store.create_conversation("helper", "ann", id="c")
    server.replies.extend([chat(), (500, {"error": {"message": "no"}}), chat()])
    holder = apsw.Connection(str(world.path))
    async with store.track("c") as t:
        client = t.wrap(world.openai())
        holder.execute("begin immediate")
        answer = await world.of(asking(world, client, CHAT))
        assert answer.choices[0].message.content == "Sunny."
        with pytest.raises(openai.InternalServerError):
            await world.of(asking(world, client, CHAT))
        holder.execute("rollback")
        assert (t.failures, t.errors) == (2, 1)
        assert {record.getMessage() for record in caplog.records} == {"tracking_failed code=unavailable.busy"}
        await world.of(asking(world, client, CHAT))  # it is well again
    assert roles_of(await messages_of(store, "c")) == [("user", "Weather?"), ("assistant", "Sunny.")]
    holder.close()
    await store.close()
    await world.close()


async def test_a_closed_store_does_not_fail_a_call(world, server, caplog):
    async with world.store() as store:
        await store.create_conversation("helper", "ann", id="c")
        async with store.track("c") as t:
            client = t.wrap(world.openai())
            await store.close()
            server.replies.append(chat())
            assert (await world.of(asking(world, client, CHAT))).choices[0].message.content == "Sunny."
            assert t.failures == 1
        assert [record.getMessage() for record in caplog.records] == ["tracking_failed code=misused.closed"]
        await world.close()


async def test_a_request_that_cannot_be_stored_does_not_fail_a_call(world, server, caplog):
    """The answer is recorded all the same; nothing that was said is in the log."""
    async with tracked(world) as (store, conversation, t):
        server.replies.append(chat())
        odd = [{"role": "user", "content": "secret\0word"}]
        answer = await world.of(asking(world, t.wrap(world.openai()), CHAT, messages=odd))
        assert answer.choices[0].message.content == "Sunny."
        assert server.requests[0]["messages"] == odd
        assert t.failures == 1
        assert roles_of(await messages_of(store, conversation)) == [("assistant", "Sunny.")]
        assert "secret" not in caplog.text


# -- by hand ---------------------------------------------------------------------------------------------------------------------------


async def test_calls_made_elsewhere_are_recorded_by_hand(world):
    async with tracked(world) as (store, conversation, t):
        assert t.conversation_id == conversation
        added = await t.record(ASKED, chat())
        assert roles_of(added) == [("user", "Weather?"), ("assistant", "Sunny.")]
        assert await t.record(
            {"messages": [*ASKED, {"role": "assistant", "content": "Sunny."}], "system": "Be brief."}, claude()
        )
        await t.record({"input": "And in Rome?"}, response())
        await t.add("user", "Thanks", name="Ann")
        found = [one for one in roles_of(await messages_of(store, conversation)) if one[1]]
        assert found == [
            ("user", "Weather?"), ("assistant", "Sunny."), ("system", "Be brief."), ("assistant", "Sunny."),
            ("user", "And in Rome?"), ("assistant", "Sunny."), ("user", "Thanks"),
        ]  # fmt: skip
        assert t.calls == 3
        with pytest.raises(perdure.Invalid):
            await t.record(ASKED, {"what": 1})
        with pytest.raises(perdure.Invalid):
            await t.add("king", "x")


async def test_an_ensured_conversation_is_created_by_its_first_call(world, server):
    async with world.store() as store:
        await store.ensure_conversation("later", "helper", "ann")
        async with store.track("later") as t:
            client = t.wrap(world.openai())
            assert await store.get_conversation("later") is None
            server.replies.append(chat())
            await world.of(asking(world, client, CHAT))
        assert (await store.get_conversation("later")).message_count == 2
        with pytest.raises(perdure.Invalid):
            async with store.track(" "):
                pass
        await world.close()
