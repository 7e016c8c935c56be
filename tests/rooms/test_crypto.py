"""Sealed bytes open only where they belong, and only with the key they were closed with."""

import base64
import pickle
import random
import subprocess
import sys
import threading
import traceback
import tracemalloc

import msgspec
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure.crypto import keys
from perdure.crypto import seal as sealing
from perdure.crypto.keys import Kek, Wrapped, new_domain, parse_key, rewrap, unwrap
from perdure.crypto.seal import Seal
from perdure.values.errors import ChecksumMismatch, Damaged, Invalid, OverLimit, Undecodable, WrongKey

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
DOMAIN = "00112233445566ff"
NOW = 1_800_000_000_000_000
TEXT = b"the order 4711 was shipped on Monday; the parcel is late. " * 12
NOISE = random.Random(7).randbytes(300)
PLACE = (b"item", b"thread", b"3")
PASSPHRASE = "correct horse battery staple"
PINNED_CONTENT = ["d7793cfb8e7c4e951d5f9b635593a918", "74853e85f671e169bb48af054ded9d4c"]
PINNED_MAC = ["cb8e4f60ce9bb0b1e939cc3dce862d37", "e2c99597201383fc51702e197d261228"]
PINNED_SEALED = ["00616263435abc4ee3cf2a05", "021b1ea73d0000000000000000000000005517ae926a84c8212843688dfc5498d0a265f4"]


def seals() -> list[Seal]:
    return [Seal.plain("acme"), Seal.keyed("acme", DOMAIN, KEY)]


both = pytest.mark.parametrize("seal", seals(), ids=["plain", "keyed"])


# -- seals ---------------------------------------------------------------------------------------------------------------------


@both
@settings(max_examples=150, deadline=None)
@given(
    data=st.one_of(st.binary(max_size=300), st.binary(min_size=1, max_size=9).map(lambda part: part * 200)),
    about=st.lists(st.binary(max_size=20), max_size=4).map(tuple),
    compress=st.booleans(),
)
@example(data=b"", about=(), compress=True)
def test_what_was_closed_opens_in_its_place(seal, data, about, compress):
    assert seal.open(seal.close(data, about, compress=compress), about) == data


@both
def test_a_view_of_bytes_opens_like_bytes(seal):
    """Drivers may answer a blob as a memoryview."""
    assert seal.open(memoryview(seal.close(TEXT, PLACE)), PLACE) == TEXT


@both
def test_text_is_compressed_and_noise_is_not(seal):
    assert len(seal.close(TEXT, PLACE)) < len(TEXT) / 4
    assert len(seal.close(TEXT, PLACE, compress=False)) == len(seal.close(bytes(len(TEXT)), PLACE, compress=False))
    assert len(seal.close(NOISE, PLACE)) == len(seal.close(NOISE, PLACE, compress=False))
    assert len(seal.close(b"a" * 64, PLACE)) - 64 == len(seal.close(b"", PLACE))


def test_the_sizes_of_the_form():
    plain, keyed = seals()
    assert (len(plain.close(b"", PLACE)), len(keyed.close(b"", PLACE))) == (9, 33)


def test_no_seal_of_the_same_bytes_is_like_another_with_a_key():
    keyed = seals()[1]
    assert len({keyed.close(TEXT, PLACE) for _ in range(500)}) == 500
    assert TEXT[:20] not in keyed.close(TEXT, PLACE, compress=False)


@both
@pytest.mark.parametrize("data", [b"", b"x", NOISE[:70], TEXT], ids=["empty", "tiny", "noise", "compressed"])
def test_each_flipped_bit_is_found(seal, data):
    sealed = seal.close(data, PLACE)
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ChecksumMismatch):
            seal.open(bytes(changed), PLACE)


