"""Messages that change, on every driver."""

from perdure.testing.suite.trail import *  # noqa: F403 - the tests themselves
