"""Retention and threads of checkpoints, on every driver."""

from perdure.testing.suite.checkpoints_care import *
