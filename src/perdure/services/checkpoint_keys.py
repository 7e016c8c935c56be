"""Which key domains a tenant's checkpoints are sealed in, which one new threads get, and how they change."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from perdure.crypto import keys as crypto
from perdure.crypto.seal import Seal
from perdure.kit import aio as kit
from perdure.rooms.checkpoints import copying, keyrows, ops
from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.rooms.checkpoints.keyrows import KeyRow
from perdure.values.errors import Conflict, Invalid, WrongKey

PLAIN = "plain"
_BATCH = 100


class SealRing:
    """The seals of a checkpointer's tenants: looked up once for each, made from the key."""

    def __init__(self, config: CheckpointConfig) -> None:
        self._kek = None if config.encryption_key is None else crypto.parse_key(config.encryption_key)
        self._compress = config.compression == "zstd"
        self._seals: dict[str, dict[str, Seal]] = {}
        self._active: dict[str, Seal] = {}
        self._rotated: dict[str, crypto.Kek] = {}
        """The keys of tenants whose keys this object rotated; those of others are as they were."""
        self._adopted: set[tuple[str, str, str]] = set()
        """Threads that are known to be in the active domain."""

    async def seals(self, store: Any) -> Mapping[str, Seal]:
        """Every domain of the tenant that the key opens, the plain one included."""
        if store.tenant not in self._seals:
            await self._load(store)
        return self._seals[store.tenant]

    async def active(self, store: Any) -> Seal:
        """The seal of new threads: the plain one without a key. ``Damaged.WrongKey`` for a key that opens nothing."""
        if store.tenant not in self._active:
            await self._load(store)
        return self._active[store.tenant]

    async def renew(self, store: Any) -> bool:
        """Whether there are other keys than when they were looked up: another process rotated them."""
        before = set(self._seals.get(store.tenant, ()))
        await self._load(store)
        self._adopted.clear()
        return set(self._seals[store.tenant]) != before

    async def _load(self, store: Any) -> None:
        """Looks up the tenant's keys. What recipes were given before sees them too: it is the same mapping."""
        plain, kek = Seal.plain(store.tenant), self._kek_of(store.tenant)
        found, active = {PLAIN: plain}, plain
        while kek is not None:
            rows = await store._run(keyrows.read())
            # A passphrase is slow on purpose: not on the event loop.
            opened = await kit.off_loop(partial(_opened, rows, kek, store.tenant))
            if rows and not opened:
                raise WrongKey(
                    "this key opens none of the store's checkpoints", hint="use the key they were saved with"
                )
            if opened:
                found |= opened
                newest = [row.domain for row in rows if row.state == "active" and row.domain in opened]
                active = opened[newest[-1]] if newest else active
                break
            now = store._clock()
            made, active = await kit.off_loop(partial(crypto.new_domain, kek, store.tenant, now))
            if await store._run(keyrows.add([_row(made)], [], now)):
                found[made.domain] = active
                break
        self._hold(store.tenant, found, active)

    def _hold(self, tenant: str, seals: Mapping[str, Seal], active: Seal) -> None:
        held = self._seals.setdefault(tenant, {})
        for gone in held.keys() - seals.keys():
            del held[gone]
        held.update(seals)
        self._active[tenant] = active

    def _kek_of(self, tenant: str) -> crypto.Kek | None:
        return self._rotated.get(tenant, self._kek)

    # -- threads of another domain -----------------------------------------------------------------------------------------

    async def adopt(self, store: Any, thread_id: str, space: str) -> None:
        """Sees to it that a thread is in the active domain: one that was saved before there was a key is sealed now."""
        active = await self.active(store)
        known = (store.tenant, space, thread_id)
        if not active.is_keyed or known in self._adopted:
            return
        seals = await self.seals(store)
        await store._run(copying.reseal(thread_id, space, seals, active, compress=self._compress))
        if store._session is None:  # a transaction may be taken back
            self._adopted.add(known)

    async def adopt_checkpoint(self, store: Any, checkpoint_id: str, space: str) -> None:
        """Sees to it that a checkpoint's thread is in the active domain."""
        if (await self.active(store)).is_keyed:
            found = await store._run(ops.get(checkpoint_id, await self.seals(store), None, space))
            if found is not None:
                await self.adopt(store, found.thread.id, space)

    async def rotate(self, store: Any, new_key: str | bytes) -> int:
        """How many threads were sealed anew under another key; see ``Checkpointer.rotate_keys``."""
        if store._session is not None:
            raise Invalid("keys are rotated outside of a transaction", field="new_key")
        kek, tenant = crypto.parse_key(new_key, "new_key"), store.tenant
        await self._load(store)
        rows = await store._run(keyrows.read())
        begun = await kit.off_loop(partial(_opened, rows, kek, tenant))
        domain, seal = await self._target(store, kek, rows, begun)
        seals = {**self._seals[tenant], **begun, domain: seal}
        self._hold(tenant, seals, seal)
        resealed = 0
        while True:
            while batch := await store._run(copying.outside(domain, _BATCH)):
                for thread_id, space in batch:
                    resealed += await store._run(copying.reseal(thread_id, space, seals, seal, compress=self._compress))
            rows = await store._run(keyrows.read())
            ours = {row.kek_id for row in rows if row.domain == domain and kek.fits(_wrapped(row))}
            gone = [(row.domain, row.kek_id) for row in rows if row.domain != domain or row.kek_id not in ours]
            if await store._run(keyrows.drop(gone, domain, store._clock())):
                break
        self._rotated[tenant] = kek
        self._hold(tenant, {PLAIN: seals[PLAIN], domain: seal}, seal)
        self._adopted.clear()
        return resealed

    async def _target(
        self, store: Any, kek: crypto.Kek, rows: list[KeyRow], begun: Mapping[str, Seal]
    ) -> tuple[str, Seal]:
        """The domain that everything is to be in: a new one, or that of a rotation to the same key that broke off."""
        mine = self._kek_of(store.tenant)
        if mine is None and rows and not begun:
            raise WrongKey("the store's checkpoints are sealed with a key that was not given", hint="open it with that")
        active = [row.domain for row in rows if row.state == "active" and row.domain in begun]
        if not active:
            return await self._begin(store, kek, rows)
        domain = active[-1]
        if mine is not None and kek.matches(mine) and all(row.domain == domain for row in rows):
            if not await store._run(copying.outside(domain, 1)):
                raise Invalid("the new key is the old one", field="new_key")
        elif mine is not None and not any(row.state == "retiring" for row in rows):
            return await self._begin(store, kek, rows)
        return domain, begun[domain]

    async def _begin(self, store: Any, kek: crypto.Kek, rows: list[KeyRow]) -> tuple[str, Seal]:
        """A new domain that both keys open, as they do the old ones until all is done."""
        mine, tenant, now = self._kek_of(store.tenant), store.tenant, store._clock()

        def wrap() -> tuple[list[KeyRow], list[str], crypto.Wrapped, Seal]:
            made, seal = crypto.new_domain(kek, tenant, now)
            if mine is None:
                return [_row(made)], [], made, seal
            old = {row.domain: _wrapped(row) for row in rows if mine.fits(_wrapped(row))}
            both = [made, crypto.rewrap(made, kek, mine, tenant)]
            both += [crypto.rewrap(wrapped, mine, kek, tenant) for wrapped in old.values()]
            return [_row(wrapped) for wrapped in both], list(old), made, seal

        new, old, made, seal = await kit.off_loop(wrap)
        if not await store._run(keyrows.add(new, rows, now, retiring=tuple(old))):
            raise Conflict("the keys are being rotated by another process", hint="look which key opens the store")
        return made.domain, seal


def _opened(rows: list[KeyRow], kek: crypto.Kek, tenant: str) -> dict[str, Seal]:
    """The domains that a key opens."""
    found: dict[str, Seal] = {}
    for row in rows:
        wrapped = _wrapped(row)
        if row.domain not in found and kek.fits(wrapped):
            found[row.domain] = crypto.unwrap(wrapped, kek, tenant)
    return found


def _row(wrapped: crypto.Wrapped) -> KeyRow:
    return KeyRow(
        wrapped.domain, wrapped.kek_id, wrapped.salt, wrapped.params, wrapped.wrapped, wrapped.state, wrapped.created_at
    )


def _wrapped(row: KeyRow) -> crypto.Wrapped:
    return crypto.Wrapped(
        domain=row.domain, kek_id=row.kek_id, salt=row.salt, params=row.params, wrapped=row.wrapped, state=row.state,
        created_at=row.created_at,
    )  # fmt: skip
