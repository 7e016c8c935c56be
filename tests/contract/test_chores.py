"""Housekeeping and health, on every driver."""

from perdure.testing.suite.chores import *
