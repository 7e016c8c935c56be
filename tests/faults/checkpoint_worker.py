"""The process that is killed, or races others, on checkpoints; it logs each call before it is made and once answered.

``task`` says what it does: ``write`` uses every verb on threads of its own and one that all share, ``rotate`` rotates keys
for ever, ``race`` saves with the newest as parent until its share of races is run, ``append`` saves without a parent,
``share`` saves, prunes, copies and deletes threads whose segments are equal.
"""

import contextlib
import importlib
import json
import os
import random
import time
from typing import Any

import perdure.sync
from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Conflict, Invalid, NotFound

for _name in ("perdure.sync.checkpoints", "cryptography.hazmat.primitives.ciphers.aead", "ormsgpack", "zstandard"):
    importlib.import_module(_name)  # what a fork would load otherwise, each time
Call = dict[str, Any]
SHARED = "shared"
KEYS = [bytes([number]) * 32 for number in range(1, 8)]
SETTINGS: dict[str, Any] = {"max_checkpoints_per_thread": 6, "keep_minimum": 2}


def checkpointer_of(store: Any, key: int | None) -> Any:
    """A checkpointer with the key of that number."""
    return perdure.sync.Checkpointer(
        store, CheckpointConfig(encryption_key=None if key is None else KEYS[key], **SETTINGS)
    )


def state_of(call: Call) -> dict[str, Any]:
    """The state of a call; it grows, and long lists become segments."""
    number = call["number"]
    return {"n": number, "who": call["token"], "messages": [f"m{at} of them all" for at in range(number % 150)]}


def perform(checkpointer: Any, call: Call) -> Call:
    """What a call answered, as plain values."""
    verb, thread = call["verb"], call["thread"]
    match verb:
        case "save":
            made = checkpointer.save(
                thread, state_of(call), {"token": call["token"]}, call.get("tags", ()), run_id=call.get("run"),
                branch=call.get("branch", "main"), idempotency_key=call.get("key"),
            )  # fmt: skip
            return {"id": made}
        case "create_branch":
            return {"id": checkpointer.create_branch(call["id"], call["name"], {"token": call["token"]})}
        case "merge":
            return {"id": checkpointer.merge(thread, "main", call["name"], resolve="theirs").checkpoint_id}
        case "retain":
            return {"removed": list(checkpointer.apply_retention(thread)[0].removed)}
        case "copy":
            return {"count": checkpointer.copy_thread(thread, call["target"])}
        case "import":
            return {"id": checkpointer.import_thread(checkpointer.export_thread(thread), call["target"])}
        case "delete":
            return {"was": checkpointer.delete_thread(thread)}
        case "delete_for_runs":
            return {"count": checkpointer.delete_for_runs(call["runs"])}
    raise AssertionError(verb)


class Author:
    """Decides what a worker does next, from a seed; it changes only what it made itself."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = random.Random(seed)
        self.number = 0
        self.threads: list[str] = []
        self.last: dict[str, str] = {}
        self.branches: dict[str, str] = {}
        self.runs: list[str] = []

    def _call(self, verb: str, thread: str, **given: Any) -> Call:
        self.number += 1
        call = {"verb": verb, "thread": thread, "number": self.number, "token": f"{self.name}n{self.number}", **given}
        if verb == "save" and self.random.random() < 0.4:
            call["key"] = call["token"]
        return call

    def next(self) -> Call:
        """The next call."""
        roll = self.random.random()
        if not self.threads or roll < 0.06:
            return self._call("save", f"{self.name}-{self.number}")
        thread = self.random.choice(self.threads)
        if roll < 0.14:
            return self._call("save", SHARED)
        if roll < 0.58:
            tags = ["kept"] if self.random.random() < 0.1 else []
            return self._call("save", thread, tags=tags)
        if roll < 0.62:
            run = f"{self.name}-run{self.number}"
            return self._call("save", thread, run=run)
        if roll < 0.68 and thread in self.last:
            return self._call("create_branch", thread, id=self.last[thread], name=f"b{self.number}")
        if roll < 0.74 and thread in self.branches:
            return self._call("save", thread, branch=self.branches[thread])
        if roll < 0.78 and thread in self.branches:
            return self._call("merge", thread, name=self.branches[thread])
        if roll < 0.86:
            return self._call("retain", thread)
        if roll < 0.92:
            return self._call(self.random.choice(("copy", "import")), thread, target=f"{self.name}-{self.number}c")
        if roll < 0.96 and len(self.threads) > 3:
            return self._call("delete", thread)
        if self.runs:
            return self._call("delete_for_runs", thread, runs=self.runs)
        return self._call("save", thread)

    def heard(self, call: Call, answer: Call) -> None:
        """Learns from an answer what there is to change later on."""
        verb, thread = call["verb"], call["thread"]
        if verb == "save" and thread != SHARED:
            if thread not in self.threads:
                self.threads.append(thread)
            if call.get("branch") is None and "run" not in call:
                self.last[thread] = answer["id"]
            if "run" in call:
                self.runs.append(call["run"])
        elif verb == "create_branch":
            self.branches[thread] = call["name"]
        elif verb in {"copy", "import"}:
            self.threads.append(call["target"])
        elif verb == "delete":
            self.threads.remove(thread)
            self.last.pop(thread, None)
            self.branches.pop(thread, None)
        elif verb == "retain" and self.last.get(thread) in answer["removed"]:
            self.last.pop(thread)
        elif verb == "delete_for_runs":
            self.runs.clear()


def work(url: str, log: str, task: str, name: str, seed: int, **given: Any) -> None:
    """Does a task until it is killed, or until it is done."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(**entry: Any) -> None:
        os.write(out, json.dumps(entry).encode() + b"\n")

    with perdure.sync.Store(PersistenceConfig(url, pool_size=2, pool_timeout="10s", busy_timeout="20s")) as store:
        store.stats()
        {"write": write, "rotate": rotate, "race": race, "append": append, "share": share}[task](
            store, tell, name, seed, **given
        )


