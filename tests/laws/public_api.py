"""What a strict type checker sees of the public names: checked by mypy, never run.

``assert_type`` fails the check when a verb's type changes.
"""

from typing import assert_type

import perdure
import perdure.sync


async def asynchronous() -> None:
    async with perdure.open("sqlite:///agent.db") as store:
        assert_type(store, perdure.Store)
        made = await store.create_conversation("helper", "ann", {"title": "Trip"})
        assert_type(made, perdure.Conversation)
        assert_type(await store.get_conversation(made.id), perdure.Conversation | None)
        message = await store.add_message(made.id, perdure.MessageRole.USER, "Hello", token_usage={"input_tokens": 3})
        assert_type(message, perdure.Message)
        assert_type(await store.get_messages(made.id, last=5), perdure.Page[perdure.Message])
        assert_type(await store.query_conversations(user_id="ann"), perdure.Page[perdure.Conversation])
        assert_type(await store.search_messages("hello"), list[perdure.SearchHit])
        assert_type(await store.token_report("model", "day"), list[perdure.TokenReportRow])
        assert_type(await store.changes(), perdure.Page[perdure.Change])
        async with store.transaction() as t:
            assert_type(t, perdure.Store)
            await t.edit_message(message.id, "Hello again")
        assert_type(store.acting_as("ann", "asked for it"), perdure.Store)
    other = await perdure.open(perdure.PersistenceConfig("postgresql://localhost/agent", work_mem="64MB"))
    assert_type(other, perdure.Store)


def blocking() -> None:
    with perdure.sync.open("sqlite:///agent.db") as store:
        assert_type(store, perdure.sync.Store)
        made = store.create_conversation("helper", "ann")
        assert_type(made, perdure.Conversation)
        assert_type(store.add_messages(made.id, [perdure.Draft("user", "Hello")]), list[perdure.Message])
        with store.transaction() as t:
            assert_type(t, perdure.sync.Store)
