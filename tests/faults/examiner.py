"""Holds what killed processes were told against what the store says, and the store against itself."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from kill_worker import Call, perform

from perdure.rooms.conversations.content import plain_text
from perdure.rooms.conversations.values import content_of
from perdure.values import rank
from perdure.values.errors import Conflict, Invalid, NotFound
from perdure.values.text import analyse

_DAY = 86_400_000_000


class Log:
    """What one process tried, what it was told, and the calls that were left open."""

    def __init__(self, path: Path) -> None:
        self.calls: dict[int, Call] = {}
        self.answers: dict[int, Call] = {}
        if path.exists():
            for line in path.read_bytes().split(b"\n")[:-1]:
                entry = json.loads(line)
                if "try" in entry:
                    self.calls[entry["try"]["number"]] = entry["try"]
                else:
                    self.answers[entry["done"]] = entry["answer"]
        self.open = [call for number, call in self.calls.items() if number not in self.answers]

    def done(self) -> list[tuple[Call, Call]]:
        """Every acknowledged call with its answer, in order."""
        return [(self.calls[number], self.answers[number]) for number in sorted(self.answers)]


class Rows:
    """Every row that matters, read at once while nobody writes."""

    def __init__(self, store: Any) -> None:
        run = store.execute
        self.conversations = {
            row[0]: row
            for row in run(
                "select ord, id, user_id, agent_id, next_seq, message_count, input_tokens, output_tokens, total_tokens,"
                " cost, inherits, live, version from conversations"
            )
        }
        self.messages: list[Any] = run(
            "select ord, conversation, seq, id, body, form, version, state, input_tokens, output_tokens, total_tokens,"
            " cost, model, created_at from messages order by conversation, seq"
        )
        self.forks: dict[int, list[Any]] = defaultdict(list)
        for row in run("select conversation, source, low_seq, high_seq from forks order by conversation, low_seq"):
            self.forks[row[0]].append(row[1:])
        self.report = run(
            "select user_id, agent_id, model, day, messages, input_tokens, output_tokens, total_tokens, cost"
            " from token_totals"
        )
        self.changes = run("select position, kind, verb, object from changes order by position")
        self.keys = run("select verb, key, answer from idempotency")
        self.living = {row[1]: row for row in self.conversations.values() if row[11]}
        self.by_id = {row[3]: row for row in self.messages}


def lost(log: Log, rows: Rows) -> list[str]:
    """Acknowledged effects that are not there, in words."""
    found: list[str] = []
    gone = {call["id"] for call in log.calls.values() if call["verb"] == "delete_conversation"}
    touched: dict[str, Call] = {}  # the last acknowledged change of each message
    maybe = {call["id"] for call in log.open if call["verb"] in {"edit_message", "delete_message", "erase_message"}}
    places: dict[str, tuple[str, int]] = {}
    for call, answer in log.done():
        verb = call["verb"]
        if verb == "add_message":
            touched[answer["id"]] = call
            places[answer["id"]] = (call["conversation"], answer["seq"])
        elif verb in {"edit_message", "delete_message", "erase_message"}:
            touched[call["id"]] = call
        elif verb in {"add_messages", "flush", "transaction", "first_message"}:
            if call.get("id") not in gone:
                found += [f"{verb} {name}" for name in answer["ids"] if name not in rows.by_id]
        elif verb in {"create_conversation", "fork_conversation"}:
            if answer["id"] not in gone and answer["id"] not in rows.living:
                found.append(f"{verb} {answer['id']}")
        elif (verb == "delete_conversation" and call["id"] in rows.living) or (
            verb == "update_conversation" and rows.living[call["id"]][12] < answer["version"]
        ):
            found.append(f"{verb} {call['id']}")
    for message_id, call in touched.items():
        if message_id not in maybe and not _as_told(call, rows.by_id.get(message_id), places.get(message_id), rows):
            found.append(f"{call['verb']} of message {message_id}")
    return found


def _as_told(call: Call, row: Any, place: tuple[str, int] | None, rows: Rows) -> bool:
    if call["verb"] == "erase_message":
        return row is None
    if row is None:
        return False
    if call["verb"] == "delete_message":
        return row[7] == 1 and row[4] == ""
    at_place = place is None or (rows.conversations[row[1]][1], row[2]) == place
    return at_place and row[7] == 0 and row[4] == f"{call['token']} {call['text']}"


def half_groups(logs: list[Log], rows: Rows) -> list[str]:
    """Groups of messages of which some are there and some are not, and messages that are there twice."""
    words = Counter(tuple(row[4].split()[:2]) for row in rows.messages if row[7] == 0)
    first = Counter(row[4].split()[0] for row in rows.messages if row[7] == 0 and row[4])
    found: list[str] = []
    for log in logs:
        gone = {call["id"] for call in log.calls.values() if call["verb"] == "delete_conversation"}
        for call in log.calls.values():
            token = call["token"]
            if "count" in call and call.get("id") not in gone:
                counts = {words[token, f"{place}/{call['count']}"] for place in range(1, call["count"] + 1)}
                if counts not in ({0}, {1}):
                    found.append(f"group {token} {sorted(counts)}")
            elif call["verb"] in {"add_message", "edit_message"} and first[token] > 1:
                found.append(f"message {token} {first[token]} times")
    flushes = Counter(row[4] for row in rows.messages if " step " in row[4])
    return found + [f"flushed {text} {number} times" for text, number in flushes.items() if number > 1]


def inexact(rows: Rows) -> list[str]:
    """Totals, seqs, reports and positions that do not add up, in words."""
    found: list[str] = []
    own: dict[int, list[Any]] = defaultdict(list)
    for row in rows.messages:
        own[row[1]].append(row)
    for conversation in rows.conversations.values():
        number, name, _, _, next_seq, *sums, inherits, live, _ = conversation
        seqs = [row[2] for row in own[number]]
        if live and seqs != list(range(inherits + 1, next_seq)):
            found.append(f"seqs of {name}: {inherits}..{next_seq}, {len(seqs)} rows")
        shown = list(own[number])
        for source, low, high in rows.forks[number]:
            shown += [row for row in own[source] if low <= row[2] <= high]
        if live and _sums(shown) != sums:
            found.append(f"totals of {name}: {_sums(shown)}, stored {sums}")
    report: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * 5)
    for row in rows.messages:
        if row[7] == 0 and row[10] is not None:
            _, _, user, agent, *_ = rows.conversations[row[1]]
            key = (user, agent, row[12] or "", row[13] // _DAY)
            report[key] = [a + b for a, b in zip(report[key], _sums([row]), strict=True)]
    stored = {row[:4]: list(row[4:]) for row in rows.report if any(row[4:])}
    if stored != dict(report):
        found.append("the token report")
    positions = [row[0] for row in rows.changes]
    if len(set(positions)) != len(positions):
        found.append("positions of the feed")
    added = Counter(row[3] for row in rows.changes if row[1:3] == ("message", "add"))
    wrong = [row[3] for row in rows.messages if row[7] < 2 and added[row[3]] != 1]
    return found + [f"entries of message {name}" for name in wrong]


def _sums(messages: list[Any]) -> list[int]:
    living = [row for row in messages if row[7] == 0]
    return [len(living), *(sum(row[column] or 0 for row in living) for column in (8, 9, 10, 11))]


def index_faults(store: Any, rows: Rows) -> list[str]:
    """Where the text index, once it has caught up, differs from the one that the messages would give."""
    store.absorb_text()
    living = {row[0]: row for row in rows.messages if row[7] == 0}
    documents = store.execute("select doc, scope, version, length, terms from text_documents order by doc")
    found = [] if [row[0] for row in documents] == sorted(living) else ["documents"]
    postings: set[tuple[Any, ...]] = set()
    terms: Counter[tuple[Any, ...]] = Counter()
    totals: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for doc, scope, version, length, packed in documents:
        words = rank.unpack_terms(packed)
        message = living.get(doc)
        if message is not None:
            fresh = analyse(plain_text(content_of(message[4], message[5])))
            if version != message[6] or packed != rank.pack_terms(fresh) or length != len(fresh):
                found.append(f"document {doc}")
        postings |= {(term, scope, doc) for term in words}
        for owner in (scope, 0):
            terms.update((owner, term) for term in words)
            totals[owner] = [totals[owner][0] + 1, totals[owner][1] + length]
    if postings != set(store.execute("select term, scope, doc from text_postings")):
        found.append("postings")
    if dict(terms) != {row[:2]: row[2] for row in store.execute("select scope, term, documents from text_terms")}:
        found.append("terms")
    stored = store.execute("select scope, documents, length from text_totals where documents <> 0")
    if dict(totals) != {row[0]: list(row[1:]) for row in stored}:
        found.append("totals of the index")
    return found


def settle(store: Any, log: Log) -> tuple[int, list[str]]:
    """Asks again, under its key, for what a process was not told; how many calls, and the effects that came twice."""
    asked, twice = 0, []
    for call in log.open:
        if "key" not in call:
            continue
        asked += 1
        try:
            first = perform(store, call)
            again = perform(store, call)
        except (Conflict, NotFound, Invalid):  # what it stands on was never made, or is gone
            continue
        if first != again:
            twice.append(f"{call['verb']} {call['key']}")
    return asked, twice
