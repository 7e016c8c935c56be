"""PostgreSQL connections that break at the worst moment, deadlocks and serialization failures.

A proxy between store and server cuts a connection when it sees a chosen statement pass by.
"""

import asyncio
import contextlib
import socket
import threading
import time

import psycopg
import pytest

import perdure
import perdure.sync
from perdure.grammar import fetch_one, op
from perdure.testing.drivers import Opener
from perdure.testing.suite.apart import started, until
from perdure.values.errors import Disconnected, OutcomeUnknown, Unavailable

COMMIT = b"commit\0"
"""The statement itself: announcements name a setting with this word in it."""
BOTH = pytest.mark.parametrize("driver", ["postgres", "postgres-blocking"])


class Proxy:
    """Passes connections on to a server, and cuts one when ``word`` passes, before or after the server has seen it."""

    def __init__(self, port):
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._word = b""
        self._left = 0
        self._after = False
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, word, times=1, *, after=False):
        """From now on so many connections are cut at a client's message with this word in it."""
        with self._lock:
            self._word, self._left, self._after, self.cuts = word, times, after, 0

    def close(self):
        """Takes no more connections."""
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answered = threading.Event()
            threading.Thread(target=self._forward, args=(client, server, answered), daemon=True).start()
            threading.Thread(target=self._return, args=(client, server, answered), daemon=True).start()

    def _is_cut(self, data):
        with self._lock:
            if self._left == 0 or self._word not in data:
                return False
            self._left -= 1
            self.cuts += 1
            return True

    def _forward(self, client, server, doomed):
        """Client to server; ``doomed`` tells the other direction that the answer must not arrive."""
        try:
            while data := client.recv(65_536):
                if self._is_cut(data):
                    if not self._after:
                        break
                    doomed.set()
                server.sendall(data)
        except OSError:
            pass
        _hang_up(client, server)

    def _return(self, client, server, doomed):
        try:
            while data := server.recv(65_536):
                if doomed.is_set():  # the server has answered, so it is done
                    break
                client.sendall(data)
        except OSError:
            pass
        _hang_up(client, server)


def _hang_up(*sockets):
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@pytest.fixture
def proxy(postgres_server):
    """Between the stores and the server."""
    proxy = Proxy(postgres_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def opener(driver, proxy, postgres_server, fresh_postgres_url):
    """Stores through the proxy; statements go as text, so that it can read them."""
    return Opener(driver, fresh_postgres_url.replace(f":{postgres_server.port}/", f":{proxy.port}/"))


@pytest.fixture
def direct(driver, fresh_postgres_url):
    """Stores on the same database without the proxy."""
    return Opener(driver, fresh_postgres_url)


async def _texts(direct):
    async with direct() as store:
        messages = await store.get_messages("c", limit=1_000)
        assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
        assert (await store.get_conversation("c")).message_count == len(messages)
        assert len(await store.changes(kinds=["message"])) == len(messages)
        return [message.text for message in messages]


# -- broken before the commit ----------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("word", [b"update conversations", b"insert into messages", b"insert into changes"])
async def test_a_connection_that_breaks_before_the_commit_is_replaced(opener, direct, proxy, word):
    """The change is made again from its beginning, and is there once."""
    async with opener(prepare_threshold=None) as store:
        await store.create_conversation("agent", "ann", id="c")
        proxy.cut(word)
        assert (await store.add_message("c", "user", "once")).seq == 1
        assert proxy.cuts == 1
        proxy.cut(word)
        assert (await store.add_message("c", "user", "twice", idempotency_key="k")).seq == 2
        assert proxy.cuts == 1
    assert await _texts(direct) == ["once", "twice"]


@BOTH
async def test_a_connection_that_breaks_again_and_again_is_disconnected(opener, direct, proxy):
    """The error says that nothing was changed, and so it is; later calls work."""
    async with opener(prepare_threshold=None) as store:
        await store.create_conversation("agent", "ann", id="c")
        proxy.cut(b"insert into messages", times=1_000)
        with pytest.raises(Disconnected, match="nothing was changed") as gone:
            await store.add_message("c", "user", "lost")
        assert gone.value.retry_after
        assert 1 < proxy.cuts < 10
        proxy.cut(b"nothing")
        assert (await store.add_message("c", "user", "kept")).seq == 1
    assert await _texts(direct) == ["kept"]


@BOTH
async def test_reading_survives_a_broken_connection(opener, proxy):
    """Also one that breaks when the snapshot is given back."""
    async with opener(prepare_threshold=None) as store:
        await store.create_conversation("agent", "ann", id="c")
        for word in (b"from conversations", COMMIT):
            proxy.cut(word)
            assert (await store.get_conversation("c")).id == "c"
            assert proxy.cuts == 1


@BOTH
async def test_connections_that_broke_while_nobody_looked_are_replaced(opener, direct, postgres_server):
    """All of a pool's at once, as after a restart of the server."""
    async with opener(pool_size=2, max_overflow=0) as store:
        await store.create_conversation("agent", "ann", id="c")
        await asyncio.gather(*(started(store, "execute", "select pg_sleep(0.05)") for _ in range(2)))
        with psycopg.connect(postgres_server.admin_url(direct.url), autocommit=True) as admin:
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'perdure_app' and datname = current_database()"
            )
        assert (await store.get_conversation("c")).id == "c"
        await store.add_message("c", "user", "kept")
    assert await _texts(direct) == ["kept"]


