"""Rows of checkpoints edited behind perdure's back: swapped, put back, dropped, moved, changed.

With a key, whoever can write to the file or the server must be found out; without one, accidents are. ``verify`` must
find every edit of a thread, and no read may give a wrong answer, except those named here, which cannot know.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from checkpoint_lab import KEY, OTHER_KEY, Editor, Lab, laboratory
from conftest import Tell

import perdure.sync
from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.values.errors import ChecksumMismatch, Damaged, WrongKey

ENGINES = ("sqlite", "postgres")
FLIPS, FLIPS_ON_POSTGRES = 100, 12
EDITS_ON_POSTGRES = 16


@pytest.fixture(params=["sqlite-key", "sqlite-plain", "postgres-key"])
def lab(request, tmp_path) -> Iterator[Lab]:
    """A filled store on either engine, with a key and without."""
    engine, form = request.param.split("-")

    def postgres():
        return request.getfixturevalue("postgres_server"), request.getfixturevalue("fresh_postgres_url")

    with laboratory(engine, tmp_path, KEY if form == "key" else None, postgres) as found:
        found.fill()
        yield found


@pytest.fixture(params=ENGINES)
def keyed(request, tmp_path) -> Iterator[Lab]:
    """The same with a key only."""

    def postgres():
        return request.getfixturevalue("postgres_server"), request.getfixturevalue("fresh_postgres_url")

    with laboratory(request.param, tmp_path, KEY, postgres) as found:
        found.fill()
        yield found


# -- flips ---------------------------------------------------------------------------------------------------------------------

BLOBS = {
    "checkpoint_items": ["payload"], "checkpoint_segments": ["payload", "hash"], "checkpoint_runs": ["mac"],
    "checkpoints": ["mac"], "checkpoint_branches": ["mac"], "checkpoint_threads": ["mac", "pruned"],
}  # fmt: skip
NAMES = {
    "checkpoint_items": ("thread", "log", "ordinal"), "checkpoint_segments": ("ord",),
    "checkpoint_runs": ("thread", "log", "low"), "checkpoints": ("thread", "position"),
    "checkpoint_branches": ("thread", "number"), "checkpoint_threads": ("ord",),
}  # fmt: skip


def places(editor: Editor, thread: int) -> list[tuple[str, str, tuple[Any, ...], bytes]]:
    """Every blob of a thread: table, column, what names its row, and its bytes."""
    found: list[tuple[str, str, tuple[Any, ...], bytes]] = []
    for table, columns in BLOBS.items():
        for column in columns:
            names = NAMES[table]
            scope = "ord" if table == "checkpoint_threads" else "thread"
            where = f"{scope} = ?"
            if table == "checkpoint_segments":
                where = "ord in (select segment from checkpoint_runs where thread = ?)"
            for *name, data in editor.run(f"select {', '.join(names)}, {column} from {table} where {where}", thread):
                if data is not None:
                    found.append((table, column, tuple(name), bytes(data)))
    return found


def flip_each(lab: Lab, number: int, rng: random.Random, tell: Tell, name: str) -> None:
    """Bytes of blobs, each alone: reads answer as before or say what is damaged, and ``verify`` finds it."""
    truth = lab.answers()
    assert "!" not in truth.values()
    assert lab.is_sound()
    thread = lab.editor.one("select ord from checkpoint_threads where id = 't' and tenant = 'default'")
    cases = [
        (table, column, name, data, at)
        for table, column, name, data in places(lab.editor, thread)
        for at in range(len(data))
    ]
    cases = rng.sample(cases, min(len(cases), number))
    figures: Counter[str] = Counter(flips=len(cases), found_by_a_read=0, found_by_verify_only=0, silent=0)
    wrong: list[str] = []
    for table, column, row, data, at in cases:
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        where = " and ".join(f"{part} = ?" for part in NAMES[table])
        lab.editor.run(f"update {table} set {column} = ? where {where}", bytes(changed), *row)
        answers = lab.answers()
        differing = [question for question, answer in answers.items() if answer != truth[question]]
        silent = [question for question in differing if answers[question] != "!"]
        wrong += [f"{table}.{column}{row}[{at}]: {question} is {answers[question][:80]}" for question in silent]
        found = not lab.is_sound()
        figures["found_by_a_read" if differing else "found_by_verify_only" if found else "silent"] += 1
        if not found:
            wrong.append(f"{table}.{column}{row}[{at}] was not found")
        lab.editor.run(f"update {table} set {column} = ? where {where}", data, *row)
    tell(f"{name}_{named(lab)}", **figures)
    assert wrong == []
    assert lab.answers() == truth


def named(lab: Lab) -> str:
    return f"{'postgres' if lab.editor.is_postgres else 'sqlite'}_{'key' if lab.key else 'plain'}"


def test_a_flipped_byte_is_found_or_changes_nothing(lab, seeded_random, tell):
    flip_each(lab, FLIPS_ON_POSTGRES if lab.editor.is_postgres else FLIPS, seeded_random, tell, "checkpoint_flips")


@pytest.mark.full
@pytest.mark.timeout(0)
def test_each_flipped_byte_is_found_or_changes_nothing_full(lab, seeded_random, tell):
    """Every byte of every blob."""
    flip_each(lab, 1_000_000, seeded_random, tell, "checkpoint_flips_full")


# -- edits ---------------------------------------------------------------------------------------------------------------------

Edit = Callable[[Editor, int, int], None]
"""Edits with an editor, given the numbers of thread ``t`` and of thread ``u``."""


def sql(*statements: str) -> Edit:
    """Statements with :t and :u for the numbers of the threads."""

    def edit(editor: Editor, t: int, u: int) -> None:
        for statement in statements:
            editor.run(statement.replace(":t", str(t)).replace(":u", str(u)))

    return edit


def swap(table: str, columns: str, one: str, other: str) -> Edit:
    """What two rows hold, each in the other's place."""

    def edit(editor: Editor, t: int, u: int) -> None:
        wheres = [text.replace(":t", str(t)).replace(":u", str(u)) for text in (one, other)]
        first, second = (editor.run(f"select {columns} from {table} where {where}")[0] for where in wheres)
        assert first != second
        sets = ", ".join(f"{column.strip()} = ?" for column in columns.split(","))
        if "hash" in columns:  # which no two rows may have
            editor.run(f"update {table} set hash = ? where {wheres[1]}", b"aside")
        for where, values in zip(wheres, (second, first), strict=True):
            editor.run(f"update {table} set {sets} where {where}", *values)

    return edit


