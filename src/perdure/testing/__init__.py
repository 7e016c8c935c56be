"""perdure's own tests, for use outside: one contract suite that runs on every driver, and a real PostgreSQL from pip.

``pytest_plugins = ["perdure.testing.plugin"]`` in a ``conftest.py`` gives the fixtures; the modules of
``perdure.testing.suite`` hold the tests (``from perdure.testing.suite.messages import *``).
"""
