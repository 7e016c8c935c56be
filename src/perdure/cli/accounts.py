"""``perdure stats``: how much there is, and what it cost."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from perdure.cli.common import Call, command
from perdure.cli.progress import Activity
from perdure.cli.screen import Column, Screen, moment, money, money_column, plural

if TYPE_CHECKING:
    from perdure.rooms.conversations.values import TokenReportRow

ROWS = 15
"""Groups that one table shows; ``--json`` gives all."""
Group = Literal["model", "day", "user_id", "agent_id"]
_GROUPS: tuple[Group, ...] = ("model", "day", "user_id", "agent_id")


def add_to(parent: typer.Typer) -> None:
    """Makes this a part of the ``perdure`` command."""
    command(parent, "stats")(stats)


def stats(
    call: Call,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Tokens and cost of a user only.")] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="ID", help="Tokens and cost of an agent only.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="DAY", help="From this day (UTC) on.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="DAY", help="Up to but without this day (UTC).")
    ] = None,
) -> None:
    """Count messages, tokens and cost.

    Tokens and cost are shown by model, day, user and agent.
    """
    with call.store() as store, Activity(call.screen, "Counting"):
        counts = store.stats()
        reports = {
            group: store.token_report(group, user_id=user, agent_id=agent, since=since, until=until)
            for group in _GROUPS
        }
    screen = call.screen
    if screen.json:
        screen.document({"stats": counts, **{f"by_{name}": rows for name, rows in reports.items()}})
        return
    screen.facts(_facts(counts))
    for group, title in zip(_GROUPS, ("model", "day", "user", "agent"), strict=True):
        rows = reports[group]
        if not rows:
            continue
        screen.say()
        screen.heading(f"Tokens and cost by {title}")
        report_table(screen, rows, group)
    if not any(reports.values()):
        screen.say()
        screen.say(
            "No message has recorded tokens in that time." if since or until else "No message has recorded tokens."
        )


def report_table(screen: Screen, rows: "list[TokenReportRow]", group: Group, indent: int = 2, most: int = ROWS) -> None:
    """Groups with their tokens and cost: days in order, the newest of them, everything else by cost."""
    if group == "day":
        shown = rows[-most:]
    else:
        shown = sorted(rows, key=lambda row: (-row.token_usage.cost, -row.token_usage.total_tokens))[:most]
    costs = money_column([row.token_usage.cost for row in shown])
    name = group.removesuffix("_id").upper()
    table = [
        (
            getattr(row, group) or "(not said)", f"{row.messages:,}", f"{row.token_usage.input_tokens:,}",
            f"{row.token_usage.output_tokens:,}", f"{row.token_usage.total_tokens:,}", cost,
        )
        for row, cost in zip(shown, costs, strict=True)
    ]  # fmt: skip
    screen.table(
        [
            Column(name, flexible=True), Column("MESSAGES", right=True, rank=3), Column("INPUT", right=True, rank=2),
            Column("OUTPUT", right=True, rank=2), Column("TOKENS", right=True, rank=1), Column("COST", right=True),
        ],
        table, indent,
    )  # fmt: skip
    if len(rows) > most:
        which = "newest" if group == "day" else "dearest"
        screen.say(f"The {most} {which} of {len(rows):,}; --json gives all.", style="dim", indent=indent)


def _facts(counts: dict[str, Any]) -> list[tuple[str, str]]:
    first, latest = counts["first_created_at"], counts["latest_message_at"]
    pairs = [
        ("conversations", f"{counts['conversations']:,}"),
        ("messages", f"{counts['messages']:,}"),
        ("tokens", f"{counts['tokens']:,}"),
        ("cost", money(counts["cost"])),
    ]
    if first is not None:
        pairs.append(("activity", f"{moment(first)} to {moment(latest)} UTC"))
    if counts["tenant"] != "default":
        pairs.append(("tenant", counts["tenant"]))
    if counts["tracking_failures"]:
        pairs.append(("tracking", plural(counts["tracking_failures"], "failure")))
    if counts["overdue_chores"]:
        pairs.append(("overdue", f"{plural(counts['overdue_chores'], 'chore')}; perdure doctor names them"))
    return pairs
