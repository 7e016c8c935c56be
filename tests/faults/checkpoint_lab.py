"""A small store of checkpoints that can be edited behind perdure's back, and everything that can be asked of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

import perdure.sync
from perdure.drivers.sqlite import connection
from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.testing.postgres import PostgresServer
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Damaged, NotFound

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
TABLES = {
    "checkpoint_threads": "ord", "checkpoint_branches": "tenant, thread, number",
    "checkpoints": "tenant, thread, position", "checkpoint_tags": "tenant, thread, tag, position",
    "checkpoint_items": "tenant, thread, log, ordinal", "checkpoint_segments": "ord",
    "checkpoint_runs": "tenant, thread, log, low",
    "checkpoint_writes": "tenant, thread, checkpoint, task_id, idx", "checkpoint_keys": "tenant, domain, kek_id",
}  # fmt: skip
"""What orders each table."""
Rows = dict[str, list[tuple[Any, ...]]]
Answers = dict[str, str]


class Editor:
    """Changes rows as somebody with the file, or the server's superuser, could; page checksums are kept right."""

    def __init__(self, url: str, server: PostgresServer | None = None) -> None:
        self.is_postgres = server is not None
        if server is None:
            place = connection.Place(url.removeprefix("sqlite:///"), memory=False)
            self._db: Any = connection.connect(place, PersistenceConfig(url), connection.Patience(5))
        else:
            self._db = psycopg.connect(server.admin_url(url), autocommit=True, options="-c search_path=perdure")

    def close(self) -> None:
        self._db.close()

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows that a statement answers."""
        cursor = self._db.execute(statement.replace("?", "%s") if self.is_postgres else statement, values)
        if self.is_postgres and cursor.description is None:
            return []
        return [tuple(row) for row in cursor.fetchall()]

    def one(self, statement: str, *values: Any) -> Any:
        """The first value of a statement's answer."""
        return self.run(statement, *values)[0][0]

    def take(self) -> Rows:
        """Every row of every table of checkpoints."""
        return {table: self.run(f"select * from {table} order by {order}") for table, order in TABLES.items()}

    def put(self, rows: Rows) -> None:
        """Puts every table back to what it held, where it differs."""
        now = self.take()
        for table, wanted in rows.items():
            if now[table] == wanted:
                continue
            self.run(f"delete from {table}")
            for row in wanted:
                marks = ", ".join("?" * len(row))
                overriding = "overriding system value " if self.is_postgres else ""
                self.run(f"insert into {table} {overriding}values ({marks})", *row)


class Lab:
    """A store, a checkpointer with a key or none, and an editor beside it."""

    def __init__(self, store: Any, editor: Editor, key: bytes | None) -> None:
        self.store = store
        self.editor = editor
        self.key = key
        self.ids: dict[str, list[str]] = {}

    def checkpointer(self, *, tenant: str | None = None, **settings: Any) -> Any:
        """A fresh one, which holds nothing of what others read."""
        store = self.store if tenant is None else self.store.for_tenant(tenant)
        return perdure.sync.Checkpointer(store, CheckpointConfig(**{"encryption_key": self.key, **settings}))

    def fill(self) -> None:
        """A thread with branches, tags, segments and gaps that retention left; one with its content; another tenant's."""
        checkpointer = self.checkpointer(max_checkpoints_per_thread=4, keep_minimum=1, compression="none")
        ids = [
            checkpointer.save(
                "t",
                {"list": [f"i{at}" for at in range(60 + step)], "text": f"value {step} " * 4, "n": step},
                {"step": step}, run_id="r" * (1 + step % 2), status="failed" if step == 3 else "ok",
            )
            for step in range(5)
        ]  # fmt: skip
        checkpointer.create_branch(ids[4], "side", {"why": "a test"})
        checkpointer.create_branch(ids[4], "still")
        checkpointer.tag(ids[4], "good")
        side = [checkpointer.save("t", {"side": [step] * 70, "n": -step}, branch="side") for step in range(2)]
        ids.append(checkpointer.save("t", {"list": ["z"], "text": "value 9 " * 4, "n": 9}))
        removed = checkpointer.apply_retention("t")[0].removed
        assert removed
        self.ids["t"] = [name for name in [*ids, *side] if name not in removed]
        self.ids["u"] = [
            checkpointer.save("u", {"list": [f"u{at}" for at in range(60 + step)], "text": f"other {step} " * 4, "n": step})
            for step in range(5)
        ]  # fmt: skip
        self.checkpointer(tenant="beta", compression="none").save("t", {"list": [1] * 64, "text": "beta " * 8, "n": 0})

    # -- asking --------------------------------------------------------------------------------------------------------------

    def questions(self) -> dict[str, Callable[[Any], Any]]:
        """Every way to read thread ``t``."""
        ids = self.ids["t"]
        found: dict[str, Callable[[Any], Any]] = {
            "latest": lambda c: c.latest("t"),
            "latest_state": lambda c: c.latest_state("t"),
            "latest_side": lambda c: c.latest("t", "side"),
            "history": lambda c: list(c.get_history("t", include_failed=True)),
            "working": lambda c: list(c.get_history("t")),
            "branches": lambda c: c.branches("t"),
            "replay": lambda c: list(c.replay("t")),
            "replay_side": lambda c: list(c.replay("t", branch="side")),
            "find": lambda c: c.find_checkpoint("t", with_state_matching={"n": {"$lt": 4}}),
            "compare": lambda c: c.compare(ids[0], ids[-1]),
            "export": lambda c: c.export_thread("t"),
        }
        for number, name in enumerate(ids):
            found[f"get{number}"] = lambda c, name=name: c.get(name)
            found[f"restore{number}"] = lambda c, name=name: c.restore(name)
        return found

    def answers(self) -> Answers:
        """What each question is answered, a damage as ``!``; anything else that is raised is the test's failure."""
        checkpointer = self.checkpointer()
        found: Answers = {}
        for name, ask in self.questions().items():
            try:
                found[name] = repr(ask(checkpointer))
            except Damaged:
                found[name] = "!"
            except NotFound:
                found[name] = "not found"
        return found

    def is_sound(self) -> bool:
        """Whether ``verify`` finds nothing wrong with thread ``t``."""
        try:
            return self.checkpointer().verify("t").ok
        except (Damaged, NotFound):
            return False


@contextmanager
def laboratory(
    engine: str, folder: Path, key: bytes | None, postgres: Callable[[], tuple[PostgresServer, str]]
) -> Iterator[Lab]:
    """A filled laboratory on one of the two engines."""
    server, url = postgres() if engine == "postgres" else (None, f"sqlite:///{folder}/store.db")
    with perdure.sync.Store(PersistenceConfig(url, pool_size=2)) as store:
        store.stats()
        editor = Editor(url, server)
        try:
            yield Lab(store, editor, key)
        finally:
            editor.close()
