"""LangGraph's interfaces on a perdure store. Needs the extra ``langgraph``; names are loaded on first use."""

import importlib
from typing import TYPE_CHECKING, Any

from perdure.values.errors import MissingExtra

if TYPE_CHECKING:
    from perdure.adapters.langgraph.importing import CheckpointImport as CheckpointImport
    from perdure.adapters.langgraph.importing import import_checkpoints as import_checkpoints
    from perdure.adapters.langgraph.saver import PerdureSaver as PerdureSaver
    from perdure.adapters.langgraph.store import PerdureStore as PerdureStore

_HOME = {
    "CheckpointImport": "perdure.adapters.langgraph.importing",
    "PerdureSaver": "perdure.adapters.langgraph.saver",
    "PerdureStore": "perdure.adapters.langgraph.store",
    "import_checkpoints": "perdure.adapters.langgraph.importing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{name} needs LangGraph", hint="pip install 'perdure[langgraph]'") from error


def __dir__() -> list[str]:
    return sorted(_HOME)
