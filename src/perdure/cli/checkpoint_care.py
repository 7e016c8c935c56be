"""``perdure checkpoints prune`` and ``verify``, and how a restored state is written."""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from perdure.cli.checkpoint_options import KEY_HINT, KeyOption
from perdure.cli.common import Call, command
from perdure.cli.progress import Activity
from perdure.cli.screen import Column, Screen, one_line, plural, size
from perdure.values.errors import Damaged, Invalid, Refused

if TYPE_CHECKING:
    from perdure.cli.checkpoint_places import Desk, Spot
    from perdure.rooms.checkpoints.values import Checkpoint, RetentionReport

MINIMUM = 10
"""Checkpoints of a thread that stay whatever their age, unless --keep says less."""
DAYS = 30
KEEP = 50

ThreadArgument = Annotated[
    str | None, typer.Argument(metavar="[THREAD]", show_default=False, help="The thread; without it, all.")
]


def add_to(parent: typer.Typer) -> None:
    """Makes these a part of ``perdure checkpoints``."""
    command(parent, "prune")(prune)
    command(parent, "verify")(verify)


# -- prune -------------------------------------------------------------------------------------------------------------


class Pruning(msgspec.Struct, frozen=True):
    """What goes, or went: reports by thread, and the bytes that the checkpoints had added, by id."""

    reports: "list[RetentionReport]"
    sizes: dict[str, int]

    @property
    def removed(self) -> int:
        """How many checkpoints."""
        return sum(len(one.removed) for one in self.reports)

    def bytes_of(self, report: "RetentionReport") -> int:
        """What those of one thread had added."""
        return sum(self.sizes.get(id, 0) for id in report.removed)


def prune(
    call: Call,
    thread: ThreadArgument = None,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", help="At most so many in a thread, the newest of them.")
    ] = None,
    days: Annotated[float | None, typer.Option("--days", metavar="N", help="Only those that are not older.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and why.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")] = False,
    key_file: KeyOption = None,
) -> None:
    """Remove old checkpoints, and say why.

    Those of a framework are left alone, and the newest and first of each branch, the tagged and the failed stay. Alone
    it keeps 50 in a thread, at most 30 days old, and never less than 10. A terminal is asked first.
    """
    from perdure.cli.checkpoint_places import desk_of

    given = keep is not None or days is not None
    rules: dict[str, Any] = {
        "max_checkpoints_per_thread": keep if given else KEEP,
        "retention_days": days if given else DAYS,
        "keep_minimum": MINIMUM if keep is None else min(keep, MINIMUM),
    }
    with desk_of(call, key_file, **rules) as desk:
        if thread is not None:
            desk.place_of(thread).refuse_foreign("prune it")
        with Activity(call.screen, "Looking at what may go"):
            planned = _planned(desk, thread)
        done = planned
        if planned.removed and not dry_run:
            _agreed(call.screen, planned, yes=yes)
            with Activity(call.screen, "Pruning"):
                reports = [desk.apply_retention(one.thread_id)[0] for one in planned.reports if one.removed]
            done = Pruning([*reports, *(one for one in planned.reports if not one.removed)], planned.sizes)
    _tell(call.screen, done, rules, dry_run=dry_run)


def _planned(desk: "Desk", thread: str | None) -> Pruning:
    """What would go, and what it had added."""
    from perdure.cli.checkpoint_places import Place

    reports = desk.apply_retention(thread, dry_run=True)
    sizes: dict[str, int] = {}
    for report in reports:
        if report.removed:
            for page in desk.pages(Place(report.thread_id)):
                sizes |= {one.id: one.size for one in page if one.id in report.removed}
    return Pruning(reports, sizes)


def _agreed(screen: Screen, planned: Pruning, *, yes: bool) -> None:
    """Returns when it may be done; ``Refused`` when the person says no, ``Invalid`` when there is none to ask."""
    if yes:
        return
    if screen.json or not (sys.stdin.isatty() and screen.err.is_terminal):
        raise Invalid("nobody is here to be asked whether to prune", field="yes", hint="--yes does it, --dry-run tells")
    what = plural(planned.removed, "checkpoint")
    threads = plural(sum(bool(one.removed) for one in planned.reports), "thread")
    screen.warn(f"Prune {what} of {threads}? This cannot be undone. [y/N]")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Refused("nothing was changed")


def _tell(screen: Screen, done: Pruning, rules: dict[str, Any], *, dry_run: bool) -> None:
    freed = sum(map(done.bytes_of, done.reports))
    kept = sum(len(one.kept) for one in done.reports)
    if screen.json:
        screen.document({
            "dry_run": dry_run, "removed": done.removed, "kept": kept, "bytes": freed,
            "threads": [
                {"thread_id": one.thread_id, "removed": one.removed, "kept": one.kept, "bytes": done.bytes_of(one)}
                for one in done.reports
            ],
        })  # fmt: skip
        return
    if not done.reports:
        screen.say("No checkpoints yet.")
        return
    total = plural(done.removed + kept, "checkpoint")
    if not done.removed:
        screen.say(f"Nothing to prune: all of {total} stay.")
    else:
        verb = "Would prune" if dry_run else "Pruned"
        screen.say(f"{verb} {done.removed:,} of {total}, which had added {size(freed)}.", style="bold")
    screen.say()
    _reasons(screen, done, rules)
    changed = [one for one in done.reports if one.removed]
    if len(done.reports) > 1 and changed:
        screen.say()
        screen.table(
            [Column("THREAD", flexible=True), Column("PRUNED", right=True), Column("KEPT", right=True), Column("SIZE", right=True)],
            [
                (one.thread_id, f"{len(one.removed):,}", f"{len(one.kept):,}", size(done.bytes_of(one)))
                for one in sorted(changed, key=lambda one: -len(one.removed))
            ],
        )  # fmt: skip


