"""STATUS, the ONLINE and OFFLINE states, and what the server does not know."""

from __future__ import annotations

import re
import socket
from contextlib import contextmanager

import pytest


def test_the_server_reports_its_state(idle_server, idle_wire):
    status = idle_wire.get("STATUS")
    assert status.code == 200
    assert status.message == "Successfully handled command STATUS"
    assert (status.status["State"], status.status["SubState"]) == ("ONLINE", "IDLE")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", status.status["Date"])
    assert re.fullmatch(rf"[^.:]+:{idle_server.port}", status.status["HostId"])
    assert status.disk == status.file == {}
    assert idle_wire.get("STATUS", host_id=status.status["HostId"]).code == 200


def test_a_file_is_described_by_id_and_version(wire):
    for data in (b"one", b"longer"):
        wire.push(data, filename="a.bin")
    assert wire.get("STATUS", file_id="a.bin").file["FileSize"] == "6"
    assert wire.get("STATUS", file_id="a.bin", file_version=-1).file["FileVersion"] == "2"
    assert wire.get("STATUS", file_id="a.bin", file_version=1).file["FileSize"] == "3"


def test_a_disk_is_described_by_id(wire):
    wire.push(b"one", filename="a.bin")
    status = wire.get("STATUS", disk_id=wire.disk_id)
    assert (status.disk["DiskId"], status.disk["NumberOfFiles"]) == (wire.disk_id, "1")
    assert status.file == {}


@pytest.mark.parametrize(
    ("unknown", "message"),
    [
        ({"file_id": "nope"}, "NGAMS_ER_UNAVAIL_FILE:4019:ERROR: File with ID: nope appears not to be available."),
        ({"file_id": "nope", "file_version": 9}, "NGAMS_ER_UNAVAIL_FILE:4019:ERROR: File with ID: nope/Version: 9"),
        ({"disk_id": "nope"}, "NGAMS_ER_UNKNOWN_DISK:4020:ERROR: "),
        ({"host_id": "foo"}, "No NGAS host with host_id: foo"),
        ({"file_id": "x", "file_version": "abc"}, "invalid literal for int() with base 10: 'abc'"),
        ({"dump_object_info": "/tmp/x"}, "NGAMS_ER_CMD_SYNTAX:4035:ERROR: "),
        ({"request_id": 1}, "NGAMS_ER_CMD_SYNTAX:4035:ERROR: "),
    ],
)
def test_what_is_unknown_is_a_400_with_its_message(idle_wire, unknown, message):
    refused = idle_wire.get("STATUS", **unknown)
    assert (refused.code, refused.failed) == (400, True)
    assert refused.message.startswith(message)


@pytest.mark.parametrize("path", ["NOPE", "status", "RETRIEVE/x", "", "REGISTER"])
def test_an_unknown_command_is_a_404(idle_wire, path):
    refused = idle_wire.get(path)
    assert (refused.code, refused.message) == (404, "Command not found")


def test_a_doubled_slash_before_the_command_is_no_matter(idle_wire):
    assert idle_wire.get("/STATUS").code == 200


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_other_methods_are_refused(idle_wire, method):
    assert idle_wire.session.request(method, f"{idle_wire.url}/STATUS", timeout=30).status_code == 405


def test_of_a_repeated_parameter_the_last_counts(wire):
    wire.push(b"x", filename="a.bin")
    response = wire.session.get(f"{wire.url}/RETRIEVE?file_id=b.bin&file_id=a.bin", timeout=30)
    assert response.content == b"x"


def test_a_query_that_is_not_utf8_is_refused(idle_wire):
    response = idle_wire.session.get(f"{idle_wire.url}/STATUS?file_id=%ff", timeout=30)
    assert response.status_code == 400
    assert b"not percent-encoded UTF-8" in response.content


