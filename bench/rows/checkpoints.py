"""P6, P7, P9, P14: checkpoints of a long conversation, beside LangGraph's savers."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from bench import lanes, states
from bench.places import describe, memory_folder
from bench.rounds import Check, Lane, Rounds, Row, Spent, Time, Watch, faster, interleave, slower, times
from bench.rows import Mode
from bench.states import CONFIGS, THREAD
from perdure.testing.postgres import PostgresServer

_STEPS = 1_000
_KB = 1_000
_TABLES = """
select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm', 'p') and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_'
"""

# -- P6 --------------------------------------------------------------------------------------------------------------------


def sizes(mode: Mode) -> Row:
    """P6: bytes of 1,000 checkpoints of a growing conversation. Nothing is timed, so one round is enough."""
    del mode
    said = states.messages(_STEPS)
    raw = states.raw_json(said)
    with memory_folder() as folder:
        empty = states.empty_size(folder)
        files = {name: _perdure_file(folder / f"{number}.db", said, name) for number, name in enumerate(CONFIGS)}
        largest = ", ".join(f"{table} {size // _KB}" for table, size in states.pages_of(folder / "1.db")[:5])
        with states.sqlite_saver(folder / "saver.db") as saver:
            states.put_all(saver, said)
        theirs = states.on_disk(folder / "saver.db")
        mine_pg, empty_pg, theirs_pg = _postgres_sizes(folder, said)
    mine = files["zstd"]
    checks = [
        Check("whole file / raw JSON", mine / raw, goal=1.2, key="P6.file"),
        Check("growth over an empty store / raw JSON", (mine - empty) / raw, goal=1.2, key="P6.growth"),
        *(
            Check(f"{name}: {what} / raw JSON", value / raw)
            for name, size in files.items() if name != "zstd"
            for what, value in (("whole file", size), ("growth", size - empty))
        ),
        Check("whole file, times smaller than SqliteSaver's", theirs / mine, goal=300, sense="at least", key="P6.sqlite"),
        Check("growth, times smaller than SqliteSaver's", theirs / (mine - empty)),
        Check("PostgreSQL: growth / raw JSON", (mine_pg - empty_pg) / raw),
        Check("PostgreSQL: growth, times smaller than PostgresSaver's", theirs_pg / (mine_pg - empty_pg), goal=150, sense="at least", key="P6.postgres"),
        Check("PostgreSQL: all tables, times smaller than PostgresSaver's", theirs_pg / mine_pg),
    ]  # fmt: skip
    found = {
        "raw JSON text of the final state": raw, "perdure's file": mine, "perdure's file, empty": empty,
        "SqliteSaver's file": theirs, "perdure's tables in PostgreSQL": mine_pg,
        "perdure's tables in PostgreSQL, empty": empty_pg, "PostgresSaver's growth": theirs_pg,
    }  # fmt: skip
    setting = f"{_STEPS:,} steps, each with one more message of 400 bytes; files after closing, pg_total_relation_size"
    return Row(
        "P6", "Bytes of 1,000 checkpoints", setting, checks,
        [Time(name, size / _KB, "KB") for name, size in found.items()], [f"The largest of perdure's file, in KB: {largest}."],
    )  # fmt: skip


def _perdure_file(path: Path, said: list[dict[str, Any]], name: str) -> int:
    with states.checkpointer(lanes.url(path), CONFIGS[name]) as checkpointer:
        ids = states.save_all(checkpointer, said)
        assert checkpointer.restore(ids[499]) == states.state(said, 500)
    return states.on_disk(path)


def _postgres_sizes(folder: Path, said: list[dict[str, Any]]) -> tuple[int, int, int]:
    """perdure's tables, the same when empty, and what PostgresSaver's grew."""
    with PostgresServer(folder / "cluster") as server:
        mine, theirs = server.create_database(), server.create_database()
        with states.checkpointer(mine, CONFIGS["zstd"]) as checkpointer:
            checkpointer.latest(THREAD)
            empty = _tables(server.admin_url(mine))
            states.save_all(checkpointer, said)
        with states.postgres_saver(theirs) as saver:
            before = _tables(server.admin_url(theirs))
            states.put_all(saver, said)
        return _tables(server.admin_url(mine)), empty, _tables(server.admin_url(theirs)) - before


def _tables(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(_TABLES).fetchone()
        assert row is not None
        return int(row[0])


# -- P7 --------------------------------------------------------------------------------------------------------------------

_BEFORE = 980
_SAVED = 40
_RESTORED = 20


def saving(mode: Mode) -> Row:
    """P7: one save at step 10 and at step 1,000, beside SqliteSaver; and restoring step 500."""
    said = states.messages(_BEFORE + _SAVED)
    objects = states.objects(said)
    with memory_folder() as folder, ExitStack() as open_ones:
        enter = open_ones.enter_context

        def savers(name: str) -> list[Any]:
            return [states.perdure_saver(folder / f"mine-{name}.db"), states.sqlite_saver(folder / f"theirs-{name}.db")]

        put, put_objects, get, get_objects = map(savers, ("put", "objects", "get", "get-objects"))
        saved = interleave({
            "perdure, step 10": enter(_early(folder / "early.db", said)),
            "perdure, step 1,000": enter(_late(folder / "late.db", said)),
            "PerdureSaver.put, step 1,000": enter(_put(put[0], said)),
            "SqliteSaver.put, step 1,000": enter(_put(put[1], said)),
            "PerdureSaver.put, step 1,000, message objects": enter(_put(put_objects[0], objects)),
            "SqliteSaver.put, step 1,000, message objects": enter(_put(put_objects[1], objects)),
        }, mode.rounds)  # fmt: skip
        restored = interleave({
            **{f"perdure, {name}: restore of step 500": enter(_restore(folder / f"{number}.db", said, name))
               for number, name in enumerate(CONFIGS)},
            "PerdureSaver.get_tuple of step 500": enter(_get_tuple(get[0], said)),
            "SqliteSaver.get_tuple of step 500": enter(_get_tuple(get[1], said)),
            "PerdureSaver.get_tuple of step 500, message objects": enter(_get_tuple(get_objects[0], objects)),
            "SqliteSaver.get_tuple of step 500, message objects": enter(_get_tuple(get_objects[1], objects)),
        }, mode.rounds)  # fmt: skip
        place = describe(folder)
    setting = (
        f"{place}, NORMAL, write-ahead log for both; {mode.rounds} rounds; p50 of {_SAVED} blocking saves in a fresh thread of "
        f"{_BEFORE} steps, or of steps 6 to 15 in 4 fresh threads; p50 of {_RESTORED} restores; messages of 400 bytes, as "
        "plain mappings or as LangChain's objects"
    )
    return Row("P7", "Saving and restoring one checkpoint", setting, _judged(saved, restored), times(saved | restored))


def _judged(saved: Rounds, restored: Rounds) -> list[Check]:
    late, peer, plain = "perdure, step 1,000", "SqliteSaver.put, step 1,000", "perdure, plain: restore of step 500"
    get = "SqliteSaver.get_tuple of step 500"
    mine, objects = "PerdureSaver.put, step 1,000", ", message objects"
    return [
        Check("p50 of save at step 1,000 / step 10", *slower(saved, late, "perdure, step 10"), goal=1.5, key="P7.flat"),
        Check("save at step 1,000, times as fast as SqliteSaver.put, mappings", *faster(saved, late, peer), goal=20, sense="at least", key="P7.mappings"),
        Check("PerdureSaver.put, times as fast as SqliteSaver.put, mappings", *faster(saved, mine, peer)),
        Check("PerdureSaver.put, times as fast as SqliteSaver.put, message objects", *faster(saved, mine + objects, peer + objects), goal=20, sense="at least", key="P7.objects"),
        Check("save of mappings, times as fast as SqliteSaver.put of message objects", *faster(saved, late, peer + objects)),
        Check("restore of step 500, plain", *_milliseconds(restored[plain]), unit="ms", goal=1, key="P7.restore"),
        Check("restore, plain, times as fast as SqliteSaver.get_tuple, mappings", *faster(restored, plain, get)),
        Check("restore, zstd, times as fast as SqliteSaver.get_tuple, mappings", *faster(restored, "perdure, zstd: restore of step 500", get)),
        Check("PerdureSaver.get_tuple, times as fast as SqliteSaver.get_tuple, mappings", *faster(restored, "PerdureSaver.get_tuple of step 500", get)),
        Check("PerdureSaver.get_tuple, times as fast as SqliteSaver.get_tuple, message objects", *faster(restored, "PerdureSaver.get_tuple of step 500" + objects, get + objects)),
    ]  # fmt: skip


def _milliseconds(found: list[Spent]) -> tuple[float, float, float]:
    walls = [one.wall * 1e3 for one in found]
    return median(walls), max(walls), median(one.cpu for one in found) * 1e3


def _each(calls: list[Callable[[], object]]) -> Spent:
    """The median call."""
    walls: list[float] = []
    cpus: list[float] = []
    for call in calls:
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Spent(median(walls), median(cpus))


def _saves(checkpointer: Any, said: list[Any], thread: str, first: int) -> list[Callable[[], object]]:
    given = [states.state(said, step) for step in range(first, len(said) + 1)]
    return [lambda one=one: checkpointer.save(thread, one) for one in given]


@contextmanager
def _early(path: Path, said: list[dict[str, Any]]) -> Iterator[Lane]:
    fresh = _names()
    with states.checkpointer(lanes.url(path), CONFIGS["zstd"]) as checkpointer:

        def lane() -> Spent:
            calls: list[Callable[[], object]] = []
            for _ in range(4):
                thread = next(fresh)
                states.save_all(checkpointer, said[:5], thread)
                calls += _saves(checkpointer, said[:15], thread, 6)
            return _each(calls)

        yield lane


@contextmanager
def _late(path: Path, said: list[dict[str, Any]], name: str = "zstd") -> Iterator[Lane]:
    fresh = _names()
    with states.checkpointer(lanes.url(path), CONFIGS[name]) as checkpointer:

        def lane() -> Spent:
            thread = next(fresh)
            states.save_all(checkpointer, said[:_BEFORE], thread)
            return _each(_saves(checkpointer, said, thread, _BEFORE + 1))

        yield lane


@contextmanager
def _put(opening: Any, said: list[Any]) -> Iterator[Lane]:
    """A thread's first checkpoint is put at step 980 here: what a put costs does not depend on those before it."""
    fresh = _names()
    with opening as saver:

        def lane() -> Spent:
            thread = next(fresh)
            config = states.put_all(saver, said[:_BEFORE], thread, _BEFORE)[0]

            def call(step: int, values: dict[str, Any]) -> None:
                nonlocal config
                config = states.put(saver, config, values, step)

            steps = range(_BEFORE + 1, len(said) + 1)
            given = [(step, states.state(said, step)) for step in steps]
            spent = _each([lambda one=one: call(*one) for one in given])
            saver.delete_thread(thread)
            return spent

        yield lane


