"""The change feed and the trail: each change once, in its own transaction, in an order that no reader can fall behind."""

import asyncio
import sys

import psycopg
import pytest

from perdure.testing.suite.apart import on_postgres
from perdure.values.errors import Conflict, Invalid, NotFound, OverLimit, PerdureError

_WRITER = """
import sys
import perdure.sync
with perdure.sync.open(sys.argv[1]) as store:
    for number in range(int(sys.argv[3])):
        store.add_message(sys.argv[2], "user", str(number), id=f"{sys.argv[2]}-{number}")
"""


async def _entries(store, since=None):
    return [(change.kind, change.verb, change.object_id, change.parent_id) async for change in store.all_changes(since)]


# -- one entry for each change -----------------------------------------------------------------------------------------------


async def _written_by(store, verb, *args, **kwargs):
    """(kind, verb, object, parent) of the entries that a call leaves."""
    since = await store.latest_change()
    await getattr(store, verb)(*args, **kwargs)
    return await _entries(store, since)


async def test_each_changing_verb_leaves_one_entry(opener):
    """A batch leaves one for each message, a verb that changes nothing leaves none."""
    async with opener() as store:
        assert await _entries(store) == []
        calls = [
            ("create_conversation", ("agent", "ann"), {"id": "c"}, [("conversation", "create", "c", None)]),
            ("update_conversation", ("c", {"title": "t"}), {}, [("conversation", "update", "c", None)]),
            ("add_message", ("c", "user", "one"), {"id": "m1"}, [("message", "add", "m1", "c")]),
            (
                "add_messages", ("c", [{"role": "user", "content": "x", "id": f"n{n}"} for n in range(30)]), {},
                [("message", "add", f"n{n}", "c") for n in range(30)],
            ),
            ("add_messages", ("c", []), {}, []),
            (
                "flush", ("c2", [{"role": "user", "content": "x", "id": "f1"}]), {},
                [("message", "add", "f1", "c2")],
            ),
            ("flush", ("c2", [{"role": "user", "content": "x", "id": "f1"}]), {}, []),
            ("edit_message", ("m1", "changed"), {}, [("message", "edit", "m1", "c")]),
            ("fork_conversation", ("c", 3, "fork"), {}, [("conversation", "fork", "fork", None)]),
            ("delete_message", ("m1",), {}, [("message", "delete", "m1", "c")]),
            ("delete_conversation", ("c",), {}, [("conversation", "delete", "c", None)]),
            ("delete_conversation", ("fork",), {}, [("conversation", "delete", "fork", None)]),
            ("ensure_conversation", ("later", "agent", "ann"), {}, []),
            (
                "add_message", ("later", "user", "first"), {"id": "l1"},
                [("conversation", "create", "later", None), ("message", "add", "l1", "later")],
            ),
            ("search_messages", ("first",), {}, []),
            ("get_messages", ("later",), {}, []),
            ("rebuild_text", (), {}, []),
            ("run_chores", (), {}, []),
        ]  # fmt: skip
        await store.create_conversation("agent", "ann", id="c2")
        for verb, args, kwargs, expected in calls:
            assert await _written_by(store, verb, *args, **kwargs) == expected, verb


async def test_an_erasure_leaves_one_entry_without_the_name(opener):
    """That something was erased, when and by whom is on record; what it was is not."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c")
        await store.add_message("c", "user", "x", id="m")
        ((kind, verb, name, parent),) = await _written_by(store, "erase_message", "m")
        assert (kind, verb, parent) == ("message", "erase", "c")
        assert name.startswith("erased:")
        ((kind, verb, name, parent),) = await _written_by(store, "erase_conversation", "c")
        assert (kind, verb, parent) == ("conversation", "erase", None)
        assert name.startswith("erased:")


async def test_a_refused_change_leaves_no_entry(opener):
    """Whatever the reason."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c")
        await store.add_message("c", "user", "x", id="m")
        since = await store.latest_change()
        refused = [
            ("create_conversation", ("agent", "ann"), {"id": "c"}, Conflict),
            ("update_conversation", ("c", {}, 7), {}, Conflict),
            ("add_message", ("nowhere", "user", "x"), {}, NotFound),
            ("add_message", ("c", "user", "x"), {"id": "m"}, Conflict),
            ("add_messages", ("c", [{"role": "user", "content": "y"}, {"role": "user", "content": "y", "id": "m"}]), {}, Conflict),
            ("edit_message", ("none", "x"), {}, NotFound),
            ("edit_message", ("m", "x"), {"expected_version": 9}, Conflict),
            ("fork_conversation", ("c", 5), {}, Invalid),
            ("delete_message", ("none",), {}, NotFound),
            ("delete_conversation", ("none",), {}, NotFound),
            ("erase_message", ("none",), {}, NotFound),
            ("erase_conversation", ("none",), {}, NotFound),
        ]  # fmt: skip
        for verb, args, kwargs, kind in refused:
            with pytest.raises(PerdureError) as error:
                await getattr(store, verb)(*args, **kwargs)
            assert type(error.value) is kind, verb
        assert await _entries(store, since) == []


