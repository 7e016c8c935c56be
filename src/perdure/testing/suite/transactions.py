"""Transactions of several verbs: together or not at all, never a deadlock, never for ever."""

import asyncio
import contextlib
import os
import time

import apsw
import psycopg
import psycopg.rows
import pytest

from perdure.testing.suite.apart import on_postgres, on_sqlite, started, until
from perdure.values.errors import Busy, Conflict, Invalid, Misused, NotFound, Unavailable


async def _texts(store, conversation="c"):
    return [message.text for message in await store.get_messages(conversation)]


async def _conversation(store, name="c"):
    await store.create_conversation("agent", "ann", id=name)


# -- together ----------------------------------------------------------------------------------------------------------------


async def test_verbs_of_a_block_commit_together(opener):
    """They see each other's changes inside; others see all of them or none."""
    async with opener() as store, opener() as other:
        async with store.transaction() as t:
            await _conversation(t)
            await t.add_message("c", "user", "one")
            await t.add_messages("c", [{"role": "user", "content": f"{n}"} for n in range(30)])
            await t.edit_message((await t.get_messages("c"))[0].id, "changed")
            assert len(await _texts(t)) == 31
            assert (await t.get_conversation("c")).message_count == 31
            assert await other.get_conversation("c") is None
        assert (await other.get_conversation("c")).message_count == 31
        assert (await _texts(other))[0] == "changed"
        assert [hit.message.text for hit in await other.search_messages("changed")] == ["changed"]


async def test_a_block_that_raises_leaves_nothing(opener):
    """No row, no total, no index term, no entry; the error arrives as it was."""
    async with opener() as store:
        await _conversation(store)
        before = await store.get_conversation("c")
        with pytest.raises(ZeroDivisionError):
            async with store.transaction() as t:
                await _conversation(t, "d")
                await t.add_message("c", "user", "zebra", token_usage={"input_tokens": 5, "model": "m"})
                assert len(await t.search_messages("zebra")) == 1
                raise ZeroDivisionError
        assert await store.get_conversation("d") is None
        assert await store.get_conversation("c") == before
        assert await store.search_messages("zebra") == []
        assert await store.token_report() == []
        assert (await store.add_message("c", "user", "next")).seq == 1


async def test_an_error_caught_inside_takes_back_its_own_verb_only(opener):
    """The rest of the block goes on and commits."""
    async with opener() as store:
        await _conversation(store)
        async with store.transaction() as t:
            await t.add_message("c", "user", "one", id="m1")
            with pytest.raises(Conflict):
                await t.add_messages(
                    "c", [{"role": "user", "content": "x"}, {"role": "user", "content": "x", "id": "m1"}]
                )
            with pytest.raises(NotFound):
                await t.add_message("none", "user", "x")
            with pytest.raises(Invalid):
                await t.add_message("c", "nobody", "x")
            await t.add_message("c", "user", "two")
        assert await _texts(store) == ["one", "two"]
        assert [message.seq for message in await store.get_messages("c")] == [1, 2]
        assert (await store.get_conversation("c")).message_count == 2


async def test_every_kind_of_verb_works_inside(opener):
    """Also with idempotency keys, forks, ensured conversations, other actors and tenants."""
    async with opener() as store:
        await store.ensure_conversation("later", "agent", "ann")
        async with store.transaction() as t:
            await t.create_conversation("agent", "ann", id="c", idempotency_key="k")
            again = await t.create_conversation("agent", "ann", id="c", idempotency_key="k")
            assert again.id == "c"
            await t.add_message("later", "user", "x")
            await t.flush("c", [{"role": "user", "content": "f"}])
            await t.fork_conversation("c", 1, "fork")
            await t.acting_as("bob").add_message("fork", "user", "x")
            await t.for_tenant("acme").create_conversation("agent", "ann", id="c")
            assert {found.id for found in await t.query_conversations()} == {"c", "fork", "later"}
            await t.delete_conversation("fork")
            await t.erase_conversation("later")
        assert [found.id for found in await store.query_conversations()] == ["c"]
        assert [found.id for found in await store.for_tenant("acme").query_conversations()] == ["c"]


async def test_an_empty_block_and_a_reading_one_are_fine(opener):
    """Nothing happens."""
    async with opener() as store:
        async with store.transaction():
            pass
        async with store.transaction() as t:
            assert await t.get_conversation("c") is None
        assert list(await store.changes()) == []


