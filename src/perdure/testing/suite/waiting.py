"""Readers of the feed that wait: whoever commits wakes them, and nothing of them stays behind."""

import asyncio
import math
import sys
import time

import psycopg
import pytest

import perdure.kit.aio
import perdure.kit.blocking
import perdure.services.feed
import perdure.sync.feed
from perdure.testing.suite.apart import on_postgres, started, until
from perdure.values.errors import Closed, Invalid, Misused, OverLimit

_LONG = 50
_WRITER = """
import sys
import perdure.sync
with perdure.sync.open(sys.argv[1]) as store:
    store.add_message("c", "user", "x", id=sys.argv[2])
"""


@pytest.fixture
def only_woken(monkeypatch):
    """Readers never look unasked: what ends their wait has woken them."""
    for feed in (perdure.services.feed, perdure.sync.feed):
        monkeypatch.setattr(feed, "_LOOK_SECONDS", 600.0)


def _driver(store):
    return getattr(store, "_store", store)._shared.driver


def _readers(store):
    """How many wait at this moment."""
    waiting = _driver(store)._bell._waiting
    return waiting if isinstance(waiting, int) else len(waiting)


async def _reader(store, since, number=1, **kwargs):
    """A reader that waits by now."""
    reading = started(store, "changes", since, wait=_LONG, **kwargs)

    async def waits():
        return _readers(store) == number

    await until(waits)
    assert not reading.done()
    return reading


async def _found(reading):
    return [change.object_id for change in await asyncio.wait_for(reading, 20)]


async def _conversation(store):
    """The feed's end after a conversation was made."""
    await store.create_conversation("agent", "ann", id="c")
    return await store.latest_change()


# -- being woken -------------------------------------------------------------------------------------------------------------


async def test_a_reader_is_woken_by_a_commit_of_its_own_store(opener, only_woken):
    """By one verb, by many, by a transaction when it ends and not before."""
    async with opener() as store:
        cursor = await _conversation(store)
        reading = await _reader(store, cursor)
        await store.add_message("c", "user", "x", id="m1")
        assert await _found(reading) == ["m1"]
        reading = await _reader(store, (await store.changes()).next_cursor)
        await store.add_messages("c", [{"role": "user", "content": "x", "id": f"n{n}"} for n in range(30)])
        assert await _found(reading) == [f"n{n}" for n in range(30)]
        reading = await _reader(store, (await store.changes()).next_cursor)
        async with store.transaction() as t:
            await t.add_message("c", "user", "x", id="t1")
            await t.add_message("c", "user", "x", id="t2")
            assert not reading.done()
        assert await _found(reading) == ["t1", "t2"]


async def test_a_reader_is_woken_by_another_store(opener, only_woken):
    """Again and again; each entry is read once."""
    async with opener() as store, opener() as other:
        cursor = await _conversation(other)
        for number in range(5):
            reading = await _reader(store, cursor)
            await other.add_message("c", "user", "x", id=f"m{number}")
            page = await asyncio.wait_for(reading, 20)
            assert [change.object_id for change in page] == [f"m{number}"]
            cursor = page.next_cursor


async def test_a_reader_is_woken_by_another_process(opener, only_woken):
    """One that writes a single message and is gone."""
    async with opener() as store:
        reading = await _reader(store, await _conversation(store))
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _WRITER, opener.url, "m")
        assert await _found(reading) == ["m"]
        assert await process.wait() == 0


async def test_every_reader_is_woken(opener, only_woken):
    """All of one store, and those of another."""
    async with opener() as store, opener() as other:
        cursor = await _conversation(store)
        readers = [await _reader(one, cursor, number) for one in (store, other) for number in (1, 2, 3)]
        await store.add_message("c", "user", "x", id="m")
        assert [await _found(reading) for reading in readers] == [["m"]] * 6


async def test_a_reader_sleeps_on_when_it_was_woken_for_others(opener, only_woken):
    """For another kind, for another tenant."""
    async with opener() as store, opener() as other:
        cursor = await _conversation(store)
        reading = await _reader(store, cursor, kinds="message")
        await store.update_conversation("c", {"title": "t"})
        await other.for_tenant("acme").create_conversation("agent", "ann")
        await other.update_conversation("c", {"title": "u"})
        await other.add_message("c", "user", "x", id="m")
        assert await _found(reading) == ["m"]


async def test_a_reader_that_nobody_wakes_looks_by_itself(opener, monkeypatch):
    """Where announcements get lost, an entry comes a second later."""
    for kit in (perdure.kit.aio, perdure.kit.blocking):
        monkeypatch.setattr(kit.Bell, "ring", lambda _: None)
    async with opener() as store, opener() as other:
        cursor = await _conversation(store)
        reading = await _reader(store, cursor)
        await other.add_message("c", "user", "x", id="m")
        assert await _found(reading) == ["m"]


# -- not waiting, and waiting for nothing ------------------------------------------------------------------------------------


async def test_what_is_there_is_not_waited_for(opener):
    """Nor is anything for a page of nothing."""
    async with opener() as store:
        began = time.monotonic()
        await _conversation(store)
        assert [change.object_id for change in await store.changes(wait=60)] == ["c"]
        cursor = await store.latest_change()
        none = await store.changes(cursor, limit=0, wait=60)
        assert (list(none), none.next_cursor) == ([], cursor)
        assert list(await store.changes(cursor, kinds=[], wait=60)) == []
        assert time.monotonic() - began < 20