def test_an_offline_server_neither_archives_nor_retrieves_but_answers_and_discards(wire):
    wire.push(b"x", filename="a.bin")
    assert wire.get("OFFLINE").status["State"] == "OFFLINE"
    for refused in (wire.push(b"y", filename="b.bin"), wire.get("RETRIEVE", file_id="a.bin"), wire.get("INIT")):
        assert refused.code == 400
        assert refused.message.startswith("NGAMS_ER_IMPROPER_STATE:4015:ERROR: ")
    assert wire.push(b"y", filename="b.bin").message.endswith(
        "Archive Request not allowed when in State/Sub-State: OFFLINE/IDLE. "
        "Allowed State(s)/Sub-State(s) are: ['ONLINE']/['IDLE', 'BUSY']."
    )
    assert wire.get("STATUS", file_id="a.bin").code == 200
    assert wire.get("CHECKFILE", file_id="a.bin").code == 200
    assert len(wire.rows()) == 1
    done = wire.get("DISCARD", file_id="a.bin", file_version=1, disk_id=wire.disk_id, execute=1)
    assert not done.failed
    assert wire.get("ONLINE").status["State"] == "ONLINE"
    assert wire.push(b"y", filename="b.bin").code == 200


def test_a_state_is_not_entered_twice(wire):
    assert wire.get("ONLINE").message.startswith("NGAMS_ER_IMPROPER_STATE:4015")
    assert wire.get("INIT").message == "Successfully handled command INIT"
    wire.get("OFFLINE")
    assert wire.get("OFFLINE").message.startswith("NGAMS_ER_IMPROPER_STATE:4015")


def test_help_leads_to_the_manual(idle_wire):
    response = idle_wire.session.get(f"{idle_wire.url}/HELP", allow_redirects=False, timeout=30)
    assert (response.status_code, response.headers["Location"]) == (308, "https://ngas.readthedocs.io")


@contextmanager
def upload_under_way(server, command="QARCHIVE"):
    """An upload that lacks its last byte; gives a function that sends it and gives the head of the reply."""
    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        connection.sendall(
            f"POST /{command}?filename=a.bin HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
            "Content-Length: 100000\r\n\r\n".encode()
            + bytes(99_999)
        )

        def finish():
            connection.sendall(b"x")
            return connection.recv(10_000)

        yield finish


@pytest.mark.parametrize("command", ["ARCHIVE", "QARCHIVE"])
def test_the_server_is_busy_while_files_move_and_idle_after(server, wire, eventually, command):
    def sub_state():
        return wire.get("STATUS").status["SubState"]

    assert sub_state() == "IDLE"
    with upload_under_way(server, command) as finish:
        eventually(lambda: sub_state() == "BUSY")
        assert wire.get("INIT").message.startswith("NGAMS_ER_IMPROPER_STATE:4015")
        reply = finish()
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert b'SubState="IDLE"' in reply
    eventually(lambda: sub_state() == "IDLE")


def test_a_client_that_goes_away_does_not_leave_the_server_busy(server, wire, eventually):
    with upload_under_way(server):
        eventually(lambda: wire.get("STATUS").status["SubState"] == "BUSY")
    eventually(lambda: wire.get("STATUS").status["SubState"] == "IDLE")


def test_a_busy_server_goes_offline_only_by_force_and_finishes_what_is_under_way(server, wire, eventually):
    with upload_under_way(server) as finish:
        eventually(lambda: wire.get("STATUS").status["SubState"] == "BUSY")
        refused = wire.get("OFFLINE")
        assert refused.code == 400
        assert refused.message.endswith(
            "Command OFFLINE not allowed when in State/Sub-State: ONLINE/BUSY. "
            "Allowed State(s)/Sub-State(s) are: ['ONLINE']/['IDLE']."
        )
        assert wire.get("OFFLINE", force=1).code == 200
        assert wire.push(b"x", filename="b.bin").code == 400
        assert finish().startswith(b"HTTP/1.1 200 ")
    assert wire.get("CHECKFILE", file_id="a.bin").message.startswith("NGAMS_INFO_FILE_OK")


def test_exit_ends_a_server_that_is_offline(server, wire, eventually):
    refused = wire.get("EXIT")
    assert refused.code == 400
    assert "Command EXIT not allowed when in State/Sub-State: ONLINE/IDLE" in refused.message
    wire.get("OFFLINE")
    done = wire.get("EXIT")
    assert (done.code, done.failed, done.message) == (200, False, "NG/AMS Server performing exit")
    eventually(lambda: _refuses_connections(server))


def _refuses_connections(server):
    try:
        socket.create_connection((server.host, server.port), timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.integration
def test_exit_ends_the_process_with_code_0(run_server, connect):
    with run_server() as server:
        wire = connect(server.url)
        wire.push(b"x", filename="a.bin")
        wire.get("OFFLINE")
        wire.get("EXIT")
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.log.read_text()
