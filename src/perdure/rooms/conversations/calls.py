"""What a call of a model's API was asked and answered, as messages of ours. Pure.

Requests and answers come as the clients' objects or as plain JSON. What tells nothing apart is left out, so that an
answer that the caller hands over again in its next request is known to be stored: fields that are null, Anthropic's
``cache_control`` (it moves from turn to turn), and the list around a single plain text.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

import msgspec
from msgspec.structs import replace

from perdure.rooms.conversations.content import SILENCE, Content, Part, TextPart, ToolResultPart, or_silence
from perdure.rooms.conversations.draft import Draft
from perdure.rooms.conversations.formats import (
    from_anthropic,
    from_openai_chat,
    from_openai_responses,
    reading,
    usage_from_anthropic,
    usage_from_openai,
    usage_from_openai_responses,
)  # fmt: skip
from perdure.rooms.conversations.formats.anthropic import BEGINNING
from perdure.rooms.conversations.formats.turns import UNAVAILABLE
from perdure.rooms.conversations.usage import TokenUsage
from perdure.values.errors import Invalid
from perdure.values.ids import new_id

Api = Literal["openai", "openai-responses", "anthropic"]
Json = dict[str, Any]

HISTORY: dict[Api, str] = {"openai": "messages", "openai-responses": "input", "anthropic": "messages"}
"""The argument of a call that holds the messages."""
PROVIDERS: dict[Api, str] = {"openai": "openai", "openai-responses": "openai", "anthropic": "anthropic"}
_USAGES = {
    "openai": usage_from_openai,
    "openai-responses": usage_from_openai_responses,
    "anthropic": usage_from_anthropic,
}
_DROPPED = frozenset(("cache_control",))
_SPEAKERS = frozenset(("system", "developer", "user"))
"""Who may say nothing in a request without that being stored; an assistant's empty answer is ``SILENCE``."""


class Answer(msgspec.Struct):
    """What came back: one message or more, in order; the last is to carry the usage."""

    drafts: list[Draft]
    usage: TokenUsage | None
    model: str | None
    finish_reason: str | None
    choices: int = 1


# -- requests ------------------------------------------------------------------------------------------------------------


def asked(api: Api, arguments: Mapping[str, Any], at: int) -> list[Draft]:
    """The messages of a request. Those that follow up on a stored response are new and carry ids that say so.

    What ``to_openai_chat`` and its like add to a history for a provider's sake is no message and left out.

    Raises ``Invalid`` when the request is not of the API's format.
    """
    given = arguments.get(HISTORY[api])
    if api == "openai":
        return _meant(from_openai_chat(_spoken(given)), at)
    if api == "anthropic":
        return _meant(from_anthropic(_spoken(given), _prompt(arguments.get("system"))), at)
    items = given if isinstance(given, str) and given.strip() else _spoken(given)
    drafts = _meant(from_openai_responses(items), at)
    if any(isinstance(arguments.get(name), str | dict) for name in ("previous_response_id", "conversation")):
        drafts = [replace(draft, id=new_id()) for draft in drafts]
    instructions = arguments.get("instructions")
    if isinstance(instructions, str) and instructions.strip():
        drafts.insert(0, Draft("system", instructions, created_at=at))
    return drafts


def _items(given: object) -> list[Any]:
    return cast("list[Any]", given) if isinstance(given, list) else []


def _spoken(given: object) -> list[Any]:
    """The messages that say something: APIs take and give empty ones, which cannot be stored."""
    return [
        message for message in (reading.plain(item, "messages") for item in _items(given)) if not _is_silent(message)
    ]


def _is_silent(message: object) -> bool:
    if not isinstance(message, dict):
        return False
    found = cast("Json", message)
    if found.get("role") not in _SPEAKERS:
        return False
    content = found.get("content")
    if isinstance(content, list):
        return all(
            isinstance(block, dict) and str(cast("Json", block).get("type")).endswith("text")
            and not str(cast("Json", block).get("text") or "").strip()
            for block in cast("list[Any]", content)
        )  # fmt: skip
    return content is None or (isinstance(content, str) and not content.strip())


def _meant(drafts: list[Draft], at: int) -> list[Draft]:
    """The drafts of a request, tidied, without results and a beginning that stand for what is not there."""
    found: list[Draft] = []
    for given in drafts:
        draft = tidy(given, created_at=at)
        if isinstance(draft.content, str):
            begins = draft.content == BEGINNING and all(one.role == "system" for one in found)
            found.extend(() if begins else (draft,))
            continue
        kept = tuple(
            part for part in draft.content if not (isinstance(part, ToolResultPart) and part.content == UNAVAILABLE)
        )
        if kept and len(kept) < len(draft.content):
            draft = tidy(replace(draft, content=kept), created_at=at)
        found.extend((draft,) if kept else ())
    return found


def _prompt(system: object) -> str | list[Any] | None:
    """A system prompt; the clients' marks for "not given" are none."""
    return cast("str | list[Any]", system) if isinstance(system, str | list) else None


# -- answers -------------------------------------------------------------------------------------------------------------


