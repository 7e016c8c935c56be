r"""The one analyser: text in, terms out, the same on every engine.

Documents and queries go through it, so only what it says counts; an engine sees finished terms and never words.

1. *Tokens* are cut from the text as written, so that a snippet can point at them: a run of letters and digits
   with their combining marks, joined by single connectors (``- . / \ @ '``) or underscores, as in ``max_tokens``,
   ``src/app.py``, ``3.11``, ``ann@example.com``; or a run of a script that writes without spaces (Han, kana,
   Hangul, Thai, Lao, Khmer, Myanmar).
2. A token is *folded*: NFKC, marks that are accents removed (é = e), invisible characters removed.
3. A run without spaces gives its overlapping pairs of characters, or its one character.
   Any other token gives its *words*: the whole with its connectors gone (``maxtokens``: so e-mail = email; between
   two digits the connector stays as a dot: ``3.11`` is not ``311``) when that has at most 64 characters, each part
   (``max``, ``tokens``), and the humps of each part in Latin camelCase (``get``, ``user``, ``name``).
   Apostrophes vanish: don't = dont.
4. A word is casefolded, dropped when it is one of the English stop words, stemmed when it is ASCII, and cut
   to 64 characters. That is a *term*: letters, digits, combining marks and inner dots; never a space or a colon.

Stop words are not indexed, so a query of nothing but stop words has no terms and finds nothing. Emoji and
punctuation are not indexed either.

Work is linear in the text, and what hostile text could make grow is bounded: the parts in one token, the
characters of a word that are folded, the marks in a row that Unicode normalisation has to sort (it is
quadratic in them), and what the caches hold.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from itertools import islice, pairwise
from typing import Protocol, cast

from perdure.values import limits

TERM_CHARS = 64
"""Characters of one term; a longer word is cut."""
_TOKEN_PARTS = 64
"""Parts after the first in one token. More could not be indexed whole anyway, and the regular expression
engine keeps a frame for each: without a bound, 1 MB of ``a.a.a.`` held 80 MB of them."""
_CACHED_CHARS = 32
"""Tokens up to this long are remembered, so 16,384 of them stay below some 40 MB whatever they are."""
_WORD_CHARS = 256
"""Characters of a word that are folded: enough for 64 with their marks, and some characters fold to 18."""
_MARK_RUN = 30
"""Combining marks in a row that count (Unicode's Stream-Safe Text Format has the same number)."""

_STOP_WORDS = frozenset(
    """a about an and are as at be been but by can could did do does dont for from had has have he her his i if im in
    into is it its me my no not of on or our she should so such than that thats the their them then there these they
    this those to was we were with would you your""".split()  # noqa: SIM905  (a block of words reads better)
)
# Letters that people type without their stroke, and that no normalisation takes apart.
_PLAIN_LETTERS = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h", "ŧ": "t", "ŋ": "n", "ı": "i"}
)

# Character classes, as the inside of [...] in a regular expression.
_UNSPACED_RANGES = (
    (0x0E01, 0x0E3A), (0x0E40, 0x0E4E), (0x0E50, 0x0E59),  # Thai, without its signs
    (0x0E81, 0x0EDF),  # Lao
    (0x1000, 0x1049), (0x1050, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul jamo: decomposed text
    (0x1780, 0x17D3), (0x17E0, 0x17E9),  # Khmer
    (0x3005, 0x3007), (0x3021, 0x3029),  # Han iteration marks and numerals
    (0x3041, 0x3096), (0x309D, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x30FF),  # kana, without free-standing sound marks
    (0x3131, 0x318E), (0x31F0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF),  # Han
    (0xA960, 0xA97C), (0xAC00, 0xD7A3), (0xD7B0, 0xD7FB),  # Hangul
    (0xF900, 0xFAFF),  # Han, compatibility
    (0xFF66, 0xFFDC),  # half-width kana and Hangul
    (0x1B000, 0x1B16F), (0x20000, 0x323AF),  # kana extensions, Han
)  # fmt: skip
_UNSPACED = "".join(f"{chr(low)}-{chr(high)}" for low, high in _UNSPACED_RANGES)
_SCANNED_TO = 0x20000
"""Beyond are only Han and the variation selectors, which are named here."""
_SQUARES = "\u24b6-\u24e9\u3200-\u33ff"
"""Circled and squared letters: symbols to Python, words once they are folded (㎏ is kg)."""
_INVISIBLE = "\u00ad\u034f\u200c\u200d\u2060\ufeff\ufe00-\ufe0f\U000e0100-\U000e01ef"
"""Soft hyphens, joiners, variation selectors: inside words they carry nothing."""
_APOSTROPHES = "'\u2019\u02bc\uff07"
_SEPARATORS = "-./\\\\@\u2010\u2011"

_ASCII_TOKEN = re.compile(rf"[A-Za-z0-9]++(?:(?:[-./\\@']|_++)[A-Za-z0-9]++){{0,{_TOKEN_PARTS}}}")
_UNSPACED_START = re.compile(f"[{_UNSPACED}]")
_APOSTROPHE = re.compile(f"[{_APOSTROPHES}]")
_SEPARATOR = re.compile(f"[{_SEPARATORS}_]+")
# maxTokens, HTTPServer, utf8Decoder; the plural of an acronym (IDs) is one hump.
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z](?!s(?![a-z]))[a-z])|(?<=[0-9])(?=[A-Z][a-z])")
# Accents of Latin, Greek and Cyrillic, points of Hebrew and Arabic. Not the vowels of Indic scripts, which are letters.
_DROPPED = re.compile(
    f"[{_INVISIBLE}\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+"
)


