"""Checkpoints of large states, on every driver."""

from perdure.testing.suite.checkpoints_sizes import *
