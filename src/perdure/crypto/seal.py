"""Sealing: bytes compressed, encrypted or checked, and bound to the place they belong in.

A ``Seal`` is one key domain of one tenant. What it closes opens again only with the same tenant, domain and ``about``, a
tuple of byte strings that names the place: a blob that was moved, cut, or changed in any bit raises ``ChecksumMismatch``.

With a data key that is AES-256-GCM, its associated data the tenant, the domain, the form and ``about``. Without one a
BLAKE2b check of 8 bytes over the same finds accidents, not attackers, who could compute it too. Compression is zstd.

    without a key   form 1 · body · check 8
    with a key      form 1 · key tag 4 · nonce 12 · encrypted body · GCM's tag 16

The key tag tells another key's bytes (``WrongKey``) from changed ones, which GCM alone cannot. It is derived from the
data key like every subkey and proves nothing: what opens is what GCM accepts, and then the tag must be right as well.

Nonces are random, 96 bits. NIST SP 800-38D allows 2**32 messages under one key then, for a chance of 2**-32 that one
repeats: a thousand seals a second for seven weeks. One key encrypts sealed bytes and does nothing else, so hashes and
codes do not count. A repeat would give away the exclusive-or of two bodies and let others forge seals of that domain;
rotation begins a new domain with a new key and a new count.

Compression is what sealing costs: of 25 KB of text, nine tenths of the time to close and most of the time to open,
which is under half of that. Encrypting takes a quarter of what the check without a key does.
"""

import hashlib
import os
import re
import threading
from functools import lru_cache
from typing import Any

from perdure.values import limits
from perdure.values.errors import ChecksumMismatch, Invalid, MissingExtra, OverLimit, Undecodable, WrongKey

PLAIN = "plain"
"""The domain without a key."""
KEY_BYTES = 32
SEALED_BYTES = 1024**3
"""What one seal may hold, before compression: more is not closed, and no memory is taken for what says it is more."""
_NONCE = 12
_KEY_TAG = 4
_GCM_TAG = 16
_CHECK = 8
_RAW, _ZSTD = 0, 1
_KEYED = 2
"""The first byte: whether it is compressed, and whether it is encrypted."""
_SMALL = 64
"""Bytes up to which compressing is not tried."""
_WORTH = 0.9
"""The share of its size from which a compressed text is not kept."""
_LEVEL = 3
_DOMAIN = re.compile(r"[0-9a-f]{16}")

_local = threading.local()


