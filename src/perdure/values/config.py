"""Settings of a store: one struct for both engines, each value checked where it is given."""

import os
import re
from typing import Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from perdure.values.errors import Invalid

Durability = Literal["normal", "full"]

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)?\s*$")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"^\s*(\d+)\s*(b|kb|mb|gb|tb)?\s*$", re.IGNORECASE)
_BYTES = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3, "tb": 1024**4}
_NAME = re.compile(r"^[a-z_][a-z0-9_]{0,62}$")
_MEMORY = {":memory:", "sqlite://:memory:", "sqlite:///:memory:", "sqlite://"}


def seconds(value: object, field: str) -> float:
    """A duration in seconds from ``"30s"``, ``"500ms"``, ``"5min"`` or a number of seconds; it must be above 0."""
    if isinstance(value, str):
        found = _DURATION.match(value)
        if found is None:
            raise Invalid(f'{field} must be a duration such as "30s", "500ms" or 30, not {value!r}', field=field)
        number = float(found[1]) * _SECONDS[found[2] or "s"]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    else:
        raise Invalid(f'{field} must be a duration such as "30s", not {type(value).__name__}', field=field)
    if not 0 < number <= 86400 * 365:
        raise Invalid(f"{field} must be above 0 and at most a year, not {value!r}", field=field)
    return number


def size(value: object, field: str) -> int:
    """A size in bytes from ``"256MB"`` (1 MB = 1,048,576 bytes) or a number of bytes; it must be above 0."""
    if isinstance(value, str):
        found = _SIZE.match(value)
        if found is None:
            raise Invalid(f'{field} must be a size such as "256MB", not {value!r}', field=field)
        number = int(found[1]) * _BYTES[(found[2] or "b").lower()]
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        raise Invalid(f'{field} must be a size such as "256MB", not {type(value).__name__}', field=field)
    if not 0 < number < 2**50:
        raise Invalid(f"{field} must be above 0 and below 1 PB, not {value!r}", field=field)
    return number


class PersistenceConfig:
    """How a store connects and waits.

    Durations are given as ``"30s"``, ``"500ms"`` or seconds and kept in seconds; sizes as ``"256MB"`` or bytes and
    kept in bytes; a malformed value is ``Invalid`` and names the field. ``repr`` hides the password.

    On SQLite ``pool_size`` is the number of readers' connections, ``effective_cache_size`` the page cache of each,
    ``idle_in_transaction_session_timeout`` the time limit of ``store.transaction()``, and ``work_mem``,
    ``maintenance_work_mem``, ``lock_timeout``, ``max_overflow`` and ``prepare_threshold`` mean nothing.
    ``durability="full"`` waits for the disk at each commit; ``"normal"`` survives a killed process but may lose the
    last moments when the machine loses power. ``prepare_threshold=None`` turns prepared statements off and sends
    every setting with each transaction, as poolers in transaction mode need it.
    """

    __slots__ = (
        "busy_timeout", "connection_string", "durability", "echo_sql", "effective_cache_size",
        "idle_in_transaction_session_timeout", "lock_timeout", "maintenance_work_mem", "max_overflow", "pool_size",
        "pool_timeout", "prepare_threshold", "schema", "statement_timeout", "work_mem",
    )  # fmt: skip

    def __init__(
        self,
        connection_string: str,
        schema: str = "perdure",
        pool_size: int = 20,
        max_overflow: int = 10,
        pool_timeout: float | str = 30,
        echo_sql: bool = False,
        statement_timeout: float | str | None = None,
        lock_timeout: float | str | None = None,
        idle_in_transaction_session_timeout: float | str | None = None,
        work_mem: int | str | None = None,
        maintenance_work_mem: int | str | None = None,
        effective_cache_size: int | str | None = None,
        busy_timeout: float | str = "5s",
        durability: Durability = "normal",
        prepare_threshold: int | None = 5,
    ) -> None:
        self.connection_string = _address(connection_string)
        self.schema = _name(schema, "schema")
        self.pool_size = _count(pool_size, "pool_size", 1)
        self.max_overflow = _count(max_overflow, "max_overflow", 0)
        self.pool_timeout = seconds(pool_timeout, "pool_timeout")
        self.echo_sql = _flag(echo_sql, "echo_sql")
        self.statement_timeout = _seconds(statement_timeout, "statement_timeout")
        self.lock_timeout = _seconds(lock_timeout, "lock_timeout")
        self.idle_in_transaction_session_timeout = _seconds(
            idle_in_transaction_session_timeout, "idle_in_transaction_session_timeout"
        )
        self.work_mem = _size(work_mem, "work_mem")
        self.maintenance_work_mem = _size(maintenance_work_mem, "maintenance_work_mem")
        self.effective_cache_size = _size(effective_cache_size, "effective_cache_size")
        self.busy_timeout = seconds(busy_timeout, "busy_timeout")
        if durability not in {"normal", "full"}:
            raise Invalid(f'durability is "normal" or "full", not {durability!r}', field="durability")
        self.durability: Durability = durability
        self.prepare_threshold = (
            None if prepare_threshold is None else _count(prepare_threshold, "prepare_threshold", 0)
        )

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in sorted(self.__slots__)}
        shown["connection_string"] = self.safe_url
        return f"PersistenceConfig({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def engine(self) -> Literal["sqlite", "postgres"]:
        """Which engine the address names."""
        return "postgres" if self.connection_string.startswith("postgresql://") else "sqlite"

    @property
    def safe_url(self) -> str:
        """The address without its password, for logs and errors."""
        return hide_password(self.connection_string)

    @property
    def sqlite_path(self) -> str | None:
        """The file of an SQLite address, None for memory."""
        return None if self.connection_string == ":memory:" else unquote(self.connection_string[len("sqlite:///") :])