# -- misuse ------------------------------------------------------------------------------------------------------------------


async def test_a_verb_of_the_store_inside_the_block_is_misused(opener):
    """Not a deadlock; reading, writing, administration and other handles of the same store alike."""
    async with opener() as store:
        await _conversation(store)
        async with store.transaction() as t:
            await t.add_message("c", "user", "kept")
            for handle in (store, store.acting_as("x"), store.for_tenant("acme")):
                with pytest.raises(Misused, match="inside its transaction"):
                    await handle.add_message("c", "user", "x")
                with pytest.raises(Misused):
                    await handle.get_conversation("c")
                with pytest.raises(Misused):
                    await handle.search_messages("x")
                with pytest.raises(Misused):
                    await handle.changes()
            with pytest.raises(Misused):
                await store.execute("select 1")
            with pytest.raises(Misused):
                await t.execute("select 1")
        assert await _texts(store) == ["kept"]


async def test_a_block_inside_a_block_is_misused(opener):
    """On the store and on the transaction's handle; the outer one goes on."""
    async with opener() as store:
        await _conversation(store)
        async with store.transaction() as t:
            for handle in (store, t):
                with pytest.raises(Misused, match="open already"):
                    async with handle.transaction():
                        pytest.fail("entered")
            await t.add_message("c", "user", "kept")
        assert await _texts(store) == ["kept"]


async def test_a_handle_is_of_no_use_after_its_block(opener):
    """Whether the block committed or raised."""
    async with opener() as store:
        await _conversation(store)
        async with store.transaction() as committed:
            pass
        with pytest.raises(ZeroDivisionError):
            async with store.transaction() as failed:
                raise ZeroDivisionError
        for over in (committed, failed):
            with pytest.raises(Misused, match="over"):
                await over.add_message("c", "user", "x")
            with pytest.raises(Misused, match="over"):
                await over.get_conversation("c")
        assert await _texts(store) == []


async def test_two_stores_may_each_have_a_block(opener):
    """The rule is about one store."""
    async with opener() as store, opener() as other:
        await _conversation(store)
        async with store.transaction() as t:
            await t.add_message("c", "user", "x")
            assert await _texts(other) == []
            async with other.transaction(timeout=0.2) if opener.engine == "postgres" else contextlib.nullcontext():
                with pytest.raises(Misused):
                    await store.get_conversation("c")


# -- time --------------------------------------------------------------------------------------------------------------------


async def test_a_block_that_takes_too_long_is_taken_back(opener):
    """Others can write as soon as its time is over, though the block hangs on."""
    async with opener() as store, opener() as other:
        await _conversation(store)
        began = time.monotonic()
        with pytest.raises(Busy, match="limit"):
            async with store.transaction(timeout=0.2) as t:
                await t.add_message("c", "user", "lost")
                waiting = started(other, "add_message", "c", "user", "after")
                await asyncio.wait_for(waiting, 20)
                with pytest.raises(Busy, match="limit"):
                    await t.add_message("c", "user", "too late")
        assert 0.2 <= time.monotonic() - began < 10
        assert await _texts(store) == ["after"]


async def test_a_block_that_is_too_late_to_commit_is_taken_back(opener):
    """Also when no verb met the limit."""
    async with opener() as store:
        await _conversation(store)
        with pytest.raises(Busy, match="limit"):
            async with store.transaction(timeout="50ms") as t:
                await t.add_message("c", "user", "lost")
                await asyncio.sleep(0.1)
        assert await _texts(store) == []
        await store.add_message("c", "user", "after")
        assert await _texts(store) == ["after"]


async def test_the_limit_can_be_set_for_all_blocks(opener):
    """By ``idle_in_transaction_session_timeout``; a malformed timeout is refused."""
    async with opener(idle_in_transaction_session_timeout="50ms") as store:
        with pytest.raises(Busy, match="limit"):
            async with store.transaction() as t:
                await _conversation(t)
                await asyncio.sleep(0.1)
        async with store.transaction(timeout=30) as t:
            await _conversation(t)
            await asyncio.sleep(0.1)
        assert await store.get_conversation("c") is not None
        for wrong in ("soon", -1, 0, True):
            with pytest.raises(Invalid) as refused:
                async with store.transaction(timeout=wrong):
                    pytest.fail("entered")
            assert refused.value.field == "timeout"


# -- others ------------------------------------------------------------------------------------------------------------------