def item(thread: str, log: int, number: int) -> str:
    """The ``number``-th item of a log that is in no segment, from the end."""
    return (
        f"thread = {thread} and log = {log} and ordinal = (select i.ordinal from checkpoint_items i"
        f" where i.thread = {thread} and i.log = {log} order by i.ordinal desc limit 1 offset {number})"
    )


HEAD = "(select t.head from checkpoint_threads t where t.ord = :t)"
LAST = "(select max(c.position) from checkpoints c where c.thread = :t)"
FIRST = "(select min(c.position) from checkpoints c where c.thread = :t)"
MIDDLE = "(select c.position from checkpoints c where c.thread = :t order by c.position limit 1 offset 1)"
SIDE = "(select b.head from checkpoint_branches b where b.thread = :t and b.name = 'side')"
SEGMENT = "(select min(r.segment) from checkpoint_runs r where r.thread = :t)"
OF_U = "(select min(r.segment) from checkpoint_runs r where r.thread = :u)"

EDITS: dict[str, Edit] = {
    "two entries swapped": swap("checkpoint_items", "payload", item(":t", 0, 0), item(":t", 0, 1)),
    "two values swapped": swap("checkpoint_items", "payload", item(":t", 1, 0), item(":t", 1, 1)),
    "an entry and a value swapped": swap("checkpoint_items", "payload", item(":t", 0, 0), item(":t", 1, 0)),
    "an item of another thread": swap("checkpoint_items", "payload", item(":t", 1, 0), item(":u", 1, 0)),
    "an entry of another thread": swap("checkpoint_items", "payload", item(":t", 0, 0), item(":u", 0, 0)),
    "two segments swapped": swap("checkpoint_segments", "hash, payload", f"ord = {SEGMENT}", f"ord = {OF_U}"),
    "contents of two segments swapped": swap("checkpoint_segments", "payload", f"ord = {SEGMENT}", f"ord = {OF_U}"),
    "runs that lead to each other's segments": swap(
        "checkpoint_runs", "segment", f"thread = :t and segment = {SEGMENT}", f"thread = :u and segment = {OF_U}"
    ),
    "runs swapped whole": swap(
        "checkpoint_runs", "segment, mac", f"thread = :t and segment = {SEGMENT}", f"thread = :u and segment = {OF_U}"
    ),
    "two checkpoints swapped": swap(
        "checkpoints", "parent, branch, status, run_id, size, created_at, mac", f"thread = :t and position = {FIRST}",
        f"thread = :t and position = {LAST}",
    ),
    "an entry dropped": sql(f"delete from checkpoint_items where {item(':t', 0, 0)}"),
    "an older entry dropped": sql(f"delete from checkpoint_items where {item(':t', 0, 1)}"),
    "a value dropped": sql(f"delete from checkpoint_items where {item(':t', 1, 0)}"),
    "a run dropped": sql(f"delete from checkpoint_runs where thread = :t and segment = {SEGMENT}"),
    "a segment dropped": sql(f"delete from checkpoint_segments where ord = {SEGMENT}"),
    "a branch dropped": sql("delete from checkpoint_branches where thread = :t and name = 'side'"),
    "a branch without checkpoints dropped": sql("delete from checkpoint_branches where thread = :t and name = 'still'"),
    "the first checkpoint dropped": sql(f"delete from checkpoints where thread = :t and position = {FIRST}"),
    "a checkpoint dropped": sql(f"delete from checkpoints where thread = :t and position = {MIDDLE}"),
    "the newest dropped": sql(f"delete from checkpoints where thread = :t and position = {HEAD}"),
    "the newest of a branch dropped": sql(f"delete from checkpoints where thread = :t and position = {SIDE}"),
    "the tail cut off": sql(
        f"delete from checkpoint_items where {item(':t', 0, 0)}", f"delete from checkpoints where thread = :t and position = {LAST}",
        f"update checkpoint_threads set next_position = {LAST} + 1, head = (select max(c.position) from checkpoints c"
        " where c.thread = :t and c.branch = 0) where ord = :t",
    ),
    "a branch set back": sql(
        "update checkpoint_branches set head = fork_of where thread = :t and name = 'side'"
    ),
    "a run made longer": sql(f"update checkpoint_runs set high = high + 1 where thread = :t and segment = {SEGMENT}"),
    "a run made shorter": sql(f"update checkpoint_runs set high = high - 1 where thread = :t and segment = {SEGMENT}"),
    "a run moved": sql(f"update checkpoint_runs set low = low + 1 where thread = :t and segment = {SEGMENT}"),
    "a run of another log": sql(f"update checkpoint_runs set log = log + 70 where thread = :t and segment = {SEGMENT}"),
    "an item of another log": sql(f"update checkpoint_items set log = log + 70 where {item(':t', 1, 0)}"),
    "an item of another number": sql(f"update checkpoint_items set ordinal = ordinal + 1 where {item(':t', 0, 0)}"),
    "another's thread": sql(f"update checkpoints set thread = :u where thread = :t and position = {LAST}"),
    **{
        f"checkpoints.{column}": sql(f"update checkpoints set {column} = {value} where thread = :t and position = {MIDDLE}")
        for column, value in {
            "id": "'another'", "parent": "0", "parent ": "null", "branch": "2", "status": "2", "status ": "1",
            "run_id": "'another'", "run_id ": "null", "size": "size + 1", "created_at": "created_at - 60000000",
            "position": "position + 90",
        }.items()
    },
    **{
        f"checkpoint_branches.{column}": sql(
            f"update checkpoint_branches set {column} = {value} where thread = :t and name = 'side'"
        )
        for column, value in {
            "number": "7", "name": "'another'", "id": "'another'", "head": "head - 1", "fork_of": "fork_of + 1", "metadata": "'{}'",
            "created_at": "created_at + 1",
        }.items()
    },
    **{
        f"checkpoint_threads.{column}": sql(f"update checkpoint_threads set {column} = {value} where ord = :t")
        for column, value in {
            "id": "'another'", "space": "'another'", "tenant": "'another'", "version": "version - 1",
            "domain": "'0011223344556677'", "next_position": "next_position + 1", "next_position ": "next_position - 1",
            "next_log": "next_log - 1", "head": "head - 1", "head ": "null", "in_order": "0", "pruned": "null",
            "created_at": "created_at + 1", "updated_at": "updated_at + 1",
        }.items()
    },
}  # fmt: skip
"""Edits of thread ``t``."""

