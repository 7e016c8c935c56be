"""LangGraph's long-term memory on perdure: a ``BaseStore`` over SQLite or PostgreSQL.

One object serves both worlds. It holds one blocking store; the ``a…`` methods call that in a worker thread, so the
object belongs to no event loop, survives any number of them, and works with ``":memory:"``. A synchronous method
called on an event loop blocks that loop for as long as it takes, and does not deadlock.

Embedding happens before anything is written, and never while a transaction is open.
"""

import asyncio
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self, cast

import msgspec
from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)

from perdure import sync
from perdure.adapters.langgraph.indexing import Index
from perdure.adapters.langgraph.opening import Done, Opening, blocking
from perdure.adapters.langgraph.sweeping import Sweeper
from perdure.rooms.items import values
from perdure.services.store import Store as AsyncStore
from perdure.sync.items import ItemStore
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Invalid

_SWEEP_MINUTES = 5.0


class _Plan(msgspec.Struct):
    """A batch on its way: what is to be done, and which texts must be embedded before."""

    operations: list[values.Operation]
    texts: dict[str, int] = {}
    """Each text once, with its place among the vectors."""
    queries: dict[str, int] = {}
    wanted: list[tuple[int, dict[str, str]]] = []
    """Puts, by place, with their texts by path."""
    asked: list[tuple[int, str]] = []
    """Searches, by place, with their query."""


