"""Finding conversations: filters, orders, cursors, limits."""

import base64
import itertools
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from perdure import Conversation, Draft, Invalid, OverLimit
from perdure.testing.drivers import Opener
from perdure.testing.suite.tools import TurnedClock, refusal, said
from perdure.values.filters import evaluate, parse

ORDERS = ("last_message_at", "created_at", "message_count", "cost")
FILTERS = (
    "created_after", "created_before", "tags", "any_tags", "min_messages", "max_messages", "participant",
    "title_contains", "context",
)  # fmt: skip
START = datetime(2026, 1, 1, tzinfo=UTC)
TITLES = ("Tax return", "TAX office", "straße", "STRASSE 5", "İstanbul", "100% _off_", "naïve", None)
CONTEXTS: tuple[dict[str, Any], ...] = (
    {}, {"tier": "gold", "n": 1}, {"tier": "silver", "n": 2.5}, {"tier": None}, {"n": "1"}, {"n": True},
    {"tags": ["a", 1, None]}, {"deep": {"er": {"n": 3}}}, {"$set": 1, 'q"\'': 2, "at": START, "ключ": "значение"},
    {"uuid": UUID(int=5), "money": Decimal("1.50"), "big": 2**63 - 1},
)  # fmt: skip
CONTEXT_FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"tier": "gold"},
    {"tier": None},
    {"tier": {"$exists": False}},
    {"tier": {"$ne": "gold"}},
    {"n": 1},
    {"n": {"$gt": 1}},
    {"n": {"$lte": 2.5}},
    {"n": {"$in": [1, "1", None]}},
    {"n": {"$nin": [1, True]}},
    {"tags": {"$contains": 1}},
    {"tags": {"$contains": None}},
    {"tier": {"$contains": "ol"}},
    {"deep.er.n": {"$gte": 3}},
    {"$or": [{"tier": "gold"}, {"n": True}]},
    {"$and": [{"tier": {"$exists": True}}, {"$not": {"n": 2.5}}]},
    {"$not": {"tier": {"$in": ["gold", "silver"]}}},
    {"at": START},
    {"at": {"$lt": START + timedelta(days=1)}},
    {"at": START.isoformat()},
    {"uuid": UUID(int=5)},
    {"money": {"$exists": True}},
    {"big": 2**63 - 1},
    {"big": {"$gt": 2**63 - 2}},
    {"ключ": "значение"},
    {"q\"'": 2},
    {"n": {"$in": []}},
    {"tags.0": "a"},
    {"metadata.tier": "gold"},
    {"x') or 1=1 --": 1},
)


async def populate(store: Any, clock: TurnedClock, rng: random.Random, count: int) -> list[Conversation]:
    """Conversations of every kind, as they are stored; many of them tie in each order."""
    ids = [f"{rng.choice('aAzZéß_0')}{number}" for number in range(count)]
    rng.shuffle(ids)
    for number, own in enumerate(ids):
        metadata = {
            "title": TITLES[number % len(TITLES)],
            "tags": rng.sample(["red", "green", "blue", "ß", "o'clock"], rng.randrange(4)),
            "participants": rng.sample(["ann", "bo", "red"], rng.randrange(3)),
            "context": CONTEXTS[number % len(CONTEXTS)],
        }
        clock.micros = int(START.timestamp()) * 1_000_000 + rng.randrange(4) * 3_600_000_000
        await store.create_conversation(rng.choice(["helper", "coder"]), rng.choice(["ann", "bo"]), metadata, id=own)
        clock.turn(hours=rng.randrange(3))
        usage = {"cost": rng.choice(["0", "0.25", "0.5"])}
        await store.add_messages(own, [Draft("user", f"m{n}", token_usage=usage) for n in range(rng.randrange(4))])
    return [await store.get_conversation(own) for own in ids]