@both
@pytest.mark.parametrize("data", [b"", TEXT], ids=["empty", "compressed"])
def test_each_cut_and_each_addition_is_found(seal, data):
    sealed = seal.close(data, PLACE)
    for end in range(len(sealed)):
        with pytest.raises(ChecksumMismatch):
            seal.open(sealed[:end], PLACE)
    for start in range(1, len(sealed)):
        with pytest.raises(Damaged):
            seal.open(sealed[start:], PLACE)
    for more in (b"\0", sealed[-8:], sealed):
        with pytest.raises(ChecksumMismatch):
            seal.open(sealed + more, PLACE)


@both
@settings(max_examples=300, deadline=None)
@given(junk=st.binary(max_size=120))
def test_junk_never_opens(seal, junk):
    with pytest.raises(Damaged):
        seal.open(junk, PLACE)


@both
def test_two_blobs_in_each_others_place_are_found(seal):
    first, second = seal.close(TEXT, (b"item", b"1")), seal.close(TEXT, (b"item", b"2"))
    for sealed, about in ((first, (b"item", b"2")), (second, (b"item", b"1"))):
        with pytest.raises(ChecksumMismatch):
            seal.open(sealed, about)


@both
@pytest.mark.parametrize(
    "about",
    [(), (b"item", b"thread", b"4"), (b"item", b"thread3"), (b"itemthread", b"3"), (b"item", b"thread", b"3", b""), (b"item:6:thread", b"3")],
)  # fmt: skip
def test_another_place_is_found_and_so_is_another_split_of_its_names(seal, about):
    with pytest.raises(ChecksumMismatch):
        seal.open(seal.close(TEXT, PLACE), about)


def test_another_tenant_is_found():
    for mine, theirs in (
        (Seal.plain("acme"), Seal.plain("zeta")),
        (Seal.keyed("acme", DOMAIN, KEY), Seal.keyed("zeta", DOMAIN, KEY)),
        (Seal.keyed("acme", DOMAIN, KEY), Seal.keyed("acme", "0" * 16, KEY)),
    ):
        with pytest.raises(ChecksumMismatch):
            theirs.open(mine.close(TEXT, PLACE), PLACE)


def test_another_key_is_named_as_the_reason():
    sealed = Seal.keyed("acme", DOMAIN, KEY).close(TEXT, PLACE)
    for seal in (Seal.plain("acme"), Seal.keyed("acme", DOMAIN, OTHER_KEY), Seal.keyed("acme", "0" * 16, OTHER_KEY)):
        with pytest.raises(WrongKey):
            seal.open(sealed, PLACE)


def test_plain_bytes_do_not_pass_for_encrypted_ones():
    """Whoever can write to the file could make them; that they need no key proves nothing."""
    with pytest.raises(ChecksumMismatch):
        Seal.keyed("acme", DOMAIN, KEY).open(Seal.plain("acme").close(TEXT, PLACE), PLACE)


def test_the_key_tag_of_another_does_not_make_its_bytes_open():
    """The tag only says whose fault it is: swapping it neither opens bytes nor passes unseen."""
    mine, theirs = Seal.keyed("acme", DOMAIN, KEY), Seal.keyed("acme", DOMAIN, OTHER_KEY)
    a, b = mine.close(TEXT, PLACE), theirs.close(TEXT, PLACE)
    assert (a[1:5] == mine.close(b"", ())[1:5], a[1:5] == b[1:5]) == (True, False)
    with pytest.raises(ChecksumMismatch):
        mine.open(a[:1] + b[1:5] + a[5:], PLACE)
    with pytest.raises(ChecksumMismatch):
        mine.open(b[:1] + a[1:5] + b[5:], PLACE)


@pytest.mark.parametrize(
    ("domain", "key"), [("plain", KEY), ("xyz", KEY), (DOMAIN.upper(), KEY), (DOMAIN, KEY[1:]), (DOMAIN, b"")]
)
def test_a_seal_needs_a_domain_and_a_whole_key(domain, key):
    with pytest.raises(Invalid):
        Seal.keyed("acme", domain, key)


def test_a_seal_does_not_change():
    for seal in seals():
        with pytest.raises(AttributeError):
            seal.domain = "0" * 16
        with pytest.raises(AttributeError):
            seal.is_keyed = False
    assert [(seal.domain, seal.is_keyed) for seal in seals()] == [("plain", False), (DOMAIN, True)]


