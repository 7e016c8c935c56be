"""Messages, on every driver."""

from perdure.testing.suite.messages import *
