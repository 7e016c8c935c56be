"""Ensured conversations, on every driver."""

from perdure.testing.suite.ensure import *  # noqa: F403 - the tests themselves
