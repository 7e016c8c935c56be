"""The steps of the demo. Each prints what it did, checks that it holds, and returns the figures for ``--json``."""

import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.accounts import report_table
from perdure.cli.conversations import list_table, openings
from perdure.cli.demo import crash
from perdure.cli.find import show_hit
from perdure.cli.progress import Activity
from perdure.cli.screen import Column, Screen, money, one_line, plural
from perdure.cli.transfer import list_broken, load
from perdure.cli.upkeep import advice_of, show_report
from perdure.values.errors import Damaged, Invalid

if TYPE_CHECKING:
    from perdure.rooms.conversations.values import Conversation
    from perdure.sync.store import Store

Figures = dict[str, Any]
SAMPLE_QUERIES = ("peanut allergy", "why is the tide test flaky", "deploy day")
INDENT = 3
_SHOWN_CONVERSATIONS = 6
_SHOWN_DAYS = 5
_LOOKED_THROUGH = 100
"""Conversations in which the demo looks for tool calls."""


def check(holds: bool, promise: str) -> None:
    """Raises ``Damaged`` when the demo finds that a promise was broken."""
    if not holds:
        raise Damaged(
            f"the demo found a broken promise: {promise}", hint="please report this, with perdure doctor's output"
        )


def bring_in(screen: Screen, store: "Store", path: Path) -> Figures:
    """Step 1: a real history goes into the store."""
    began = time.perf_counter()
    report = load(screen, store, path, skip_broken=True)
    if report.broken and not report.messages:  # most likely it does not say whose conversations they are
        report = load(screen, store, path, user="you", skip_broken=True)
    seconds = time.perf_counter() - began
    if not report.messages:
        why = f"line {report.errors[0].line}: {report.errors[0].reason}" if report.errors else "it holds no messages"
        raise Invalid(f"nothing can be loaded from {path}: {why}", field="input")
    counts = store.stats()
    check(counts["messages"] >= report.messages, "what was imported is counted")
    screen.say(
        f"{plural(report.conversations, 'conversation')} with {plural(report.messages, 'message')} from {path.name} in "
        f"{seconds:.2f} s{_included(store, counts)}.", indent=INDENT,
    )  # fmt: skip
    list_broken(screen, report.broken, [(one.line, one.reason) for one in report.errors])
    return {
        "conversations": report.conversations, "messages": report.messages, "broken": report.broken,
        "seconds": round(seconds, 3),
    }  # fmt: skip


def _included(store: "Store", counts: Figures) -> str:
    """What came with the words, as far as it did."""
    talks = store.query_conversations(limit=_LOOKED_THROUGH)
    calls = any(store.get_messages(talk.id, 1, roles=("tool",)) for talk in talks)
    known = (("tool calls", calls), ("tokens", counts["tokens"]), ("cost", counts["cost"]))
    *most, last = [name for name, there in known if there] or [""]
    listed = f"{', '.join(most)} and {last}" if most else last
    return f", {listed} included" if listed else ""


def look_around(screen: Screen, store: "Store") -> Figures:
    """Step 2: the conversations, the latest first."""
    found = store.query_conversations(limit=_SHOWN_CONVERSATIONS)
    list_table(screen, found, openings(store, found), INDENT)
    counts = store.stats()
    more = counts["conversations"] - len(found)
    if more:
        screen.say(f"... and {more:,} more.", style="dim", indent=INDENT)
    return {"shown": [one.id for one in found], "conversations": counts["conversations"]}


def index(screen: Screen, store: "Store") -> Figures:
    """Step 3 begins: the index takes in what was imported, so that the first search is timed like any other."""
    began = time.perf_counter()
    store.absorb_text()
    seconds = time.perf_counter() - began
    screen.say(f"Indexed in {seconds:.2f} s.", indent=INDENT)
    screen.say()
    return {"seconds": round(seconds, 3)}


def search(screen: Screen, store: "Store", queries: Sequence[str]) -> list[Figures]:
    """Step 3: full-text search, ranked."""
    answers: list[Figures] = []
    for query in queries:
        began = time.perf_counter()
        hits = store.search_messages(query, limit=2)
        millis = 1_000 * (time.perf_counter() - began)
        check(bool(hits), f"a word of the history ({query!r}) is found")
        if answers:
            screen.say()
        screen.say(f'"{one_line(query)}"  ({millis:.0f} ms)', style="bold cyan", indent=INDENT)
        for hit in hits:
            show_hit(screen, hit, query, INDENT + 2)
        answers.append({
            "query": query,
            "hits": [
                {"conversation_id": hit.message.conversation_id, "seq": hit.message.seq, "score": hit.score}
                for hit in hits
            ],
            "milliseconds": round(millis, 2),
        })  # fmt: skip
    if not queries:
        screen.say("This history has no words to search for.", indent=INDENT)
    return answers


def accounts(screen: Screen, store: "Store") -> Figures:
    """Step 4: tokens and money, which add up exactly."""
    counts = store.stats()
    models, days = store.token_report("model"), store.token_report("day")
    if models:
        report_table(screen, models, "model", INDENT)
        screen.say()
        report_table(screen, days, "day", INDENT, _SHOWN_DAYS)
    for rows in (models, days):
        tokens = sum(row.token_usage.total_tokens for row in rows)
        cost = sum((row.token_usage.cost for row in rows), Decimal(0))
        check((tokens, cost) == (counts["tokens"], counts["cost"]), "the accounts add up")
    if models:
        screen.say()
    text = (
        f"{plural(counts['tokens'], 'token')}, cost {money(counts['cost'])}: by model, by day and by conversation the "
        "same, to the last digit."
    )
    screen.say(text if models else "No message of this history has recorded tokens.", indent=INDENT)
    return {"tokens": counts["tokens"], "cost": counts["cost"], "by_model": models, "by_day": days}


