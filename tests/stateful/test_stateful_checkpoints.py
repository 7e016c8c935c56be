"""Random lives of threads of checkpoints against plain Python states: saves, branches, merges, retention, copies, restarts.

Each example is a tenant of its own in one database. Two checkpointers take turns, each with what it remembers.
"""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import perdure.sync
from perdure import CheckpointConfig
from perdure.testing.suite.checkpoint_tools import alike
from perdure.testing.suite.tools import TurnedClock

CHANNELS = ("list", "table", "deep", "value")
RUNS = ("run 1", "run 2", "run 3")
TAGS = ("good", "release")
FILLER = "lorem ipsum " * 40

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from([0.0, -0.0, 1.5, 2**70, b"", b"\x00" * 40]),
    st.sampled_from(["", "a", FILLER]),
)  # fmt: skip
items = st.one_of(leaves, st.fixed_dictionaries({"id": st.integers(1, 5), "text": leaves}))
values = st.recursive(
    items, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    | st.lists(inner, max_size=2).map(tuple), max_leaves=6,
)  # fmt: skip
tenants = itertools.count()


@dataclass
class Kept:
    """A checkpoint of the model."""

    id: str
    state: dict[str, Any]
    branch: str
    parent: str | None
    status: str = "ok"
    run: str | None = None
    tags: set[str] = field(default_factory=set)


@dataclass
class Thread:
    """A thread of the model: living checkpoints in the order they were saved; heads and fork points of branches."""

    id: str
    kept: dict[str, Kept] = field(default_factory=dict)
    heads: dict[str, str | None] = field(default_factory=lambda: {"main": None})
    forks: dict[str, str] = field(default_factory=dict)
    saves: int = 0

    def line(self, last: str | None) -> list[str]:
        """What a checkpoint comes from that is alive, itself first."""
        order = list(self.kept)
        found: list[str] = []
        while last is not None and last in self.kept:
            branch = self.kept[last].branch
            upto = order[: order.index(last) + 1]
            found += [one for one in reversed(upto) if self.kept[one].branch == branch]
            last = self.forks.get(branch)
        return found


