"""What an SQLite store leaves on disk: checksums on each page, a short log, one file at the end."""

import apsw
import pytest

import perdure
import perdure.sync
from perdure.drivers.sqlite import upkeep
from perdure.drivers.sqlite.connection import check_engine, checksum_vfs


def test_apsw_brings_the_checksum_vfs_on_this_platform():
    """Damage tests skip without it, so its absence must not go unnoticed."""
    assert checksum_vfs() == "cksmvfs"
    check_engine()


def test_a_new_file_carries_page_checksums(tmp_store_path):
    with perdure.sync.open(tmp_store_path) as store:
        assert store.doctor()["page_checksums"] is True
    assert tmp_store_path.read_bytes()[20] == 8  # bytes reserved at the end of each page, in the file's header


def test_a_flipped_bit_in_a_message_is_an_error_and_never_a_value(tmp_store_path):
    with perdure.sync.open(tmp_store_path) as store:
        made = store.create_conversation("helper", "ann")
        store.add_message(made.id, "user", "the number is 1234567890")
    damaged = bytearray(tmp_store_path.read_bytes())
    damaged[damaged.find(b"1234567890") + 3] ^= 1
    tmp_store_path.write_bytes(damaged)
    with perdure.sync.open(tmp_store_path) as store, pytest.raises(perdure.Damaged):
        store.get_messages(made.id)


@pytest.mark.parametrize("quick_seconds", [10.0, 0.0], ids=["quick-disk", "slow-disk"])
def test_the_log_stays_short_under_writers_that_never_pause(tmp_store_path, monkeypatch, quick_seconds):
    """Passive passes alone let the log grow without end; some ten pages are written for each message."""
    monkeypatch.setattr(upkeep, "_QUICK_SECONDS", quick_seconds)
    monkeypatch.setattr(upkeep, "_PASS_PAGES", 100)
    monkeypatch.setattr(upkeep, "_LONG_PAGES", 400)
    log = tmp_store_path.with_name(tmp_store_path.name + "-wal")
    longest = 0
    with perdure.sync.open(tmp_store_path) as store:
        made = store.create_conversation("helper", "ann")
        for number in range(1_500):
            store.add_message(made.id, "user", f"message {number}")
            longest = max(longest, log.stat().st_size)
    assert longest < 4_000 * 4_096
    assert longest < 1_500 * 8 * 4_096 / 2


def test_a_closed_store_leaves_one_file(tmp_store_path):
    with perdure.sync.open(tmp_store_path) as store:
        store.create_conversation("helper", "ann")
    assert [path.name for path in tmp_store_path.parent.iterdir()] == [tmp_store_path.name]


@pytest.mark.parametrize("what", ["message", "conversation"])
def test_erased_text_is_gone_from_the_disk_once_the_log_was_moved(tmp_store_path, what):
    """Not only from every answer: free space in the file is overwritten, and the log is emptied by the upkeep."""
    with perdure.sync.open(tmp_store_path) as store:
        made = store.create_conversation("helper", "ann")
        for number in range(30):
            store.add_message(made.id, "user", f"ordinary message {number}")
        message = store.add_message(made.id, "user", "the canary is xylophonist")
        store.edit_message(message.id, "the canary was a xylophonist")
        assert store.search_messages("xylophonist")
        if what == "message":
            store.erase_message(message.id)
        else:
            store.erase_conversation(made.id)
        store.upkeep()
        for path in tmp_store_path.parent.iterdir():
            assert b"xylophonist" not in path.read_bytes(), path.name


def test_statements_keep_their_plan(tmp_store_path):
    """Else this SQLite prepares a statement anew for each new value in its WHERE (docs/decisions/0008)."""
    with perdure.sync.open(tmp_store_path) as store:
        connection = store._shared.driver.engine.connection()
        assert connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1)
