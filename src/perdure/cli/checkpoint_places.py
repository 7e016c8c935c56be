"""Which checkpoint a command means, and a checkpointer that shows any of them: of every framework, of unknown classes."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast

import msgspec

from perdure.cli.checkpoint_options import KEY_HINT, key_of
from perdure.cli.common import Call
from perdure.cli.state_json import Unknown
from perdure.rooms.checkpoints import codec, diff, keyrows, ops, reading
from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.rooms.checkpoints.leaves import Foreign
from perdure.rooms.checkpoints.parts import Side
from perdure.rooms.checkpoints.tree import Branching, Part, put_together
from perdure.rooms.checkpoints.values import NATIVE, Checkpoint, CheckpointThread, Status
from perdure.sync.checkpoints import Checkpointer
from perdure.values.clock import to_datetime
from perdure.values.errors import Invalid, NotFound, WrongKey

LANGGRAPH = "langgraph:"
"""Begins the spaces of LangGraph's threads; their namespace follows."""
LATEST = "latest"
SHORTEST = 4
"""Characters that a short id has at least."""
SHORT = 8
_CHANNEL = "channel:"
_HEAD = "checkpoint"
_PAGE = 1_000
_MANY = 32
_BACK = re.compile(r"(?P<name>.*)~(?P<back>\d{1,9})", re.DOTALL)


class Place(msgspec.Struct, frozen=True):
    """A thread in its space."""

    thread_id: str
    space: str = NATIVE

    @property
    def namespace(self) -> str | None:
        """LangGraph's namespace; None for a thread of ``Checkpointer``."""
        return self.space.removeprefix(LANGGRAPH) if self.space.startswith(LANGGRAPH) else None

    def refuse_foreign(self, verb: str) -> None:
        """``Invalid`` when the thread is a framework's, which has its own ways to change it."""
        if self.space != NATIVE:
            raise Invalid(
                f"{self.thread_id[:80]!r} is a thread of {family_of(self.space)}; only that can {verb}", field="thread",
                hint="list, show, diff, restore and verify look at it",
            )  # fmt: skip


def family_of(space: str) -> str:
    """Whose checkpoints a space holds, in words; nothing for our own."""
    family, _, namespace = space.partition(":")
    name = "LangGraph" if family == "langgraph" else family
    return f"{name} {namespace}" if namespace else name


class Spot(msgspec.Struct, frozen=True):
    """A checkpoint in its place."""

    place: Place
    checkpoint: Checkpoint


class _Open(codec.Registry):
    """Reads what it does not know as ``Unknown``, and foreign values as far as their framework is installed."""

    def __init__(self) -> None:
        super().__init__()
        self._read: Callable[[Foreign], Any] | None = None

    def make(self, row: Any) -> Any:
        """The fields of a value by name."""
        parts = cast("list[Any]", row) if isinstance(row, list) else []
        if len(parts) < 3 or type(parts[0]) is not str or type(parts[1]) is not int:
            return super().make(row)
        name, version, *rest = parts
        if len(rest) == 1:
            return Unknown(name, version, rest[0])
        named = zip(rest[::2], rest[1::2], strict=False)
        return Unknown(name, version, {key: value for key, value in named if type(key) is str})

    def load(self, value: Foreign) -> Any:
        """The value in plain parts, or itself."""
        if self._read is None:
            self._read = _langgraph()
        return self._read(value)


def _langgraph() -> Callable[[Foreign], Any]:
    try:
        from perdure.adapters.langgraph.viewing import reader
    except ImportError:  # LangGraph is not installed: its values are shown as what they are
        return lambda value: value
    return reader()


