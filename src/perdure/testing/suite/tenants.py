"""Tenants: a handle sees and changes its own rows, whatever it is asked; PostgreSQL holds that even without the library."""

import psycopg
import pytest

from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.rooms.checkpoints.frames import TaskWrite
from perdure.rooms.items.values import Vector
from perdure.rooms.items.vectors import pack
from perdure.testing.suite.apart import on_postgres
from perdure.values.errors import Conflict, Forbidden, Invalid, Misused, NotFound

_TABLES = (
    "changes", "idempotency", "conversations", "conversation_labels", "forks", "messages", "message_versions",
    "token_totals", "text_scopes", "text_progress", "text_documents", "text_postings", "text_terms", "text_totals",
    "items", "item_vectors", "checkpoint_threads", "checkpoint_branches", "checkpoints", "checkpoint_tags",
    "checkpoint_items", "checkpoint_segments", "checkpoint_runs", "checkpoint_writes", "checkpoint_keys",
)  # fmt: skip


async def _live(store, word):
    """Uses every table as a tenant that says ``word``, with the same ids as everybody else."""
    await store.create_conversation("agent", "ann", {"title": word, "tags": [word], "participants": ["x"]}, id="c")
    await store.add_message("c", "user", f"zebra {word}", id="m", token_usage={"input_tokens": 5, "model": word})
    await store.add_message("c", "user", "old", id="m2", idempotency_key="k")
    await store.edit_message("m2", f"{word} again")
    await store.fork_conversation("c", 1, "fork")
    await store.search_messages("zebra")
    await store.run_chores()


async def _live_beside(opener, store, word):
    """Uses the tables of checkpoints and items as well."""
    checkpointer = opener.checkpointer(store, CheckpointConfig(encryption_key=word[:1].encode() * 32))
    for number in range(65):  # one more than a segment takes
        last = await checkpointer.save("t", {"said": [word] * number, "text": word * 20}, tags=[word])
    await checkpointer.create_branch(last, "other")
    frames = opener.beside(store, "checkpoint_frames", "FrameCheckpoints")
    await frames.put_writes("t", "", last, [TaskWrite("task", 0, "", word.encode())], replace=False)
    items = opener.beside(store, "items", "ItemStore")
    await items.put(("n",), "k", {"word": word}, space="s", vectors=[Vector("$", pack([1.0, 0.0], 2, "v"))])


async def _all_answers(store):
    """What every reading verb says, asked as widely as it can be."""
    return {
        "get": await store.get_conversation("c", include_messages=True),
        "query": list(await store.query_conversations(include_messages=True)),
        "query filtered": list(await store.query_conversations("ann", "agent", {"any_tags": ["ocelot", "walrus"]})),
        "messages": list(await store.get_messages("c")),
        "message": await store.get_message("m"),
        "history": await store.message_history("m2"),
        "search": await store.search_messages("zebra ocelot walrus"),
        "search user": await store.search_messages("zebra", user_id="ann"),
        "search conversation": await store.search_messages("zebra", conversation_id="c"),
        "changes": [(c.verb, c.kind, c.object_id, c.parent_id) for c in await store.changes()],
        "trail": [c.verb for c in await store.trail("conversation", "c")],
        "report": await store.token_report("user_id", "agent_id", "model", "day"),
        "window": await store.context_window("c", 1_000),
        "stats": {name: value for name, value in (await store.stats()).items() if name != "tenant"},
    }


async def test_tenants_with_the_same_ids_see_their_own_only(opener):
    """By every reading verb; what one changes changes nothing of the other."""
    async with opener(clock=lambda: 1_700_000_000_000_000) as store:
        one, two = store.for_tenant("one"), store.for_tenant("two")
        empty = await _all_answers(two)
        assert not any(answer for name, answer in empty.items() if name != "stats")
        await _live(one, "ocelot")
        assert await _all_answers(two) == empty
        assert await _all_answers(store) == empty
        await _live(two, "walrus")
        answers = await _all_answers(one)
        assert "walrus" not in repr(answers)
        assert "ocelot" not in repr(await _all_answers(two))
        assert all(answers.values())
        await two.update_conversation("c", {"title": "changed"})
        await two.edit_message("m", "changed")
        await two.delete_message("m2")
        await two.erase_message("m")
        await two.flush("c", [{"role": "user", "content": "more"}])
        await two.rebuild_text()
        await two.delete_conversation("fork")
        await two.erase_conversation("c")
        assert await _all_answers(one) == answers


