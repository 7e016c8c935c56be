"""Context windows, on every driver."""

from perdure.testing.suite.window import *  # noqa: F403 - the tests themselves