class Desk(Checkpointer):
    """A checkpointer that looks at the checkpoints of every space, and needs no class of the program that saved them."""

    def at(self, space: str) -> Self:
        """The same for another space."""
        twin = self.using(self._store)
        twin._space = space
        return twin

    def open_up(self) -> Self:
        """From now on nothing is too unknown to be shown."""
        self._registry = _Open()
        return self

    def is_sealed(self) -> bool:
        """Whether the tenant has keys at all."""
        return bool(self._run(keyrows.read()))

    # -- threads -------------------------------------------------------------------------------------------------------

    def threads_named(self, thread_id: str) -> list[CheckpointThread]:
        """The threads of every space that have this id."""
        rows = self._run(reading.threads(None, None, _PAGE, thread_id))
        return [
            CheckpointThread(
                row.id, row.space, row.next_position, to_datetime(row.created_at), to_datetime(row.updated_at)
            )
            for row in rows
        ]

    def place_of(self, thread_id: str, namespace: str | None = None) -> Place:
        """The thread that is meant: our own if there is one, else LangGraph's. ``NotFound`` when there is none."""
        spaces = [one.space for one in self.threads_named(thread_id)]
        wanted = [NATIVE, LANGGRAPH, *spaces] if namespace is None else [LANGGRAPH + namespace]
        for space in wanted:
            if space in spaces:
                return Place(thread_id, space)
        inside = f" in LangGraph's namespace {namespace!r}" if namespace is not None else ""
        raise NotFound(f"there is no thread {thread_id[:80]!r}{inside}", hint="perdure checkpoints names them")

    def pages(
        self, place: Place, branch: str | None = None, cursor: str | None = None
    ) -> Iterator[Sequence[Checkpoint]]:
        """A thread's checkpoints, newest first, failed ones too."""
        desk = self.at(place.space)
        while True:
            page = desk.get_history(place.thread_id, True, True, branch, _PAGE, cursor)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    # -- states --------------------------------------------------------------------------------------------------------

    def parts(self, spot: Spot) -> Branching:
        """A checkpoint's state as it is stored."""
        recipe = reading.load(spot.checkpoint.id, self._seals(), spot.place.thread_id, spot.place.space)
        loaded = self._run(recipe)
        if loaded is None:
            raise NotFound(f"checkpoint {spot.checkpoint.id!r} was deleted at this moment")
        return loaded.state

    def state(self, spot: Spot) -> dict[str, Any]:
        """A checkpoint's state; of LangGraph the values of its channels."""
        return put_together(shown_parts(spot.place, self.parts(spot)), self._registry)

    def head(self, spot: Spot) -> Any:
        """What LangGraph keeps beside the channels' values; None for our own."""
        part = self.parts(spot).children.get(_HEAD) if spot.place.space != NATIVE else None
        return None if part is None else put_together(part, self._registry)

    def difference(self, a: Spot, b: Spot, *, details: bool = True) -> diff.StateDiff:
        """What is different in ``b`` against ``a``."""
        sides = [Side(shown_parts(one.place, self.parts(one)), self._registry) for one in (a, b)]
        return diff.compare(sides[0], sides[1], details)

    def changes(self, place: Place, pairs: Mapping[int, int | None]) -> dict[int, diff.StateDiff]:
        """By position, what is different to the checkpoint at another; a first one is compared with nothing."""
        seals, found = self._seals(), dict[int, diff.StateDiff]()
        todo = list(pairs.items())
        while todo:
            batch, todo = todo[:_MANY], todo[_MANY:]
            wanted = sorted({at for pair in batch for at in pair if at is not None})
            states: dict[int, Branching] = {
                one.found.row.position: shown_parts(place, one.state)
                for one in self._run(reading.load_many(place.thread_id, place.space, wanted, seals))
            }
            for after, before in batch:
                new, old = states.get(after), Branching({}) if before is None else states.get(before)
                if new is not None and old is not None:
                    found[after] = diff.compare(Side(old, self._registry), Side(new, self._registry), False)
        return found

    def save_again(self, spot: Spot) -> str:
        """Saves a state as it is, whatever is in it, as the newest checkpoint of its branch; the new id."""
        parts, checkpoint = self.parts(spot), spot.checkpoint
        new = self._new(
            checkpoint.thread_id, parts.children, {"restored_from": checkpoint.id}, (), status_of(checkpoint), None,
            checkpoint.branch, None, "restore",
        )  # fmt: skip
        return self._save(new, parts)

    # -- which one -----------------------------------------------------------------------------------------------------

    def find(self, text: str, thread: str | None = None, namespace: str | None = None) -> Spot:
        """The checkpoint that is meant: an id, or with a thread (``THREAD@…``) a branch, a tag, a short id, ``~3``.

        ``NotFound`` when there is none, ``Invalid`` when a short id stands for several.
        """
        if thread is not None:
            place = self.place_of(thread, namespace)
            return self._named(place, text.removeprefix("@"))
        for space in (NATIVE, LANGGRAPH) if namespace is None else (LANGGRAPH + namespace,):
            found = self.at(space).get(text) if text else None
            if found is not None:
                return Spot(Place(found.thread_id, space), found)
        for name, rest in _splits(text):
            if self.threads_named(name):
                return self._named(self.place_of(name, namespace), rest)
        raise NotFound(
            f"there is no checkpoint {text[:80]!r}",
            hint="perdure checkpoints list THREAD shows ids; a short one needs --thread, or THREAD@ID",
        )

    def _named(self, place: Place, text: str) -> Spot:
        name, back = text, 0
        found = self._one(place, name, missing_ok="~" in text)
        if found is None:
            split = _BACK.fullmatch(text)
            if split is None:
                raise _unknown(place, text)
            name, back = split["name"], int(split["back"])
            found = self._one(place, name, missing_ok=False)
        if found is None:
            raise _unknown(place, name)
        return Spot(place, self._before(place, found, back) if back else found)

    def _one(self, place: Place, name: str, *, missing_ok: bool) -> Checkpoint | None:
        desk = self.at(place.space)
        if name in ("", LATEST):
            found = desk.latest(place.thread_id) or next(iter(next(self.pages(place))), None)
            if found is None:
                raise NotFound(f"thread {place.thread_id[:80]!r} has no checkpoint")
            return found
        exact = self._run(ops.get(name, self._seals(), place.thread_id, place.space))
        if exact is not None:
            return self._checkpoint(exact)
        if any(one.name == name for one in desk.branches(place.thread_id)):
            return desk.latest(place.thread_id, name)
        return desk.find_checkpoint(place.thread_id, (name,)) or self._short(place, name, missing_ok=missing_ok)

    def _short(self, place: Place, name: str, *, missing_ok: bool) -> Checkpoint | None:
        """The only checkpoint whose id begins or ends so."""
        found = [
            one for page in self.pages(place) for one in page if one.id.startswith(name) or one.id.endswith(name)
        ]  # fmt: skip
        if not found:
            if missing_ok:
                return None
            raise _unknown(place, name)
        if len(found) > 1 or len(name) < SHORTEST:
            few = ", ".join(one.id for one in found[:3])
            told = f"{name!r} stands for {len(found):,} checkpoints" if len(found) > 1 else f"{name!r} is too short"
            raise Invalid(told, field="id", hint=f"more of the id says which: {few}{', …' if found[3:] else ''}")
        return found[0]

    def _before(self, place: Place, checkpoint: Checkpoint, back: int) -> Checkpoint:
        """The checkpoint some steps before one, on the way to it."""
        at = checkpoint
        for step in range(back):
            earlier = self.parent(place, at)
            if earlier is None:
                raise NotFound(f"there are {step:,} checkpoints before {checkpoint.id!r}, not {back:,}")
            at = earlier
        return at

    def parent(self, place: Place, checkpoint: Checkpoint) -> Checkpoint | None:
        """The checkpoint before one, passing over those that were pruned; None for a first one."""
        if place.space == NATIVE:
            positions = self._run(
                reading.lineage(place.thread_id, place.space, checkpoint.position, None, self._seals())
            )
            if len(positions) < 2:
                return None
            found = self._run(reading.load_many(place.thread_id, place.space, [positions[-2]], self._seals()))
            return self._checkpoint(found[0].found) if found else None
        if checkpoint.parent_id is None:
            return None
        found = self._run(ops.get(checkpoint.parent_id, self._seals(), place.thread_id, place.space))
        return None if found is None else self._checkpoint(found)


