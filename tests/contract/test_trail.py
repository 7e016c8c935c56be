"""Messages that change, on every driver."""

from perdure.testing.suite.trail import *
