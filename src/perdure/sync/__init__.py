"""perdure, blocking: the same names as ``perdure``, and every verb a plain call.

The modules beside this file are generated from ``perdure.services``; this one is written by hand.
"""

import os
from typing import TYPE_CHECKING, Any

from perdure import _exports

if TYPE_CHECKING:
    from perdure.sync.store import PostgresStore as PostgresStore
    from perdure.sync.store import SQLiteStore as SQLiteStore
    from perdure.sync.store import Store as Store
    from perdure.values.config import PersistenceConfig


def open(  # noqa: A001 - the spec's name
    where: "PersistenceConfig | str | os.PathLike[str] | None" = None, *, chores: bool = False
) -> "Store":
    """A store that is connected and ready; use it in a ``with`` block or close it. See ``perdure.open``."""
    from perdure.sync.store import Store  # noqa: PLC0415 - loaded on first use

    return Store(where, chores=chores).initialize()


def __getattr__(name: str) -> Any:
    return _exports.load(name, blocking=True)


def __dir__() -> list[str]:
    return [*_exports.names(), "open"]
