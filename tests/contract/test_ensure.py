"""Ensured conversations, on every driver."""

from perdure.testing.suite.ensure import *
