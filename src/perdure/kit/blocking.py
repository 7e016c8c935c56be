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


def cancellations() -> int:
    """Always 0: threads are not cancelled."""
    return 0


def heed(cancellations_before: int) -> None:
    """Nothing: threads are not cancelled."""


def off_loop(work: Callable[[], T]) -> T:
    """The result of blocking work."""
    return work()


class Background:
    """One piece of work that goes on beside the caller until it is stopped."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self, work: Callable[[], None]) -> None:
        """Begins the work."""
        self._thread = threading.Thread(target=work, name="perdure-background", daemon=True)
        self._thread.start()

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
