"""Which messages of a history are not stored yet. Pure."""

from collections.abc import Sequence

from perdure.rooms.conversations.values import Prepared

Stored = tuple[str, str, str | None, str, int]
"""(id, role, name, body, form) of a stored message."""


def missing(
    history: Sequence[Prepared], given_ids: set[str], known_ids: set[str], stored: Sequence[Stored]
) -> list[Prepared]:
    """What of ``history`` must be appended, in order.

    A message whose id the caller gave (``given_ids``) is stored when that id is (``known_ids``). Any other is known by its place and content: histories are
    walked side by side, and a message counts as stored when it stands in what is left of the stored ones. So
    a caller may hand over its whole history each turn, also after it changed or dropped something in the middle, and
    handing over the same history twice appends nothing.
    """
    places: dict[tuple[str, str | None, str, int], list[int]] = {}
    for index, entry in enumerate(stored):
        places.setdefault(entry[1:], []).append(index)
    fresh: list[Prepared] = []
    position = 0
    at_id = {entry[0]: index for index, entry in enumerate(stored)}
    for message in history:
        if message.id in given_ids:
            if message.id in known_ids:  # maybe deleted since; it is not brought back
                position = max(position, at_id.get(message.id, -1) + 1)
            else:
                fresh.append(message)
            continue
        found = _next(places.get((message.role, message.name, message.body, message.form), ()), position)
        if found is None:
            fresh.append(message)
        else:
            position = found + 1
    return fresh


def _next(indexes: Sequence[int], position: int) -> int | None:
    """The first stored place at or after ``position``."""
    return next((index for index in indexes if index >= position), None)
