"""What a server's log is spared."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import pytest

from dlg_ml_tasks.archive.server import EmbeddedNgas, Limits

pytestmark = pytest.mark.integration


def test_a_reader_that_has_enough_is_no_error(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture, eventually: Callable[..., None]
) -> None:
    content = bytes(16 << 20)
    with caplog.at_level(logging.INFO), EmbeddedNgas(tmp_path_factory.mktemp("ngas")) as server:
        with socket.create_connection((server.host, server.port)) as writer:
            head = "POST /QARCHIVE?filename=f.bin HTTP/1.0\r\nContent-Type: application/octet-stream\r\n"
            writer.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            assert b"SUCCESS" in writer.makefile("rb").read()
        with socket.create_connection((server.host, server.port)) as reader:
            reader.sendall(b"GET /RETRIEVE?file_id=f.bin HTTP/1.0\r\n\r\n")
            assert reader.recv(1000)
        eventually(lambda: "closed the connection before" in caplog.text)
    assert "Traceback" not in caplog.text
    assert "malformed" not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_overload_is_no_error(tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(max_requests=0)
    with (
        caplog.at_level(logging.INFO),
        EmbeddedNgas(tmp_path_factory.mktemp("ngas"), limits=limits) as server,
        socket.create_connection((server.host, server.port)) as client,
    ):
        client.sendall(b"GET /STATUS HTTP/1.0\r\n\r\n")
        assert b"503" in client.makefile("rb").read()
    assert "malformed" not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
