"""Messages, on every driver."""

from perdure.testing.suite.messages import *  # noqa: F403 - the tests themselves
