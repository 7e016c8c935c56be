"""One page of an answer."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Page(list[T]):
    """One page of an answer: a list, and the cursor that continues it (None at the end)."""

    def __init__(self, items: Sequence[T] = (), next_cursor: str | None = None) -> None:
        super().__init__(items)
        self.next_cursor = next_cursor

    def __repr__(self) -> str:
        return f"Page({super().__repr__()}, next_cursor={self.next_cursor!r})"
