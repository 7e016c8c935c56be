"""A disk that fails on demand, beneath SQLite's page checksums, and the life of a store on it.

It must be registered before perdure first opens a file, so it lives in processes of its own; ``zygote.py`` starts them.
"""

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import apsw

import perdure.sync
from perdure.drivers.sqlite import connection, upkeep
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Disconnected, OutcomeUnknown, Unavailable

ADDS = 30
TYPED = (Disconnected, OutcomeUnknown, Unavailable)
EXTENDED = {
    "write": apsw.SQLITE_IOERR_WRITE, "sync": apsw.SQLITE_IOERR_FSYNC, "read": apsw.SQLITE_IOERR_READ,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE, "size": apsw.SQLITE_IOERR_FSTAT,
}  # fmt: skip


class Disk:
    """Counts I/O calls, fails some, and watches what is done with a file whose sync has failed."""

    def __init__(self) -> None:
        self.calls = 0
        self.kinds: Counter[str] = Counter()
        self.fail_at = 0
        self.fail_for = 1
        self.full = False
        self.only = ""
        self.failed = 0
        self.armed = False
        self.synced_again: list[str] = []
        self.dirty_failures = 0

    def call(self, kind: str, file: "File", *, grows: bool = False) -> None:
        """Counts a call and raises when it is one that fails."""
        if not self.armed or self.only not in {"", kind}:
            return
        self.calls += 1
        self.kinds[kind] += 1
        due = self.fail_at and self.fail_at <= self.calls < self.fail_at + self.fail_for
        if due and not self.full:
            self.failed += 1
            raise _io_error(kind)
        if due and self.full and grows:
            self.failed += 1
            raise apsw.FullError("no space left")


def _io_error(kind: str) -> apsw.IOError:
    error = apsw.IOError(f"injected {kind} error")
    error.extendedresult = EXTENDED[kind]
    error.result = apsw.SQLITE_IOERR
    return error


DISK = Disk()