def _reasons(screen: Screen, done: Pruning, rules: dict[str, Any]) -> None:
    """How many went and stayed, by reason."""
    words = {
        "head": "newest of a branch",
        "fork_point": "a branch begins there",
        "tagged": "tagged",
        "failed": "failed",
        "minimum": f"among the newest {rules['keep_minimum']:,}",
        "within_limits": "within the limits",
        "too_old": f"older than {rules['retention_days']:g} days" if rules["retention_days"] is not None else "",
        "too_many": f"more than {rules['max_checkpoints_per_thread'] or 0:,} in a thread",
    }
    rows: list[tuple[str, str, str]] = []
    for verb, name in (("go", "removed"), ("stay", "kept")):
        counts = Counter(reason for one in done.reports for reason in getattr(one, name).values())
        rows += [(f"{number:,}", verb, words[reason]) for reason, number in counts.most_common()]
    screen.table([Column("CHECKPOINTS", right=True), Column(""), Column("BECAUSE")], rows)


# -- verify ------------------------------------------------------------------------------------------------------------


def verify(call: Call, thread: ThreadArgument = None, key_file: KeyOption = None) -> None:
    """Check that every checkpoint is whole.

    Each segment there, hash and chain right, each state decodable; frameworks' too. Exits with 4 when something is not.
    """
    from perdure.cli.checkpoint_places import Place, desk_of

    threads = checkpoints = segments = 0
    problems: list[str] = []
    with desk_of(call, key_file) as desk, Activity(call.screen, "Reading every state") as activity:
        if thread is not None:
            desk.place_of(thread)
        for one in desk.threads_named(thread) if thread is not None else _all_threads(desk):
            report = desk.at(Place(one.id, one.space).space).verify(one.id)
            threads, checkpoints = threads + 1, checkpoints + report.checkpoints
            segments += report.segments
            problems += report.problems
            activity.update(threads)
    if call.screen.json:
        call.screen.document({
            "ok": not problems, "threads": threads, "checkpoints": checkpoints, "segments": segments,
            "problems": problems,
        })  # fmt: skip
    else:
        verdict = f"{plural(len(problems), 'problem')} found:" if problems else "No problems found."
        call.screen.say(verdict, style="bold red" if problems else "bold green")
        for problem in problems:
            call.screen.say(f"- {one_line(problem)}")
        call.screen.say(
            f"Looked at {plural(checkpoints, 'checkpoint')} in {plural(threads, 'thread')}, "
            f"{plural(segments, 'segment')}."
        )
        if any("sealed with a key" in problem for problem in problems):
            call.screen.warn(f"hint: {KEY_HINT}")
    if problems:
        raise typer.Exit(Damaged.exit_code)


def _all_threads(desk: "Desk") -> Any:
    cursor = None
    while True:
        page = desk.list_threads(1_000, cursor)
        yield from page
        cursor = page.next_cursor
        if cursor is None:
            return


# -- restore -----------------------------------------------------------------------------------------------------------


def state_document(desk: "Desk", spot: "Spot") -> bytes:
    """A state as JSON; of LangGraph the checkpoint as it knows it, with ``channel_values``."""
    from perdure.cli.state_json import tagged_form

    state, head = desk.state(spot), desk.head(spot)
    if head is not None:
        state = {**(head if isinstance(head, dict) else {"checkpoint": head}), "channel_values": state}
    return msgspec.json.format(msgspec.json.encode(tagged_form(state)), indent=2) + b"\n"


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that appears when it is whole and on disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def tell_restored(
    screen: Screen, one: "Checkpoint", saved: str | None, output: Path | None, data: bytes | None
) -> None:
    """What ``restore`` did; without a file and without saving, the state itself."""
    if saved is None and output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data or b"")
        sys.stdout.buffer.flush()
        return
    file = None if output is None else str(output)
    if screen.json:
        screen.document({
            "id": one.id, "thread_id": one.thread_id, "branch": one.branch, "saved": saved, "file": file,
        })  # fmt: skip
        return
    if file is not None:
        screen.say(f"Wrote the state of {one_line(one.id)} to {one_line(file)}, {size(len(data or b''))}.")
    if saved is not None:
        screen.say(
            f"Saved the state of {one_line(one.id)} again as {one_line(saved)}, the newest of branch "
            f"{one_line(one.branch)!r} of thread {one_line(one.thread_id)!r}."
        )
