"""Callers that are cancelled at any moment: no call has half an effect, no transaction stays open, no connection is lost.

A driver in which psycopg itself is cancelled fails here: it leaves pipelines open, in which COMMIT is queued and never
sent, while the caller is told that all is well.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import apsw
import psycopg
import pytest

from perdure.kit import aio
from perdure.values.errors import Busy, Conflict, Invalid, Unavailable

on_postgres = pytest.mark.parametrize("opener", ["postgres"], indirect=True)
on_sqlite = pytest.mark.parametrize("opener", ["sqlite"], indirect=True)
awaited = pytest.mark.parametrize("opener", ["sqlite", "postgres"], indirect=True)
DEADLINE = 20.0
ROUNDS, ROUNDS_FULL = 25, 1_500


def drafts(key: str, count: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"{key} {number}"} for number in range(count)]


async def _block(store: Any, conversation: str, key: str) -> None:
    async with store.transaction() as t:
        await t.add_message(conversation, "user", f"{key} first", idempotency_key=f"{key} 1")
        await t.add_messages(conversation, drafts(key, 25), idempotency_key=f"{key} 2")
        await t.get_messages(conversation)
        await t.add_messages(conversation, drafts(key, 3), idempotency_key=f"{key} 3")


Call = Callable[[Any, str, str], Awaitable[Any]]
WRITES: dict[str, tuple[int, Call]] = {
    "one": (1, lambda s, c, key: s.add_message(c, "user", f"{key} 0", idempotency_key=key)),
    "few": (3, lambda s, c, key: s.add_messages(c, drafts(key, 3), idempotency_key=key)),
    "many": (12, lambda s, c, key: s.add_messages(c, drafts(key, 12), idempotency_key=key)),
    "arrays": (30, lambda s, c, key: s.add_messages(c, drafts(key, 30), idempotency_key=key)),
    "import": (12, lambda s, c, key: s.import_openai(c, drafts(key, 12), idempotency_key=key)),
    "block": (29, _block),
}
"""Messages that one effect of each call adds; the text of each begins with the call's key."""
OTHERS: list[Call] = [
    lambda s, c, key: s.create_conversation("agent", key, {"tags": ["t"]}, id=key),
    lambda s, c, key: s.fork_conversation(c, 1, idempotency_key=f"fork {key}"),
    lambda s, c, key: s.update_conversation(c, {"title": key}),
    lambda s, c, key: s.get_conversation(c, include_messages=True),
    lambda s, c, key: s.query_conversations("ann", filters={"tags": ["t"]}),
    lambda s, c, key: s.search_messages("first"),
    lambda s, c, key: s.get_messages(c, limit=1_000),
    lambda s, c, key: s.context_window(c, 1_000),
    lambda s, c, key: s.stats(),
    lambda s, c, key: s.execute("select count(*) from messages"),
]


def keep_loop_busy(seconds: float) -> None:
    """Nobody else has a turn meanwhile. psycopg gives others a turn, at places of its own, when that was long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def disturb(tasks: list[asyncio.Task[Any]], rng: random.Random) -> None:
    """Cancels some of the tasks, at some moment, some of them more than once, and waits for all."""
    for task in rng.sample(tasks, rng.randint(1, len(tasks))):
        for _ in range(rng.choice((0, 0, 1, 2, 3, 5, 8, 13))):
            if rng.random() < 0.3:
                keep_loop_busy(0.006)
            await asyncio.sleep(rng.choice((0, 0, 0.0003, 0.001)))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            task.cancel()
            if rng.random() < 0.3:
                await asyncio.sleep(0)
    _, pending = await asyncio.wait(tasks, timeout=DEADLINE)
    assert not pending


async def counts(store: Any, conversation: str) -> Counter[str]:
    found: Counter[str] = Counter()
    after, seqs = 0, []
    while page := list(await store.get_messages(conversation, limit=1_000, after=after)):
        found.update(message.text.rsplit(" ", 1)[0] for message in page)
        seqs += [message.seq for message in page]
        after = seqs[-1]
    assert seqs == list(range(1, len(seqs) + 1))
    return found


async def one_round(store: Any, number: int, rng: random.Random) -> Counter[str]:
    conversation = f"c{number}"
    await store.create_conversation("agent", "ann", {"tags": ["t"]}, id=conversation)
    await store.add_message(conversation, "user", "first 0")
    writes = {f"{name} {number} {place}": WRITES[name] for place, name in enumerate(rng.choices(list(WRITES), k=3))}
    calls = [(call, key) for key, (_, call) in writes.items()]
    calls += [(call, f"other {number} {place}") for place, call in enumerate(rng.choices(OTHERS, k=3))]
    rng.shuffle(calls)
    tasks = [asyncio.ensure_future(call(store, conversation, key)) for call, key in calls]
    await disturb(tasks, rng)
    for task in tasks:
        if not task.cancelled():
            task.result()  # whom nobody cancelled gets an answer, and no error
    found = await counts(store, conversation)
    for key, (count, _) in writes.items():
        assert found[key] in {0, count}, key
    for key, (count, call) in writes.items():
        await call(store, conversation, key)
        assert (await counts(store, conversation))[key] == count, key
    return Counter(calls=len(tasks), cancelled=sum(task.cancelled() for task in tasks))


async def at_rest(url: str) -> None:
    """Waits until no session of the store's does anything or holds a transaction."""
    async with asyncio.timeout(DEADLINE), await psycopg.AsyncConnection.connect(url, autocommit=True) as own:
        while True:
            cursor = await own.execute(
                "select state, query from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'"
            )
            if not await cursor.fetchall():
                return


