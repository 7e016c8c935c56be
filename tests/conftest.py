"""The fixtures of ``perdure.testing`` for all tests."""

pytest_plugins = ["perdure.testing.plugin"]
