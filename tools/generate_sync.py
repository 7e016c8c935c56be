#!/usr/bin/env python3
"""Writes the blocking twins of the async code: ``perdure.sync`` and the blocking PostgreSQL driver.

Rules work on lines of source, in order. A rule that nothing uses any more is an error, so the list stays true; CI runs
``--check`` and fails when a committed twin is not what the rules give.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "perdure"

RULES: list[tuple[str, str]] = [
    (r"\basync def\b", "def"),
    (r"\basync with\b", "with"),
    (r"\basync for\b", "for"),
    (r"\bawait ", ""),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r", Awaitable\b|\bAwaitable, ", ""),
    (r"\bAbstractAsyncContextManager\b", "AbstractContextManager"),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\bfrom perdure\.kit import aio as kit\b", "from perdure.kit import blocking as kit"),
    (r"\bfrom perdure\.services\b", "from perdure.sync"),
    (r"\bAsyncConnectionPool\b", "ConnectionPool"),
    (r"\bConnection = AsyncConnection\[Any\]", "Connection = psycopg.Connection[Any]"),
    (r"\bCursor = AsyncCursor\[Any\]", "Cursor = psycopg.Cursor[Any]"),
    (r"^from psycopg import AsyncConnection, AsyncCursor$", "import psycopg"),
    (r"^from psycopg import AsyncConnection$", ""),
    (r"\bpsycopg\.AsyncCursor\b", "psycopg.Cursor"),
    (r"\bpsycopg AsyncConnection\b", "psycopg Connection"),
    (r"\bAsyncConnection\b", "psycopg.Connection"),
    (r"\bAsyncPostgresSession\b", "BlockingPostgresSession"),
    (r"\bAsyncPostgres\b", "BlockingPostgres"),
    (r"\bAsyncGuest\b", "BlockingGuest"),
    (r"\bfrom perdure\.drivers\.postgres import versions\b", "from perdure.drivers.postgres import versions_blocking as versions"),
    (r"\bperdure\.drivers\.postgres\.(statements|listening)\b", r"perdure.drivers.postgres.\1_blocking"),
    (r"The PostgreSQL driver for asyncio", "The PostgreSQL driver for threads"),
    (r" Blocking twin: generated\.", ""),
]  # fmt: skip

DRIVERS = {
    "statements.py": "statements_blocking.py",
    "aio.py": "blocking.py",
    "versions.py": "versions_blocking.py",
    "guest.py": "guest_blocking.py",
    "listening.py": "listening_blocking.py",
}
BY_HAND = {"__init__.py", "engines.py", "opening.py"}


def targets() -> dict[Path, Path]:
    """Each async source with the twin that is made from it."""
    found = {
        PACKAGE / "drivers/postgres" / source: PACKAGE / "drivers/postgres" / twin for source, twin in DRIVERS.items()
    }
    for source in sorted((PACKAGE / "services").glob("*.py")):
        if source.name not in BY_HAND:
            found[source] = PACKAGE / "sync" / source.name
    return found


def translate(text: str, source: Path, used: set[str]) -> str:
    """The blocking twin of a module's text."""
    lines: list[str] = []
    for before in text.splitlines():
        line = before
        for pattern, replacement in RULES:
            changed = re.sub(pattern, replacement, line)
            if changed != line:
                used.add(pattern)
            line = changed
        lines.append(line)
    place = source.relative_to(PACKAGE.parent)
    notice = f"# Generated from {place} by tools/generate_sync.py; change that file and run `make sync`."
    return f"{notice}\n" + "\n".join(lines) + "\n"


def formatted(text: str) -> str:
    """The text as the project's formatter leaves it."""
    ruff = [str(Path(sys.executable).parent / "ruff")]
    fixed = subprocess.run(
        [*ruff, "check", "--isolated", "--select", "I,F401", "--fix", "--quiet", "--line-length", "120", "-"],
        input=text, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    return subprocess.run(
        [*ruff, "format", "--isolated", "--line-length", "120", "--quiet", "-"],
        input=fixed, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def main() -> int:
    """0 when every twin is current (or was written)."""
    check = "--check" in sys.argv[1:]
    used: set[str] = set()
    stale: list[Path] = []
    for source, twin in targets().items():
        text = formatted(translate(source.read_text(encoding="utf-8"), source, used))
        if not twin.exists() or twin.read_text(encoding="utf-8") != text:
            stale.append(twin)
            if not check:
                twin.write_text(text, encoding="utf-8")
    unused = [pattern for pattern, _ in RULES if pattern not in used]
    for pattern in unused:
        print(f"rule is used by nothing: {pattern}")
    for twin in stale:
        print(f"{'stale' if check else 'wrote'}: {twin.relative_to(ROOT)}")
    return 1 if unused or (check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
