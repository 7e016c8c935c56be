"""P17: what importing costs."""

import json
import os
import subprocess
import sys
from statistics import median

from bench.rounds import Check, Row, Time
from bench.rows import Mode

_MODULES = {"perdure": "perdure", "mem0": "mem0", "chromadb": "chromadb", "openai-agents": "agents"}
_UNWANTED = ("numpy", "psycopg", "wordllama", "pydantic")
_IMPORT = """
import json, sys, time
before = time.process_time()
import {module}
spent = time.process_time() - before
print(json.dumps([spent, [name for name in {unwanted!r} if name in sys.modules]]))
"""
_OPEN = """
import json, sys, time
before = time.process_time()
import perdure.sync
with perdure.sync.open(":memory:") as store:
    store.create_conversation("agent", "user", id="c")
    store.add_message("c", "user", "hello")
spent = time.process_time() - before
print(json.dumps([spent, [name for name in {unwanted!r} if name in sys.modules]]))
"""
_QUIET = {"MEM0_TELEMETRY": "False", "ANONYMIZED_TELEMETRY": "False"}


def importing(mode: Mode) -> Row:
    """P17: CPU time of one import in a fresh process, in turns; and what is in ``sys.modules`` after it."""
    rounds = 10
    del mode
    codes = {name: _IMPORT.format(module=module, unwanted=_UNWANTED) for name, module in _MODULES.items()}
    codes["perdure, a store opened and a message added"] = _OPEN.format(unwanted=_UNWANTED)
    spent: dict[str, list[float]] = {name: [] for name in codes}
    loaded: dict[str, list[str]] = {}
    for number in range(-1, rounds):  # the first round fills the disk's cache and writes byte code
        for name, code in codes.items():
            seconds, unwanted = _run(code)
            loaded[name] = unwanted
            if number >= 0:
                spent[name].append(seconds * 1e3)
    mine = spent["perdure"]
    checks = [
        Check("CPU of import perdure", median(mine), max(mine), unit="ms", goal=100, key="P17.cpu"),
        Check(f"of {', '.join(_UNWANTED)} loaded by it", len(loaded["perdure"]), unit="", goal=0, key="P17.modules"),
    ]
    for name in _MODULES:
        if name != "perdure":
            ratios = [theirs / ours for ours, theirs in zip(mine, spent[name], strict=True)]
            checks.append(
                Check(
                    f"times less than {name}",
                    median(ratios),
                    min(ratios),
                    unit="x",
                    goal=4,
                    sense="at least",
                    key=f"P17.{name}",
                )
            )
    opened = "perdure, a store opened and a message added"
    notes = [
        f"Of {', '.join(_UNWANTED)}, a store in memory that was opened and written to has loaded {loaded[opened] or 'none'}."
    ]
    setting = f"fresh processes, user and system CPU, median of {rounds}"
    times = [Time(name, median(values), "ms") for name, values in spent.items()]
    return Row("P17", "import perdure", setting, checks, times, notes)


def _run(code: str) -> tuple[float, list[str]]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True,
        env={**os.environ, **_QUIET},
    )  # fmt: skip
    seconds, unwanted = json.loads(done.stdout.splitlines()[-1])
    return seconds, unwanted
