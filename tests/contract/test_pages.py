"""Pages of messages, on every driver."""

from perdure.testing.suite.pages import *
