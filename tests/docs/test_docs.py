"""The documentation is true: its code runs and prints what it shows, its commands and links are there, nothing is left out."""

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in
from pages import (
    PAGES,
    ROOT,
    SPOKEN,
    anchors,
    blocks,
    expected_output,
    links,
    matches,
    needs_postgres,
    prose,
    run,
    write_files,
)
from typer.testing import CliRunner

import perdure
from perdure import _exports
from perdure.cli.main import app

WITH_CODE = [page for page in SPOKEN if any(block.language == "python" for block in blocks(page))]
BY_HAND = [page for page in PAGES if page.name != "reference.md"]
LANGUAGES = {"python", "pycon", "text", "console", "sql", "json", "ini", "toml", ""}


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="session")
def clients():
    """The environment in which the clients of providers find a server on this machine."""
    with stand_in.providers() as environment:
        yield environment


@pytest.fixture
def folder(tmp_path, monkeypatch, clients):
    """Where a page's code runs: an empty folder, no store named by the environment, no provider but the stand-in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERDURE_URL", raising=False)
    for name, value in clients.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.parametrize("page", WITH_CODE, ids=_name)
def test_the_code_of_a_page_runs_and_prints_what_the_page_shows(page, folder, request):
    url = request.getfixturevalue("fresh_postgres_url") if needs_postgres(page) else None
    assert run(page, folder, url) == []


def test_shown_output_is_compared(tmp_path):
    """The test above would notice a page that lies."""
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 2\nprint(x)\n```\n\n```text\n3\n```\n\n```python\nprint(x * 2, 'id-71')\n```\n\n```text\n4 id-…\n```\n"
    )
    (wrong,) = run(page, tmp_path, None)
    assert wrong.startswith("page.md:2 prints\n2")
    assert not matches("a…", "a\nb")


def test_outputs_follow_code():
    """A text block after Python is compared; one that stands elsewhere is not meant as output."""
    compared = sum(expected_output(page, block) is not None for page in WITH_CODE for block in blocks(page))
    assert compared > 20


def test_the_suite_of_the_testing_page_runs(folder):
    """The files that the page tells a reader to write are a working test run."""
    write_files(ROOT / "docs" / "howto" / "test-your-driver.md", folder)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "calls_stay", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout, done.stdout  # one test on two drivers


def test_the_testing_page_names_every_module_of_the_suite():
    text = (ROOT / "docs" / "howto" / "test-your-driver.md").read_text(encoding="utf-8")
    suite = sorted((ROOT / "src" / "perdure" / "testing" / "suite").glob("*.py"))
    for module in suite:
        if re.search(r"^async def test_", module.read_text(encoding="utf-8"), re.MULTILINE):
            assert f"`{module.stem}`" in text, module.stem


# -- commands ----------------------------------------------------------------------------------------------------------


def _commands():
    for page in PAGES:
        for block in blocks(page):
            if block.language != "console":
                continue
            for number, line in enumerate(block.text.splitlines(), block.line):
                words = shlex.split(line.removeprefix("$ "), comments=True)
                while words and re.match(r"\w+=", words[0]):  # a variable set for the command
                    words = words[1:]
                words = list(itertools.takewhile(lambda word: word not in {"|", ">", "<", "&&"}, words))
                if words and words[0] in {"perdure", "make"}:
                    yield pytest.param(words, id=f"{_name(page)}:{number}")


@pytest.mark.parametrize("words", list(_commands()))
def test_a_command_that_a_page_shows_is_there(words):
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z][a-z\-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        assert {word for word in words[1:] if "=" not in word} <= targets
        return
    asked = CliRunner().invoke(app, [*words[1:], "--help"])  # unknown commands and options are refused before any help
    assert asked.exit_code == 0, asked.output


@pytest.mark.parametrize("words", [["perdure", "remember"], ["perdure", "import", "--from"]])
def test_a_command_that_is_not_there_is_noticed(words):
    with pytest.raises(AssertionError):
        test_a_command_that_a_page_shows_is_there(words)


def test_blocks_have_a_language_that_is_known():
    """Anything else would be code that nobody runs."""
    for page in PAGES:
        for block in blocks(page):
            assert block.language in LANGUAGES, f"{_name(page)}:{block.line}"


# -- links and names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_resolve(page):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: there is no such heading"


def test_files_that_pages_name_are_there():
    """``src/…``, ``tests/…`` and ``tools/…`` in backticks are paths of this repository."""
    for page in BY_HAND:
        for name in re.findall(r"`((?:src|tests|tools|docs|bench|requirements)/[\w./\-]+)`", prose(page)):
            assert (ROOT / name).exists(), f"{_name(page)}: there is no {name}"


def _verbs():
    return sorted(name for name in dir(perdure.Store) if not name.startswith("_"))


def test_the_reference_is_current():
    """`make reference` has nothing to write."""
    done = subprocess.run(
        [sys.executable, "tools/generate_reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_has_every_public_name_and_verb():
    headings = re.findall(
        r"^#{2,3} `(.+?)`", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    kinds = {name: getattr(perdure, name) for name in _exports.names()}
    errors = {n for n, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, perdure.PerdureError)}
    assert set(headings) == {*_exports.names(), "open", *_verbs()} - errors
    text = prose(ROOT / "docs" / "reference.md")
    for name in errors:
        assert f"| `{name}` |" in text, name


@pytest.mark.parametrize("name", [*_exports.names(), *_verbs()])
def test_each_public_name_is_explained_by_a_page_written_by_hand(name):
    """A name that only the generated reference knows is one that nobody shows how to use."""
    assert any(re.search(rf"\b{name}\b", page.read_text(encoding="utf-8")) for page in BY_HAND)


def test_every_page_is_listed():
    """A reader (or a model) who begins at llms.txt finds each page."""
    listed = {(ROOT / link).resolve() for link in links(ROOT / "llms.txt") if ":" not in link}
    pages = {page for page in PAGES if page.name not in {"llms.txt", "CHANGELOG.md"} and "decisions" not in page.parts}
    assert pages <= listed
