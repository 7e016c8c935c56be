"""What a recipe may ask of a database. The one clever file; everything above and below is plain.

A *recipe* is a generator that yields :class:`Ask` values (the name of a statement in a room's ``queries.sql`` and
its parameters) and is sent the rows. It never sees a connection, so the same recipe runs on SQLite and PostgreSQL,
blocking and async, and can be stepped by hand in a test. ``@op`` makes an :class:`Op` of it: a recipe with its
arguments, which a driver may start again from the beginning after a deadlock or a busy database. So time, ids and
randomness come in as arguments, and a recipe does no other I/O.

Recipes compose with ``yield from``: an ``Op`` inside another becomes part of the same transaction.

``:tenant``, ``:actor`` and ``:reason`` are bound by the driver from the handle's :class:`Scope`; a recipe cannot set
them, so a tenant cannot be forgotten or forged.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from enum import Enum, auto
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar, overload

import msgspec

from perdure.values.errors import Busy
from perdure.values.filters import Filter

P = ParamSpec("P")
T = TypeVar("T")

Row = tuple[Any, ...]
Params = dict[str, Any]


class StartOver(Busy):
    """Raised by a recipe that lost a race and must be run again from its beginning; drivers do so a few times."""


class Scope(msgspec.Struct, frozen=True):
    """On whose behalf statements run: the tenant they see, and the name their changes are recorded under."""

    tenant: str = "default"
    actor: str | None = None
    reason: str | None = None


class Mode(Enum):
    """The shape of an answer."""

    ALL = auto()
    ONE = auto()
    RUN = auto()
    MANY = auto()
    TOGETHER = auto()


class Where(msgspec.Struct, frozen=True):
    """A caller's filter and the names its fields have in the statement; drivers render it into ``{where}``."""

    filter: Filter
    columns: Mapping[str, str]
    metadata: str


class Ask(msgspec.Struct, gc=False):
    """One question to the database: a named statement and what it is to be run with."""

    mode: Mode
    name: str
    params: Params
    flags: frozenset[str] = frozenset()
    where: Where | None = None
    rows: Sequence[Params] = ()
    asks: "tuple[Ask, ...]" = ()


Steps = Generator[Ask, Any, T]
NO_FLAGS: frozenset[str] = frozenset()


def fetch_all(
    name: str, /, *, flags: frozenset[str] = NO_FLAGS, where: Where | None = None, **params: Any
) -> Steps[list[Row]]:
    """All rows of a statement."""
    rows: list[Row] = yield Ask(Mode.ALL, name, params, flags, where)
    return rows


def fetch_one(name: str, /, *, flags: frozenset[str] = NO_FLAGS, **params: Any) -> Steps[Row | None]:
    """The first row of a statement, or None."""
    row: Row | None = yield Ask(Mode.ONE, name, params, flags)
    return row


def fetch_value(name: str, /, **params: Any) -> Steps[Any]:
    """The first column of the first row, or None when there is no row."""
    row: Row | None = yield Ask(Mode.ONE, name, params)
    return None if row is None else row[0]


def execute(name: str, /, *, flags: frozenset[str] = NO_FLAGS, **params: Any) -> Steps[int]:
    """How many rows a changing statement touched."""
    touched: int = yield Ask(Mode.RUN, name, params, flags)
    return touched


def execute_many(name: str, rows: Sequence[Params], /) -> Steps[None]:
    """Nothing; runs a statement once for each row (PostgreSQL takes many rows of an insert as arrays)."""
    if rows:
        yield Ask(Mode.MANY, name, {}, rows=rows)


def asking(name: str, /, **params: Any) -> Ask:
    """A changing statement as a value, for :func:`together`."""
    return Ask(Mode.RUN, name, params)


def asking_one(name: str, /, **params: Any) -> Ask:
    """A statement that answers one row, as a value, for :func:`together`."""
    return Ask(Mode.ONE, name, params)


def together(*asks: Ask) -> Steps[list[Any]]:
    """The answers of several questions that do not depend on each other, in one round trip where there are any."""
    answers: list[Any] = yield Ask(Mode.TOGETHER, "", {}, asks=asks)
    return answers