async def every_connection_works(store: Any, size: int) -> None:
    """As many transactions as there are connections, all at the same time."""
    inside = asyncio.Barrier(size)

    async def use() -> None:
        async with store.transaction() as t:
            await inside.wait()
            await t.add_message("c0", "user", "at the end 0")

    async with asyncio.timeout(DEADLINE):
        before = (await counts(store, "c0"))["at the end"]
        await asyncio.gather(*(use() for _ in range(size)))
        assert (await counts(store, "c0"))["at the end"] == before + size


async def cancel_at_random(opener: Any, rounds: int, rng: random.Random) -> dict[str, Any]:
    figures: Counter[str] = Counter()
    async with opener(pool_size=3, max_overflow=0) as store:
        for number in range(rounds):
            figures += await one_round(store, number, rng)
        if opener.engine == "postgres":
            await at_rest(opener.url)
            await every_connection_works(store, 3)
        else:
            other = apsw.Connection(opener.url.removeprefix("sqlite:///"))
            other.execute("begin immediate; rollback")  # at once: nobody holds the file
            other.close()
        assert (await store.doctor())["problems"] in ([], ["fsync is off: a power failure can lose everything"])
    return figures


@awaited
async def test_calls_cancelled_at_random(opener, seeded_random, tell):
    figures = await cancel_at_random(opener, ROUNDS, seeded_random)
    assert figures["cancelled"] > ROUNDS // 2
    tell(f"cancelled_{opener.driver}", **figures)


@pytest.mark.full
@pytest.mark.timeout(0)
@awaited
async def test_calls_cancelled_at_random_full(opener, seeded_random, tell):
    tell(f"cancelled_{opener.driver}_full", **await cancel_at_random(opener, ROUNDS_FULL, seeded_random))


@awaited
async def test_a_verb_cancelled_inside_a_transaction_takes_only_itself_back(opener, seeded_random):
    """Its transaction goes on: what was done before and after it is kept."""
    async with opener() as store:
        for number in range(60):
            conversation = f"c{number}"
            await store.create_conversation("agent", "ann", id=conversation)
            async with asyncio.timeout(DEADLINE), store.transaction() as t:
                for step in range(3):
                    await t.add_message(conversation, "user", f"kept {step}")
                    verb = t.add_messages(conversation, drafts(f"tried {step}", seeded_random.choice((2, 12, 30))))
                    await disturb([asyncio.ensure_future(verb)], seeded_random)
            found = await counts(store, conversation)
            assert found["kept"] == 3
            assert {found[f"tried {step}"] for step in range(3)} <= {0, 2, 12, 30}


@on_postgres
async def test_a_cancelled_guest_takes_only_itself_back(opener, seeded_random):
    """The host's own statements before it stay, and its connection goes on."""
    async with opener() as store, await psycopg.AsyncConnection.connect(opener.url) as own:
        await own.execute("create table public.mine (n int)")
        await own.commit()
        for number in range(40):
            conversation = f"c{number}"
            await store.create_conversation("agent", "ann", id=conversation)
            await own.execute("insert into public.mine values (1)")
            guest = store.within(own)
            for step in range(2):
                verb = guest.add_messages(conversation, drafts(f"tried {step}", seeded_random.choice((2, 12, 30))))
                await disturb([asyncio.ensure_future(verb)], seeded_random)
            await guest.add_message(conversation, "user", "kept 0")
            await own.commit()
            found = await counts(store, conversation)
            assert found["kept"] == 1
            assert {found[f"tried {step}"] for step in range(2)} <= {0, 2, 12, 30}
        assert await (await own.execute("select count(*) from public.mine")).fetchone() == (40,)


SLEEP = "select pg_sleep(100)"


async def sleeper(url: str, *, there: bool = True) -> int:
    """The process that runs SLEEP, once it does; 0 once none does."""
    async with asyncio.timeout(DEADLINE), await psycopg.AsyncConnection.connect(url, autocommit=True) as own:
        while True:
            row = await (
                await own.execute("select pid from pg_stat_activity where state = 'active' and query = %s", (SLEEP,))
            ).fetchone()
            if (row is not None) is there:
                return row[0] if row else 0


