"""What the contract tests share: a clock to turn, calls at the same moment, whole states to compare."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import pytest

from perdure import FilePart, OpaquePart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from perdure.testing.drivers import Opener
from perdure.values.clock import to_datetime, to_micros
from perdure.values.errors import PerdureError

E = TypeVar("E", bound=PerdureError)

TABLES = (
    "conversations", "conversation_labels", "forks", "messages", "message_versions", "token_totals", "idempotency",
    "changes", "text_documents", "text_postings", "text_terms",
)  # fmt: skip
"""Tables that hold what callers gave."""

WILD: dict[str, Any] = {
    "when": datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC),
    "uuid": UUID("0190c9f2-7a11-7c3e-8d55-2f1d6a1b9e10"),
    "price": Decimal("1.50"),
    "tiny": Decimal("0.000000000000000001"),
    "hundred": Decimal("1E+2"),
    "raw": b"\x00\xff\x80 bytes",
    "nothing": None,
    "yes": True,
    "no": False,
    "zero": 0,
    "largest": 2**63 - 1,
    "smallest": -(2**63),
    "huge": 1e22,
    "whole": 1.0,
    "sixteen": 1e16,
    "third": 1 / 3,
    "small": 5e-324,
    "text": "naïve café – 日本語 🎉 \u0301 \U0010ffff",
    "lines": "a\nb\tc\r\n\x01\x7f\\ \" '",
    "": "an empty key",
    "$set": 1,
    "$$": {"$datetime": "not a tag"},
    "$datetime": 5,
    "quo\"te's": 1,
    "dots.in.it": {"a.b": 1},
    "ключ": "значение",
    "nested": {"list": [1, [2.5, {"deep": [Decimal("2.0"), b"", {}]}], []], "empty": {}},
}
"""Metadata with one of everything that must come back as it was."""


ROLES = ("system", "user", "assistant", "tool", "developer")
PARTS = (
    TextPart("Look:", extra={"mine": {"n": 1, "deep": [None, 1.5, "x"]}}),
    TextPart("I can't do that.", refusal=True),
    FilePart(kind="image", uri="https://example.com/cat.png", detail="low"),
    FilePart(kind="file", data="JVBERi0=", media_type="application/pdf", name="report.pdf"),
    FilePart(kind="audio", file_id="file_1", provider="openai", text="hello"),
    ToolCallPart("call_1", "look_up", '{"city": "Zürich",  "n": 1e0}'),
    ToolCallPart("call_2", "shell", "ls -la", custom=True),
    ToolResultPart("call_1", "14 °C"),
    ToolResultPart("call_2", (TextPart("a"), FilePart(kind="image", uri="x:y")), is_error=True),
    ReasoningPart("hmm", signature="c2ln", id="rs_1", summary=("one", "two"), provider="anthropic"),
    OpaquePart("openai_responses", {"type": "shell_call", "call_id": "c", "n": [1, None]}),
)
"""A content with one of every part."""


class TurnedClock:
    """A clock that stands still until it is turned."""

    def __init__(self, now: str = "2026-03-01T12:00:00") -> None:
        self.micros = to_micros(now)

    def __call__(self) -> int:
        return self.micros

    @property
    def now(self) -> datetime:
        """Its time."""
        return to_datetime(self.micros)

    def turn(self, **by: float) -> datetime:
        """The time after it was turned, as by ``timedelta(hours=2)``."""
        self.micros += timedelta(**by) // timedelta(microseconds=1)
        return self.now


async def refusal(kind: type[E], call: Awaitable[Any]) -> E:
    """The error that a call raises, which must be of exactly this kind."""
    with pytest.raises(kind) as caught:
        await call
    assert type(caught.value) is kind
    return caught.value


async def together(opener: Opener, *calls: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
    """The answers and errors of calls made at the same moment: by tasks, or by threads of a blocking driver."""
    if opener.blocking:
        running = [asyncio.to_thread(asyncio.run, call()) for call in calls]
    else:
        running = [call() for call in calls]
    return await asyncio.gather(*running, return_exceptions=True)


async def row_count(store: Any, table: str) -> int:
    """How many rows a table has."""
    return (await store.execute(f"select count(*) from {table}"))[0][0]


async def everything(store: Any) -> dict[str, list[Any]]:
    """All rows of the tables that hold what callers gave, without their order."""
    return {table: sorted((await store.execute(f"select * from {table}")), key=repr) for table in TABLES}


async def traces(store: Any, word: str) -> list[str]:
    """The tables in which a word is found, in any column."""
    return [table for table, rows in (await everything(store)).items() if word in repr(rows)]


async def texts(store: Any, conversation_id: str) -> list[str]:
    """What the messages of a conversation say, in order."""
    return [message.text for message in await store.get_messages(conversation_id, limit=1_000)]


async def said(store: Any, *contents: str, id: str | None = None, user: str = "ann") -> Any:
    """A new conversation in which a user said these things."""
    made = await store.create_conversation("helper", user, id=id)
    await store.add_messages(made.id, [{"role": "user", "content": content} for content in contents])
    return made
