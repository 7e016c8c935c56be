"""Asks a store everything it can be asked, in a process that a damaged file may bring down."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import perdure.sync
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Damaged, PerdureError

CONVERSATIONS = 12
LONG = "The log of the lightship says: " + "fog, wind from the west, nothing in sight; " * 400
"""17 kB: such a body is spread over several pages."""
CASE_SECONDS = 20
Question = tuple[str, Callable[[Any], Any]]


OLDER = 8
"""Conversations in the copy taken of a closed image before the rest was added and some of these were changed."""


def build(folder: Path, *, leave_log: bool) -> None:
    """Makes ``store.db``; with ``leave_log`` the process must be killed after this, so that its log stays behind."""
    store = perdure.sync.Store(f"sqlite:///{folder}/store.db")
    store.initialize()
    for number in range(OLDER):
        _fill(store, number)
    if not leave_log:
        store.upkeep()
        folder.with_name(f"{folder.name}-older.db").write_bytes((folder / "store.db").read_bytes())
        for number in range(OLDER):
            store.add_message(f"c{number}", "user", "the buoy is back")
            store.edit_message(f"m{number}-9", f"lantern {number} was lit again")
            store.delete_message(f"m{number}-11")
    for number in range(OLDER, CONVERSATIONS):
        _fill(store, number)
    store.absorb_text()
    if leave_log:
        store.upkeep()
        for number in range(CONVERSATIONS, CONVERSATIONS + 3):
            _fill(store, number)
        store.search_messages("buoy")
        store.edit_message("m0-3", "the buoy was moved to the north")
    else:
        store.close()


def _fill(store: Any, number: int) -> None:
    name = f"c{number}"
    told = {"title": f"Watch {number}", "tags": ["watch", f"t{number % 4}"], "participants": [f"p{number % 3}"]}
    store.create_conversation("pilot", f"user-{number % 3}", told, name, idempotency_key=f"key-{number}")
    usage = {"input_tokens": 11, "output_tokens": 5, "model": f"m{number % 2}", "cost": "0.0021"}
    store.add_messages(
        name,
        [
            {
                "id": f"m{number}-{place}",
                "role": "user" if place % 2 else "assistant",
                "content": LONG[: 9_000 + number * 500] if place == 4 else f"buoy {place} of watch {number} lies deep",
                "token_usage": usage if place % 2 == 0 else None,
                "metadata": {"place": place},
            }
            for place in range(1, 31)
        ],
    )
    store.edit_message(f"m{number}-5", f"lantern {number} was dark")
    store.delete_message(f"m{number}-7")
    store.fork_conversation(name, 12, f"{name}-fork")


def questions() -> Iterator[Question]:
    """Every kind of reading verb, over every object."""
    names = [f"c{number}{end}" for number in range(CONVERSATIONS + 3) for end in ("", "-fork")]
    for name in names:
        yield f"get_conversation {name}", lambda s, n=name: s.get_conversation(n)
        yield f"get_messages {name}", lambda s, n=name: s.get_messages(n, 100)
        yield f"get_messages last {name}", lambda s, n=name: s.get_messages(n, last=5)
        yield f"search in {name}", lambda s, n=name: s.search_messages("buoy lantern", conversation_id=n, limit=50)
    for number in range(CONVERSATIONS + 3):
        for place in (1, 3, 4, 5, 7, 30):
            yield f"get_message m{number}-{place}", lambda s, n=f"m{number}-{place}": s.get_message(n)
        for place in (3, 5, 7):
            yield f"message_history m{number}-{place}", lambda s, n=f"m{number}-{place}": s.message_history(n)
    for order in ("last_message_at", "created_at", "message_count", "cost"):
        yield f"query by {order}", lambda s, o=order: s.query_conversations(order_by=o, limit=100)
    yield "query user", lambda s: s.query_conversations(user_id="user-1", limit=100, include_messages=True)
    yield "query agent", lambda s: s.query_conversations(agent_id="pilot", limit=100)
    yield "query tags", lambda s: s.query_conversations(filters={"tags": ["watch", "t1"]}, limit=100)
    yield "query participant", lambda s: s.query_conversations(filters={"participant": "p2"}, limit=100)
    yield "report", lambda s: s.token_report("user_id", "agent_id", "model", "day")
    yield "report by model", lambda s: s.token_report("model", user_id="user-2")
    yield "changes", lambda s: list(s.all_changes())
    yield "trail", lambda s: s.changes(kinds=["conversation"], limit=100)
    for words, user in (("buoy", None), ("lantern dark", None), ("fog wind", "user-1"), ("watch 3", "user-0")):
        yield f"search {words} {user}", lambda s, w=words, u=user: s.search_messages(w, u, limit=40)
    yield "stats", lambda s: s.stats()
    yield "doctor", lambda s: s.doctor()["problems"]


def answers(url: str) -> dict[str, str]:
    """Each question's answer as text; an error is ``!`` and its code, an error of no family ``!!`` and its name."""
    found: dict[str, str] = {}
    store = perdure.sync.Store(PersistenceConfig(url, pool_size=2))
    try:
        store.initialize()
    except Exception as error:
        return {"open": _named(error)}
    try:
        for name, question in questions():
            try:
                found[name] = repr(question(store))
            except Exception as error:
                found[name] = _named(error)
    finally:
        store.close()
    return found


def _named(error: Exception) -> str:
    if isinstance(error, PerdureError):
        return f"!{error.code}" if isinstance(error, Damaged) else f"!?{error.code}: {error}"
    return f"!!{type(error).__name__}: {error}"


def damage(files: dict[str, bytearray], case: dict[str, Any]) -> None:
    """Applies one piece of damage to the files' bytes."""
    data = files[case["file"]]
    size, header = case.get("size", 4096), case.get("header", 0)
    match case["kind"]:
        case "flip":
            data[case["at"] // 8] ^= 1 << case["at"] % 8
        case "zero":
            start = header + case["page"] * size
            data[start : start + size] = bytes(size)
        case "double":
            start, other = header + case["page"] * size, header + case["other"] * size
            data[other : other + size] = data[start : start + size]
        case "swap":
            start, other = header + case["page"] * size, header + case["other"] * size
            kept = data[start : start + size]
            data[start : start + size] = data[other : other + size]
            data[other : other + size] = kept
        case "from":  # the same place in another file
            start = case["page"] * size
            data[start : start + size] = Path(case["source"]).read_bytes()[start : start + size]
        case _:
            raise AssertionError(case)


def work(
    image: str = "", scratch: str = "", out: str = "", cases: list[dict[str, Any]] | None = None, build_in: str = "",
    leave_log: bool = False,
) -> None:  # fmt: skip
    """Builds an image, or tries cases of damage on copies of one and writes a line about each."""
    if build_in:
        build(Path(build_in), leave_log=leave_log)
        os._exit(0)  # nothing is closed, as by a kill
    place = Path(scratch)
    with Path(out).open("a") as report:
        for case in cases or []:
            signal.alarm(CASE_SECONDS)  # its default action ends the process: a hang shows as one
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(image, place)
            files = {path.name: bytearray(path.read_bytes()) for path in place.iterdir()}
            if case["kind"] != "none":
                damage(files, case)
            for name, data in files.items():
                (place / name).write_bytes(data)
            found = answers(f"sqlite:///{place}/store.db")
            report.write(json.dumps({"case": case, "answers": found}) + "\n")
            report.flush()
    shutil.rmtree(place, ignore_errors=True)