def ordered(found: list[Conversation], order_by: str, *, descending: bool) -> list[str]:
    """The ids in the order that a query must give them."""
    keys = {
        "last_message_at": lambda c: c.last_message_at or c.created_at,
        "created_at": lambda c: c.created_at,
        "message_count": lambda c: c.message_count,
        "cost": lambda c: c.token_usage.cost,
    }
    return [c.id for c in sorted(found, key=lambda c: (keys[order_by](c), c.id), reverse=descending)]


def passes(one: Conversation, name: str, value: Any) -> bool:
    """Whether a conversation fits one filter, in plain Python."""
    match name:
        case "created_after":
            return one.created_at >= value
        case "created_before":
            return one.created_at < value
        case "tags":
            return set(value) <= set(one.metadata.tags)
        case "any_tags":
            return bool(set(value) & set(one.metadata.tags))
        case "min_messages":
            return one.message_count >= value
        case "max_messages":
            return one.message_count <= value
        case "participant":
            return value in one.metadata.participants
        case "title_contains":
            return one.metadata.title is not None and value.casefold() in one.metadata.title.casefold()
        case _:
            return evaluate(parse(value, {}), {}, one.metadata.context)


VALUES: dict[str, tuple[Any, ...]] = {
    "created_after": (START, START + timedelta(hours=2), START + timedelta(days=9)),
    "created_before": (START, START + timedelta(hours=2), START + timedelta(days=9)),
    "tags": ([], ["red"], ["red", "blue"], ["red", "red"], ("o'clock",), ["Red"], ["ann"], {"ß", "green"}),
    "any_tags": ([], ["red"], ["red", "blue"], ["ß", "none"], ["none"]),
    "min_messages": (0, 2, 4),
    "max_messages": (0, 2, 4),
    "participant": ("ann", "red", "Ann", "nobody"),
    "title_contains": (
        "tax",
        "TAX",
        "STRASSE",
        "straße",
        "i\u0307stan",
        "İSTAN",
        "%",
        "_",
        "NAÏVE",
        "x return",
        "'",
        " ",
        "",
    ),
    "context": CONTEXT_FILTERS,
}


async def test_each_filter_keeps_what_plain_python_keeps(opener: Opener, seeded_random: random.Random) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        known = await populate(store, clock, seeded_random, 40)
        assert set(VALUES) == set(FILTERS)
        for name, values in VALUES.items():
            for value in values:
                found = await store.query_conversations(filters={name: value}, limit=1_000)
                expected = ordered(
                    [one for one in known if passes(one, name, value)], "last_message_at", descending=True
                )
                assert [one.id for one in found] == expected, (name, value)
                assert all(one in known for one in found)


async def test_filters_orders_and_cursors_together(opener: Opener, seeded_random: random.Random) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        known = await populate(store, clock, seeded_random, 30)
        for _ in range(40):
            names = seeded_random.sample(FILTERS, seeded_random.randrange(4))
            filters = {name: seeded_random.choice(VALUES[name]) for name in names}
            user, agent = seeded_random.choice([None, "ann", "nobody"]), seeded_random.choice([None, "helper"])
            order, descending = seeded_random.choice(ORDERS), seeded_random.random() < 0.5
            limit = seeded_random.choice([1, 3, 7, 1_000])
            expected = ordered([
                one for one in known if user in (None, one.user_id) and agent in (None, one.agent_id)
                and all(passes(one, name, value) for name, value in filters.items())
            ], order, descending=descending)  # fmt: skip
            walked, cursor = [], None
            while True:
                page = await store.query_conversations(user, agent, filters, order, descending, limit, cursor)
                walked += [one.id for one in page]
                cursor = page.next_cursor
                assert len(page) == limit if cursor else len(page) <= limit
                if cursor is None:
                    break
            assert walked == expected, (user, agent, filters, order, descending, limit)


async def test_every_order_is_total_both_ways(opener: Opener, seeded_random: random.Random) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        known = await populate(store, clock, seeded_random, 25)
        for order, descending in itertools.product(ORDERS, (True, False)):
            found = await store.query_conversations(order_by=order, descending=descending, limit=100)
            assert [one.id for one in found] == ordered(known, order, descending=descending)
            assert found.next_cursor is None
        newest = await store.query_conversations()
        assert [one.id for one in newest] == ordered(known, "last_message_at", descending=True)[:10]
        assert newest.next_cursor is not None