def begin_crash(store: "Store") -> str:
    """The conversation that a process will write to until it is killed."""
    made = store.create_conversation("demo-writer", "demo", {"title": "Written by a process that was killed"})
    return made.id


def survive(screen: Screen, place: Any, conversation: str) -> Figures:
    """Step 5: a process that writes is killed, several times; what it was told is held against what is there."""
    screen.say(
        "Another process writes turns of two messages, one transaction each, and reports each one that was "
        "acknowledged. SIGKILL ends it at a random moment; then the store is opened anew.", indent=INDENT,
    )  # fmt: skip
    screen.say()
    rounds: list[crash.Round] = []
    state: Figures = {}
    first = 1
    with Activity(screen, "Writing until killed", crash.KILLS) as activity:
        for number in range(1, crash.KILLS + 1):
            told = crash.write_and_kill(place.url, place.tenant, conversation, first)  # no store is open here meanwhile
            with place.open() as store:
                turns, state = crash.examine(store, conversation)
            rounds.append(crash.round_of(told, turns, first))
            first = max(*told, *turns) + 1
            activity.update(number)
    return _judge(screen, rounds, state)


def _judge(screen: Screen, rounds: list[crash.Round], state: Figures) -> Figures:
    """What the kills left behind."""
    verdict = crash.Verdict(rounds, **state)
    rows = [
        (str(place), f"{one.acknowledged:,}", f"{one.found:,}", f"{one.lost:,}")
        for place, one in enumerate(rounds, 1)
    ]  # fmt: skip
    screen.table(
        [
            Column("KILL"), Column("TURNS ACKNOWLEDGED", right=True), Column("FOUND", right=True),
            Column("LOST", right=True),
        ],
        rows, INDENT,
    )  # fmt: skip
    check(verdict.holds, "what was acknowledged survives kill -9, whole and in order")
    flight = sum(one.found - one.acknowledged for one in rounds)
    screen.say()
    screen.say(
        f"Nothing acknowledged was lost, and no turn is there by half. {plural(state['messages'], 'message')} are "
        f"numbered without a gap; totals of messages, tokens and cost are exact."
        + (f" {plural(flight, 'turn')} had been stored but not yet reported." if flight else ""),
        indent=INDENT,
    )  # fmt: skip
    return {
        "kills": len(rounds),
        "acknowledged_turns": sum(one.acknowledged for one in rounds),
        "found_turns": sum(one.found for one in rounds),
        "lost_turns": sum(one.lost for one in rounds),
        "unreported_turns": flight,
        **state,
    }


def fork_and_edit(screen: Screen, store: "Store") -> Figures:
    """Step 7: another course of a conversation, an edit with its trail, and the feed that tells of both."""
    source = longest(store)
    place = max(1, source.message_count // 2)
    since = store.latest_change()
    own = store.acting_as("demo", reason="what if")
    fork = own.fork_conversation(source.id, place)
    said = own.add_message(fork.id, "user", "Let us do that next week.")
    now = own.edit_message(said.id, "Let us do that on Tuesday at nine.")
    after = store.get_conversation(source.id)
    check(after is not None and after.message_count == source.message_count, "a fork leaves its source alone")
    grown = store.get_conversation(fork.id)
    check(grown is not None and grown.message_count == fork.message_count + 1, "a fork goes on by itself")
    history = store.message_history(said.id)
    check([one.content for one in history] == [said.content], "an edit keeps what was said before")
    screen.say(
        f'A fork of "{one_line(source.metadata.title or source.id)}" shares {plural(fork.message_count, "message")} with it, '
        f"copies none, and goes on by itself:", indent=INDENT,
    )  # fmt: skip
    screen.say()
    for one in history:
        screen.say(f"version {one.version}  {one.content}  ({one.verb} by {one.actor})", indent=INDENT + 2)
    screen.say(f"version {now.version}  {now.content}", indent=INDENT + 2)
    screen.say()
    screen.say("The change feed, from which caches and indexes follow the store:", indent=INDENT)
    changes = store.changes(since)
    screen.table(
        [
            Column("TIME (UTC)"), Column("WHAT"), Column("ACTOR"), Column("REASON", rank=2),
            Column("ID", rank=1, flexible=True),
        ],
        [
            (f"{one.at:%H:%M:%S.%f}"[:-3], f"{one.verb} {one.kind}", one.actor or "", one.reason or "", one.object_id)
            for one in changes
        ],
        INDENT + 2,
    )  # fmt: skip
    check([one.actor for one in changes] == ["demo"] * len(changes) and len(changes) >= 3, "each change is in the feed")
    return {"source": source.id, "fork": fork.id, "at_seq": place, "versions": now.version, "changes": len(changes)}


def longest(store: "Store") -> "Conversation":
    """The longest imported conversation with a title, else the longest."""
    found = store.query_conversations(order_by="message_count", limit=10)
    known = [one for one in found if one.agent_id != "demo-writer"]
    return next((one for one in known if one.metadata.title), known[0])


def examine(screen: Screen, store: "Store") -> Figures:
    """Step 8: the doctor."""
    with Activity(screen, "Examining every page and row"):
        report = store.doctor()
    report["advice"] = advice_of(report)
    show_report(screen, report | {"chores": {}}, INDENT)
    return {
        "problems": report["problems"],
        "advice": report["advice"],
        "engine": f"{report['engine']} {report['engine_version']}",
    }
