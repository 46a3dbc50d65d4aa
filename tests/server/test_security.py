"""What the real server would do for anybody, and this one does for nobody."""

from __future__ import annotations

import http.client
import re

import pytest


@pytest.mark.parametrize("command", ["ARCHIVE", "QARCHIVE"])
@pytest.mark.parametrize("source", ["/etc/hostname", "file:///etc/hostname", "http://127.0.0.1:1/x", "ftp://h/x"])
def test_nothing_is_pulled(idle_wire, command, source):
    refused = idle_wire.get(command, filename=source, mime_type="application/octet-stream")
    assert (refused.code, refused.failed) == (400, True)
    assert refused.message.startswith("NGAMS_ER_ILL_REQ:4017:ERROR: This NG/AMS is not configured for accepting")
    assert "POST" in refused.message
    assert idle_wire.rows() == []


@pytest.mark.parametrize("name", ["../../../escaped", "/escaped", "..", "a/../../escaped", "..%2F..%2Fescaped"])
def test_no_name_leads_out_of_the_archive(server, wire, tmp_path, name):
    wire.push(bytes(100_000), filename=name, file_id=name)
    outside = [path for path in tmp_path.rglob("*") if server.root not in path.parents and path != server.root]
    assert outside == []
    files = {str(path.relative_to(server.root)) for path in server.root.rglob("*") if path.is_file()}
    own = {"lock", "catalogue.sqlite", "catalogue.sqlite-wal", "catalogue.sqlite-shm", "volume1/disk_id"}
    (stored,) = files - own
    assert re.fullmatch(r"volume1/objects/[0-9a-f]{2}/[0-9a-f]{40}-[0-9a-f]{32}", stored)


def test_status_writes_no_dump(idle_wire, tmp_path):
    idle_wire.get("STATUS", dump_object_info=str(tmp_path / "dump"))
    assert not (tmp_path / "dump").exists()


def _status_with(server, **headers):
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    connection.request("GET", "/STATUS", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7777", "localhost.evil.example", "[::2]", ""])
def test_a_request_addressed_to_another_host_is_refused(idle_server, host):
    assert _status_with(idle_server, Host=host) == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7777", "127.0.0.1:7777", "[::1]:7777"])
def test_a_request_addressed_to_this_machine_is_answered(idle_server, host):
    assert _status_with(idle_server, Host=host) == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_web_page_of_another_site_is_refused(idle_server, site):
    assert _status_with(idle_server, **{"Sec-Fetch-Site": site}) == 403


def test_a_user_who_types_the_address_into_a_browser_is_answered(idle_server):
    assert _status_with(idle_server, **{"Sec-Fetch-Site": "none"}) == 200
