"""P1, P2, P3: adding messages to SQLite, one at a time and many together."""

import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import NamedTemporaryFile

from bench import data, lanes, peers
from bench.places import describe, describe_disk, disk_folder, memory_folder
from bench.rounds import Check, Row, Spent, faster, interleave, slower, times
from bench.rows import Mode

_SYNCED = 6_400


def one_at_a_time(mode: Mode) -> Row:
    """P1: awaited and blocking ``add_message`` beside the raw limit, a bare row, and the peers."""
    corpus, n, rounds = data.messages(512), 200, 3 * mode.rounds
    with memory_folder() as folder, ExitStack() as open_ones:
        enter = open_ones.enter_context
        found = interleave({
            "raw, the same rows": enter(lanes.raw(folder / "raw.db", corpus, n)),
            "perdure awaited": enter(lanes.awaited(folder / "awaited.db", corpus, n)),
            "perdure blocking": enter(lanes.blocking(folder / "blocking.db", corpus, n)),
            "raw, a bare row": enter(lanes.bare(folder / "bare.db", corpus, n)),
            "openai-agents SQLiteSession": enter(peers.openai_agents(folder / "agents.db", corpus, n)),
            "LangChain SQLChatMessageHistory": enter(peers.langchain(folder / "langchain.db", corpus, n)),
            "google-adk DatabaseSessionService": enter(peers.google_adk(folder / "adk.db", corpus, n // 5)),
            "google-adk SqliteSessionService": enter(peers.google_adk_sqlite(folder / "adk2.db", corpus, n // 5)),
        }, rounds)  # fmt: skip
        same = lanes.same_rows(folder / "awaited.db", folder / "raw.db")
        lanes.same_rows(folder / "blocking.db", folder / "raw.db")
        place = describe(folder)
    mine = "perdure awaited"
    checks = [
        Check("awaited add_message / raw, the same rows", *slower(found, mine, "raw, the same rows"), goal=2.0, key="P1.awaited"),
        Check("blocking add_message / raw, the same rows", *slower(found, "perdure blocking", "raw, the same rows"), goal=1.6, key="P1.blocking"),
        Check("awaited add_message / raw, a bare row", *slower(found, mine, "raw, a bare row")),
        *(
            Check(f"awaited, times as fast as {peer}", *faster(found, mine, peer), goal=goal, sense="at least", key=f"P1.{key}")
            for peer, goal, key in (
                ("openai-agents SQLiteSession", 2.0, "agents"), ("LangChain SQLChatMessageHistory", 5.0, "langchain"),
                ("google-adk DatabaseSessionService", 20.0, "adk"), ("google-adk SqliteSessionService", 20.0, "adk_sqlite"),
            )
        ),
    ]  # fmt: skip
    setting = f"{place}, NORMAL; {rounds} rounds of {n} messages of about 230 bytes (google-adk {n // 5})"
    return Row("P1", "One add_message at a time, SQLite", setting, checks, times(found), [same])


def durable_together(mode: Mode) -> Row:
    """P2: 64 tasks that add with ``durability="full"``, on a disk; and how often the disk was synced, counted."""
    corpus, n, rounds = data.messages(512), 64 * 8, mode.rounds
    with disk_folder() as folder, ExitStack() as open_ones:
        enter = open_ones.enter_context
        found = interleave({
            "raw, one transaction each": enter(lanes.raw(folder / "raw.db", corpus, 64, durability="full")),
            "perdure, 64 tasks": enter(lanes.awaited(folder / "one.db", corpus, n, tasks=64, durability="full")),
            "perdure, 64 tasks and conversations": enter(
                lanes.awaited(folder / "own.db", corpus, n, tasks=64, talks=64, durability="full")
            ),
            "openai-agents SQLiteSession, 64 tasks": enter(peers.openai_agents(folder / "agents.db", corpus, 64, tasks=64)),
        }, rounds)  # fmt: skip
        place = describe_disk(folder)
        synced, how = _count_syncs(folder / "counted.db")
    mine = "perdure, 64 tasks"
    raw, agents = "raw, one transaction each", "openai-agents SQLiteSession, 64 tasks"
    own = "perdure, 64 tasks and conversations"
    checks = [
        Check("times as fast as raw", *faster(found, mine, raw)[:2], goal=5, sense="at least", every_round=True, key="P2.raw"),
        Check("times as fast as openai-agents", *faster(found, mine, agents)[:2], goal=10, sense="at least", every_round=True, key="P2.agents"),
        Check("64 conversations: times as fast as raw", *faster(found, own, raw)[:2]),
        Check("64 conversations: times as fast as openai-agents", *faster(found, own, agents)[:2]),
    ]  # fmt: skip
    if synced is not None:
        checks.append(Check(
            f"fdatasyncs for {_SYNCED:,} messages, opening and closing included", synced, unit="", goal=_SYNCED / 20,
            key="P2.syncs",
        ))  # fmt: skip
    setting = f"{place}, FULL; {rounds} rounds of {n} messages (raw and openai-agents: 64)"
    return Row("P2", "64 concurrent awaited adds that wait for the disk", setting, checks, times(found), [how])


def _count_syncs(path: Path) -> tuple[float | None, str]:
    """How many fsync and fdatasync calls a process makes that adds messages with 64 tasks, as strace counts them."""
    strace = shutil.which("strace")
    if strace is None:
        return None, "fdatasyncs were not counted: strace is not installed."
    with NamedTemporaryFile("r", suffix=".strace") as counted:
        command = [strace, "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", counted.name]
        worker = [sys.executable, "-m", "bench.worker", "together", str(path), str(_SYNCED)]
        subprocess.run([*command, *worker], check=True)
        lines = [line for line in counted if re.search(r"\b(fsync|fdatasync)\(", line)]
    return len(lines), "fsync and fdatasync calls were counted by strace -f in a process of their own."


def _rates(spent: list[Spent]) -> tuple[float, float, float]:
    """Operations a second: the median of the rounds, the worst, and what the CPU time alone would allow."""
    walls = [one.wall for one in spent]
    return 1 / median(walls), 1 / max(walls), 1 / median(one.cpu for one in spent)


def together(mode: Mode) -> Row:
    """P3: 256 tasks that add, beside raw transactions of 100 messages."""
    corpus, n, rounds = data.messages(512), 256 * 4, 2 * mode.rounds
    with memory_folder() as folder, ExitStack() as open_ones:
        enter = open_ones.enter_context
        found = interleave({
            "raw, 100 a transaction": enter(lanes.raw(folder / "raw.db", corpus, n, batch=100)),
            "perdure, 256 tasks": enter(lanes.awaited(folder / "one.db", corpus, n, tasks=256)),
            "raw, 100 a transaction, 256 conversations": enter(lanes.raw(folder / "raw2.db", corpus, n, batch=100, talks=256)),
            "perdure, 256 tasks and conversations": enter(lanes.awaited(folder / "own.db", corpus, n, tasks=256, talks=256)),
        }, rounds)  # fmt: skip
        same = lanes.same_rows(folder / "one.db", folder / "raw.db")
        place = describe(folder)
    one, own = "perdure, 256 tasks", "perdure, 256 tasks and conversations"
    checks = [
        Check("speed as a part of raw's", *faster(found, one, "raw, 100 a transaction"), goal=0.7, sense="at least", key="P3.raw"),
        Check("messages a second", *_rates(found[one]), unit="/s", goal=10_000, sense="at least", key="P3.rate"),
        Check("256 conversations: speed as a part of raw's", *faster(found, own, "raw, 100 a transaction, 256 conversations")),
        Check("256 conversations: messages a second", *_rates(found[own]), unit="/s"),
    ]  # fmt: skip
    setting = f"{place}, NORMAL; {rounds} rounds of {n} messages"
    return Row("P3", "256 concurrent awaited adds", setting, checks, times(found), [same])
