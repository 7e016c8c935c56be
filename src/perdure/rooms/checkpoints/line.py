"""What a checkpoint comes from, told by branches: a gap that retention left is no end."""

from collections.abc import Iterable, Mapping

from perdure.rooms.checkpoints.values import BranchRow
from perdure.values.errors import ChecksumMismatch


def line(last: int, branch_of: Mapping[int, int], branches: Iterable[BranchRow]) -> list[int]:
    """The positions of what a checkpoint comes from, itself first, of those that are there (``branch_of``).

    On a branch each was made from the newest that was there then, so what is there of it is one line.
    ``ChecksumMismatch`` when branches come from each other in a circle.
    """
    forks = {branch.number: branch.fork_of for branch in branches}
    on: dict[int, list[int]] = {}
    for position in sorted(branch_of, reverse=True):
        on.setdefault(branch_of[position], []).append(position)
    found: list[int] = []
    at: int | None = last
    while at is not None and at in branch_of:
        branch = branch_of[at]
        if branch not in on:
            raise ChecksumMismatch("the branches of a thread come from each other")
        found += [position for position in on.pop(branch) if position <= at]
        at = forks.get(branch)
    return found