async def test_an_entry_lives_and_dies_with_its_transaction(opener):
    """Nobody sees it before the commit, and nobody when the transaction is taken back."""
    async with opener() as store, opener() as other:
        await store.create_conversation("agent", "ann", id="c")
        since = await store.latest_change()
        with pytest.raises(ZeroDivisionError):
            async with store.transaction() as t:
                await t.add_message("c", "user", "x")
                await t.update_conversation("c", {"title": "t"})
                assert await _entries(other, since) == []
                raise ZeroDivisionError
        assert await _entries(store, since) == []
        async with store.transaction() as t:
            await t.add_message("c", "user", "x", id="m1")
            with pytest.raises(Conflict):
                await t.add_message("c", "user", "x", id="m1")
            await t.update_conversation("c", {"title": "t"})
        assert await _entries(store, since) == [("message", "add", "m1", "c"), ("conversation", "update", "c", None)]


async def test_an_entry_says_who_and_why(opener):
    """``acting_as`` names the actor, also inside a transaction; without it there is none."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c")
        helper = store.acting_as("helper", "a test")
        await helper.add_message("c", "user", "x", id="m")
        async with helper.transaction() as t:
            await t.edit_message("m", "y")
            await t.acting_as("boss").delete_message("m")
        await store.acting_as("mallory").for_tenant("acme").create_conversation("agent", "ann", id="c")
        said = [(change.verb, change.actor, change.reason) async for change in store.all_changes()]
        assert said == [
            ("create", None, None), ("add", "helper", "a test"), ("edit", "helper", "a test"), ("delete", "boss", None),
        ]  # fmt: skip
        assert [version.actor for version in await store.message_history("m")] == ["helper", "boss"]
        (other,) = await store.for_tenant("acme").changes()
        assert other.actor == "mallory"
        for wrong in ("", " ", "a\0", 5, "x" * 1_025):
            with pytest.raises(Invalid):
                store.acting_as(wrong)
        with pytest.raises(Invalid):
            store.acting_as("x", "")


async def test_an_entry_has_the_time_of_the_stores_clock(opener):
    """In UTC, to the microsecond."""
    async with opener(clock=lambda: 1_700_000_000_123_456) as store:
        await store.create_conversation("agent", "ann", id="c")
        (change,) = await store.changes()
        assert change.at.isoformat() == "2023-11-14T22:13:20.123456+00:00"


# -- walking -----------------------------------------------------------------------------------------------------------------


async def test_a_cursor_walks_the_feed_in_order(opener):
    """Pages of any size add up to the whole; the last cursor goes on from there when there is more."""
    async with opener() as store:
        assert await store.latest_change() == "0.0"
        first = await store.changes()
        assert (list(first), first.next_cursor) == ([], "0.0")
        await store.create_conversation("agent", "ann", id="c")
        await store.add_messages("c", [{"role": "user", "content": "x", "id": f"m{n:02}"} for n in range(25)])
        whole = list(await store.changes())
        assert [change.object_id for change in whole] == ["c", *(f"m{n:02}" for n in range(25))]
        for size in (1, 7, 26, 100):
            walked, cursor = [], None
            while page := await store.changes(cursor, limit=size):
                assert len(page) <= size
                assert page.next_cursor == page[-1].cursor
                walked += page
                cursor = page.next_cursor
            assert walked == whole
            assert cursor == await store.latest_change()
        assert [change.object_id async for change in store.all_changes(whole[20].cursor)] == [
            f"m{n}" for n in range(20, 25)
        ]
        end = await store.changes(whole[-1].cursor)
        assert (list(end), end.next_cursor) == ([], whole[-1].cursor)
        await store.add_message("c", "user", "x", id="new")
        assert [change.object_id for change in await store.changes(end.next_cursor)] == ["new"]


async def test_kinds_are_told_apart(opener):
    """Only the kinds that were asked for, none for an empty list."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c")
        await store.add_message("c", "user", "x", id="m")
        await store.update_conversation("c", {})
        assert [change.object_id for change in await store.changes(kinds=["message"])] == ["m"]
        assert [change.object_id for change in await store.changes(kinds=("message", "conversation"))] == [
            "c",
            "m",
            "c",
        ]
        assert [change.object_id async for change in store.all_changes(kinds={"conversation"})] == ["c", "c"]
        assert list(await store.changes(kinds=[])) == []
        assert [change.object_id for change in await store.changes(kinds="message")] == ["m"]
        for wrong in (["nothing"], "messages", ["message", ""]):
            with pytest.raises(Invalid, match="conversation, message"):
                await store.changes(kinds=wrong)


