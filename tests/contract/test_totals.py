"""Totals and the token report, on every driver."""

from perdure.testing.suite.totals import *