def analyse(text: str) -> list[str]:
    """The terms of a document, in order and with repetitions; their number is the document's length.

    Each term has 1 to 64 characters, none of them a space, a colon or an ASCII capital. Nothing is refused:
    text without words gives an empty list. Linear in the text: 1 MB takes a fraction of a second.

    >>> analyse("The agents' max_tokens")
    ['agent', 'maxtoken', 'max', 'token']
    """
    terms: list[str] = []
    for token in token_pattern(text).findall(text):
        terms += _cached_terms(token) if len(token) <= _CACHED_CHARS else _terms(token)
    return terms


def query_terms(query: str, limit: int) -> list[str]:
    """The first ``limit`` different terms of a query, in its order.

    Empty when the query has no words, or stop words only: those are in no index. A compound such as
    ``max_tokens`` counts with its whole and its parts, so the terms are alternatives, not all required.
    Raises Invalid when ``limit`` is negative, OverLimit when it is above ``limits.QUERY_TERMS``.
    """
    limits.count(limit, "limit", 0, limits.QUERY_TERMS)
    return list(islice(dict.fromkeys(analyse(query)), limit))


def token_pattern(text: str) -> re.Pattern[str]:
    """What finds the tokens of ``text``; ASCII text has a faster one that finds the same."""
    return _ASCII_TOKEN if text.isascii() else _unicode_token()


def token_terms(token: str) -> Iterable[str]:
    """The terms of one token that ``token_pattern`` found: ``analyse`` is these, one token after the other."""
    return _cached_terms(token) if len(token) <= _CACHED_CHARS else _terms(token)


def token_parts(token: str) -> list[tuple[int, int]]:
    """Start and end, within a token, of the parts between its separators."""
    ends = [match.span() for match in _SEPARATOR.finditer(token)]
    return list(zip([0, *(end for _, end in ends)], [*(start for start, _ in ends), len(token)], strict=True))


def is_unspaced(token: str) -> bool:
    """Whether a token belongs to a script that writes without spaces, and is indexed by pairs of characters."""
    return _UNSPACED_START.match(token) is not None


def fold(token: str) -> str:
    """``token`` in NFKC without accents and invisible characters; case is kept."""
    if len(token) > _MARK_RUN:
        token = _long_mark_run().sub(r"\1", token)
    bare = _DROPPED.sub("", unicodedata.normalize("NFKD", token))
    return unicodedata.normalize("NFC", bare)


@cache
def glued_pair() -> re.Pattern[str]:
    """What matches two neighbouring characters between which text must not be cut.

    That is within a word (a compound may be cut at its separators), before a combining mark, within an emoji of
    several code points or a flag.
    """
    bases, marks = _classes()
    inner = f"{bases}{marks}{_APOSTROPHES}"
    flags = "\U0001f1e6-\U0001f1ff"
    return re.compile(f"[{inner}][{inner}]|.[{marks}\U0001f3fb-\U0001f3ff]|\u200d.|[{flags}][{flags}]", re.DOTALL)


@cache
def grapheme() -> re.Pattern[str]:
    """What matches a character of an unspaced script with all that normalisation may compose it with."""
    _, marks = _classes()
    return re.compile(f".[{marks}\u1160-\u11ff\ud7b0-\ud7fb\uff9e\uff9f]*", re.DOTALL)


