"""Idempotency keys: the same key and content answers as the first time, other content is refused."""

import hashlib
from collections.abc import Callable
from typing import TypeVar

import msgspec

from perdure.grammar import Op, StartOver, Steps, execute, fetch_one, fetch_value, op
from perdure.values import limits
from perdure.values.clock import Micros
from perdure.values.errors import Conflict

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[str]).decode
_LIFE = limits.IDEMPOTENCY_HOURS * 3_600_000_000


def digest(*parts: object) -> str:
    """The hash of what a creating verb was given."""
    text = "".join("-" if part is None else f"{len(str(part))}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@op
def once(
    verb: str, key: str, content: str, now: Micros, recipe: Op[T], name: Callable[[T], list[str]],
    replay: Callable[[list[str]], Op[T | None]],
) -> Steps[T]:  # fmt: skip
    """What ``recipe`` answers, or what it answered when the key was first used.

    ``name`` gives the ids of what was created, which are kept; ``replay`` reads the answer again by them.
    """
    kept = yield from fetch_one("keys.answered", verb=verb, key=key, now=now)
    if kept is None:
        # Taken before anything is created: whoever uses the key at this moment waits here until it is known how it ended.
        if (yield from execute("keys.take", verb=verb, key=key, digest=content, expires_at=now + _LIFE, now=now)):
            answer = yield from recipe
            yield from execute("keys.remember", verb=verb, key=key, answer=_encode(name(answer)).decode())
            return answer
        kept = yield from fetch_one("keys.answered", verb=verb, key=key, now=now)
        if kept is None:
            raise StartOver(f"idempotency_key {key!r} is being used by another call at this moment", retry_after=0.05)
    if not kept[0]:
        raise Conflict(f"what idempotency_key {key!r} created has been erased since", field="idempotency_key")
    if kept[0] != content:
        raise Conflict(f"idempotency_key {key!r} was used for other content", field="idempotency_key")
    again = yield from replay(_decode(kept[1]))
    if again is None:
        raise Conflict(f"what idempotency_key {key!r} created has been deleted since", field="idempotency_key")
    return again


@op
def expire(now: Micros, limit: int) -> Steps[tuple[int, Micros | None]]:
    """How many keys were past their day and are forgotten, and when the next one will be."""
    forgotten = yield from execute("keys.expire", now=now, limit=limit)
    return forgotten, (yield from fetch_value("keys.next"))


def forget(ids: list[str], *verbs: str) -> Steps[None]:
    """Nothing; a part of each erasing recipe: no key tells any more what these verbs created under these ids."""
    if ids:
        yield from execute("keys.forget", ids=ids, verbs=list(verbs))
