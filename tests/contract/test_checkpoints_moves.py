"""Threads of checkpoints as files, on every driver."""

from perdure.testing.suite.checkpoints_moves import *
