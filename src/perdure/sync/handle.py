# Generated from perdure/services/handle.py by tools/generate_sync.py; change that file and run `make sync`.
"""What every service stands on: a driver, a scope, a clock, and the rules about transactions.

A handle is cheap: ``acting_as`` and ``transaction`` give another one over the same connections.
"""

import copy
import logging
import os
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Self, TypeVar

from perdure.grammar import Op, Scope
from perdure.kit import blocking as kit
from perdure.rooms.chores import ops as chores
from perdure.rooms.keys import ops as keys
from perdure.sync import engines
from perdure.values import limits
from perdure.values.clock import Clock, system_clock
from perdure.values.config import PersistenceConfig
from perdure.values.errors import Closed, Forbidden, Invalid, Misused, PerdureError

T = TypeVar("T")

TENANT_CHORES = ("text_index", "idempotency")
"""What has to be done for each tenant; see ``perdure.services.chores``."""
_FOLLOWING = ("text_index",)
"""Those of them that a write gives something to do at once."""
_NEWS_SECONDS = 60.0
_TOLD = 10_000
_log = logging.getLogger("perdure.chores")

inside_of: ContextVar["Block | None"] = ContextVar("perdure_transaction", default=None)


class Block:
    """A transaction block that this code runs in. A task that was begun in one may outlive it, hence ``over``."""

    __slots__ = ("outer", "over", "shared")

    def __init__(self, shared: "Shared", outer: "Block | None") -> None:
        self.shared = shared
        self.outer = outer
        self.over = False


class Shared:
    """What all handles of one store share."""

    def __init__(self, config: PersistenceConfig) -> None:
        self.config = config
        self.driver: Any = None
        self.opening = kit.Lock()
        self.process = os.getpid()
        self.closed = False
        self.ensured: dict[tuple[str, str], Any] = {}
        """Conversations that will be created with their first message, by tenant and id."""
        self.told: dict[str, float] = {}
        """Until when nothing more need be said to the chores of a tenant."""
        self.tracking_failures = 0
        self.chores: Any = None


