"""A thread that deletes, now and then, the items whose life is over."""

import logging
import threading
import weakref
from concurrent.futures import Future
from typing import Protocol

from perdure.values.errors import Misused, PerdureError

_log = logging.getLogger("perdure.langgraph")


class Sweepable(Protocol):
    """Something that can be swept, blocking."""

    def sweep(self) -> int:
        """How many items were deleted."""
        ...


class Sweeper:
    """Sweeps a store every so many seconds until it is stopped, the store is closed, or nobody holds it any more."""

    def __init__(self, store: Sweepable, seconds: float) -> None:
        self._store = weakref.ref(store)
        self._seconds = seconds
        self._stop = threading.Event()
        self.done: Future[None] = Future()
        """Ends when the sweeper has; cancelling it asks the sweeper to stop."""
        self.done.add_done_callback(lambda _: self._stop.set())
        self._thread = threading.Thread(target=self._run, name="perdure-sweeper", daemon=True)

    def start(self) -> "Future[None]":
        """Begins to sweep, for the first time after one interval."""
        self._thread.start()
        return self.done

    def stop(self, timeout: float | None = None) -> bool:
        """Whether it has stopped within ``timeout`` seconds; None waits for as long as a sweep may take."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether it sweeps."""
        return self._thread.is_alive() and not self._stop.is_set()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds) and self._sweep():
            pass
        if not self.done.done():
            self.done.set_result(None)

    def _sweep(self) -> bool:
        store = self._store()
        if store is None:
            return False
        try:
            swept = store.sweep()
        except Misused as error:
            _log.info("no more sweeps: %s", error)
            return False
        except PerdureError as error:
            _log.warning("a sweep failed and is tried again at its next turn: %s", error)
        else:
            _log.debug("%d expired items were deleted", swept)
        return True
