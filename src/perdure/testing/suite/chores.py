"""Housekeeping and health: chores run when they are due, one runner at a time; doctor says what is wrong."""

import asyncio
import logging

import pytest

from perdure.rooms.chores import ops as recipes
from perdure.testing.suite.apart import on_sqlite, started, until
from perdure.testing.suite.tools import TurnedClock
from perdure.values.errors import Busy, Conflict

_ALL = ["idempotency", "text_index", "upkeep"]
_TENANTS = [f"t{number:02}" for number in range(20)]


async def _run(store, recipe):
    """A recipe below the verbs."""
    blocking = getattr(store, "_store", None)
    return await store._run(recipe) if blocking is None else blocking._run(recipe)


def _real(problems):
    """What is wrong with the store; the tests' server saves itself the disk's time."""
    return [problem for problem in problems if "fsync" not in problem]


# -- running -----------------------------------------------------------------------------------------------------------------


async def test_chores_run_when_they_are_due(opener):
    """Each at its own pace."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        assert await store.run_chores() == _ALL
        assert await store.run_chores() == []
        clock.turn(seconds=11)
        assert await store.run_chores() == ["text_index"]
        clock.turn(seconds=60)
        assert await store.run_chores() == ["text_index", "upkeep"]
        clock.turn(hours=1)
        assert await store.run_chores() == ["text_index", "upkeep"]
        clock.turn(days=1)
        assert sorted(await store.run_chores()) == _ALL


async def test_a_chore_absorbs_what_is_new_into_the_text_index(opener):
    """So that the next search finds it done."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c")
        await store.add_message("c", "user", "zebra")
        assert await store.execute("select count(*) from text_documents") == [(0,)]
        await store.run_chores()
        assert await store.execute("select count(*) from text_documents") == [(1,)]
        assert await store.absorb_text() == 0


async def test_a_chore_forgets_idempotency_keys_after_their_day(opener):
    """Not an hour before; afterwards a key is as good as new."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await store.create_conversation("agent", "ann", id="c", idempotency_key="k")
        clock.turn(hours=23)
        await store.run_chores()
        with pytest.raises(Conflict):
            await store.create_conversation("agent", "other", idempotency_key="k")
        clock.turn(hours=1, seconds=1)
        await store.run_chores()
        assert await store.execute("select count(*) from idempotency") == [(0,)]
        await store.create_conversation("agent", "other", idempotency_key="k")


async def test_a_store_opened_with_chores_runs_them_by_itself(opener):
    """Until it is closed; one opened without does not."""
    async with opener() as store, opener(chores=True):
        await store.create_conversation("agent", "ann", id="c")

        async def ran():
            chores = (await store.doctor())["chores"]
            return len(chores) == 3 and set(chores.values()) == {"ok"}

        await until(ran)
    async with opener() as store:
        before = await store.execute("select name, ran_at from chores order by name")
        assert [name for name, _ in before] == [f"default/{name}" for name in _ALL]
        await store.stats()
        assert await store.execute("select name, ran_at from chores order by name") == before


async def test_closing_ends_the_background_work(opener):
    """At once, though it sleeps between its rounds, and without a warning."""
    async with opener(chores=True) as store:
        await store.stats()
        await asyncio.wait_for(started(store, "close"), 4)


# -- leases ------------------------------------------------------------------------------------------------------------------


async def test_one_runs_a_chore_at_a_time(opener):
    """Others that come meanwhile leave it alone."""
    async with opener() as one, opener() as two, opener() as three:
        ran = await asyncio.gather(*(started(store, "run_chores") for store in (one, two, three)))
        assert sorted(name for names in ran for name in names) == sorted(_ALL)


async def test_who_looked_at_the_clock_before_the_holder_did_takes_nothing_away(opener):
    """Two that come at the same moment may reach the database in the other order."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await _run(store, recipes.plan(["default/upkeep"], clock.micros))
        assert await _run(store, recipes.lease("default/upkeep", "one", clock.micros + 1_000)) is not None
        assert await _run(store, recipes.lease("default/upkeep", "two", clock.micros)) is None


