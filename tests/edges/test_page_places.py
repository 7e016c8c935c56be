"""Checksums that hold in one place of one file: which files have them, and that nothing else is changed by them."""

import sqlite3
from pathlib import Path

import apsw
import pytest

import perdure
import perdure.sync
from perdure.drivers.sqlite import connection, places

MARK = slice(72, 80)
DRAWN = slice(80, 88)
PAGE = 4096


def fill(path: Path) -> list[str]:
    """A store at this path, with enough in it for many pages; the texts that it holds."""
    texts = [f"message {number} " + "tide " * 300 for number in range(60)]
    with perdure.sync.open(path) as store:
        store.create_conversation("helper", "ann", id="c")
        store.add_messages("c", [{"role": "user", "content": text} for text in texts])
    return texts


def texts_in(path: Path) -> list[str]:
    with perdure.sync.open(path) as store:
        assert store.doctor()["problems"] == []
        return [str(message.content) for message in store.get_messages("c", 100)]


def bare(path: Path, *, wanted: bool, reserve: bool = True) -> apsw.Connection:
    """A connection of somebody who uses SQLite's checksum VFS in the same process."""
    vfs = connection.checksum_vfs()
    assert vfs is not None
    uri = f"file:{path}?{places.WANTED}={int(wanted)}"
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    found = apsw.Connection(uri, flags, vfs=vfs)
    if reserve:
        connection._reserve(found)
    return found


def test_a_new_file_is_marked_with_a_number_of_its_own(tmp_path):
    for name in ("one.db", "two.db"):
        fill(tmp_path / name)
        with perdure.sync.open(tmp_path / name) as store:
            assert store.doctor()["page_places"] is True
    heads = [(tmp_path / name).read_bytes()[:100] for name in ("one.db", "two.db")]
    assert [head[MARK] for head in heads] == [b"places/1"] * 2
    assert heads[0][DRAWN] != heads[1][DRAWN]


@pytest.mark.parametrize("name", ["a ?#%&+.db", "%41.db", "höhe.db"])
def test_a_path_is_taken_as_it_is(tmp_path, name):
    texts = fill(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert texts_in(tmp_path / name) == texts


def test_every_page_moved_by_one_is_found(tmp_path):
    """Each page written over the next: whatever reads it says so."""
    path = tmp_path / "store.db"
    fill(path)
    sound = path.read_bytes()
    vfs = connection.checksum_vfs()
    for start in range(PAGE, len(sound) - PAGE, PAGE):
        path.write_bytes(sound[: start + PAGE] + sound[start : start + PAGE] + sound[start + 2 * PAGE :])
        damaged = apsw.Connection(str(path), vfs=vfs)
        found: list[str] = []
        try:
            found += [row[0] for row in damaged.execute("pragma integrity_check")]
        except apsw.IOError as error:
            found.append(str(error.extendedresult))
        damaged.close()
        assert str(apsw.SQLITE_IOERR_DATA) in " ".join(found), start // PAGE


def test_other_tools_read_a_marked_file(tmp_path):
    fill(tmp_path / "store.db")
    plain = sqlite3.connect(tmp_path / "store.db")
    assert plain.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert plain.execute("select count(*) from messages").fetchone() == (60,)
    plain.close()


def test_a_file_with_checksums_that_are_not_bound_stays_so(tmp_path):
    """It was made by somebody else, or before perdure bound them."""
    path = tmp_path / "store.db"
    made = bare(path, wanted=False)
    made.execute("pragma journal_mode = wal")
    made.execute("create table theirs (a)")
    made.close()
    texts = fill(path)
    assert texts_in(path) == texts
    with perdure.sync.open(path) as store:
        report = store.doctor()
    assert (report["page_checksums"], report["page_places"]) == (True, False)
    data = bytearray(path.read_bytes())
    assert data[MARK] == bytes(8)
    data[data.find(b"message 7") + 2] ^= 1
    path.write_bytes(data)
    with perdure.sync.open(path) as store, pytest.raises(perdure.ChecksumMismatch):
        store.get_messages("c", 100)


def test_a_file_without_checksums_stays_so(tmp_path):
    path = tmp_path / "store.db"
    made = sqlite3.connect(path)
    made.execute("create table theirs (a)")
    made.close()
    texts = fill(path)
    assert texts_in(path) == texts
    with perdure.sync.open(path) as store:
        report = store.doctor()
    assert (report["page_checksums"], report["page_places"]) == (False, False)
    assert path.read_bytes()[MARK] == bytes(8)


def test_only_who_asks_for_it_marks_a_file_with_checksums(tmp_path):
    for wanted, reserve, marked in ((True, True, True), (False, True, False), (True, False, False)):
        path = tmp_path / f"{wanted}{reserve}.db"
        made = bare(path, wanted=wanted, reserve=reserve)
        made.execute("create table t (a)")
        made.execute("insert into t values (zeroblob(9000))")
        assert made.execute("select length(a) from t").get == 9000
        made.close()
        assert (path.read_bytes()[MARK] == b"places/1") is marked


def test_vacuum_keeps_the_places(tmp_path):
    path = tmp_path / "store.db"
    texts = fill(path)
    drawn = path.read_bytes()[DRAWN]
    tidied = bare(path, wanted=False)
    tidied.execute("vacuum")
    tidied.close()
    assert path.read_bytes()[MARK] == b"places/1"
    assert path.read_bytes()[DRAWN] == drawn
    assert texts_in(path) == texts


def test_a_file_whose_making_was_taken_back_is_made_anew(tmp_path):
    """The first transaction spilled into the file, and what it had written was cut off."""
    path = tmp_path / "store.db"
    made = bare(path, wanted=True)
    made.execute("pragma cache_size = 10")
    made.execute("begin")
    made.execute("create table theirs (a)")
    made.execute("with recursive n (i) as (select 1 union all select i + 1 from n where i < 500) "
                 "insert into theirs select zeroblob(1000) from n")  # fmt: skip
    assert path.stat().st_size > 0
    made.execute("rollback")
    assert path.stat().st_size == 0
    texts = fill(path)
    made.close()
    assert texts_in(path) == texts


def test_a_marked_file_cannot_give_up_its_checksums(tmp_path):
    """A copy into it of a file without them would leave pages whose last bytes are not what they were."""
    path = tmp_path / "store.db"
    texts = fill(path)
    source = apsw.Connection(":memory:")
    source.execute("create table theirs (a)")
    target = bare(path, wanted=True)
    target.execute("pragma journal_mode = delete")
    with pytest.raises(apsw.IOError, match="cannot give up"), target.backup("main", source, "main") as copy:
        copy.step()
    target.close()
    assert texts_in(path) == texts
