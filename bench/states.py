"""States of an agent, step by step, and what saves them: perdure's checkpointer and LangGraph's savers.

A state is a list of messages, one more at each step, and the step's number. All savers get the same states; LangGraph's
get them as the channels of a checkpoint, through the ``put`` that a graph would call.
"""

import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import perdure
import perdure.sync
from bench import lanes, prose
from perdure import CheckpointConfig

THREAD = "thread"
KEY = "cGVyZHVyZSBiZW5jaCBrZXkgb2YgMzIgYnl0ZXMgISE="
"""A key of 32 bytes, so that no passphrase has to be derived."""
CONFIGS = {
    "plain": CheckpointConfig(compression="none"),
    "zstd": CheckpointConfig(),
    "encrypted": CheckpointConfig(compression="none", encryption_key=KEY),
    "encrypted, zstd": CheckpointConfig(encryption_key=KEY),
}
"""perdure's own; "zstd" is the default."""


@cache
def messages(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """Messages of about 400 bytes, each with an id of its own: savers may take equal ids for one message."""
    names = uuid.UUID(int=seed)
    return [
        {"id": str(uuid.uuid5(names, str(number))), "role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(prose.texts(count, seed))
    ]


def objects(said: list[dict[str, Any]]) -> list[Any]:
    """The same messages as LangChain's objects, which is what graphs have in their states."""
    from langchain_core.messages import AIMessage, HumanMessage

    kinds = {"user": HumanMessage, "assistant": AIMessage}
    return [kinds[one["role"]](one["content"], id=one["id"]) for one in said]


def state(said: list[Any], step: int) -> dict[str, Any]:
    """The state after so many steps."""
    return {"messages": said[:step], "step": step}


def raw_json(said: list[dict[str, Any]]) -> int:
    """Bytes of the last state as JSON text."""
    return len(json.dumps(state(said, len(said)), ensure_ascii=False, separators=(",", ":")).encode())


# -- perdure -------------------------------------------------------------------------------------------------------------


def save_all(checkpointer: Any, said: list[Any], thread: str = THREAD, first: int = 1) -> list[str]:
    """Saves every state from one step on, one after another; the ids of the checkpoints."""
    return [checkpointer.save(thread, state(said, step)) for step in range(first, len(said) + 1)]


@contextmanager
def checkpointer(url: str, config: CheckpointConfig) -> Iterator[Any]:
    """A blocking checkpointer on a store of its own."""
    with perdure.sync.open(url) as store:
        yield perdure.sync.Checkpointer(store, config)


def empty_size(folder: Path) -> int:
    """Bytes of a store's file that nothing was written to."""
    path = folder / "empty.db"
    with perdure.sync.open(lanes.url(path)):
        pass
    return path.stat().st_size


# -- LangGraph -----------------------------------------------------------------------------------------------------------


def put_all(saver: Any, said: list[Any], thread: str = THREAD, first: int = 1) -> list[dict[str, Any]]:
    """Puts every state from one step on as a checkpoint; the configurations that name them."""
    found: list[dict[str, Any]] = []
    config: dict[str, Any] = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    for step in range(first, len(said) + 1):
        config = put(saver, config, state(said, step), step)
        found.append(config)
    return found


def put(saver: Any, config: dict[str, Any], values: dict[str, Any], step: int) -> dict[str, Any]:
    """Puts one checkpoint after the one that a configuration names."""
    given = checkpoint(values, step)
    facts = {"source": "loop", "step": step, "parents": {}}
    return saver.put(config, given, facts, given["channel_versions"])


def checkpoint(values: dict[str, Any], step: int) -> dict[str, Any]:
    """A checkpoint as a graph makes one whose channels have all changed."""
    from langgraph.checkpoint.base.id import uuid6

    version = f"{step:032}.0"
    return {
        "v": 4, "id": str(uuid6(clock_seq=step)), "ts": datetime.now(UTC).isoformat(), "channel_values": values,
        "channel_versions": dict.fromkeys(values, version), "versions_seen": {}, "updated_channels": list(values),
    }  # fmt: skip


@contextmanager
def sqlite_saver(path: Path) -> Iterator[Any]:
    """LangGraph's ``SqliteSaver``; it keeps a write-ahead log, here with ``synchronous = NORMAL`` as perdure's."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.setup()
        saver.conn.execute("pragma synchronous = normal")
        if saver.conn.execute("pragma journal_mode").fetchone() != ("wal",):
            raise AssertionError("SqliteSaver keeps no write-ahead log any more")
        yield saver


@contextmanager
def postgres_saver(url: str) -> Iterator[Any]:
    """LangGraph's ``PostgresSaver``."""
    from langgraph.checkpoint.postgres import PostgresSaver

    with PostgresSaver.from_conn_string(url) as saver:
        saver.setup()
        yield saver


@contextmanager
def perdure_saver(path: Path, config: CheckpointConfig | None = None) -> Iterator[Any]:
    """perdure's saver for LangGraph."""
    from perdure.adapters.langgraph import PerdureSaver

    with PerdureSaver.from_conn_string(lanes.url(path), config=config) as saver:
        yield saver


def on_disk(path: Path) -> int:
    """Bytes of a database and what stands beside it."""
    return sum(found.stat().st_size for found in path.parent.glob(f"{path.name}*"))


def pages_of(path: Path) -> list[tuple[str, int]]:
    """The tables and indexes of a file and their bytes, the largest first."""
    db = sqlite3.connect(path)
    try:
        return db.execute("select name, sum(pgsize) from dbstat group by 1 order by 2 desc, 1").fetchall()
    finally:
        db.close()