async def test_a_lease_that_its_holder_never_gives_back_runs_out(opener):
    """Then another may take the chore, and the first can no longer say how it went."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await _run(store, recipes.plan([f"default/{name}" for name in _ALL], clock.micros))
        for name in _ALL:
            assert await _run(store, recipes.lease(f"default/{name}", "crashed", clock.micros)) is not None
        assert await store.run_chores() == []
        report = await store.doctor()
        assert set(report["chores"].values()) == {"never ran"}
        clock.turn(seconds=299)
        assert await store.run_chores() == []
        clock.turn(seconds=2)
        assert await store.run_chores() == _ALL
        late = recipes.finish("default/upkeep", "crashed", clock.micros, clock.micros, clock.micros, "late")
        assert not await _run(store, late)
        assert (await store.doctor())["chores"]["default/upkeep"] == "ok"


@on_sqlite
async def test_a_chore_that_fails_is_noted_and_tried_again(opener, monkeypatch, caplog):
    """The others run all the same."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        engine = getattr(store, "_store", store)._shared.driver.engine

        def fail():
            raise Busy("somebody else")

        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, logger="perdure.chores"):
            patch.setattr(engine, "checkpoint_log", fail)
            assert await store.run_chores() == _ALL
        assert "upkeep" in caplog.text
        assert (await store.doctor())["chores"] == {
            "default/idempotency": "ok", "default/text_index": "ok", "default/upkeep": "failed: unavailable.busy",
        }  # fmt: skip
        clock.turn(seconds=61)
        await store.run_chores()
        assert (await store.doctor())["chores"]["default/upkeep"] == "ok"


# -- doctor ------------------------------------------------------------------------------------------------------------------


async def test_a_healthy_store_has_no_problems(opener):
    """After any use; the report says what it is and where."""
    async with opener() as store:
        assert _real((await store.doctor())["problems"]) == []
        await store.create_conversation("agent", "ann", {"tags": ["a"]}, id="c")
        await store.add_messages(
            "c", [{"role": "user", "content": f"{n}", "token_usage": {"input_tokens": n}} for n in range(30)]
        )
        ids = [message.id for message in await store.get_messages("c")]
        await store.edit_message(ids[0], "changed", token_usage={"input_tokens": 50})
        await store.delete_message(ids[1])
        await store.erase_message(ids[2])
        await store.fork_conversation("c", 10, "f")
        await store.add_message("f", "user", "x")
        await store.delete_conversation("c")
        await store.run_chores()
        report = await store.doctor()
        assert _real(report["problems"]) == []
        assert report["engine"] == {"sqlite": "SQLite", "postgres": "PostgreSQL"}[opener.engine]
        assert report["address"] == opener.url
        assert report["schema_version"] >= 1


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("update conversations set message_count = message_count + 1 where id = 'c'", "'c'"),
        ("update conversations set total_tokens = 7 where id = 'c'", "'c'"),
        ("update conversations set next_seq = next_seq + 1 where id = 'c'", "'c'"),
        ("delete from messages where seq = 2", "'c'"),
    ],
)
async def test_totals_and_seqs_that_do_not_add_up_are_found(opener, damage, named):
    """By the conversation's id; the others are not accused."""
    async with opener() as store:
        for name in ("b", "c"):
            await store.create_conversation("agent", "ann", id=name)
        await store.add_message("b", "user", "x")
        await store.add_messages("c", [{"role": "user", "content": "x", "token_usage": {"input_tokens": 5}}] * 3)
        await store.execute(damage)
        (problem,) = _real((await store.doctor())["problems"])
        assert named in problem
        assert "do not add up" in problem


