"""The figures of the battery: each test tells its own, the end of the run shows them all."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tell = Callable[..., None]


@pytest.fixture
def tell(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Tell:
    """``tell("kills", killed=100, lost=0)``: shown at the end, and kept as JSON below ``PERDURE_RELIABILITY_OUT``."""

    def keep(name: str, **figures: Any) -> None:
        record_property("reliability", f"{name}: " + ", ".join(f"{what} {value}" for what, value in figures.items()))
        folder = os.environ.get("PERDURE_RELIABILITY_OUT")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, f"{name}.json").write_text(json.dumps({"test": request.node.nodeid, **figures}, indent=1))

    return keep


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each test that told something, whether it passed or failed."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [value for report in reports for name, value in report.user_properties if name == "reliability"]
    if lines:
        terminalreporter.section("reliability")
        for line in sorted(set(lines)):
            terminalreporter.write_line(line)
