"""Reads, changes and writes back one counter, among others who do the same, and adds a message each time."""

import json
import time
from pathlib import Path
from typing import Any

import perdure.sync
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Conflict

COUNTED = "counted"


def count_up(store: Any, name: str, times: int) -> dict[str, float]:
    """How often another was first, and the longest time (s) that a write and that a whole step took."""
    conflicts, worst_write, worst_step = 0, 0.0, 0.0
    for number in range(times):
        began = time.perf_counter()
        while True:
            known = store.get_conversation(COUNTED)
            context = {"count": known.metadata.context["count"] + 1}
            asked = time.perf_counter()
            try:
                store.update_conversation(COUNTED, {"context": context}, expected_version=known.version)
                break
            except Conflict:
                conflicts += 1
            finally:
                worst_write = max(worst_write, time.perf_counter() - asked)
        asked = time.perf_counter()
        store.add_message(COUNTED, "user", f"{name} {number}", token_usage={"input_tokens": 3, "output_tokens": 4})
        now = time.perf_counter()
        worst_write, worst_step = max(worst_write, now - asked), max(worst_step, now - began)
    return {"conflicts": conflicts, "worst_write": worst_write, "worst_step": worst_step}


def work(url: str, name: str, times: int, out: str, go: str) -> None:
    """Counts once the file ``go`` is there; any error, Busy above all, ends the process with a code of its own."""
    with perdure.sync.Store(PersistenceConfig(url, pool_size=1)) as store:
        store.get_conversation(COUNTED)
        Path(f"{out}.ready").touch()
        deadline = time.monotonic() + 60
        while not Path(go).exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        Path(out).write_text(json.dumps(count_up(store, name, times)))
