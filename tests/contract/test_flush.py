"""Flushing whole histories, on every driver."""

from perdure.testing.suite.flush import *
