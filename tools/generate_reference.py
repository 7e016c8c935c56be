#!/usr/bin/env python3
"""Writes docs/reference.md from the docstrings of the public names; `--check` only says whether it is current.

Signatures are taken from the source, so that they read as they were written.
"""

import ast
import inspect
import re
import sys
import textwrap
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import perdure
from perdure import _exports
from perdure.services import checkpoint_desk, opening
from perdure.values import errors, limits

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "reference.md"
HEAD = """# Reference

Generated from the docstrings by `make reference`; change those instead.

Everything below is a name of `perdure`. The verbs are awaited; `perdure.sync` has the same names and verbs, blocking
([how](howto/use-blocking-code.md)). Errors that a verb raises are listed where they are special; `Invalid` and
`OverLimit` for malformed values, `Unavailable` and `Damaged` can come from any ([what to do](howto/errors-and-retries.md)).
"""
VERBS = {
    "ConversationVerbs": "Conversations and accounts",
    "MessageVerbs": "Messages",
    "SearchVerbs": "Search",
    "FeedVerbs": "Changes",
    "TransferVerbs": "Import, export and formats",
    "TrackingVerbs": "Tracking",
    "Handle": "Handles",
    "Store": "Life, transactions, administration",
}
"""The sections, by the class that has the verbs."""
CHECKPOINTER = {
    "SavingVerbs": "Save",
    "ReadingVerbs": "Find, restore, replay",
    "BranchVerbs": "Branch, tag, compare, merge",
    "CareVerbs": "Retention, copies, trust, keys",
    "CheckpointDesk": "Types, schemas, handles",
    "Checkpointer": "Life",
}
"""The sections of `Checkpointer`, likewise."""
CONSTANTS = {"MISSING": "No value: in a `MergeConflict` where a side has none, and as what `resolve` answers for none."}
"""Public names that are no classes."""
MADE_BY = {"Tracker": "async with store.track(conversation_id) as tracker"}
"""Classes that callers get from a verb and never make."""


@cache
def _tree(path: str) -> ast.Module:
    return ast.parse(Path(path).read_text(encoding="utf-8"))


def _class(kind: type) -> ast.ClassDef:
    """The source of a class."""
    path = inspect.getsourcefile(kind)
    assert path is not None
    return next(node for node in _tree(path).body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)


def _function(node: ast.ClassDef | ast.Module, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    for child in ast.walk(node):  # __init__ may stand inside `if TYPE_CHECKING`
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and child.name == name:
            return child
    return None


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "property" for mark in node.decorator_list)


def _is_static(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in node.decorator_list)


def _text(node: ast.AST) -> str:
    """Source text: strings in double quotes as the formatter has them, names of classes without any."""
    text = re.sub(r"'([^'\"]*)'", r'"\1"', ast.unparse(node))
    return re.sub(r'"([A-Z]\w+)"', r"\1", text)


def _aliases(path: str) -> dict[str, str]:
    """The module's own names for long annotations, which mean nothing to a reader."""
    found: dict[str, str] = {}
    for node in _tree(path).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, text = node.targets[0].id, _text(node.value)
            if name[0].isupper() and not name.isupper() and (text.startswith("Literal[") or " | " in text):
                found[name] = text
    return found