@on_postgres
async def test_the_server_stops_what_nobody_waits_for(opener):
    """Also for a caller in a block, whose block goes on."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c0")
        task = asyncio.ensure_future(store.execute(SLEEP))
        await sleeper(opener.url)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, DEADLINE)
        assert task.cancelled()
        await sleeper(opener.url, there=False)
        await every_connection_works(store, 2)


@on_postgres
async def test_a_lock_that_nobody_waits_for_any_more_is_not_waited_for(opener):
    """A verb that waits for another transaction's row ends at once when its caller does."""
    async with opener() as store, opener() as other:
        await store.create_conversation("agent", "ann", id="c0")
        async with other.transaction() as t:
            await t.add_messages("c0", drafts("held", 12))
            waiting = [asyncio.ensure_future(store.add_messages("c0", drafts("gone", 12))) for _ in range(3)]
            async with asyncio.timeout(DEADLINE), await psycopg.AsyncConnection.connect(opener.url) as own:
                await own.set_autocommit(True)
                stuck = "select count(*) from pg_locks where not granted"
                while (await (await own.execute(stuck)).fetchone() or (0,))[0] < 3:
                    pass
            for task in waiting:
                task.cancel()
            done, _ = await asyncio.wait(waiting, timeout=2)
            assert len(done) == 3
            assert all(task.cancelled() for task in waiting)
        assert await counts(store, "c0") == {"held": 12}


@on_postgres
async def test_a_server_that_does_not_answer_holds_no_cancelled_caller(opener, monkeypatch):
    """Its connection is cut, and another takes its place."""
    monkeypatch.setattr(aio, "_PATIENCE_SECONDS", 0.1)
    async with opener(pool_size=2, max_overflow=0) as store:
        await store.create_conversation("agent", "ann", id="c0")
        task = asyncio.ensure_future(store.execute(SLEEP))
        process = await sleeper(opener.url)
        os.kill(process, signal.SIGSTOP)
        try:
            task.cancel()
            done, _ = await asyncio.wait((task,), timeout=DEADLINE)
            assert done
            assert task.cancelled()
            await every_connection_works(store, 2)
        finally:
            os.kill(process, signal.SIGCONT)


@on_postgres
async def test_callers_cancelled_while_connections_change_hands(opener, seeded_random):
    """A connection that goes from one caller to the next is not lost when one of them is cancelled at that moment."""
    async with opener(pool_size=2, max_overflow=0) as store:
        await store.create_conversation("agent", "ann", id="c0")
        for _ in range(120):
            tasks = [asyncio.ensure_future(store.get_conversation("c0")) for _ in range(5)]
            await asyncio.wait(tasks, timeout=seeded_random.uniform(0, 0.004), return_when=asyncio.FIRST_COMPLETED)
            for task in seeded_random.sample(tasks, len(tasks)):
                task.cancel()
                for _ in range(seeded_random.choice((0, 1, 1, 2))):
                    await asyncio.sleep(0)
            await asyncio.wait(tasks, timeout=DEADLINE)
        await every_connection_works(store, 2)


@on_postgres
async def test_a_block_that_is_cancelled_while_it_ends_is_committed_or_taken_back(opener, seeded_random):
    async with opener(pool_size=1, max_overflow=0) as store:
        await store.create_conversation("agent", "ann", id="c0")

        async def block(key: str) -> None:
            async with store.transaction() as t:
                verb = asyncio.ensure_future(t.add_messages("c0", drafts(key, 12)))
                await asyncio.sleep(seeded_random.choice((0, 0.002)))
            with suppress(Busy, Unavailable):
                await verb

        for number in range(40):
            task = asyncio.ensure_future(block(f"block {number}"))
            await disturb([task], seeded_random)
        await at_rest(opener.url)
        found = await counts(store, "c0")
        assert set(found.values()) <= {12}


@pytest.mark.parametrize("opener", ["postgres", "postgres-blocking"], indirect=True)
@pytest.mark.parametrize("uses", range(1, 9))
async def test_a_failed_pipeline_leaves_no_statement_that_only_the_client_thinks_is_prepared(opener, uses):
    """Whichever statement was to be prepared in it: the next user of the connection finds what it needs."""
    async with opener(pool_size=1, max_overflow=0) as store:
        with pytest.raises(Invalid):
            await store.execute("select 1 / 0")  # psycopg forgets on the first rollback only, if there is nothing yet
        await store.create_conversation("agent", "ann", id="c0")
        for number in range(uses):
            await store.add_message("c0", "user", "kept 0", id=f"m{number}")
        for _ in range(3):
            with pytest.raises(Conflict):
                await store.add_message("c0", "user", "twice 0", id="m0")
        for _ in range(5):
            await store.add_message("c0", "user", "kept 0")
        assert await counts(store, "c0") == {"kept": uses + 5}


@awaited
async def test_the_loop_goes_on_while_a_long_text_is_analysed(opener):
    """Others have their turn in between; the longest they wait is a small part of it."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c0")
        words = random.Random(1)
        text = " ".join(f"{words.choice('abcdefghij')}{words.randrange(50_000)}" for _ in range(20_000))
        await store.add_messages("c0", [{"role": "user", "content": text}] * 8)
        started = last = time.perf_counter()
        longest = 0.0
        task = asyncio.ensure_future(store.absorb_text())
        while not task.done():
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        assert await task
        assert longest < 0.3 * (last - started)