def hide_password(url: str) -> str:
    """A URL with ``***`` in place of its password, in its authority and in its query."""
    if not url.startswith("postgresql://"):
        return url
    parts = urlsplit(url)
    host = parts.netloc
    if "@" in host:
        login, _, place = host.rpartition("@")
        host = f"{login.split(':', 1)[0]}:***@{place}" if ":" in login else host
    query = "&".join(_hidden(option) for option in parts.query.split("&"))
    return urlunsplit((parts.scheme, host, parts.path, query, parts.fragment))


def _hidden(option: str) -> str:
    """One ``name=value`` of a URL's query, its value hidden when it is a password."""
    name, equals, value = option.partition("=")
    return f"{name}={'***' if 'password' in unquote(name).lower() else value}" if equals else option


def _address(url: object) -> str:
    """The address in its one form: ``:memory:``, ``sqlite:///…`` or ``postgresql://…``."""
    field = "connection_string"
    if not isinstance(url, str) or not url.strip() or "\0" in url:
        raise Invalid("connection_string must be a URL such as sqlite:///agent.db", field=field)
    if url in _MEMORY:
        return ":memory:"
    if re.match(r"^\s*(host|hostaddr|port|dbname|user|password|service|sslmode)\s*=", url):
        raise Invalid("connection_string must be a URL", field=field, hint="postgresql://user:password@host/database")
    scheme, colon, rest = url.partition("://")
    engine = scheme.split("+", 1)[0].lower()  # the +driver part of other libraries' URLs is ignored
    if colon and engine in {"postgresql", "postgres"}:
        return _postgres_address(rest)
    if colon and engine == "sqlite":
        if not rest.startswith("/") or rest == "/":
            raise Invalid(
                "an SQLite URL has three slashes before a relative path and four before an absolute one",
                field=field, hint="sqlite:///agent.db or sqlite:////var/lib/agent.db",
            )  # fmt: skip
        if "?" in rest:
            raise Invalid("an SQLite URL has no parameters; settings go into PersistenceConfig", field=field)
        return f"sqlite:///{rest[1:]}"
    if colon or re.match(r"^[A-Za-z0-9+]+:", url):
        named = re.split(r"\W", url, maxsplit=1)[
            0
        ]  # not more of it: a password may stand anywhere in what is malformed
        raise Invalid(f"perdure speaks sqlite:// and postgresql://, not {named}://", field=field)
    return f"sqlite:///{quote(os.fspath(url), safe='/')}"


def _postgres_address(rest: str) -> str:
    url = f"postgresql://{rest}"
    try:
        login = urlsplit(url).netloc
    except ValueError:
        raise Invalid("connection_string is not a well-formed URL", field="connection_string") from None
    if login.count("@") > 1:  # the rest of a password would be taken, and shown, for the host
        raise Invalid(
            "connection_string has more than one @ before its path", field="connection_string", hint="write %40"
        )
    return url


def _seconds(value: float | str | None, field: str) -> float | None:
    return None if value is None else seconds(value, field)


def _size(value: int | str | None, field: str) -> int | None:
    return None if value is None else size(value, field)


def _name(value: object, field: str) -> str:
    if not isinstance(value, str) or not _NAME.match(value):
        raise Invalid(f"{field} must be a plain lower-case SQL name of at most 63 letters", field=field)
    return value


def _flag(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"{field} is True or False, not {value!r}", field=field)
    return value


def _count(value: object, field: str, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= 10_000:
        raise Invalid(f"{field} must be an integer from {low} to 10,000, not {value!r}", field=field)
    return value
