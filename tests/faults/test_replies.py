"""Every creating verb is sent one to five times under one key, with replies that get lost: one effect, one id.

``PERDURE_REPLIES`` sets how often each verb goes through that in the full run (500 unless given).
"""

import asyncio
import inspect
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from kill_worker import perform
from zygote import Zygote

import perdure
import perdure.sync
from perdure.testing.drivers import Opener

ROUNDS, ROUNDS_FULL = 12, int(os.environ.get("PERDURE_REPLIES", "500"))
DRAFTS = [{"role": "user", "content": f"part {number}"} for number in range(3)]
LONG = [{"role": "user", "content": f"part {number}"} for number in range(12)]
RESPONSES = [{"type": "message", **draft} for draft in DRAFTS]
VERBS: dict[str, Callable[[Any, str], Any]] = {
    "create_conversation": lambda s, key: s.create_conversation("agent", key, {"tags": ["t"]}, idempotency_key=key),
    "fork_conversation": lambda s, key: s.fork_conversation("source", 2, idempotency_key=key),
    "add_message": lambda s, key: s.add_message("source", "user", f"said {key}", idempotency_key=key),
    "add_messages": lambda s, key: s.add_messages("source", DRAFTS, idempotency_key=key),
    "add_messages, many": lambda s, key: s.add_messages("source", LONG, idempotency_key=key),
    "import_openai": lambda s, key: s.import_openai("source", LONG, idempotency_key=key),
    "import_openai_responses": lambda s, key: s.import_openai_responses("source", RESPONSES, idempotency_key=key),
    "import_anthropic": lambda s, key: s.import_anthropic("source", DRAFTS, "Be brief.", idempotency_key=key),
}
CREATES = {"create_conversation": (1, 0), "fork_conversation": (1, 0), "add_message": (0, 1), "add_messages": (0, 3),
           "add_messages, many": (0, 12), "import_openai": (0, 12), "import_openai_responses": (0, 3),
           "import_anthropic": (0, 4)}  # fmt: skip
"""Conversations and messages that one effect of each verb adds."""


def test_every_verb_with_a_key_is_here():
    """A new creating verb must join the table above."""
    keyed = {
        name for name, verb in inspect.getmembers(perdure.Store, inspect.iscoroutinefunction)
        if "idempotency_key" in inspect.signature(verb).parameters and not name.startswith("_")
    }  # fmt: skip
    assert keyed == {name.split(",")[0] for name in VERBS}


async def send(opener: Opener, store: Any, verb: Callable[..., Any], key: str, rng: random.Random) -> bool:
    """Sends and loses the reply: the caller gives up at some moment, or takes it and drops it. Was it cancelled?"""
    if opener.blocking:
        await asyncio.to_thread(asyncio.run, _call(store, verb, key))
        return False
    task = asyncio.create_task(_call(store, verb, key))
    turns = rng.choice((0, 1, 2, 3, 5, 8, 13, 30))
    for _ in range(turns):
        await asyncio.sleep(0 if opener.engine == "sqlite" else rng.uniform(0, 0.0005))
    if rng.random() < 0.2:
        await task
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


async def _call(store: Any, verb: Callable[..., Any], key: str) -> Any:
    return await verb(store, key)


async def count(store: Any) -> tuple[int, int]:
    found = await store.stats()
    return found["conversations"], found["messages"]


async def drop_replies(opener: Opener, rounds: int, rng: random.Random) -> dict[str, Any]:
    """Sends every verb again and again; the figures, once every key was found to have had one effect."""
    figures: Counter[str] = Counter(keys=0, sent=0, cancelled=0, twice=0)
    async with opener() as store, opener() as other:
        await store.create_conversation("agent", "ann", id="source")
        await store.add_messages("source", DRAFTS)
        for number in range(rounds):
            for name, verb in VERBS.items():
                key = f"{name} {number}"
                before = await count(store)
                sends = rng.randint(1, 5)
                for _ in range(sends - 1):
                    where = rng.choice((store, other))
                    if rng.random() < 0.3:  # two at the same moment
                        both = await asyncio.gather(*(send(opener, s, verb, key, rng) for s in (store, other)))
                        figures["sent"] += 1
                        figures["cancelled"] += sum(both)
                    else:
                        figures["cancelled"] += await send(opener, where, verb, key, rng)
                answers = [await verb(store, key), await verb(other, key)]
                assert answers[0] == answers[1]
                conversations, messages = CREATES[name]
                inherited = 2 if name == "fork_conversation" else 0
                assert await count(store) == (before[0] + conversations, before[1] + messages + inherited), key
                figures["keys"] += 1
                figures["sent"] += sends + 1
        seqs = [message.seq for message in await store.get_messages("source", limit=1_000)]
        assert seqs == list(range(1, len(seqs) + 1))
        assert (await store.doctor())["problems"] in ([], ["fsync is off: a power failure can lose everything"])
    return figures


async def test_lost_replies(opener, seeded_random, tell):
    figures = await drop_replies(opener, ROUNDS, seeded_random)
    if not opener.blocking:
        assert figures["cancelled"] > figures["keys"] // 4
    tell(f"replies_{opener.driver}", **figures)


@pytest.mark.full
@pytest.mark.timeout(0)
async def test_lost_replies_full(opener, seeded_random, tell):
    tell(f"replies_{opener.driver}_full", **await drop_replies(opener, ROUNDS_FULL, seeded_random))


def die_after_commit(url: str, rounds: int, rng: random.Random) -> dict[str, Any]:
    """Processes that commit and are gone before anybody hears of it; the last one to ask gets the first one's ids."""
    calls: list[dict[str, Any]] = [
        {"verb": "create_conversation", "user": "ann", "id": "made"},
        {"verb": "add_message", "conversation": "source"},
        {"verb": "add_messages", "conversation": "source", "count": 3},
        {"verb": "fork_conversation", "id": "source", "at_seq": 1, "new_id": "forked"},
    ]
    figures: Counter[str] = Counter(keys=0, killed=0, twice=0)
    with Zygote("reply_worker") as zygote, perdure.sync.open(url) as store:
        store.create_conversation("agent", "ann", id="source")
        store.add_message("source", "user", "first")
        for number in range(rounds):
            for call in calls:
                token = f"{call['verb']}-{number}"
                own = {name: f"{call[name]}-{number}" for name in ("new_id",) if name in call}
                if call["verb"] == "create_conversation":
                    own["id"] = f"made-{number}"
                whole = {"number": number, "text": "words", "token": token, "key": token, **call, **own}
                before = store.stats()
                for _ in range(rng.randint(1, 4)):
                    assert zygote.wait(zygote.start(url=url, call=whole)) == -9
                    figures["killed"] += 1
                after = store.stats()
                answer = perform(store, whole)
                assert store.stats() == after
                assert perform(store, whole) == answer
                created = after["conversations"] - before["conversations"], after["messages"] - before["messages"]
                assert created == {
                    "create_conversation": (1, 0), "add_message": (0, 1), "add_messages": (0, 3),
                    "fork_conversation": (1, 1),
                }[call["verb"]]  # fmt: skip
                figures["keys"] += 1
    return figures


def test_processes_that_die_after_the_commit_on_sqlite(tmp_path, seeded_random, tell):
    tell("replies_killed_sqlite", **die_after_commit(f"sqlite:///{tmp_path}/store.db", 4, seeded_random))


def test_processes_that_die_after_the_commit_on_postgres(fresh_postgres_url, seeded_random, tell):
    tell("replies_killed_postgres", **die_after_commit(fresh_postgres_url, 2, seeded_random))