def api_of(answer: object) -> Api:
    """Which API an answer is of, by its form; ``Invalid`` when it is of none."""
    found = _plain(answer)
    if "choices" in found:
        return "openai"
    if "output" in found:
        return "openai-responses"
    if "content" in found and "role" in found:
        return "anthropic"
    raise Invalid(
        "the response is of no known format", field="response", hint="an answer of OpenAI's or Anthropic's API"
    )


def answered(api: Api, answer: object) -> Answer:
    """What an answer says, what it cost, and why it ended. Raises ``Invalid`` when it is not of the API's format."""
    found = _plain(answer)
    model = found.get("model") if isinstance(found.get("model"), str) and found["model"].strip() else None
    usage = found.get("usage")
    used = _USAGES[api](cast("Json", usage), model) if isinstance(usage, dict) else None
    choices = 1
    if api == "openai":
        options = _items(found.get("choices"))
        choices = len(options)
        first: Json = options[0] if options else {}
        message = first.get("message")
        drafts = from_openai_chat(_said([{"content": None, "role": "assistant", **cast("Json", message or {})}]))
        reason = first.get("finish_reason")
    elif api == "anthropic":
        drafts = from_anthropic(_said([found]))
        reason = found.get("stop_reason")
    else:
        drafts = from_openai_responses(_said(_items(found.get("output"))))
        inner = found.get("incomplete_details")
        reason = cast("Json", inner).get("reason") if isinstance(inner, dict) else None
        reason = reason or found.get("status")
    drafts = [tidy(draft) for draft in drafts] or [Draft("assistant", SILENCE)]
    return Answer(drafts, used, model, reason if isinstance(reason, str) else None, choices)


def _said(messages: list[Json]) -> list[Json]:
    """The messages of an answer without their nulls."""
    kept = ("content",)
    return [{key: value for key, value in message.items() if value is not None or key in kept} for message in messages]


def _without_nulls(found: Json) -> Json:
    return {key: value for key, value in found.items() if value is not None}


def _plain(answer: object) -> Json:
    return reading.need_object(reading.plain(answer, "response"), "response")


# -- tidying -------------------------------------------------------------------------------------------------------------


def tidy(draft: Draft, created_at: int | None = None) -> Draft:
    """A draft without what tells nothing apart."""
    content = or_silence(draft.content if isinstance(draft.content, str) else _tidied(draft.content), draft.role)
    if content == draft.content and created_at is None:
        return draft
    return replace(draft, content=content, created_at=created_at)


def _tidied(parts: tuple[Part, ...]) -> Content:
    kept = tuple(_bare(part) for part in parts)
    if any(not isinstance(part, TextPart) for part in kept):
        kept = tuple(part for part in kept if not isinstance(part, TextPart) or part.text.strip())
    first = kept[0] if len(kept) == 1 else None
    return first.text if isinstance(first, TextPart) and not first.extra and not first.refusal else kept


def _bare(part: Part) -> Part:
    if isinstance(part, ToolResultPart) and not isinstance(part.content, str):
        shown = tuple(_bare(item) for item in part.content)
        said = shown[0].text if len(shown) == 1 and isinstance(shown[0], TextPart) and not shown[0].extra else shown
        part = replace(part, content=said)
    if not part.extra:
        return part
    extra = {name: _left(cast("Json", own)) if isinstance(own, dict) else own for name, own in part.extra.items()}
    return replace(part, extra={name: value for name, value in extra.items() if value})


def _left(own: Json) -> Json:
    return {key: value for key, value in own.items() if value is not None and key not in _DROPPED}


# -- streams -------------------------------------------------------------------------------------------------------------