GONE = "*"
KNOWS_NOT: dict[str, set[str]] = {
    "a checkpoint dropped": {"get1", "restore1"},
    "another's thread": {"working"},
    "the first checkpoint dropped": {"get0", "restore0", "compare"},
    "the newest dropped": {"get2", "restore2", "working"},
    "the newest of a branch dropped": {"get3", "restore3", "compare", "working"},
    "the tail cut off": {"get2", "restore2", "working"},
    "checkpoints.id": {"get1", "restore1", "get2", "latest", "branches"},
    "checkpoints.status ": {"working"},
    "checkpoint_threads.id": {GONE},
    "checkpoint_threads.space": {GONE},
    "checkpoint_threads.tenant": {GONE},
}
"""What only other reads and ``verify`` find: a checkpoint that is missing is, for its id, one that never was; a history
without failed ones cannot tell one that is missing from one that failed; a parent's id is the parent's own to prove; and
a whole thread that is not there was never there."""


def edit_each(lab: Lab, names: list[str], tell: Tell, figure: str) -> None:
    """``verify`` finds each edit; a read finds it or answers as before, but for those that cannot know."""
    truth, rows = lab.answers(), lab.editor.take()
    assert lab.is_sound()
    t, u = (
        lab.editor.one(f"select ord from checkpoint_threads where id = '{name}' and tenant = 'default'")
        for name in "tu"
    )
    figures: Counter[str] = Counter(edits=len(names), found_by_verify=0, found_by_a_read=0)
    missed: list[str] = []
    silent: dict[str, dict[str, str]] = {}
    for name in names:
        EDITS[name](lab.editor, t, u)
        assert lab.editor.take() != rows, name
        answers = lab.answers()
        sound = lab.is_sound()
        lab.editor.put(rows)
        figures["found_by_verify"] += not sound
        figures["found_by_a_read"] += "!" in answers.values()
        if sound:
            missed.append(name)
        wrong = {ask: answer for ask, answer in answers.items() if answer not in {truth[ask], "!"}}
        if wrong:
            silent[name] = wrong
    tell(f"{figure}_{named(lab)}", **figures)
    assert lab.answers() == truth
    assert missed == []
    for name, wrong in silent.items():
        allowed = KNOWS_NOT.get(name, set())
        assert GONE in allowed or set(wrong) <= allowed, (name, wrong)