async def test_a_walk_meets_everything_that_stays_once(opener: Opener) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        for number in range(12):
            await store.create_conversation("helper", "ann", id=f"c{number:02}")
        page = await store.query_conversations(order_by="created_at", limit=5)
        met = [one.id for one in page]
        await store.delete_conversation(met[-1])  # the one that the cursor stands on
        await store.delete_conversation("c03")
        clock.turn(hours=1)
        await store.create_conversation("helper", "ann", id="new")
        while page.next_cursor:
            page = await store.query_conversations(order_by="created_at", limit=5, cursor=page.next_cursor)
            met += [one.id for one in page]
        assert met == [f"c{number:02}" for number in range(11, -1, -1) if number != 3]


async def test_limits_go_from_nothing_to_a_thousand(opener: Opener) -> None:
    async with opener() as store:
        await said(store, "x")
        await said(store, "y")
        nothing = await store.query_conversations(limit=0)
        assert (nothing, nothing.next_cursor) == ([], None)
        assert len(await store.query_conversations(limit=1_000)) == 2
        exact = await store.query_conversations(limit=2)
        assert (len(exact), exact.next_cursor) == (2, None)
        error = await refusal(OverLimit, store.query_conversations(limit=1_001))
        assert (error.field, error.details["limit"]) == ("limit", 1_000)
        for wrong in (-1, True, 1.5, "10", None):
            assert (await refusal(Invalid, store.query_conversations(limit=wrong))).field == "limit"


async def test_unknown_filters_and_orders_are_refused_with_the_known_ones(opener: Opener) -> None:
    async with opener() as store:
        for filters in ({"colour": "red"}, {"tags": ["a"], "Tags": ["b"]}, {"user_id": "ann"}, {"": 1}, {5: 1}):
            error = await refusal(Invalid, store.query_conversations(filters=filters))
            assert all(name in error.message for name in FILTERS)
            assert error.field == f"filters.{next(name for name in filters if name not in FILTERS)}"
        for order in ("title", "", "last_message_at; drop table messages", None):
            error = await refusal(Invalid, store.query_conversations(order_by=order))
            assert (error.field, all(name in error.message for name in ORDERS)) == ("order_by", True)
        await refusal(Invalid, store.query_conversations(filters={"colour": "red"}, limit=0))


async def test_wrong_values_of_filters_are_refused_by_name(opener: Opener) -> None:
    cases: list[tuple[type[Invalid], str, Any]] = [
        (Invalid, "created_after", "yesterday"),
        (Invalid, "created_before", 5),
        (Invalid, "tags", "red"),
        (Invalid, "tags", [1]),
        (Invalid, "tags", ["\0"]),
        (Invalid, "any_tags", {"a": 1}),
        (Invalid, "any_tags", [""]),
        (Invalid, "min_messages", -1),
        (Invalid, "min_messages", "5"),
        (Invalid, "max_messages", 1.5),
        (Invalid, "max_messages", True),
        (Invalid, "participant", ""),
        (Invalid, "participant", None),
        (Invalid, "title_contains", 5),
        (Invalid, "title_contains", "\ud800"),
        (Invalid, "context", []),
        (Invalid, "context", {"a": {"$near": 1}}),
        (Invalid, "context", {"$or": []}),
        (Invalid, "context", {"a": object()}),
        (OverLimit, "min_messages", 2**60),
        (OverLimit, "tags", [str(n) for n in range(257)]),
        (OverLimit, "context", {"a": {"$in": list(range(1_001))}}),
        (OverLimit, "context", {"$or": [{"a": n} for n in range(257)]}),
    ]
    async with opener() as store:
        for kind, name, value in cases:
            error = await refusal(kind, store.query_conversations(filters={name: value}))
            assert f"filters.{name}" in error.field, (name, value)
        assert (await refusal(Invalid, store.query_conversations(filters=[("tags", [])]))).field == "filters"
        for name in ("user_id", "agent_id"):
            assert (await refusal(Invalid, store.query_conversations(**{name: " "}))).field == name
            assert (await refusal(OverLimit, store.query_conversations(**{name: "x" * 513}))).field == name


