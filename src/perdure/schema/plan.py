"""The ordered steps that lead to the schema, each known by the hash of its text.

``sqlite.sql`` and ``postgres.sql`` beside this file are the truth for readers; a new database is made by the steps,
and a test holds that both arrive at the same schema.
"""

import hashlib
import re
from functools import cache
from importlib import resources

import msgspec

from perdure.drivers.book import Dialect
from perdure.values.errors import Damaged, SchemaAhead

_FILE = re.compile(r"^(\d{4})_(\w+)\.sql$")


class Step(msgspec.Struct, frozen=True):
    """One step: its number, its name, its SQL, and the hash of that SQL."""

    number: int
    name: str
    text: str
    hash: str


@cache
def steps(dialect: Dialect) -> tuple[Step, ...]:
    """All steps of an engine, in order."""
    found: list[Step] = []
    for entry in sorted(resources.files("perdure.schema.steps").joinpath(dialect).iterdir(), key=lambda e: e.name):
        named = _FILE.match(entry.name)
        if named:
            text = entry.read_text(encoding="utf-8")
            found.append(Step(int(named[1]), named[2], text, hashlib.sha256(text.encode()).hexdigest()))
    assert [step.number for step in found] == list(range(1, len(found) + 1)), "steps are numbered without gaps"
    return tuple(found)


def schema_sql(dialect: Dialect) -> str:
    """The whole schema as readable text."""
    return resources.files("perdure.schema").joinpath(f"{dialect}.sql").read_text(encoding="utf-8")


_NOW: dict[Dialect, str] = {
    "sqlite": "strftime('%s', 'now') * 1000000",
    "postgres": "cast(extract(epoch from now()) * 1000000 as bigint)",
}
_AROUND: dict[Dialect, tuple[str, str]] = {
    "sqlite": ("", ""),
    "postgres": ("create schema if not exists {schema};\nset search_path to {schema};\n\n", "\nreset search_path;\n"),
}


def schema_script(dialect: Dialect, schema: str) -> str:
    """A script that makes the whole schema and records its steps, for people who bring their own migration tool."""
    before, after = _AROUND[dialect]
    records = "".join(
        "insert into perdure_steps (number, name, hash, applied_at) "
        f"values ({step.number}, '{step.name}', '{step.hash}', {_NOW[dialect]});\n"
        for step in steps(dialect)
    )
    return f"{before.format(schema=schema)}{schema_sql(dialect)}\n{records}{after}"


def missing_steps(dialect: Dialect, applied: list[tuple[int, str]]) -> tuple[Step, ...]:
    """The steps that a database with these (number, hash) rows still needs.

    Raises ``SchemaAhead`` for a database newer than this library and ``Damaged`` for one whose steps are not ours.
    """
    known = steps(dialect)
    if len(applied) > len(known):
        raise SchemaAhead(
            f"the database has schema {len(applied)}; this perdure knows {len(known)}", hint="pip install -U perdure"
        )
    for step, (number, digest) in zip(known, sorted(applied), strict=False):
        if (number, digest) != (step.number, step.hash):
            raise Damaged(f"step {number} of the schema is not the one this library applied ({step.name})")
    return known[len(applied) :]


def columns(script: str) -> set[tuple[str, str]]:
    """The (table, column) of every column that a schema's text makes."""
    found: set[tuple[str, str]] = set()
    for table, body in re.findall(r"^create table (\w+) \(.*?$\n(.*?)^\)", script, re.MULTILINE | re.DOTALL):
        names = re.findall(r"^  (\w+) ", body, re.MULTILINE)
        found |= {(table, name) for name in names if name not in {"primary", "foreign"}}
    return found


def missing_columns(script: str, found: set[tuple[str, str]]) -> list[str]:
    """In words, the columns of a schema's text that tables which are there do not have."""
    tables = {table for table, _ in found}
    return [
        f"column {name} of {table} is missing" for table, name in sorted(columns(script) - found) if table in tables
    ]


def objects(script: str) -> list[tuple[str, str]]:
    """The (kind, name) of every table and index that a schema's text makes."""
    found = re.findall(r"^create (?:unique )?(table|index) (\w+)", script, re.MULTILINE)
    return [(kind, name) for kind, name in found]
