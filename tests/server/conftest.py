"""A server on a free loopback port, and a client that hides nothing of the wire."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
import requests

from dlg_ml_tasks.archive.server import EmbeddedNgas

OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Answer:
    """An HTTP reply, and the attributes of its status document's elements ({} where there is no such element)."""

    response: requests.Response
    status: dict[str, str]
    disk: dict[str, str]
    file: dict[str, str]

    @property
    def code(self) -> int:
        return self.response.status_code

    @property
    def message(self) -> str:
        return self.status["Message"]

    @property
    def failed(self) -> bool:
        return self.status["Status"] == "FAILURE"


def parsed(response: requests.Response) -> Answer:
    if response.headers.get("Content-Type") != "text/xml":
        return Answer(response, {}, {}, {})
    root = ElementTree.fromstring(response.content)
    found = [root.find(f".//{name}") for name in ("Status", "DiskStatus", "FileStatus")]
    return Answer(response, *({} if element is None else dict(element.attrib) for element in found))


class Wire:
    """Sends commands as a client would and reads the answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def get(self, command: str, headers: dict[str, str] | None = None, **parameters: object) -> Answer:
        return parsed(self.session.get(f"{self.url}/{command}", params=parameters, headers=headers, timeout=30))

    def push(
        self,
        data: bytes,
        command: str = "QARCHIVE",
        headers: dict[str, str] | None = None,
        method: str = "POST",
        **parameters: object,
    ) -> Answer:
        url = f"{self.url}/{command}"
        sent = {**OCTETS, **(headers or {})}
        return parsed(self.session.request(method, url, params=parameters, data=data, headers=sent, timeout=30))

    def rows(self, like: str = "%") -> list[dict[str, object]]:
        return self.get("QUERY", query="files_like", like=like, format="json").response.json()

    @property
    def disk_id(self) -> str:
        return self.get("QUERY", query="disks_list", format="json").response.json()[0]["disk_id"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "ngas"


@pytest.fixture
def server(root: Path) -> Iterator[EmbeddedNgas]:
    with EmbeddedNgas(root) as running:
        yield running


@pytest.fixture
def connect() -> Iterator[Callable[[str], Wire]]:
    """Makes a Wire to any server; all are closed at the end."""
    wires: list[Wire] = []

    def to(url: str) -> Wire:
        wires.append(Wire(url))
        return wires[-1]

    yield to
    for wire in wires:
        wire.session.close()


@pytest.fixture
def wire(server: EmbeddedNgas, connect: Callable[[str], Wire]) -> Wire:
    return connect(server.url)


@pytest.fixture(scope="module")
def idle_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNgas]:
    """One server for all tests of a module in which nothing is ever stored: starting and stopping one takes 0.2 s."""
    with EmbeddedNgas(tmp_path_factory.mktemp("idle")) as running:
        yield running


@pytest.fixture
def idle_wire(idle_server: EmbeddedNgas, connect: Callable[[str], Wire]) -> Wire:
    return connect(idle_server.url)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Waits until a condition holds; fails after half a minute."""

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.01)

    return wait


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A loopback port at which nobody answers: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@dataclass
class ServerProcess:
    """A server as a user starts it."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def run_server(root: Path, tmp_path: Path) -> Callable[..., object]:
    """Starts `python -m dlg_ml_tasks.archive.server` on `root`; a context manager that stops it."""

    @contextmanager
    def run(*options: str) -> Iterator[ServerProcess]:
        log = tmp_path / "server.log"
        command = [sys.executable, "-m", "dlg_ml_tasks.archive.server", "--root", str(root), "--port", "0", *options]
        with log.open("w") as output, subprocess.Popen(command, stderr=output, text=True, env=os.environ) as process:
            try:
                yield ServerProcess(process, _announced_url(process, log), log)
            finally:
                process.terminate()
                process.wait(timeout=30)

    return run


def _announced_url(process: subprocess.Popen[str], log: Path) -> str:
    while process.poll() is None:
        if match := re.search(r"ready at (http://\S+)", log.read_text()):
            return match[1]
    raise AssertionError(f"The server ended at once: {log.read_text()}")
