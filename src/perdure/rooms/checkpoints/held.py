"""What a process holds of threads, so that the next save need not read the state before it.

Nothing here is trusted: a recipe uses it only when the thread's row still has the version that it was taken at.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

from perdure.rooms.checkpoints.logs import Known
from perdure.rooms.checkpoints.strategy import Decider
from perdure.rooms.checkpoints.tree import size
from perdure.values.clock import Micros

HELD_BYTES = 64 * 1024 * 1024
"""Bytes of states that one checkpointer holds; the thread that was not used for longest goes first."""

Key = tuple[str, str, str]
"""Tenant, space and thread."""


class Deciders:
    """What decides on the steps of threads; of those that were not asked for longest nothing is kept."""

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._deciders: OrderedDict[Key, Decider] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: Key, make: Callable[[], Decider]) -> Decider:
        """The decider of a thread, made when it has none."""
        with self._lock:
            found = self._deciders.get(key)
            if found is None:
                found = self._deciders[key] = make()
            self._deciders.move_to_end(key)
            if len(self._deciders) > self._limit:
                self._deciders.popitem(last=False)
            return found

    def saved(self, key: Key, now: Micros) -> None:
        """Tells a thread's decider, when it has one, that a checkpoint was saved."""
        with self._lock:
            found = self._deciders.get(key)
        if found is not None:
            found.saved(now)


class Held:
    """Known threads, the latest used last. Safe to share between threads."""

    def __init__(self, limit: int = HELD_BYTES) -> None:
        self._limit = limit
        self._known: OrderedDict[Key, tuple[Known, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> Known | None:
        """What is held of a thread, or None."""
        with self._lock:
            found = self._known.get(key)
            if found is None:
                return None
            self._known.move_to_end(key)
            return found[0]

    def put(self, key: Key, known: Known) -> None:
        """Holds what is known of a thread in place of what was held of it."""
        weight = sum(size(state) for state in known.states.values()) + sum(end.size for end in known.ends.values())
        with self._lock:
            before = self._known.pop(key, None)
            self._bytes += weight - (before[1] if before else 0)
            self._known[key] = (known, weight)
            while self._bytes > self._limit and self._known:
                _, (_, weight) = self._known.popitem(last=False)
                self._bytes -= weight

    def drop(self, key: Key) -> None:
        """Holds nothing of a thread any more."""
        with self._lock:
            found = self._known.pop(key, None)
            if found is not None:
                self._bytes -= found[1]

    def clear(self) -> None:
        """Holds nothing any more."""
        with self._lock:
            self._known.clear()
            self._bytes = 0