# -- what would not fit in memory ----------------------------------------------------------------------------------------------


def forged(frame: bytes) -> bytes:
    """A plain seal around a frame of zstd, with the check that anyone can compute."""
    return b"\1" + frame + Seal.plain("acme")._check(b"\1", frame, PLACE)


def claiming(size: int) -> bytes:
    """The beginning of a frame that says it becomes ``size`` bytes."""
    writer = zstandard.ZstdCompressor().compressobj(size=size)
    return writer.compress(bytes(200_000)) + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


def test_a_forged_frame_opens_when_it_is_sound():
    """Otherwise the tests below would prove nothing."""
    assert Seal.plain("acme").open(forged(zstandard.compress(TEXT)), PLACE) == TEXT


@pytest.mark.parametrize("size", [sealing.SEALED_BYTES + 1, 2**40, 2**62])
def test_a_frame_that_says_it_is_larger_than_the_limit_takes_no_memory(size):
    bomb = forged(claiming(size))
    tracemalloc.start()
    try:
        with pytest.raises(Undecodable):
            Seal.plain("acme").open(bomb, PLACE)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_frame_that_does_not_say_its_size_is_damaged():
    writer = zstandard.ZstdCompressor().compressobj()
    with pytest.raises(Undecodable):
        Seal.plain("acme").open(forged(writer.compress(bytes(2**22)) + writer.flush()), PLACE)


@pytest.mark.parametrize(
    "frame",
    [claiming(100_000_000), zstandard.compress(TEXT)[:-3], zstandard.compress(TEXT) + b"more", b"no frame", b""],
    ids=["unfinished", "cut", "followed", "none", "empty"],
)
def test_a_frame_that_is_not_whole_is_damaged(frame):
    with pytest.raises(ChecksumMismatch):
        Seal.plain("acme").open(forged(frame), PLACE)


@both
def test_the_limit_is_the_same_for_closing_and_opening(seal, monkeypatch):
    at_limit, above = seal.close(bytes(1_000), PLACE), seal.close(bytes(1_001), PLACE)
    monkeypatch.setattr(sealing, "SEALED_BYTES", 1_000)
    assert seal.open(at_limit, PLACE) == bytes(1_000)
    assert seal.close(bytes(1_000), PLACE)
    with pytest.raises(Undecodable):
        seal.open(above, PLACE)
    with pytest.raises(OverLimit):
        seal.close(bytes(1_001), PLACE)


# -- hashes --------------------------------------------------------------------------------------------------------------------


@both
def test_hashes_are_the_same_each_time(seal):
    again = Seal.keyed("acme", DOMAIN, KEY) if seal.is_keyed else Seal.plain("acme")
    assert (again.content(TEXT), again.mac(TEXT, b"x"), again.digest(TEXT)) == (
        seal.content(TEXT), seal.mac(TEXT, b"x"), seal.digest(TEXT),
    )  # fmt: skip
    assert [len(code) for code in (seal.content(b""), seal.mac(), seal.digest(), seal.digest(size=64))] == [
        16,
        16,
        16,
        64,
    ]


def test_hashes_stay_what_they_are():
    """They are stored: another answer would make every old segment a damaged one."""
    assert [seal.content(b"abc").hex() for seal in seals()] == PINNED_CONTENT
    assert [seal.mac(b"a", b"bc").hex() for seal in seals()] == PINNED_MAC
    assert [seal.open(bytes.fromhex(text), PLACE) for seal, text in zip(seals(), PINNED_SEALED, strict=True)] == [
        b"abc",
        b"abc",
    ]


def test_each_tenant_domain_key_and_use_has_its_own_hashes():
    many = [
        *seals(), Seal.plain("zeta"), Seal.keyed("zeta", DOMAIN, KEY), Seal.keyed("acme", "0" * 16, KEY),
        Seal.keyed("acme", DOMAIN, OTHER_KEY),
    ]  # fmt: skip
    found = [code for seal in many for code in (seal.content(TEXT), seal.mac(TEXT), seal.digest(TEXT))]
    assert len(set(found)) == 3 * len(many)


