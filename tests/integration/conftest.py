"""One embedded stack for all integration tests, on free ports and under a home of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]

DLG_ML = (sys.executable, "-m", "dlg_ml_tasks.cli.main")

PATIENCE = 300
"""Seconds that anything may take on a busy machine."""

SCRIPTED = Path(__file__).parents[1] / "components"
"""Folder of the recipe whose samples succeed, fail or sleep as their name says; the node managers must find it, too."""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def environment(home: Path) -> dict[str, str]:
    """The environment of a user whose stack is the tests'."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DLG_ML", "MLFLOW_TRACKING"))}
    environment |= {"DLG_ML_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SCRIPTED), os.environ.get("PYTHONPATH"))))
    return environment


@pytest.fixture(scope="session")
def command(environment: dict[str, str], home: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs `dlg-ml` as a user would, in a folder of its own."""
    folder = tmp_path_factory.mktemp("cwd")

    def run(
        *arguments: str, check: bool = True, cwd: Path = folder, home: Path = home
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*DLG_ML, *arguments],
            env=environment | {"DLG_ML_HOME": str(home)},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


class Terminal:
    """`dlg-ml` at a terminal of its own: what it shows, and a keyboard."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self._shown = bytearray()
        self._process = subprocess.Popen(
            [*DLG_ML, *arguments],
            preexec_fn=lambda: _take(theirs),
            env=environment | {"TERM": "xterm"},
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self._shown += os.read(self._ours, 65536)
            except OSError:  # how Linux says that nobody has the terminal open any more
                return

    @property
    def text(self) -> str:
        """All that was shown, without what moves the cursor and links."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\].*?\x1b\\", "", self._shown.decode(errors="replace"))

    @property
    def line(self) -> str:
        """The same as one line, however it was wrapped."""
        return " ".join(self.text.split())

    def wait_for(self, text: str) -> None:
        """Return when the text has been shown."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.text:
            assert time.monotonic() < deadline, self.text[-2000:]
            assert self._process.poll() is None, self.text[-2000:]
            time.sleep(0.1)

    def press(self, keys: str) -> None:
        """Type at the keyboard; ^C is \\x03."""
        os.write(self._ours, keys.encode())

    def end(self) -> int:
        """The exit code, once it has ended."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def close(self) -> None:
        """End what still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._ours)


def _take(terminal: int) -> None:
    """Make it the controlling terminal of a session of this process's own, so that ^C becomes a signal."""
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for stream in (0, 1, 2):
        os.dup2(terminal, stream)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background of a shell


@pytest.fixture
def terminal(stack: Command, environment: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    """Starts `dlg-ml` at a terminal."""
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal(environment, *arguments))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture(scope="session")
def stack(command: Command) -> Iterator[Command]:
    """The embedded stack, up; yields the command."""
    command("up")
    yield command
    command("down")
