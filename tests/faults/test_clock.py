"""A clock that jumps: order is the order of seq, ids are unique, what has expired does not come back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import perdure
from perdure.testing.suite.tools import TurnedClock
from perdure.values import ids

JUMPS = {
    "an hour back": -timedelta(hours=1),
    "a day back": -timedelta(days=1),
    "ten years back": -timedelta(days=3652),
    "equal stamps": timedelta(0),
    "ten years ahead": timedelta(days=3652),
}


@pytest.fixture(params=JUMPS)
def jump(request) -> timedelta:
    return JUMPS[request.param]


def turn(clock: TurnedClock, by: timedelta) -> None:
    clock.micros += by // timedelta(microseconds=1)


async def test_order_is_the_order_of_writing(opener, jump, tell):
    """Messages, feed and trail keep it whatever the stamps say; times are what the clock said."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await store.create_conversation("agent", "ann", id="c")
        said: list[Any] = []
        for number in range(12):
            if number % 3 == 2:
                turn(clock, jump if number % 2 else -jump)
            said.append(await store.add_message("c", "user", f"word {number}"))
            assert said[-1].created_at == clock.now
        said += await store.add_messages("c", [{"role": "user", "content": "group"}] * 3)
        shown = await store.get_messages("c", limit=100)
        assert [message.id for message in shown] == [message.id for message in said]
        assert [message.seq for message in shown] == list(range(1, 16))
        assert len({message.id for message in said}) == 15
        changes = [change async for change in store.all_changes()]
        assert [change.object_id for change in changes] == ["c", *(message.id for message in said)]
        conversation = await store.get_conversation("c")
        assert conversation.last_message_at == max(message.created_at for message in said)
        assert conversation.message_count == 15
        newest = await store.get_messages("c", last=4)
        assert [message.seq for message in newest] == [12, 13, 14, 15]
        assert [hit.message.text for hit in await store.search_messages("word", limit=20)] != []
    tell(f"clock_{opener.driver}", jumps=len(JUMPS), out_of_order=0, doubled_ids=0)


async def test_pages_do_not_skip_or_repeat(opener, jump):
    """Conversations whose stamps are equal or run backwards: every page once, in the order that is promised."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        for number in range(9):
            await store.create_conversation("agent", "ann", id=f"c{number}")
            await store.add_message(f"c{number}", "user", "hello")
            turn(clock, jump if number % 2 == 0 else -jump)
        for order in ("last_message_at", "created_at"):
            found, cursor = [], None
            while True:
                page = await store.query_conversations(order_by=order, limit=2, cursor=cursor)
                found += [(getattr(one, order), one.id) for one in page]
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert found == sorted(found, reverse=True)
            assert sorted(name for _, name in found) == [f"c{number}" for number in range(9)]


@pytest.mark.parametrize("back", [timedelta(hours=2), timedelta(days=1), timedelta(days=3652)], ids=str)
async def test_an_expired_key_does_not_come_back(opener, back):
    """After its day a key may be used anew; when the clock is set back then, the old answer stays forgotten."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        await store.create_conversation("agent", "ann", id="c")
        first = await store.add_message("c", "user", "old", idempotency_key="k")
        swept = await store.add_message("c", "user", "swept", idempotency_key="s")
        clock.turn(hours=25)
        second = await store.add_message("c", "user", "new", idempotency_key="k")
        assert second.id != first.id
        assert "default/idempotency" in [f"{store.tenant}/{name}" for name in await store.run_chores()]
        turn(clock, -back)
        assert await store.add_message("c", "user", "new", idempotency_key="k") == second
        with pytest.raises(perdure.Conflict):
            await store.add_message("c", "user", "old", idempotency_key="k")
        assert (await store.add_message("c", "user", "swept", idempotency_key="s")).id != swept.id


async def test_housekeeping_goes_on_after_the_clock_was_set_back(opener):
    """A chore that was planned by a clock ten years ahead is not left until then; nor is one that is held."""
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        clock.turn(days=3652)
        names = set(await store.run_chores())
        assert names
        assert set(await store.run_chores()) == set()
        clock.turn(days=-3652)
        assert set(await store.run_chores()) == names
        assert set(await store.run_chores()) == set()
        await store.execute("update chores set due_at = 0, lease_until = 4102444800000000, owner = 'gone'")
        assert set(await store.run_chores()) == names


def test_ids_stay_unique_when_time_stands_still(monkeypatch, tell):
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_700_000_000_000_000_000)
    made = {ids.new_id() for _ in range(100_000)}
    tell("clock_ids", made=100_000, doubled=100_000 - len(made))
    assert len(made) == 100_000


async def test_the_ends_of_time(opener):
    """A clock at the beginning or the end of what can be recorded, and times that cannot be."""
    clock = TurnedClock("1970-01-01T00:00:00")
    async with opener(clock=clock) as store:
        await store.create_conversation("agent", "ann", id="c")
        await store.add_message("c", "user", "first")
        clock.micros = TurnedClock("9999-12-31T23:59:59").micros
        await store.add_message("c", "user", "last", idempotency_key="k")
        await store.add_message("c", "user", "last", idempotency_key="k")
        messages = await store.get_messages("c")
        assert [message.created_at.year for message in messages] == [1970, 9999]
        for when in (datetime(1969, 12, 31, 23, tzinfo=UTC), "0001-01-01T00:00:00"):
            with pytest.raises(perdure.Invalid):
                await store.add_message("c", "user", "never", created_at=when)