@both
@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.binary(max_size=4), max_size=4),
    others=st.lists(st.binary(max_size=4), max_size=4),
)
@example(parts=[b"ab", b"c"], others=[b"a", b"bc"])
@example(parts=[b""], others=[])
@example(parts=[b"1:a"], others=[b"", b"1:a"])
@example(parts=[b"a1:b"], others=[b"a", b"b"])
def test_no_two_splits_have_one_code(seal, parts, others):
    assert (seal.mac(*parts) == seal.mac(*others)) == (parts == others)
    assert (seal.digest(*parts) == seal.digest(*others)) == (parts == others)


@pytest.mark.parametrize("size", [0, 65, True, "16"])
def test_a_digest_has_1_to_64_bytes(size):
    with pytest.raises(Invalid):
        Seal.plain("acme").digest(b"x", size=size)


# -- threads -------------------------------------------------------------------------------------------------------------------


@both
def test_eight_threads_share_a_seal(seal):
    """The compressors are each thread's own; the cipher is shared."""
    wrong: list[object] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        source = random.Random(number)
        start.wait()
        for step in range(150):
            data = source.choice([TEXT, NOISE, b"", b"%d" % number]) * source.randint(1, 40)
            about = (b"%d" % number, b"%d" % step)
            try:
                if seal.open(seal.close(data, about), about) != data:
                    wrong.append((number, step))
            except Exception as error:
                wrong.append(error)
                raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- keys ----------------------------------------------------------------------------------------------------------------------

TRICKY = bytes([251, 255, 254] * 10 + [250, 62])
"""In base64 it has characters that differ between the two alphabets."""


@pytest.mark.parametrize(
    "given_as",
    [
        TRICKY, base64.b64encode(TRICKY).decode(), base64.urlsafe_b64encode(TRICKY).decode(), base64.b64encode(TRICKY),
        base64.urlsafe_b64encode(TRICKY).decode().rstrip("="), f"  {base64.b64encode(TRICKY).decode()}\n",
    ],
)  # fmt: skip
def test_32_bytes_are_a_key_raw_or_as_base64(given_as):
    assert parse_key(given_as).matches(Kek(TRICKY, is_key=True))


@pytest.mark.parametrize(
    "given_as",
    [
        "correct horse battery staple", b"correct horse battery staple", "a" * 32, "ä" * 16, b"k" * 31, b"k" * 33,
        base64.b64encode(bytes(31)).decode(), base64.b64encode(bytes(33)).decode(), base64.b64encode(bytes(24)).decode(),
        "A" * 42 + "B=", "A" * 42 + "=A", "A" * 43 + "==", "A" * 42 + "!=", KEY.hex(), " padded ",
    ],
)  # fmt: skip
def test_anything_else_is_a_passphrase(given_as):
    raw = given_as.encode() if isinstance(given_as, str) else given_as
    assert parse_key(given_as).matches(Kek(raw, is_key=False))


@pytest.mark.parametrize("blank", ["", "   ", "\n\t", b"", b"  "])
def test_a_blank_passphrase_is_invalid(blank):
    with pytest.raises(Invalid) as caught:
        parse_key(blank)
    assert caught.value.field == "encryption_key"


@pytest.mark.parametrize("wrong", [None, 5, bytearray(32), ["k"]])
def test_a_key_is_text_or_bytes(wrong):
    with pytest.raises(Invalid):
        parse_key(wrong)


@pytest.mark.parametrize("long", ["x" * 4_097, b"x" * 4_097, "ä" * 2_049])
def test_a_passphrase_has_a_limit(long):
    with pytest.raises(OverLimit):
        parse_key(long)


