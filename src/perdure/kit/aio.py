"""What differs between asyncio and threads, the asyncio half. ``blocking.py`` has the same names for threads.

Services use nothing else of this kind, so that their blocking twins can be generated from them.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")
_PATIENCE_SECONDS = 5.0

AWAITS = True
"""Whether calls are awaited in this world."""
Lock = asyncio.Lock
sleep = asyncio.sleep


async def nap(longest: float) -> None:
    """Waits for a random while of at most ``longest`` seconds, so that two that collided do not collide again."""
    await asyncio.sleep(random.uniform(0, longest))


async def off_loop(work: Callable[[], T]) -> T:
    """The result of blocking work, done where it does not hold up others."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


class Errand:
    """Work that is not cancelled in the middle: its caller may be, and then the work is asked to end soon.

    A client library that is cancelled between sending and receiving may leave its connection in a state that nobody
    knows. So the work runs as a task of its own, whose end the caller waits for, cancelled or not. Until ``begin`` the
    task is cancelled with its caller, once. From then on ``interrupt`` ends what the work waits for, between ``expose``
    and ``settle``; ``cut`` is for when nothing helped for long enough.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._interrupt: Callable[[], Awaitable[None]] | None = None
        self._cut: Callable[[], None] | None = None
        self._begun = self._exposed = False
        self._lock = Lock()

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of the work. A caller that was cancelled goes on, as cancelled, when the work has ended."""
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work())
        ended: asyncio.Future[None] = loop.create_future()  # asyncio.wait would do, but takes longer
        task.add_done_callback(lambda _: _settle(ended))
        try:
            await ended
        except asyncio.CancelledError:
            ending = asyncio.ensure_future(self._end(task))
            while not ending.done():
                with contextlib.suppress(asyncio.CancelledError):  # asked once more; it is on its way
                    await asyncio.wait((ending,))
            if task.done() and not task.cancelled():
                task.exception()  # nobody else will ask for it
            raise
        return task.result()

    def begin(self, interrupt: Callable[[], Awaitable[None]], cut: Callable[[], None]) -> None:
        """For the work to call when it begins what must be whole; ends it when its caller was cancelled before."""
        self.heed()
        self._begun, self._interrupt, self._cut = True, interrupt, cut

    def heed(self) -> None:
        """For the work to call between two steps: ends it when its caller was cancelled.

        Until Python 3.12 ``asyncio.wait_for``, on which psycopg's pool waits, swallows a cancellation that arrives
        together with what was waited for.
        """
        if self.stopping:
            raise asyncio.CancelledError

    def expose(self) -> None:
        """For the work to call before what may be interrupted."""
        self._exposed = True

    async def settle(self) -> None:
        """For the work to call before it cleans up: what it does from now on is not interrupted."""
        async with self._lock:  # an interruption on its way must have arrived, or it would hit what comes next
            self._exposed = False

    async def let_go(self) -> None:
        """For the work to call before others get what it held: nothing is done to that any more."""
        await self.settle()
        self._cut = None

    async def _end(self, task: "asyncio.Future[Any]") -> None:
        self.stopping = True
        if not self._begun:
            task.cancel()
        loop = asyncio.get_running_loop()
        started = loop.time()
        pause = 0.02
        while not task.done():
            if loop.time() - started > _PATIENCE_SECONDS:
                if self._cut is not None:
                    self._cut()
            else:
                async with self._lock:
                    if self._exposed and self._interrupt is not None:
                        await self._interrupt()
            await asyncio.wait((task,), timeout=pause)
            pause = min(2 * pause, 1.0)


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
        """Asks the work to end and waits for it; where the loop's end was quicker, there is nothing to wait for."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()


class Bell:
    """Rings for all who wait. Each ring gives it another ``mark``, so one between a look and the wait is not lost."""

    def __init__(self) -> None:
        self.mark = object()
        self._closed = False
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wakes all who wait; from any thread."""
        self.mark = object()
        for future in tuple(self._waiting):
            with contextlib.suppress(RuntimeError):  # its loop has ended, and with it whoever waited
                future.get_loop().call_soon_threadsafe(_settle, future)

    def close(self) -> None:
        """Wakes all who wait; nobody waits any more."""
        self._closed = True
        self.ring()

    async def wait(self, mark: object, seconds: float) -> None:
        """Returns when it has rung since it had this mark, at the latest after so many seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)  # first, so that a ring from another thread meanwhile is not missed
        try:
            if self.mark is mark and not self._closed:
                await asyncio.wait((future,), timeout=seconds)
        finally:
            self._waiting.discard(future)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
