"""What differs between asyncio and threads, the asyncio half. ``blocking.py`` has the same names for threads.

Services use nothing else of this kind, so that their blocking twins can be generated from them.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

AWAITS = True
"""Whether calls are awaited in this world."""
Lock = asyncio.Lock
sleep = asyncio.sleep


async def nap(longest: float) -> None:
    """Waits for a random while of at most ``longest`` seconds, so that two that collided do not collide again."""
    await asyncio.sleep(random.uniform(0, longest))


def cancellations() -> int:
    """How often the running task was asked to end so far."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def heed(cancellations_before: int) -> None:
    """Ends the running task when it was asked to since then.

    Until Python 3.12 ``asyncio.wait_for``, on which psycopg's pool waits, swallows a cancellation that arrives together
    with what was waited for.
    """
    if cancellations() > cancellations_before:
        raise asyncio.CancelledError


async def off_loop(work: Callable[[], T]) -> T:
    """The result of blocking work, done where it does not hold up others."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


class Background:
    """One piece of work that goes on beside the caller until it is stopped."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begins the work."""

        async def run() -> None:
            await work()

        self._task = asyncio.get_running_loop().create_task(run())

    @property
    def running(self) -> bool:
        """Whether the work was started and has not ended."""
        return self._task is not None and not self._task.done()

    async def pause(self, seconds: float) -> bool:
        """Whether to go on, after a wait that ends early when asked to stop."""
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def stop(self) -> None:
        """Asks the work to end and waits for it."""
        self._stop.set()
        if self._task is not None:
            await self._task