@pytest.mark.parametrize("given_as", [KEY, PASSPHRASE], ids=["key", "passphrase"])
def test_a_domain_opens_again_with_its_key(given_as):
    wrapped, seal = new_domain(parse_key(given_as), "acme", NOW)
    again = unwrap(wrapped, parse_key(given_as), "acme")
    assert again.open(seal.close(TEXT, PLACE), PLACE) == TEXT
    assert (again.domain, again.content(TEXT)) == (seal.domain, seal.content(TEXT))
    assert (wrapped.domain, wrapped.state, wrapped.created_at) == (seal.domain, "active", NOW)


def test_two_domains_have_nothing_in_common():
    kek = parse_key(KEY)
    (first, a), (second, b) = new_domain(kek, "acme", NOW), new_domain(kek, "acme", NOW)
    assert first.domain != second.domain
    assert a.content(TEXT) != b.content(TEXT)
    with pytest.raises(WrongKey):
        b.open(a.close(TEXT, PLACE), PLACE)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [(KEY, OTHER_KEY), (KEY, PASSPHRASE), (PASSPHRASE, KEY), (PASSPHRASE, PASSPHRASE + " "), ("a" * 32, b"a" * 32)],
    ids=["keys", "passphrase for key", "key for passphrase", "passphrases", "32 characters are no key"],
)
def test_another_key_opens_no_domain(mine, theirs):
    wrapped, _ = new_domain(parse_key(mine), "acme", NOW)
    other = parse_key(theirs)
    assert (parse_key(mine).fits(wrapped), other.fits(wrapped)) == (True, False)
    with pytest.raises(WrongKey):
        unwrap(wrapped, other, "acme")
    with pytest.raises(WrongKey):
        rewrap(wrapped, other, parse_key(mine), "acme")


def test_a_domain_under_two_keys_opens_with_either():
    old, new = parse_key(KEY), parse_key(OTHER_KEY)
    wrapped, seal = new_domain(old, "acme", NOW)
    both = rewrap(msgspec.structs.replace(wrapped, state="retiring"), old, new, "acme")
    assert (both.domain, both.state, both.created_at) == (wrapped.domain, "retiring", NOW)
    assert both.kek_id != wrapped.kek_id
    for row, key in ((wrapped, old), (both, new)):
        assert unwrap(row, key, "acme").open(seal.close(TEXT, PLACE), PLACE) == TEXT
    with pytest.raises(WrongKey):
        unwrap(both, old, "acme")


def test_a_row_of_another_tenant_or_domain_does_not_open():
    kek = parse_key(KEY)
    wrapped, _ = new_domain(kek, "acme", NOW)
    second, _ = new_domain(kek, "acme", NOW)
    for row, tenant in (
        (wrapped, "zeta"),
        (msgspec.structs.replace(wrapped, domain=second.domain), "acme"),
        (msgspec.structs.replace(wrapped, wrapped=second.wrapped), "acme"),
    ):
        with pytest.raises(ChecksumMismatch):
            unwrap(row, kek, tenant)


def test_each_flipped_bit_of_a_wrapped_key_is_found():
    kek = parse_key(KEY)
    row, _ = new_domain(kek, "acme", NOW)
    for field in ("wrapped", "salt"):
        value = getattr(row, field)
        for bit in range(len(value) * 8):
            changed = bytearray(value)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises((ChecksumMismatch, WrongKey)):
                unwrap(msgspec.structs.replace(row, **{field: bytes(changed)}), kek, "acme")
    for end in range(len(row.wrapped)):
        with pytest.raises(ChecksumMismatch):
            unwrap(msgspec.structs.replace(row, wrapped=row.wrapped[:end]), kek, "acme")


# -- passphrases ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def derived(monkeypatch) -> list[dict]:
    """The parameters of each derivation, in their order; what scrypt does is untouched."""
    seen: list[dict] = []
    real = keys.hashlib.scrypt

    def watched(secret, **parameters):
        seen.append(parameters)
        return real(secret, **parameters)

    monkeypatch.setattr(keys.hashlib, "scrypt", watched)
    return seen


