"""A process that makes one call and dies before it can tell anybody of the answer."""

import os

from kill_worker import Call, perform

import perdure.sync
from perdure.values.config import PersistenceConfig


def work(url: str, call: Call) -> None:
    """The call is committed, then SIGKILL."""
    with perdure.sync.Store(PersistenceConfig(url, pool_size=1)) as store:
        perform(store, call)
        os.kill(os.getpid(), 9)
