"""A store behind a real PgBouncer in transaction mode, where each transaction may meet another server connection."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

import perdure
import perdure.sync
from perdure.testing.cluster import free_port
from perdure.values.config import PersistenceConfig

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="the program pgbouncer is not installed")

_SETTINGS = """
[databases]
* = host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 2
max_client_conn = 100
"""


@pytest.fixture
def bouncer_url(postgres_server, fresh_postgres_url):
    """The address of a fresh database through a PgBouncer of its own with two server connections."""
    folder = Path(tempfile.mkdtemp(prefix="perdure-bouncer-"))
    port = free_port()
    folder.chmod(0o755)
    (folder / "users").write_text('"perdure_app" ""\n')
    (folder / "bouncer.ini").write_text(_SETTINGS.format(server_port=postgres_server.port, port=port, folder=folder))
    command = [PROGRAM, *(["-u", "nobody"] if os.geteuid() == 0 else []), str(folder / "bouncer.ini")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield fresh_postgres_url.replace(f":{postgres_server.port}/", f":{port}/")
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def _config(url, **settings):
    return PersistenceConfig(url, pool_size=6, max_overflow=0, prepare_threshold=None, **settings)


def test_verbs_of_many_connections_share_two(bouncer_url):
    """Nothing is lost, mixed up between tenants, or dependent on what a connection did before."""

    async def scenario():
        async with perdure.Store(_config(bouncer_url)) as store:
            tenants = [store.for_tenant(f"t{n}") for n in range(4)]
            for tenant in tenants:
                await tenant.create_conversation("agent", "ann", id="c")

            async def live(tenant, number):
                await tenant.add_message("c", "user", f"zebra {tenant.tenant}", id=f"m{number}")
                await tenant.add_messages("c", [{"role": "user", "content": f"many {tenant.tenant}"}] * 25)
                await tenant.edit_message(f"m{number}", f"zebra {tenant.tenant} edited")
                async with tenant.transaction() as t:
                    await t.add_message("c", "user", "x")
                    await t.add_message("c", "user", "y")
                return await tenant.search_messages("zebra", limit=100)

            await asyncio.gather(*(live(tenant, number) for tenant in tenants for number in range(4)))
            for tenant in tenants:
                conversation = await tenant.get_conversation("c")
                assert conversation.message_count == 4 * 28
                hits = await tenant.search_messages("zebra", limit=100)
                assert {hit.message.text for hit in hits} == {f"zebra {tenant.tenant} edited"}
                assert len([c async for c in tenant.all_changes()]) == 1 + 4 * 29
            assert await store.stats() | {"tenant": ""} == await store.for_tenant("none").stats() | {"tenant": ""}

    asyncio.run(scenario())


def test_settings_go_with_each_transaction(bouncer_url):
    """And stay on none: the next client finds what the server has."""
    with perdure.sync.Store(_config(bouncer_url, statement_timeout="7s", work_mem="5MB", schema="other")) as store:
        look = (
            "select current_setting('statement_timeout'), current_setting('work_mem'), current_setting('search_path')"
        )
        assert [store.execute(look) for _ in range(3)] == [[("7s", "5MB", "other")]] * 3
        with psycopg.connect(bouncer_url, autocommit=True, prepare_threshold=None) as plain:
            found = plain.execute(look).fetchone()
    assert found[0] == "0"
    assert "other" not in found[2]


def test_a_blocking_store_works_too(bouncer_url):
    """With transactions and refusals between."""
    with perdure.sync.Store(_config(bouncer_url)) as store:
        store.create_conversation("agent", "ann", id="c")
        for number in range(12):
            store.add_message("c", "user", f"{number}", id=f"m{number}")
            with pytest.raises(perdure.Conflict):
                store.add_message("c", "user", "again", id=f"m{number}")
        with pytest.raises(ZeroDivisionError), store.transaction() as t:
            t.add_message("c", "user", "lost")
            raise ZeroDivisionError
        assert [message.seq for message in store.get_messages("c")] == list(range(1, 13))
