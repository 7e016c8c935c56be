"""Forks, on every driver."""

from perdure.testing.suite.forks import *  # noqa: F403 - the tests themselves