async def test_what_is_not_a_cursor_is_invalid(opener):
    """One message, whatever the nonsense."""
    async with opener() as store:
        await store.create_conversation("agent", "ann")
        for wrong in (
            "", "0", "x", "1.x", "-1.0", "1.-1", ".", "1.", ".1", "1.1.1", " 1.1", "1e3.0", "٣.٣", "1.1\0", 5, 5.0, 1.5, b"0.1",
            "9" * 19 + ".1", "1." + "9" * 19, "9" * 70 + ".1", "0." + "9" * 5_000, ["0.1"],
        ):  # fmt: skip
            with pytest.raises(Invalid) as refused:
                await store.changes(wrong)
            assert refused.value.field == "since", wrong


async def test_limits(opener):
    """0 is empty and keeps the cursor, 1,000 is the most."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c")
        await store.add_messages("c", [{"role": "user", "content": "x"}] * 1_200)
        none = await store.changes("0.0", limit=0)
        assert (list(none), none.next_cursor) == ([], "0.0")
        assert len(await store.changes()) == 1_000
        assert len([change async for change in store.all_changes()]) == 1_201
        with pytest.raises(OverLimit):
            await store.changes(limit=1_001)
        for wrong in (-1, True, "5"):
            with pytest.raises(Invalid):
                await store.changes(limit=wrong)
        for wrong in ([""], ["a\0"], [5]):
            with pytest.raises(Invalid):
                await store.changes(kinds=wrong)


# -- readers beside writers --------------------------------------------------------------------------------------------------


@on_postgres
async def test_a_transaction_held_open_with_a_lower_number_is_not_skipped(opener):
    """What was committed meanwhile waits for it, so a reader that walks on misses nothing."""
    async with opener() as store, opener() as slow:
        await store.create_conversation("agent", "ann", id="fast")
        await store.create_conversation("agent", "ann", id="slow")
        cursor = (await store.changes()).next_cursor
        async with slow.transaction() as t:
            await t.add_message("slow", "user", "x", id="s1")
            await store.add_message("fast", "user", "x", id="f1")
            seen = await store.changes(cursor)
            assert (list(seen), seen.next_cursor) == ([], cursor)
            assert await store.latest_change() == cursor
            await t.add_message("slow", "user", "x", id="s2")
        await store.add_message("fast", "user", "x", id="f2")
        assert [change.object_id for change in await store.changes(cursor)] == ["s1", "s2", "f1", "f2"]


@on_postgres
async def test_an_open_transaction_that_is_taken_back_only_delays(opener):
    """Nor does one that belongs to somebody else and wrote nothing here."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c")
        cursor = await store.latest_change()
        async with await psycopg.AsyncConnection.connect(opener.url) as holder:
            await holder.execute("select pg_current_xact_id()")
            await store.add_message("c", "user", "x", id="m")
            assert list(await store.changes(cursor)) == []
            await holder.rollback()
            assert [change.object_id for change in await store.changes(cursor)] == ["m"]


