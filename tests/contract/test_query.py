"""Finding conversations, on every driver."""

from perdure.testing.suite.query import *  # noqa: F403 - the tests themselves
