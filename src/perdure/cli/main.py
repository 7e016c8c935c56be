"""The ``perdure`` command. Each command's module is small at import: what it needs is loaded when it runs."""

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from perdure.cli import accounts, bench, checkpoints, conversations, find, removal, transfer, upkeep
from perdure.cli.common import Common, Debug, Json, Tenant, Url, write_error
from perdure.cli.demo import command as demo
from perdure.values.errors import Invalid

_UsageError: Any = typer.BadParameter.__base__
"""Click's, or that of the click inside typer: which one it is depends on typer's version."""
_JSON = "perdure.json"


class Group(TyperGroup):
    """The command itself: alone it prints its help; with ``--json`` a wrong command line is told in JSON, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the options that stand before the command's name."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            ctx.exit()
        words = args[: args.index("--")] if "--" in args else args
        ctx.meta[_JSON] = "--json" in words
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            raise _told(ctx, error) from None

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            raise _told(ctx, error) from None


def _told(ctx: Any, error: Any) -> Exception:
    """The error itself, which prints the usage; with ``--json`` the exit after it was told."""
    error.ctx = error.ctx or ctx  # without one it would not print the usage
    if not ctx.meta[_JSON]:
        return error
    hint = f"{error.ctx.command_path} --help shows its options"
    write_error(Invalid(error.format_message(), field="command line", hint=hint))
    return typer.Exit(error.exit_code)


app = typer.Typer(
    name="perdure",
    cls=Group,
    help="The durable memory of an AI agent, in one SQLite file or in PostgreSQL.",
    epilog="Exit codes: 0 done, 1 problems found, 2 refused or misused, 3 try again, 4 damaged data, 5 misconfigured.",
    rich_markup_mode=None,  # plain help: quick, and the same in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import perdure

        sys.stdout.write(f"perdure {perdure.__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    url: Url = None,
    tenant: Tenant = None,
    json: Json = False,
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """The durable memory of an AI agent, in one SQLite file or in PostgreSQL."""
    del version
    ctx.obj = Common(url, tenant, json, debug)


for part in (demo, upkeep, transfer, conversations, checkpoints, find, accounts, removal, bench):
    part.add_to(app)


def run() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal lacks is no reason to fail
    app()


if __name__ == "__main__":
    run()
