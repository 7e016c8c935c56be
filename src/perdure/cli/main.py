"""The ``perdure`` command. Each command's module is small at import: what it needs is loaded when it runs."""

import io
import sys
from typing import Annotated

import typer

from perdure.cli import accounts, bench, conversations, find, transfer, upkeep
from perdure.cli.common import Common, Debug, Json, Tenant, Url
from perdure.cli.demo import command as demo

app = typer.Typer(
    name="perdure",
    help="The durable memory of an AI agent, in one SQLite file or in PostgreSQL.",
    epilog="Exit codes: 0 done, 1 problems found, 2 refused or misused, 3 try again, 4 damaged data, 5 misconfigured.",
    no_args_is_help=True,
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


for part in (demo, upkeep, transfer, conversations, find, accounts, bench):
    part.add_to(app)


def run() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal lacks is no reason to fail
    app()


if __name__ == "__main__":
    run()
