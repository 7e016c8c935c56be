"""Accounts: the totals of conversations and the token report equal a plain model after whatever happened."""

import itertools
import random
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from perdure import Draft, Invalid, TokenUsage
from perdure.testing.drivers import Opener
from perdure.testing.suite.model import Said, World, counts, counts_of
from perdure.testing.suite.tools import TurnedClock, refusal, row_count, said

GROUPS = ("user_id", "agent_id", "model", "day")


class Walk:
    """Random changes, made to a store and to a model of it."""

    def __init__(self, store: Any, clock: TurnedClock, rng: random.Random) -> None:
        self.store = store
        self.clock = clock
        self.rng = rng
        self.world = World()
        self.numbers = itertools.count()

    def usage(self) -> TokenUsage | None:
        """Some token usage, or none."""
        rng = self.rng
        if rng.random() < 0.25:
            return None
        total = {} if rng.random() < 0.5 else {"total_tokens": 5_000}
        cost = Decimal(rng.randrange(10**12)).scaleb(-9)
        return TokenUsage(
            rng.randrange(2_000), rng.randrange(2_000), model=rng.choice([None, "m1", "m2"]), cost=cost, **total
        )

    def some(self) -> Said | None:
        """A living message, if there is one."""
        found = list(self.world.living())
        return self.rng.choice(found) if found else None

    async def step(self) -> None:
        """One change."""
        self.clock.turn(hours=self.rng.randrange(9))
        actions = (
            self.create,
            self.add,
            self.add,
            self.add_many,
            self.edit,
            self.delete,
            self.erase,
            self.fork,
            self.drop,
        )
        await self.rng.choices(actions, (2, 6, 4, 3, 5, 3, 2, 3, 2))[0]()

    async def create(self) -> None:
        own, agent, user = f"c{next(self.numbers)}", self.rng.choice("xy"), self.rng.choice(["ann", "bo"])
        await self.store.create_conversation(agent, user, id=own)
        self.world.create(own, agent, user)

    def talk(self) -> Any:
        return self.rng.choice(list(self.world.talks.values()) or [None])

    async def add(self) -> None:
        if talk := self.talk():
            usage, own = self.usage(), f"m{next(self.numbers)}"
            at = self.rng.choice([None, datetime.fromisoformat("2025-12-31T23:59:59.999999"), "2026-01-01T00:00:00Z"])
            message = await self.store.add_message(talk.id, "user", "x", token_usage=usage, created_at=at, id=own)
            self.world.add(talk, own, "user", "x", usage, message.created_at)

    async def add_many(self) -> None:
        if talk := self.talk():
            drafts = [
                Draft("assistant", "y", token_usage=self.usage(), id=f"m{next(self.numbers)}")
                for _ in range(self.rng.choice([2, 5, 25]))
            ]
            for message in await self.store.add_messages(talk.id, drafts):
                self.world.add(talk, message.id, "assistant", "y", message.token_usage, message.created_at)

    async def edit(self) -> None:
        if one := self.some():
            usage = self.usage()
            await self.store.edit_message(one.id, "edited", token_usage=usage)
            self.world.edit(one, "edited", usage)

    async def delete(self) -> None:
        if one := self.some():
            await self.store.delete_message(one.id)
            self.world.delete(one)

    async def erase(self) -> None:
        known = list(self.world.known())
        if known:
            one = self.rng.choice(known)
            await self.store.erase_message(one.id)
            self.world.erase(one)

    async def fork(self) -> None:
        if talk := self.talk():
            at_seq, own = self.rng.randrange(len(talk.slots) + 1), f"c{next(self.numbers)}"
            await self.store.fork_conversation(talk.id, at_seq, own)
            self.world.fork(talk, at_seq, own)

    async def drop(self) -> None:
        if talk := self.talk():
            erase = self.rng.random() < 0.4
            await (self.store.erase_conversation if erase else self.store.delete_conversation)(talk.id)
            self.world.drop(talk, erase=erase)

    async def check(self) -> None:
        """Everything that adds up, against the model."""
        for talk in self.world.talks.values():
            found = await self.store.get_conversation(talk.id, include_messages=True)
            living = [one for _, one in talk.living()]
            assert counts(found.message_count, found.token_usage) == counts_of(living)
            assert [(m.seq, m.id, m.version) for m in found.messages] == [
                (seq, one.id, one.version) for seq, one in talk.living()
            ]
        for size in range(len(GROUPS) + 1):
            for group_by in itertools.combinations(GROUPS, size):
                await self.check_report(*group_by)
        for only in (
            {"user_id": "ann"},
            {"agent_id": "x"},
            {"model": "m1"},
            {"user_id": "bo", "agent_id": "y", "model": "m2"},
        ):
            await self.check_report("day", **only)
        for since, until in (
            ("2026-01-01", None),
            (None, "2026-01-01"),
            ("2026-03-02", "2026-03-03"),
            ("2026-03-03", "2026-03-02"),
        ):
            await self.check_report("user_id", since=since, until=until)

    async def check_report(
        self, *group_by: str, since: str | None = None, until: str | None = None, **only: str
    ) -> None:
        rows = await self.store.token_report(*group_by, since=since, until=until, **only)
        found = {tuple(getattr(row, name) for name in group_by): counts(row.messages, row.token_usage) for row in rows}
        bounds = {name: value for name, value in (("since", since), ("until", until)) if value}
        assert found == self.world.report(*group_by, **bounds, **only)
        assert len(found) == len(rows)


