"""Checkpoints of several at once, on every driver."""

from perdure.testing.suite.checkpoints_together import *
