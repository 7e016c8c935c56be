"""The laws of the house that no linter knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "perdure"
MODULES = sorted(SOURCE.rglob("*.py"))
FUNCTION_LINES = 70
FILE_LINES = 450
GENERATED = "# Generated from "

# Each exception with its reason. An entry that is no longer needed fails the test.
LONGER_FILES: dict[str, str] = {}
LONGER_FUNCTIONS: dict[str, str] = {}


def _own(path: Path) -> bool:
    return not path.read_text(encoding="utf-8").startswith(GENERATED)


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_the_blocking_twins_are_current():
    """`make sync` has nothing to write."""
    done = subprocess.run(
        [sys.executable, "tools/generate_sync.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_function_fits_a_screen():
    found: dict[str, int] = {}
    for path in MODULES:
        if "testing" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    found[f"{path.relative_to(SOURCE)}:{node.name}"] = lines
    assert {name for name in found if name not in LONGER_FUNCTIONS} == set(), found
    assert LONGER_FUNCTIONS.keys() <= found.keys()


def test_a_file_is_one_noun():
    lengths = {str(p.relative_to(SOURCE)): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES if _own(p)}
    long = {name: n for name, n in lengths.items() if n > FILE_LINES and not name.startswith("testing/suite/")}
    assert {name: n for name, n in long.items() if name not in LONGER_FILES} == {}
    assert LONGER_FILES.keys() <= long.keys()


@pytest.mark.parametrize("word", ["sqlite", "postgres", "dialect", "apsw", "psycopg"])
def test_rooms_know_no_dialect(word):
    """What differs between engines stands in queries.sql, never in the Python of a room."""
    for path in sorted((SOURCE / "rooms").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = ""
            if isinstance(node, ast.Name):
                text = node.id
            elif isinstance(node, ast.Attribute):
                text = node.attr
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                text = node.value
            assert word not in text.lower(), f"{path.name}:{getattr(node, 'lineno', '?')}"


def test_errors_are_not_swallowed():
    """A broad except raises again, or says on its line why every error is told to somebody."""
    for path in MODULES:
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node):
                raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                assert raises or "# broad: " in lines[node.lineno - 1], f"{path}:{node.lineno}"


def _is_broad(node: ast.ExceptHandler) -> bool:
    return node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"})


def test_importing_perdure_is_cheap():
    """No engine, no framework, no numbers library; page 10, P17."""
    heavy = [
        "numpy",
        "psycopg",
        "psycopg_pool",
        "apsw",
        "wordllama",
        "pydantic",
        "typer",
        "rich",
        "msgspec",
        "Stemmer",
        "asyncio",
    ]
    code = f"import sys, perdure, perdure.sync; print([name for name in {heavy!r} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_opening_an_sqlite_store_imports_no_other_engine():
    heavy = ["numpy", "psycopg", "psycopg_pool", "pydantic", "typer", "rich", "openai", "anthropic"]
    code = (
        "import sys, perdure.sync\nwith perdure.sync.open(':memory:') as s:\n    s.stats()\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_declared_for_type_checkers():
    import perdure
    from perdure import _exports

    text = (SOURCE / "__init__.py").read_text(encoding="utf-8")
    declared = set(re.findall(r"^    from \S+ import (\w+) as \1", text, re.MULTILINE))
    assert declared == {*_exports.names(), "open"}
    for name in declared:
        assert getattr(perdure, name).__doc__, name


def test_the_package_names_no_registry_and_no_machine():
    """Locks carry versions without addresses; no path of somebody's machine, no private host."""
    words = re.compile(r"https?://[^\s\"')]*(pypi|registry|pythonhosted)|--index-url|/ro[o]t/|/home/\w+/|\.pyenv")
    for path in _tracked():
        if path == Path(__file__) or path.suffix in {".png", ".jpg"}:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found = words.search(text)
        assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]}"


def test_locks_pin_every_version():
    for lock in sorted((ROOT / "requirements").glob("*.lock")):
        for line in lock.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                assert re.match(r"^[A-Za-z0-9_.\-\[\]]+==\S+$", line.split(";")[0].strip()), f"{lock.name}: {line}"


def test_decisions_say_why():
    """Each decision has the four parts of the house."""
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        text = path.read_text(encoding="utf-8")
        for part in ("Status", "Context", "Decision", "What would change our mind"):
            assert re.search(rf"^(#+ |\*\*){re.escape(part)}", text, re.MULTILINE), f"{path.name} lacks {part}"


def test_each_dependency_has_a_reason():
    text = (ROOT / "docs" / "decisions" / "0002-parts.md").read_text(encoding="utf-8")
    block = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = set(re.findall(r'^    "([A-Za-z0-9_\-]+)[\[>=]', block, re.MULTILINE)) - {"perdure"}
    assert {name for name in wanted if name.lower() not in text.lower()} == set()
