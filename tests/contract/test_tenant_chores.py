"""Housekeeping for every tenant, on every driver."""

from perdure.testing.suite.tenant_chores import *