def test_each_edit_is_found(lab, seeded_random, tell):
    names = seeded_random.sample(list(EDITS), EDITS_ON_POSTGRES) if lab.editor.is_postgres else list(EDITS)
    edit_each(lab, names, tell, "checkpoint_edits")


@pytest.mark.full
def test_each_edit_is_found_full(lab, tell):
    edit_each(lab, list(EDITS), tell, "checkpoint_edits_full")


# -- put back ------------------------------------------------------------------------------------------------------------------


def number_of(editor: Editor, thread: str, tenant: str = "default") -> int:
    return editor.one("select ord from checkpoint_threads where id = ? and tenant = ? and space = ''", thread, tenant)


def put_back(editor: Editor, table: str, before: list[tuple[Any, ...]], names: str) -> int:
    """Puts every older form of a row in the place of the newer one; how many there were."""
    columns = column_names(editor, table)
    keys = [columns.index(name.strip()) for name in names.split(",")]
    now = {tuple(row[at] for at in keys): row for row in editor.run(f"select * from {table}")}
    found = 0
    for row in before:
        key = tuple(row[at] for at in keys)
        if key in now and now[key] != row:
            sets = ", ".join(f"{column} = ?" for column in columns if column != "ord")
            where = " and ".join(f"{columns[at]} = ?" for at in keys)
            values = [value for column, value in zip(columns, row, strict=True) if column != "ord"]
            editor.run(f"update {table} set {sets} where {where}", *values, *key)
            found += 1
    return found


