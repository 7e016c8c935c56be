"""Settings, on every driver."""

from perdure.testing.suite.settings import *
