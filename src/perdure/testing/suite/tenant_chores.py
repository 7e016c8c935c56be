"""Housekeeping for every tenant: nobody is forgotten, nobody holds up the others, nothing is done twice."""

import asyncio
from collections import Counter

import psycopg
import pytest

from perdure.grammar import Scope
from perdure.rooms.chores import ops as recipes
from perdure.services import chores as services
from perdure.services.handle import TENANT_CHORES
from perdure.sync import chores as blocking_services
from perdure.testing.suite.apart import on_postgres, started, until
from perdure.testing.suite.tools import TurnedClock
from perdure.values.errors import Misused

_TENANTS = [f"t{number:02}" for number in range(20)]
_THEIRS = sorted(f"{tenant}/{name}" for tenant in _TENANTS for name in TENANT_CHORES)
_OWN = ["idempotency", "text_index", "upkeep"]


def _plain(store):
    return getattr(store, "_store", store)


async def _as_tenant(store, tenant, sql):
    """An administrator's statement on the rows of one tenant."""
    rows = _plain(store)._shared.driver.execute(sql, None, Scope(tenant))
    return rows if isinstance(rows, list) else await rows


async def _populated(store, tenants=_TENANTS):
    for tenant in tenants:
        handle = store.for_tenant(tenant)
        await handle.create_conversation("agent", "ann", id="c", idempotency_key="k")
        await handle.add_message("c", "user", f"zebra of {tenant}", id="m")


async def _known(store):
    """The chores that somebody may run."""
    return [name for (name,) in await store.execute("select name from chores order by name")]


# -- whose ---------------------------------------------------------------------------------------------------------------------


async def test_the_store_does_the_chores_of_every_tenant(opener):
    """Messages are indexed and keys forgotten, of all that were ever written to, by a store that never did so itself."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await _populated(store)
    async with opener(clock=clock) as store:
        assert sorted(await store.run_chores()) == sorted([*_THEIRS, *_OWN])
        for tenant in _TENANTS:
            assert await _as_tenant(
                store, tenant, f"select count(*) from text_documents where tenant = '{tenant}'"
            ) == [(1,)]
            assert await _as_tenant(store, tenant, f"select count(*) from idempotency where tenant = '{tenant}'") == [
                (1,)
            ]
        assert await store.run_chores() == []
        clock.turn(hours=25)
        assert sorted(await store.run_chores()) == sorted([*_THEIRS, *_OWN])
        for tenant in _TENANTS:
            assert await _as_tenant(store, tenant, f"select count(*) from idempotency where tenant = '{tenant}'") == [
                (0,)
            ]


async def test_a_tenants_handle_does_its_own_chores_only(opener):
    """They are not the store's, which keeps its file."""
    async with opener() as store:
        await _populated(store, ["acme", "other"])
        acme = store.for_tenant("acme")
        assert await acme.run_chores() == ["idempotency", "text_index"]
        assert await acme.run_chores() == []
        assert set((await acme.doctor())["chores"]) == {"acme/idempotency", "acme/text_index"}
        assert sorted(await store.run_chores()) == sorted(["other/idempotency", "other/text_index", *_OWN])


async def test_names_of_tenants_may_be_anything(opener):
    """With slashes in them, too."""
    async with opener() as store:
        names = ["a/b", "/", "a/text_index", "ü%_'\"", "x" * 512]
        await _populated(store, names)
        assert set(await store.run_chores()) == {
            *_OWN, *(f"{name}/{chore}" for name in names for chore in TENANT_CHORES),
        }  # fmt: skip
        for name in names:
            assert await store.for_tenant(name).absorb_text() == 0


async def test_a_store_with_chores_serves_tenants_that_come_later(opener, monkeypatch):
    """Without being told."""
    for module in (services, blocking_services):
        monkeypatch.setattr(module, "_ROUND_SECONDS", 0.05)
    async with opener(chores=True), opener() as other:
        await _populated(other, ["acme"])

        async def done():
            return (await other.doctor())["chores"].get("acme/text_index") == "ok"

        await until(done)


def test_each_chore_of_a_tenant_is_known():
    """And the table is the same in both worlds."""
    assert set(TENANT_CHORES) < set(services.CHORES)
    assert set(services.CHORES) == set(blocking_services.CHORES)


# -- when ----------------------------------------------------------------------------------------------------------------------


async def test_a_quiet_tenant_is_left_alone_until_it_is_written_to(opener):
    """It is looked after every ten seconds while it is lively; any process's write hastens its next turn."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await _populated(store, ["acme"])
        turns = []
        for _ in range(60):
            turns.append("acme/text_index" in await store.run_chores())
            clock.turn(seconds=10)
        assert turns == [True] * 13 + [False] * 47
        async with opener(clock=clock) as other:
            await other.for_tenant("acme").add_message("c", "user", "lion")
        assert "acme/text_index" in await store.run_chores()
        assert await store.for_tenant("acme").absorb_text() == 0
        clock.turn(seconds=10)
        assert "acme/text_index" in await store.run_chores()
        clock.turn(minutes=10)
        await store.run_chores()
        clock.turn(minutes=61)
        assert "acme/text_index" in await store.run_chores()


async def test_keys_are_forgotten_when_they_are_past_their_day(opener):
    """Their chore comes for the oldest one, not earlier, and at most every ten minutes."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        acme = store.for_tenant("acme")
        await acme.create_conversation("agent", "ann", idempotency_key="first")
        assert "acme/idempotency" in await store.run_chores()
        clock.turn(minutes=2)
        await acme.create_conversation("agent", "ann", idempotency_key="second")
        clock.turn(hours=23, minutes=57)
        assert "acme/idempotency" not in await store.run_chores()
        clock.turn(minutes=1)
        assert "acme/idempotency" in await store.run_chores()
        clock.turn(minutes=5)
        assert "acme/idempotency" not in await store.run_chores()
        clock.turn(minutes=5)
        assert "acme/idempotency" in await store.run_chores()
        assert await _as_tenant(store, "acme", "select count(*) from idempotency where tenant = 'acme'") == [(0,)]


