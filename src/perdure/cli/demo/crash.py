"""The proof by kill -9: a process writes, dies at some moment, and what it was told is held against what is there."""

import os
import secrets
import subprocess
import sys
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.values.errors import Unavailable

if TYPE_CHECKING:
    from perdure.rooms.conversations.values import Message
    from perdure.sync.store import Store

KILLS = 3
FEWEST_TURNS, MOST_TURNS = 40, 300
"""A writer is killed after a random number of turns between these..."""
ROUND_SECONDS = 4.0
"""... or after this time, on a slow disk or server."""


class Round(msgspec.Struct, frozen=True):
    """One kill: the turns whose writing was acknowledged, and those of them and beyond that were found afterwards."""

    acknowledged: int
    found: int
    lost: int


class Verdict(msgspec.Struct, frozen=True):
    """What all kills together left behind. ``half_turns`` counts turns of which only one message is there."""

    rounds: list[Round]
    messages: int
    seq_gaps: int
    half_turns: int
    totals_exact: bool

    @property
    def holds(self) -> bool:
        """Whether every promise was kept."""
        lost = sum(one.lost for one in self.rounds)
        return not lost and not self.seq_gaps and not self.half_turns and self.totals_exact


def write_and_kill(url: str, tenant: str, conversation: str, first: int) -> set[int]:
    """The numbers of the turns that a writing process was told are stored, before SIGKILL ended it."""
    enough = FEWEST_TURNS + secrets.randbelow(MOST_TURNS - FEWEST_TURNS)
    return run_until("perdure.cli.demo.writer", url, (tenant, conversation, str(first)), enough, ROUND_SECONDS)


def run_until(module: str, url: str, words: tuple[str, ...], enough: int, seconds: float) -> set[int]:
    """The numbers that a process reported, before SIGKILL ended it: after so many of them, or after that time."""
    command = [sys.executable, "-m", module, *words]
    told: set[int] = set()
    with subprocess.Popen(  # noqa: S603 - our own modules
        command, env={**os.environ, "PERDURE_URL": url}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        alarm = threading.Timer(seconds, process.kill)
        alarm.daemon = True
        alarm.start()
        killed = False
        for line in process.stdout:  # goes on after the kill: the pipe may hold more that was acknowledged
            told.add(int(line))
            if len(told) >= enough and not killed:
                process.kill()
                killed = True
        alarm.cancel()
        complaint = process.stderr.read().strip()
    if not told:
        last = complaint.splitlines()[-1] if complaint else f"it ended with {process.returncode}"
        raise Unavailable(f"the writing process did not write: {last}")
    return told


def round_of(told: set[int], turns: dict[int, int], first: int) -> Round:
    """How one kill ended, from the turns that were acknowledged since ``first`` and the ones that are there."""
    there = {turn for turn in turns if turn >= first}
    return Round(len(told), len(there), len(told - there))


def examine(store: "Store", conversation: str) -> tuple[dict[int, int], dict[str, Any]]:
    """The messages of each turn that are there, and whether seqs and totals are what the messages say."""
    turns: dict[int, int] = {}
    seqs: list[int] = []
    tokens, cost = 0, Decimal(0)
    after: int | None = 0
    while after is not None:
        page = store.get_messages(conversation, 1_000, after=after)
        for message in page:
            seqs.append(message.seq)
            turns[_turn(message)] = turns.get(_turn(message), 0) + 1
            if message.token_usage is not None:
                tokens += message.token_usage.total_tokens
                cost += message.token_usage.cost
        after = None if page.next_cursor is None else int(page.next_cursor)
    known = store.get_conversation(conversation)
    assert known is not None
    totals = (known.message_count, known.token_usage.total_tokens, known.token_usage.cost)
    return turns, {
        "messages": len(seqs),
        "seq_gaps": (max(seqs) if seqs else 0) - len(set(seqs)),
        "half_turns": sum(number != 2 for number in turns.values()),
        "totals_exact": totals == (len(seqs), tokens, cost),
    }


def _turn(message: "Message") -> int:
    return int(message.metadata["turn"])
