"""Context windows, on every driver."""

from perdure.testing.suite.window import *
