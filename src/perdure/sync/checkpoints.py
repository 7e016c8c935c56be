# Generated from perdure/services/checkpoints.py by tools/generate_sync.py; change that file and run `make sync`.
"""``Checkpointer``: an agent's states, kept at the cost of what changed, with time travel."""

from typing import Self

from perdure.sync.checkpoint_branching import BranchVerbs
from perdure.sync.checkpoint_care import CareVerbs
from perdure.sync.checkpoint_reading import ReadingVerbs
from perdure.sync.checkpoint_saving import SavingVerbs


class Checkpointer(BranchVerbs, SavingVerbs, ReadingVerbs, CareVerbs):
    """Saves the states of an agent's threads and gives any of them back.

    A state is a mapping from names to JSON values, bytes, datetimes, UUIDs, Decimals, sets, tuples, numpy arrays, and
    instances of classes that ``register_type`` named. Without a store, one at ``PERDURE_URL`` is opened by the first call;
    ``close`` (or ``with``) closes that one only. ``strategy`` decides what ``step`` saves.
    """

    def close(self) -> None:
        """Closes the store if this object opened it; one that was handed in stays open."""
        if self._owns_store:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