def _names() -> Iterator[str]:
    number = 0
    while True:
        yield f"thread-{number}"
        number += 1


@contextmanager
def _restore(path: Path, said: list[dict[str, Any]], name: str) -> Iterator[Lane]:
    with states.checkpointer(lanes.url(path), CONFIGS[name]) as checkpointer:
        chosen = states.save_all(checkpointer, said[:_STEPS])[499]
        yield lambda: _each([lambda: checkpointer.restore(chosen)] * _RESTORED)


@contextmanager
def _get_tuple(opening: Any, said: list[Any]) -> Iterator[Lane]:
    """The checkpoint of step 500, which is the 21st of 40 here: SqliteSaver's reading does not depend on the others."""
    with opening as saver:
        chosen = states.put_all(saver, said[:520], THREAD, 480)[20]
        yield lambda: _each([lambda: saver.get_tuple(chosen)] * _RESTORED)


# -- P9 --------------------------------------------------------------------------------------------------------------------


def listing(mode: Mode) -> Row:
    """P9: the history of 1,000 checkpoints, newest first."""
    said = states.messages(_STEPS)
    rounds = min(mode.rounds, 3)
    mine, objects = "get_history(limit=1000)", ", message objects"
    with memory_folder() as folder, ExitStack() as open_ones:
        enter = open_ones.enter_context
        checkpointer = enter(states.checkpointer(lanes.url(folder / "one.db"), CONFIGS["zstd"]))
        states.save_all(checkpointer, said)
        plain = _lists(enter, folder, said, "")
        found = interleave({
            mine: _counting(lambda: checkpointer.get_history(THREAD, limit=_STEPS)),
            "get_history, without metadata": _counting(
                lambda: checkpointer.get_history(THREAD, include_metadata=False, limit=_STEPS)
            ),
        } | plain, rounds, warm_up=1)  # fmt: skip
        once = interleave(_lists(enter, folder, states.objects(said), objects), 1, warm_up=0)
        place = describe(folder)
    checks = [
        Check("get_history of 1,000 checkpoints", *_milliseconds(found[mine]), unit="ms", goal=300, key="P9.history"),
        Check("times as fast as SqliteSaver.list, mappings", *faster(found, mine, "SqliteSaver.list")),
        Check("PerdureSaver.list, times as fast as SqliteSaver.list, mappings", *faster(found, "PerdureSaver.list", "SqliteSaver.list")),
        Check("PerdureSaver.list, times as fast as SqliteSaver.list, message objects", *faster(once, "PerdureSaver.list" + objects, "SqliteSaver.list" + objects)),
    ]  # fmt: skip
    notes = [
        "`list` of both savers decodes every state, as LangGraph's interface asks for; `get_history` decodes none.",
    ]
    setting = f"{place}; a thread of {_STEPS:,} steps, each with one more message; {rounds} rounds; message objects are listed once"
    return Row("P9", "History of 1,000 checkpoints", setting, checks, times(found | once), notes)


