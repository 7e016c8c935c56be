"""The process that is killed: it changes a store by every verb and logs each call before it is made and once answered.

A log is JSON Lines, written with ``os.write`` before the next call, so what a killed process was told is known.
``perform`` makes one call from its logged form, so that another process can ask again with the same idempotency key.
"""

import json
import os
import random
import time
from typing import Any

import perdure.sync
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Conflict, NotFound, Unavailable

Call = dict[str, Any]

SHARED = "shared"
WORDS = ("tide", "harbour", "signal", "lantern", "current", "anchor", "pilot", "vessel", "storm", "channel", "beacon")
ALONE = {"add_message", "edit_message", "delete_message", "erase_message"}
"""Verbs on single messages; a message that came in a group is never changed, so that groups can be counted."""


def usage_of(number: int) -> dict[str, Any]:
    """Token usage that differs from call to call."""
    return {
        "input_tokens": 10 + number % 7, "output_tokens": number % 5, "model": f"model-{number % 3}",
        "cost": f"0.000{1 + number % 9:03}",
    }  # fmt: skip


def drafts_of(call: Call) -> list[dict[str, Any]]:
    """The messages of a group; each says which group, which place, and of how many."""
    count = call["count"]
    return [
        {"role": "user", "content": f"{call['token']} {place}/{count} {call['text']}", "token_usage": usage_of(place)}
        for place in range(1, count + 1)
    ]


def perform(store: Any, call: Call) -> Call:
    """What a call answered, as plain values."""
    verb, key = call["verb"], call.get("key")
    match verb:
        case "create_conversation":
            metadata = {"tags": ["born"], "context": {"token": call["token"]}}
            made = store.create_conversation("agent", call["user"], metadata, call["id"], idempotency_key=key)
            return {"id": made.id}
        case "add_message":
            made = store.add_message(
                call["conversation"], "user", f"{call['token']} {call['text']}",
                token_usage=usage_of(call["number"]), idempotency_key=key,
            )  # fmt: skip
            return {"id": made.id, "seq": made.seq}
        case "add_messages":
            made = store.add_messages(call["conversation"], drafts_of(call), idempotency_key=key)
            return {"ids": [message.id for message in made]}
        case "flush":
            return {"ids": [message.id for message in store.flush(call["conversation"], history_of(call))]}
        case "first_message":
            store.ensure_conversation(call["id"], "agent", call["user"], {"title": "ensured"})
            return {"ids": [message.id for message in store.add_messages(call["id"], drafts_of(call))]}
        case "transaction":
            with store.transaction() as inside:
                halves = [
                    inside.add_message(name, "user", draft["content"], token_usage=draft["token_usage"])
                    for name, draft in zip(call["conversations"], drafts_of(call), strict=True)
                ]
            return {"ids": [message.id for message in halves]}
        case "edit_message":
            text = f"{call['token']} {call['text']}"
            return {"version": store.edit_message(call["id"], text, token_usage=usage_of(call["number"])).version}
        case "delete_message":
            store.delete_message(call["id"])
        case "erase_message":
            store.erase_message(call["id"])
        case "fork_conversation":
            fork = store.fork_conversation(call["id"], call["at_seq"], call["new_id"], idempotency_key=key)
            return {"id": fork.id}
        case "update_conversation":
            changed = store.update_conversation(call["id"], {"tags": ["updated"], "context": {"step": call["step"]}})
            return {"version": changed.version}
        case "delete_conversation":
            store.delete_conversation(call["id"])
        case "search_messages":
            return {"hits": len(store.search_messages(call["text"], limit=5))}
        case _:
            raise AssertionError(verb)
    return {}


def history_of(call: Call) -> list[dict[str, Any]]:
    """A whole history, of which only the last few messages are new."""
    return [{"role": "assistant", "content": f"{call['token']} step {step}"} for step in range(call["steps"])]


