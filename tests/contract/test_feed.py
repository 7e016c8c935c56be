"""The change feed, on every driver."""

from perdure.testing.suite.feed import *
