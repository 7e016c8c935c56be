"""What the commands about checkpoints take: which one, and the key that opens it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from perdure.values.errors import Invalid, OverLimit

KEY_HINT = "the key or passphrase that they were saved with, in PERDURE_KEY or --key-file"
KEY_BYTES = 4_096

IdArgument = Annotated[
    str, typer.Argument(metavar="ID", show_default=False, help="An id, or THREAD@latest, THREAD@BRANCH, THREAD~3.")
]
ThreadOption = Annotated[
    str | None, typer.Option("--thread", metavar="THREAD", help="The thread; short ids and ~3 are of it then.")
]
NamespaceOption = Annotated[
    str | None, typer.Option("--namespace", metavar="NAME", help="LangGraph's checkpoints in this namespace.")
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="Holds the key or passphrase; without it PERDURE_KEY does."),
]


def key_of(key_file: Path | None) -> str | bytes | None:
    """The key or passphrase in a file, else that in the environment; None when neither is given.

    A file's last line break is not part of it; what is no text is taken as raw bytes.
    """
    if key_file is None:
        return os.environ.get("PERDURE_KEY") or None
    with key_file.open("rb") as file:
        raw = file.read(KEY_BYTES + 3)
    if len(raw.rstrip(b"\r\n")) > KEY_BYTES:
        raise OverLimit(f"{key_file} holds no key: it has more than {KEY_BYTES:,} bytes", field="key_file")
    try:
        text = raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        return raw
    if not text.strip():
        raise Invalid(f"{key_file} is empty", field="key_file")
    return text if text.isprintable() else raw