async def test_an_overdue_chore_is_a_problem(opener):
    """After an hour; running it is the cure."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await store.run_chores()
        await store.for_tenant("acme").create_conversation("agent", "ann")
        clock.turn(minutes=30)
        assert _real((await store.doctor())["problems"]) == []
        assert (await store.stats())["overdue_chores"] == 0
        clock.turn(hours=2)
        problems = _real((await store.doctor())["problems"])
        assert [("overdue" in problem, problem.split()[1]) for problem in problems] == [
            (True, "acme/idempotency"), (True, "acme/text_index"), (True, "default/text_index"),
            (True, "default/upkeep"),
        ]  # fmt: skip
        assert (await store.stats())["overdue_chores"] == 4
        assert (await store.for_tenant("acme").stats())["overdue_chores"] == 2
        assert (await store.for_tenant("other").stats())["overdue_chores"] == 0
        await store.run_chores()
        assert _real((await store.doctor())["problems"]) == []
        assert (await store.stats())["overdue_chores"] == 0


async def test_a_chore_under_way_is_not_overdue(opener):
    """Somebody is at it; when the lease has run out, nobody is."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await store.run_chores()
        clock.turn(hours=20)
        assert (await store.stats())["overdue_chores"] == 2
        assert await _run(store, recipes.lease("default/upkeep", "somebody", clock.micros)) is not None
        assert (await store.stats())["overdue_chores"] == 1
        clock.turn(minutes=6)
        assert (await store.stats())["overdue_chores"] == 2


async def test_where_nobody_ever_does_the_chores_the_doctor_gives_advice(opener):
    """None of them is needed for right answers, so it is no problem; the counts say it too."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await store.create_conversation("agent", "ann")
        clock.turn(hours=2)
        report = await store.doctor()
        assert _real(report["problems"]) == []
        assert any("chores=True" in line for line in report["advice"])
        assert (await store.stats())["overdue_chores"] == 2
        await store.run_chores()
        assert not any("chores=True" in line for line in (await store.doctor())["advice"])


async def test_a_report_names_some_of_many_overdue_chores(opener):
    """And counts the others."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        for tenant in _TENANTS:
            await store.for_tenant(tenant).create_conversation("agent", "ann")
        await store.run_chores()
        clock.turn(days=3)
        problems = _real((await store.doctor())["problems"])
        assert len(problems) == 21
        assert problems[-1] == "23 more chores are overdue"


async def test_repairing_builds_what_is_derived_anew(opener):
    """And says what it did."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c")
        await store.add_message("c", "user", "zebra")
        before = await store.search_messages("zebra")
        for table in ("text_documents", "text_postings"):
            await store.execute(f"delete from {table}")
        assert await store.search_messages("zebra") == []
        report = await store.doctor(repair=True)
        assert report["repaired"] == ["text index"]
        assert await store.search_messages("zebra") == before


async def test_doctor_changes_nothing(opener):
    """Unless asked to repair."""
    async with opener() as store:
        await store.create_conversation("agent", "ann", id="c")
        cursor = await store.latest_change()
        await store.doctor()
        assert await store.latest_change() == cursor
        assert await store.execute("select count(ran_at), max(lease_until) from chores") == [(0, 0)]


async def test_stats_count_what_is_there(opener):
    """Of one tenant; deleted things no longer."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        empty = await store.stats()
        assert (empty["conversations"], empty["messages"], empty["tokens"]) == (0, 0, 0)
        assert (empty["first_created_at"], empty["latest_message_at"]) == (None, None)
        began = clock.now
        await store.create_conversation("agent", "ann", id="c")
        await store.create_conversation("agent", "ann", id="d")
        later = clock.turn(hours=1)
        made = await store.add_message("c", "user", "x", token_usage={"input_tokens": 5, "cost": "0.25"})
        stats = await store.stats()
        assert (stats["conversations"], stats["messages"], stats["tokens"], str(stats["cost"])) == (2, 1, 5, "0.25")
        assert (stats["first_created_at"], stats["latest_message_at"]) == (began, later)
        await store.delete_message(made.id)
        await store.delete_conversation("d")
        stats = await store.stats()
        assert (stats["conversations"], stats["messages"], stats["tokens"]) == (1, 0, 0)
