"""With a key, nothing of what agents hold is readable where it is stored: canaries are looked for in every byte.

What stays readable is what docs/guarantees.md says: ids of threads, checkpoints and branches, branch names, tags, statuses,
run ids, times, sizes and counts.
"""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from checkpoint_lab import Editor

import perdure.sync
from perdure.rooms.checkpoints.config import CheckpointConfig
from perdure.values.config import PersistenceConfig
from perdure.values.errors import WrongKey

CANARY = "heliotrope"
KEY = bytes(range(32))
PASSPHRASE = "correct horse battery staple"
IN_THE_OPEN = ("thread-seen", "branch-seen", "tag-seen", "run-seen")
TABLES = (
    "checkpoint_threads", "checkpoint_branches", "checkpoints", "checkpoint_tags", "checkpoint_items", "checkpoint_segments",
    "checkpoint_runs", "checkpoint_writes", "checkpoint_keys", "changes", "idempotency",
)  # fmt: skip


def canary(where: str) -> str:
    return f"{CANARY}-{where}"


def fill(checkpointer: Any, *, pruned: bool = True) -> list[str]:
    """Every way that words of an agent can come in."""
    ids = []
    for step in range(70):
        state = {
            canary("channel"): step, "messages": [f"{canary('item')}{at}" for at in range(step + 1)],
            "mapping": {canary("key"): "x" * 5_000, "value": canary("value") * 3}, "large": canary("chunk") * 40_000 if step == 1 else "",
        }  # fmt: skip
        ids.append(
            checkpointer.save(
                "thread-seen", state, {canary("metadata"): canary("fact")}, tags=["tag-seen"] if step == 2 else (), run_id="run-seen",
                node=canary("node"), idempotency_key=f"key{step}",
            )
        )  # fmt: skip
    checkpointer.create_branch(ids[3], "branch-seen", {canary("branch"): canary("why")})
    checkpointer.save("thread-seen", {"messages": [canary("side")] * 40}, branch="branch-seen")
    with pytest.raises(ZeroDivisionError), checkpointer.guard("thread-seen", {"failed": canary("failed")}):
        1 / 0  # noqa: B018
    checkpointer.merge("thread-seen", "main", "branch-seen", resolve="theirs", metadata={"m": canary("merged")})
    if pruned:
        checkpointer.apply_retention("thread-seen")
    checkpointer.copy_thread("thread-seen", "thread-seen-2")
    checkpointer.import_thread(checkpointer.export_thread("thread-seen"), "thread-seen-3")
    return ids


def forms(text: str) -> list[bytes]:
    """A text as it could stand in a file."""
    raw = text.encode()
    found = [raw, text.encode("utf-16-le"), raw.hex().encode()]
    # Base64 of it, wherever it begins.
    return found + [base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4] for shift in range(3)]


def bytes_of(folder: Path) -> bytes:
    """Everything in the store's files: the database, its log, what else is there."""
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def found_in(data: bytes, *texts: str) -> list[bytes]:
    return [form for text in texts for form in forms(text) if form in data]


@pytest.mark.parametrize("key", [KEY, PASSPHRASE], ids=["key", "passphrase"])
def test_no_word_is_readable_in_the_file_or_its_log(tmp_path, key):
    with perdure.sync.Store(PersistenceConfig(f"sqlite:///{tmp_path}/store.db")) as store:
        ids = fill(perdure.sync.Checkpointer(store, CheckpointConfig(encryption_key=key, compression="none")))
        data = bytes_of(tmp_path)
        assert (tmp_path / "store.db-wal").stat().st_size > 100_000
        store.upkeep()
        data += bytes_of(tmp_path)
    assert found_in(data, CANARY, PASSPHRASE) == []
    assert KEY[:12] not in data
    assert KEY.hex()[:24].encode() not in data
    for seen in (*IN_THE_OPEN, ids[-1]):
        assert seen.encode() in data


def test_without_a_key_words_are_readable(tmp_path):
    """The search itself finds what is there."""
    with perdure.sync.Store(PersistenceConfig(f"sqlite:///{tmp_path}/store.db")) as store:
        fill(perdure.sync.Checkpointer(store, CheckpointConfig(compression="none")))
        assert found_in(bytes_of(tmp_path), CANARY)


def test_no_word_is_readable_in_any_table_of_postgres(fresh_postgres_url, postgres_server):
    with perdure.sync.Store(PersistenceConfig(fresh_postgres_url)) as store:
        fill(perdure.sync.Checkpointer(store, CheckpointConfig(encryption_key=KEY, compression="none")))
    with psycopg.connect(postgres_server.admin_url(fresh_postgres_url), options="-c search_path=perdure") as admin:
        data = bytearray()
        for table in TABLES:
            for row in admin.execute(f"select * from {table}".encode()).fetchall():
                for value in row:
                    data += bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
                    data += b"\n"
    assert len(data) > 50_000
    assert found_in(bytes(data), CANARY) == []
    assert KEY[:12] not in data


