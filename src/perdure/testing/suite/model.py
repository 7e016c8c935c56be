"""What a store must answer, kept in plain dictionaries: the other side of the random tests.

Forks share :class:`Said` objects by reference, so sharing needs no rule of its own here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from perdure import TokenUsage

Counts = tuple[int, int, int, int, Decimal]
"""Messages, input tokens, output tokens, total tokens, cost."""


@dataclass(eq=False)
class Said:
    """A message."""

    id: str
    owner: "Talk"
    role: str
    text: str
    usage: TokenUsage | None
    at: datetime
    state: str = "living"
    version: int = 1
    trail: list[tuple[str, str]] = field(default_factory=list)
    """(verb, text) of each former version."""


@dataclass(eq=False)
class Talk:
    """A conversation; the place of a message in ``slots`` is its seq, counted from 1."""

    id: str
    agent: str
    user: str
    slots: list[Said] = field(default_factory=list)
    live: bool = True

    def living(self) -> list[tuple[int, Said]]:
        """(seq, message) of what a page shows."""
        return [(seq, said) for seq, said in enumerate(self.slots, 1) if said.state == "living"]


class World:
    """Every conversation of a store."""

    def __init__(self) -> None:
        self.talks: dict[str, Talk] = {}

    def create(self, own: str, agent: str, user: str) -> Talk:
        """A new conversation."""
        talk = self.talks[own] = Talk(own, agent, user)
        return talk

    def fork(self, source: Talk, at_seq: int, own: str) -> Talk:
        """A conversation that begins with the first places of another."""
        talk = self.create(own, source.agent, source.user)
        talk.slots = source.slots[:at_seq]
        return talk

    def add(self, talk: Talk, own: str, role: str, text: str, usage: TokenUsage | None, at: datetime) -> Said:
        """A message at the end of a conversation."""
        said = Said(own, talk, role, text, usage, at)
        talk.slots.append(said)
        return said

    def edit(self, said: Said, text: str, usage: TokenUsage | None) -> None:
        """A message that says something else now."""
        said.trail.append(("edit", said.text))
        said.text, said.usage, said.version = text, usage, said.version + 1

    def delete(self, said: Said) -> None:
        """A message out of every answer but its trail."""
        said.trail.append(("delete", said.text))
        said.state = "deleted"

    def erase(self, said: Said) -> None:
        """A message without a trace."""
        said.trail.clear()
        said.state = "erased"

    def drop(self, talk: Talk, *, erase: bool) -> None:
        """A conversation that is no more; what forks share of it stays, unless it is erased."""
        talk.live = False
        del self.talks[talk.id]
        for said in talk.slots:
            if erase and said.owner is talk:
                self.erase(said)

    def living(self) -> Iterator[Said]:
        """Each message that some conversation shows, once."""
        seen = {id(said): said for talk in self.talks.values() for _, said in talk.living()}
        yield from seen.values()

    def known(self) -> Iterator[Said]:
        """Each message of some conversation, deleted ones too, once."""
        seen = {id(said): said for talk in self.talks.values() for said in talk.slots if said.state != "erased"}
        yield from seen.values()

    def report(
        self, *group_by: str, since: str = "", until: str = "9999", **only: str
    ) -> dict[tuple[Any, ...], Counts]:
        """What ``token_report`` must answer: the counts of each group."""
        groups: dict[tuple[Any, ...], list[Said]] = {}
        for said in self.living():
            if said.usage is None:
                continue
            facts = {
                "user_id": said.owner.user, "agent_id": said.owner.agent, "model": said.usage.model,
                "day": said.at.date().isoformat(),
            }  # fmt: skip
            if since <= facts["day"] < until and all(facts[name] == value for name, value in only.items()):
                groups.setdefault(tuple(facts[name] for name in group_by), []).append(said)
        return {key: counts_of(found) for key, found in groups.items()}


def counts_of(found: list[Said]) -> Counts:
    """The sums of some messages."""
    usages = [said.usage for said in found if said.usage is not None]
    return (
        len(found), sum(usage.input_tokens for usage in usages), sum(usage.output_tokens for usage in usages),
        sum(usage.total_tokens for usage in usages), sum((usage.cost for usage in usages), Decimal(0)),
    )  # fmt: skip


def counts(messages: int, usage: TokenUsage) -> Counts:
    """The same from a conversation's totals or a row of the report."""
    return messages, usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.cost
