"""Checkpoints step by step, on every driver."""

from perdure.testing.suite.checkpoints_steps import *
