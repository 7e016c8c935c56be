"""Ids: UUIDv7 text (RFC 9562), so that ids made later sort later within a millisecond's resolution."""

import os
import time


def new_id() -> str:
    """A new UUIDv7 as text: 48 bits of milliseconds, 74 random bits."""
    return id_at(time.time_ns() // 1_000_000)


def id_at(millis: int) -> str:
    """A UUIDv7 for a time in milliseconds since 1970."""
    noise = os.urandom(10)
    word = (millis & 0xFFFFFFFFFFFF) << 80 | int.from_bytes(noise)
    word = word & ~(0xF << 76) | 0x7 << 76
    word = word & ~(0x3 << 62) | 0x2 << 62
    text = f"{word:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