def _terms(token: str) -> tuple[str, ...]:
    if token.isascii():
        return _compound_terms(token)
    if len(token) > _WORD_CHARS and not is_unspaced(token):
        token = _long_word().sub(r"\1", token)
    terms: list[str] = []
    # Folding may take a token apart: ½ becomes 1⁄2, some ligatures hold spaces.
    for piece in _unicode_token().findall(fold(token)):
        if is_unspaced(piece):
            terms += [first + second for first, second in pairwise(piece)] if len(piece) > 1 else [piece]
        else:
            terms += _compound_terms(piece)
    return tuple(terms)


_cached_terms = lru_cache(maxsize=16_384)(_terms)


def _compound_terms(token: str) -> tuple[str, ...]:
    if token.isalnum() and _HUMP.search(token) is None:  # nearly every token
        term = _term(token[:TERM_CHARS])
        return (term,) if term else ()
    parts = _SEPARATOR.split(_APOSTROPHE.sub("", token))
    words: list[str] = []
    if len(parts) > 1 and len(whole := _joined(parts)) <= TERM_CHARS:
        words.append(whole)
    for part in parts:
        words.append(part)
        # A longer one is no name but data (base64, a hash), whose humps are noise.
        if len(part) <= TERM_CHARS and len(humps := _HUMP.split(part)) > 1:
            words += humps
    return tuple([term for word in words if (term := _term(word[:TERM_CHARS]))])


def _joined(parts: list[str]) -> str:
    whole = parts[0]
    for before, after in pairwise(parts):
        whole += f".{after}" if before[-1:].isdigit() and after[:1].isdigit() else after
    return whole


@lru_cache(maxsize=16_384)
def _term(word: str) -> str:
    """The term of one folded word of at most 64 characters, "" for a stop word."""
    word = word.casefold()
    if not word.isascii():
        word = word.translate(_PLAIN_LETTERS)
    if word in _STOP_WORDS:
        return ""
    if len(word) > 2 and word.isascii() and not word.isdigit():
        # One stemmer for each new word: they are not safe to share among threads, and cost 0.2 us.
        word = _stemmer()("english", 0).stemWord(word)
    return word[:TERM_CHARS]


class _Stemmer(Protocol):
    def stemWord(self, word: str, /) -> str: ...  # noqa: N802  (PyStemmer's name)


@cache
def _stemmer() -> Callable[[str, int], _Stemmer]:
    import Stemmer  # type: ignore[import-not-found]

    return cast("Callable[[str, int], _Stemmer]", Stemmer.Stemmer)  # pyright: ignore[reportUnknownMemberType]


@cache
def _unicode_token() -> re.Pattern[str]:
    bases, marks = _classes()
    word = f"[{bases}][{bases}{marks}]*+"
    joint = f"(?:[{_SEPARATORS}{_APOSTROPHES}]|_++)"
    return re.compile(f"{word}(?:{joint}{word}){{0,{_TOKEN_PARTS}}}|[{_UNSPACED}][{_UNSPACED}{marks}]*+")


@cache
def _long_word() -> re.Pattern[str]:
    bases, marks = _classes()
    return re.compile(f"([{bases}{marks}]{{{_WORD_CHARS}}})[{bases}{marks}]++")


@cache
def _long_mark_run() -> re.Pattern[str]:
    _, marks = _classes()
    return re.compile(f"([{marks}]{{{_MARK_RUN}}})[{marks}]++")


@cache
def _classes() -> tuple[str, str]:
    r"""The characters that words begin with, and the marks that may follow them.

    Python's ``\w`` leaves combining marks out, so the classes are read from its Unicode tables: 10 ms, once,
    and only when text is not ASCII.
    """
    unspaced = re.compile(f"[{_UNSPACED}]")
    bases, marks = list("0123456789") + [chr(code) for code in (*range(65, 91), *range(97, 123))], list[str]()
    for char in map(chr, range(0x80, _SCANNED_TO)):
        if char.isalnum():
            if unspaced.match(char) is None:
                bases.append(char)
        elif unicodedata.category(char)[0] == "M":
            marks.append(char)
    return _ranges(bases) + _SQUARES, _ranges(marks) + _INVISIBLE


def _ranges(chars: list[str]) -> str:
    """Sorted characters as ranges of a regular expression's class."""
    ranges: list[list[str]] = []
    for char in chars:
        if ranges and ord(char) == ord(ranges[-1][1]) + 1:
            ranges[-1][1] = char
        else:
            ranges.append([char, char])
    return "".join(low if low == high else f"{low}-{high}" for low, high in ranges)
