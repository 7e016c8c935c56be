"""Which driver speaks to which engine; opening one imports no other. The blocking package has its own, by hand."""

from typing import Any

from perdure.values.config import PersistenceConfig
from perdure.values.errors import MissingExtra


def driver_for(config: PersistenceConfig) -> Any:
    """The driver that speaks to the configured engine."""
    if config.engine == "sqlite":
        from perdure.drivers.sqlite.aio import AsyncSqlite

        return AsyncSqlite(config)
    try:
        from perdure.drivers.postgres.groups import GroupingPostgres
    except ModuleNotFoundError as error:
        raise MissingExtra("PostgreSQL needs psycopg", hint="pip install 'perdure[postgres]'") from error
    return GroupingPostgres(config)


def guest_driver(connection: Any, config: PersistenceConfig) -> Any:
    """A driver on somebody else's psycopg connection."""
    from perdure.drivers.postgres.guest import AsyncGuest

    return AsyncGuest(connection, config)
