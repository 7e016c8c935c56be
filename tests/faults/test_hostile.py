"""Hostile strings in every public parameter: a typed refusal or an exact round trip, the same on both engines.

``PERDURE_STRINGS`` sets the number of strings of the full run (10,000 unless given).
"""

import inspect
import logging
import os
import random
from collections import Counter
from typing import Any

import pytest
from hostile import PARAMETERS, SECRET, SEEDS, strings, use
from hostile_checkpoints import CHECKPOINTS
from hostile_checkpoints import furnish as furnish_checkpoints

import perdure
import perdure.sync
from perdure.drivers.book import book
from perdure.values.config import PersistenceConfig

PARAMETERS |= CHECKPOINTS
CALLS, STRINGS_FULL = 1_500, int(os.environ.get("PERDURE_STRINGS", "10000"))
ELSEWHERE = {
    "acting_as reason": "used together with the actor",
    "execute sql": "an administrator's own statement",
    "export_conversations target": "a path of the caller's own machine",
    "register_type name": "a name that the program itself gives",
    "rotate_keys new_key": "a secret; tests of encryption have it",
    "recover ask": "a callback",
}
WITHIN = {"token_usage", "drafts", "filters", "metadata", "messages", "system", "items", "lines", "source"}
"""Structures: the table has their fields; what the importers of other formats take is tested with the formats."""


class Watched:
    """A store that forwards every verb, and knows the end of the feed before the call."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name == "latest_change_before":
            return self._store.latest_change_kept
        return getattr(self._store, name)


def furnish(store: Any) -> None:
    """An open conversation of ann; secrets of another user, and of another tenant."""
    store.create_conversation("agent", "ann", {"title": "open", "context": {"k": "a"}}, "open")
    store.add_message("open", "user", "hello lighthouse")
    store.create_conversation(
        "keeper", "eve", {"title": SECRET, "tags": [SECRET], "context": {"k": SECRET}}, "secret-eve"
    )
    store.add_message("secret-eve", "user", f"{SECRET} of eve")
    other = store.for_tenant("other")
    other.create_conversation("keeper", "ann", {"title": SECRET, "context": {"k": SECRET}}, "secret")
    other.add_message("secret", "user", f"{SECRET} of the other tenant", id="secret-message")
    furnish_checkpoints(store)


def attack(urls: dict[str, str], cases: list[tuple[str, str]]) -> Counter[str]:
    """Uses each string as each parameter on both engines; the outcomes, all of them as they must be."""
    figures: Counter[str] = Counter(
        strings=len({text for _, text in cases}),
        parameters=len(PARAMETERS),
        calls=0,
        answered=0,
        refused=0,
        out_of_scope=0,
    )
    stores = {engine: perdure.sync.Store(PersistenceConfig(url, pool_size=2)) for engine, url in urls.items()}
    try:
        for store in stores.values():
            furnish(store.initialize())
        for number, (name, text) in enumerate(cases):
            outcomes = {}
            for engine, store in stores.items():
                store.latest_change_kept = store.latest_change() if name == "actor" else None
                called = use(Watched(store), name, text, number)
                assert not called.wrong, f"{engine}, {name}, {text[:80]!r}: {called.wrong}"
                outcomes[engine] = called.outcome
                figures["calls"] += 1
                figures["answered" if called.outcome == "answered" else "refused"] += 1
            assert len(set(outcomes.values())) == 1, f"{name}, {text[:80]!r}: {outcomes}"
        for store in stores.values():
            assert [one.id for one in store.for_tenant("other").query_conversations()] == ["secret"]
            assert store.get_conversation("secret-eve").message_count == 1
            assert [one for one in store.doctor()["problems"] if "fsync" not in one] == []
    finally:
        for store in stores.values():
            store.close()
    return figures


def some_cases(calls: int, rng: random.Random) -> list[tuple[str, str]]:
    """Every seed and some mixtures; each parameter as often as the others, with strings in random order."""
    texts = list(strings(len(SEEDS) + 120, rng))
    names = list(PARAMETERS)
    order: list[str] = []
    while len(order) < calls:
        rng.shuffle(texts)
        order += texts
    return [(names[number % len(names)], text) for number, text in enumerate(order[:calls])]


@pytest.fixture
def urls(tmp_path, fresh_postgres_url):
    return {"sqlite": f"sqlite:///{tmp_path}/store.db", "postgres": fresh_postgres_url}


def test_hostile_strings(urls, seeded_random, tell):
    tell("hostile", **attack(urls, some_cases(CALLS, seeded_random)))


@pytest.mark.full
@pytest.mark.timeout(0)
def test_hostile_strings_full(urls, seeded_random, tell):
    """Every string in five parameters, so that each parameter gets hundreds."""
    names = list(PARAMETERS)
    cases = [(name, text) for text in strings(STRINGS_FULL, seeded_random) for name in seeded_random.sample(names, 5)]
    tell("hostile_full", **attack(urls, cases))


def test_the_engine_sees_only_statements_of_the_book(tmp_path, seeded_random, caplog, tell):
    """Whatever is given, the text of every statement is one of the book's, but for the filters of a query."""
    known = {variant.text for statement in book("sqlite").values() for variant in statement.variants.values()}
    marks = [
        text
        for text in SEEDS
        if len(text) > 6 and text.isprintable() and text not in {"default", "context", "metadata", "public"}
    ]
    with perdure.sync.Store(PersistenceConfig(f"sqlite:///{tmp_path}/store.db", pool_size=2, echo_sql=True)) as store:
        furnish(store)
        with caplog.at_level(logging.INFO, logger="perdure.sqlite"):
            for number, text in enumerate(marks):
                for name in seeded_random.sample(list(PARAMETERS), 6):
                    store.latest_change_kept = store.latest_change()
                    use(Watched(store), name, text, number)
        seen = {record.args[1] for record in caplog.records if record.args}
    known |= {variant.text for statement in book("sqlite").values() for variant in statement.variants.values()}
    heads = [text.split("{where}") for text in known if "{where}" in text]
    marks = [mark for mark in marks if not any(mark in text for text in known)]
    strange = [
        text for text in seen
        if text not in known and not any(text.startswith(head) and text.endswith(tail) for head, tail in heads)
    ]  # fmt: skip
    assert strange == []
    assert [(mark, text) for text in seen if text not in known for mark in marks if mark in text] == []
    tell("hostile_statements", different_texts=len(seen), not_of_the_book=0)


def test_no_string_parameter_is_missing():
    """Each parameter of a public verb that takes text is in the table of the attack, or here with its reason."""
    covered = " ".join(PARAMETERS)
    missing = [
        f"{verb_name} {parameter.name}"
        for service in (perdure.Store, perdure.Checkpointer)
        for verb_name, verb in inspect.getmembers(service, inspect.isfunction)
        for parameter in inspect.signature(verb).parameters.values()
        if not verb_name.startswith("_") and "str" in str(parameter.annotation) and parameter.name not in covered
        if f"{verb_name} {parameter.name}" not in ELSEWHERE and parameter.name not in WITHIN
    ]
    assert missing == []
