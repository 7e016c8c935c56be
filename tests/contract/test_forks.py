"""Forks, on every driver."""

from perdure.testing.suite.forks import *
