"""``Checkpointer``: an agent's states, kept at the cost of what changed, with time travel."""

from typing import Self

from perdure.services.checkpoint_branching import BranchVerbs
from perdure.services.checkpoint_care import CareVerbs
from perdure.services.checkpoint_reading import ReadingVerbs
from perdure.services.checkpoint_saving import SavingVerbs


class Checkpointer(BranchVerbs, SavingVerbs, ReadingVerbs, CareVerbs):
    """Saves the states of an agent's threads and gives any of them back.

    A state is a mapping from names to JSON values, bytes, datetimes, UUIDs, Decimals, sets, tuples, numpy arrays, and
    instances of classes that ``register_type`` named. Without a store, one at ``PERDURE_URL`` is opened by the first call;
    ``close`` (or ``async with``) closes that one only. ``strategy`` decides what ``step`` saves.
    """

    async def close(self) -> None:
        """Closes the store if this object opened it; one that was handed in stays open."""
        if self._owns_store:
            await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
