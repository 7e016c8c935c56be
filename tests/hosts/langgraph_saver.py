#!/usr/bin/env python3
"""Runs LangGraph's own tests of its graphs with perdure's saver in the place of its SQLite savers, on both engines.

The tests are not part of any wheel, so the source distribution of the installed version is fetched by pip. They run with
the official saver too, and the counts are printed side by side. Exits with 1 when a test fails that passes with the
official saver; such a test is tried once more by itself first, for some of theirs measure time.

``langgraph_saver.py sqlite`` runs one engine only, ``-k EXPRESSION`` some of the tests.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from langgraph_store import pip

HERE = Path(__file__).resolve().parent
PACKAGE = "langgraph"
CHOSEN = "sqlite and not sqlite_aes"
PLUGINS = ("pytest-mock", "syrupy", "redis")
"""What their tests import beyond what perdure's need."""
ENGINES = ("sqlite", "postgres", "official")


def fetch(folder: Path) -> None:
    """Puts their tests, our conftest, and what their tests import into a folder."""
    pip("download", "--no-deps", "--no-binary", PACKAGE, "--dest", str(folder), f"{PACKAGE}=={version(PACKAGE)}")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    shutil.move(source / "tests", folder / "tests")
    shutil.rmtree(source)
    shutil.copy(HERE / "saver_conftest.py", folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\n")
    pip("install", "--no-deps", "--target", str(folder / "plugins"), *PLUGINS)


def run(folder: Path, engine: str, arguments: list[str]) -> dict[str, tuple[str, str]]:
    """Outcome and message of each of their tests, by node."""
    report = folder / f"{engine}.jsonl"
    report.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "NO_DOCKER": "true",
        "PERDURE_HOST_ENGINE": engine,
        "PERDURE_HOST_REPORT": str(report),
        "PYTHONPATH": str(folder / "plugins"),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if not report.exists():
        sys.exit(done.stdout + done.stderr)
    lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    return {node: (outcome, message) for node, outcome, message in lines}


def failed(outcomes: dict[str, tuple[str, str]]) -> list[str]:
    """The nodes of tests that failed."""
    return [node for node, (outcome, _) in outcomes.items() if outcome == "failed"]


def main() -> int:
    """0 when all is as with the official saver."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", help=f"of {', '.join(ENGINES)}; all without any")
    parser.add_argument("-k", default=CHOSEN, help="which of their tests")
    parser.add_argument("-n", default="2", help="worker processes")
    given = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fetch(folder)
        found = {
            engine: run(folder, engine, ["-n", given.n, "tests", "-k", given.k]) for engine in given.engines or ENGINES
        }
        for engine, outcomes in found.items():
            if failed(outcomes):
                outcomes.update(run(folder, engine, failed(outcomes)))
            counts = Counter(outcome for outcome, _ in outcomes.values())
            print(
                f"{PACKAGE} {version(PACKAGE)}, saver {engine}: {counts['passed']} passed, {counts['failed']} failed, "
                f"{counts['skipped']} skipped"
            )
        theirs = set(failed(found.get("official", {})))
        for engine in found.keys() - {"official"}:
            wrong += [f"{engine}: {one}\n{found[engine][one][1]}" for one in failed(found[engine]) if one not in theirs]
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