class Life(RuleBasedStateMachine):
    """One tenant's threads and the model of them."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.clock = TurnedClock()
        self.tenant = f"tenant {next(tenants)}"
        self.numbers = itertools.count(1)
        self.threads: dict[str, Thread] = {}
        self.roots = [
            perdure.sync.Store(perdure.PersistenceConfig(url, pool_size=2), clock=self.clock).initialize() for _ in "ab"
        ]
        self.pair = [self.fresh_checkpointer(0), self.fresh_checkpointer(1)]
        self.turn = 0

    def fresh_checkpointer(self, number: int) -> Any:
        config = CheckpointConfig(max_checkpoints_per_thread=5, keep_minimum=2, retention_days=2)
        return perdure.sync.Checkpointer(self.roots[number].for_tenant(self.tenant), config)

    @property
    def one(self) -> Any:
        """The checkpointer whose turn it is."""
        self.turn += 1
        return self.pair[self.turn % 2]

    def teardown(self) -> None:
        try:
            for thread in list(self.threads.values()):
                self.check(thread, self.one)
                self.check(thread, self.fresh_checkpointer(0))
            assert self.one.verify().problems == ()
            for name in list(self.threads):
                self.one.delete_thread(name)
            assert self.left() == []
        finally:
            for root in self.roots:
                root.close()

    def left(self) -> list[str]:
        """Tables that have rows of the tenant (on SQLite; on PostgreSQL one sees one's own tenant's)."""
        names = ("checkpoint_threads", "checkpoints", "checkpoint_items", "checkpoint_runs", "checkpoint_segments",
                 "checkpoint_branches", "checkpoint_tags")  # fmt: skip
        asked = "select count(*) from {} where tenant = '{}'"
        return [name for name in names if self.roots[0].execute(asked.format(name, self.tenant))[0][0]]

    # -- picking -----------------------------------------------------------------------------------------------------------

    def a_thread(self, data: st.DataObject) -> Thread:
        return data.draw(st.sampled_from(list(self.threads.values())))

    def a_branch(self, data: st.DataObject, thread: Thread) -> str:
        return data.draw(st.sampled_from(list(thread.heads)))

    def a_checkpoint(self, data: st.DataObject, thread: Thread) -> str | None:
        return data.draw(st.sampled_from(list(thread.kept))) if thread.kept else None

    # -- saving ------------------------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        thread = self.threads["t"] = Thread("t")
        self.keep(thread, "main", {"list": [{"id": n, "text": FILLER} for n in range(70)], "value": 1})

    def keep(self, thread: Thread, branch: str, state: dict[str, Any], **more: Any) -> None:
        state = copy.deepcopy(state)
        made = self.one.save(thread.id, state, branch=branch, **more)
        parent = thread.heads[branch]
        kept = Kept(made, copy.deepcopy(state), branch, parent, more.get("status", "ok"), more.get("run_id"))
        kept.tags |= set(more.get("tags", ()))
        thread.kept[made], thread.heads[branch] = kept, made
        thread.saves += 1
        state["value"] = "changed after it was saved"

    def newest(self, thread: Thread, branch: str) -> dict[str, Any]:
        head = thread.heads[branch]
        return copy.deepcopy(thread.kept[head].state) if head is not None else {}

    @rule(
        data=st.data(), channel=st.sampled_from(CHANNELS), value=values, status=st.sampled_from(["ok", "ok", "failed"]),
        run=st.sampled_from([None, *RUNS]), tags=st.lists(st.sampled_from(TAGS), max_size=1),
    )  # fmt: skip
    def save_another_value(self, data, channel, value, status, run, tags) -> None:
        thread = self.a_thread(data)
        branch = self.a_branch(data, thread)
        state = {**self.newest(thread, branch), channel: value}
        self.keep(thread, branch, state, status=status, run_id=run, tags=tags)

    @rule(
        data=st.data(), how=st.integers(0, 7), added=st.lists(items, max_size=4), many=st.booleans(),
        run=st.sampled_from([None, *RUNS]),
    )  # fmt: skip
    def save_an_edit_of_the_list(self, data, how, added, many, run) -> None:
        thread = self.a_thread(data)
        branch = self.a_branch(data, thread)
        state = self.newest(thread, branch)
        old = state.get("list")
        held: list[Any] = list(old) if type(old) is list else []
        low = data.draw(st.integers(0, len(held)))
        high = data.draw(st.integers(low, min(len(held), low + 30)))
        if many:
            added = [*added, *(f"item {next(self.numbers)}" for _ in range(40))]
        state["list"] = [
            held + added, held[:low] + added + held[low:], held[:low] + added + held[high:], held[:low] + held[high:],
            held[high:] + held[:low] + held[low:high], held[::-1], held[:low], held + held[low:high],
        ][how]  # fmt: skip
        self.keep(thread, branch, state, run_id=run)

    @rule(data=st.data(), keys=st.integers(0, 45), deep=st.booleans(), value=leaves)
    def save_an_edit_of_a_mapping(self, data, keys, deep, value) -> None:
        thread = self.a_thread(data)
        branch = self.a_branch(data, thread)
        state = self.newest(thread, branch)
        if deep:
            state["deep"] = {"a": {"b": {"text": FILLER * 10, "value": value}, "c": FILLER}, "keys": keys % 3}
        else:
            old = state.get("table")
            table: dict[Any, Any] = dict(old) if type(old) is dict else {}
            table |= {f"k{number}": FILLER for number in range(keys)}
            table[f"k{keys}"] = value
            if keys % 4 == 0:
                table.pop("k1", None)
            state["table"] = table
        self.keep(thread, branch, state)

    @rule(data=st.data())
    def save_the_same_or_less(self, data) -> None:
        thread = self.a_thread(data)
        branch = self.a_branch(data, thread)
        state = self.newest(thread, branch)
        if len(state) > 1 and data.draw(st.booleans()):
            del state[data.draw(st.sampled_from(sorted(state)))]
        self.keep(thread, branch, state)

    @rule(data=st.data(), value=leaves)
    def save_in_a_transaction_that_is_taken_back(self, data, value) -> None:
        thread = self.a_thread(data)
        branch = self.a_branch(data, thread)
        state = {**self.newest(thread, branch), "value": value, "list": [value] * 70}
        checkpointer = self.one
        with pytest.raises(ZeroDivisionError), checkpointer._store.transaction() as t:
            inside = checkpointer.using(t)
            made = inside.save(thread.id, state, branch=branch)
            assert alike(inside.restore(made), state)
            raise ZeroDivisionError
        assert checkpointer.get(made) is None

    # -- branches ----------------------------------------------------------------------------------------------------------

    @rule(data=st.data())
    def branch(self, data) -> None:
        thread = self.a_thread(data)
        start = self.a_checkpoint(data, thread)
        if start is None or len(thread.heads) > 4:
            return
        name = f"branch {next(self.numbers)}"
        self.one.create_branch(start, name)
        thread.heads[name] = thread.forks[name] = start

    @rule(data=st.data(), side=st.sampled_from(["ours", "theirs"]))
    def merge(self, data, side) -> None:
        thread = self.a_thread(data)
        into, source = self.a_branch(data, thread), self.a_branch(data, thread)
        if thread.heads[into] is None or thread.heads[source] is None:
            return
        ours, theirs = self.newest(thread, into), self.newest(thread, source)
        common = [one for one in thread.line(thread.heads[into]) if one in thread.line(thread.heads[source])]
        report = self.one.merge(thread.id, into, source, resolve=side)
        assert report.base_id == (common[0] if common else None)
        base = thread.kept[common[0]].state if common else {}
        merged = self.one.restore(report.checkpoint_id)
        for name in {*base, *ours, *theirs}:
            three = [state.get(name, "absent") for state in (base, ours, theirs)]
            if alike(three[0], three[1]):
                assert same_but_for_order(merged.get(name, "absent"), three[2])
            elif alike(three[0], three[2]):
                assert same_but_for_order(merged.get(name, "absent"), three[1])
        kept = Kept(report.checkpoint_id, merged, into, thread.heads[into])
        thread.kept[kept.id], thread.heads[into] = kept, kept.id
        thread.saves += 1

    @rule(data=st.data(), tag=st.sampled_from(TAGS), on=st.booleans())
    def tag(self, data, tag, on) -> None:
        thread = self.a_thread(data)
        name = self.a_checkpoint(data, thread)
        if name is not None:
            (self.one.tag if on else self.one.untag)(name, tag)
            (thread.kept[name].tags.add if on else thread.kept[name].tags.discard)(tag)

    # -- taking away, copying ----------------------------------------------------------------------------------------------

    @rule(hours=st.integers(-3, 30))
    def wait(self, hours: int) -> None:
        self.clock.turn(hours=hours)

    @rule(data=st.data())
    def retain(self, data) -> None:
        thread = self.a_thread(data)
        promised = self.one.apply_retention(thread.id, dry_run=True)[0]
        (report,) = self.one.apply_retention(thread.id)
        assert (report.removed, report.kept) == (promised.removed, promised.kept)
        assert {*report.removed, *report.kept} == set(thread.kept)
        heads = {head for head in thread.heads.values() if head is not None}
        sheltered = heads | set(thread.forks.values()) | {
            one.id for one in thread.kept.values() if one.tags or one.status == "failed"
        } | set(list(thread.kept)[-2:])  # fmt: skip
        assert not sheltered & set(report.removed)
        for name in report.removed:
            del thread.kept[name]

    @rule(data=st.data(), run=st.sampled_from(RUNS))
    def delete_a_run(self, data, run) -> None:
        going = {one.id for thread in self.threads.values() for one in thread.kept.values() if one.run == run}
        moved: list[tuple[Thread, dict[str, str | None], dict[str, str]]] = []
        stuck = False
        for thread in self.threads.values():
            staying = {
                name: next((one for one in thread.line(head) if one not in going), None)
                for name, head in thread.heads.items()
            }
            forks = {
                name: next((one for one in thread.line(fork) if one not in going), fork)
                for name, fork in thread.forks.items()
            }
            touched = bool(going & set(thread.kept))
            stuck |= touched and any(head is None and name != "main" for name, head in staying.items())
            moved.append((thread, staying if touched else thread.heads, forks if touched else thread.forks))
        if stuck:
            with pytest.raises(perdure.Invalid):
                self.one.delete_for_runs(run)
            return
        assert self.one.delete_for_runs(run) == len(going)
        for thread, heads, forks in moved:
            thread.heads, thread.forks = heads, forks
            thread.kept = {name: one for name, one in thread.kept.items() if name not in going}

    @precondition(lambda self: len(self.threads) < 4)
    @rule(data=st.data(), by_file=st.booleans())
    def copy(self, data, by_file) -> None:
        thread = self.a_thread(data)
        name = f"copy {next(self.numbers)}"
        if by_file:
            assert self.one.import_thread(self.one.export_thread(thread.id), name) == name
        else:
            assert self.one.copy_thread(thread.id, name) == len(thread.kept)
        page = self.one.get_history(name, include_failed=True, limit=1_000)
        ids = dict(zip(thread.kept, [one.id for one in reversed(list(page))], strict=True))
        twin = self.threads[name] = copy.deepcopy(thread)
        twin.id = name
        twin.kept = {ids[one.id]: one for one in twin.kept.values()}
        for old, kept in zip(list(ids), twin.kept.values(), strict=True):
            kept.id, kept.parent = ids[old], ids.get(kept.parent or "")
        twin.heads = {branch: ids.get(head or "") for branch, head in twin.heads.items()}
        twin.forks = {branch: ids.get(fork, fork) for branch, fork in twin.forks.items()}

    @precondition(lambda self: len(self.threads) > 1)
    @rule(data=st.data())
    def drop(self, data) -> None:
        thread = self.a_thread(data)
        assert self.one.delete_thread(thread.id) is True
        del self.threads[thread.id]

    # -- looking -----------------------------------------------------------------------------------------------------------

    @rule(number=st.integers(0, 1))
    def restart(self, number: int) -> None:
        self.pair[number] = self.fresh_checkpointer(number)

    @rule(data=st.data())
    def look_at_a_thread(self, data) -> None:
        thread = self.a_thread(data)
        self.check(thread, self.one)
        assert self.one.verify(thread.id).problems == ()

    @rule(data=st.data())
    def replay(self, data) -> None:
        thread = self.a_thread(data)
        branch = self.a_branch(data, thread)
        found = [(one.id, state) for one, state in self.one.replay(thread.id, branch=branch)]
        line = thread.line(thread.heads[branch])[::-1]
        assert [name for name, _ in found] == line
        assert all(alike(state, thread.kept[name].state) for name, state in found)

    @rule(data=st.data())
    def compare(self, data) -> None:
        thread = self.a_thread(data)
        a, b = self.a_checkpoint(data, thread), self.a_checkpoint(data, thread)
        if a is not None and b is not None:
            found = self.one.compare(a, b)
            assert found.equal == same_but_for_order(thread.kept[a].state, thread.kept[b].state)

    @invariant()
    def the_newest_states_are_right(self) -> None:
        for thread in self.threads.values():
            branch = next(reversed(thread.heads))
            head = thread.heads[branch]
            state = self.one.latest_state(thread.id, branch)
            assert state is None if head is None else alike(state, thread.kept[head].state)

    def check(self, thread: Thread, checkpointer: Any) -> None:
        """Every living checkpoint of a thread, its history and its branches."""
        page = list(checkpointer.get_history(thread.id, include_failed=True, limit=1_000))
        assert [one.id for one in page] == list(thread.kept)[::-1]
        for one in page:
            kept = thread.kept[one.id]
            assert (one.branch, one.status, set(one.tags), one.run_id) == (
                kept.branch,
                kept.status,
                kept.tags,
                kept.run,
            )
            assert one.parent_id == (kept.parent if kept.parent in thread.kept else None)
            assert alike(checkpointer.restore(one.id), kept.state)
        working = [one.id for one in page if one.status != "failed"]
        assert [one.id for one in checkpointer.get_history(thread.id, limit=1_000)] == working
        branches = checkpointer.branches(thread.id)
        assert {one.name: one.head_id for one in branches} == thread.heads
        assert {one.name: one.forked_from_id for one in branches[1:]} == {
            name: fork if fork in thread.kept else None for name, fork in thread.forks.items()
        }


def same_but_for_order(a: Any, b: Any) -> bool:
    """Whether two values are the same to the type; the order of keys says nothing."""
    if type(a) is dict and type(b) is dict:
        return a.keys() == b.keys() and all(same_but_for_order(a[key], b[key]) for key in a)
    if type(a) is type(b) and type(a) in (list, tuple):
        return len(a) == len(b) and all(map(same_but_for_order, a, b))
    return alike(a, b)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database on each engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'life.db'}"
    else:
        yield request.getfixturevalue("fresh_postgres_url")


def lived(url: str, examples: int, steps: int) -> None:
    """Runs that many lives of that many steps, the same ones each time."""
    run_state_machine_as_test(
        lambda: Life(url),
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_every_life_is_as_the_model_says(url: str) -> None:
    lived(url, 20 if url.startswith("sqlite") else 6, 30)


@pytest.mark.full
def test_many_long_lives_are_as_the_model_says(url: str) -> None:
    lived(url, 200, 60)
