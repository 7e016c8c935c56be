"""Idempotency keys, on every driver."""

from perdure.testing.suite.idempotency import *
