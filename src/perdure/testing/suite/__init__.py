"""The contract: what every driver must answer, one module for each capability.

A project that has a driver of its own runs the same tests on it: its ``opener`` fixture opens stores, and a test file
imports a module's tests (``from perdure.testing.suite.messages import *``).
"""

import pkgutil

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))
