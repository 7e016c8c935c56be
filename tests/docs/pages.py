"""Pages of the documentation, taken apart: code blocks, headings, links."""

import ast
import asyncio
import contextlib
import io
import re
import types
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "AGENTS.md",
    ROOT / "llms.txt",
    *sorted((ROOT / "docs").rglob("*.md")),
]
SPOKEN = [ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").rglob("*.md"))]
"""Pages whose Python runs."""

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[a-z]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
_FILE = re.compile(r"# (\w+\.py)\n")
_POSTGRES = re.compile(r"postgresql://[^\"'\s]*")


class Block(NamedTuple):
    """A fenced block: its language, its text, and the number of its first line of text."""

    language: str
    text: str
    line: int
    end: int


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["text"], text.count("\n", 0, found.start("text")) + 1, found.end())
        for found in _FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Where a page links to."""
    return _LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page)))


def anchors(page: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower().replace(" ", "-")
        for heading in _HEADING.findall(prose(page))
    }


def expected_output(page: Path, block: Block) -> str | None:
    """The text block that follows a Python block with nothing between them: what the block prints."""
    rest = page.read_text(encoding="utf-8")[block.end :].lstrip("\n")
    found = _FENCE.match(rest)
    return found["text"] if found and found["language"] == "text" else None


def matches(expected: str, printed: str) -> bool:
    """Whether the output is what the page shows; ``…`` stands for anything within its line."""
    pattern = ".*".join(re.escape(piece) for piece in expected.strip().split("…"))
    return re.fullmatch(pattern, printed.strip()) is not None


def needs_postgres(page: Path) -> bool:
    """Whether the code of a page talks to PostgreSQL."""
    return any(_POSTGRES.search(block.text) for block in blocks(page) if block.language == "python")


def write_files(page: Path, folder: Path) -> None:
    """Writes the files of a page: the blocks that begin with ``# name.py``."""
    for block in blocks(page):
        named = _FILE.match(block.text)
        if block.language == "python" and named:
            (folder / named[1]).write_text(block.text, encoding="utf-8")


def run(page: Path, folder: Path, postgres_url: str | None) -> list[str]:
    """Runs the Python of a page, block after block in one namespace; what went other than the page says, in words.

    A block that begins with ``# name.py`` is that file and is written first. Addresses of PostgreSQL are replaced by a real one.
    """
    return asyncio.run(_run(page, folder, postgres_url))


async def _run(page: Path, folder: Path, postgres_url: str | None) -> list[str]:
    write_files(page, folder)
    space: dict[str, Any] = {"__name__": "__page__"}
    wrong: list[str] = []
    for block in blocks(page):
        if block.language != "python":
            continue
        source = block.text if postgres_url is None else _POSTGRES.sub(postgres_url, block.text)
        if _FILE.match(source):
            continue
        printed = await _execute("\n" * (block.line - 1) + source, page, space)
        expected = expected_output(page, block)
        if expected is not None and not matches(expected, printed):
            wrong.append(f"{page.name}:{block.line} prints\n{printed}and the page says\n{expected}")
    return wrong


async def _execute(source: str, page: Path, space: dict[str, Any]) -> str:
    """What a block prints. The block may await; a failure points at the line of the page."""
    code = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        answer = types.FunctionType(code, space)()
        if code.co_flags & 0x80:  # CO_COROUTINE: it awaits
            await answer
    return output.getvalue()
