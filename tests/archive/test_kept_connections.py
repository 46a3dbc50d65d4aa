"""Connections are used again where the server allows it, and one that it closed meanwhile does no harm."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.archive import ArchiveUnreachable, NgasClient
from dlg_ml_tasks.archive.server import EmbeddedNgas

pytestmark = pytest.mark.integration


def test_one_connection_serves_many_requests(wire: Any, file_id: str, tmp_path: Path) -> None:
    client = NgasClient(wire.host, wire.port, timeout=5, patience=0)
    client.archive(b"content", file_id, f"{file_id}.bin")
    client.retrieve(file_id, tmp_path / "back")
    client.query(file_id)
    client.delete(file_id)
    assert client.find(file_id) is None  # a refusal leaves the connection good
    assert wire.connections == 1


def test_a_range_that_ends_early_leaves_no_bytes_for_the_next_reply(wire: Any, file_id: str) -> None:
    client = NgasClient(wire.host, wire.port, timeout=5, patience=0)
    content = bytes(range(256)) * 8000
    status = client.archive(content, file_id, f"{file_id}.bin")
    for start in (0, 1, 1_000_000):
        assert client.read(status, start, start + 10) == content[start : start + 10]
    client.delete(file_id)


def test_a_restarted_server_is_no_error_even_without_patience(tmp_path: Path, file_id: str) -> None:
    with EmbeddedNgas(tmp_path / "ngas") as first:
        port = first.port
        client = NgasClient(first.host, port, timeout=5, patience=0)
        client.archive(b"content", file_id, f"{file_id}.bin")
    with EmbeddedNgas(tmp_path / "ngas", port=port):
        assert client.read(client.status(file_id)) == b"content"
        assert client.archive(b"other", file_id, f"{file_id}.bin").version == 2
        assert len(client.query(file_id)) == 1


def test_an_upload_on_a_connection_that_was_closed_meanwhile_is_stored_once(
    wire: Any, client: NgasClient, file_id: str
) -> None:
    impatient = NgasClient(wire.host, wire.port, timeout=5, patience=0)
    impatient.server_status()
    wire.break_next_request()  # as a server that closes an idle connection just when a request is on its way
    stored = impatient.archive(b"content", file_id, f"{file_id}.bin", known=None)
    assert stored.version == 1
    assert [copy.version for copy in client.query(file_id)] == [1]


def test_a_server_that_breaks_every_connection_is_unreachable_at_once(wire: Any) -> None:
    client = NgasClient(wire.host, wire.port, timeout=5, patience=0)
    client.server_status()
    wire.break_next_request()
    wire.always = type(wire.always)(cut_down=0)
    with pytest.raises(ArchiveUnreachable):
        client.server_status()


def _read_in_child(host: str, port: int, file_id: str) -> None:
    client = _parents[0]
    assert client.address == (host, port)
    for _ in range(20):
        assert client.read(client.status(file_id)) == b"content"


_parents: list[NgasClient] = []


def test_a_forked_child_uses_connections_of_its_own(client: NgasClient, file_id: str) -> None:
    client.archive(b"content", file_id, f"{file_id}.bin")
    _parents[:] = [client]
    children = [
        multiprocessing.get_context("fork").Process(target=_read_in_child, args=(*client.address, file_id))
        for _ in range(3)
    ]
    for child in children:
        child.start()
    for _ in range(20):
        assert client.read(client.status(file_id)) == b"content"
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
