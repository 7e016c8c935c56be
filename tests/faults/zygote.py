"""Processes that cost 5 ms each: one process imports everything, and every worker is a fork of it.

``python zygote.py MODULE`` reads one JSON line for each worker to be started, forks, runs ``MODULE.work(line)`` in
the child and answers its pid. A line ``{"reap": pid}`` waits for that child and answers its exit code, so a pid stays
taken until the test has killed what it meant to kill.
"""

import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_NEEDED = (
    "perdure.sync.store", "perdure.kit.blocking",
    "perdure.drivers.sqlite.blocking", "perdure.drivers.postgres.blocking",
)  # fmt: skip
"""What every worker uses and perdure would load on first use."""
_HERE = Path(__file__).resolve().parent


class Zygote:
    """The mother process of workers; everything ends with it."""

    def __init__(self, module: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_HERE / "zygote.py"), module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self._living: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in list(self._living):
            self.kill(pid)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def start(self, **job: Any) -> int:
        """The pid of a new worker."""
        pid = self._ask(job)
        self._living.add(pid)
        return pid

    def wait(self, pid: int) -> int:
        """The exit code of a worker, once it has ended; minus the signal that ended it."""
        self._living.discard(pid)
        return self._ask({"reap": pid})

    def kill(self, pid: int) -> int:
        """Ends a worker with SIGKILL."""
        os.kill(pid, 9)
        return self.wait(pid)

    def _ask(self, line: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def main() -> None:
    """The loop of the mother process."""
    sys.path.insert(0, str(_HERE))
    for name in _NEEDED:
        importlib.import_module(name)
    module = importlib.import_module(sys.argv[1])
    for text in sys.stdin:
        line = json.loads(text)
        if "reap" in line:
            _, status = os.waitpid(line["reap"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                _work(module, line)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _work(module: Any, line: dict[str, Any]) -> None:
    """The life of a child: it never returns to the mother's loop."""
    os.close(0)
    code = 1
    try:
        os.dup2(2, 1)
        module.work(**line)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
