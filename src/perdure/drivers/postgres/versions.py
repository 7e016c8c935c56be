"""What ``open`` and ``doctor`` ask of a PostgreSQL server. Blocking twin: generated."""

from typing import Any

from perdure.drivers.postgres.statements import Connection

_FIXED = {14: 24, 15: 19, 16: 15, 17: 11, 18: 6}
"""The first minor version of each major one without a known hole."""


async def problems(connection: Connection) -> list[str]:
    """What to warn of: old servers, and roles that row-level security does not bind."""
    cursor = await connection.execute(
        "select current_setting('server_version_num')::int, rolsuper or rolbypassrls from pg_roles "
        "where rolname = current_user"
    )
    row = await cursor.fetchone()
    assert row is not None
    return describe(row[0], unbound=bool(row[1]))


def describe(version_num: int, *, unbound: bool) -> list[str]:
    """The warnings for a server's version number (180006 is 18.6) and its role."""
    major, minor = divmod(version_num, 10_000)
    found: list[str] = []
    if major < min(_FIXED) or minor < _FIXED.get(major, 0):
        wanted = ", ".join(f"{major}.{minor}" for major, minor in _FIXED.items())
        found.append(f"PostgreSQL {major}.{minor} has known holes; safe versions begin at {wanted}")
    if unbound:
        found.append(
            "the store connects as a superuser or with BYPASSRLS, so row-level security does not hold tenants apart; "
            "use an ordinary role"
        )
    return found


async def report(connection: Connection) -> dict[str, Any]:
    """Facts about the server; ``problems`` lists what is wrong, ``advice`` which settings to look at, in words."""
    cursor = await connection.execute(
        "select current_setting('server_version'), current_setting('data_checksums'), "
        "current_setting('synchronous_commit'), current_setting('fsync'), pg_database_size(current_database()), "
        "current_setting('max_connections')"
    )
    row = await cursor.fetchone()
    assert row is not None
    advice: list[str] = []
    if row[1] != "on":
        advice.append("data_checksums are off: the server would not notice a damaged page")
    if row[3] != "on":
        advice.append("fsync is off: a power failure can lose everything")
    return {
        "engine": "PostgreSQL",
        "engine_version": row[0],
        "page_checksums": row[1] == "on",
        "synchronous_commit": row[2],
        "bytes": row[4],
        "max_connections": row[5],
        "problems": await problems(connection),
        "advice": advice,
    }
