"""Recording model calls by themselves.

``t.wrap(client)`` gives a stand-in for an OpenAI or Anthropic client that behaves as the client does and records what
is asked and answered. The clients' packages are not imported; their classes are known by name. A stream stays the
client's own object: only the iterator inside it is looked over, so events, context managers and errors are as ever.

What is stored for a call, in one transaction when it ends:

- the request's messages that are not stored yet, as ``flush`` tells them apart;
- the answer with its tool calls, token usage and ``metadata``: ``provider``, ``model``, ``finish_reason``,
  ``latency_ms``; ``interrupted`` when its stream was closed early, ``error`` when that broke. Usage is what the API
  says; OpenAI's chat streams tell it only when asked to (``stream_options={"include_usage": True}``). Of several
  choices the first is kept, and ``choices`` says how many there were;
- of a call that failed, no answer: the last message of its request gets the error into ``metadata["errors"]`` (type,
  status, code, message, provider, model, latency; the newest ten). No message is made up, so none gets into a prompt.

A failure to record never fails a call. It is counted (``t.failures``, ``store.stats()["tracking_failures"]``) and
logged as ``tracking_failed`` with the error's code and no content. It may delay the call by the store's time limits.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from perdure.kit import aio as kit
from perdure.rooms.conversations import calls
from perdure.rooms.conversations.values import Message
from perdure.services.clients import PATHS, Stand, kind_of
from perdure.services.handle import Handle
from perdure.services.recording import Recorder, facts_of
from perdure.values import limits
from perdure.values.errors import Misused

T = TypeVar("T")


class TrackingVerbs(Handle):
    """Record model calls."""

    @asynccontextmanager
    async def track(self, conversation_id: str) -> AsyncIterator["Tracker"]:
        """A recorder of model calls into a conversation: ``client = t.wrap(OpenAI())`` inside the block.

        It does no I/O of its own: that the conversation is unknown shows as a failure to record. When the block ends,
        what came of streams that are still open is recorded, and wrapped clients go on without recording.
        """
        limits.identifier(conversation_id, "conversation_id")
        recorder = Recorder(self, conversation_id)
        try:
            yield Tracker(recorder)
        finally:
            await recorder.finish()


class Tracker:
    """Records model calls into one conversation."""

    def __init__(self, recorder: "Recorder") -> None:
        self._recorder = recorder

    @property
    def conversation_id(self) -> str:
        """Where calls are recorded."""
        return self._recorder.conversation_id

    @property
    def calls(self) -> int:
        """How many calls were seen."""
        return self._recorder.calls

    @property
    def errors(self) -> int:
        """How many of them failed."""
        return self._recorder.errors

    @property
    def failures(self) -> int:
        """How many times recording failed."""
        return self._recorder.failures

    def wrap(self, client: T) -> T:
        """A stand-in for an OpenAI or Anthropic client (or a subclass) that records its calls.

        Recorded are ``create``, ``parse`` and ``stream`` of ``chat.completions``, ``responses`` and ``messages``, also
        on what ``with_options`` gives; everything else, ``with_raw_response`` too, goes to the client unseen. Raises
        ``Misused`` for a client of the other kind (blocking or async), ``Invalid`` for what is no such client.
        """
        provider, awaits = kind_of(client)
        if awaits != kit.AWAITS:
            raise Misused(
                f"{type(client).__name__} is {'an async' if awaits else 'a blocking'} client, and this store is not",
                hint="perdure.open goes with async clients, perdure.sync.open with blocking ones",
            )
        stand: Any = Stand(client, (), PATHS[provider], self._recorder)
        return stand

    async def record(self, request: Sequence[Any] | Mapping[str, Any], response: Any) -> list[Message]:
        """Records a call that was made elsewhere: what of its request is not stored yet, and its answer.

        ``request`` is the list of messages or the whole request, ``response`` the API's answer, as JSON or as the
        client's object. Raises as ``add_messages`` does.
        """
        recorder = self._recorder
        api = calls.api_of(response)
        arguments = request if isinstance(request, Mapping) else {calls.HISTORY[api]: list(request)}
        at = recorder.store._clock()
        answer = calls.answered(api, response)
        said = calls.joined(answer.drafts, facts_of(api, answer, None), answer.usage, at)
        recorder.calls += 1
        return await recorder.store.flush(recorder.conversation_id, [*calls.asked(api, arguments, at), *said])

    async def add(self, role: str, content: Any, **fields: Any) -> Message:
        """Adds a message by hand; the fields and errors are those of ``add_message``."""
        return await self._recorder.store.add_message(self._recorder.conversation_id, role, content, **fields)
