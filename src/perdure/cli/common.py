"""What every command shares: which store, how to answer, and what becomes of an error.

A command is a function that takes a ``Call`` and its own options; ``command`` gives it the common options and turns
what perdure raises into one line on stderr and the exit code of its family.
"""

import functools
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from perdure.cli.screen import Screen
from perdure.values import limits
from perdure.values.errors import Invalid, NotFound, PerdureError, Refused, Unavailable

if TYPE_CHECKING:
    from perdure.sync.store import Store
    from perdure.values.config import PersistenceConfig

DEFAULT_URL = "sqlite:///perdure.db"
CONNECT_SECONDS = 5
"""A person waits for a server no longer than that."""

Url = Annotated[
    str | None,
    typer.Option(
        "--url", "-u", metavar="URL", show_default=False,
        help=f"The store: sqlite:///FILE or postgresql://... Without it PERDURE_URL, else {DEFAULT_URL}.",
    ),
]  # fmt: skip
Tenant = Annotated[
    str | None, typer.Option("--tenant", "-t", metavar="NAME", show_default=False, help="The tenant to work in.")
]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")]


class Common(msgspec.Struct, frozen=True):
    """The options that every command takes, before or after its name."""

    url: str | None = None
    tenant: str | None = None
    json: bool = False
    debug: bool = False

    def over(self, outer: "Common | None") -> "Common":
        """These, and where they say nothing, those given further to the left."""
        if outer is None:
            return self
        return Common(
            outer.url if self.url is None else self.url,
            outer.tenant if self.tenant is None else self.tenant,
            self.json or outer.json,
            self.debug or outer.debug,
        )

    def check(self) -> None:
        """Raises ``Invalid`` for an address or a tenant that is given and empty, as an unset variable of a script is."""
        if self.url is not None and not self.url.strip():
            raise Invalid("--url is empty", field="url", hint="sqlite:///FILE or postgresql://...")
        if self.tenant is not None:
            limits.identifier(self.tenant, "tenant")


class Call:
    """One run of a command."""

    def __init__(self, common: Common) -> None:
        self.common = common
        self.screen = Screen(json=common.json)

    @property
    def url(self) -> str:
        """The address of the store that this command works on."""
        if self.common.url is not None:
            return self.common.url
        return os.environ.get("PERDURE_URL") or DEFAULT_URL

    def announce(self) -> None:
        """Tells which store is used where the command line doesn't."""
        if self.common.url is not None:
            return
        why = "from PERDURE_URL" if os.environ.get("PERDURE_URL") else "--url or PERDURE_URL picks another"
        self.screen.note(f"Store: {config_for(self.url).safe_url} ({why})")

    @contextmanager
    def store(self, *, create: bool = False) -> Iterator["Store"]:
        """The store, in the tenant that was asked for.

        Unless ``create`` is true it must be there: a command that reads makes neither files nor tables.
        """
        from perdure.sync.store import Store

        self.announce()
        whole = Store(config_for(self.url))
        if not create and is_missing(whole.config):
            raise NotFound(
                f"there is no store at {whole.config.sqlite_path}", hint="perdure init makes one; --url names another"
            )
        whole.initialize(create_schema=create, run_migrations=create)
        try:
            yield whole if self.common.tenant is None else whole.for_tenant(self.common.tenant)
        finally:
            whole.close()

    def fail(self, error: PerdureError) -> None:
        """The error as one line and a hint on stderr, or as a JSON object there."""
        if self.common.debug:
            traceback.print_exc()
        if self.common.json:
            write_error(error)
            return
        self.screen.warn(f"perdure: {error.message}", style="bold red")
        if error.hint:
            self.screen.warn(f"hint: {error.hint}")


def write_error(error: PerdureError) -> None:
    """An error as one line of JSON on stderr."""
    parts = {"code": error.code, "message": error.message, "hint": error.hint, "details": error.details}
    sys.stderr.write(msgspec.json.encode({"error": parts}, enc_hook=str).decode() + "\n")


def config_for(url: str) -> "PersistenceConfig":
    """The settings that suit a command: few connections, and little patience with a server that is not there."""
    from perdure.values.config import PersistenceConfig

    return PersistenceConfig(url, pool_size=2, pool_timeout=CONNECT_SECONDS)


def is_missing(config: "PersistenceConfig") -> bool:
    """Whether the address names an SQLite file that is not there; a server is never missing."""
    return config.engine == "sqlite" and config.sqlite_path is not None and not Path(config.sqlite_path).exists()


def command(
    app: typer.Typer, name: str | None = None, *, group: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a function a command of ``app``; with ``group`` it is what ``app`` does without a subcommand."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())[1:]

        @functools.wraps(function)
        def run(ctx: typer.Context, **values: Any) -> None:
            given = Common(*(values.pop(field) for field in Common.__struct_fields__)).over(ctx.obj)
            ctx.obj = given
            if ctx.invoked_subcommand is None:
                perform(given, lambda call: function(call, **values))

        parameters = [inspect.Parameter("ctx", _ANYWHERE, annotation=typer.Context), *own, *_COMMON]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
        if group:
            app.callback(invoke_without_command=True)(run)
        else:
            app.command(name)(run)
        return function

    return register


def perform(common: Common, body: Callable[[Call], None]) -> None:
    """Runs the body of a command; what it raises becomes a message and ``typer.Exit`` with the family's code."""
    call = Call(common)
    # The pool tells of each attempt; a person wants the outcome, which the error says.
    logging.getLogger("psycopg.pool").setLevel(logging.WARNING if common.debug else logging.CRITICAL)
    try:
        common.check()
        body(call)
    except PerdureError as error:
        call.fail(error)
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        raise  # whoever read the pipe has seen enough
    except OSError as error:
        family = Refused if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError) else Unavailable
        told = family(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        call.fail(told)
        raise typer.Exit(told.exit_code) from None


_ANYWHERE = inspect.Parameter.POSITIONAL_OR_KEYWORD
_COMMON = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    for name, default, annotation in (
        ("url", None, Url), ("tenant", None, Tenant), ("json", False, Json), ("debug", False, Debug),
    )
]  # fmt: skip