class File(apsw.VFSFile):
    """A file on the disk that fails."""

    def __init__(self, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self.name = str(name.filename() if isinstance(name, apsw.URIFilename) else name or "temporary")
        self.log = self.name.endswith("-wal")
        self.dirty = False
        self.sync_failed = False

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        DISK.call("read", self)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        DISK.call("write", self, grows=True)
        self.dirty = True
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        DISK.call("truncate", self)
        super().xTruncate(size)

    def xFileSize(self) -> int:  # noqa: N802
        DISK.call("size", self)
        return super().xFileSize()

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self.sync_failed:
            DISK.synced_again.append(self.name)
        try:
            DISK.call("sync", self)
        except apsw.IOError:
            self.sync_failed = True
            DISK.dirty_failures += self.log and self.dirty
            raise
        super().xSync(flags)
        self.dirty = False


class FailingVFS(apsw.VFS):
    """The disk, as SQLite's default: the checksum VFS is then put on top of it."""

    def __init__(self) -> None:
        super().__init__("failing", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> File:  # noqa: N802
        return File(name, flags)


VFS = FailingVFS()


def life(store: Any, told: dict[str, str], errors: list[str], found: Counter[str]) -> None:
    """Some of every kind of write and read; ``told`` gets what was acknowledged, by key."""
    steps = [("create", "c", lambda: store.create_conversation("agent", "ann", id="c", idempotency_key="c").id)]
    for number in range(ADDS):
        steps.append((
            "add", f"m{number}",
            lambda n=number: store.add_message("c", "user", f"word {n} tide", idempotency_key=f"m{n}").id,
        ))  # fmt: skip
        if number % 5 == 0:
            steps.append(("read", "", lambda: len(store.get_messages("c", 100))))
        if number % 10 == 4:
            steps.append((
                "group", f"g{number}",
                lambda n=number: ",".join(
                    m.id for m in store.add_messages(
                        "c", [{"role": "user", "content": f"group {n} {p} " + "x" * 3000} for p in range(9)],
                        idempotency_key=f"g{n}",
                    )
                ),
            ))  # fmt: skip
        if number % 10 == 7:
            steps.append(("search", "", lambda: len(store.search_messages("tide", limit=100))))
        if number % 10 == 9:
            steps.append(("upkeep", "", store.upkeep))
    for kind, key, step in steps:
        for attempt in range(100 if kind == "create" else 4):
            before = DISK.dirty_failures
            try:
                answer = step()
            except TYPED as error:
                errors.append(f"{kind}: {error.code}")
                if kind != "read" and attempt == 0:
                    _read_on(store, found)
                if attempt == 3:
                    found["given_up"] += 1
            else:
                if key:
                    told[key] = answer
                    found["acknowledged_after_failed_sync"] += DISK.dirty_failures > before
                break


def _read_on(store: Any, found: Counter[str]) -> None:
    """Reading goes on after a write has failed (it may meet the same fault itself)."""
    try:
        store.get_messages("c", 100)
        found["reads_went_on"] += 1
    except TYPED:
        found["reads_failed_too"] += 1


def one_fault(path: str, plan: dict[str, Any]) -> dict[str, Any]:
    """A life with one fault in it, and what a fresh store says afterwards about what was told."""
    DISK.__init__()
    upkeep._PASS_PAGES = plan.get("pass_pages", 1_000)
    DISK.full, DISK.fail_at, DISK.fail_for, DISK.only = plan["full"], plan["at"], plan["for"], plan.get("only", "")
    told: dict[str, str] = {}
    errors: list[str] = []
    found: Counter[str] = Counter()
    config = PersistenceConfig(f"sqlite:///{path}", pool_size=1, durability=plan["durability"])
    store = perdure.sync.Store(config)
    store.initialize()
    DISK.armed = True
    life(store, told, errors, found)
    store.close()
    DISK.armed = False
    with perdure.sync.Store(config) as again:
        first, second = _by_keys(again, told), _by_keys(again, told)
        found["lost"] = sum(first.get(key) != answer for key, answer in told.items())
        found["unsettled"] = first != second
        contents = [message.text for message in again.get_conversation("c", include_messages=True).messages]
        found["twice"] = len(contents) - len(set(contents))
        found["doctor"] = len(again.doctor()["problems"])
        found["hits"] = len(again.search_messages("tide", limit=100)) - ADDS
    return {
        **plan, **found, "calls": DISK.calls, "kinds": dict(DISK.kinds), "failed": DISK.failed, "errors": errors,
        "synced_again": DISK.synced_again,
    }  # fmt: skip


def transaction_with_fault(path: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Two groups in one transaction, a fault somewhere in it; the block goes on after an error."""
    DISK.__init__()
    DISK.full, DISK.fail_at, DISK.fail_for = plan["full"], plan["at"], plan["for"]
    config = PersistenceConfig(f"sqlite:///{path}", pool_size=1, effective_cache_size="64kB")  # spills into the log
    with perdure.sync.Store(config) as store:
        store.create_conversation("agent", "ann", id="c")
        DISK.armed = True
        errors = 0
        try:
            with store.transaction() as inside:
                for half in range(2):
                    try:
                        inside.add_messages(
                            "c", [{"role": "user", "content": f"{half} {n}" + "x" * 9_000} for n in range(20)]
                        )
                    except TYPED:
                        errors += 1
        except TYPED:
            errors += 1
            kept = 0
        else:
            kept = 40 - 20 * errors
        DISK.armed = False
        stored = len(store.get_messages("c", 100))
        store.add_message("c", "user", "later")
        seqs = [message.seq for message in store.get_messages("c", 100)]
    return {
        **plan, "calls": DISK.calls, "failed": DISK.failed, "errors": errors, "kept": kept, "stored": stored,
        "seqs_whole": seqs == list(range(1, len(seqs) + 1)),
    }  # fmt: skip


def _by_keys(store: Any, told: dict[str, str]) -> dict[str, str]:
    """What every key answers now; those whose call never succeeded are settled by this."""
    life(store, asked := dict[str, str](), [], Counter())
    return asked


def work(folder: str, out: str, plans: list[dict[str, Any]]) -> None:
    """Lives one life for each plan and writes what became of it."""
    assert connection.checksum_vfs() is not None
    with Path(out).open("a") as report:
        for number, plan in enumerate(plans):
            signal.alarm(60)
            path = Path(folder) / f"{os.getpid()}-{number}.db"
            life_of = transaction_with_fault if plan.get("transaction") else one_fault
            report.write(json.dumps(life_of(str(path), plan)) + "\n")
            report.flush()
            for file in path.parent.glob(path.name + "*"):
                file.unlink()
