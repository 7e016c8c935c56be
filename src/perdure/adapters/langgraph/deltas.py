"""What delta channels need of the checkpoints before one.

A delta channel's value is in few checkpoints. Elsewhere it is made of the nearest ancestor's that holds it and of what
tasks wrote from there on, so a checkpoint that is taken away in between would take it along without a word.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from perdure.adapters.langgraph.encoding import CHANNEL
from perdure.rooms.checkpoints.lineage import parent_of
from perdure.rooms.checkpoints.ops import Found

COUNTERS = "counters_since_delta_snapshot"
"""In the metadata: by delta channel, how often it was written, and how many steps there were, since it was held."""


def ancestors_needed(
    found: Sequence[Found], staying: set[str], metadata_of: Callable[[Found], Mapping[str, Any]]
) -> set[str]:
    """The ancestors without which a delta channel of a checkpoint that stays could not be made again."""
    known = {one.row.id: one for one in found}
    needed: set[str] = set()
    for checkpoint_id in staying & known.keys():
        one = known[checkpoint_id]
        counters: Mapping[str, Any] = metadata_of(one).get(COUNTERS) or {}
        missing = {CHANNEL + name for name in counters} - one.entry.tree.keys()
        path: dict[str, None] = {}  # in its order
        depth = 0
        at = parent_of(one.entry.tree)
        while missing and at is not None and at in known and at != checkpoint_id and at not in path:
            path[at] = None
            held = missing & known[at].entry.tree.keys()
            if held:
                depth = len(path)
                missing -= held
            at = parent_of(known[at].entry.tree)
        if any(CHANNEL + name in missing and _was_written(counts) for name, counts in counters.items()):
            depth = len(path)
        needed.update(islice(path, depth))
    return needed


def _was_written(counts: Any) -> bool:
    """Whether a channel that no ancestor holds was written at all; one that was not needs nobody."""
    return not (isinstance(counts, list | tuple) and len(counts) > 0 and counts[0] == 0)  # pyright: ignore[reportUnknownArgumentType]