def test_a_passphrase_is_derived_slowly_and_a_key_is_not(derived):
    new_domain(parse_key(KEY), "acme", NOW)
    assert derived == []
    wrapped, _ = new_domain(parse_key(PASSPHRASE), "acme", NOW)
    (cost,) = derived
    assert (cost["n"], cost["r"], cost["p"], len(cost["salt"])) == (2**15, 8, 1, 16)
    assert msgspec.json.decode(wrapped.params) == {"n": 2**15, "r": 8, "p": 1}


def test_a_passphrase_is_derived_once_for_a_store(derived):
    """Whatever it wraps after it opened one row shares that row's salt, in each tenant."""
    first, _ = new_domain(parse_key(PASSPHRASE), "acme", NOW)
    derived.clear()
    kek = parse_key(PASSPHRASE)
    unwrap(first, kek, "acme")
    second, _ = new_domain(kek, "zeta", NOW)
    third = rewrap(new_domain(parse_key(KEY), "acme", NOW)[0], parse_key(KEY), kek, "acme")
    assert [unwrap(row, kek, tenant).is_keyed for row, tenant in ((second, "zeta"), (third, "acme"))] == [True, True]
    assert (len(derived), first.salt == second.salt == third.salt) == (1, True)
    assert len({first.wrapped, second.wrapped, third.wrapped}) == 3


def test_stores_that_never_met_have_salts_of_their_own():
    rows = [new_domain(parse_key(given_as), "acme", NOW)[0] for given_as in (PASSPHRASE, PASSPHRASE, KEY, KEY)]
    assert len({row.salt for row in rows}) == len({row.kek_id for row in rows}) == 4


def test_a_salt_that_this_key_never_opened_is_not_taken_over():
    """A row that somebody planted must not choose the salt of what is wrapped next."""
    kek, planted = (
        parse_key(PASSPHRASE),
        Wrapped(DOMAIN, "0" * 16, b"chosen", '{"n":16384,"r":8,"p":1}', b"x" * 60, "active", NOW),
    )
    with pytest.raises(WrongKey):
        unwrap(planted, kek, "acme")
    assert new_domain(kek, "acme", NOW)[0].salt != b"chosen"