async def test_concurrent_writers_wait_for_the_block(opener):
    """Those of the same store and of another; all succeed, in a row of seqs without gaps."""
    async with opener(pool_size=10) as store, opener() as other:
        await _conversation(store)
        async with store.transaction() as t:
            await t.add_message("c", "user", "first")
            waiting = [started(handle, "add_message", "c", "user", "later") for handle in (store, other, store, other)]
            await asyncio.sleep(0.02)
            assert not any(task.done() for task in waiting)
            await t.add_message("c", "user", "second")
        await asyncio.gather(*waiting)
        messages = await store.get_messages("c")
        assert [message.text for message in messages] == ["first", "second", *["later"] * 4]
        assert [message.seq for message in messages] == [1, 2, 3, 4, 5, 6]


async def test_readers_do_not_wait_for_the_block(opener):
    """They see what was before."""
    async with opener() as store, opener() as other:
        await _conversation(store)
        async with store.transaction() as t:
            await t.add_message("c", "user", "x")
            assert await asyncio.wait_for(started(store, "get_messages", "c"), 20) == []
            assert await asyncio.wait_for(started(other, "get_messages", "c"), 20) == []


async def test_administration_beside_a_block_waits_or_answers(opener):
    """It is never stuck, and neither is the block."""
    async with opener() as store:
        await _conversation(store)
        async with store.transaction() as t:
            await t.add_message("c", "user", "x")
            beside = [
                started(store, "upkeep"), started(store, "verify"), started(store, "execute", "select 1"),
                started(store, "doctor"), started(store, "run_chores"),
            ]  # fmt: skip
            await asyncio.sleep(0.02)
        answers = await asyncio.wait_for(asyncio.gather(*beside), 30)
        assert answers[1:3] == [[], [(1,)]]
        assert [problem for problem in answers[3]["problems"] if "fsync" not in problem] == []
        assert await _texts(store) == ["x"]


async def test_work_begun_inside_a_block_may_use_the_store_afterwards(opener):
    """A task that was started in the block is not taken for a part of it for ever."""
    async with opener() as store:
        await _conversation(store)
        over = asyncio.Event()

        async def outlive():
            with pytest.raises(Misused):
                await store.add_message("c", "user", "x")
            await over.wait()
            await store.add_message("c", "user", "afterwards")

        async with store.transaction() as t:
            task = asyncio.create_task(outlive())
            await t.add_message("c", "user", "inside")
            await asyncio.sleep(0)
        over.set()
        await task
        assert await _texts(store) == ["inside", "afterwards"]


async def test_a_cancelled_block_frees_the_writer(opener):
    """Whether it was cancelled inside or while it waited for its turn."""
    async with opener() as store:
        if opener.blocking:
            return  # threads are not cancelled
        await _conversation(store)
        inside = asyncio.Event()

        async def hang():
            async with store.transaction() as t:
                await t.add_message("c", "user", "lost")
                inside.set()
                await asyncio.Event().wait()

        hanging = asyncio.create_task(hang())
        await inside.wait()
        queued = [asyncio.create_task(hang()) for _ in range(2)]
        await asyncio.sleep(0.01)
        for task in (queued[0], hanging, queued[1]):
            task.cancel()
        assert await asyncio.gather(hanging, *queued, return_exceptions=True)
        assert all(task.cancelled() for task in (hanging, *queued))
        await asyncio.wait_for(store.add_message("c", "user", "kept"), 2)
        assert await _texts(store) == ["kept"]


@pytest.mark.parametrize("opener", ["sqlite"], indirect=True)
async def test_a_block_cancelled_while_another_process_writes_holds_nothing(opener):
    """It may get the file after its caller has gone; it gives it back at once."""
    async with opener() as store:
        await _conversation(store)
        holder = apsw.Connection(opener.url.removeprefix("sqlite:///"))
        holder.execute("begin immediate")

        async def enter():
            async with store.transaction():
                pytest.fail("entered")

        entering = asyncio.create_task(enter())
        await asyncio.sleep(0.05)  # it waits for the file, on the writer's thread
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)
        holder.execute("rollback")
        await asyncio.wait_for(store.add_message("c", "user", "x"), 3)
        async with store.transaction(timeout=3) as t:
            await t.add_message("c", "user", "y")
        holder.close()
        assert await _texts(store) == ["x", "y"]


