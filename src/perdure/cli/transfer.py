"""``perdure import`` and ``perdure export``: histories in and out."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from perdure.cli.common import Call, command
from perdure.cli.progress import Activity
from perdure.cli.screen import Screen, one_line, plural, size
from perdure.values.errors import Invalid, PerdureError

if TYPE_CHECKING:
    from perdure.rooms.conversations.reports import ImportReport, TransferProgress
    from perdure.sync.store import Store

STDIN = "-"
LINES = 10
"""Kinds of broken lines that are listed; ``--json`` gives the first hundred lines."""
_NOT_JSON = "not JSON"
Format = Literal["auto", "perdure", "openai", "anthropic", "openai-responses"]


def add_to(parent: typer.Typer) -> None:
    """Makes these a part of the ``perdure`` command."""
    command(parent, "import")(import_)
    command(parent, "export")(export)


def import_(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What to read; - is the standard input.")],
    form: Annotated[
        Format,
        typer.Option("--format", metavar="NAME", help="auto, perdure, openai, anthropic or openai-responses."),
    ] = "auto",
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="Whose conversations they are, whatever the file says.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="ID", help="Which agent's they are, whatever the file says.")
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Load the rest where lines are broken; without it nothing is loaded.")
    ] = False,
) -> None:
    """Bring a history in.

    JSON Lines of perdure, or chats in OpenAI's or Anthropic's form (JSON Lines, a document, an archive that their
    services give out). Importing a file again stores nothing twice. Makes the store where there is none.
    """
    began = time.perf_counter()
    with call.store(create=True) as store:
        try:
            report = load(call.screen, store, file, form, user, agent, skip_broken=skip_broken)
        except PerdureError as error:
            raise _explained(call.screen, error) from error
    if call.screen.json:
        call.screen.document(report)
        return
    known = f"; {plural(report.skipped, 'message')} had been there already" if report.skipped else ""
    call.screen.say(
        f"Imported {plural(report.conversations, 'conversation')} with {plural(report.messages, 'message')} in "
        f"{time.perf_counter() - began:.1f} s{known}."
    )
    list_broken(call.screen, report.broken, [(one.line, one.reason) for one in report.errors])


def load(
    screen: Screen,
    store: "Store",
    source: str | Path,
    form: Format = "auto",
    user: str | None = None,
    agent: str | None = None,
    *,
    skip_broken: bool = False,
) -> "ImportReport":
    """Imports with a progress bar. Raises what the verb raises."""
    with Activity(screen, "Importing") as activity:

        def tell(progress: "TransferProgress") -> None:
            label = "Checking" if progress.stage == "check" else "Loading"
            activity.update(progress.bytes, progress.total_bytes, label, plural(progress.messages, "message"))

        lines: Any = sys.stdin.buffer if str(source) == STDIN else source
        return store.import_conversations(lines, skip_broken, form, agent, user, tell)


def list_broken(screen: Screen, broken: int, errors: list[tuple[int, str]]) -> None:
    """The first broken lines on stderr, by their numbers; those that are broken in the same way together."""
    if not broken:
        return
    screen.warn(f"{plural(broken, 'line')} could not be loaded:")
    groups = _alike(errors)
    for lines, reason in groups[:LINES]:
        screen.warn(f"  {_numbers(lines)}: {one_line(reason)}")
    more = broken - sum(len(lines) for lines, _ in groups[:LINES])
    if more:
        screen.warn(f"  ... and {more:,} more")


def _alike(errors: list[tuple[int, str]]) -> list[tuple[list[int], str]]:
    """Lines by why they are broken, in order. Where exactly a line stops to be JSON makes no difference."""
    groups: dict[str, tuple[list[int], str]] = {}
    for line, reason in errors:
        lines, _ = groups.setdefault(_NOT_JSON if reason.startswith(_NOT_JSON) else reason, ([], reason))
        lines.append(line)
    return list(groups.values())


def _numbers(lines: list[int]) -> str:
    """Numbers of lines, those in a row as a range: ``lines 1-9, 12``."""
    rows: list[tuple[int, int]] = []
    for line in lines:
        if rows and line == rows[-1][1] + 1:
            rows[-1] = rows[-1][0], line
        else:
            rows.append((line, line))
    shown = ", ".join(f"{low:,}" if low == high else f"{low:,}-{high:,}" for low, high in rows[:LINES])
    return f"{'line' if len(lines) == 1 else 'lines'} {shown}{', ...' if len(rows) > LINES else ''}"


def _explained(screen: Screen, error: PerdureError) -> PerdureError:
    """The error of an import in the words of the command line, after the lines that are at fault."""
    found: list[dict[str, Any]] = error.details.get("errors") or []
    if not found:
        return error
    groups = _alike([(one["line"], one["reason"]) for one in found])
    others = error.details["broken"] - len(found)
    if not screen.json and len(groups) > 1:
        list_broken(screen, error.details["broken"], [(one["line"], one["reason"]) for one in found])
    hint = "mend them, or load the rest with --skip-broken"
    if len(groups) == 1 and len(found) > 1 and found[0]["reason"].startswith(_NOT_JSON):
        hint = "a history is JSON Lines or one JSON document"
    if any("whose conversation" in one["reason"] for one in found):
        hint = "say whose conversations they are with --user"
    stays = "nothing was loaded" if isinstance(error, Invalid) else "what came before is loaded"
    where = f"line {found[0]['line']:,}"
    if len(groups) == 1:
        where = _numbers(groups[0][0]) + (f" and {others:,} more" if others else "")
    told = f"{where}: {found[0]['reason']}; {stays}"
    details = {name: value for name, value in error.details.items() if name != "hint"}
    return type(error)(told, hint=hint, **details)


def export(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="Where to write; - is the standard output.")] = "-",
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Only a user's conversations.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="ID", help="Only an agent's conversations.")] = None,
) -> None:
    """Write conversations as JSON Lines.

    `perdure import` gives all of it back. A file appears when it is whole and on disk.
    """
    to_stdout = file == STDIN
    if not Path(file).absolute().parent.is_dir():
        raise Invalid(f"there is no folder {Path(file).parent} to write to", field="file")
    with call.store() as store, Activity(call.screen, "Exporting") as activity:

        def tell(progress: "TransferProgress") -> None:
            activity.update(progress.messages, None, "Exporting", plural(progress.messages, "message"))

        report = store.export_conversations(sys.stdout.buffer if to_stdout else file, user, agent, tell)
    if to_stdout:
        sys.stdout.buffer.flush()
    if call.screen.json and not to_stdout:
        call.screen.document(report)
        return
    told = (
        f"Exported {plural(report.conversations, 'conversation')} with {plural(report.messages, 'message')}, "
        f"{size(report.bytes)}."
    )
    if to_stdout:
        call.screen.note(told)
    else:
        call.screen.say(told)