async def test_an_id_of_another_tenant_is_not_found(opener):
    """By every changing verb, and not taken either."""
    async with opener() as store:
        one, two = store.for_tenant("one"), store.for_tenant("two")
        await _live(one, "ocelot")
        before = await _all_answers(one)
        for verb, args in (
            ("update_conversation", ("c", {})), ("delete_conversation", ("c",)), ("erase_conversation", ("c",)),
            ("fork_conversation", ("c", 1)), ("add_message", ("c", "user", "x")),
            ("add_messages", ("c", [{"role": "user", "content": "x"}])), ("flush", ("c", [{"role": "user", "content": "x"}])),
            ("edit_message", ("m", "x")), ("delete_message", ("m",)), ("erase_message", ("m2",)),
        ):  # fmt: skip
            with pytest.raises(NotFound):
                await getattr(two, verb)(*args)
        assert list(await two.changes()) == []
        assert await _all_answers(one) == before
        await two.create_conversation("agent", "ann", id="c")
        await two.add_message("c", "user", "x", id="m", idempotency_key="k")
        with pytest.raises(Conflict):
            await two.add_message("c", "user", "x", id="m")


async def test_a_cursor_of_another_tenant_opens_nothing(opener):
    """Cursors are places, not keys."""
    async with opener() as store:
        one, two = store.for_tenant("one"), store.for_tenant("two")
        for number in range(3):
            await one.create_conversation("agent", "ann", id=f"one-{number}")
            await two.create_conversation("agent", "ann", id=f"two-{number}")
        page = await one.query_conversations(limit=1)
        found = await two.query_conversations(limit=10, cursor=page.next_cursor)
        assert all(conversation.id.startswith("two-") for conversation in found)
        cursor = (await one.changes(limit=1)).next_cursor
        assert all(change.object_id.startswith("two-") for change in await two.changes(cursor))


async def test_an_ensured_conversation_belongs_to_its_tenant(opener):
    """Another tenant's first message does not create it."""
    async with opener() as store:
        one, two = store.for_tenant("one"), store.for_tenant("two")
        await one.ensure_conversation("later", "agent", "ann")
        with pytest.raises(NotFound):
            await two.add_message("later", "user", "x")
        await one.add_message("later", "user", "x")
        assert await two.get_conversation("later") is None
        assert (await one.get_conversation("later")).message_count == 1


async def test_a_tenant_runs_no_sql_and_sees_no_chores_of_others(opener):
    """``execute`` is the administrator's."""
    async with opener() as store:
        acme = store.for_tenant("acme")
        for handle in (acme, acme.acting_as("admin")):
            with pytest.raises(Forbidden):
                await handle.execute("select 1")
        await store.for_tenant("secret-tenant").run_chores()
        await acme.run_chores()
        assert "secret-tenant" not in repr(await acme.doctor())
        assert "acme/text_index" in (await store.doctor())["chores"]
        assert "secret-tenant/text_index" in (await store.doctor())["chores"]
        with pytest.raises(Misused):
            await acme.close()


async def test_names_of_tenants(opener):
    """Any id is one, told apart to the last character; what is none is refused."""
    names = ["a", "A", "a ", "ä", "a\u0308", "%", "a' or '1'='1", "日本", "x" * 512]
    async with opener() as store:
        for name in names:
            await store.for_tenant(name).create_conversation("agent", name[:100], id="c")
        for name in names:
            assert (await store.for_tenant(name).get_conversation("c")).user_id == name[:100]
            assert len(await store.for_tenant(name).query_conversations(limit=100)) == 1
        assert list(await store.query_conversations()) == []
        for wrong in ("", "  ", "a\0b", "\ud800", None, 5, "x" * 513):
            with pytest.raises(Invalid):
                store.for_tenant(wrong)


# -- without the library -----------------------------------------------------------------------------------------------------


async def _connect(opener):
    connection = await psycopg.AsyncConnection.connect(opener.url, autocommit=True)
    await connection.execute("set search_path to perdure")
    return connection


async def _value(connection, sql, *params):
    cursor = await connection.execute(sql, params or None)
    row = await cursor.fetchone()
    return row and row[0]


