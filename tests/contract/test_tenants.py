"""Tenants, on every driver."""

from perdure.testing.suite.tenants import *
