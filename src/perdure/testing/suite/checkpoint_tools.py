"""What the tests of checkpoints share: comparing to the type, what is stored, histories in short."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.testing.suite.tools import row_count

TABLES = (
    "checkpoint_threads", "checkpoint_branches", "checkpoints", "checkpoint_tags", "checkpoint_items",
    "checkpoint_segments", "checkpoint_runs", "checkpoint_writes",
)  # fmt: skip
"""Tables that hold what threads are made of."""


def alike(a: Any, b: Any) -> bool:
    """Whether two values are the same in type and content, at every depth; the order of keys counts too."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, set | frozenset):
        return sorted(map(_named, a)) == sorted(map(_named, b))
    if isinstance(a, msgspec.Struct):
        return alike(msgspec.structs.asdict(a), msgspec.structs.asdict(b))
    if dataclasses.is_dataclass(a):
        return alike(vars(a), vars(b))
    if hasattr(a, "dtype"):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    return _named(a) == _named(b)


def _named(value: Any) -> str:
    """Tells 1 from 1.0 and True, -0.0 from 0.0, a moment in one zone from the same in another."""
    return f"{type(value)} {value!r}"


async def saved(checkpointer: Any, thread_id: str, *states: Mapping[str, Any], **more: Any) -> list[str]:
    """The ids of states saved one after another."""
    return [await checkpointer.save(thread_id, state, **more) for state in states]


async def restored(checkpointer: Any, ids: list[str]) -> list[Any]:
    """The states of checkpoints."""
    return [await checkpointer.restore(one) for one in ids]


async def rows(store: Any) -> dict[str, int]:
    """How many rows each table of checkpoints has."""
    return {table: await row_count(store, table) for table in TABLES}


async def contents(store: Any) -> dict[str, list[str]]:
    """Every row of every table of checkpoints, without their order."""
    return {
        table: sorted(repr([_plain(value) for value in row]) for row in await store.execute(f"select * from {table}"))
        for table in TABLES
    }


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


async def stored_bytes(store: Any) -> int:
    """Bytes of all items and segments."""
    total = 0
    for table in ("checkpoint_items", "checkpoint_segments"):
        total += (await store.execute(f"select coalesce(sum(length(payload)), 0) from {table}"))[0][0]
    return int(total)


async def sound(checkpointer: Any) -> None:
    """Nothing, when ``verify`` finds nothing wrong."""
    assert (await checkpointer.verify()).problems == ()
