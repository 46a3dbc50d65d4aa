"""DISCARD and CHECKFILE."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

# Kept in the catalogue, and as an object of a volume.
SIZES = pytest.mark.parametrize("data", [b"x", b"x" * 200_000], ids=["small", "large"])


def objects(server):
    return list((server.root / "volume1" / "objects").glob("*/*"))


def bodies(server):
    with contextlib.closing(sqlite3.connect(server.root / "catalogue.sqlite")) as database:
        return database.execute("SELECT count(*) FROM bodies").fetchone()[0]


def damage(server, old, new):
    """Change what the archive keeps of a file behind its back."""
    for path in objects(server):
        if path.read_bytes() == old:
            path.write_bytes(new)
    with contextlib.closing(sqlite3.connect(server.root / "catalogue.sqlite")) as database, database:
        database.execute("UPDATE bodies SET body = ? WHERE body = ?", (new, old))


@SIZES
def test_a_discarded_version_is_gone_with_its_bytes(server, wire, data):
    for number in (b"1", b"2"):
        wire.push(data + number, filename="a.bin")
    done = wire.get("DISCARD", file_id="a.bin", file_version=2, disk_id=wire.disk_id, execute=1)
    assert (done.code, done.failed) == (200, False)
    assert done.message.startswith("NGAMS_INFO_DISCARD_OK:4066:INFO: ")
    assert len(objects(server)) + bodies(server) == 1
    assert wire.get("RETRIEVE", file_id="a.bin").response.content == data + b"1"


@pytest.mark.parametrize("execute", [{}, {"execute": 0}])
def test_without_execute_nothing_is_discarded(wire, execute):
    wire.push(b"x", filename="a.bin")
    granted = wire.get("DISCARD", file_id="a.bin", file_version=1, disk_id=wire.disk_id, **execute)
    assert (granted.code, granted.failed) == (200, False)
    assert granted.message.startswith("NGAMS_INFO_DISCARD_GRANTED:4065:INFO: ")
    assert wire.get("RETRIEVE", file_id="a.bin").code == 200


@pytest.mark.parametrize("wrong", [{"file_id": "b"}, {"file_version": 2}, {"disk_id": "x"}, {"file_version": -1}])
@pytest.mark.parametrize("execute", [0, 1])
def test_discarding_what_is_not_there_is_a_failure_with_http_200(wire, wrong, execute):
    wire.push(b"x", filename="a.bin")
    right = {"file_id": "a.bin", "file_version": 1, "disk_id": wire.disk_id, "execute": execute}
    failed = wire.get("DISCARD", **{**right, **wrong})
    assert (failed.code, failed.failed) == (200, True)
    assert failed.message.startswith("NGAMS_ER_DISCARD_NOT_FOUND:4063:ERROR: ")
    assert wire.get("RETRIEVE", file_id="a.bin").code == 200


@pytest.mark.parametrize("absent", ["file_id", "file_version", "disk_id"])
def test_all_three_names_are_needed(idle_wire, absent):
    named = {"file_id": "a.bin", "file_version": 1, "disk_id": "x", "execute": 1}
    refused = idle_wire.get("DISCARD", **{**named, absent: None})
    assert (refused.code, refused.message[:25]) == (400, "NGAMS_ER_CMD_SYNTAX:4035:")


def test_execute_must_be_a_number(idle_wire):
    refused = idle_wire.get("DISCARD", file_id="a", file_version=1, disk_id="x", execute="yes")
    assert (refused.code, refused.message[:27]) == (400, "NGAMS_ER_REQ_HANDLING:4010:")


def test_a_path_is_never_discarded(wire, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("data")
    wire.push(b"x", filename="a.bin")
    both = {"file_id": "a.bin", "file_version": 1, "disk_id": wire.disk_id}
    for more in ({}, both):
        refused = wire.get("DISCARD", path=str(precious), execute=1, **more)
        assert (refused.code, refused.message[:22]) == (400, "NGAMS_ER_ILL_REQ:4017:")
    assert precious.read_text() == "data"
    assert wire.get("RETRIEVE", file_id="a.bin").code == 200


@pytest.mark.parametrize("variant", ["crc32", "crc32c", "crc32z"])
def test_a_sound_file_passes_the_check(wire, variant):
    wire.push(b"x" * 3_000_000, filename="a.bin", crc_variant=variant)
    checked = wire.get("CHECKFILE", file_id="a.bin")
    assert (checked.code, checked.failed) == (200, False)
    assert checked.message.startswith("NGAMS_INFO_FILE_OK:4056:INFO: ")


@SIZES
@pytest.mark.parametrize(("change", "fault"), [("flip", "checksum"), ("grow", "file size")])
def test_a_damaged_file_is_reported_as_a_success_with_message_4057(server, wire, data, change, fault):
    wire.push(data, filename="a.bin")
    damage(server, data, data + b"x" if change == "grow" else b"y" + data[1:])
    checked = wire.get("CHECKFILE", file_id="a.bin")
    assert (checked.code, checked.failed) == (200, False)
    assert checked.message.startswith("NGAMS_ER_FILE_NOK:4057:ERROR: ")
    assert checked.message.endswith(f"Inconsistent {fault} found")


def test_a_file_without_a_checksum_does_not_pass(wire):
    wire.push(b"x", filename="a.bin", crc_variant=-1)
    assert wire.get("CHECKFILE", file_id="a.bin").message.startswith("NGAMS_ER_FILE_NOK:4057")


def test_the_check_is_of_version_one_unless_another_is_named(server, wire):
    for data in (b"one", b"two"):
        wire.push(data, filename="a.bin")
    damage(server, b"two", b"2wo")
    assert "4056" in wire.get("CHECKFILE", file_id="a.bin").message
    assert "4057" in wire.get("CHECKFILE", file_id="a.bin", file_version=2).message


def test_a_missing_file_cannot_be_checked(server, wire):
    wire.push(bytes(100_000), filename="a.bin")
    objects(server)[0].unlink()
    for missing in ({"file_id": "b.bin"}, {"file_id": "a.bin"}, {"file_id": "a.bin", "disk_id": "x"}):
        refused = wire.get("CHECKFILE", **missing)
        assert (refused.code, refused.message[:27]) == (400, "NGAMS_ER_UNAVAIL_FILE:4019:")
    assert wire.get("CHECKFILE").message == "Must specify a File ID for the CHECKFILE command."
