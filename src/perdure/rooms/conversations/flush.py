"""Which messages of a history are not stored yet. Pure.

A message that carries an id is stored when its conversation shows that id, or once did. Any other is known by what it
says and where, which cannot always be told: a history may be whole or a window, and people say "yes" many times.

- A history that begins like the conversation is taken for a whole one: each message is stored as often as it was
  said before. So handing it over again appends nothing, also after messages in its middle changed or were dropped.
- Any other is taken for a window: it goes on from the newest stored message that it holds, and what follows there is
  new, whatever it says.

What a message said before it was edited or deleted still counts as stored: nothing deleted comes back.
"""

from collections.abc import Sequence

import msgspec

from perdure.rooms.conversations.draft import MessageRole
from perdure.rooms.conversations.values import Prepared

Saying = tuple[str, str | None, str, int]
"""(role, name, body, form): what makes messages without ids the same."""

_PINNED = {MessageRole.SYSTEM.value, MessageRole.DEVELOPER.value}
_ANCHORS = 64
"""Places at which a window may go on that are tried; a longer run of equal messages tells nothing more."""


class Slot(msgspec.Struct, frozen=True, gc=False):
    """The place of a stored message: its id, all that it says and said, and whether it still does."""

    id: str
    sayings: tuple[Saying, ...]
    living: bool


def missing(history: Sequence[Prepared], given_ids: set[str], slots: Sequence[Slot]) -> list[Prepared]:
    """What of ``history`` must be appended, in order; ``given_ids`` are those of its ids that the caller gave."""
    known = {slot.id for slot in slots}
    free = [slot for slot in slots if slot.id not in given_ids]
    plain = [_saying(message) for message in history if message.id not in given_ids]
    stored = iter(_recognise(plain, free))
    return [
        message for message in history
        if not (message.id in known if message.id in given_ids else next(stored))
    ]  # fmt: skip


def _saying(message: Prepared) -> Saying:
    return message.role, message.name, message.body, message.form


def _recognise(history: Sequence[Saying], slots: Sequence[Slot]) -> list[bool]:
    """For each message of a history whether it is stored."""
    if not history or not slots:
        return [False] * len(history)
    if not _is_whole(history, slots):
        living = len(slots)
        while living and not slots[living - 1].living:
            living -= 1
        for tail in (slots, slots[:living]):  # the caller may have dropped what was deleted, or not
            found = _continued(history, tail)
            if found is not None:
                return found
    return _counted(history, slots)


def _is_whole(history: Sequence[Saying], slots: Sequence[Slot]) -> bool:
    first = next((saying for saying in history if saying[0] not in _PINNED), None)
    for slot in slots:
        if slot.sayings[0][0] not in _PINNED:
            return first is None or first in slot.sayings
    return True


def _continued(history: Sequence[Saying], slots: Sequence[Slot]) -> list[bool] | None:
    """The marks of a window that holds the newest stored message; the reading with the fewest changes counts."""
    best: list[bool] | None = None
    fewest = len(history) + 1
    newest = slots[-1].sayings if slots else ()
    anchors = [place for place in reversed(range(len(history))) if history[place] in newest]
    for place in anchors[:_ANCHORS]:
        run = 1
        while run <= place and run < len(slots) and history[place - run] in slots[-1 - run].sayings:
            run += 1
        before = _counted(history[: place + 1 - run], slots[: len(slots) - run])
        changes = before.count(False)
        if changes < fewest:
            fewest = changes
            best = before + [True] * run + [False] * (len(history) - place - 1)
        if not changes:
            break
    return best


def _counted(history: Sequence[Saying], slots: Sequence[Slot]) -> list[bool]:
    """The marks when each slot stands for one message at most, in whatever order."""
    places: dict[Saying, list[int]] = {}
    for place in reversed(range(len(slots))):
        for saying in slots[place].sayings:
            places.setdefault(saying, []).append(place)
    used: set[int] = set()
    marks: list[bool] = []
    for saying in history:
        left = places.get(saying, [])
        while left and left[-1] in used:
            left.pop()
        marks.append(bool(left))
        if left:
            used.add(left.pop())
    return marks