async def test_a_transaction_that_is_taken_back_makes_no_tenant_known(opener):
    """One that is committed does, each that it wrote to."""
    async with opener() as store:
        with pytest.raises(ZeroDivisionError):
            async with store.transaction() as t:
                await t.for_tenant("acme").create_conversation("agent", "ann")
                raise ZeroDivisionError
        assert await _known(store) == []
        async with store.transaction() as t:
            await t.create_conversation("agent", "ann")
            await t.for_tenant("acme").create_conversation("agent", "ann")
        assert await _known(store) == [
            "acme/idempotency", "acme/text_index", "default/idempotency", "default/text_index",
        ]  # fmt: skip
        async with store.transaction() as t:
            with pytest.raises(Misused):
                await t.run_chores()


async def test_reading_makes_no_tenant_known(opener):
    """Nor does what was refused."""
    async with opener() as store:
        acme = store.for_tenant("acme")
        await acme.get_conversation("c")
        await acme.query_conversations()
        with pytest.raises(Exception, match="nowhere"):
            await acme.add_message("nowhere", "user", "x")
        assert await _known(store) == []


@on_postgres
async def test_guests_make_a_tenant_known_and_wait_for_nobody(opener):
    """With their owner's commit, though others are just doing the same."""
    async with opener() as store:
        if opener.blocking:
            with psycopg.connect(opener.url) as one, psycopg.connect(opener.url) as two:
                for number, connection in enumerate((one, two, one)):
                    guest = store.within(connection).for_tenant("acme")
                    await guest.create_conversation("agent", "ann", id=f"c{number}")
                await store.for_tenant("acme").create_conversation("agent", "ann")
                two.rollback()
                one.commit()
        else:
            connect = psycopg.AsyncConnection.connect
            async with await connect(opener.url) as one, await connect(opener.url) as two:
                for number, connection in enumerate((one, two, one)):
                    guest = store.within(connection).for_tenant("acme")
                    await guest.create_conversation("agent", "ann", id=f"c{number}")
                await store.for_tenant("acme").create_conversation("agent", "ann")
                await two.rollback()
                await one.commit()
        assert await _known(store) == ["acme/idempotency", "acme/text_index"]


# -- beside each other ---------------------------------------------------------------------------------------------------------


async def test_two_runners_do_each_chore_once(opener):
    """Whoever comes first, at each of its times."""
    clock = TurnedClock()
    async with opener(clock=clock) as one, opener(clock=clock) as two:
        await _populated(one)
        for expected in (
            sorted([*_THEIRS, *_OWN]),
            [name for name in sorted([*_THEIRS, "text_index"]) if "text" in name],
        ):
            ran = await asyncio.gather(started(one, "run_chores"), started(two, "run_chores"))
            assert sorted(name for names in ran for name in names) == expected
            clock.turn(seconds=11)


async def test_a_tenant_that_fails_does_not_stop_the_others(opener, caplog):
    """It is noted, and tried again at its next turn."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await _populated(store)
        await _as_tenant(store, "t05", "update messages set body = '{', form = 1 where tenant = 't05'")
        assert sorted(await store.run_chores()) == sorted([*_THEIRS, *_OWN])
        outcomes = (await store.doctor())["chores"]
        assert outcomes.pop("t05/text_index").startswith("failed: ")
        assert set(outcomes.values()) == {"ok"}
        assert "t05/text_index" in caplog.text
        await _as_tenant(store, "t05", "update messages set body = 'zebra', form = 0 where tenant = 't05'")
        clock.turn(seconds=11)
        assert "t05/text_index" in await store.run_chores()
        assert set((await store.doctor())["chores"].values()) == {"ok"}


async def test_a_tenant_with_much_to_do_goes_to_the_end_of_the_line(opener, monkeypatch):
    """After a bounded piece of work the others come first; one run goes on until all is done."""
    for module in (services, blocking_services):
        monkeypatch.setattr(module, "_PIECES", 2)
        monkeypatch.setattr(module, "_KEYS", 3)
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        for tenant, number in (("busy", 20), ("small", 1)):
            handle = store.for_tenant(tenant)
            for index in range(number):
                await handle.create_conversation("agent", "ann", idempotency_key=f"k{index}")
        await store.run_chores()
        clock.turn(hours=25)
        leases = []
        original = recipes.lease

        def lease(name, *args):
            leases.append(name)
            return original(name, *args)

        monkeypatch.setattr(recipes, "lease", lease)
        assert "busy/idempotency" in await store.run_chores()
        turns = Counter(leases)
        assert (turns["busy/idempotency"], turns["small/idempotency"]) == (4, 1)
        assert leases[-3:] == ["busy/idempotency"] * 3
        assert await _as_tenant(store, "busy", "select count(*) from idempotency where tenant = 'busy'") == [(0,)]


async def test_chores_of_a_newer_version_are_left_to_it(opener):
    """Which may share the database; they do not stand in the way of others, however many they are."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await _run(store, recipes.plan([f"t{n}/of_tomorrow" for n in range(250)], clock.micros - 1))
        assert await store.run_chores() == _OWN


async def _run(store, recipe):
    blocking = getattr(store, "_store", None)
    return await store._run(recipe) if blocking is None else blocking._run(recipe)
