"""Import and export: whole conversations as JSON Lines, and single ones in the formats of providers.

Both directions work in portions, so memory stays flat however much there is. An export reads page by page; an import
is checked line by line first, then loaded some hundred messages a transaction. Importing the same file again stores
nothing twice, so an import that broke off is simply repeated.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, BinaryIO, Literal

import msgspec

from perdure.kit import aio as kit
from perdure.rooms.conversations import formats, jsonl, moving
from perdure.rooms.conversations.draft import Draft
from perdure.rooms.conversations.foreign import FORMATS, RecordReader, format_of
from perdure.rooms.conversations.jsonl import Entry, LineReader, Opened
from perdure.rooms.conversations.reports import ExportReport, ImportReport, LineError, TransferProgress
from perdure.rooms.conversations.values import Message
from perdure.services.handle import Handle
from perdure.services.lines import Line, Numbered, Spool, Target
from perdure.values import limits
from perdure.values.errors import Conflict, Invalid

_CONVERSATIONS = 200
_MESSAGES = 500
_BYTES = 4 * 1024 * 1024
"""How much is read, written or put into one transaction at a time: the first of these that is reached."""
_TAKE = 1_000
ERRORS = 100
"""Broken lines that a report or an error lists; the rest is counted."""

Formats = Literal["auto", "perdure", "openai", "anthropic", "openai-responses"]
Sink = str | os.PathLike[str] | BinaryIO | Callable[[bytes], Any]


class _Import(msgspec.Struct):
    """An import that is under way."""

    numbered: Numbered
    total_bytes: int
    on_progress: Callable[[TransferProgress], Any] | None
    opened: set[str] = msgspec.field(default_factory=set[str])
    conversations: int = 0
    messages: int = 0
    skipped: int = 0
    broken: int = 0
    errors: list[LineError] = msgspec.field(default_factory=list[LineError])
    portion: list[LineError] = msgspec.field(default_factory=list[LineError])

    def refuse(self, line: int, reason: str) -> None:
        self.portion.append(LineError(line, reason))

    def settle(self, stage: Literal["check", "load"]) -> None:
        """A portion is done: what was refused in it is counted, and listed in order."""
        self.broken += len(self.portion)
        self.errors += sorted(self.portion, key=lambda one: one.line)[: ERRORS - len(self.errors)]
        self.portion.clear()
        if self.on_progress is not None:
            self.on_progress(
                TransferProgress(
                    stage, self.numbered.position, self.total_bytes or None, self.conversations, self.messages
                )
            )


class TransferVerbs(Handle):
    """Import and export."""

    # -- out -------------------------------------------------------------------------------------------------------------

    async def export_conversations(
        self,
        target: Sink,
        user_id: str | None = None,
        agent_id: str | None = None,
        on_progress: Callable[[TransferProgress], Any] | None = None,
    ) -> ExportReport:
        """Writes every conversation (of a user, of an agent) as JSON Lines, and says how much it was.

        ``target`` is a path, a binary file or a callable that takes bytes. A file at a path appears when it is whole
        and on disk; on failure what was there stays. Deleted messages and former versions are left out.
        ``import_conversations`` gives back ids, order, times, metadata, usage and forks, and a second export the same
        bytes. Raises ``Invalid``, and ``OSError`` when the target cannot be written.
        """
        conversations = messages = size = 0
        with Target(target) as file:
            async for talks, said, chunk in self._outgoing(user_id, agent_id):
                await kit.off_loop(lambda chunk=chunk: file.write(chunk))
                conversations, messages, size = conversations + talks, messages + said, size + len(chunk)
                if on_progress is not None:
                    on_progress(TransferProgress("export", size, None, conversations, messages))
        return ExportReport(conversations, messages, size)

    async def export_lines(self, user_id: str | None = None, agent_id: str | None = None) -> AsyncIterator[bytes]:
        """The same JSON Lines as they come, in chunks of whole lines."""
        async for _, _, chunk in self._outgoing(user_id, agent_id):
            yield chunk

    async def _outgoing(self, user_id: str | None, agent_id: str | None) -> AsyncIterator[tuple[int, int, bytes]]:
        """Chunks of lines, each with how many conversations and messages it holds."""
        for name, value in (("user_id", user_id), ("agent_id", agent_id)):
            if value is not None:
                limits.identifier(value, name)
        newest = await self._run(moving.newest())
        after, talks, said = 0, 0, 0
        chunk = bytearray()
        while True:
            page = await self._run(moving.leaving(after, newest, user_id, agent_id, _CONVERSATIONS))
            for one in page:
                chunk += jsonl.conversation_line(one.row, one.fork_of)
                talks += 1
                if one.row[8] <= one.low:
                    continue
                async for lines in self._message_lines(one.row[1], one.low):
                    for line in lines:
                        chunk += line
                        said += 1
                    if len(chunk) >= _BYTES:
                        yield talks, said, bytes(chunk)
                        talks, said = 0, 0
                        chunk.clear()
            if len(page) < _CONVERSATIONS:
                break
            after = page[-1].row[0]
        if chunk:
            yield talks, said, bytes(chunk)

    async def _message_lines(self, conversation_id: str, low: int) -> AsyncIterator[list[bytes]]:
        """The lines of a conversation's messages; the larger they are, the fewer at a time."""
        limit = _MESSAGES // 10
        while True:
            rows = await self._run(moving.message_rows(conversation_id, low, limit))
            lines = [jsonl.message_line(row, conversation_id) for row in rows]
            if lines:
                yield lines
            if len(rows) < limit:
                return
            low = rows[-1][2] + 1
            size = sum(len(line) for line in lines)
            limit = max(1, min(_MESSAGES, limit * _BYTES // size))

    # -- in --------------------------------------------------------------------------------------------------------------

    async def import_conversations(
        self,
        source: str | os.PathLike[str] | Iterable[str] | Iterable[bytes],
        skip_broken: bool = False,
        format: Formats = "auto",
        agent_id: str | None = None,
        user_id: str | None = None,
        on_progress: Callable[[TransferProgress], Any] | None = None,
    ) -> ImportReport:
        """Loads conversations from a path, a file or lines, and says what was loaded.

        Every line is checked first. When one is broken nothing is loaded, unless ``skip_broken``: then the rest is.
        A conversation that is there already gets the messages that it lacks; messages are known by their ids, so
        importing twice changes nothing. What a file leaves out (ids, times) is made up, the same each time.

        ``format`` is "perdure" (our JSON Lines), or "openai", "anthropic" and "openai-responses": a JSON document or
        JSON Lines of chat requests or bare lists of messages; "openai" also takes the archive of ChatGPT, "anthropic"
        that of Claude. "auto" looks at the first record; where messages are plain text in both, that is "openai".
        ``agent_id`` and ``user_id`` stand in place of what the file says; foreign records that name no user need
        ``user_id``, and their agent is called after the format.

        Raises ``Invalid`` when lines are broken (``details["errors"]`` lists the first hundred as line and reason,
        ``details["broken"]`` counts them) and ``OverLimit``; ``Conflict`` when a line does not fit what is stored (an
        id that is somebody else's, say): what came before it stays, and importing again goes on from there.
        """
        if format != "auto" and format not in FORMATS:
            raise Invalid(f"format must be auto, {', '.join(FORMATS)}, not {str(format)[:40]!r}", field="format")
        for name, value in (("agent_id", agent_id), ("user_id", user_id)):
            if value is not None:
                limits.identifier(value, name)
        now = self._clock()
        spool = await kit.off_loop(lambda: Spool(source))
        try:
            while spool.take(_TAKE):  # the caller's lines come from the caller's own thread
                await kit.sleep(0)
            numbered = Numbered(spool.file)
            await kit.off_loop(numbered.look)
            run = _Import(numbered, spool.size(), on_progress)
            numbered.rewind()
            if not skip_broken:
                await self._check(run, _reader(numbered, format, now, agent_id, user_id))
                if run.broken:
                    raise _broken(run)
            numbered.rewind()
            run.conversations = run.messages = 0
            await self._load(run, _reader(numbered, format, now, agent_id, user_id), now, skip_broken)
        finally:
            spool.close()
        return ImportReport(run.conversations, run.messages, run.skipped, run.broken, run.errors)

    async def _check(self, run: _Import, reader: "LineReader | RecordReader") -> None:
        """Reads every line, storing nothing."""
        while True:
            lines = await kit.off_loop(lambda: run.numbered.portion(_MESSAGES, _BYTES))
            if not lines:
                return
            entries = await kit.off_loop(lambda lines=lines: _entries(run, reader, lines))
            for entry in entries:
                if isinstance(entry, Opened):
                    run.opened.add(entry.new.id)
                    run.conversations += 1
                    continue
                run.messages += 1
                if entry.conversation_id not in run.opened:
                    if await self._run(moving.is_there(entry.conversation_id)):
                        run.opened.add(entry.conversation_id)
                    else:
                        run.refuse(entry.line, f"there is no conversation {entry.conversation_id!r}")
            run.settle("check")

    async def _load(self, run: _Import, reader: "LineReader | RecordReader", now: int, skip_broken: bool) -> None:
        barred: frozenset[str] = frozenset()
        while True:
            lines = await kit.off_loop(lambda: run.numbered.portion(_MESSAGES, _BYTES))
            if not lines:
                return
            entries = await kit.off_loop(lambda lines=lines: _entries(run, reader, lines))
            for first in range(0, len(entries), _MESSAGES):  # one foreign record may hold thousands
                loaded = await self._run(moving.load(entries[first : first + _MESSAGES], barred, now))
                barred = frozenset(loaded.barred)
                run.conversations += loaded.conversations
                run.messages += loaded.messages
                run.skipped += loaded.skipped
                for refusal in loaded.refused:
                    run.refuse(refusal.line, refusal.reason)
                if run.portion and not skip_broken:
                    break
            run.settle("load")
            if run.broken and not skip_broken:
                raise _misfit(run)

    # -- the formats of providers ----------------------------------------------------------------------------------------

    async def to_openai(self, conversation_id: str, max_tokens: int | None = None) -> list[dict[str, Any]]:
        """The conversation as messages of OpenAI's chat API, with ``max_tokens`` its ``context_window`` only.

        Empty for an unknown conversation, as ``get_messages`` is.
        """
        return formats.to_openai_chat(await self._messages_of(conversation_id, max_tokens))

    async def to_openai_responses(self, conversation_id: str, max_tokens: int | None = None) -> list[dict[str, Any]]:
        """The conversation as items of OpenAI's Responses API."""
        return formats.to_openai_responses(await self._messages_of(conversation_id, max_tokens))

    async def to_anthropic(
        self, conversation_id: str, max_tokens: int | None = None
    ) -> tuple[str | list[dict[str, Any]] | None, list[dict[str, Any]]]:
        """The conversation as Anthropic's system prompt (None when there is none) and messages."""
        return formats.to_anthropic(await self._messages_of(conversation_id, max_tokens))

    async def import_openai(
        self, conversation_id: str, messages: Iterable[Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> list[Message]:
        """Appends messages of OpenAI's chat API, all or none, and returns them as stored. See ``add_messages``."""
        return await self._add(conversation_id, formats.from_openai_chat(messages), idempotency_key)

    async def import_openai_responses(
        self, conversation_id: str, items: str | Iterable[Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> list[Message]:
        """Appends items of OpenAI's Responses API, all or none, and returns them as stored."""
        return await self._add(conversation_id, formats.from_openai_responses(items), idempotency_key)

    async def import_anthropic(
        self,
        conversation_id: str,
        messages: Iterable[Mapping[str, Any]],
        system: str | Iterable[Mapping[str, Any]] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> list[Message]:
        """Appends Anthropic's messages, after the system prompt when given, all or none."""
        return await self._add(conversation_id, formats.from_anthropic(messages, system), idempotency_key)

    async def _messages_of(self, conversation_id: str, max_tokens: int | None) -> list[Message]:
        store: Any = self
        if max_tokens is not None:
            return await store.context_window(conversation_id, max_tokens)
        found = await store.get_conversation(conversation_id, include_messages=True)
        return [] if found is None else list(found.messages)

    async def _add(self, conversation_id: str, drafts: list[Draft], idempotency_key: str | None) -> list[Message]:
        store: Any = self
        return await store.add_messages(conversation_id, drafts, idempotency_key=idempotency_key)


def _reader(
    numbered: Numbered, format: str, now: int, agent_id: str | None, user_id: str | None
) -> LineReader | RecordReader:
    """What reads the lines; the format is that of the first record when the caller does not say it."""
    form = format
    if form == "auto" and numbered.sample is not None:
        found = format_of(numbered.sample)
        if found is None:
            raise Invalid(
                "the first record is of no known format", field="format",
                hint=f"say format=..., one of {', '.join(FORMATS)}",
            )  # fmt: skip
        form = found
    if form in {"auto", "perdure"}:
        return LineReader(now, agent_id, user_id)
    return RecordReader(form, now, agent_id, user_id)  # type: ignore[arg-type]


def _entries(run: _Import, reader: "LineReader | RecordReader", lines: list[Line]) -> list[Entry]:
    """What the lines bring; the broken ones are noted in the run."""
    entries: list[Entry] = []
    for number, raw in lines:
        if raw is None:
            run.refuse(number, f"the line is above {limits.JSON_LINE_BYTES:,} bytes")
        elif raw.strip():
            try:
                entries += reader.read(number, raw)
            except Invalid as error:
                run.refuse(number, error.message)
    return entries


def _broken(run: _Import) -> Invalid:
    return Invalid(
        f"{run.broken:,} of the lines cannot be read; nothing was loaded. Line {run.errors[0].line}: "
        f"{run.errors[0].reason}",
        field="source", hint="mend them, or load the rest with skip_broken=True", **_details(run),
    )  # fmt: skip


def _misfit(run: _Import) -> Conflict:
    first = run.errors[0]
    return Conflict(
        f"line {first.line} does not fit what is stored: {first.reason}", field="source",
        hint="what came before it is loaded; skip_broken=True loads the rest too", **_details(run),
    )  # fmt: skip


def _details(run: _Import) -> dict[str, Any]:
    return {"broken": run.broken, "errors": [{"line": one.line, "reason": one.reason} for one in run.errors]}