async def test_accounts_equal_a_plain_model(opener: Opener, seeded_random: random.Random) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        walk = Walk(store, clock, seeded_random)
        for _ in range(4):
            for _ in range(30):
                await walk.step()
            await walk.check()
        assert [problem for problem in (await store.doctor())["problems"] if "add up" in problem] == []
        stats = await store.stats()
        totals = [await store.get_conversation(own) for own in walk.world.talks]
        assert (stats["conversations"], stats["messages"]) == (len(totals), sum(one.message_count for one in totals))
        assert stats["cost"] == sum((one.token_usage.cost for one in totals), Decimal(0))
        for own in list(walk.world.talks):
            await store.delete_conversation(own)
        assert [
            await row_count(store, table) for table in ("conversations", "messages", "forks", "message_versions")
        ] == [0] * 4
        assert await store.token_report("user_id", "model") == []


async def test_the_report_says_what_it_did_not_group_by_is_none(opener: Opener) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        for user, model in (("bo", "m"), ("ann", None), ("ann", "m")):
            made = await said(store, "hi", user=user)
            await store.add_message(made.id, "assistant", "x", token_usage=TokenUsage(1, 2, 4, model, "0.5"))
        assert await store.token_report("user_id", "model", "day") == sorted(
            await store.token_report("day", "model", "user_id"), key=lambda row: (row.user_id, row.model or "")
        )
        rows = await store.token_report("user_id", "model")
        assert [(row.user_id, row.model, row.agent_id, row.day, row.messages) for row in rows] == [
            ("ann", None, None, None, 1), ("ann", "m", None, None, 1), ("bo", "m", None, None, 1),
        ]  # fmt: skip
        (total,) = await store.token_report()
        assert (total.user_id, total.model, total.messages, total.token_usage) == (
            None,
            None,
            3,
            TokenUsage(3, 6, 12, None, "1.5"),
        )
        (day,) = await store.token_report("day", "agent_id")
        assert (day.day, day.agent_id) == ("2026-03-01", "helper")


async def test_days_begin_at_midnight_utc(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, "x")
        for at in ("2026-03-01T23:59:59.999999Z", "2026-03-02T00:00:00Z", "2026-03-02T01:00:00+02:00", "1970-01-01"):
            await store.add_message(made.id, "user", "x", created_at=at, token_usage={"input_tokens": 1})
        days = {row.day: row.messages for row in await store.token_report("day")}
        assert days == {"1970-01-01": 1, "2026-03-01": 2, "2026-03-02": 1}
        for since, until, messages in (
            (date(2026, 3, 1), None, 3),
            ("2026-03-02", None, 1),
            (None, date(2026, 3, 2), 3),
            ("2026-03-01", "2026-03-02", 2),
        ):
            (row,) = await store.token_report(since=since, until=until)
            assert row.messages == messages
        offset = timezone(timedelta(hours=5))
        for since in (datetime(2026, 3, 2, 1, tzinfo=offset), "2026-03-01T20:00:00Z"):  # both on the first, in UTC
            (row,) = await store.token_report(since=since, until="2026-03-02")
            assert row.messages == 2


async def test_wrong_questions_to_the_report_are_refused(opener: Opener) -> None:
    async with opener() as store:
        error = await refusal(Invalid, store.token_report("user_id", "hour"))
        assert (error.field, all(name in error.message for name in GROUPS)) == ("group_by", True)
        for name in ("since", "until"):
            for wrong in ("March", 5, "2026-13-01"):
                assert (await refusal(Invalid, store.token_report(**{name: wrong}))).field == name
        for name in ("user_id", "agent_id", "model"):
            assert (await refusal(Invalid, store.token_report(**{name: ""}))).field == name
        assert await store.token_report() == []


async def test_totals_of_very_large_counts_are_exact(opener: Opener) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        largest = TokenUsage(5 * 10**11, 5 * 10**11, 10**12, "m", "9999.999999999")
        await store.add_messages(made.id, [Draft("assistant", "x", token_usage=largest)] * 800)
        total = (await store.get_conversation(made.id)).token_usage
        assert (total.total_tokens, total.cost) == (8 * 10**14, Decimal("7999999.9999992"))
        (row,) = await store.token_report("model")
        assert (row.token_usage.total_tokens, row.token_usage.cost) == (8 * 10**14, Decimal("7999999.9999992"))
