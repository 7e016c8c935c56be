async def test_a_message_is_found_again(opener):
    async with opener() as store:
        made = await store.create_conversation("agent", "ann")
        await store.add_message(made.id, "user", "hello world")
        async with store.transaction() as t:
            await t.add_message(made.id, "user", "two")
        assert [m.text for m in await store.get_messages(made.id)] == ["hello world", "two"]
        assert [c.verb async for c in store.all_changes()] == ["create", "add", "add"]
