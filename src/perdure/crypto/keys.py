"""Data keys, and the keys that wrap them.

A tenant's checkpoints are sealed with a random data key; that is kept wrapped (AES-256-GCM) under a key-encryption key,
which the caller gives: 32 bytes, or a passphrase from which scrypt makes them. So a passphrase can be changed without
reading what it protects, and rotation can let two keys open the same data while it goes on.

Beside the wrapped key stand the salt and the cost of scrypt, so that the cost can rise, and ``kek_id``, by which a key
finds its row without trying. A passphrase keeps the salt of what it has opened or wrapped: deriving is slow on purpose,
and a store's rows, of whatever tenant, then share one derivation.
"""

import base64
import binascii
import hashlib
import hmac
import os
import threading

import msgspec

from perdure.crypto.seal import KEY_BYTES, Seal, aes_of, framed
from perdure.values import limits
from perdure.values.clock import Micros
from perdure.values.errors import ChecksumMismatch, Invalid, OverLimit, Undecodable, WrongKey

_SALT = 16
_NONCE = 12
_SCRYPT = {"n": 2**15, "r": 8, "p": 1}
"""RFC 7914's parameters: 32 MiB and some 60 ms for a try."""
_MOST_WORK = 2**21
"""The most that stored parameters may ask for, n * r * p: 256 MiB or half a second. A changed row takes no more."""
_MOST_WIDE = 32
"""The most that stored parameters may ask for in r and p: what memory is left of the work when n is small."""
_DERIVED = 1_024
"""Salts of which one key keeps what it derived."""
_PASSPHRASE_BYTES = 4_096
_BASE64 = 43
"""Characters of 32 bytes in base64, without the padding."""
_ONE_ALPHABET = bytes.maketrans(b"-_", b"+/")
_encode = msgspec.json.Encoder().encode


class Scrypt(msgspec.Struct, frozen=True):
    """How a passphrase becomes a key."""

    n: int
    r: int
    p: int


class Wrapped(msgspec.Struct, frozen=True):
    """A domain's data key under one key-encryption key, as it is stored. ``kek_id`` tells which key without telling it."""

    domain: str
    kek_id: str
    salt: bytes
    params: str
    wrapped: bytes
    state: str
    created_at: Micros


class Kek:
    """A key-encryption key: 32 bytes, or a passphrase. It shows itself to nobody."""

    __slots__ = ("_derived", "_home", "_is_key", "_lock", "_secret")

    def __init__(self, secret: bytes, *, is_key: bool) -> None:
        self._secret = secret
        self._is_key = is_key
        self._derived: dict[tuple[bytes, str], bytes] = {}
        self._home: tuple[bytes, str] | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Kek({'key' if self._is_key else 'passphrase'})"

    def matches(self, other: "Kek") -> bool:
        """Whether two are the same key."""
        return self._is_key is other._is_key and hmac.compare_digest(self._secret, other._secret)

    def fits(self, wrapped: Wrapped) -> bool:
        """Whether a data key was wrapped with this key."""
        if self._is_key is bool(wrapped.params):  # only a passphrase has a cost; a key's row is not worth deriving for
            return False
        return hmac.compare_digest(self.id_for(wrapped.salt, wrapped.params).encode(), wrapped.kek_id.encode())

    def id_for(self, salt: bytes, params: str) -> str:
        """What names this key beside a salt: a hash of what was derived, which tells nothing about either."""
        return hashlib.blake2b(self.key_for(salt, params), digest_size=8, person=b"perdure-kek-id").hexdigest()

    def key_for(self, salt: bytes, params: str) -> bytes:
        """The 32 bytes that wrap, for a salt. Those of a passphrase are kept: making them is slow on purpose."""
        with self._lock:
            found = self._derived.get((salt, params))
            if found is None:
                if len(self._derived) >= _DERIVED:
                    self._derived.clear()
                found = self._derived[salt, params] = self._derive(salt, params)
            return found

    def home(self) -> tuple[bytes, str]:
        """The salt and the cost to wrap with: those that ``settle`` kept, else new ones."""
        return self._home or (os.urandom(_SALT), self._cost())

    def settle(self, salt: bytes, params: str) -> None:
        """Keeps a salt for what will be wrapped, unless today's cost is another.

        Only for one of a row that this key made or opened: nobody else could choose such a salt.
        """
        if params == self._cost():
            self._home = salt, params

    def _cost(self) -> str:
        return "" if self._is_key else _encode(Scrypt(**_SCRYPT)).decode()

    def _derive(self, salt: bytes, params: str) -> bytes:
        if self._is_key:
            return hashlib.blake2b(salt, digest_size=KEY_BYTES, key=self._secret, person=b"perdure-kek").digest()
        try:
            cost = msgspec.json.decode(params, type=Scrypt)
        except msgspec.MsgspecError as error:
            raise Undecodable(f"how a key was derived cannot be read: {error}") from None
        wide = max(cost.r, cost.p) > _MOST_WIDE
        if cost.n < 2 or min(cost.r, cost.p) < 1 or wide or cost.n * cost.r * cost.p > _MOST_WORK:
            raise Undecodable("how a key was derived asks for too much")
        memory = cost.n * cost.r * 256 + 2**20
        try:
            return hashlib.scrypt(self._secret, salt=salt, n=cost.n, r=cost.r, p=cost.p, dklen=KEY_BYTES, maxmem=memory)
        except ValueError as error:
            raise Undecodable(f"how a key was derived cannot be used: {error}") from None


