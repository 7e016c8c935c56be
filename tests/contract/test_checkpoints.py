"""Checkpoints, on every driver."""

from perdure.testing.suite.checkpoints import *