def noting(kind: str, verb: str, object_id: str, parent_id: str | None, now: int) -> Ask:
    """The entry that a change leaves in the trail and in the feed, as a value for :func:`together`.

    Every change of every room leaves one in its own transaction, so this stands in the grammar.
    """
    return Ask(Mode.RUN, "changes.note", entry(kind, verb, object_id, parent_id, now))


def entry(kind: str, verb: str, object_id: str, parent_id: str | None, now: int) -> Params:
    """The parameters of one entry, for many at once."""
    return {"kind": kind, "verb": verb, "object": object_id, "parent": parent_id, "now": now}


def note(kind: str, verb: str, object_id: str, parent_id: str | None, now: int) -> Steps[None]:
    """Nothing; leaves an entry in the trail and the feed."""
    yield noting(kind, verb, object_id, parent_id, now)


class Traits(msgspec.Struct, frozen=True):
    """What a driver may do with a recipe."""

    reads: bool = False
    """It changes nothing: it runs on a reader's connection, in a snapshot."""
    long: bool = False
    """It may take more than about a millisecond: never on the event loop's own thread."""
    merge: "Callable[[Sequence[Op[Any]]], Op[list[Any]]] | None" = None
    """Makes one recipe of several that wait at the same time; its answers are theirs in order, an error one of them."""


Outcome = tuple[Any, BaseException | None]
"""An answer, or the error in its place."""


class Op(Generic[T]):
    """A recipe with its arguments, ready to be started, and to be started again."""

    __slots__ = ("args", "kwargs", "recipe", "traits")

    def __init__(
        self, recipe: Callable[..., Steps[T]], args: tuple[Any, ...], kwargs: dict[str, Any], traits: Traits
    ) -> None:
        self.recipe = recipe
        self.args = args
        self.kwargs = kwargs
        self.traits = traits

    def taking_long(self) -> "Op[T]":
        """The same recipe, known to take more than about a millisecond with these arguments."""
        return Op(self.recipe, self.args, self.kwargs, Traits(self.traits.reads, True, None))

    def start(self) -> Steps[T]:
        """A fresh run of the recipe."""
        return self.recipe(*self.args, **self.kwargs)

    def __iter__(self) -> Steps[T]:
        return self.start()

    def __repr__(self) -> str:
        return f"Op({self.recipe.__name__})"


@overload
def op(recipe: Callable[P, Steps[T]], /) -> Callable[P, Op[T]]: ...
@overload
def op(
    *, reads: bool = False, long: bool = False, merge: Callable[[Sequence[Op[Any]]], Op[list[Any]]] | None = None
) -> Callable[[Callable[P, Steps[T]]], Callable[P, Op[T]]]: ...
def op(
    recipe: Callable[P, Steps[T]] | None = None,
    /,
    *,
    reads: bool = False,
    long: bool = False,
    merge: Callable[[Sequence[Op[Any]]], Op[list[Any]]] | None = None,
) -> Any:
    """A decorator: calling the recipe gives an :class:`Op` instead of starting it."""
    traits = Traits(reads, long, merge)

    def decorate(recipe: Callable[P, Steps[T]]) -> Callable[P, Op[T]]:
        @wraps(recipe)
        def make(*args: P.args, **kwargs: P.kwargs) -> Op[T]:
            return Op(recipe, args, kwargs, traits)

        return make

    return decorate if recipe is None else decorate(recipe)


def merged_runs(jobs: Sequence[tuple[Op[Any], Scope]]) -> Iterator[list[int]]:
    """Places of jobs that follow each other and can be merged, together; any other job's place alone."""
    run: list[int] = []
    for index, (recipe, scope) in enumerate(jobs):
        if run:
            first, first_scope = jobs[run[0]]
            if recipe.traits.merge is None or first.traits.merge is not recipe.traits.merge or first_scope != scope:
                yield run
                run = []
        run.append(index)
    if run:
        yield run


def outcomes_of(answers: Sequence[Any]) -> list[Outcome]:
    """What a merged recipe answered, as outcomes of the recipes it was made of."""
    return [(None, answer) if isinstance(answer, BaseException) else (answer, None) for answer in answers]
