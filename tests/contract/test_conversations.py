"""Conversations, on every driver."""

from perdure.testing.suite.conversations import *