def column_names(editor: Editor, table: str) -> list[str]:
    if editor.is_postgres:
        return [name for (name,) in editor.run(
            "select column_name::text from information_schema.columns where table_name = ? order by ordinal_position", table
        )]  # fmt: skip
    return [row[1] for row in editor.run(f"pragma table_info({table})")]


def test_an_older_row_put_back_is_found(lab):
    """Each row that changes over time, alone, as it was before."""
    checkpointer = lab.checkpointer()
    before = lab.editor.take()
    checkpointer.save("t", {"n": 100})
    checkpointer.save("t", {"n": 101}, branch="side")
    assert lab.is_sound()
    rows = lab.editor.take()
    for table, names in (("checkpoint_threads", "ord"), ("checkpoint_branches", "tenant, thread, number")):
        assert put_back(lab.editor, table, before[table], names) == 1
        assert not lab.is_sound()
        lab.editor.put(rows)
    assert lab.is_sound()


def test_what_a_thread_of_the_same_name_held_before_is_found(keyed):
    """A thread that was deleted and made again: no row of its first life opens in the second."""
    checkpointer = keyed.checkpointer(compression="none")

    def live(word: str) -> str:
        return [checkpointer.save("again", {"text": f"{word} " * 9, "list": [word] * 70}) for _ in range(3)][-1]

    live("first")
    ord_before = number_of(keyed.editor, "again")
    items = keyed.editor.run("select log, ordinal, payload from checkpoint_items where thread = ?", ord_before)
    runs = keyed.editor.run("select log, low, segment, mac from checkpoint_runs where thread = ?", ord_before)
    checkpointer.delete_thread("again")
    last = live("second")
    ord_now = number_of(keyed.editor, "again")
    rows = keyed.editor.take()
    assert items
    assert runs
    for log, ordinal, payload in items:
        keyed.editor.run(
            "update checkpoint_items set payload = ? where thread = ? and log = ? and ordinal = ?",
            payload,
            ord_now,
            log,
            ordinal,
        )
        assert not keyed.checkpointer().verify("again").ok
        keyed.editor.put(rows)
    for log, low, _, mac in runs:
        keyed.editor.run(
            "update checkpoint_runs set mac = ? where thread = ? and log = ? and low = ?", mac, ord_now, log, low
        )
        with pytest.raises(ChecksumMismatch):
            keyed.checkpointer().restore(last)
        keyed.editor.put(rows)
    assert keyed.checkpointer().restore(last)["list"] == ["second"] * 70


def test_rows_of_another_tenant_and_of_a_copy_are_found(keyed):
    """What is equal in content is still bound to its tenant, its thread and its place."""
    checkpointer = keyed.checkpointer(compression="none")
    checkpointer.copy_thread("u", "copy")
    rows = keyed.editor.take()
    u = number_of(keyed.editor, "u")
    for other in (number_of(keyed.editor, "copy"), number_of(keyed.editor, "t", "beta")):
        for table, column in (("checkpoint_items", "payload"), ("checkpoint_runs", "mac"), ("checkpoints", "mac")):
            names = [name for name in NAMES[table] if name != "thread"]
            theirs = {
                tuple(row[:-1]): row[-1]
                for row in keyed.editor.run(f"select {', '.join(names)}, {column} from {table} where thread = ?", other)
            }
            assert theirs
            for name, value in theirs.items():
                where = " and ".join(f"{part} = ?" for part in names)
                changed = keyed.editor.run(f"select 1 from {table} where thread = ? and {where}", u, *name)
                keyed.editor.run(f"update {table} set {column} = ? where thread = ? and {where}", value, u, *name)
                assert keyed.checkpointer().verify("u").ok is not bool(changed), (table, name)
                keyed.editor.put(rows)
    keyed.editor.run("update checkpoint_segments set tenant = 'default' where tenant = 'beta'")
    assert keyed.checkpointer().verify().ok
    assert not keyed.checkpointer(tenant="beta").verify("t").ok


