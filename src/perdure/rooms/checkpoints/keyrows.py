"""Recipes on the tenant's data keys, each kept as often as it is wrapped. What is inside is none of the room's business."""

from collections.abc import Sequence

import msgspec

from perdure.grammar import Row, Steps, execute, fetch_all, fetch_one, note, op
from perdure.values.clock import Micros
from perdure.values.errors import Conflict


class KeyRow(msgspec.Struct, frozen=True):
    """A data key under one key-encryption key."""

    domain: str
    kek_id: str
    salt: bytes
    params: str
    wrapped: bytes
    state: str
    created_at: Micros


@op(reads=True)
def read() -> Steps[list[KeyRow]]:
    """Every wrapped key of the tenant, in the order they were made."""
    return (yield from _rows())


def _rows() -> Steps[list[KeyRow]]:
    rows: list[Row] = yield from fetch_all("checkpoints.keys")
    return [
        KeyRow(domain, kek_id, bytes(salt), params, bytes(wrapped), state, created_at)
        for domain, kek_id, salt, params, wrapped, state, created_at in rows
    ]


@op
def add(rows: Sequence[KeyRow], seen: Sequence[KeyRow], now: Micros, retiring: Sequence[str] = ()) -> Steps[bool]:
    """Keeps wrapped keys, unless the tenant's are not those that were ``seen`` any more: false then, and nothing is done.

    With ``retiring``, those domains get no new rows from now on.
    """
    yield from fetch_all("checkpoints.lock_keys")
    if (yield from _rows()) != list(seen):
        return False
    for row in rows:
        yield from execute(
            "checkpoints.add_key", domain=row.domain, kek_id=row.kek_id, salt=row.salt, params=row.params,
            wrapped=row.wrapped, state=row.state, now=row.created_at,
        )  # fmt: skip
    for domain in retiring:
        yield from execute("checkpoints.change_key_state", domain=domain, state="retiring")
    for domain in sorted({row.domain for row in rows}):
        yield from note("key", "create", domain, None, now)
    return True


@op
def drop(pairs: Sequence[tuple[str, str]], domain: str, now: Micros) -> Steps[bool]:
    """Forgets wrappings, each by its domain and the key that it was wrapped with, now that all is in ``domain``.

    False, and nothing is done, when a thread is not: what is sealed under a key that is gone cannot be read any more.
    ``Conflict`` when the keys were rotated again meanwhile.
    """
    yield from fetch_all("checkpoints.lock_keys")
    if (yield from fetch_one("checkpoints.active_key", domain=domain)) is None:
        raise Conflict("the keys are being rotated by another process", hint="look which key opens the store")
    if (yield from fetch_all("checkpoints.threads_in_domain", domain=domain, limit=1)):
        return False
    for gone, kek_id in pairs:
        yield from execute("checkpoints.remove_key", domain=gone, kek_id=kek_id)
        yield from note("key", "delete", gone, None, now)
    return True