@pytest.mark.parametrize("opener", ["postgres"], indirect=True)
async def test_a_cancellation_that_meets_a_free_connection_is_not_lost(opener):
    """Whichever of the two comes first, a call that was cancelled before it ended ends cancelled."""
    async with opener(pool_size=1, max_overflow=0) as store:
        await _conversation(store)
        for turns in range(30):
            async with store.transaction() as t:
                waiting = started(store, "get_conversation", "c")
                await asyncio.sleep(0.002)
                await t.get_conversation("c")
            for _ in range(turns):
                await asyncio.sleep(0)
            asked = waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled() is asked, turns
        assert (await store.get_conversation("c")).id == "c"


async def test_a_cancelled_verb_leaves_the_store_usable(opener):
    """What it wrote is wholly there or wholly absent."""
    async with opener() as store:
        if opener.blocking:
            return  # threads are not cancelled
        await _conversation(store)
        tasks = [asyncio.create_task(store.add_message("c", "user", f"{n}")) for n in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        kept = [task.result().text for task in tasks if not task.cancelled()]
        stored = await until(lambda: _texts(store))
        assert set(kept) <= set(stored)
        last = await store.add_message("c", "user", "end")
        messages = await store.get_messages("c")
        assert [message.seq for message in messages] == list(range(1, last.seq + 1))
        assert (await store.get_conversation("c")).message_count == len(messages)


# -- a guest on somebody else's connection -------------------------------------------------------------------------------------


class _Own:
    """A connection of the caller's, blocking or not, with one face."""

    def __init__(self, opener, **options):
        self.opener = opener
        self.options = options

    async def __aenter__(self):
        if self.opener.blocking:
            self.connection = psycopg.connect(self.opener.url, **self.options)
        else:
            self.connection = await psycopg.AsyncConnection.connect(self.opener.url, **self.options)
        return self

    async def __aexit__(self, *error):
        await self._call("close")

    async def _call(self, name, *args):
        answer = getattr(self.connection, name)(*args)
        return answer if self.opener.blocking else await answer

    async def rows(self, sql):
        cursor = await self._call("execute", sql)
        if cursor.description is None:
            return []
        return cursor.fetchall() if self.opener.blocking else await cursor.fetchall()

    async def commit(self):
        await self._call("commit")

    async def rollback(self):
        await self._call("rollback")


@on_postgres
async def test_a_guest_commits_and_goes_back_with_its_host(opener):
    """Together with the host's own statements."""
    async with opener() as store, _Own(opener) as own:
        await _conversation(store)
        await own.rows("create table public.mine (n int); insert into public.mine values (1)")
        await store.within(own.connection).add_message("c", "user", "lost")
        assert await _texts(store) == []
        await own.rollback()
        assert await _texts(store) == []
        await own.rows("create table public.mine (n int); insert into public.mine values (1)")
        await store.within(own.connection).add_message("c", "user", "kept")
        await own.commit()
        assert await _texts(store) == ["kept"]
        assert await own.rows("select n from public.mine") == [(1,)]


@on_postgres
async def test_a_guest_puts_tenant_and_search_path_back(opener):
    """And how the host's connection reads JSON and rows."""
    async with opener() as store, _Own(opener, row_factory=psycopg.rows.dict_row) as own:
        await _conversation(store.for_tenant("acme"))
        show = "select current_setting('search_path') as path, current_setting('perdure.tenant', true) as tenant"
        ((before,),) = [await own.rows(show)]
        guest = store.for_tenant("acme").acting_as("guest").within(own.connection)
        made = await guest.add_message("c", "user", "x", metadata={"k": 1})
        assert made.seq == 1
        assert [message.text for message in await guest.get_messages("c")] == ["x"]
        assert (await guest.get_conversation("c")).message_count == 1
        with pytest.raises(NotFound):
            await guest.add_message("none", "user", "x")
        ((after,),) = [await own.rows(show)]
        assert (after["path"], after["tenant"] or None) == (before["path"], before["tenant"])
        assert await own.rows("select '[1]'::json as j, '{\"a\": 2}'::jsonb as b") == [{"j": [1], "b": {"a": 2}}]
        await own.commit()
        assert await _texts(store) == []
        assert await _texts(store.for_tenant("acme")) == ["x"]
        (change,) = await store.for_tenant("acme").changes(kinds=["message"])
        assert change.actor == "guest"


@on_postgres
async def test_a_guests_failed_verb_leaves_the_hosts_transaction_usable(opener):
    """Only what the verb did is taken back."""
    async with opener() as store, _Own(opener) as own:
        await _conversation(store)
        guest = store.within(own.connection)
        await guest.add_message("c", "user", "one", id="m1")
        with pytest.raises(Conflict):
            await guest.add_message("c", "user", "x", id="m1")
        await guest.add_message("c", "user", "two")
        await own.commit()
        assert await _texts(store) == ["one", "two"]


@on_postgres
async def test_a_guests_verbs_take_turns(opener):
    """Several at once on one connection are run one after another."""
    async with opener() as store, _Own(opener, row_factory=psycopg.rows.dict_row) as own:
        await _conversation(store)
        guest = store.within(own.connection)
        await asyncio.gather(*(started(guest, "add_message", "c", "user", f"{n}") for n in range(6)))
        assert await own.rows("select 1 as one") == [{"one": 1}]
        await own.commit()
        assert sorted(await _texts(store)) == [f"{n}" for n in range(6)]


@on_postgres
async def test_a_guest_opens_no_transactions(opener):
    """And takes no other kind of connection."""
    async with opener() as store, _Own(opener) as own:
        with pytest.raises(Misused):
            async with store.within(own.connection).transaction():
                pytest.fail("entered")
        for wrong in (None, "postgresql://", object()):
            with pytest.raises(Misused):
                store.within(wrong)


@on_sqlite
async def test_within_is_for_postgresql(opener):
    """On SQLite it is misused, and says what to do."""
    async with opener() as store:
        with pytest.raises(Misused, match="transaction"):
            store.within(object())


@on_postgres
async def test_a_block_whose_connection_breaks_keeps_nothing(opener, postgres_server):
    """The verb that meets it says so, and later calls work again."""
    async with opener() as store:
        await _conversation(store)
        with pytest.raises(Unavailable):
            async with store.transaction() as t:
                await t.add_message("c", "user", "lost")
                end = "select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle in transaction'"
                await store_beside(opener, end)
                await t.add_message("c", "user", "lost too")
        assert await _texts(store) == []
        await store.add_message("c", "user", "kept")
        assert await _texts(store) == ["kept"]


async def store_beside(opener, sql):
    """Runs a statement on a connection of its own."""
    async with await psycopg.AsyncConnection.connect(opener.url, autocommit=True) as own:
        await own.execute(sql)


# -- what outlives a block ---------------------------------------------------------------------------------------------------


async def test_a_verb_that_outlives_its_block_leaves_nothing_by_halves(opener):
    """It is done inside the transaction or refused; it never goes on where somebody else's transaction is."""
    async with opener() as store:
        names = [(await store.create_conversation("agent", "ann")).id for _ in range(30)]
        outliving = []

        async def careless(name):
            with contextlib.suppress(ZeroDivisionError, Misused):
                async with store.transaction() as t:
                    late = started(t, "add_message", name, "user", "late")
                    await t.add_message(name, "user", "in time")
                    outliving.append(late)
                    if len(outliving) % 2:
                        raise ZeroDivisionError

        async def innocent(name):
            await store.add_message(name, "user", "acknowledged")

        await asyncio.gather(*(job(name) for name in names for job in (careless, innocent)))
        for late in outliving:
            with contextlib.suppress(Misused, Unavailable):
                await late
        for name in names:
            messages = await store.get_messages(name)
            conversation = await store.get_conversation(name)
            assert conversation.message_count == len(messages)
            assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
            assert "acknowledged" in [message.text for message in messages]


async def test_a_verb_that_asks_nothing_does_no_harm_to_its_block(opener):
    """A recipe may end before its first statement; what stands beside it in the block is kept."""
    async with opener() as store:
        await store.ensure_conversation("later", "agent", "ann")
        async with store.transaction() as t:
            made = await t.create_conversation("agent", "ann")
            assert await t.flush("later", []) == []
            await t.add_message(made.id, "user", "kept")
        assert [message.text for message in await store.get_messages(made.id)] == ["kept"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_store_is_of_no_use_in_a_forked_process(opener):
    """Two processes on the same connections would lose what both were told is stored."""
    async with opener() as store:
        made = await store.create_conversation("agent", "ann")
        child = os.fork()
        if child == 0:
            outcome = 1
            try:
                await store.add_message(made.id, "user", "from the child")
            except Misused:
                outcome = 0
            finally:
                os._exit(outcome)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222  (a moment)
        await store.add_message(made.id, "user", "from the parent")
        assert [message.text for message in await store.get_messages(made.id)] == ["from the parent"]
