"""The other libraries as lanes, each used as its documentation shows.

All write to SQLite. openai-agents' ``SQLiteSession`` opens files with a write-ahead log and SQLite's default,
``synchronous = FULL``. LangChain's and google-adk's SQLAlchemy engines keep the rollback journal unless told otherwise;
here they are told to use a write-ahead log, as SQLAlchemy's documentation shows, so that all pay for the same durability.
google-adk's ``SqliteSessionService`` opens its connections itself and cannot be told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import data
from bench.data import Said
from bench.rounds import Lane, Spent, Watch


@contextmanager
def openai_agents(path: Path, corpus: list[Said], slice_: int, *, tasks: int = 1) -> Iterator[Lane]:
    """``SQLiteSession.add_items`` with one item each."""
    from agents import SQLiteSession

    session = SQLiteSession("talk-0", path)
    said = data.cycle(corpus)
    each = slice_ // tasks

    async def agent(batch: list[Said]) -> None:
        for one in batch:
            await session.add_items([{"role": one.role, "content": one.text}])

    async def work() -> Spent:
        batches = [[next(said) for _ in range(each)] for _ in range(tasks)]
        watch = Watch()
        await asyncio.gather(*(agent(batch) for batch in batches))
        return watch.each(each * tasks)

    with asyncio.Runner() as runner:
        try:
            yield lambda: runner.run(work())
        finally:
            session.close()


def _write_ahead(engine: Any) -> None:
    """A write-ahead log and ``synchronous = NORMAL`` for every connection of an SQLAlchemy engine."""
    from sqlalchemy import event

    def configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("pragma journal_mode = wal")
        cursor.execute("pragma synchronous = normal")
        cursor.close()

    event.listen(engine, "connect", configure)


@contextmanager
def langchain(path: Path, corpus: list[Said], slice_: int) -> Iterator[Lane]:
    """``SQLChatMessageHistory.add_message`` on a blocking engine, its quicker half."""
    from langchain_community.chat_message_histories import SQLChatMessageHistory
    from langchain_core.messages import AIMessage, HumanMessage
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{path}")
    _write_ahead(engine)
    history = SQLChatMessageHistory("talk-0", connection=engine)
    said = data.cycle(corpus)

    def lane() -> Spent:
        batch = [next(said) for _ in range(slice_)]
        watch = Watch()
        for one in batch:
            kind = HumanMessage if one.role == "user" else AIMessage
            history.add_message(kind(one.text))
        return watch.each(slice_)

    try:
        yield lane
    finally:
        engine.dispose()


@contextmanager
def google_adk(path: Path, corpus: list[Said], slice_: int) -> Iterator[Lane]:
    """``DatabaseSessionService.append_event``."""
    from google.adk.sessions import DatabaseSessionService
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    _write_ahead(engine.sync_engine)
    with _adk(DatabaseSessionService(db_engine=engine), corpus, slice_, engine.dispose) as lane:
        yield lane


@contextmanager
def google_adk_sqlite(path: Path, corpus: list[Said], slice_: int) -> Iterator[Lane]:
    """``SqliteSessionService.append_event``: a connection of its own each time, a rollback journal."""
    from google.adk.sessions.sqlite_session_service import SqliteSessionService

    with _adk(SqliteSessionService(str(path)), corpus, slice_, None) as lane:
        yield lane


@contextmanager
def _adk(
    service: Any, corpus: list[Said], slice_: int, close: Callable[[], Awaitable[None]] | None
) -> Iterator[Lane]:  # fmt: skip
    from google.adk.events import Event
    from google.genai import types

    said = data.cycle(corpus)

    async def begin() -> Any:
        return await service.create_session(app_name="agent", user_id="user-0", session_id="talk-0")

    async def work(session: Any) -> Spent:
        batch = [next(said) for _ in range(slice_)]
        watch = Watch()
        for one in batch:
            content = types.Content(role="user" if one.role == "user" else "model", parts=[types.Part(text=one.text)])
            await service.append_event(session, Event(author=one.role, invocation_id="run", content=content))
        return watch.each(slice_)

    with asyncio.Runner() as runner:
        session = runner.run(begin())
        try:
            yield lambda: runner.run(work(session))
        finally:
            if close is not None:
                runner.run(close())
