"""Conversations, on every driver."""

from perdure.testing.suite.conversations import *  # noqa: F403 - the tests themselves