@on_postgres
async def test_the_server_shows_rows_of_the_set_tenant_only(opener):
    """Without a tenant none, in every table, even to the tables' owner."""
    async with opener() as store:
        await _live(store.for_tenant("one"), "one")
        await _live_beside(opener, store.for_tenant("one"), "one")
        await _live(store.for_tenant("two"), "two")
        await _live_beside(opener, store.for_tenant("two"), "two")
        async with await _connect(opener) as raw:
            for table in _TABLES:
                assert await _value(raw, f"select count(*) from {table}") == 0, table
            for name, other in (("one", "two"), ("two", "one")):
                await raw.execute("select set_config('perdure.tenant', %s, false)", (name,))
                for table in _TABLES:
                    assert await _value(raw, f"select count(*) from {table}") > 0, table
                    assert await _value(raw, f"select count(*) from {table} where tenant <> %s", name) == 0, table
                    changed = await raw.execute(f"update {table} set tenant = tenant where tenant = %s", (other,))
                    assert changed.rowcount == 0, table
                    gone = await raw.execute(f"delete from {table} where tenant = %s", (other,))
                    assert gone.rowcount == 0, table
        assert (await store.for_tenant("one").get_conversation("c")).message_count == 2


@on_postgres
async def test_the_server_takes_no_row_for_another_tenant(opener):
    """Neither by an insert nor by moving one over."""
    async with opener() as store:
        await _live(store.for_tenant("one"), "one")
        await _live_beside(opener, store.for_tenant("one"), "one")
        async with await _connect(opener) as raw:
            await raw.execute("select set_config('perdure.tenant', 'one', false)")
            insert = "insert into idempotency (tenant, verb, key, digest, answer, expires_at) values (%s, 'v', 'k', 'd', 'a', 1)"
            await raw.execute(insert, ("one",))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await raw.execute(insert, ("two",))
            for table in _TABLES:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await raw.execute(f"update {table} set tenant = 'two'")


@on_postgres
async def test_every_table_with_a_tenant_is_under_forced_row_level_security(opener):
    """So is the next one that somebody adds, or this fails."""
    async with opener(), await _connect(opener) as raw:
        cursor = await raw.execute(
            "select c.relname, c.relrowsecurity and c.relforcerowsecurity, "
            "(select count(*) from pg_policy p where p.polrelid = c.oid) from pg_class c "
            "join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant' and not a.attisdropped "
            "where c.relkind in ('r', 'p') and c.relnamespace = 'perdure'::regnamespace"
        )
        found = await cursor.fetchall()
    assert sorted(name for name, _, _ in found) == sorted(_TABLES)
    assert [name for name, forced, policies in found if not forced or policies != 1] == []


@on_postgres
async def test_stores_connect_as_an_ordinary_role(opener):
    """Else row-level security would prove nothing."""
    async with opener() as store:
        bound = "select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb from pg_roles where rolname = current_user"
        assert await store.execute(bound) == [(False, False, False, False)]


@on_postgres
async def test_no_tenant_stays_behind_on_a_connection(opener):
    """The setting ends with the transaction, so that the pool's next user starts with none."""
    async with opener(pool_size=1, max_overflow=0) as store:
        await store.for_tenant("one").create_conversation("agent", "ann", id="c")
        with pytest.raises(NotFound):
            await store.for_tenant("one").add_message("none", "user", "x")
        async with store.for_tenant("one").transaction() as t:
            await t.get_conversation("c")
        assert await store.execute("select current_setting('perdure.tenant', true), count(*) from conversations") == [
            ("default", 0)
        ]
        assert await store.get_conversation("c") is None


@on_postgres
async def test_a_role_that_escapes_row_level_security_is_warned_of(opener, postgres_server):
    """When the store opens, and by doctor."""
    opener.url = postgres_server.admin_url(opener.url.rsplit("/", 1)[1])
    with pytest.warns(RuntimeWarning, match="superuser"):
        async with opener() as store:
            report = await store.doctor()
    assert any("superuser" in problem for problem in report["problems"])


async def test_a_tenants_handle_leads_to_no_other_tenant(opener):
    async with opener() as store:
        one = store.for_tenant("one")
        for handle in (one, one.acting_as("mallory"), store.for_tenant("default")):
            with pytest.raises(Forbidden):
                handle.for_tenant("two")
            with pytest.raises(Forbidden):
                await handle.execute("select 1")
        async with one.transaction() as t:
            with pytest.raises(Forbidden):
                t.for_tenant("two")