def status_of(checkpoint: Checkpoint) -> Status:
    """The status of a state that is saved again: it goes on, whatever became of it the first time."""
    return "ok" if checkpoint.status == "failed" else checkpoint.status


def shown_parts(place: Place, parts: Branching) -> Branching:
    """The parts of a state that are the agent's; of LangGraph its channels by their names."""
    if place.space == NATIVE:
        return parts
    channels: dict[str, Part] = {
        name.removeprefix(_CHANNEL): part for name, part in parts.children.items() if name.startswith(_CHANNEL)
    }
    return Branching(channels)


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """How a text may be read as a thread and what follows: ``THREAD``, ``THREAD@NAME``, ``THREAD~3``."""
    yield text, ""
    found = _BACK.fullmatch(text)
    if found is not None:
        yield found["name"], f"~{found['back']}"
    for at in reversed([place for place, letter in enumerate(text) if letter == "@"]):
        yield text[:at], text[at + 1 :]


def _unknown(place: Place, name: str) -> NotFound:
    return NotFound(
        f"thread {place.thread_id[:80]!r} has no checkpoint, branch or tag {name[:80]!r}",
        hint="perdure checkpoints list THREAD shows them",
    )


# -- opening -----------------------------------------------------------------------------------------------------------


@contextmanager
def desk_of(call: Call, key_file: Path | None, **rules: Any) -> Iterator[Desk]:
    """The checkpoints of a command's store; ``rules`` are fields of ``CheckpointConfig``.

    A key only opens what is sealed: a store without any does not begin to be encrypted by a command.
    """
    key = key_of(key_file)
    with call.store() as store:
        desk = Desk(store, CheckpointConfig(**rules)).open_up()
        if key is not None and desk.is_sealed():
            desk = Desk(store, CheckpointConfig(encryption_key=key, **rules)).open_up()
        try:
            yield desk
        except WrongKey as error:
            raise WrongKey(error.message, hint=KEY_HINT, **error.details) from error