@pytest.mark.parametrize("before", [None, KEY], ids=["plain", "key"])
def test_after_a_rotation_nothing_of_before_is_left(tmp_path, before):
    """Neither words that were stored without a key, nor a sealed byte or a wrapped key of the old one."""
    with perdure.sync.Store(PersistenceConfig(f"sqlite:///{tmp_path}/store.db")) as store:
        old = perdure.sync.Checkpointer(store, CheckpointConfig(encryption_key=before, compression="none"))
        ids = fill(old)
        state = old.restore(ids[-1])
        blobs: list[bytes] = []
        for table, column in (
            ("checkpoint_items", "payload"), ("checkpoint_segments", "payload"), ("checkpoint_segments", "hash"),
            ("checkpoints", "mac"), ("checkpoint_runs", "mac"), ("checkpoint_threads", "mac"), ("checkpoint_threads", "pruned"),
            ("checkpoint_keys", "wrapped"), ("checkpoint_keys", "salt"),
        ):  # fmt: skip
            blobs += [bytes(row[0]) for row in store.execute(f"select {column} from {table}") if row[0] is not None]
        assert len(blobs) > 100
        assert old.rotate_keys(PASSPHRASE) == 3
        assert old.restore(ids[-1]) == state
        new = perdure.sync.Checkpointer(store, CheckpointConfig(encryption_key=PASSPHRASE))
        assert new.restore(ids[-1]) == state
        assert new.verify().ok
        for other in (before, "another"):
            with pytest.raises(WrongKey):
                perdure.sync.Checkpointer(store, CheckpointConfig(encryption_key=other)).restore(ids[-1])
        editor = Editor(f"sqlite:///{tmp_path}/store.db")
        editor.run("vacuum")  # what SQLite moved between pages it leaves in their unused parts
        editor.close()
        store.upkeep()
        data = bytes_of(tmp_path)
        left = [blob.hex() for blob in blobs if blob[-24:] in data]
    assert left == []
    assert found_in(data, CANARY, PASSPHRASE) == []


def test_a_thread_that_is_sealed_late_leaves_nothing_open(tmp_path):
    """One that was saved before there was a key is sealed by its next save."""
    with perdure.sync.Store(PersistenceConfig(f"sqlite:///{tmp_path}/store.db")) as store:
        plain = perdure.sync.Checkpointer(store, CheckpointConfig(compression="none"))
        plain.save("thread-seen", {"messages": [canary("item")] * 70, "text": canary("value") * 9})
        keyed = perdure.sync.Checkpointer(store, CheckpointConfig(encryption_key=KEY))
        keyed.save("thread-seen", {"n": 1})
        store.upkeep()
        assert found_in(bytes_of(tmp_path), CANARY) == []


def test_errors_and_reprs_tell_no_secret(tmp_path):
    """Neither keys nor what states hold."""
    shown: list[str] = []
    config = CheckpointConfig(encryption_key=PASSPHRASE)
    with perdure.sync.Store(PersistenceConfig(f"sqlite:///{tmp_path}/store.db")) as store:
        checkpointer = perdure.sync.Checkpointer(store, config)
        made = checkpointer.save("t", {"text": canary("value")}, {"m": canary("fact")})
        shown += [repr(config), str(config), repr(checkpointer), repr(vars(checkpointer._ring))]
        for attempt in (
            lambda: perdure.sync.Checkpointer(store, CheckpointConfig(encryption_key=PASSPHRASE + " ")).get(made),
            lambda: perdure.sync.Checkpointer(store).restore(made),
            lambda: checkpointer.rotate_keys(PASSPHRASE),
            lambda: checkpointer.save("t", {"text": object(), "more": canary("value")}),
        ):
            with pytest.raises(perdure.PerdureError) as caught:
                attempt()
            shown += [str(caught.value), repr(caught.value), repr(caught.value.details)]
        store.execute("update checkpoint_items set payload = x'00'")
        with pytest.raises(perdure.PerdureError) as caught:
            checkpointer.restore(made)
        shown.append(str(caught.value))
    assert len(shown) > 15
    for text in shown:
        assert CANARY not in text
        assert PASSPHRASE not in text


WITHOUT = """
import sys
sys.modules["cryptography"] = None
import json, perdure, perdure.sync
from perdure.rooms.checkpoints.config import CheckpointConfig
with perdure.sync.Store("sqlite:///" + sys.argv[1]) as store:
    found = [perdure.sync.Checkpointer(store).latest_state("plain")]
    keyed = perdure.sync.Checkpointer(store, CheckpointConfig(encryption_key=bytes(range(32))))
    for call in (
        lambda: keyed.latest("t"), lambda: keyed.save("t", {"n": 2}), lambda: keyed.save("new", {"n": 2}), lambda: keyed.verify(),
        lambda: perdure.sync.Checkpointer(store).rotate_keys("a new one"),
    ):
        try:
            call()
        except (perdure.MissingExtra, perdure.WrongKey) as error:
            found.append(type(error).__name__)
    found.append(perdure.sync.Checkpointer(store).save("plain", {"n": 3}) != "")
print(json.dumps(found))
"""


def test_without_the_package_keys_name_the_extra_and_nothing_is_written_in_the_open(tmp_path):
    with perdure.sync.Store(PersistenceConfig(f"sqlite:///{tmp_path}/store.db")) as store:
        perdure.sync.Checkpointer(store).save("plain", {"n": 1})
        perdure.sync.Checkpointer(store, CheckpointConfig(encryption_key=KEY)).save("t", {"n": 1})
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT, f"{tmp_path}/store.db"], capture_output=True, text=True, timeout=60, env=os.environ
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found == [{"n": 1}, *["MissingExtra"] * 4, "WrongKey", True]
        checkpointer = perdure.sync.Checkpointer(store, CheckpointConfig(encryption_key=KEY))
        assert [thread.id for thread in checkpointer.list_threads()] == ["plain", "t"]
        assert checkpointer.latest_state("t") == {"n": 1}
        assert checkpointer.verify().ok
