"""What tests of the suite share: which engine a test is for, work beside the test, polling with a deadline."""

import asyncio
import contextvars
import functools
import time
from collections.abc import Awaitable as Waiting
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from perdure.testing.drivers import Awaitable

T = TypeVar("T")

on_postgres = pytest.mark.parametrize("opener", ["postgres", "postgres-blocking"], indirect=True)
"""For what only PostgreSQL has: open transactions beside each other, row-level security, its settings."""
on_sqlite = pytest.mark.parametrize("opener", ["sqlite", "sqlite-blocking"], indirect=True)
"""For what only SQLite has: files, pragmas."""


def started(store: Any, verb: str, *args: Any, **kwargs: Any) -> "asyncio.Task[Any]":
    """A verb under way beside the test, as in another part of the program; a blocking store's on a thread."""
    context = contextvars.Context()
    if isinstance(store, Awaitable):
        call = functools.partial(getattr(store._store, verb), *args, **kwargs)
        return asyncio.create_task(asyncio.to_thread(call), context=context)
    return asyncio.create_task(getattr(store, verb)(*args, **kwargs), context=context)


async def until(condition: Callable[[], Waiting[T]], seconds: float = 20.0) -> T:
    """The first true answer of ``condition``, asked every few milliseconds until the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, "what was waited for did not come"
        await asyncio.sleep(0.005)
