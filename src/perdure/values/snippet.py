"""Snippets: the piece of a text that shows best why it was found.

The words of the text go through the same analyser as the query did, so what is highlighted is what matched: accents,
inflections and compounds included. In scripts that write without spaces the matching characters are highlighted.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection

import msgspec

from perdure.values import limits
from perdure.values.text import (
    TERM_CHARS,
    fold,
    glued_pair,
    grapheme,
    is_unspaced,
    token_parts,
    token_pattern,
    token_terms,
)

SNIPPET_TEXT_CHARS = 200_000
"""Characters at the beginning of a text in which a snippet is looked for."""
SNIPPET_WIDTH = 10_000
"""Characters of the text that one snippet may show."""


class _Hit(msgspec.Struct, frozen=True, gc=False):
    """A stretch of text that matches, and the query's terms that it stands for."""

    start: int
    end: int
    terms: frozenset[str]


def snippet(
    text: str,
    terms: Collection[str],
    width: int = 160,
    *,
    before: str = "**",
    after: str = "**",
    ellipsis: str = "…",
) -> str:
    """At most ``width`` characters of ``text`` around the most of the query's ``terms``, matches between the markers.

    The window with the most different terms wins, the earliest of equals. White space, newlines included, becomes
    single spaces; cuts fall between words and are marked by ``ellipsis``; markers and ellipses come on top of
    ``width``. Without a match (also when it is past the first 200,000 characters) it is the beginning of the text.
    A single word longer than ``width`` is cut.

    The text is not escaped: where it holds the markers already, or HTML, they stay as they are. Who shows it as
    HTML picks markers that cannot occur, escapes, and replaces them.

    Raises Invalid when ``width`` is below 1, OverLimit above 10,000.

    >>> snippet("We stored the checkpoints of every agent.", ["checkpoint"], width=30)
    '…the **checkpoints** of every…'
    """
    limits.count(width, "width", 1, SNIPPET_WIDTH)
    shown = " ".join(text[:SNIPPET_TEXT_CHARS].split())
    hits = _find_hits(shown, frozenset(terms))
    first, last = _densest(hits, width) if hits else (0, 0)
    start = hits[first].start if hits else 0
    end = min(hits[last].end, start + width) if hits else 0
    left, right = _window(shown, start, end, width)
    body = _highlighted(shown, (left, right), hits, (before, after))
    more = right < len(shown) or len(text) > SNIPPET_TEXT_CHARS
    return f"{ellipsis if left > 0 else ''}{body}{ellipsis if more else ''}"


def _find_hits(text: str, wanted: frozenset[str]) -> list[_Hit]:
    hits: list[_Hit] = []
    for match in token_pattern(text).finditer(text):
        token, at = match.group(), match.start()
        found = wanted.intersection(token_terms(token))
        if not found:
            continue
        inner: list[_Hit] = []
        if is_unspaced(token):
            inner = _pair_hits(token, at, wanted)
        elif len(token) > TERM_CHARS:
            inner = _part_hits(token, at, wanted)
        # Nothing inside when folding moved the matching characters: then the token is highlighted as a whole.
        hits += inner or [_Hit(at, match.end(), found)]
    return hits


def _part_hits(token: str, at: int, wanted: frozenset[str]) -> list[_Hit]:
    """A long compound (a path, a URL) is searched part by part, since no window could show it all."""
    hits: list[_Hit] = []
    for start, end in token_parts(token):
        found = wanted.intersection(token_terms(token[start:end]))
        if found:
            hits.append(_Hit(at + start, at + end, found))
    return hits


def _pair_hits(run: str, at: int, wanted: frozenset[str]) -> list[_Hit]:
    """The pairs of characters that match, at their places before folding."""
    chars: list[tuple[str, int, int]] = []
    for match in grapheme().finditer(run):
        chars += [(char, at + match.start(), at + match.end()) for char in fold(match.group())]
    hits: list[_Hit] = []
    for index in range(len(chars) - 1):
        (one, start, _), (other, _, end) = chars[index], chars[index + 1]
        if one + other in wanted:
            hits.append(_Hit(start, end, frozenset([one + other])))
    return hits


def _densest(hits: list[_Hit], width: int) -> tuple[int, int]:
    """Indices of the first and last hit of the earliest window with the most different terms."""
    best, window = 0, (0, 0)
    held: Counter[str] = Counter()
    behind = 0  # hits[first:behind] are in the window
    for first, hit in enumerate(hits):
        while behind < len(hits) and (behind == first or hits[behind].end - hit.start <= width):
            held.update(hits[behind].terms)
            behind += 1
        if len(held) > best:
            best, window = len(held), (first, behind - 1)
        for term in hit.terms:
            held[term] -= 1
            if not held[term]:
                del held[term]
    return window


def _window(text: str, start: int, end: int, width: int) -> tuple[int, int]:
    """``start`` and ``end`` moved apart to ``width`` characters, then back to where text may be cut."""
    left = max(0, start - (width - (end - start)) // 2)
    right = min(len(text), left + width)
    left = max(0, min(start, right - width))
    uncut = right
    while left < start and not _may_cut(text, left):
        left += 1
    while right > end and not _may_cut(text, right):
        right -= 1
    # No place to cut at all and nothing to keep: better half a word than none.
    return left, right if right > left else uncut


def _may_cut(text: str, at: int) -> bool:
    return not 0 < at < len(text) or glued_pair().match(text, at - 1) is None


def _highlighted(text: str, window: tuple[int, int], hits: list[_Hit], markers: tuple[str, str]) -> str:
    left, right = window
    spans: list[tuple[int, int]] = []
    for hit in hits[bisect_left(hits, left, key=lambda hit: hit.start) :]:
        if hit.start >= right:
            break
        # A hit that the window cuts is not shown as one, unless the window has room for nothing else.
        if hit.end > right and spans:
            continue
        stop = min(hit.end, right)
        if spans and hit.start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(stop, spans[-1][1]))
        else:
            spans.append((hit.start, stop))
    pieces: list[str] = []
    at = left
    for start, stop in spans:
        pieces += [text[at:start], markers[0], text[start:stop], markers[1]]
        at = stop
    pieces.append(text[at:right])
    return "".join(pieces).strip()