# -- broken during the commit ----------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("after", [False, True], ids=["lost", "kept"])
async def test_a_connection_that_breaks_during_the_commit_leaves_the_outcome_unknown(opener, direct, proxy, after):
    """Whether the server got to commit or not; the same idempotency key settles it."""
    async with opener(prepare_threshold=None) as store:
        await store.create_conversation("agent", "ann", id="c")
        calls = [
            ("add_message", ("c", "user", "one"), {}),
            ("add_messages", ("c", [{"role": "user", "content": f"many {n}"} for n in range(25)]), {}),
            ("create_conversation", ("agent", "ann"), {"id": "d"}),
            ("fork_conversation", ("c", 1, "e"), {}),
        ]
        for verb, arguments, options in calls:
            proxy.cut(COMMIT, after=after)
            with pytest.raises(OutcomeUnknown) as unknown:
                await getattr(store, verb)(*arguments, **options, idempotency_key="k")
            assert "idempotency_key" in unknown.value.hint
            assert proxy.cuts == 1
            answer = await getattr(store, verb)(*arguments, **options, idempotency_key="k")
            assert await getattr(store, verb)(*arguments, **options, idempotency_key="k") == answer
        assert (await store.stats())["conversations"] == 3
    assert await _texts(direct) == ["one", *(f"many {n}" for n in range(25))]


@BOTH
@pytest.mark.parametrize("after", [False, True], ids=["lost", "kept"])
async def test_without_a_key_the_change_is_wholly_there_or_wholly_absent(opener, direct, proxy, after):
    """Nothing is tried again by itself, or it might be there twice."""
    async with opener(prepare_threshold=None) as store:
        await store.create_conversation("agent", "ann", id="c")
        proxy.cut(COMMIT, after=after)
        with pytest.raises(OutcomeUnknown):
            await store.add_messages("c", [{"role": "user", "content": f"{n}"} for n in range(3)])
        assert proxy.cuts == 1
    assert await _texts(direct) == (["0", "1", "2"] if after else [])


@BOTH
@pytest.mark.parametrize("after", [False, True], ids=["lost", "kept"])
async def test_a_block_that_breaks_during_its_commit_says_so(opener, direct, proxy, after):
    """A transaction of several verbs like any other; so does an administrator's statement."""
    async with opener(prepare_threshold=None) as store:
        await store.create_conversation("agent", "ann", id="c")
        proxy.cut(COMMIT, after=after)
        with pytest.raises(OutcomeUnknown):
            async with store.transaction() as t:
                await t.add_message("c", "user", "one")
                await t.add_message("c", "user", "two")
        proxy.cut(COMMIT, after=after)
        with pytest.raises(OutcomeUnknown):
            await store.execute("update conversations set agent_id = 'changed'")
        async with direct() as other:
            assert ((await other.get_conversation("c")).agent_id == "changed") is after
        proxy.cut(b"insert into messages", after=after)
        with pytest.raises(Unavailable):
            async with store.transaction() as t:
                await t.add_message("c", "user", "three")
    assert await _texts(direct) == (["one", "two"] if after else [])


@pytest.mark.parametrize("driver", ["postgres"])
@pytest.mark.parametrize("after", [False, True], ids=["lost", "kept"])
async def test_calls_that_share_a_commit_share_its_unknown_outcome(opener, direct, proxy, after):
    """Each caller is told, and each change is there or absent as the commit was."""
    async with opener(prepare_threshold=None) as store:
        await store.create_conversation("agent", "ann", id="c")
        proxy.cut(COMMIT, times=1_000, after=after)
        calls = [store.add_message("c", "user", f"{n}") for n in range(12)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(answer) for answer in answers} == {OutcomeUnknown}
        assert proxy.cuts < 12
    assert sorted(await _texts(direct)) == (sorted(f"{n}" for n in range(12)) if after else [])


@pytest.mark.parametrize("driver", ["postgres"])
async def test_calls_that_share_a_transaction_survive_its_broken_connection(opener, direct, proxy):
    """They are made again, each once."""
    async with opener(prepare_threshold=None) as store:
        await store.create_conversation("agent", "ann", id="c")
        proxy.cut(b"insert into messages")
        await asyncio.gather(*(store.add_message("c", "user", f"{n}") for n in range(12)))
        assert proxy.cuts == 1
    assert sorted(await _texts(direct)) == sorted(f"{n}" for n in range(12))


