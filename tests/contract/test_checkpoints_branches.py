"""Branches of checkpoints, on every driver."""

from perdure.testing.suite.checkpoints_branches import *
