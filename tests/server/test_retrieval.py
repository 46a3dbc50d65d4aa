"""RETRIEVE."""

from __future__ import annotations

import os
import socket

import pytest


def test_the_answer_names_the_file_its_type_and_its_length(wire):
    wire.push(b"hello", filename="a.bin", file_id="x")
    headers = wire.get("RETRIEVE", file_id="x").response.headers
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Length"] == "5"
    assert headers["Content-Disposition"] == 'attachment; filename="a.bin"'
    assert "Content-Range" not in headers


def test_a_name_that_no_header_can_hold_is_percent_encoded(wire):
    wire.push(b"hello", filename="日本.bin", file_id="x")
    headers = wire.get("RETRIEVE", file_id="x").response.headers
    assert headers["Content-Disposition"] == "attachment; filename*=UTF-8''%E6%97%A5%E6%9C%AC.bin"


@pytest.mark.parametrize("missing", [{"file_id": "nope"}, {"file_id": "a%"}, {"file_id": "a.bin", "file_version": 9}])
def test_a_missing_file_is_a_400_with_message_4019(wire, missing):
    wire.push(b"x", filename="a.bin")
    refused = wire.get("RETRIEVE", **missing)
    assert (refused.code, refused.failed) == (400, True)
    assert refused.message.startswith("NGAMS_ER_UNAVAIL_FILE:4019:ERROR: File with ID: " + missing["file_id"])


def test_an_unknown_disk_has_no_file(wire):
    wire.push(b"x", filename="a.bin")
    assert "NGAMS_ER_UNAVAIL_FILE:4019" in wire.get("RETRIEVE", file_id="a.bin", disk_id="other").message
    assert wire.get("RETRIEVE", file_id="a.bin", disk_id=wire.disk_id).response.content == b"x"


@pytest.mark.parametrize("version", [0, -1])
def test_version_zero_or_minus_one_is_the_latest(wire, version):
    wire.push(b"one", filename="a.bin")
    wire.push(b"two", filename="a.bin")
    assert wire.get("RETRIEVE", file_id="a.bin", file_version=version).response.content == b"two"


@pytest.mark.parametrize("parameters", [{}, {"file_id": ""}, {"internal": "/etc/passwd"}, {"internal": "x.dtd"}])
def test_a_request_without_a_file_id_is_refused(idle_wire, parameters):
    refused = idle_wire.get("RETRIEVE", **parameters)
    assert (refused.code, refused.message[:27]) == (400, "NGAMS_ER_RETRIEVE_CMD:4018:")


@pytest.mark.parametrize("size", [10, 1_000_000])
@pytest.mark.parametrize("start", [0, 3, 9, 10])
def test_an_open_range_gives_the_rest_with_status_200(wire, start, size):
    data, start = os.urandom(size), start * size // 10
    wire.push(data, filename="a.bin")
    response = wire.get("RETRIEVE", {"Range": f"bytes={start}-"}, file_id="a.bin").response
    assert (response.status_code, response.content) == (200, data[start:])
    assert response.headers["Content-Length"] == str(size - start)
    if start:
        assert response.headers["Content-Range"] == f"bytes {start}-{size - 1}/{size}"
        assert response.headers["Accept-Ranges"] == "bytes"


def test_a_range_that_starts_beyond_the_end_is_refused(wire):
    wire.push(b"0123456789", filename="a.bin")
    refused = wire.get("RETRIEVE", {"Range": "bytes=11-"}, file_id="a.bin")
    assert (refused.code, refused.failed) == (416, True)
    assert "the file has 10 bytes" in refused.message


@pytest.mark.parametrize("header", ["bytes=1-2", "bytes=-5", "bytes=1-,3-", "bytes=x-", "lines=1-", "bytes=125"])
def test_any_other_range_is_refused(wire, header):
    wire.push(b"0123456789", filename="a.bin")
    refused = wire.get("RETRIEVE", {"Range": header}, file_id="a.bin")
    assert refused.code == 400
    assert refused.message.startswith("Invalid Range header, must have the form 'bytes=start-'")


def test_a_file_whose_bytes_are_gone_is_missing(server, wire):
    wire.push(bytes(100_000), filename="a.bin")
    for path in (server.root / "volume1" / "objects").glob("*/*"):
        path.unlink()
    assert "NGAMS_ER_UNAVAIL_FILE:4019" in wire.get("RETRIEVE", file_id="a.bin").message


def test_a_reader_keeps_its_version_while_it_is_overwritten(server, wire):
    old, new = b"o" * 30_000_000, b"n"
    wire.push(old, filename="a.bin")
    with wire.session.get(f"{server.url}/RETRIEVE?file_id=a.bin", stream=True, timeout=30) as response:
        begin = response.raw.read(10)
        wire.push(new, filename="a.bin", versioning=0)
        assert begin + response.raw.read() == old
    assert wire.get("RETRIEVE", file_id="a.bin").response.content == new


def test_a_client_that_stops_reading_leaves_the_server_at_work(server, wire):
    wire.push(bytes(30_000_000), filename="a.bin")
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(b"GET /RETRIEVE?file_id=a.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(100)
    assert wire.get("STATUS").code == 200


def test_a_file_truncated_on_disk_does_not_arrive_as_a_whole_one(server, wire):
    wire.push(bytes(40_000_000), filename="a.bin")
    with wire.session.get(f"{server.url}/RETRIEVE?file_id=a.bin", stream=True, timeout=30) as response:
        for path in (server.root / "volume1" / "objects").glob("*/*"):
            path.write_bytes(b"")
        with pytest.raises(OSError, match=r"IncompleteRead|Connection"):
            response.content  # noqa: B018 - reading it is the point
