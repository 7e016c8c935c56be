"""One model call on its way into the store. What is stored, and what of a failed call, is said in ``tracking``."""

import logging
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from typing import Any

from msgspec.structs import replace

from perdure.rooms.conversations import calls
from perdure.rooms.conversations.calls import Api
from perdure.rooms.conversations.draft import Draft
from perdure.values.errors import PerdureError

_log = logging.getLogger("perdure.tracking")
_ERRORS = 10
_ERROR_CHARS = 1_000
_LOOK_BACK = 50


class Recorder:
    """What the calls of one block share: where they are recorded, and how many there were."""

    def __init__(self, store: Any, conversation_id: str) -> None:
        self.store = store
        self.conversation_id = conversation_id
        self.calls = 0
        self.errors = 0
        self.failures = 0
        self._open: set[Call] | None = set()

    def begin(self, api: Api, arguments: Mapping[str, Any]) -> "Call":
        """A call that begins now; one that is not recorded when the block is over."""
        call = Call(self, api, arguments)
        if self._open is None:
            call.over = True
        else:
            self.calls += 1
            self._open.add(call)
            call.read_request()
        return call

    def end(self, call: "Call") -> None:
        """The call is about to be recorded."""
        if self._open is not None:
            self._open.discard(call)

    async def finish(self) -> None:
        """Records what came of calls that go on, and sees no more of them."""
        left, self._open = self._open or set[Call](), None
        for call in sorted(left, key=lambda one: one.began):
            await call.end(None)

    def failed(self, error: Exception) -> None:
        """Recording failed: the call goes on, and the failure is told."""
        self.failures += 1
        self.store._shared.tracking_failures += 1
        code = error.code if isinstance(error, PerdureError) else type(error).__name__
        _log.warning("tracking_failed code=%s", code)


class Call:
    """One call of a model while it goes on."""

    def __init__(self, recorder: Recorder, api: Api, arguments: Mapping[str, Any]) -> None:
        self._recorder = recorder
        self._api: Api = api
        self._arguments = arguments
        self.began = time.perf_counter()
        self.over = False
        self._gathering: calls.Gathering | None = None
        self._deaf = False
        self._asked: list[Draft] = []

    def read_request(self) -> None:
        """Reads the messages before the caller can change them."""
        try:
            self._asked = calls.asked(self._api, self._arguments, self._recorder.store._clock())
        except Exception as error:  # broad: counted and logged; the call itself must go on
            self._recorder.failed(error)

    def watch(self, stream: Any) -> None:
        """Looks over a stream's events from now on. It stays what it is; nothing here refers to it strongly."""
        self._gathering = calls.Gathering(self._api)
        try:
            inner, real = stream._iterator, weakref.ref(stream)
            stream._iterator = self._events(inner)
        except Exception as error:  # broad: counted and logged; an unknown kind of stream goes on unseen
            self._recorder.failed(error)
            return

        async def close() -> None:
            alive = real()
            if alive is not None:
                await type(alive).close(alive)
            await self.end(None)

        stream.close = close

    async def _events(self, inner: Any) -> AsyncIterator[Any]:
        try:
            async for event in inner:
                self._take(event)
                yield event
        except Exception as error:
            await self.end(error)
            raise
        await self.end(None)

    def _take(self, event: Any) -> None:
        if self.over or self._deaf or self._gathering is None:
            return
        try:
            self._gathering.take(event)
        except Exception as error:  # broad: counted and logged; the event goes on to the caller
            self._deaf = True
            self._recorder.failed(error)

    async def end(self, error: Exception | None, response: Any = None) -> None:
        """Records how the call ended, once."""
        if self.over:
            return
        self.over = True
        self._recorder.end(self)
        if error is not None:
            self._recorder.errors += 1
        try:
            await self._store(error, response)
        except Exception as failure:  # broad: counted and logged; the call itself must go on
            self._recorder.failed(failure)

    async def _store(self, error: Exception | None, response: Any) -> None:
        recorder = self._recorder
        gathering = self._gathering
        latency = round(1_000 * (time.perf_counter() - self.began), 1)
        if gathering is not None:
            response = gathering.answer()
        if response is None:
            await self._store_failure(error, latency)
            return
        answer = calls.answered(self._api, response)
        facts = facts_of(self._api, answer, latency)
        if error is not None:
            facts["error"] = _told(error)
        elif gathering is not None and not gathering.complete:
            facts["interrupted"] = True
        said = calls.joined(answer.drafts, facts, answer.usage, recorder.store._clock())
        await recorder.store.flush(recorder.conversation_id, [*self._asked, *said])

    async def _store_failure(self, error: Exception | None, latency: float) -> None:
        """The request, with a note of what went wrong on its last message (nothing did when a stream was not read)."""
        store, conversation_id = self._recorder.store, self._recorder.conversation_id
        if not self._asked:
            return
        *before, last = self._asked
        if error is None:
            await store.flush(conversation_id, self._asked)
            return
        facts = {"provider": calls.PROVIDERS[self._api], "latency_ms": latency}
        model = self._arguments.get("model")
        if isinstance(model, str):
            facts["model"] = model
        note = {**_told(error), **facts}
        noted = replace(last, metadata={**(last.metadata or {}), "errors": [note]})
        added = await store.flush(conversation_id, [*before, noted])
        if added and (added[-1].role, added[-1].content) == (last.role, last.content):
            return
        for message in reversed(await store.get_messages(conversation_id, last=_LOOK_BACK)):
            if (message.role, message.content) == (last.role, last.content):
                known = list(message.metadata.get("errors") or ())
                metadata = {**message.metadata, "errors": [*known, note][-_ERRORS:]}
                await store.edit_message(message.id, metadata=metadata)
                return


def facts_of(api: Api, answer: calls.Answer, latency: float | None) -> dict[str, Any]:
    """What is known of a call beside its messages; what is not is left out."""
    facts = {
        "provider": calls.PROVIDERS[api], "model": answer.model, "finish_reason": answer.finish_reason,
        "latency_ms": latency, "choices": answer.choices if answer.choices > 1 else None,
    }  # fmt: skip
    return {name: value for name, value in facts.items() if value is not None}


def _told(error: Exception) -> dict[str, Any]:
    """An error as metadata."""
    told: dict[str, Any] = {"type": type(error).__name__, "message": _cleaned(str(error))[:_ERROR_CHARS]}
    status, code = getattr(error, "status_code", None), getattr(error, "code", None)
    if isinstance(status, int):
        told["status"] = status
    if isinstance(code, str) and code:
        told["code"] = _cleaned(code)[:_ERROR_CHARS]
    return told


def _cleaned(text: str) -> str:
    """Text that can be stored: what cannot be is replaced."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