class Author:
    """Decides what a worker does next, from a seed; it changes only what it made itself."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = random.Random(seed)
        self.number = 0
        self.own = f"{name}-own"
        self.flushed = f"{name}-flushed"
        self.steps = 0
        self.messages: list[str] = []
        self.seqs = 0
        self.spare: list[str] = []

    def first(self) -> list[Call]:
        """The conversations that the rest stands on."""
        return [self._call("create_conversation", id=name) for name in (self.own, self.flushed)]

    def _call(self, verb: str, **given: Any) -> Call:
        self.number += 1
        words = " ".join(self.random.choices(WORDS, k=self.random.randint(1, 12)))
        call = {"verb": verb, "number": self.number, "token": f"{self.name}n{self.number}", "text": words, **given}
        call["user"] = f"user-{self.number % 3}"
        if verb in {"create_conversation", "add_message", "add_messages", "fork_conversation"} and self._chance(0.5):
            call["key"] = f"{self.name}-{self.number}"
        return call

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    def next(self) -> Call:
        """The next call."""
        where = self.own if self._chance(0.6) else SHARED
        roll = self.random.random()
        if roll < 0.30 or not self.messages:
            return self._call("add_message", conversation=where)
        if roll < 0.42:
            return self._call("add_messages", conversation=where, count=self.random.choice((2, 3, 8, 20)))
        if roll < 0.50:
            self.steps += self.random.randint(1, 3)
            return self._call("flush", conversation=self.flushed, token=f"{self.name}flush", steps=self.steps)
        if roll < 0.55:
            return self._call("first_message", id=f"{self.name}-e{self.number}", count=2)
        if roll < 0.62:
            return self._call("transaction", conversations=[self.own, SHARED], count=2)
        if roll < 0.72:
            return self._call("edit_message", id=self.random.choice(self.messages))
        if roll < 0.80:
            chosen = self.messages.pop(self.random.randrange(len(self.messages)))
            return self._call("delete_message" if self._chance(0.6) else "erase_message", id=chosen)
        if roll < 0.86:
            new_id = f"{self.name}-f{self.number}"
            return self._call("fork_conversation", id=self.own, at_seq=self.random.randint(0, self.seqs), new_id=new_id)
        if roll < 0.92:
            return self._call("update_conversation", id=self.own, step=self.number)
        if roll < 0.96:
            if self.spare and self._chance(0.6):
                return self._call("delete_conversation", id=self.spare.pop())
            return self._call("create_conversation", id=f"{self.name}-c{self.number}")
        return self._call("search_messages")

    def heard(self, call: Call, answer: Call) -> None:
        """Learns from an answer what there is to change later on."""
        if call["verb"] == "add_message":
            self.messages.append(answer["id"])
            if call["conversation"] == self.own:
                self.seqs = answer["seq"]
        elif call["verb"] in {"fork_conversation", "first_message"}:
            self.spare.append(call.get("new_id") or call["id"])


def work(url: str, log: str, name: str, seed: int, seconds: float = 30.0, retries: bool = False) -> None:
    """Writes until it is killed, or until its time is over.

    With ``retries`` a broken connection is answered by asking again, as a client would: with its key where the call
    has one; where it has none the call is left open in the log.
    """
    author = Author(name, seed)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    until = time.monotonic() + seconds
    store = perdure.sync.Store(PersistenceConfig(url, pool_size=2, pool_timeout="5s", busy_timeout="20s"))
    _open(store, until if retries else 0)
    with store:
        waiting = author.first()
        while time.monotonic() < until:
            call = waiting.pop(0) if waiting else author.next()
            os.write(out, _line({"try": call}))
            answer = _answer(store, call, until) if retries else perform(store, call)
            if answer is not None:
                os.write(out, _line({"done": call["number"], "answer": answer}))
                author.heard(call, answer)


def _open(store: Any, until: float) -> None:
    """Opens the store, again when the server goes away meanwhile."""
    while True:
        try:
            store.stats()
        except Unavailable:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def _line(entry: Call) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _answer(store: Any, call: Call, until: float) -> Call | None:
    """The answer of a call on a server that may go away meanwhile; None when nobody can tell."""
    asked = 0
    while time.monotonic() < until:
        asked += 1
        try:
            return perform(store, call)
        except Unavailable:
            if "key" not in call and call["verb"] != "search_messages":
                return None
            time.sleep(0.02)
        except (NotFound, Conflict):
            if asked == 1 and call["verb"] in {"add_message", "add_messages"}:
                raise
            return None  # what it stands on was left open before
    return None
