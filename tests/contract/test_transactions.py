"""Transactions of several verbs, on every driver."""

from perdure.testing.suite.transactions import *