def _lists(enter: Callable[[Any], Any], folder: Path, said: list[Any], suffix: str) -> dict[str, Lane]:
    """Both savers' lists of a thread of these messages."""
    savers = {
        "SqliteSaver.list": enter(states.sqlite_saver(folder / f"theirs{len(suffix)}.db")),
        "PerdureSaver.list": enter(states.perdure_saver(folder / f"mine{len(suffix)}.db")),
    }
    for saver in savers.values():
        states.put_all(saver, said)
    config = {"configurable": {"thread_id": THREAD}}
    return {name + suffix: _counting(lambda one=one: list(one.list(config))) for name, one in savers.items()}


def _counting(call: Callable[[], Any]) -> Lane:
    def lane() -> Spent:
        watch = Watch()
        found = len(call())
        spent = watch.each(1)
        assert found == _STEPS
        return spent

    return lane


# -- P14 -------------------------------------------------------------------------------------------------------------------

_FRESH = 64


def protected(mode: Mode) -> Row:
    """P14: what compressing and encrypting add to the save of a step with one more message."""
    said, rounds = states.messages(_FRESH), 3 * mode.rounds
    with memory_folder() as folder, ExitStack() as open_ones:
        enter = open_ones.enter_context
        found = interleave(
            {name: enter(_steps(folder / f"{number}.db", said, name)) for number, name in enumerate(CONFIGS)}, rounds
        )
        place = describe(folder)
    checks = [
        Check("encrypted, zstd / plain", *slower(found, "encrypted, zstd", "plain"), goal=1.5, key="P14.both"),
        Check("zstd / plain", *slower(found, "zstd", "plain")),
        Check("encrypted / plain", *slower(found, "encrypted", "plain")),
    ]
    setting = (
        f"{place}, NORMAL; {rounds} rounds of a fresh thread of {_FRESH} steps, a message of 400 bytes each; the mean"
    )
    return Row("P14", "Saving a message encrypted and compressed", setting, checks, times(found))


@contextmanager
def _steps(path: Path, said: list[dict[str, Any]], name: str) -> Iterator[Lane]:
    fresh = _names()
    given = [states.state(said, step) for step in range(1, len(said) + 1)]
    with states.checkpointer(lanes.url(path), CONFIGS[name]) as checkpointer:

        def lane() -> Spent:
            thread = next(fresh)
            watch = Watch()
            for one in given:
                checkpointer.save(thread, one)
            return watch.each(len(given))

        yield lane