class Gathering:
    """An answer that comes in events; it can be asked at any time for what came so far."""

    def __init__(self, api: Api) -> None:
        self.api: Api = api
        self.complete = False
        self._answer: Json = {}
        self._items: dict[int, Json] = {}

    def take(self, event: object) -> None:
        """The next event of the API's stream, as the client's object or as JSON."""
        found = _plain(event)
        if self.api == "openai":
            self._take_chunk(found)
        elif self.api == "anthropic":
            self._take_block(found)
        else:
            self._take_item(found)

    def answer(self) -> Json | None:
        """The answer so far in the form that the API has without streaming; None when nothing came."""
        if self.api == "openai":
            return self._chat()
        if not self._answer and not self._items:
            return None
        items = [self._items[place] for place in sorted(self._items)]
        if self.api == "anthropic":
            return {"role": "assistant", **self._answer, "content": [_closed(item) for item in items]}
        if self.complete:
            return self._answer
        return {**self._answer, "status": "incomplete", "output": [item for item in items if _is_said(item)]}

    # chat: deltas of one message

    def _take_chunk(self, chunk: Json) -> None:
        for name in ("id", "model", "usage"):
            if chunk.get(name) is not None:
                self._answer[name] = chunk[name]
        for choice in cast("list[Json]", _items(chunk.get("choices"))):
            if choice.get("index", 0) != 0:
                self._answer["more"] = True
                continue
            if choice.get("finish_reason") is not None:
                self._answer["finish_reason"] = choice["finish_reason"]
                self.complete = True
            delta = choice.get("delta")
            for key, value in cast("Json", delta).items() if isinstance(delta, dict) else ():
                self._take_delta(key, value)

    def _take_delta(self, key: str, value: Any) -> None:
        message: Json = self._answer.setdefault("message", {})
        if key == "tool_calls":
            for place, call in enumerate(cast("list[Json]", _items(value))):
                _join_call(self._items.setdefault(call.get("index", place), {}), call)
        elif isinstance(value, str) and key != "role":
            message[key] = message.get(key, "") + value
        elif value is not None and key != "role":
            message[key] = value

    def _chat(self) -> Json | None:
        calls = [self._items[place] for place in sorted(self._items)]
        calls = [call for call in calls if call.get("id") and call.get("function", call.get("custom", {})).get("name")]
        message = {**self._answer.get("message", {}), **({"tool_calls": calls} if calls else {})}
        if not message and "usage" not in self._answer:
            return None
        choice = {"message": {"role": "assistant", **message}, "finish_reason": self._answer.get("finish_reason")}
        return {**{name: self._answer.get(name) for name in ("id", "model", "usage")}, "choices": [choice]}

    # Anthropic: blocks of one message

    def _take_block(self, event: Json) -> None:
        kind = event.get("type")
        if kind == "message_start":
            self._answer.update(_without_nulls(cast("Json", event["message"])))
        elif kind == "content_block_start":
            self._items[event["index"]] = dict(event["content_block"])
        elif kind == "content_block_delta" and event.get("index") in self._items:
            _join_block(self._items[event["index"]], cast("Json", event["delta"]))
        elif kind == "message_delta":
            self._answer.update(_without_nulls(cast("Json", event.get("delta") or {})))
            known: Json = self._answer.get("usage") or {}
            self._answer["usage"] = known | _without_nulls(cast("Json", event.get("usage") or {}))
        elif kind == "message_stop":
            self.complete = True

    # Responses: items

    def _take_item(self, event: Json) -> None:
        kind = str(event.get("type"))
        place = event.get("output_index")
        if isinstance(event.get("response"), dict):
            self._answer = event["response"]
            self.complete = kind in {"response.completed", "response.incomplete", "response.failed"}
        elif kind in {"response.output_item.added", "response.output_item.done"} and isinstance(place, int):
            self._items[place] = dict(event["item"])
        elif kind == "response.output_text.delta" and isinstance(place, int) and place in self._items:
            item = self._items[place]
            said: list[Json] = item.get("content") or [{"type": "output_text", "text": "", "annotations": []}]
            text = str(said[-1].get("text", "")) + str(event.get("delta", ""))
            item["content"] = [*said[:-1], {**said[-1], "text": text}]
        elif kind == "response.function_call_arguments.delta" and isinstance(place, int) and place in self._items:
            item = self._items[place]
            item["arguments"] = str(item.get("arguments") or "") + str(event.get("delta", ""))


def _join_call(call: Json, delta: Json) -> None:
    """A piece of a tool call joins what came of it; its id, type and name come once, arguments in pieces."""
    for key in ("id", "type"):
        if delta.get(key):
            call[key] = delta[key]
    for kind, pieces in (("function", "arguments"), ("custom", "input")):
        inner = delta.get(kind)
        if isinstance(inner, dict):
            own: Json = call.setdefault(kind, {"name": "", pieces: ""})
            given = cast("Json", inner)
            own["name"] = own["name"] or given.get("name") or ""
            own[pieces] += given.get(pieces) or ""


def _join_block(block: Json, delta: Json) -> None:
    for key in ("text", "thinking", "signature"):
        if isinstance(delta.get(key), str):
            block[key] = str(block.get(key) or "") + delta[key]
    if isinstance(delta.get("partial_json"), str):
        block["partial_json"] = block.get("partial_json", "") + delta["partial_json"]
    if delta.get("citation") is not None:
        block["citations"] = [*(block.get("citations") or []), delta["citation"]]


def _closed(block: Json) -> Json:
    """A block as it stands in a whole answer; a tool's input that broke off is kept as text."""
    found = _without_nulls(block)
    pieces = found.pop("partial_json", None)
    if pieces:
        try:
            given = msgspec.json.decode(pieces)
        except ValueError:
            given = None
        found["input"] = given if isinstance(given, dict) else {"_raw": pieces}
    return found


def _is_said(item: Json) -> bool:
    return item.get("type") != "message" or bool(item.get("content"))


def joined(drafts: Iterable[Draft], metadata: Json, usage: TokenUsage | None, at: int) -> list[Draft]:
    """The drafts of an answer as they are stored: new ones, the last with the facts of the call."""
    found = [replace(draft, id=new_id(), created_at=at, token_usage=None) for draft in drafts]
    if found:
        found[-1] = replace(found[-1], metadata={**(found[-1].metadata or {}), **metadata}, token_usage=usage)
    return found
