"""Arrays and scalars of numpy, as payloads of extensions and back.

numpy is looked up among the loaded modules when something is written, and loaded when an array is read. A dtype is its
``str``, or its ``descr`` when it has fields; a dtype from stored bytes is checked word by word before numpy sees it.
"""

import re
import sys
from math import prod
from typing import Any, cast

from perdure.rooms.checkpoints.wire import Code, canonical, wire
from perdure.values.errors import MissingExtra

_DTYPE = re.compile(
    r"[<>|](b1|[iu][1248]|f[248]|c8|c16|[mM]8(\[[0-9]{0,10}[a-zA-Zμ]{1,2}\])?|[SUV][1-9][0-9]{0,9})", re.ASCII
)
"""No ``longdouble``: it is another format on each machine, and has bytes that belong to no value."""
_LEVELS = 16
"""Levels of structs within a dtype."""


class Unfit(TypeError):
    """A value of a type that we keep, but which would not come back as it was; the message begins with what it is."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def write(value: Any) -> tuple[Code, bytes] | None:
    """The code and payload of an array or scalar; None for anything else. Raises ``Unfit``."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if type(value) is numpy.ndarray:
        return Code.NDARRAY, wire().pack([*_header(numpy, value), _body(numpy, value)])
    if isinstance(value, numpy.generic) and type(value) is value.dtype.type:
        return Code.NUMPY, _pack_scalar(numpy, value)
    return None


def is_numbers(cls: type) -> bool:
    """True for a class of numpy's own values."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(cls, (numpy.ndarray, numpy.generic)) and cls.__module__ == "numpy"


def read_array(data: bytes) -> Any:
    """The array in a payload, a fresh one that can be written to."""
    descr, shape, order, body = canonical(data)
    numpy = _numpy()
    dtype = _dtype(numpy, descr)
    if not all(type(size) is int and size >= 0 for size in shape) or type(body) is not bytes:
        raise TypeError("an array has a shape and bytes")
    if dtype.itemsize == 0 or prod(shape) * dtype.itemsize != len(body):
        raise ValueError("an array has as many bytes as its shape says")
    value = numpy.ndarray(tuple(shape), dtype, bytearray(body), order=order)
    if _header(numpy, value) != [descr, shape, order] or (dtype.names is not None and _body(numpy, value) != body):
        raise ValueError("its bytes are not those that its value is written with")
    return value


def read_scalar(data: bytes) -> Any:
    """The scalar in a payload."""
    descr, body = canonical(data)
    numpy = _numpy()
    if type(body) is not bytes:
        raise TypeError("a scalar has bytes")
    if descr == "S":
        value = numpy.bytes_(body)
    elif descr == "U":
        value = numpy.str_(body.decode("utf-8", "surrogatepass"))
    else:
        dtype = _dtype(numpy, descr)
        if dtype.itemsize == 0 or dtype.itemsize != len(body):
            raise ValueError("a scalar has as many bytes as its type says")
        value = numpy.ndarray((), dtype, bytearray(body))[()]
    if _pack_scalar(numpy, value) != data:
        raise ValueError("its bytes are not those that its value is written with")
    return value


def _numpy() -> Any:
    try:
        import numpy as np  # noqa: PLC0415 - only who keeps arrays needs it
    except ImportError as error:
        raise MissingExtra(
            "this state holds arrays of numpy, which is not installed", hint="pip install numpy"
        ) from error
    return cast("Any", np)


def _header(numpy: Any, value: Any) -> list[Any]:
    flags = value.flags
    order = "F" if flags.f_contiguous and not flags.c_contiguous else "C"
    return [_descr(numpy, value.dtype), list(value.shape), order]


def _body(numpy: Any, value: Any) -> bytes:
    """The bytes of an array, with zeros where fields leave gaps: what happens to stand there belongs to no value."""
    if value.dtype.names is not None:
        clean = numpy.zeros_like(value)
        _copy_fields(value, clean)
        value = clean
    return value.tobytes("A")


def _copy_fields(source: Any, target: Any) -> None:
    for name in source.dtype.names:
        if source[name].dtype.names is not None:
            _copy_fields(source[name], target[name])
        else:
            target[name][...] = source[name]


def _pack_scalar(numpy: Any, value: Any) -> bytes:
    dtype = value.dtype
    if dtype.kind == "S":  # a dtype would cut zeros off the end
        return wire().pack(["S", bytes(value)])
    if dtype.kind == "U":
        return wire().pack(["U", str.__str__(value).encode("utf-8", "surrogatepass")])
    if dtype.kind == "V":
        return wire().pack([_descr(numpy, dtype), _body(numpy, numpy.asarray(value))])
    little = dtype.newbyteorder("<")
    return wire().pack([_descr(numpy, little), numpy.asarray(value, little).tobytes()])


def _descr(numpy: Any, dtype: Any) -> str | list[Any]:
    """What describes a dtype, in lists and text. Raises ``Unfit`` unless that makes the same dtype again."""
    if dtype.hasobject:
        raise Unfit("a numpy array of Python objects", hint="store it as a list (.tolist())")
    try:
        descr = _listed(dtype.descr if dtype.names is not None else dtype.str)
        again = _dtype(numpy, descr)
    except (ValueError, TypeError) as error:
        raise Unfit(f"a numpy value of {dtype!r}, which its description does not give back") from error
    if again != dtype or again.type is not dtype.type or dtype.metadata is not None:
        raise Unfit(f"a numpy value of {dtype!r}, which its description does not give back")
    return descr


def _listed(descr: Any) -> Any:
    if isinstance(descr, (list, tuple)):
        return [_listed(part) for part in cast("list[Any]", descr)]
    return descr


def _dtype(numpy: Any, descr: Any) -> Any:
    """The dtype of a description, each word of which is checked first."""
    parts = _checked(descr, _LEVELS)
    return numpy.dtype(parts) if isinstance(parts, str) else numpy.lib.format.descr_to_dtype(parts)


def _checked(descr: Any, levels: int) -> str | list[Any]:
    """A description with tuples where numpy wants them."""
    if isinstance(descr, str):
        if _DTYPE.fullmatch(descr) is None:
            raise ValueError(f"{descr[:80]!r} is no dtype")
        return descr
    if not isinstance(descr, list) or not descr or levels == 0:
        raise TypeError("a dtype is text or a list of fields")
    return [_field(field, levels) for field in cast("list[Any]", descr)]


def _field(field: Any, levels: int) -> tuple[Any, ...]:
    name, descr, *shape = field
    words = cast("list[Any]", name if isinstance(name, list) else [name])
    if len(words) > 2 or not all(isinstance(word, str) for word in words):
        raise TypeError("a field has a name, or a title and a name")
    full = tuple(words) if isinstance(name, list) else name
    if not shape:
        return full, _checked(descr, levels - 1)
    (sizes,) = shape
    if not all(type(size) is int and size > 0 for size in sizes):
        raise TypeError("a field has a shape")
    return full, _checked(descr, levels - 1), tuple(sizes)
