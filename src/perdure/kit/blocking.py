"""What differs between asyncio and threads, the threads' half. ``aio.py`` has the same names for asyncio."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

AWAITS = False
"""Whether calls are awaited in this world."""
Lock = threading.Lock
sleep = time.sleep


def nap(longest: float) -> None:
    """Waits for a random while of at most ``longest`` seconds, so that two that collided do not collide again."""
    time.sleep(random.uniform(0, longest))


def off_loop(work: Callable[[], T]) -> T:
    """The result of blocking work."""
    return work()


class Errand:
    """Work that is not cancelled in the middle: threads never are."""

    stopping = False

    def run(self, work: Callable[[], T]) -> T:
        """The result of the work."""
        return work()

    def begin(self, interrupt: Callable[[], None], cut: Callable[[], None]) -> None:
        """Nothing: threads are not cancelled."""

    def heed(self) -> None:
        """Nothing: threads are not cancelled."""

    def expose(self) -> None:
        """Nothing: threads are not cancelled."""

    def settle(self) -> None:
        """Nothing: threads are not cancelled."""

    def let_go(self) -> None:
        """Nothing: threads are not cancelled."""


class Background:
    """One piece of work that goes on beside the caller until it is stopped."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self, work: Callable[[], None]) -> None:
        """Begins the work."""
        thread = threading.Thread(target=work, name="perdure-background", daemon=True)
        thread.start()
        self._thread = thread

    @property
    def running(self) -> bool:
        """Whether the work was started and has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def pause(self, seconds: float) -> bool:
        """Whether to go on, after a wait that ends early when asked to stop."""
        return not self._stop.wait(seconds)

    def stop(self) -> None:
        """Asks the work to end and waits for it."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


class Bell:
    """Rings for all who wait. Each ring gives it another ``mark``, so one between a look and the wait is not lost."""

    def __init__(self) -> None:
        self.mark = object()
        self._closed = False
        self._waiting = 0
        self._rung = threading.Condition()

    def ring(self) -> None:
        """Wakes all who wait; from any thread."""
        self.mark = object()
        if self._waiting:
            with self._rung:
                self._rung.notify_all()

    def close(self) -> None:
        """Wakes all who wait; nobody waits any more."""
        self._closed = True
        self.ring()

    def wait(self, mark: object, seconds: float) -> None:
        """Returns when it has rung since it had this mark, at the latest after so many seconds."""
        with self._rung:
            self._waiting += 1  # first, so that a ring from another thread meanwhile is not missed
            try:
                self._rung.wait_for(lambda: self.mark is not mark or self._closed, seconds)
            finally:
                self._waiting -= 1