class Handle:
    """A view of a store: on whose behalf, and inside which transaction."""

    def __init__(self, config: PersistenceConfig, *, clock: Clock = system_clock) -> None:
        self._shared = Shared(config)
        self._scope = Scope()
        self._clock = clock
        self._session: Any = None
        self._born: list[tuple[str, str]] | None = None
        """Inside a transaction: the ensured conversations that exist once it is committed."""
        self._news: set[str] | None = None
        """Inside a transaction: the tenants that were written to."""
        self._told = self._shared.told
        self._tells_chores = True
        self._initialize_on_use = True
        self._is_root = True
        self._confined = False

    # -- scope -------------------------------------------------------------------------------------------------------------

    def acting_as(self, actor: str, reason: str | None = None) -> Self:
        """A handle whose changes are recorded under ``actor``'s name, with ``reason`` when given."""
        limits.text(actor, "actor", limits.NAME_BYTES)
        if reason is not None:
            limits.text(reason, "reason", limits.TITLE_BYTES)
        return self._with(Scope(self._scope.tenant, actor, reason))

    def for_tenant(self, tenant: str) -> Self:
        """A handle that sees and changes the rows of one tenant only, by any argument, filter, cursor or id.

        It can be handed on: it gives no way to another tenant, and asking it for one is ``Forbidden``.
        """
        limits.identifier(tenant, "tenant")
        if self._confined:
            raise Forbidden("a tenant's handle leads to no other tenant", hint="use the store that opened it")
        twin = self._with(Scope(tenant, self._scope.actor, self._scope.reason))
        twin._confined = True
        return twin

    def _with(self, scope: Scope) -> Self:
        twin = copy.copy(self)
        twin._scope = scope
        twin._is_root = False
        return twin

    def _working_for(self, tenant: str) -> Self:
        """A handle for the chores of a tenant, which are not news to themselves."""
        twin = self._with(Scope(tenant))
        twin._tells_chores = False
        return twin

    @property
    def tenant(self) -> str:
        """The tenant that this handle is bound to."""
        return self._scope.tenant

    @property
    def config(self) -> PersistenceConfig:
        """The store's settings."""
        return self._shared.config

    # -- running ------------------------------------------------------------------------------------------------------------

    def _run(self, op: Op[T]) -> T:
        """The answer of a recipe: in this handle's transaction, or in one of its own."""
        session = self._session
        if session is not None:
            answer = session.run(op, self._scope)
            if not op.traits.reads and self._tells_chores:
                self._take_note(session)
            return answer
        if self._is_inside():
            raise Misused(
                "a verb of the store was called inside its transaction block",
                hint="call it on what `with store.transaction() as t` gave you",
            )
        driver = self._shared.driver
        if driver is None or self._shared.closed or self._shared.process != os.getpid():
            driver = self._ready()
        answer = driver.run(op, self._scope)
        if not op.traits.reads and self._tells_chores:
            self._tell_chores(driver)
        return answer

    def _take_note(self, session: Any) -> None:
        """A tenant was written to inside a transaction: its chores are told when that is over, a guest's within it."""
        if self._news is not None:
            self._news.add(self._scope.tenant)
        else:
            self._tell_chores(session)

    def _tell_chores(self, runner: Any) -> None:
        """Says, at most once a minute, that this tenant was written to; see ``perdure.services.chores``."""
        tenant, told, moment = self._scope.tenant, self._told, time.monotonic()
        if moment < told.get(tenant, 0.0):
            return
        if len(told) >= _TOLD:
            told.clear()
        told[tenant] = moment + _NEWS_SECONDS
        hastened = [f"{tenant}/{name}" for name in _FOLLOWING]
        planned = [f"{tenant}/{name}" for name in TENANT_CHORES if name not in _FOLLOWING]
        try:
            runner.run(chores.news(hastened, planned, self._clock()), self._scope)
        except PerdureError as error:  # the write stands; the next one says it again
            told.pop(tenant, None)
            _log.debug("the chores of %r were not told: %s", tenant, error)

    def _is_inside(self) -> bool:
        """Whether this code runs in a transaction block of this store."""
        block = inside_of.get()
        while block is not None:
            if block.shared is self._shared and not block.over:
                return True
            block = block.outer
        return False

    def _administered(self) -> Any:
        """The open driver, for verbs with a connection of their own: a transaction block would wait for itself."""
        if self._session is not None or self._is_inside():
            raise Misused("this verb has a transaction of its own; call it on the store, outside the block")
        return self._ready()

    def _ready(self) -> Any:
        """The open driver; opened by the first use where nobody did it before."""
        shared = self._shared
        self._check_process()
        if shared.closed:
            raise Closed(f"the store at {shared.config.safe_url} is closed")
        with shared.opening:
            if shared.driver is None:
                driver = engines.driver_for(shared.config)
                driver.open()
                try:
                    if self._initialize_on_use:
                        driver.initialize(create=True, migrate_steps=True)
                except BaseException:
                    driver.close()
                    raise
                shared.driver = driver
        return shared.driver

    def _check_process(self) -> None:
        """Connections do not survive a fork: two processes on one would lose what both were told is stored."""
        if self._shared.process != os.getpid():
            raise Misused("the store was opened before this process was forked", hint="open one in each process")

    def _settle(self, conversation_id: str) -> None:
        """An ensured conversation was inserted: it waits no longer, unless the transaction may still be taken back."""
        key = (self.tenant, conversation_id)
        if self._session is None:
            self._shared.ensured.pop(key, None)
        elif self._born is not None:
            self._born.append(key)

    def _once(
        self,
        verb: str,
        key: str | None,
        content: Callable[[], tuple[object, ...]],
        recipe: Op[T],
        name: Callable[[T], list[str]],
        replay: Callable[[list[str]], Op[T | None]],
    ) -> T:
        """The answer of a creating recipe, or of its first run under the same idempotency key."""
        if key is None:
            return self._run(recipe)
        limits.text(key, "idempotency_key", limits.IDEMPOTENCY_KEY_BYTES)
        once = keys.once(verb, key, keys.digest(*content()), self._clock(), recipe, name, replay)
        return self._run(once.taking_long() if recipe.traits.long else once)


def config_for(where: PersistenceConfig | str | os.PathLike[str] | None) -> PersistenceConfig:
    """The settings for an address, a path, or ``PERDURE_URL`` when there is none."""
    if isinstance(where, PersistenceConfig):
        return where
    if where is None:
        where = os.environ.get("PERDURE_URL")
        if not where:
            raise Invalid(
                "no address was given and PERDURE_URL is not set", field="connection_string",
                hint='perdure.open("sqlite:///agent.db")',
            )  # fmt: skip
    try:
        return PersistenceConfig(os.fspath(where))
    except TypeError:
        raise Invalid(
            f"an address is a URL, a path or a PersistenceConfig, not {type(where).__name__}", field="connection_string"
        ) from None