class Seal:
    """Closes and opens the bytes of one key domain of one tenant. It never changes and may be shared by threads."""

    __slots__ = ("_about", "_cipher", "_content_key", "_digest_key", "_domain", "_key_tag", "_mac_key")

    def __init__(self, tenant: str, domain: str, data_key: bytes | None) -> None:
        self._domain = domain
        self._about = framed(tenant.encode("utf-8", "surrogatepass"), domain.encode())
        key = b"" if data_key is None else data_key
        self._mac_key = _subkey(key, b"perdure mac")
        self._content_key = _subkey(key, b"perdure content")
        self._digest_key = _subkey(key, b"perdure digest")
        self._key_tag = _subkey(key, b"perdure key tag")[:_KEY_TAG]
        self._cipher = None if data_key is None else aes_of(_subkey(key, b"perdure seal"))

    @classmethod
    def plain(cls, tenant: str) -> "Seal":
        """The seal without a key."""
        return _plain(tenant)

    @classmethod
    def keyed(cls, tenant: str, domain: str, data_key: bytes) -> "Seal":
        """The seal with a data key of 32 bytes, for a domain of 16 hexadecimal digits; ``Invalid`` for others.

        ``MissingExtra`` when the package cryptography is not installed.
        """
        if not _DOMAIN.fullmatch(domain):
            raise Invalid("a key domain has 16 hexadecimal digits", field="domain")
        if len(data_key) != KEY_BYTES:
            raise Invalid(f"a data key has {KEY_BYTES} bytes, not {len(data_key)}", field="data_key")
        return cls(tenant, domain, data_key)

    @property
    def domain(self) -> str:
        """``plain``, or 16 hexadecimal digits."""
        return self._domain

    @property
    def is_keyed(self) -> bool:
        """Whether it encrypts."""
        return self._cipher is not None

    def __repr__(self) -> str:
        return f"Seal(domain={self._domain!r})"

    # -- hashes ------------------------------------------------------------------------------------------------------------

    def content(self, data: bytes) -> bytes:
        """A keyed hash of 16 bytes of a content: equal contents of one tenant and domain have equal ones."""
        found = hashlib.blake2b(self._about, digest_size=16, key=self._content_key, person=b"content")
        found.update(data)
        return found.digest()

    def mac(self, *parts: bytes) -> bytes:
        """A code of 16 bytes over parts; no other split of the same bytes has it."""
        return hashlib.blake2b(framed(self._about, *parts), digest_size=16, key=self._mac_key, person=b"mac").digest()

    def digest(self, *parts: bytes, size: int = 16) -> bytes:
        """A keyed hash over parts of ``size`` bytes (1 to 64), for what is neither content nor a row's code."""
        limits.count(size, "size", 1, 64)
        framing = framed(self._about, *parts)
        return hashlib.blake2b(framing, digest_size=size, key=self._digest_key, person=b"digest").digest()

    # -- sealing -----------------------------------------------------------------------------------------------------------

    def close(self, data: bytes, about: tuple[bytes, ...], *, compress: bool = True) -> bytes:
        """The sealed bytes of ``data`` for the place ``about``. ``OverLimit`` for more than a GiB."""
        if len(data) > SEALED_BYTES:
            raise OverLimit(
                f"a sealed value has {len(data):,} bytes; the limit is {SEALED_BYTES:,}",
                field="data",
                limit=SEALED_BYTES,
            )
        form, body = _RAW, data
        if compress and len(data) > _SMALL:
            smaller = _compressor().compress(data)
            if len(smaller) < len(data) * _WORTH:
                form, body = _ZSTD, smaller
        if self._cipher is None:
            head = bytes((form,))
            return head + body + self._check(head, body, about)
        head, nonce = bytes((form | _KEYED,)), os.urandom(_NONCE)
        return head + self._key_tag + nonce + self._cipher.encrypt(nonce, body, framed(self._about, head, *about))

    def open(self, sealed: bytes, about: tuple[bytes, ...]) -> bytes:
        """What was closed for the same place, tenant and domain.

        ``ChecksumMismatch`` for what was changed, cut or moved, and for bytes that are not encrypted where they should
        be; ``WrongKey`` for what was encrypted with another key, or with one where this seal has none; ``Undecodable``
        for what would become larger than a seal may hold.
        """
        sealed = bytes(sealed)
        if not sealed or sealed[0] > _ZSTD | _KEYED:
            raise ChecksumMismatch("these bytes were not sealed by perdure, or were changed")
        body = self._checked(sealed, about) if self._cipher is None else self._decrypted(self._cipher, sealed, about)
        return _decompressed(body) if sealed[0] & _ZSTD else body

    def _checked(self, sealed: bytes, about: tuple[bytes, ...]) -> bytes:
        # A bit that fell over in the first byte must not send anyone looking for a key: the rest tells.
        head = bytes((sealed[0] & ~_KEYED,))
        body, check = sealed[1:-_CHECK], sealed[-_CHECK:]
        right = self._check(head, body, about) == check
        if sealed[0] & _KEYED and not right:
            raise WrongKey("these bytes were sealed with a key", hint="give the key they were saved with")
        if sealed[0] & _KEYED or not right:
            raise ChecksumMismatch("sealed bytes were changed, or belong in another place")
        return body

    def _decrypted(self, cipher: Any, sealed: bytes, about: tuple[bytes, ...]) -> bytes:
        from cryptography.exceptions import InvalidTag

        head, rest = sealed[:1], sealed[1:]
        if not head[0] & _KEYED:
            raise ChecksumMismatch("bytes that are not encrypted stand where encrypted ones belong")
        if len(rest) < _KEY_TAG + _NONCE + _GCM_TAG:
            raise ChecksumMismatch("sealed bytes were cut off")
        key_tag, nonce, body = rest[:_KEY_TAG], rest[_KEY_TAG : _KEY_TAG + _NONCE], rest[_KEY_TAG + _NONCE :]
        try:
            found = cipher.decrypt(nonce, body, framed(self._about, head, *about))
        except InvalidTag:
            found = None
        if found is None and key_tag != self._key_tag:
            raise WrongKey("these bytes were sealed with another key", hint="give the key they were saved with")
        if found is None or key_tag != self._key_tag:
            raise ChecksumMismatch("sealed bytes were changed, or belong in another place")
        return found

    def _check(self, head: bytes, body: bytes, about: tuple[bytes, ...]) -> bytes:
        found = hashlib.blake2b(
            framed(self._about, head, *about), digest_size=_CHECK, key=self._mac_key, person=b"check"
        )
        found.update(body)
        return found.digest()


@lru_cache(maxsize=1_024)
def _plain(tenant: str) -> Seal:
    return Seal(tenant, PLAIN, None)


def framed(*parts: bytes) -> bytes:
    """The parts, each after its length: no two different splits give the same bytes."""
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def _subkey(key: bytes, purpose: bytes) -> bytes:
    """A key for one purpose. BLAKE2b with a key is a pseudo-random function: no purpose's key tells another's."""
    return hashlib.blake2b(purpose, digest_size=32, key=key, person=b"perdure-subkey").digest()


def aes_of(key: bytes) -> Any:
    """AES-256-GCM with a key. ``MissingExtra`` when the package cryptography is not installed."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise MissingExtra(
            "encryption needs the package cryptography", hint="pip install 'perdure[encryption]'"
        ) from None
    return AESGCM(key)


def _compressor() -> Any:
    """This thread's compressor: making one costs more than compressing a message."""
    found = getattr(_local, "compressor", None)
    if found is None:
        import zstandard

        found = _local.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False)
    return found


def _decompressed(body: bytes) -> bytes:
    import zstandard

    found = getattr(_local, "decompressor", None)
    if found is None:
        found = _local.decompressor = zstandard.ZstdDecompressor()
    try:
        size = zstandard.frame_content_size(body)
        if size < 0:  # a seal always says it; without it nothing bounds what comes out
            raise Undecodable("sealed bytes do not say how many they become")
        if size > SEALED_BYTES:
            raise Undecodable(f"a sealed value would have {size:,} bytes; the limit is {SEALED_BYTES:,}")
        return found.decompress(body, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ChecksumMismatch(f"sealed bytes cannot be decompressed: {error}") from None
