"""How the objects for LangGraph come by a blocking store, and are opened and closed."""

import asyncio
import os
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from perdure import sync
from perdure.services.store import Store as AsyncStore
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Invalid, Misused


class Closing(Protocol):
    """Something that is closed."""

    def close(self) -> None: ...  # noqa: D102


S = TypeVar("S", bound=Closing)


class Opening(Generic[S]):
    """What ``from_conn_string`` gives: enter it with ``with`` or ``async with``; each time opens another store."""

    def __init__(self, make: Callable[[], S], prepare: Callable[[S], object]) -> None:
        self._make = make
        self._prepare = prepare
        self._open: list[S] = []

    def __enter__(self) -> S:
        made = self._make()
        try:
            self._prepare(made)
        except BaseException:
            made.close()
            raise
        self._open.append(made)
        return made

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.pop().close()

    async def __aenter__(self) -> S:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)


class Done:
    """Something that is done already, for those who await it as they await it of other stores."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


def blocking(store: Any, name: str) -> tuple[sync.Store, bool]:
    """The blocking store to use, and whether it was opened here."""
    if isinstance(store, sync.Store):
        return store, False
    if isinstance(store, str | os.PathLike | PersistenceConfig):
        return sync.Store(store), True  # pyright: ignore[reportUnknownArgumentType]
    if not isinstance(store, AsyncStore):
        raise Invalid(
            f"store must be a perdure store, not {type(store).__name__}", field="store",
            hint=f"perdure.sync.open(...), or {name}.from_conn_string(...)",
        )  # fmt: skip
    if store._session is not None:  # pyright: ignore[reportPrivateUsage]
        raise Misused("a transaction of an async store takes no LangGraph store", hint="use a blocking store")
    if store.config.sqlite_path is None and store.config.engine == "sqlite":
        raise Misused(
            "an async store in memory cannot be shared with threads", hint='perdure.sync.open(":memory:") can'
        )
    twin = sync.Store(store.config, clock=store._clock)  # pyright: ignore[reportPrivateUsage]
    # Its tenant, and on whose behalf.
    twin._scope = store._scope  # pyright: ignore[reportPrivateUsage]
    twin._confined = store._confined  # pyright: ignore[reportPrivateUsage]
    return twin, True
