"""ARCHIVE and QARCHIVE by push."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import sqlite3
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from crc32c import crc32c


def staged(server):
    return list((server.root / "volume1" / "staging").iterdir())


def objects(server):
    return list((server.root / "volume1" / "objects").glob("*/*"))


def bodies(server):
    with contextlib.closing(sqlite3.connect(server.root / "catalogue.sqlite")) as database:
        return database.execute("SELECT count(*) FROM bodies").fetchone()[0]


# Kept in the catalogue, and as an object of a volume.
SIZES = pytest.mark.parametrize("data", [b"data", b"data" * 50_000], ids=["small", "large"])


def test_what_is_archived_comes_back_byte_for_byte(wire):
    data = os.urandom(3_000_001)
    archived = wire.push(data, filename="a.bin")
    assert archived.code == 200
    assert archived.status["Status"] == "SUCCESS"
    assert archived.message == "Successfully handled Archive Push Request for data file with URI: a.bin"
    assert wire.get("RETRIEVE", file_id="a.bin").response.content == data


def test_the_reply_describes_the_file_and_its_disk(wire):
    archived = wire.push(b"hello checksum", filename="a.bin", file_id="dir/a")
    assert archived.file["FileId"] == "dir/a"
    assert archived.file["FileVersion"] == "1"
    assert archived.file["FileSize"] == archived.file["UncompressedFileSize"] == "14"
    assert archived.file["Checksum"] == "321222990"
    assert archived.file["ChecksumPlugIn"] == "crc32"
    assert archived.file["ContainerId"] == "None"
    assert archived.file["FileName"].endswith("/1/a.bin")
    assert archived.disk["DiskId"] == wire.disk_id
    assert archived.disk["NumberOfFiles"] == "1"
    assert archived.disk["BytesStored"] == "14"
    assert archived.status["RequestId"]


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(("command", "plugin"), [("ARCHIVE", "ngamsGenCrc32"), ("QARCHIVE", "crc32")])
def test_both_commands_take_both_methods_and_name_the_checksum_their_own_way(wire, method, command, plugin):
    archived = wire.push(b"x", command, method=method, filename="a.bin")
    assert archived.file["ChecksumPlugIn"] == plugin
    assert wire.get("CHECKFILE", file_id="a.bin").message.startswith("NGAMS_INFO_FILE_OK:4056:INFO: ")


def test_the_file_id_defaults_to_the_base_name_of_the_file_name(wire):
    assert wire.push(b"x", filename="a/b/c.bin").file["FileId"] == "c.bin"
    assert wire.push(b"x", filename="a/b/d.bin/").file["FileId"] == "d.bin"


def test_the_file_name_is_unquoted_twice_and_the_file_id_once(wire):
    assert wire.push(b"x", filename="u%41.bin").file["FileId"] == "uA.bin"
    assert wire.push(b"x", filename="a.bin", file_id="u%41").file["FileId"] == "u%41"


def test_parameters_may_come_in_the_content_disposition(wire):
    header = 'attachment; filename="dir/x.bin"; file_id=y'
    archived = wire.push(b"x", headers={"Content-Disposition": header})
    assert archived.file["FileId"] == "y"
    assert archived.file["FileName"].endswith("/x.bin")


@pytest.mark.parametrize(
    ("filename", "stored"),
    [("MLmodel", "MLmodel.bin"), ("x.json", "x.json.bin"), ("x.bin", "x.bin"), ("x.bin.bin", "x.bin")],
)
def test_the_reported_name_has_the_extension_of_its_type_once(wire, filename, stored):
    assert wire.push(b"x", filename=filename).file["FileName"].rpartition("/")[2] == stored


@pytest.mark.parametrize("file_id", ["a b&c=d#e?f+g;h", "../../etc/passwd", "é/日本/🔭", "<'\">", "%2F%", "x" * 300])
def test_any_file_id_is_kept_as_it_is(wire, file_id):
    assert wire.push(b"odd", filename="odd.bin", file_id=file_id).file["FileId"] == file_id
    assert wire.get("RETRIEVE", file_id=file_id).response.content == b"odd"
    assert wire.get("STATUS", file_id=file_id).file["FileId"] == file_id
    assert [row["file_id"] for row in wire.rows()] == [file_id]


def test_two_ids_with_one_file_name_share_no_bytes(wire):
    for run in range(4):
        wire.push(b"run %d" % run, filename="col.bin", file_id=f"run{run}/col.bin")
    for run in range(4):
        assert wire.get("RETRIEVE", file_id=f"run{run}/col.bin").response.content == b"run %d" % run
    names = [row["file_name"] for row in wire.rows()]
    assert len(set(names)) == 4
    assert all(name.endswith("/col.bin") for name in names)


def test_an_upload_adds_a_version_and_keeps_the_older_ones(wire):
    assert wire.push(b"one", filename="a.bin").file["FileVersion"] == "1"
    assert wire.push(b"two", filename="a.bin").file["FileVersion"] == "2"
    assert wire.get("RETRIEVE", file_id="a.bin").response.content == b"two"
    assert wire.get("RETRIEVE", file_id="a.bin", file_version=1).response.content == b"one"


def test_the_number_of_a_discarded_latest_version_is_given_again(wire):
    wire.push(b"one", filename="a.bin")
    wire.push(b"two", filename="a.bin")
    wire.get("DISCARD", file_id="a.bin", file_version=2, disk_id=wire.disk_id, execute=1)
    assert wire.push(b"three", filename="a.bin").file["FileVersion"] == "2"
    assert wire.get("RETRIEVE", file_id="a.bin").response.content == b"three"


@SIZES
@pytest.mark.parametrize("how", [{"versioning": 0}, {"no_versioning": 1}, {"versioning": 0, "no_versioning": 0}])
def test_overwriting_replaces_the_latest_version_and_frees_its_bytes(server, wire, how, data):
    for number in (b"1", b"2"):
        wire.push(data + number, filename="a.bin")
    before = len(objects(server)), bodies(server)
    assert wire.push(data + b"new", filename="a.bin", **how).file["FileVersion"] == "2"
    assert wire.get("RETRIEVE", file_id="a.bin").response.content == data + b"new"
    assert wire.get("RETRIEVE", file_id="a.bin", file_version=1).response.content == data + b"1"
    assert (len(objects(server)), bodies(server)) == before


def test_overwriting_can_name_a_version(wire):
    for data in (b"one", b"two"):
        wire.push(data, filename="a.bin")
    assert wire.push(b"new", filename="a.bin", versioning=0, file_version=1).file["FileVersion"] == "1"
    assert wire.get("RETRIEVE", file_id="a.bin").response.content == b"two"


def test_overwriting_what_does_not_exist_is_refused_and_stores_nothing(server, wire):
    refused = wire.push(b"x", filename="a.bin", versioning=0)
    assert (refused.code, refused.failed) == (400, True)
    assert "doesn't exist, can't overwrite" in refused.message
    wire.push(b"x", filename="b.bin")
    refused = wire.push(b"x", filename="b.bin", versioning=0, file_version=9)
    assert refused.code == 400
    assert refused.message.startswith("Invalid parameter: file_version=9 doesn't exist")
    assert bodies(server) == 1
    assert wire.push(bytes(100_000), filename="a.bin", versioning=0).code == 400
    assert objects(server) == []


def test_concurrent_uploads_of_one_id_get_distinct_versions(wire, connect):
    def upload(number):
        return int(connect(wire.url).push(b"%d" % number, filename="a.bin").file["FileVersion"]), b"%d" % number

    with ThreadPoolExecutor(8) as threads:
        uploaded = dict(threads.map(upload, range(16)))
    assert sorted(uploaded) == list(range(1, 17))
    for version, data in uploaded.items():
        assert wire.get("RETRIEVE", file_id="a.bin", file_version=version).response.content == data


@pytest.mark.parametrize(
    ("variant", "plugin", "checksum"),
    [
        (None, "crc32", zlib.crc32(b"data")),
        ("crc32", "crc32", zlib.crc32(b"data")),
        ("0", "crc32", zlib.crc32(b"data")),
        ("crc32c", "crc32c", crc32c(b"data")),
        ("1", "crc32c", crc32c(b"data")),
        ("crc32z", "crc32z", zlib.crc32(b"data")),
        ("-1", "None", "None"),
    ],
)
def test_the_checksum_is_of_the_variant_asked_for(wire, variant, plugin, checksum):
    archived = wire.push(b"data", filename="a.bin", crc_variant=variant)
    assert (archived.file["ChecksumPlugIn"], archived.file["Checksum"]) == (plugin, str(checksum))


def test_a_matching_announced_checksum_is_accepted_also_as_a_signed_number(wire):
    checksum = zlib.crc32(b"data")
    assert wire.push(b"data", filename="a.bin", headers={"NGAS-File-CRC": str(checksum)}).code == 200
    assert checksum >= 2**31
    assert wire.push(b"data", filename="a.bin", headers={"NGAS-File-CRC": str(checksum - 2**32)}).code == 200
    headers = {"ngas-file-crc": str(crc32c(b"data"))}
    assert wire.push(b"data", filename="a.bin", crc_variant="crc32c", headers=headers).code == 200


@SIZES
def test_a_checksum_that_does_not_match_stores_nothing(server, wire, data):
    refused = wire.push(data, filename="a.bin", headers={"NGAS-File-CRC": "1"})
    assert (refused.code, refused.failed) == (400, True)
    assert refused.message == f"Checksum error for file a.bin, local crc = {zlib.crc32(data)}, but remote crc = 1"
    assert wire.rows() == []
    assert staged(server) == objects(server) == []
    assert bodies(server) == 0


@pytest.mark.parametrize(
    ("parameters", "headers", "message"),
    [
        ({}, {}, "NGAMS_ER_MISSING_URI:4013:ERROR: "),
        ({"filename": "/"}, {}, "NGAMS_ER_MISSING_URI:4013:ERROR: "),
        ({"filename": "a.bin", "crc_variant": "md5"}, {}, "Unknown crc_variant 'md5'"),
        ({"filename": "a.bin"}, {"NGAS-File-CRC": "0xff"}, "NGAS-File-CRC must be a decimal number"),
        ({"filename": "a.bin", "versioning": "no"}, {}, "invalid literal for int()"),
        ({"filename": "a.bin", "file_version": "9" * 20, "versioning": 0}, {}, "file_version=99999999999999999999 is"),
        ({"filename": "a\n.bin"}, {}, "filename='a\\n.bin' contains the character"),
        ({"filename": "a.bin", "file_id": "a\x00"}, {}, "file_id='a\\x00' contains the character"),
        ({"filename": "é" * 130}, {}, "filename="),
        ({"filename": "a.bin"}, {"Content-Type": "application/json"}, "Unknown mime type: application/json"),
        ({"filename": "a.bin"}, {"Content-Type": "ngas/archive-request"}, "Unknown mime type: ngas/archive-request"),
        ({"filename": "a.xyz"}, {"Content-Type": ""}, "NGAMS_ER_UNKNOWN_MIME_TYPE1:4014:ERROR: "),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(idle_server, idle_wire, parameters, headers, message):
    refused = idle_wire.push(b"x", headers=headers, **parameters)
    assert (refused.code, refused.failed) == (400, True)
    assert refused.message.startswith(message)
    assert objects(idle_server) == []


def test_archive_guesses_a_type_on_request_and_refuses_unknown_ones(wire):
    guessed = wire.push(b"x", "ARCHIVE", headers={"Content-Type": "ngas/archive-request"}, filename="a.fits")
    assert guessed.file["Format"] == "image/x-fits"
    refused = wire.push(b"x", "ARCHIVE", headers={"Content-Type": "application/json"}, filename="a.bin")
    assert refused.message.startswith("NGAMS_ER_UNKNOWN_MIME_TYPE2:4047:ERROR: Illegal mime-type: application/json")


def test_a_declared_type_goes_before_its_parameters_and_the_parameter_before_the_header(wire):
    header = {"Content-Type": "image/x-fits; charset=utf-8"}
    assert wire.push(b"x", headers=header, filename="a").file["FileName"].endswith("/a.fits")
    assert wire.push(b"x", headers=header, filename="a", mime_type="text/ascii").file["Format"] == "text/ascii"


def test_a_probe_stores_nothing(idle_server, idle_wire):
    assert idle_wire.push(b"x", "ARCHIVE", filename="a.bin", probe=1).message.startswith("NGAMS_INFO_ARCH_REQ_OK:4068")
    assert objects(idle_server) == []


def test_an_empty_body_is_refused_with_411(idle_wire):
    refused = idle_wire.push(b"", filename="a.bin")
    assert (refused.code, refused.message) == (411, "Content-Length is 0 or unknown")


def test_a_chunked_body_is_refused_with_411_and_the_connection_stays_usable(wire):
    refused = wire.push(iter([b"a" * 100_000, b"b"]), filename="a.bin")
    assert (refused.code, refused.message) == (411, "Content-Length is 0 or unknown")
    assert wire.push(b"x", filename="a.bin").code == 200


def test_a_client_that_closes_the_connection_gets_its_large_refused_upload_answered(idle_server):
    connection = http.client.HTTPConnection(idle_server.host, idle_server.port, timeout=30)
    headers = {"Content-Type": "application/json", "Connection": "close"}
    connection.request("POST", "/QARCHIVE?filename=a.bin", body=bytes(20_000_000), headers=headers)
    assert connection.getresponse().status == 400
    connection.close()


def test_an_upload_cut_short_stores_nothing(server, wire):
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(
            b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/octet-stream\r\nContent-Length: 5000000\r\n\r\n" + bytes(2_000_000)
        )
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    while staged(server):  # the connection closes just before the bytes are removed
        time.sleep(0.01)
    assert wire.rows() == objects(server) == []


def test_a_client_that_waits_for_100_continue_is_told_to(server):
    with socket.create_connection((server.host, server.port)) as connection:
        connection.settimeout(30)
        connection.sendall(
            b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Content-Type: application/octet-stream\r\nContent-Length: 3\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"abc")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_chunked_body_beside_a_length_is_refused(idle_server):
    with socket.create_connection((idle_server.host, idle_server.port)) as connection:
        connection.settimeout(30)
        connection.sendall(
            b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.0 400 ")
