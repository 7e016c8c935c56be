"""``perdure init``, ``schema``, ``doctor`` and ``chores``: making a store and keeping it well."""

import sys
from collections import Counter
from typing import Annotated, Any, Literal

import typer

from perdure.cli.common import Call, command, config_for, is_missing
from perdure.cli.progress import Activity
from perdure.cli.screen import Screen, one_line, plural, size

LONG_LOG_BYTES = 64 * 1024 * 1024
PROBLEMS_EXIT = 1
"""The exit code of a doctor who has found something."""


def add_to(parent: typer.Typer) -> None:
    """Makes these a part of the ``perdure`` command."""
    for name, function in (("init", init), ("schema", schema), ("doctor", doctor), ("chores", chores)):
        command(parent, name)(function)


def init(call: Call) -> None:
    """Make a store, or bring an older one up to date.

    A store that is ready stays as it is.
    """
    from perdure.sync.store import Store
    from perdure.values.errors import SchemaBehind

    call.announce()
    store = Store(config_for(call.url))
    outcome = "made" if is_missing(store.config) else "ready already"
    if outcome != "made":
        try:
            store.initialize(create_schema=False, run_migrations=False)
        except SchemaBehind:
            outcome = "brought up to date"
            store = Store(config_for(call.url))  # the one that was refused is closed
    with store:
        version = len(_steps(store.config.engine))
        address = store.config.safe_url
    if call.screen.json:
        call.screen.document({"store": address, "outcome": outcome, "schema_version": version})
        return
    call.screen.say(f"{address}: {outcome}, schema version {version}.")
    call.screen.say("Next: perdure import FILE, or perdure demo to see what it does.", style="dim")


def _steps(engine: Literal["sqlite", "postgres"]) -> tuple[Any, ...]:
    from perdure.schema.plan import steps

    return steps(engine)


def schema(
    call: Call,
    engine: Annotated[
        Literal["sqlite", "postgres"] | None,
        typer.Option(
            "--engine", metavar="NAME", show_default=False, help="sqlite or postgres; without it the store's."
        ),
    ] = None,
) -> None:
    """Print the schema as SQL.

    For those who run their own migration tool; it opens nothing.
    """
    from perdure.schema.plan import schema_script

    chosen = engine or config_for(call.url).engine
    text = schema_script(chosen, "perdure")
    if call.screen.json:
        call.screen.document({"engine": chosen, "sql": text})
    else:
        sys.stdout.write(text)


def doctor(
    call: Call,
    repair: Annotated[bool, typer.Option("--repair", help="Build anew what is derived from messages.")] = False,
) -> None:
    """Check every page, row and total.

    Shows versions, settings and advice, too. Exits with 1 when there are problems; advice is none.
    """
    with call.store() as store, Activity(call.screen, "Examining every page and row"):
        report = store.doctor(repair=repair)
    report["advice"] = advice_of(report)
    if call.screen.json:
        call.screen.document(report)
    else:
        show_report(call.screen, report)
    if report["problems"]:
        raise typer.Exit(PROBLEMS_EXIT)


def show_report(screen: Screen, report: dict[str, Any], indent: int = 0) -> None:
    """What the doctor found, the verdict first."""
    problems: list[str] = report["problems"]
    verdict = f"{plural(len(problems), 'problem')} found:" if problems else "No problems found."
    screen.say(verdict, style="bold red" if problems else "bold green", indent=indent)
    for problem in problems:
        screen.say(f"- {one_line(problem)}", indent=indent)
    screen.say()
    screen.facts(_report_facts(report), indent)
    if report["advice"]:
        screen.say()
        screen.say("Advice:", style="bold", indent=indent)
        for line in report["advice"]:
            screen.say(f"- {one_line(line)}", indent=indent)


def _report_facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    settings = [name for name in _SETTINGS if name in report]
    pairs = [
        ("store", str(report["address"])),
        ("engine", f"{report['engine']} {report['engine_version']}"),
        ("schema", f"version {report['schema_version']}"),
        (
            "size",
            size(report["bytes"]) + (f" and a log of {size(report['log_bytes'])}" if report.get("log_bytes") else ""),
        ),
        *((name.replace("_", " "), _word(report[name])) for name in settings),
    ]
    if report["chores"]:
        pairs.append(("chores", _outcomes(report["chores"])))
    if report.get("repaired"):
        pairs.append(("repaired", ", ".join(report["repaired"])))
    return pairs


def _outcomes(chores: dict[str, str]) -> str:
    """How the chores went: each by name, or of many how many went how, and the names of some that failed."""
    if len(chores) <= _NAMED:
        return ", ".join(f"{name} {outcome}" for name, outcome in chores.items())
    counts = Counter("failed" if outcome.startswith("failed") else outcome for outcome in chores.values())
    failed = [f"{name} {outcome}" for name, outcome in chores.items() if outcome.startswith("failed")]
    return ", ".join([f"{number} {outcome}" for outcome, number in sorted(counts.items())] + failed[:_NAMED])


_NAMED = 6
_SETTINGS = ("page_checksums", "journal_mode", "synchronous", "foreign_keys", "synchronous_commit", "max_connections")


def _word(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def advice_of(report: dict[str, Any]) -> list[str]:
    """What could be done better, in words; nothing in it is wrong."""
    found: list[str] = list(report.get("advice", ()))
    if report.get("log_bytes", 0) > LONG_LOG_BYTES:
        found.append("the write-ahead log is long; `perdure chores` moves it into the file")
    if report["engine"] == "SQLite" and not report["page_checksums"]:
        found.append("the file has no page checksums; a damaged page is only found where SQLite trips over it")
    return found


def chores(call: Call) -> None:
    """Do the housekeeping that is due, of every tenant.

    What another process is doing already is left to it; with --tenant it is that tenant's only.
    """
    with call.store() as store, Activity(call.screen, "Housekeeping"):
        done = store.run_chores()
    if call.screen.json:
        call.screen.document({"ran": done})
    elif done:
        call.screen.say(f"Done: {summary_of(done)}.")
    else:
        call.screen.say("Nothing is due.")


def summary_of(done: list[str]) -> str:
    """Which chores were done, and for how many tenants where that is more than one."""
    counts = Counter(name.rpartition("/")[2] for name in done)
    return ", ".join(name if number == 1 else f"{name} ({number} tenants)" for name, number in sorted(counts.items()))
