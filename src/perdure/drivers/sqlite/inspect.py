"""What ``doctor`` asks of an SQLite file: versions, settings, and whether every page and row is sound."""

from itertools import islice
from pathlib import Path
from typing import Any

import apsw

from perdure.drivers.sqlite import places
from perdure.drivers.sqlite.engine import SqliteEngine
from perdure.drivers.sqlite.errors import translate


def report(engine: SqliteEngine) -> dict[str, Any]:
    """Facts about the engine and the file; ``problems`` lists what is wrong, in words."""
    checksums = engine.has_page_checksums
    if engine.place.memory:
        with engine.writer_lock:
            facts = _facts(engine, engine.connection())
    else:  # on a connection of its own: reading every page takes long, and writers go on beside it
        connection = engine.another_connection()
        try:
            facts = _facts(engine, connection)
            facts["page_places"] = checksums and places.is_marked(connection)
        finally:
            connection.close()
    facts["page_checksums"] = checksums
    log = Path(f"{engine.place.path}-wal")
    facts["log_bytes"] = log.stat().st_size if not engine.place.memory and log.exists() else 0
    return facts


def _facts(engine: SqliteEngine, connection: apsw.Connection) -> dict[str, Any]:
    def value(pragma: str) -> Any:
        return next(iter(connection.execute(f"pragma {pragma}")))[0]

    problems: list[str] = []
    try:
        problems += [str(row[0]) for row in connection.execute("pragma integrity_check(20)") if row[0] != "ok"]
        orphans = islice(connection.execute("pragma foreign_key_check"), 20)
        problems += [f"{row[0]} row {row[1]} refers to a missing {row[2]}" for row in orphans]
    except (apsw.Error, UnicodeDecodeError) as error:
        problems.append(str(translate(error, engine.shown_path)))
    synchronous = {0: "off", 1: "normal", 2: "full", 3: "extra"}[int(value("synchronous"))]
    return {
        "engine": "SQLite",
        "engine_version": apsw.sqlite_lib_version(),
        "journal_mode": str(value("journal_mode")),
        "synchronous": synchronous,
        "foreign_keys": bool(value("foreign_keys")),
        "bytes": int(value("page_size")) * int(value("page_count")),
        "problems": problems,
    }