async def test_a_reader_beside_writers_in_other_processes_sees_each_entry_once(opener):
    """In an order that every later reader sees too."""
    writers, each = 3, 40
    async with opener() as store:
        for number in range(writers):
            await store.create_conversation("agent", "ann", id=f"w{number}")
        cursor = start = await store.latest_change()
        running = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", _WRITER, opener.url, f"w{number}", str(each))
            for number in range(writers)
        ]
        seen = []
        ended = asyncio.gather(*(process.wait() for process in running))
        while True:
            over = ended.done()
            page = await store.changes(cursor, limit=7)
            seen += page
            cursor = page.next_cursor
            if over and not page:
                break
            await asyncio.sleep(0)
        assert await ended == [0] * writers
        assert seen == [change async for change in store.all_changes(start)]
        for number in range(writers):
            own = [change.object_id for change in seen if change.parent_id == f"w{number}"]
            assert own == [f"w{number}-{n}" for n in range(each)]
        assert len(seen) == writers * each


# -- the trail ---------------------------------------------------------------------------------------------------------------


async def test_the_trail_of_one_object(opener):
    """Oldest first; other objects, kinds and tenants are not in it; it outlives a deletion."""
    async with opener() as store:
        for tenant in (store, store.for_tenant("acme")):
            await tenant.create_conversation("agent", "ann", id="same")
        await store.add_message("same", "user", "x", id="same")
        await store.acting_as("ann", "typo").edit_message("same", "y")
        await store.update_conversation("same", {"title": "t"})
        await store.delete_message("same")
        trail = await store.trail("message", "same")
        assert [(c.verb, c.actor, c.reason, c.parent_id) for c in trail] == [
            ("add", None, None, "same"), ("edit", "ann", "typo", "same"), ("delete", None, None, "same"),
        ]  # fmt: skip
        await store.delete_conversation("same")
        assert [c.verb for c in await store.trail("conversation", "same")] == ["create", "update", "delete"]
        assert [c.verb for c in await store.for_tenant("acme").trail("conversation", "same")] == ["create"]
        assert await store.trail("conversation", "none") == []
        for wrong in (("nothing", "same"), ("", "x"), ("message", ""), ("message", "a\0"), (5, "x")):
            with pytest.raises(Invalid):
                await store.trail(*wrong)


async def test_erasing_takes_names_out_of_the_trail(opener):
    """Of the conversation and its messages, in objects, parents and reasons; others' entries stay as they were."""
    async with opener() as store:
        await store.acting_as("ann", "about secret-c").create_conversation("agent", "ann", id="secret-c")
        await store.acting_as("ann", "about secret-m").add_message("secret-c", "user", "x", id="secret-m")
        await store.add_message("secret-c", "user", "x", id="secret-n")
        await store.create_conversation("agent", "ann", id="kept")
        await store.acting_as("bob", "kept").add_message("kept", "user", "x", id="k")
        kept = [await store.trail("conversation", "kept"), await store.trail("message", "k")]
        await store.erase_message("secret-m")
        assert await store.trail("message", "secret-m") == []
        assert "secret-m" not in repr(list(await store.changes()))
        await store.acting_as("admin", "asked to").erase_conversation("secret-c")
        whole = list(await store.changes())
        assert "secret" not in repr(whole)
        assert [(c.kind, c.verb, c.actor) for c in whole if c.object_id.startswith("erased:")] == [
            ("conversation", "create", "ann"), ("message", "add", "ann"), ("message", "add", None),
            ("message", "erase", None), ("conversation", "erase", "admin"),
        ]  # fmt: skip
        assert [await store.trail("conversation", "kept"), await store.trail("message", "k")] == kept


async def test_erasing_a_message_leaves_a_conversation_of_the_same_name_alone(opener):
    """Ids are unique within their kind only."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="1")
        await store.add_message("1", "user", "x", id="1")
        await store.add_message("1", "user", "x", id="2")
        await store.erase_message("1")
        assert [c.verb for c in await store.trail("conversation", "1")] == ["create"]
        assert [(c.verb, c.parent_id) for c in await store.trail("message", "2")] == [("add", "1")]
