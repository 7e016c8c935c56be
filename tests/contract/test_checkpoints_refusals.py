"""Refusals of checkpoints, on every driver."""

from perdure.testing.suite.checkpoints_refusals import *
