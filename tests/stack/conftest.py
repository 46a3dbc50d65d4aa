"""Free and taken loopback ports, and homes that keep away from the usual ports and so from any other stack."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from dlg_ml_tasks.stack.ports import Ports


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which this process listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """Makes a list of distinct ports on which nobody listens."""

    def find(count: int) -> list[int]:
        with ExitStack() as held:
            servers = [held.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(count)]
            return [server.getsockname()[1] for server in servers]

    return find


@pytest.fixture(scope="session")
def remember_ports(free_ports: Callable[[int], list[int]]) -> Callable[..., Ports]:
    """Writes the record of a home's ports: free ones, but for those given."""

    def remember(home: Path, **given: int) -> Ports:
        roles = list(Ports.model_fields)
        ports = Ports(**{**dict(zip(roles, free_ports(len(roles)), strict=True)), **given})
        home.mkdir(parents=True, exist_ok=True)
        (home / "ports.json").write_text(json.dumps(ports.model_dump()))
        return ports

    return remember