class PerdureStore(BaseStore):
    """A LangGraph store on a perdure store.

    ``store`` is a blocking store (``perdure.sync.open``), which stays yours to close, or an async one, beside which a
    blocking one is opened on the same database, or an address: close this object then. A handle for one tenant keeps to
    that tenant.

    ``index`` is LangGraph's ``{"dims", "embed", "fields"}``: vectors are compared by cosine, all of those under the
    namespace that is searched. ``ttl`` is LangGraph's ``{"default_ttl", "refresh_on_read", "omit_expired",
    "sweep_interval_minutes"}``, times in minutes.

    Searches answer with the latest change first, then by namespace and key. ``created_at`` survives updates. Values
    hold what JSON holds, and datetimes, UUIDs, Decimals and bytes, which come back as they were. What cannot be stored
    is ``Invalid`` or ``OverLimit``, and nothing of its batch is written.
    """

    supports_ttl = True

    def __init__(
        self,
        store: "sync.Store | AsyncStore | str | os.PathLike[str] | PersistenceConfig",
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        super().__init__()
        self._index = None if index is None else Index(index)
        self._store, self._is_owner = blocking(store, "PerdureStore")
        self._sweeper: Sweeper | None = None
        self.index_config = index
        self.ttl_config = ttl
        self._items = ItemStore(self._store, omit_expired=bool(ttl and ttl.get("omit_expired")))

    @classmethod
    def from_conn_string(
        cls,
        conn_string: "str | os.PathLike[str] | PersistenceConfig",
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> Opening[Self]:
        """A context manager, for ``with`` and ``async with``, that gives a store which is set up.

        A ``sweep_interval_minutes`` in ``ttl`` has expired items swept while it is open.
        """
        return Opening(lambda: cls(conn_string, index, ttl), lambda store: store._begin())

    @property
    def embeddings(self) -> Embeddings | None:
        """What embeds, where there is an index."""
        return None if self._index is None else self._index.embeddings

    # -- life ------------------------------------------------------------------------------------------------------------

    def setup(self) -> Done:
        """Makes the tables where they are missing; the first use does so too. The answer may be awaited or not."""
        if self._store._session is None:  # pyright: ignore[reportPrivateUsage]
            self._store.initialize()  # the handle of a transaction is set up already
        return Done()

    def _begin(self) -> None:
        self.setup()
        if self.ttl_config and self.ttl_config.get("sweep_interval_minutes"):
            self._begin_sweeper(None)

    def close(self) -> None:
        """Stops the sweeper, and closes the store if this object opened it."""
        self._end_sweeper(None)
        if self._is_owner:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    # -- batches ---------------------------------------------------------------------------------------------------------

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """The answers in the order of the operations.

        Reads see what was there before the batch; its writes are one transaction, and the last one of a key wins.
        """
        plan = self._plan(list(ops))
        if self._index is not None and (plan.texts or plan.queries):
            self._place(plan, *self._index.embed(list(plan.texts), list(plan.queries)))
        return self._run(plan)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """The same, awaited. One that is cancelled may still be carried out."""
        plan = self._plan(list(ops))
        if self._index is not None and (plan.texts or plan.queries):
            self._place(plan, *await self._index.aembed(list(plan.texts), list(plan.queries)))
        return await asyncio.to_thread(self._run, plan)

    def _plan(self, ops: Sequence[Op]) -> _Plan:
        last: dict[tuple[tuple[str, ...], str], int] = {}
        plan = _Plan([])
        for place, op in enumerate(ops):
            validate_op_namespace(op)
            plan.operations.append(_operation(op))
            if isinstance(op, PutOp):
                last[tuple(op.namespace), op.key] = place
            elif self._index is not None and isinstance(op, SearchOp) and op.query:
                plan.queries.setdefault(op.query, len(plan.queries))
                plan.asked.append((place, op.query))
        if self._index is not None:
            for place in last.values():
                self._want(self._index, plan, place, cast("PutOp", ops[place]))
        return plan

    def _want(self, index: Index, plan: _Plan, place: int, op: PutOp) -> None:
        """Notes the texts of a put, after it is known that it can be stored: embedding may cost money."""
        values.entry_of(cast("values.Put", plan.operations[place]))
        if op.value is None:
            return
        texts = index.texts(op.value, op.index)
        for text in texts.values():
            plan.texts.setdefault(text, len(plan.texts))
        plan.wanted.append((place, texts))

    def _place(self, plan: _Plan, texts: Sequence[bytes], queries: Sequence[bytes]) -> None:
        """Puts vectors where they are wanted."""
        assert self._index is not None
        space = self._index.space
        for place, paths in plan.wanted:
            vectors = tuple(values.Vector(path, texts[plan.texts[text]]) for path, text in paths.items())
            put = cast("values.Put", plan.operations[place])
            plan.operations[place] = msgspec.structs.replace(put, space=space, vectors=vectors)
        for place, query in plan.asked:
            search = cast("values.Search", plan.operations[place])
            near = values.Near(space, queries[plan.queries[query]])
            plan.operations[place] = msgspec.structs.replace(search, near=near)

    def _run(self, plan: _Plan) -> list[Result]:
        answers = self._items.batch(plan.operations)
        return [_result(operation, answer) for operation, answer in zip(plan.operations, answers, strict=True)]

    # -- lives of items --------------------------------------------------------------------------------------------------

    def sweep_ttl(self) -> int:
        """How many items were deleted because their time was over."""
        return self._items.sweep()

    async def asweep_ttl(self) -> int:
        """The same, awaited."""
        return await asyncio.to_thread(self._items.sweep)

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> "Future[None]":
        """Sweeps in a thread every so many minutes (5 where nothing says otherwise); nothing without a ``ttl``.

        The answer ends when the sweeper does; cancelling it stops the sweeper.
        """
        return self._begin_sweeper(sweep_interval_minutes)

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Whether no sweeper runs any more after at most ``timeout`` seconds; None waits for one to finish."""
        return self._end_sweeper(timeout)

    def _begin_sweeper(self, minutes: float | None) -> "Future[None]":
        if not self.ttl_config:
            nothing: Future[None] = Future()
            nothing.set_result(None)
            return nothing
        if self._sweeper is not None and self._sweeper.running:
            return self._sweeper.done
        every = float(minutes or self.ttl_config.get("sweep_interval_minutes") or _SWEEP_MINUTES)
        self._sweeper = Sweeper(self._items, every * 60)
        return self._sweeper.start()

    def _end_sweeper(self, timeout: float | None) -> bool:
        if self._sweeper is not None and self._sweeper.stop(timeout):
            self._sweeper = None
        return self._sweeper is None


def _operation(op: Op) -> values.Operation:
    if isinstance(op, GetOp):
        return values.Get(tuple(op.namespace), op.key, bool(op.refresh_ttl))
    if isinstance(op, SearchOp):
        return values.Search(tuple(op.namespace_prefix), op.filter, op.limit, op.offset, None, bool(op.refresh_ttl))
    if isinstance(op, PutOp):
        return values.Put(tuple(op.namespace), op.key, op.value, op.ttl)
    if isinstance(op, ListNamespacesOp):
        conditions = tuple(values.Condition(one.match_type, tuple(one.path)) for one in op.match_conditions or ())
        return values.Namespaces(conditions, op.max_depth, op.limit, op.offset)
    raise Invalid(f"a batch holds operations of LangGraph's stores, not {type(op).__name__}", field="ops")


def _result(operation: values.Operation, answer: values.Answer) -> Result:
    if isinstance(answer, values.Item):
        return Item(
            value=answer.value, key=answer.key, namespace=answer.namespace, created_at=answer.created_at,
            updated_at=answer.updated_at,
        )  # fmt: skip
    if not isinstance(operation, values.Search):
        return cast("Result", answer)
    found = cast("list[values.Item]", answer)
    return [
        SearchItem(item.namespace, item.key, item.value, item.created_at, item.updated_at, item.score) for item in found
    ]