# -- what would wash an edit clean ------------------------------------------------------------------------------------------------


UNDER_A_CHANGE = (
    "the tail cut off", "a branch set back", "checkpoint_threads.head", "checkpoint_threads.next_log", "checkpoint_threads.pruned",
    "a branch dropped", "the newest dropped",
)  # fmt: skip


def test_nothing_is_written_upon_an_edited_thread(lab):
    """A change would put a right code on a wrong row: it is refused, or what is wrong is still found afterwards."""
    t, u = number_of(lab.editor, "t"), number_of(lab.editor, "u")
    ids, sound = lab.ids["t"], lab.editor.take()
    changes: list[Callable[[Any], Any]] = [
        lambda c: c.save("t", {"n": 1}),
        lambda c: c.save("t", {"n": 1}, branch="side"),
        lambda c: c.create_branch(ids[0], "more"),
        lambda c: c.copy_thread("t", "copy"),
        lambda c: c.rotate_keys(OTHER_KEY),
        lambda c: lab.checkpointer(max_checkpoints_per_thread=1, keep_minimum=0).apply_retention("t"),
        lambda c: c.delete_for_runs("r"),
    ]
    for name in UNDER_A_CHANGE:
        EDITS[name](lab.editor, t, u)
        rows = lab.editor.take()
        for change in changes:
            try:
                change(lab.checkpointer())
            except Damaged:
                pass
            else:
                assert not lab.checkpointer().verify("t").ok, name
            lab.editor.put(rows)
        lab.editor.put(sound)
    assert lab.is_sound()


def test_a_number_is_not_given_out_again_when_a_run_was_dropped(keyed):
    """A log that seems shorter than it was: what is appended would be read in place of what is gone."""
    checkpointer = keyed.checkpointer()
    for step in range(64):
        last = checkpointer.save("values", {"text": f"value {step} " * 5})
    ord = number_of(keyed.editor, "values")
    assert keyed.editor.run("select 1 from checkpoint_runs where thread = ? and log = 1", ord)
    assert not keyed.editor.run("select 1 from checkpoint_items where thread = ? and log = 1", ord)
    keyed.editor.run("delete from checkpoint_runs where thread = ? and log = 1", ord)
    with pytest.raises(ChecksumMismatch):
        keyed.checkpointer().save("values", {"text": "another value " * 5})
    with pytest.raises(ChecksumMismatch):
        keyed.checkpointer().restore(last)


def test_what_is_not_found(keyed):
    """The limits that docs/guarantees.md names: a whole thread as it was before, tags, a thread that is gone."""
    t = number_of(keyed.editor, "t")
    before = keyed.editor.take()
    keyed.checkpointer().save("t", {"n": 100})
    keyed.editor.put(before)
    assert keyed.is_sound()
    keyed.editor.run("insert into checkpoint_tags (tenant, thread, tag, position) values ('default', ?, 'planted', ?)", t,
                     keyed.editor.one("select max(position) from checkpoints where thread = ?", t))  # fmt: skip
    assert keyed.is_sound()
    keyed.editor.run("delete from checkpoint_threads where ord = ?", t)
    assert keyed.checkpointer().verify().ok
    assert keyed.checkpointer().get(keyed.ids["t"][0]) is None


# -- keys ----------------------------------------------------------------------------------------------------------------------