# -- lost races --------------------------------------------------------------------------------------------------------------


async def _waits_for_a_lock(admin):
    async def waits():
        cursor = await admin.execute(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and usename = 'perdure_app' "
            "and datname = current_database()"
        )
        return (await cursor.fetchone())[0]

    await until(waits)


async def _set_for_database(postgres_server, direct, setting):
    url = postgres_server.admin_url(direct.url)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as admin:
        await admin.execute(f"alter database {url.rsplit('/', 1)[1]} set {setting}")


@op
def _hold_both(runs):
    """Holds conversation a, then b, and counts how often it was begun."""
    runs.append(1)
    yield from fetch_one("conversations.by_id", flags=frozenset({"locked"}), id="a")
    row = yield from fetch_one("conversations.by_id", flags=frozenset({"locked"}), id="b")
    return row[1]


@BOTH
async def test_a_deadlock_is_lost_and_tried_again(direct, postgres_server):
    """The other side goes on, and the caller never hears of it."""
    await _set_for_database(postgres_server, direct, "deadlock_timeout to '400ms'")
    async with (
        direct() as store,
        await psycopg.AsyncConnection.connect(postgres_server.admin_url(direct.url)) as other,
        await psycopg.AsyncConnection.connect(postgres_server.admin_url(direct.url), autocommit=True) as admin,
    ):
        await store.create_conversation("agent", "ann", id="a")
        await store.create_conversation("agent", "ann", id="b")
        await other.execute("set deadlock_timeout to '20s'")  # so it is the store's side that notices and gives way
        await other.execute("select 1 from perdure.conversations where id = 'b' for update")
        runs = []
        both = started(store, "_run", _hold_both(runs))
        await _waits_for_a_lock(admin)
        await other.execute("select 1 from perdure.conversations where id = 'a' for update")
        await other.commit()
        assert await asyncio.wait_for(both, 20) == "b"
        assert len(runs) == 2


@BOTH
async def test_a_serialization_failure_is_tried_again(direct, postgres_server):
    """On a database whose transactions are stricter than ours need."""
    await _set_for_database(postgres_server, direct, "default_transaction_isolation to 'repeatable read'")
    async with (
        direct() as store,
        await psycopg.AsyncConnection.connect(postgres_server.admin_url(direct.url)) as other,
        await psycopg.AsyncConnection.connect(postgres_server.admin_url(direct.url), autocommit=True) as admin,
    ):
        await store.create_conversation("agent", "ann", id="c")
        made = await store.add_message("c", "user", "one")
        for verb, arguments in (
            ("add_message", ("c", "user", "two")),
            ("edit_message", (made.id, "changed")),
            ("update_conversation", ("c", {"title": "t"})),
        ):
            await other.execute("update perdure.conversations set cost = cost + 1 where id = 'c'")
            call = started(store, verb, *arguments)
            await _waits_for_a_lock(admin)
            await other.commit()
            await asyncio.wait_for(call, 20)
        assert [message.text for message in await store.get_messages("c")] == ["changed", "two"]
        assert (await store.execute("select cost from conversations")) == [(3,)]


@BOTH
async def test_a_race_that_is_lost_every_time_is_busy_in_the_end(direct, postgres_server):
    """After a few tries, with nothing changed."""
    refuse = (
        "create function perdure.refuse() returns trigger language plpgsql as "
        "$$ begin raise exception 'no' using errcode = 'serialization_failure'; end $$; "
        "create trigger refuse before insert on perdure.messages for each row execute function perdure.refuse()"
    )
    async with direct() as store, await psycopg.AsyncConnection.connect(direct.url, autocommit=True) as owner:
        await store.create_conversation("agent", "ann", id="c")
        await owner.execute(refuse)
        began = time.monotonic()
        with pytest.raises(perdure.Busy) as busy:
            await store.add_message("c", "user", "lost")
        assert busy.value.retry_after
        assert time.monotonic() - began < 10
        await owner.execute("drop trigger refuse on perdure.messages")
    assert await _texts(direct) == []


def test_a_commit_that_the_server_answers_with_rollback_is_an_error(fresh_postgres_url):
    """PostgreSQL ends a failed transaction so, without an error; nothing of it was kept, and nobody is told otherwise."""
    with perdure.sync.open(fresh_postgres_url) as store:
        with pytest.raises(Unavailable, match="took the transaction back"), store.transaction() as t:
            t.create_conversation("agent", "ann", id="c")
            with contextlib.suppress(psycopg.errors.DivisionByZero):
                t._session._connection.execute("select 1 / 0")
        assert store.get_conversation("c") is None