def parse_key(key: str | bytes, field: str = "encryption_key") -> Kek:
    """The key that a caller gives: 32 raw bytes or base64 text of exactly 32 bytes is one, anything else a passphrase.

    Base64 is of either alphabet, with its padding or without, and may come as bytes too (a file's). ``Invalid`` for a
    blank one, ``OverLimit`` for one of more than 4,096 bytes; neither says what it was.
    """
    if isinstance(key, bytes):
        if len(key) == KEY_BYTES:
            return Kek(key, is_key=True)
        if not key.strip():
            raise Invalid(f"{field} must not be blank", field=field)
        if len(key) > _PASSPHRASE_BYTES:
            raise OverLimit(
                f"{field} has {len(key):,} bytes; the limit is {_PASSPHRASE_BYTES:,}",
                field=field,
                limit=_PASSPHRASE_BYTES,
            )
        given = key
    elif isinstance(key, str):
        given = limits.text(key, field, _PASSPHRASE_BYTES).encode()
    else:
        raise Invalid(f"{field} must be text or bytes, not {type(key).__name__}", field=field)
    raw = _base64(given.strip())
    return Kek(given, is_key=False) if raw is None else Kek(raw, is_key=True)


def _base64(text: bytes) -> bytes | None:
    """The 32 bytes that a text stands for, or None."""
    plain = text.translate(_ONE_ALPHABET).removesuffix(b"=")
    if len(plain) != _BASE64:
        return None
    try:
        found = base64.b64decode(plain + b"=", validate=True)
    except binascii.Error:
        return None
    # The last character holds two bits that stand for nothing. Where they are set, no encoder wrote this.
    return found if len(found) == KEY_BYTES and base64.b64encode(found) == plain + b"=" else None


def new_domain(kek: Kek, tenant: str, now: Micros) -> tuple[Wrapped, Seal]:
    """A new data key with the seal that it makes, and how it is stored."""
    domain, data_key = os.urandom(8).hex(), os.urandom(KEY_BYTES)
    return _wrap(domain, data_key, kek, tenant, "active", now), Seal.keyed(tenant, domain, data_key)


def unwrap(wrapped: Wrapped, kek: Kek, tenant: str) -> Seal:
    """The seal of a stored data key.

    ``WrongKey`` when it was wrapped with another key, ``ChecksumMismatch`` when its row was changed or is another
    tenant's, ``Undecodable`` when the parameters of its passphrase are damaged.
    """
    return Seal.keyed(tenant, wrapped.domain, _data_key(wrapped, kek, tenant))


def rewrap(wrapped: Wrapped, kek: Kek, other: Kek, tenant: str) -> Wrapped:
    """The same data key under another key. Raises what ``unwrap`` does."""
    return _wrap(wrapped.domain, _data_key(wrapped, kek, tenant), other, tenant, wrapped.state, wrapped.created_at)


def _wrap(domain: str, data_key: bytes, kek: Kek, tenant: str, state: str, now: Micros) -> Wrapped:
    salt, params = kek.home()
    nonce = os.urandom(_NONCE)
    sealed = aes_of(kek.key_for(salt, params)).encrypt(nonce, data_key, _about(domain, tenant))
    kek.settle(salt, params)
    return Wrapped(domain, kek.id_for(salt, params), salt, params, nonce + sealed, state, now)


def _data_key(wrapped: Wrapped, kek: Kek, tenant: str) -> bytes:
    if not kek.fits(wrapped):
        raise WrongKey("this key does not open the stored data key", hint="give the key it was stored with")
    aes = aes_of(kek.key_for(wrapped.salt, wrapped.params))
    from cryptography.exceptions import InvalidTag

    nonce, sealed = wrapped.wrapped[:_NONCE], wrapped.wrapped[_NONCE:]
    damaged = ChecksumMismatch("a stored data key was changed, or belongs to another tenant or domain")
    if len(sealed) < KEY_BYTES:
        raise damaged
    try:
        data_key = aes.decrypt(nonce, sealed, _about(wrapped.domain, tenant))
    except InvalidTag:
        raise damaged from None
    kek.settle(wrapped.salt, wrapped.params)
    return data_key


def _about(domain: str, tenant: str) -> bytes:
    return framed(b"perdure data key", domain.encode(), tenant.encode("utf-8", "surrogatepass"))
