"""Bringing an SQLite file to the library's schema: one transaction for all steps, so a kill leaves it as it was."""

from typing import Any, cast

import apsw

from perdure.drivers.sqlite.engine import SqliteEngine
from perdure.drivers.sqlite.errors import translate
from perdure.schema.plan import missing_columns, missing_steps, objects, schema_sql, steps
from perdure.values.clock import system_clock
from perdure.values.errors import SchemaBehind

_COLUMNS = "select t.name, c.name from sqlite_schema t, pragma_table_xinfo(t.name) c where t.type = 'table'"


def _applied(connection: apsw.Connection) -> list[tuple[int, str]] | None:
    """The (number, hash) of the steps in the file, None when it has no schema at all."""
    known = cast("list[Any]", connection.execute("select 1 from sqlite_schema where name = 'perdure_steps'").fetchall())
    if not known:
        return None
    return [
        (int(number), str(digest)) for number, digest in connection.execute("select number, hash from perdure_steps")
    ]


def initialize(engine: SqliteEngine, *, create: bool, migrate: bool) -> int:
    """The schema's version after the needed steps were applied; concurrent openers wait for each other.

    Raises ``SchemaBehind`` when steps are missing and ``create`` (no schema yet) or ``migrate`` (an older one)
    is false, ``SchemaAhead`` for a newer file.
    """
    with engine.writer_lock:
        connection = engine.connection()
        try:
            applied = _applied(connection)
            if applied is not None and not missing_steps("sqlite", applied):
                return len(applied)  # the common case takes no lock
            engine.begin()
            keep = False
            try:
                applied = _applied(connection)
                needed = missing_steps("sqlite", applied or [])
                if needed and not (create if applied is None else migrate):
                    raise SchemaBehind(
                        f"{engine.shown_path} lacks {len(needed)} steps of the schema", hint="run: perdure init"
                    )
                for step in needed:
                    connection.execute(step.text)
                    connection.execute(
                        "insert into perdure_steps (number, name, hash, applied_at) values (?, ?, ?, ?)",
                        (step.number, step.name, step.hash, system_clock()),
                    )
                keep = True
            finally:
                engine.end(keep=keep)
        except apsw.Error as error:
            raise translate(error, engine.shown_path) from error
        return len(steps("sqlite"))


def verify(engine: SqliteEngine) -> list[str]:
    """What is missing from the file's schema, in words; it changes nothing."""
    with engine.writer_lock:
        connection = engine.connection()
        rows = cast("list[Any]", connection.execute("select type, name from sqlite_schema").fetchall())
        found = {(str(kind), str(name)) for kind, name in rows}
        held = cast("list[Any]", connection.execute(_COLUMNS).fetchall())
        applied = _applied(connection) or []
    wanted = schema_sql("sqlite")
    problems = [f"{kind} {name} is missing" for kind, name in objects(wanted) if (kind, name) not in found]
    problems += missing_columns(wanted, {(str(table), str(name)) for table, name in held})
    problems += [f"step {step.number} ({step.name}) was not applied" for step in missing_steps("sqlite", applied)]
    return problems
