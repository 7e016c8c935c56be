"""Readers of the feed that wait, on every driver."""

from perdure.testing.suite.waiting import *