def test_a_row_with_an_older_cost_opens_and_the_next_one_has_todays(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(keys, "_SCRYPT", {"n": 2**10, "r": 8, "p": 1})
        wrapped, seal = new_domain(parse_key(PASSPHRASE), "acme", NOW)
    kek = parse_key(PASSPHRASE)
    assert unwrap(wrapped, kek, "acme").content(TEXT) == seal.content(TEXT)
    newer = rewrap(wrapped, kek, kek, "acme")
    assert (msgspec.json.decode(newer.params)["n"], newer.salt != wrapped.salt) == (2**15, True)
    assert unwrap(newer, parse_key(PASSPHRASE), "acme").content(TEXT) == seal.content(TEXT)


@pytest.mark.parametrize(
    "params",
    [
        "x", "[]", '{"n":32768}', '{"n":"32768","r":8,"p":1}', '{"n":32767,"r":8,"p":1}', '{"n":0,"r":8,"p":1}', '{"n":32768,"r":-8,"p":-1}',
        '{"n":1073741824,"r":8,"p":1}', '{"n":2,"r":8,"p":1073741823}', '{"n":32768,"r":8,"p":9}', '{"n":1e400,"r":8,"p":1}', '{"n":2,"r":1048576,"p":1}', '{"n":2,"r":1,"p":1048576}',
        '{"n":18446744073709551616,"r":1,"p":1}', '{"n":4,"r":33,"p":1}', "{" * 5_000, '{"n":NaN,"r":8,"p":1}',
    ],
)  # fmt: skip
def test_a_cost_that_no_store_asks_for_is_damaged(params):
    wrapped, _ = new_domain(parse_key(KEY), "acme", NOW)
    with pytest.raises(Undecodable):
        unwrap(msgspec.structs.replace(wrapped, params=params), parse_key(PASSPHRASE), "acme")


def test_no_stored_cost_takes_more_than_its_memory():
    """Measured in a process of its own: the library's memory is none of Python's."""
    costs = [
        {"n": 2, "r": 2**20, "p": 1},
        {"n": 2, "r": 1, "p": 2**20},
        {"n": 2**16, "r": 32, "p": 1},
        {"n": 2**18, "r": 8, "p": 1},
    ]
    assert int(run(COSTS.replace("COSTS", repr([msgspec.json.encode(cost).decode() for cost in costs])))) < 300_000


COSTS = """
import resource
import msgspec
from perdure.crypto.keys import new_domain, parse_key, unwrap
from perdure.values.errors import Damaged
wrapped, _ = new_domain(parse_key(bytes(32)), "acme", 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for params in COSTS:
    try:
        unwrap(msgspec.structs.replace(wrapped, params=params), parse_key("a passphrase"), "acme")
    except Damaged:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
"""Kibibytes that the most expensive of some costs takes."""


# -- secrets -------------------------------------------------------------------------------------------------------------------


def test_keys_show_themselves_nowhere():
    """Neither in what a value shows of itself nor in an error's text, and no key is pickled by accident."""
    secrets = [base64.b64encode(KEY).decode(), PASSPHRASE]
    shown: list[str] = []
    for secret in secrets:
        kek = parse_key(secret)
        wrapped, seal = new_domain(kek, "acme", NOW)
        shown += [repr(kek), str(kek), repr(seal), repr(wrapped)]
        for attempt in (
            lambda wrapped=wrapped: unwrap(wrapped, parse_key(OTHER_KEY), "acme"),
            lambda kek=kek, wrapped=wrapped: unwrap(wrapped, kek, "zeta"),
            lambda seal=seal: seal.open(b"junk", PLACE),
            lambda secret=secret: parse_key(secret * 1_000),
            lambda secret=secret: parse_key(secret + "\0"),
            lambda secret=secret: parse_key(secret + "\ud800"),
        ):
            with pytest.raises((Damaged, Invalid)) as caught:
                attempt()
            shown += ["".join(traceback.format_exception_only(caught.value)), repr(caught.value.details)]
            assert (caught.value.__cause__, caught.value.__context__ is None or caught.value.__suppress_context__) == (
                None,
                True,
            )
        for value in (kek, seal):
            with pytest.raises(TypeError):
                pickle.dumps(value)
    for text in shown:
        for secret in (*secrets, repr(KEY)[2:20], KEY.hex(), OTHER_KEY.hex()):
            assert secret not in text


def test_a_row_holds_nothing_of_the_key():
    for given_as, secret in ((KEY, KEY), (PASSPHRASE, PASSPHRASE.encode())):
        kek = parse_key(given_as)
        wrapped, _ = new_domain(kek, "acme", NOW)
        row = msgspec.msgpack.encode(wrapped)
        wrapping = kek.key_for(wrapped.salt, wrapped.params)
        for hidden in (secret[:8], wrapping[:8], wrapping[:8].hex().encode(), secret[:8].hex().encode()):
            assert hidden not in row


# -- what is installed ---------------------------------------------------------------------------------------------------------

WITHOUT = """
import sys
sys.modules["cryptography"] = None
from perdure.crypto.keys import new_domain, parse_key
from perdure.crypto.seal import Seal
from perdure.values.errors import MissingExtra
seal = Seal.plain("acme")
assert seal.open(seal.close(b"text " * 50, (b"a",)), (b"a",)) == b"text " * 50
key = parse_key(bytes(32))
for attempt in (lambda: Seal.keyed("acme", "0" * 16, bytes(32)), lambda: new_domain(key, "acme", 1)):
    try:
        attempt()
    except MissingExtra as error:
        print(error.hint)
"""

LIGHT = """
import sys
import perdure
perdure.Store
import perdure.crypto.keys
print(sorted({"cryptography", "zstandard"} & set(sys.modules)))
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_cryptography_plain_seals_work_and_keys_name_the_extra():
    assert run(WITHOUT) == "pip install 'perdure[encryption]'\n" * 2


def test_importing_perdure_loads_neither_library():
    assert run(LIGHT) == "[]\n"
