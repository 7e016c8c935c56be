"""How tests run the ``perdure`` command: in this process, in one of its own, on a terminal."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from perdure.cli.main import app

ESCAPE = "\x1b"


def quiet(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Works in a folder, with nothing of the developer's terminal."""
    monkeypatch.chdir(folder)
    for name in ("PERDURE_URL", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "PERDURE_TENANT", "PERDURE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def call(*words: str, env: dict[str, str] | None = None) -> Any:
    """The result of a command that runs in this process."""
    return CliRunner().invoke(app, words, env=env, catch_exceptions=False)


def answer(*words: str, code: int = 0) -> Any:
    """The JSON document of a command."""
    result = call(*words, "--json")
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout)


def process(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """The outcome of a command in a process of its own, with pipes."""
    command = [sys.executable, "-m", "perdure.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env, timeout=120, check=False)


def terminal(*words: str, columns: int = 80, typed: str = "", code: int = 0, **env: str) -> str:
    """What a command writes to a terminal of that width, on which that is typed."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "perdure.cli.main", *words]
    child = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env=os.environ | {"COLUMNS": str(columns)} | env
    )
    os.close(follower)
    os.write(leader, typed.encode())
    pieces: list[bytes] = []
    while True:
        try:
            piece = os.read(leader, 65_536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(leader)
    assert child.wait(timeout=60) == code
    return b"".join(pieces).decode().replace("\r\n", "\n")


def without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