def test_another_key_opens_and_changes_nothing(keyed):
    rows = keyed.editor.take()
    for key in (OTHER_KEY, "a passphrase"):
        stranger = perdure.sync.Checkpointer(keyed.store, CheckpointConfig(encryption_key=key))
        for ask in keyed.questions().values():
            with pytest.raises(WrongKey):
                ask(stranger)
        for change in writes(keyed):
            with pytest.raises(WrongKey):
                change(stranger)
        assert keyed.editor.take() == rows
    assert keyed.is_sound()


def writes(lab: Lab) -> list[Callable[[Any], Any]]:
    ids = lab.ids["t"]
    return [
        lambda c: c.save("t", {"n": 1}), lambda c: c.save("t", {"n": 1}, branch="side"), lambda c: c.create_branch(ids[0], "b"),
        lambda c: c.copy_thread("t", "copy"), lambda c: c.merge("t", "main", "side"), lambda c: c.delete_for_runs("r"),
        lambda c: c.apply_retention("t"), lambda c: c.export_thread("t"),
    ]  # fmt: skip


def test_without_a_key_nothing_of_a_sealed_thread_opens_and_nothing_changes(keyed):
    rows = keyed.editor.take()
    keyless = perdure.sync.Checkpointer(keyed.store)
    for name, ask in keyed.questions().items():
        with pytest.raises(WrongKey):
            ask(keyless)
            raise AssertionError(name)
    for number, change in enumerate(writes(keyed)):
        with pytest.raises(WrongKey):
            change(keyless)
            raise AssertionError(number)
    assert keyed.editor.take() == rows
    assert keyed.is_sound()
    assert not keyless.verify("t").ok


@pytest.mark.parametrize("engine", ENGINES)
def test_a_plain_thread_is_read_as_it_is_and_sealed_when_it_is_written(request, tmp_path, engine):
    def postgres():
        return request.getfixturevalue("postgres_server"), request.getfixturevalue("fresh_postgres_url")

    with laboratory(engine, tmp_path, None, postgres) as lab:
        lab.fill()
        truth = lab.answers()
        times = lab.editor.run("select created_at from checkpoint_threads where id = 't' and tenant = 'default'")
        lab.key = KEY
        assert lab.answers() == truth
        lab.checkpointer().create_branch(lab.ids["t"][-1], "new")
        assert lab.editor.one("select domain from checkpoint_threads where id = 't' and tenant = 'default'") != "plain"
        assert (
            lab.editor.run("select created_at from checkpoint_threads where id = 't' and tenant = 'default'") == times
        )
        after = lab.answers()
        assert {name for name in truth if after[name] != truth[name]} == {"branches", "export"}
        assert lab.checkpointer().verify().ok
        assert perdure.sync.Checkpointer(lab.store).latest("u") is not None
        with pytest.raises(WrongKey):
            perdure.sync.Checkpointer(lab.store).latest("t")


def test_a_wrapped_key_that_was_edited_opens_nothing(keyed, seeded_random):
    """The rows of ``checkpoint_keys``: a changed one is damage, or a key that does not fit, never garbage."""
    rows = keyed.editor.take()
    for column in ("wrapped", "salt"):
        data = bytes(keyed.editor.one(f"select {column} from checkpoint_keys where tenant = 'default'"))
        for at in range(0, len(data), 3):
            changed = bytearray(data)
            changed[at] ^= 1 << seeded_random.randrange(8)
            keyed.editor.run(f"update checkpoint_keys set {column} = ? where tenant = 'default'", bytes(changed))
            with pytest.raises(Damaged):
                keyed.checkpointer().latest("t")
            with pytest.raises(Damaged):
                keyed.checkpointer().save("new", {"n": 1})
            keyed.editor.put(rows)
    for statement in (
        "update checkpoint_keys set domain = '0011223344556677' where tenant = 'default'",
        "update checkpoint_keys set params = '{}' where tenant = 'default'",
        "update checkpoint_keys set kek_id = 'x' where tenant = 'default'",
    ):
        keyed.editor.run(statement)
        with pytest.raises(Damaged):
            keyed.checkpointer().latest("t")
        keyed.editor.put(rows)