async def test_iso_times_and_naive_ones_filter_as_utc(opener: Opener) -> None:
    async with opener() as store:
        await store.create_conversation("helper", "ann", id="noon", created_at="2026-03-01T12:00:00Z")
        for after, before in (
            ("2026-03-01T12:00:00", "2026-03-01T12:00:00.000001"),
            ("2026-03-01T13:00:00+01:00", "2026-03-01T14:00+01:00"),
            (datetime.fromisoformat("2026-03-01T12:00"), datetime.fromisoformat("2026-03-02")),
        ):
            assert len(await store.query_conversations(filters={"created_after": after, "created_before": before})) == 1
            assert await store.query_conversations(filters={"created_before": after}) == []
            assert await store.query_conversations(filters={"created_after": before}) == []


async def test_a_cursor_of_another_order_or_of_nothing_is_refused(opener: Opener) -> None:
    async with opener() as store:
        for number in range(3):
            await said(store, "x", id=f"c{number}")
        cursor = (await store.query_conversations(limit=1)).next_cursor
        for order in ORDERS[1:]:
            assert (await refusal(Invalid, store.query_conversations(order_by=order, cursor=cursor))).field == "cursor"
        garbage = [
            "",
            " ",
            "x",
            "é",
            "a" * 5_000,
            5,
            b"abc",
            cursor[:-4],
            cursor + "AAAA",
            "e30=",
            "bnVsbA==",
            *(
                base64.urlsafe_b64encode(text.encode()).decode()
                for text in (
                    '["last_message_at",1]',
                    '["last_message_at","1","x"]',
                    '["last_message_at",1.5,"x"]',
                    '["last_message_at",1,""]',
                    '["last_message_at",9223372036854775808,"x"]',
                    '["last_message_at",1,"a\\u0000"]',
                    '["last_message_at",1,null]',
                )
            ),
        ]
        for wrong in garbage:
            assert (await refusal(Invalid, store.query_conversations(cursor=wrong))).field == "cursor", wrong
        assert len(await store.query_conversations(cursor=cursor)) == 2


async def test_the_newest_fifty_messages_come_along_when_asked(opener: Opener) -> None:
    async with opener() as store:
        long = await said(store, *(f"m{n}" for n in range(60)))
        short = await said(store, "one", "two")
        empty = await store.create_conversation("helper", "ann")
        branch = await store.fork_conversation(long.id, 30)
        await store.add_message(branch.id, "user", "own")
        found = {one.id: one for one in await store.query_conversations(include_messages=True)}
        assert [m.text for m in found[long.id].messages] == [f"m{n}" for n in range(10, 60)]
        assert [m.seq for m in found[long.id].messages] == list(range(11, 61))
        assert [m.text for m in found[short.id].messages] == ["one", "two"]
        assert [m.text for m in found[branch.id].messages] == [*(f"m{n}" for n in range(30)), "own"]
        assert found[empty.id].messages == ()
        assert all(one.messages == () for one in await store.query_conversations())
        (first,) = await store.query_conversations(include_messages=True, limit=1, order_by="message_count")
        assert (first.id, len(first.messages)) == (long.id, 50)


async def test_conversations_without_messages_stand_at_their_creation(opener: Opener) -> None:
    clock = TurnedClock()
    async with opener(clock=clock) as store:
        old = await said(store, "x")
        clock.turn(hours=1)
        empty = await store.create_conversation("helper", "ann")
        clock.turn(hours=1)
        newest = await said(store, "y")
        assert [one.id for one in await store.query_conversations()] == [newest.id, empty.id, old.id]
        assert [one.last_message_at for one in await store.query_conversations(filters={"max_messages": 0})] == [None]
        clock.turn(hours=1)
        await store.add_message(old.id, "user", "z")
        assert [one.id for one in await store.query_conversations()] == [old.id, newest.id, empty.id]
