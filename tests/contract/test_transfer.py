"""Import and export, on every driver."""

from perdure.testing.suite.transfer import *
