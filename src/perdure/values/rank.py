"""Ranking: the stored form of a document's terms, and the BM25 score computed from it.

A document's terms are kept as one string, ``" checkpoint:2 token:1 "``: each different term with its number of
occurrences, sorted by code point, a space on either side. So an engine can hold it in any text column, and the
frequency of one term is found by searching for ``" term:"`` without decoding the rest. The length of a document is
the number of its terms with repetitions, ``len(terms)``, which is the sum of the frequencies.
"""

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from perdure.values.errors import Invalid, Undecodable


class Bm25(msgspec.Struct, frozen=True):
    """The BM25 scorer (Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009).

    ``k1`` (finite, >= 0) says how soon further occurrences of a term stop counting, ``b`` (0 to 1) how much long
    documents are held back; the defaults suit short texts. Raises Invalid for others.

    The same counters give the same bits on every engine and every Python: additions happen one after the other in
    the order of the query's terms.
    """

    k1: float = 0.9
    b: float = 0.4

    def __post_init__(self) -> None:
        if not (math.isfinite(self.k1) and self.k1 >= 0):
            raise Invalid(f"k1 must be finite and not negative, not {self.k1}", field="k1")
        if not 0 <= self.b <= 1:
            raise Invalid(f"b must be between 0 and 1, not {self.b}", field="b")

    def idf(self, documents: int, frequency: int) -> float:
        """The weight of a term held by ``frequency`` of ``documents``: above 0, higher for rarer terms.

        It is log(1 + (N - n + 0.5) / (n + 0.5)), which stays positive for terms in most documents. When the two
        counters were read at different moments and ``frequency`` is the larger, it counts as all documents.
        Raises Invalid when one is negative.
        """
        if documents < 0 or frequency < 0:
            raise Invalid(f"counters must not be negative: {documents}, {frequency}", field="frequency")
        others = max(0, documents - frequency)
        return math.log1p((others + 0.5) / (frequency + 0.5))

    def score(
        self, term_frequencies: Sequence[int], document_length: int, mean_length: float, idfs: Sequence[float]
    ) -> float:
        """The score of one document: 0 when it holds no term of the query, higher for better matches, no upper bound.

        ``term_frequencies`` and ``idfs`` run along the terms of the query; lengths are in terms. Without a mean
        length (0) documents are not told apart by length. Raises Invalid when the two sequences differ in length.
        """
        if len(term_frequencies) != len(idfs):
            raise Invalid(f"{len(term_frequencies)} frequencies do not match {len(idfs)} weights", field="idfs")
        relative_length = document_length / mean_length if mean_length > 0 else 1.0
        held_back = self.k1 * (1 - self.b + self.b * relative_length)
        total = 0.0
        # Not sum(): from Python 3.12 on it rounds differently.
        for frequency, idf in zip(term_frequencies, idfs, strict=True):
            if frequency > 0:
                total += idf * frequency * (self.k1 + 1) / (frequency + held_back)
        return total


def pack_terms(terms: list[str]) -> str:
    """The stored form of a document's terms, "" for none.

    Raises Invalid when a term is empty or holds a space or a colon, which those of the analyser never do.

    >>> pack_terms(["token", "checkpoint", "token"])
    ' checkpoint:1 token:2 '
    """
    if not terms:
        return ""
    counts = Counter(terms)
    packed = " ".join([f"{term}:{counts[term]}" for term in sorted(counts)])
    if packed.count(":") != len(counts) or packed.count(" ") != len(counts) - 1 or "" in counts:
        raise Invalid("a term must not be empty and must not hold a space or a colon", field="terms")
    return f" {packed} "


def frequency(packed: str, term: str) -> int:
    """How often a document holds ``term`` (one of the analyser's terms), 0 when it does not.

    Raises Undecodable when what is stored is not what ``pack_terms`` makes.
    """
    at = packed.find(f" {term}:")
    if at < 0:
        return 0
    start = at + len(term) + 2
    return _count(packed[start : packed.find(" ", start)])


def unpack_terms(packed: str) -> dict[str, int]:
    """Each different term of a document with its frequency, sorted by code point.

    Raises Undecodable when what is stored is not what ``pack_terms`` makes.
    """
    counts: dict[str, int] = {}
    for entry in packed.split():
        term, colon, digits = entry.rpartition(":")
        if not (term and colon):
            raise Undecodable(f"a document's terms hold {entry[:80]!r}, which is no term with its frequency")
        counts[term] = _count(digits)
    return counts


def _count(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit()):
        raise Undecodable(f"a document's terms hold {digits[:80]!r}, which is no frequency")
    return int(digits)
