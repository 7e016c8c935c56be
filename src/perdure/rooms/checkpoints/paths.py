"""Dotted paths into a state: ``agent.plan.steps[2].title``, ``messages[id=m3].content``.

A path is a chain of steps, and two different chains never read alike:

- ``.name`` a key that is text; ``["a.b"]``, as JSON text, when it is empty or holds a dot, bracket, quote, equals
  sign, space or character that cannot be seen. The first name has no dot before it.
- ``[key=2]`` a key that is no text, by its ``repr``; that as JSON text where it holds any of those characters.
- ``[2]`` a position in a list, from 0; ``[id=m3]`` the item with that id. An id that is no text
  stands by its ``repr``; text that reads as an integer or holds anything unusual stands as JSON text.
"""

import json
import re
from typing import Any

_PLAIN = re.compile(r"[^\s.\[\]\"=]+")
_ID = re.compile(r"[A-Za-z0-9_.:@/+\-]+")
_INTEGER = re.compile(r"[+-]?[0-9]+")


def key_step(key: Any) -> str:
    """The step to a key of a mapping."""
    if isinstance(key, str):
        return key if _is_plain(key) else f"[{_quoted(key)}]"
    shown = repr(key)
    return f"[key={shown if _is_plain(shown) else _quoted(shown)}]"


def index_step(index: int) -> str:
    """The step to a position in a list."""
    return f"[{index}]"


def id_step(name: Any) -> str:
    """The step to the list item that has this id."""
    if isinstance(name, str):
        plain = _ID.fullmatch(name) and not _INTEGER.fullmatch(name)
        return f"[id={name if plain else _quoted(name)}]"
    return f"[id={name!r}]"


def joined(path: str, step: str) -> str:
    """A path with one more step."""
    return path + step if not path or step.startswith("[") else f"{path}.{step}"


def _is_plain(text: str) -> bool:
    return text.isprintable() and _PLAIN.fullmatch(text) is not None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())