def signature(name: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """``name(arguments) -> answer`` as it was written, without self, broken where it is long."""
    arguments = [part for part in _arguments(node.args) if part != "self"]
    answer = "" if node.returns is None or name[0].isupper() else f" -> {_text(node.returns)}"
    return _laid_out(name, arguments, answer)


def _laid_out(name: str, arguments: list[str], answer: str) -> str:
    line = f"{name}({', '.join(arguments)}){answer}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){answer}"


def _arguments(args: ast.arguments) -> list[str]:
    """Each argument with its annotation and default."""
    first = len(args.args) - len(args.defaults)
    found = [_argument(arg, args.defaults[i - first] if i >= first else None) for i, arg in enumerate(args.args)]
    if args.vararg is not None:
        found.append(f"*{_argument(args.vararg, None)}")
    elif args.kwonlyargs:
        found.append("*")
    found += [_argument(arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    if args.kwarg is not None:
        found.append(f"**{_argument(args.kwarg, None)}")
    return found


def _argument(arg: ast.arg, default: ast.expr | None) -> str:
    text = arg.arg if arg.annotation is None else f"{arg.arg}: {_text(arg.annotation)}"
    if default is None:
        return text
    return f"{text} = {_text(default)}" if arg.annotation is not None else f"{text}={_text(default)}"


def markdown(doc: str | None) -> str:
    """A docstring as Markdown: code in single backticks, raised errors and examples as blocks of their own."""
    text = inspect.cleandoc(doc or "")
    text = re.sub(r"(?m)^(Raises|Example):\n((?:[ ]{4}.*\n?|\n)+)", _section, text)
    text = re.sub(r"::\n\n((?:[ ]{4}.*\n?|\n)+)", lambda m: f":\n\n```text\n{_dedented(m[1])}\n```\n\n", text)
    return re.sub(r"(?<!`)``(?!`)([^`]+)``(?!`)", r"`\1`", text).strip()


def _section(found: re.Match[str]) -> str:
    body = _dedented(found[2])
    if found[1] == "Example":
        return f"```pycon\n{body}\n```\n\n"
    items = re.sub(r"(?m)^(\w+): ", r"- `\1`: ", body)
    return f"Raises:\n\n{items}\n\n"


def _dedented(text: str) -> str:
    return textwrap.dedent(text).strip()


def _entry(level: int, name: str, code: str, doc: str | None) -> str:
    return f"{'#' * level} `{name}`\n\n```text\n{code}\n```\n\n{markdown(doc)}\n"


def verbs(kind: type, owner: str = "") -> list[str]:
    """The entries of a class's own public members, in the order of the source; those of an ``owner`` stand under it."""
    entries: list[str] = []
    aliases = _aliases(inspect.getsourcefile(kind) or "")
    for node in _class(kind).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            code = signature(node.name, node)
            for alias, meaning in aliases.items():
                code = re.sub(rf"\b{alias}\b", meaning, code)
            if _is_property(node) and owner:
                continue
            if _is_property(node):
                code = code.replace("()", "", 1).replace(" -> ", ": ")
            prefix = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
            prefix = {"asynccontextmanager": "async with "}.get(_decorator(node), prefix)
            if prefix == "await " and "AsyncIterator" in code:
                prefix = "async for ... in "
            entries.append(_entry(4 if owner else 3, owner + node.name, prefix + code, ast.get_docstring(node)))
    return entries


def _decorator(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return next((mark.id for mark in node.decorator_list if isinstance(mark, ast.Name)), "")


def value(name: str, kind: Any = None) -> str:
    """The entry of a value or of a class of stores."""
    kind = kind or getattr(perdure, name)
    node = _class(kind)
    init = _function(node, "__init__")
    code = signature(name, init) if init is not None else _laid_out(name, _fields(kind), "")
    if name in MADE_BY:
        code = MADE_BY[name]
    elif _is_enum(kind):
        code = "\n".join(f"{name}.{member.name} = {member.value!r}" for member in kind)
    entry = _entry(3, name, code, kind.__doc__)
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and not member.name.startswith("_") and _is_property(member):
            kind_of = "" if member.returns is None else f": {_text(member.returns)}"
            entry += f"\n- `.{member.name}{kind_of}`: {markdown(ast.get_docstring(member))}\n"
    return re.sub(r"(?m)(^- `\..*\n)\n(?=- `\.)", r"\1", entry)


def _is_enum(kind: type) -> bool:
    return "__members__" in vars(kind) or hasattr(kind, "__members__")


def _fields(kind: type) -> list[str]:
    """The fields of a struct, those of its bases last."""
    found: list[str] = []
    for base in kind.__mro__:
        if base.__module__.startswith("perdure."):
            found += [
                _text(node) for node in _class(base).body
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id[0] != "_"
            ]  # fmt: skip
    return found


def error_table() -> str:
    """Every error with its code, its exit code and what it says."""
    rows = ["| error | family | code | exit code | meaning |", "|---|---|---|---|---|"]
    for name, kind in vars(errors).items():
        if name[0] != "_" and isinstance(kind, type) and issubclass(kind, errors.PerdureError):
            family = kind.__mro__[-5].__name__ if len(kind.__mro__) > 5 else ""
            meaning = " ".join(markdown(kind.__doc__).split()).replace("|", "\\|")
            rows.append(f"| `{name}` | {family and f'`{family}`'} | `{kind.code}` | {kind.exit_code} | {meaning} |")
    return "\n".join(rows)


def limit_table(module: ModuleType) -> str:
    """Every named limit with its number and what it bounds."""
    rows = ["| limit | value | what it bounds |", "|---|---|---|"]
    path = inspect.getsourcefile(module)
    assert path is not None
    body = _tree(path).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            name = node.targets[0].id
            doc = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                doc = " ".join(markdown(str(following.value.value)).split())
            rows.append(f"| `{name}` | {getattr(module, name):,} | {doc} |")
    return "\n".join(rows)


def _sections(kind: type, titles: dict[str, str]) -> list[tuple[str, type]]:
    """The classes that a class has its verbs from, each with its title, in the order of the titles."""
    homes = {base.__name__: base for base in kind.__mro__}
    return [(title, homes[name]) for name, title in titles.items()]


def page() -> str:
    """The whole reference."""
    path = inspect.getsourcefile(opening)
    assert path is not None
    front = _function(_tree(path), "open")
    assert front is not None
    parts = [HEAD, "## Opening a store\n", _entry(3, "open", signature("open", front), ast.get_docstring(front))]
    stores = ["Store", "SQLiteStore", "PostgresStore", "PersistenceConfig"]
    parts += [value(name) for name in stores]
    homes = [kind for kind in perdure.Store.__mro__ if kind.__name__ in VERBS]
    for kind in sorted(homes, key=lambda kind: list(VERBS).index(kind.__name__)):
        entries = verbs(kind)
        if entries:
            parts += [f"## {VERBS[kind.__name__]}\n", *entries]
        if kind.__name__ == "TrackingVerbs":
            parts += [value("Tracker"), *verbs(perdure.Tracker, "Tracker.")]
    parts += [
        "## Checkpoints\n",
        value("Checkpointer", checkpoint_desk.CheckpointDesk).replace("CheckpointDesk", "Checkpointer"),
    ]
    for title, kind in _sections(perdure.Checkpointer, CHECKPOINTER):
        parts += [f"### {title}\n", *(entry.replace("### `", "#### `", 1) for entry in verbs(kind))]
    kinds = {name: getattr(perdure, name) for name in _exports.names() if name not in CONSTANTS}
    problems = {name for name, kind in kinds.items() if issubclass(kind, errors.PerdureError)}
    parts.append("## Values\n")
    parts += [value(name) for name in kinds if name not in {*problems, *stores, "Tracker", "Checkpointer"}]
    parts += [f"### `{name}`\n\n{meaning}\n" for name, meaning in CONSTANTS.items()]
    parts += ["## Errors\n", markdown(errors.__doc__), "", error_table(), "", "## Limits\n", limit_table(limits)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).strip() + "\n"


def main() -> int:
    """0 when the page is current (or was written)."""
    text = page()
    current = TARGET.exists() and TARGET.read_text(encoding="utf-8") == text
    if current:
        return 0
    if "--check" in sys.argv[1:]:
        print("stale: docs/reference.md; run `make reference`")
        return 1
    TARGET.write_text(text, encoding="utf-8")
    print("wrote: docs/reference.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
