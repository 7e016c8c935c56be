"""The four drivers behind one face, so that a contract test is written once.

A blocking store is wrapped so that its verbs can be awaited; what is tested is still the blocking code.
"""

import importlib
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import perdure
import perdure.sync
from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.services.store import Store as AsyncStore
from perdure.values.clock import Clock, system_clock
from perdure.values.config import PersistenceConfig

DRIVERS = ("sqlite", "sqlite-blocking", "postgres", "postgres-blocking")


class Awaitable:
    """A blocking store (or service) whose verbs can be awaited, and whose blocks can be entered with ``async with``."""

    def __init__(self, store: Any, like: type = AsyncStore) -> None:
        self._store = store
        self._like = like

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._store, name)
        model = getattr(self._like, name, None)
        if inspect.iscoroutinefunction(model):
            return _awaited(member)
        if inspect.isasyncgenfunction(model):
            return _iterated(member)
        if inspect.isasyncgenfunction(getattr(model, "__wrapped__", None)):
            return _entered(member)
        if name in {"acting_as", "for_tenant", "within"}:
            return lambda *args, **kwargs: Awaitable(member(*args, **kwargs))
        if name == "using":
            return lambda handle: Awaitable(member(plain(handle)), self._like)
        return member


def plain(handle: Any) -> Any:
    """The store behind a wrapper, or the store itself."""
    return handle._store if isinstance(handle, Awaitable) else handle


def _awaited(verb: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        return verb(*args, **kwargs)

    return call


def _iterated(verb: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for item in verb(*args, **kwargs):
            yield item

    return call


def _entered(verb: Callable[..., Any]) -> Callable[..., Any]:
    @asynccontextmanager
    async def call(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        with verb(*args, **kwargs) as inside:
            yield Awaitable(inside) if hasattr(inside, "create_conversation") else inside

    return call


class Opener:
    """Opens stores on one database with one driver: ``async with opener() as store``.

    Each call opens another store on the same database, as another process would. ``opener.url`` is its address.
    """

    def __init__(self, driver: str, url: str) -> None:
        self.driver = driver
        self.url = url
        self.blocking = driver.endswith("-blocking")
        self.engine = driver.removesuffix("-blocking")

    @asynccontextmanager
    async def __call__(
        self, *, clock: Clock = system_clock, chores: bool = False, **settings: Any
    ) -> AsyncIterator[Any]:
        """An open store, with these settings of ``PersistenceConfig``; closed at the end of the block."""
        config = PersistenceConfig(self.url, **{"pool_size": 4, **settings})
        if self.blocking:
            with perdure.sync.Store(config, clock=clock, chores=chores) as store:
                yield Awaitable(store)
        else:
            async with perdure.Store(config, clock=clock, chores=chores) as store:
                yield store

    def beside(self, store: Any, module: str, name: str) -> Any:
        """A service that is no public name, on a store that this opener opened."""
        model = getattr(importlib.import_module(f"perdure.services.{module}"), name)
        if isinstance(store, Awaitable):
            blocking = getattr(importlib.import_module(f"perdure.sync.{module}"), name)
            return Awaitable(blocking(plain(store)), model)
        return model(store)

    def checkpointer(self, store: Any, config: CheckpointConfig | None = None, **settings: Any) -> Any:
        """A checkpointer on a store that this opener opened."""
        if isinstance(store, Awaitable):
            return Awaitable(perdure.sync.Checkpointer(plain(store), config, **settings), perdure.Checkpointer)
        return perdure.Checkpointer(store, config, **settings)