async def test_a_wait_in_vain_ends_with_an_empty_page(opener):
    """Not before its time; the cursor stays."""
    async with opener() as store:
        cursor = await _conversation(store)
        began = time.monotonic()
        page = await store.changes(cursor, wait=0.2)
        assert (list(page), page.next_cursor) == ([], cursor)
        assert 0.2 <= time.monotonic() - began < 10
        assert _readers(store) == 0


async def test_how_long_one_may_wait(opener):
    """From 0 to 60 seconds."""
    async with opener() as store:
        for wrong in (-1, -0.001, math.nan, True, "1", None, -math.inf):
            with pytest.raises(Invalid) as refused:
                await store.changes(wait=wrong)
            assert (refused.value.field, type(refused.value)) == ("wait", Invalid), wrong
        for wrong in (60.001, 61, 10**400, math.inf):
            with pytest.raises(OverLimit) as refused:
                await store.changes(wait=wrong)
            assert (refused.value.field, refused.value.details["limit"]) == ("wait", 60)


async def test_waiting_inside_a_transaction_is_misuse(opener):
    """On its handle and on the store; looking is not."""
    async with opener() as store:
        cursor = await _conversation(store)
        async with store.transaction() as t:
            assert list(await t.changes(cursor, wait=0)) == []
            for handle in (t, store):
                with pytest.raises(Misused):
                    await handle.changes(cursor, wait=0.1)


# -- ending ------------------------------------------------------------------------------------------------------------------


async def test_closing_the_store_ends_the_wait(opener):
    """With ``Closed``, for each who waits, at once; a later reader is told the same."""
    async with opener() as store:
        cursor = await _conversation(store)
        readers = [await _reader(store, cursor, number) for number in (1, 2)]
        began = time.monotonic()
        await started(store, "close")
        for reading in readers:
            with pytest.raises(Closed):
                await asyncio.wait_for(reading, 20)
        assert time.monotonic() - began < 10
        with pytest.raises(Closed):
            await store.changes(cursor, wait=1)


@pytest.mark.parametrize("opener", ["sqlite", "postgres"], indirect=True)
async def test_a_cancelled_reader_leaves_nothing_behind(opener, only_woken):
    """Nobody waits, and the next reader is served."""
    async with opener() as store:
        cursor = await _conversation(store)
        tasks = asyncio.all_tasks()
        readers = [await _reader(store, cursor, number) for number in range(1, 11)]
        for reading in readers:
            reading.cancel()
        ended = await asyncio.gather(*readers, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        assert _readers(store) == 0
        if opener.engine == "sqlite":
            assert _driver(store).engine._watch._attending == 0
            assert asyncio.all_tasks() == tasks
        reading = await _reader(store, cursor)
        await store.add_message("c", "user", "x", id="m")
        assert await _found(reading) == ["m"]


# -- PostgreSQL's announcements ----------------------------------------------------------------------------------------------

_LISTENING = "select pid from pg_stat_activity where query = 'listen perdure' and datname = current_database()"


@on_postgres
async def test_one_connection_listens_and_is_made_anew(opener, only_woken):
    """None before somebody waits, one for all of a store's readers, another one when the server ended it."""
    async with opener() as store, opener() as other:
        cursor = await _conversation(store)
        assert await store.execute(_LISTENING) == []
        readers = [await _reader(store, cursor, number) for number in (1, 2, 3)]

        async def listening():
            return await store.execute(_LISTENING)

        ((first,),) = await until(listening)
        await other.execute("select pg_terminate_backend(%s)", (first,))

        async def listening_again():
            return [pid for (pid,) in await store.execute(_LISTENING) if pid != first]

        assert len(await until(listening_again)) == 1
        await other.add_message("c", "user", "x", id="m")
        assert [await _found(reading) for reading in readers] == [["m"]] * 3


@on_postgres
async def test_announcements_are_few_and_say_nothing(opener):
    """Many commits share one, and it names the schema only."""
    async with opener() as store:
        await _conversation(store)
        async with await psycopg.AsyncConnection.connect(opener.url, autocommit=True) as listener:
            await listener.execute("listen perdure")
            began = time.monotonic()
            for number in range(200):
                await store.add_message("c", "user", f"secret {number}")
            took = time.monotonic() - began
            await started(store, "close")
            heard = [notice.payload async for notice in listener.notifies(timeout=0.5)]
        assert set(heard) == {"perdure"}
        assert 1 <= len(heard) <= took / 0.02 + 3


@on_postgres
async def test_a_reader_behind_an_open_transaction_is_woken_by_its_end(opener, only_woken):
    """Entries that were committed meanwhile come with it, in the feed's order."""
    async with opener() as store, opener() as slow:
        await slow.create_conversation("agent", "ann", id="slow")
        cursor = await _conversation(store)
        async with slow.transaction() as t:
            await t.add_message("slow", "user", "x", id="s")
            reading = await _reader(store, cursor)
            await store.add_message("c", "user", "x", id="m")
            assert not reading.done()
        assert await _found(reading) == ["s", "m"]


@on_postgres
async def test_a_guest_does_not_wait(opener):
    """Its transaction is somebody else's."""
    async with opener() as store:
        cursor = await _conversation(store)
        if opener.blocking:
            with psycopg.connect(opener.url) as connection, pytest.raises(Misused):
                await store.within(connection).changes(cursor, wait=1)
        else:
            async with await psycopg.AsyncConnection.connect(opener.url) as connection:
                with pytest.raises(Misused):
                    await store.within(connection).changes(cursor, wait=1)
