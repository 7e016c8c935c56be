"""What LangGraph's serializer wrote, for those who only look at it.

No stored name is followed but those that LangGraph holds for safe, so that looking runs nobody's code: objects of other
classes come as the plain data that they are made of.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from langgraph.checkpoint.serde import jsonplus

from perdure.rooms.checkpoints.equality import attributes, is_array
from perdure.rooms.checkpoints.leaves import Foreign

_PLAIN = (
    type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID, Foreign,
)  # fmt: skip
_SEVERAL: tuple[type[Any], ...] = (list, tuple, set, frozenset)


def reader() -> Callable[[Foreign], Any]:
    """Reads foreign values as plain ones; what LangGraph cannot read stays as it is."""
    serde = jsonplus.JsonPlusSerializer(allowed_msgpack_modules=None)
    logging.getLogger(jsonplus.__name__).setLevel(logging.ERROR)  # it warns of each class that it leaves alone

    def read(value: Foreign) -> Any:
        try:
            found = serde.loads_typed((value.codec, value.data))
        except Exception:  # broad: a reader of somebody else's raises anything, and the person is shown the bytes
            return value
        return plain(found)

    return read


def plain(value: Any) -> Any:
    """A value in which objects are mappings of those of their fields that hold something."""
    if isinstance(value, _PLAIN) or is_array(value):
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    for kind in _SEVERAL:
        if isinstance(value, kind):
            return kind(map(plain, cast("Iterable[Any]", value)))
    fields = attributes(value)
    if fields is None:
        return list(map(plain, value)) if hasattr(value, "__iter__") else str(value)
    return {name: plain(item) for name, item in fields.items() if item is not None and item not in ([], {})}
