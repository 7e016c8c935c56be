"""The book of statements: every ``queries.sql`` of every room, read once and turned into each engine's dialect.

The form of a statement::

    -- name: page
    -- does: One line that says what it is for.
    select id from conversations c
    where c.tenant = :tenant
      and c.user_id = :user_id          --if user_id
      and c.label = any(:labels)        --if labels postgres
    order by c.id;

A line that ends in ``--if A B`` is kept when all of A, B are among the flags of the call (the name of the dialect is
always among them). So each optional condition stands in the file, in the reader's sight, and the planner sees only
the conditions that are there. ``{where}`` is filled by the engine's renderer from a filter of the caller.
``-- only: sqlite`` makes a whole statement one engine's; ``-- system`` marks one that is not bound to a tenant;
``-- scan: why`` admits that one reads all rows of its scope. ``-- macro: columns`` names lines that later statements of
the file repeat as ``{columns}``.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

Dialect = Literal["sqlite", "postgres"]

_HEADER = re.compile(r"^-- (name|macro|does|only|system|scan)(?:: (.*))?$")
_CONDITION = re.compile(r"\s*--if ([a-z_ ]+)$")
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
_LIST = re.compile(r"\bjson_each\(:([a-z_]+)\)")
_INSERT = re.compile(r"^insert into (\w+)\s+\(([^)]*)\)\s+values\s+\(([^)]*)\)(\s+on conflict.*)?$", re.DOTALL)


class Variant(msgspec.Struct, frozen=True):
    """One statement as it is sent: the text and the names of its parameters."""

    text: str
    params: frozenset[str]
    names_actor: bool
    lists: tuple[str, ...]
    """Parameters that SQLite takes as a JSON array."""


class Statement(msgspec.Struct):
    """A named statement in one dialect. Variants for sets of flags are made on first use and kept."""

    name: str
    does: str
    dialect: Dialect
    system: bool
    scan: str
    """Why it may read a whole table, or ""."""
    lines: tuple[tuple[str, frozenset[str]], ...]
    variants: dict[frozenset[str], Variant] = msgspec.field(default_factory=dict[frozenset[str], Variant])

    def variant(self, flags: frozenset[str]) -> Variant:
        """The statement with the lines that ``flags`` ask for."""
        found = self.variants.get(flags)
        if found is None:
            found = self.variants[flags] = self._render(flags)
        return found

    def _render(self, flags: frozenset[str]) -> Variant:
        given = flags | {self.dialect}
        text = "\n".join(line for line, needs in self.lines if needs <= given)
        params = frozenset(_PARAMETER.findall(text))
        lists = tuple(sorted(set(_LIST.findall(text))))
        if self.dialect == "postgres":
            text = _PARAMETER.sub(r"%(\1)s", text.replace("%", "%%"))
        return Variant(text, params, "actor" in params, lists)

    @property
    def flags(self) -> frozenset[str]:
        """Every flag that a line of it asks for, dialects left out."""
        return frozenset[str]().union(*(needs for _, needs in self.lines)) - {"sqlite", "postgres"}

    @property
    def insert(self) -> tuple[str, tuple[str, ...], tuple[str, ...], str] | None:
        """Table, columns, parameters and the conflict clause of a one-row insert of nothing but parameters, else None."""
        found = _INSERT.match("\n".join(line for line, _ in self.lines))
        if found is None:
            return None
        values = [value.strip() for value in found[3].split(",")]
        if not all(value.startswith(":") for value in values):
            return None
        return (
            found[1],
            tuple(name.strip() for name in found[2].split(",")),
            tuple(v[1:] for v in values),
            found[4] or "",
        )


Book = dict[str, Statement]


def _blocks(text: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    headers: dict[str, str] = {}
    body: list[str] = []
    for line in text.splitlines():
        found = _HEADER.match(line)
        if found:
            if body:
                yield headers, body
                headers, body = {}, []
            headers[found[1]] = found[2] or ""
        elif headers and line.strip() and not line.startswith("--"):
            body.append(line)
    if body:
        yield headers, body


def _statement(room: str, headers: dict[str, str], body: list[str], dialect: Dialect) -> Statement:
    lines: list[tuple[str, frozenset[str]]] = []
    for raw in body:
        condition = _CONDITION.search(raw)
        needs = frozenset(condition[1].split()) if condition else frozenset[str]()
        line = raw[: condition.start()] if condition else raw
        line = line.rstrip().removesuffix(";")
        if line.strip():
            lines.append((line, needs))
    return Statement(
        f"{room}.{headers['name']}", headers.get("does", ""), dialect, "system" in headers, headers.get("scan", ""),
        tuple(lines),
    )  # fmt: skip


def _expand(body: list[str], macros: dict[str, str]) -> list[str]:
    text = "\n".join(body)
    for name, lines in macros.items():
        text = text.replace("{" + name + "}", lines)
    return text.split("\n")


@cache
def book(dialect: Dialect) -> Book:
    """Every statement of every room in one dialect, by ``room.name``."""
    found: Book = {}
    for room in sorted(resources.files("perdure.rooms").iterdir(), key=lambda entry: entry.name):
        source = room.joinpath("queries.sql")
        if not source.is_file():
            continue
        macros: dict[str, str] = {}
        for headers, body in _blocks(source.read_text(encoding="utf-8")):
            if "macro" in headers:
                macros[headers["macro"]] = "\n".join(body)
                continue
            if headers.get("only", dialect) == dialect:
                statement = _statement(room.name, headers, _expand(body, macros), dialect)
                assert statement.name not in found, f"two statements are called {statement.name}"
                found[statement.name] = statement
    return found
