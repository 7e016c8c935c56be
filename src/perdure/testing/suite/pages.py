"""Reading messages in pages."""

import itertools
import random
from typing import Any

from perdure import Draft, Invalid, Message, MessageRole, OverLimit
from perdure.testing.drivers import Opener
from perdure.testing.suite.tools import ROLES, refusal, said


def paged(
    living: list[Message], limit: int, before: int | None, after: int | None, last: int | None, roles: Any
) -> tuple[list[Message], str | None]:
    """What ``get_messages`` must answer, over a plain list."""
    chosen = [
        message for message in living
        if (after is None or message.seq > after) and (before is None or message.seq < before)
        and (roles is None or message.role in roles)
    ]  # fmt: skip
    size = limit if last is None else last
    if size == 0:
        return [], None
    newest = last is not None or (before is not None and after is None)
    page = chosen[-size:] if newest else chosen[:size]
    if len(chosen) <= size:
        return page, None
    return page, str((page[0] if newest else page[-1]).seq)


async def test_pages_are_those_of_a_plain_list(opener: Opener, seeded_random: random.Random) -> None:
    async with opener() as store:
        made = await store.create_conversation("helper", "ann")
        await store.add_messages(made.id, [Draft(ROLES[n % 4], f"m{n}") for n in range(16)])
        branch = await store.fork_conversation(made.id, 9)
        await store.add_messages(branch.id, [Draft(ROLES[n % 3], f"b{n}") for n in range(6)])
        for conversation in (made.id, branch.id):
            everyone = await store.get_messages(conversation, limit=1_000)
            await store.delete_message(everyone[4].id)
            await store.erase_message(everyone[10].id)
        for conversation in (made.id, branch.id):
            living = list(await store.get_messages(conversation, limit=1_000))
            assert len(living) == 12 if conversation == branch.id else 13
            questions = list(itertools.product(
                (0, 1, 3, 50), (None, 0, 1, 5, 10, 12, 99), (None, 0, 3, 9, 20), (None, 0, 1, 4, 1_000),
                (None, ("user",), ("assistant", MessageRole.TOOL), ()),
            ))  # fmt: skip
            for limit, before, after, last, roles in seeded_random.sample(questions, 250):
                page = await store.get_messages(conversation, limit, before, after, last, roles)
                expected = paged(living, limit, before, after, last, roles)
                assert (list(page), page.next_cursor) == expected, (limit, before, after, last, roles)


async def test_cursors_walk_everything_once_both_ways(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, *(f"m{n}" for n in range(23)))
        for roles in (None, ("user", "tool")):
            forward: list[str] = []
            page = await store.get_messages(made.id, limit=5, roles=roles)
            while page:
                forward += [message.text for message in page]
                if page.next_cursor is None:
                    break
                page = await store.get_messages(made.id, limit=5, after=int(page.next_cursor), roles=roles)
            backward: list[str] = []
            page = await store.get_messages(made.id, last=5, roles=roles)
            while page:
                backward = [message.text for message in page] + backward
                if page.next_cursor is None:
                    break
                page = await store.get_messages(made.id, limit=5, before=int(page.next_cursor), roles=roles)
            assert forward == backward == [f"m{n}" for n in range(23)]


async def test_pages_have_a_default_and_limits(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, *(f"m{n}" for n in range(1_001)))
        assert [message.seq for message in await store.get_messages(made.id)] == list(range(1, 51))
        assert len(await store.get_messages(made.id, limit=1_000)) == 1_000
        assert (await store.get_messages(made.id, last=1_000))[0].seq == 2
        assert await store.get_messages(made.id, limit=0) == []
        assert await store.get_messages(made.id, last=0) == []
        for name in ("limit", "last"):
            error = await refusal(OverLimit, store.get_messages(made.id, **{name: 1_001}))
            assert (error.field, error.details["limit"]) == (name, 1_000)
        for name in ("limit", "last", "before", "after"):
            for wrong in (-1, True, 1.0, "x", "-1", "٥"):
                assert (await refusal(Invalid, store.get_messages(made.id, **{name: wrong}))).field == name
        error = await refusal(Invalid, store.get_messages(made.id, roles=["user", "robot"]))
        assert (error.field, "developer" in error.message) == ("roles", True)
        whole = await store.get_conversation(made.id, include_messages=True)
        assert [message.seq for message in whole.messages] == list(range(1, 1_002))


async def test_a_page_is_continued_with_its_cursor_as_it_is(opener: Opener) -> None:
    async with opener() as store:
        made = await said(store, *(f"m{n}" for n in range(7)))
        forwards, cursor = [], "0"
        while cursor is not None:
            page = await store.get_messages(made.id, limit=3, after=cursor)
            forwards += page
            cursor = page.next_cursor
        backwards = list(await store.get_messages(made.id, last=3))
        cursor = str(backwards[0].seq)
        while cursor is not None:
            page = await store.get_messages(made.id, limit=3, before=cursor)
            backwards = [*page, *backwards]
            cursor = page.next_cursor
        assert [m.seq for m in forwards] == [m.seq for m in backwards] == list(range(1, 8))
