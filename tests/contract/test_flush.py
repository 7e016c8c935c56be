"""Flushing whole histories, on every driver."""

from perdure.testing.suite.flush import *  # noqa: F403 - the tests themselves
