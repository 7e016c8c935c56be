"""The front door of the async package. The blocking one needs none: there a store is opened by a plain call."""

import os
from collections.abc import Generator
from types import TracebackType
from typing import Any

from perdure.services.store import Store
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Misused


class Opening:
    """What ``open`` gives: await it for a store, or enter it with ``async with`` to have it closed at the end."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __await__(self) -> Generator[Any, None, Store]:
        return self._store.initialize().__await__()

    def __enter__(self) -> None:
        raise Misused(
            "perdure.open is asynchronous", hint="async with perdure.open(...), or with perdure.sync.open(...)"
        )

    def __exit__(self, *_: object) -> None:
        """Never reached; here so that `with` finds the message above."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a store that is not open yet has no {name!r}: store = await perdure.open(...)")

    async def __aenter__(self) -> Store:
        return await self._store.initialize()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._store.close()


def open(where: PersistenceConfig | str | os.PathLike[str] | None = None, *, chores: bool = False) -> Opening:
    """A store: ``store = await perdure.open("sqlite:///agent.db")``, or ``async with perdure.open(...) as store``.

    ``where`` is an ``sqlite:///`` or ``postgresql://`` address, a path, ``":memory:"``, or a ``PersistenceConfig``;
    ``PERDURE_URL`` when not given. With ``chores=True`` the store does its housekeeping in the background.
    """
    return Opening(Store(where, chores=chores))
