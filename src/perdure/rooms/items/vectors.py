"""Vectors as they are stored, and how near they are: float32 in little-endian bytes, compared by cosine.

A search reads every vector of the namespaces it asks about and compares them exactly. numpy does that where it is
installed; without it plain Python gives the same answers to the last few bits, some fifty times slower.
"""

import importlib
import operator
import sys
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from math import isfinite, sqrt
from typing import Any

from perdure.values.errors import Invalid, OverLimit, Undecodable

DIMENSIONS = 16_384
"""Numbers in one vector."""

Scorer = Callable[[Sequence[bytes]], list[float]]


def pack(vector: Sequence[float], dimensions: int, field: str) -> bytes:
    """The stored form of a vector of so many finite numbers; anything else is Invalid."""
    if dimensions > DIMENSIONS:
        raise OverLimit(f"{field} has {dimensions:,} dimensions; the limit is {DIMENSIONS:,}", field=field)
    if len(vector) != dimensions:
        raise Invalid(f"{field} has {len(vector)} dimensions, not {dimensions}", field=field)
    try:
        numbers = array("f", vector)
    except (TypeError, OverflowError) as error:
        raise Invalid(f"{field} is no vector of numbers: {error}", field=field) from None
    if not all(map(isfinite, numbers)):
        raise Invalid(f"{field} holds a number that no float32 can be", field=field)
    return _turned(numbers).tobytes()


def unpack(data: bytes) -> "array[float]":
    """The numbers of a stored vector."""
    numbers = array("f")
    try:
        numbers.frombytes(data)
    except (TypeError, ValueError):
        raise Undecodable("a stored vector is none", hint="run: perdure doctor") from None
    return _turned(numbers)


def _turned(numbers: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


@cache
def _numpy() -> Any:
    """The module where it is installed, else None."""
    try:
        return importlib.import_module("numpy")
    except ModuleNotFoundError:
        return None


def cosine(vector: bytes) -> Scorer:
    """How near stored vectors are to this one, from -1 to 1; 0 where one of the two has no direction."""
    library = _numpy()
    return by_hand(vector) if library is None else in_bulk(vector, library)


def by_hand(vector: bytes) -> Scorer:
    """The scorer in plain Python."""
    wanted = list(unpack(vector))
    length = sqrt(sum(map(operator.mul, wanted, wanted)))

    def scores(stored: Sequence[bytes]) -> list[float]:
        found: list[float] = []
        for data in stored:
            held = list(_checked(data, len(vector)))
            product = length * sqrt(sum(map(operator.mul, held, held)))
            found.append(sum(map(operator.mul, wanted, held)) / product if product else 0.0)
        return found

    return scores


def _checked(data: bytes, size: int) -> "array[float]":
    if len(data) != size:
        raise Undecodable(f"a stored vector has {len(data)} bytes, not {size}", hint="run: perdure doctor")
    return unpack(data)


def in_bulk(vector: bytes, np: Any) -> Scorer:
    """The scorer in numpy."""
    wanted = np.frombuffer(vector, "<f4").astype("f8")
    length = float(np.sqrt((wanted * wanted).sum()))

    def scores(stored: Sequence[bytes]) -> list[float]:
        if not stored:
            return []
        for data in stored:
            if len(data) != len(vector):
                _checked(data, len(vector))
        matrix = np.frombuffer(b"".join(stored), "<f4").reshape(len(stored), -1).astype("f8")
        products = length * np.sqrt((matrix * matrix).sum(axis=1))
        # Row by row and not by a matrix product: equal vectors get equal scores wherever they stand.
        dots = (matrix * wanted).sum(axis=1)
        return (dots / np.where(products == 0, np.inf, products)).tolist()

    return scores
