"""Idempotency keys, on every driver."""

from perdure.testing.suite.idempotency import *  # noqa: F403 - the tests themselves
