#!/usr/bin/env python3
"""Runs LangGraph's own tests of its SQLite stores with perdure's store in their place, on both engines.

The tests are not part of any wheel, so the source distribution of the installed version is fetched by pip; this is
the only test of perdure that needs a network. Exits with 1 when anything fails but the tests named below, or when one
of those passes.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "langgraph-checkpoint-sqlite"
FILES = ("test_store.py", "test_async_store.py", "test_ttl.py")
EXPECTED = {
    "test_nonnull_migrations": "looks at the SQL of their migrations",
    "test_vector_store_initialization": "looks for their tables through their connection",
    "test_sql_injection_vulnerability": "wants odd names in filters refused; ours are bound, and such a name is not found",
    "test_no_running_loop": "wants synchronous calls on an event loop refused; ours are answered",
    "test_ttl_override_default": "wants reads to leave a life as it is where `ttl` does not say; LangGraph's documentation and "
    "its PostgreSQL store, and we, let them renew it",
}
"""Tests that cannot hold for another store, and why."""


def pip(*arguments: str) -> None:
    """Runs pip, quietly unless it fails."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def fetch(folder: Path) -> None:
    """Puts their tests, our conftest, and the plugins that their tests need into a folder."""
    pip("download", "--no-deps", "--no-binary", PACKAGE, "--dest", str(folder), f"{PACKAGE}=={version(PACKAGE)}")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    shutil.move(source / "tests", folder / "tests")
    shutil.rmtree(source)
    shutil.copy(HERE / "store_conftest.py", folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nmarkers =\n    flaky: tried again\n")
    pip("install", "--no-deps", "--target", str(folder / "plugins"), "pytest-asyncio", "pytest-retry")


def run(folder: Path, engine: str) -> list[list[str]]:
    """Node, outcome and message of each of their tests."""
    report = folder / f"{engine}.jsonl"
    environment = {
        **os.environ,
        "PERDURE_HOST_ENGINE": engine,
        "PERDURE_HOST_REPORT": str(report),
        "PYTHONPATH": str(folder / "plugins"),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{name}" for name in FILES)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if not report.exists():
        sys.exit(done.stdout + done.stderr)
    return [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    """0 when all is as it should be."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fetch(folder)
        engines = ("sqlite", "postgres")
        with ThreadPoolExecutor(len(engines)) as pool:  # they mostly wait for lives to end
            runs = list(pool.map(lambda engine: run(folder, engine), engines))
        for engine, outcomes in zip(engines, runs, strict=True):
            counts = Counter(outcome for _, outcome, _ in outcomes)
            print(f"{PACKAGE} {version(PACKAGE)} on {engine}: {counts['passed']} passed, {counts['failed']} failed")
            failed: set[str] = set()
            for node, outcome, message in outcomes:
                test = node.split("::")[-1].split("[")[0]
                if outcome == "failed":
                    failed.add(test)
                    print(f"  {node}: {EXPECTED.get(test, 'UNEXPECTED')}")
                    if test not in EXPECTED:
                        wrong.append(f"{engine}: {node}\n{message}")
            wrong += [f"{engine}: {test} is expected to fail and does not" for test in EXPECTED.keys() - failed]
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