def write(store: Any, tell: Any, name: str, seed: int, seconds: float = 30.0, key: int | None = 0) -> None:
    """Every verb."""
    author, until = Author(name, seed), time.monotonic() + seconds
    checkpointer = checkpointer_of(store, key)
    while time.monotonic() < until:
        call = author.next()
        tell(**{"try": call})
        try:
            answer = perform(checkpointer, call)
        except (NotFound, Invalid):
            if call["verb"] == "create_branch":  # what it was to begin at was taken away with its run
                author.last.pop(call["thread"])
            elif call["verb"] == "delete_for_runs":  # a branch would have no checkpoint left
                author.runs.clear()
            else:
                raise
            tell(refused=call["number"])
            continue
        tell(done=call["number"], answer=answer)
        author.heard(call, answer)


def rotate(store: Any, tell: Any, name: str, seed: int, old: int | None = None, new: int = 0) -> None:
    """From one key, or none, to another."""
    checkpointer = checkpointer_of(store, old)
    tell(rotating=new)
    checkpointer.rotate_keys(KEYS[new])
    tell(rotated=new)


def race(store: Any, tell: Any, name: str, seed: int, threads: int = 1, races: int = 100, branch: str = "main") -> None:
    """Loads the newest, and saves with it as parent."""
    rng = random.Random(seed)
    checkpointer = checkpointer_of(store, None)
    for number in range(races):
        thread = f"race{rng.randrange(threads)}"
        newest = checkpointer.latest(thread, branch)
        state = {"who": name, "number": number, "list": list(range(number % 70))}
        try:
            made = checkpointer.save(thread, state, parent=newest.id, branch=branch)
        except Conflict:
            tell(lost=newest.id)
        else:
            tell(won=newest.id, made=made)


def append(store: Any, tell: Any, name: str, seed: int, count: int = 50, key: int | None = None) -> None:
    """Saves without a parent, to threads that all write to."""
    checkpointer = checkpointer_of(store, key)
    for number in range(count):
        state = {"who": name, "number": number, "list": [f"{at}" for at in range(number)]}
        tell(made=checkpointer.save(f"many{number % 3}", state, {"who": name, "number": number}))


def share(store: Any, tell: Any, name: str, seed: int, rounds: int = 40, key: int | None = None) -> None:
    """The same segments in many threads, made and given back all the time."""
    rng = random.Random(seed)
    checkpointer = checkpointer_of(store, key)
    for number in range(rounds):
        thread = f"{name}-{rng.randrange(4)}"
        kind = rng.randrange(3)
        for _ in range(rng.randrange(1, 4)):
            checkpointer.save(thread, {"list": [f"equal {kind} {at}" for at in range(70)], "n": rng.randrange(9)})
        roll = rng.random()
        if roll < 0.4:
            checkpointer.apply_retention(thread)
        elif roll < 0.6:
            checkpointer.delete_thread(thread)
        elif roll < 0.8:
            with contextlib.suppress(NotFound):
                checkpointer.copy_thread(thread, f"{name}-c{number}")
        tell(done=number)
