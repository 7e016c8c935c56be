"""A progress bar on stderr for what takes longer than a second; silence where nobody watches."""

import threading
from types import TracebackType
from typing import Any, Self

from perdure.cli.screen import Screen

PATIENCE_SECONDS = 0.8
"""What is done sooner shows no bar."""


class Activity:
    """Shows what goes on while its block runs, once that takes a while and stderr is a terminal."""

    def __init__(self, screen: Screen, label: str, total: int | None = None) -> None:
        self._screen = screen
        self._label = label
        self._total = total
        self._done = 0
        self._words = ""
        self._lock = threading.Lock()
        self._bar: Any = None
        self._task: Any = None
        self._timer = threading.Timer(PATIENCE_SECONDS, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        if self._screen.err.is_terminal:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._timer.is_alive():
            self._timer.join()
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int | None = None, label: str | None = None, words: str | None = None) -> None:
        """How far it is, out of how much where that is known; ``words`` say it better than the numbers."""
        with self._lock:
            self._done = done
            self._total = self._total if total is None else total
            self._label = label or self._label
            self._words = words if words is not None else f"{done:,}" + (f" of {self._total:,}" if self._total else "")
            if self._bar is not None:
                shown = {"description": self._label, "completed": done, "total": self._total, "count": self._words}
                self._bar.update(self._task, **shown)

    def _show(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn(),
            console=self._screen.err, transient=True,
        )  # fmt: skip
        with self._lock:
            self._task = bar.add_task(self._label, total=self._total, completed=self._done, count=self._words)
            bar.start()
            self._bar = bar
