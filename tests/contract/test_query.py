"""Finding conversations, on every driver."""

from perdure.testing.suite.query import *
