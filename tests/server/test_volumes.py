"""Several disks: one row per copy, and a file can be had as long as one copy is sound."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator

import pytest

from dlg_ml_tasks.archive.server import EmbeddedNgas, Limits
from dlg_ml_tasks.archive.server.catalogue import Catalogue
from dlg_ml_tasks.archive.server.records import NewFile, Overwrite
from dlg_ml_tasks.archive.server.vault import Volume

# Kept in the catalogue, and as an object of a volume.
SIZES = pytest.mark.parametrize("size", [100, 200_000], ids=["small", "large"])


@pytest.fixture
def server(root) -> Iterator[EmbeddedNgas]:
    with EmbeddedNgas(root, volumes=3) as running:
        yield running


@pytest.fixture
def disks(wire) -> list[str]:
    return disk_ids(wire)


def disk_ids(wire) -> list[str]:
    rows = wire.get("QUERY", query="disks_list", format="json").response.json()
    assert [row["slot_id"] for row in rows] == [f"volume{number + 1}" for number in range(len(rows))]
    return [row["disk_id"] for row in rows]


@pytest.fixture
def copied(wire, disks) -> Callable[[int, int], bytes]:
    """Archives a.bin and clones it until there are `count` copies."""

    def copy(size: int, count: int) -> bytes:
        data = os.urandom(size)
        assert wire.push(data, filename="a.bin").code == 200
        for _ in range(count - 1):
            cloned = wire.get("CLONE", file_id="a.bin")
            assert (cloned.code, cloned.message) == (200, "Successfully handled command CLONE")
        return data

    return copy


def copies(wire, file_id="a.bin") -> list[str]:
    return [str(row["disk_id"]) for row in wire.rows(file_id)]


def bytes_kept(server) -> int:
    """How many copies the archive holds the bytes of, in the catalogue or as objects."""
    with contextlib.closing(sqlite3.connect(server.root / "catalogue.sqlite")) as database:
        (bodies,) = database.execute("SELECT count(*) FROM bodies").fetchone()
    return bodies + len(list(server.root.glob("volume*/objects/*/*")))


def spoil(server, disk_id: str, how: str) -> None:
    """Damage the copy of a.bin on a disk behind the server's back."""
    with contextlib.closing(sqlite3.connect(server.root / "catalogue.sqlite")) as database, database:
        query = "SELECT object, body_id, slot_id FROM files JOIN disks USING (disk_id) WHERE disk_id = ?"
        name, body_id, slot_id = database.execute(query, (disk_id,)).fetchone()
        if body_id is not None:
            database.execute("UPDATE bodies SET body = x'00' WHERE body_id = ?", (body_id,))
            return
    path = server.root / slot_id / "objects" / name
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])


@SIZES
def test_a_clone_is_a_copy_on_another_disk_with_a_row_of_its_own(server, wire, disks, copied, size):
    data = copied(size, 3)
    rows = wire.rows("a.bin")
    assert sorted(row["disk_id"] for row in rows) == sorted(disks)
    assert len({(row["file_version"], row["checksum"], row["file_size"], row["ingestion_date"]) for row in rows}) == 1
    for disk_id in disks:
        assert wire.get("RETRIEVE", file_id="a.bin", disk_id=disk_id).response.content == data
        assert "4056" in wire.get("CHECKFILE", file_id="a.bin", disk_id=disk_id).message
        assert wire.get("STATUS", file_id="a.bin", disk_id=disk_id).disk["DiskId"] == disk_id
        assert wire.get("STATUS", disk_id=disk_id).disk["NumberOfFiles"] == "1"


def test_a_clone_says_how_many_files_it_was_about(wire, copied):
    copied(100, 1)
    status = wire.get("CLONE", file_id="a.bin").status
    assert (status["CompletionPercent"], status["ExpectedCount"]) == ("100", "1")


def test_a_clone_goes_to_the_disk_that_is_named(wire, disks, copied):
    copied(200_000, 1)
    (source,) = copies(wire)
    target = next(disk_id for disk_id in reversed(disks) if disk_id != source)
    assert wire.get("CLONE", file_id="a.bin", target_disk_id=target).code == 200
    assert copies(wire) == sorted([source, target])


def test_a_file_that_all_disks_have_cannot_be_cloned(wire, disks, copied):
    copied(100, 3)
    for target in ({}, {"target_disk_id": disks[0]}):
        refused = wire.get("CLONE", file_id="a.bin", **target)
        assert (refused.code, refused.failed) == (400, True)
        assert refused.message.startswith(
            "NGAMS_ER_CLONE_REJECTED:4053:ERROR: The clone command was rejected. Reason: Insufficient space"
        )
    assert len(copies(wire)) == 3


def test_a_server_with_one_disk_cannot_clone(connect, tmp_path):
    with EmbeddedNgas(tmp_path / "one") as server:
        wire = connect(server.url)
        wire.push(b"x", filename="a.bin")
        assert wire.get("CLONE", file_id="a.bin").message.startswith("NGAMS_ER_CLONE_REJECTED:4053")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "NGAMS_ER_CMD_SYNTAX:4035:ERROR: "),
        ({"file_version": 1}, "NGAMS_ER_CMD_SYNTAX:4035:ERROR: "),
        (
            {"file_id": "b"},
            "NGAMS_ER_CMD_EXEC:4036:ERROR: Problem(s) encountered executing command: CLONE. Error: No f",
        ),
        ({"file_id": "a.bin", "file_version": 2}, "NGAMS_ER_CMD_EXEC:4036:ERROR: "),
        ({"file_id": "a.bin", "disk_id": "x"}, "NGAMS_ER_CMD_EXEC:4036:ERROR: "),
        ({"file_id": "a.bin", "target_disk_id": "x"}, "NGAMS_ER_UNKNOWN_DISK:4020:ERROR: "),
    ],
)
def test_a_clone_of_nothing_is_refused(wire, copied, parameters, message):
    copied(100, 1)
    refused = wire.get("CLONE", **parameters)
    assert (refused.code, refused.failed) == (400, True)
    assert refused.message.startswith(message)
    assert len(copies(wire)) == 1


def test_an_offline_server_does_not_clone(wire, copied):
    copied(100, 1)
    wire.get("OFFLINE")
    assert "Command CLONE not allowed when in State/Sub-State: OFFLINE" in wire.get("CLONE", file_id="a.bin").message


def test_the_latest_version_is_cloned_unless_another_is_named(wire):
    for data in (b"one", b"two"):
        wire.push(data, filename="a.bin")
    wire.get("CLONE", file_id="a.bin")
    assert sorted(row["file_version"] for row in wire.rows("a.bin")) == [1, 2, 2]
    wire.get("CLONE", file_id="a.bin", file_version=1)
    assert sorted(row["file_version"] for row in wire.rows("a.bin")) == [1, 1, 2, 2]


def test_all_files_of_a_disk_can_be_cloned(wire, disks):
    for number in range(5):
        wire.push(b"%d" % number, filename=f"{number}.bin")
    status = wire.get("CLONE", disk_id=disks[0], target_disk_id=disks[1])
    assert status.status["ExpectedCount"] == "5"
    assert [row["disk_id"] for row in wire.rows()].count(disks[1]) == 5


def test_an_asynchronous_clone_is_accepted_and_then_done(wire, copied):
    copied(200_000, 1)
    assert wire.get("CLONE", **{"file_id": "a.bin", "async": 1}).message == "Accepted CLONE command for execution"
    while len(copies(wire)) < 2:
        time.sleep(0.01)
    assert len(copies(wire)) == 2


@SIZES
def test_a_damaged_file_is_not_cloned(server, wire, disks, copied, size):
    copied(size, 1)
    (source,) = copies(wire)
    with contextlib.closing(sqlite3.connect(server.root / "catalogue.sqlite")) as database, database:
        database.execute("UPDATE bodies SET body = zeroblob(length(body))")
    for path in (server.root).glob("volume*/objects/*/*"):
        path.write_bytes(bytes(size))
    refused = wire.get("CLONE", file_id="a.bin")
    assert refused.code == 400
    assert "is damaged" in refused.message
    assert copies(wire) == [source]
    assert list(server.root.glob("volume*/staging/*")) == []


def test_a_copy_of_what_was_replaced_discarded_or_copied_meanwhile_is_not_added(root):
    root.mkdir()
    with contextlib.closing(Catalogue(root / "catalogue.sqlite")) as catalogue:
        for disk_id in ("one", "two"):
            catalogue.add_disk(disk_id, disk_id).result()
        new = NewFile("a", "a.bin", "application/octet-stream", 1, None, None, 0.0, "one", body=b"x")
        first = catalogue.register(new).result().file
        second = catalogue.register(new, Overwrite(None)).result().file
        assert catalogue.add_copy(first, "two", "object").result() is None
        assert catalogue.add_copy(second, "two", "object").result() is not None
        assert catalogue.add_copy(second, "two", "another").result() is None
        assert [copy.disk_id for copy in catalogue.copies("a")] == ["one", "two"]
        for disk_id in ("one", "two"):
            catalogue.discard("a", 1, disk_id).result()
        assert catalogue.add_copy(second, "two", "object").result() is None
        assert catalogue.copies("a") == []


@SIZES
@pytest.mark.parametrize("how", ["gone", "shorter"])
def test_a_file_is_retrieved_from_another_disk_when_a_copy_is_lost(server, wire, copied, size, how):
    data = copied(size, 3)
    for disk_id in copies(wire)[:2]:
        spoil(server, disk_id, how)
        assert wire.get("RETRIEVE", file_id="a.bin").response.content == data
        assert "4019" in wire.get("RETRIEVE", file_id="a.bin", disk_id=disk_id).message
    assert wire.get("STATUS", file_access="a.bin").code == 200
    spoil(server, copies(wire)[2], how)
    assert "4019" in wire.get("RETRIEVE", file_id="a.bin").message
    assert "4019" in wire.get("STATUS", file_access="a.bin").message


@SIZES
def test_a_copy_is_discarded_by_its_disk_and_the_others_stay(server, wire, copied, size):
    data = copied(size, 3)
    first, *others = copies(wire)
    done = wire.get("DISCARD", file_id="a.bin", file_version=1, disk_id=first, execute=1)
    assert done.message.startswith("NGAMS_INFO_DISCARD_OK:4066")
    assert copies(wire) == others
    assert wire.get("RETRIEVE", file_id="a.bin").response.content == data
    assert bytes_kept(server) == 2


@SIZES
def test_overwriting_replaces_all_copies_by_one(server, wire, copied, size):
    copied(size, 3)
    assert wire.push(b"new", filename="a.bin", versioning=0).file["FileVersion"] == "1"
    assert len(copies(wire)) == 1
    assert wire.get("RETRIEVE", file_id="a.bin").response.content == b"new"
    assert bytes_kept(server) == 1


def test_remfile_refuses_where_there_are_fewer_than_three_copies(wire, copied):
    copied(200_000, 2)
    first, _ = copies(wire)
    for execute in (0, 1):
        failed = wire.get("REMFILE", disk_id=first, file_id="a.bin", execute=execute)
        assert (failed.code, failed.failed) == (200, True)
        assert failed.message.startswith("NGAMS_WA_FILE_COPIES:4046:WARNING: One or more files")
        assert failed.message.endswith(f"Cannot remove item: {first}/a.bin/None")
    assert len(copies(wire)) == 2


@SIZES
def test_remfile_removes_the_copy_on_a_disk_of_three(server, wire, copied, size):
    copied(size, 3)
    first, *others = copies(wire)
    message = (
        "NGAMS_INFO_FILE_DEL_STAT:4040:INFO: File deletion status. "
        "Files Selected: 1, Files Deleted: {}, Failed File Deletions: 0."
    )
    assert wire.get("REMFILE", disk_id=first, file_id="a.bin").message == message.format(0)
    assert len(copies(wire)) == 3
    removed = wire.get("REMFILE", disk_id=first, file_id="a.bin", file_version=1, execute=1)
    assert (removed.failed, removed.message) == (False, message.format(1))
    assert copies(wire) == others
    assert bytes_kept(server) == 2


def test_remfile_of_nothing_is_a_success_and_without_names_refused(wire, disks):
    nothing = wire.get("REMFILE", disk_id=disks[0], file_id="nope", execute=1)
    assert (nothing.code, nothing.failed) == (200, False)
    assert "Files Selected: 0, Files Deleted: 0" in nothing.message
    for named in ({}, {"disk_id": disks[0]}, {"file_id": "a.bin"}):
        assert wire.get("REMFILE", **named).message.startswith("NGAMS_ER_CMD_SYNTAX:4035")


def test_file_access_tells_where_a_file_can_be_had(wire, copied):
    copied(200_000, 1)
    available = wire.get("STATUS", file_access="a.bin")
    host_id = available.status["HostId"]
    assert available.message == (
        "NGAMS_INFO_FILE_AVAIL:4029:INFO: File with File ID: a.bin/Version: 1, "
        f"is available on NGAS Host with Host ID: {host_id}."
    )
    for missing in ({"file_access": "nope"}, {"file_access": "a.bin", "file_version": 2}):
        refused = wire.get("STATUS", **missing)
        assert (refused.code, refused.message[:27]) == (400, "NGAMS_ER_UNAVAIL_FILE:4019:")


def test_an_archive_keeps_its_disks_when_fewer_are_asked_for_and_can_get_more(root, connect):
    with EmbeddedNgas(root, volumes=2) as server:
        before = disk_ids(connect(server.url))
    with EmbeddedNgas(root, volumes=1) as server:
        assert disk_ids(connect(server.url)) == before
    with EmbeddedNgas(root, volumes=3) as server:
        assert disk_ids(connect(server.url))[:2] == before


def test_without_a_disk_the_other_copies_are_served_and_nothing_goes_there(root, connect, caplog):
    data = os.urandom(200_000)
    with EmbeddedNgas(root, volumes=2) as server:
        wire = connect(server.url)
        wire.push(data, filename="a.bin")
        wire.get("CLONE", file_id="a.bin")
        both = disk_ids(wire)
    shutil.move(root / "volume1", root.parent / "unmounted")
    (root / "volume1").mkdir()
    with EmbeddedNgas(root, volumes=2) as server:
        wire = connect(server.url)
        rows = wire.get("QUERY", query="disks_list", format="json").response.json()
        assert [row["mounted"] for row in rows] == [0, 1]
        assert wire.get("RETRIEVE", file_id="a.bin").response.content == data
        assert wire.push(data, filename="b.bin").disk["DiskId"] == both[1]
        assert list((root / "volume1").iterdir()) == []
    assert f"{root / 'volume1'} is not mounted: disk {both[0]} is expected there, with 1 files" in caplog.text
    (root / "volume1").rmdir()
    shutil.move(root.parent / "unmounted", root / "volume1")
    with EmbeddedNgas(root, volumes=2) as server:
        wire = connect(server.url)
        assert wire.get("RETRIEVE", file_id="a.bin", disk_id=both[0]).response.content == data


def test_files_of_another_archive_are_not_removed(root, connect, tmp_path):
    with EmbeddedNgas(tmp_path / "other") as server:
        connect(server.url).push(bytes(200_000), filename="a.bin")
    with EmbeddedNgas(root):
        time.sleep(0.01)
    shutil.copytree(tmp_path / "other" / "volume1", root / "volume2")
    with pytest.raises(Exception, match="volume2 holds files of another archive"):
        EmbeddedNgas(root, volumes=2).__enter__()
    assert len(list(root.glob("volume2/objects/*/*"))) == 1


def test_a_disk_without_room_is_passed_over_by_none_that_has_it(root, connect, monkeypatch):
    free = {"volume1": 10_000_000, "volume2": 500_000_000}
    monkeypatch.setattr(Volume, "free_bytes", lambda volume: free[volume.slot_id])
    with EmbeddedNgas(root, limits=Limits(minimum_free_bytes=0), volumes=2) as server:
        wire = connect(server.url)
        assert wire.push(bytes(20_000_000), filename="a.bin").disk["SlotId"] == "volume2"
        free["volume2"] = 0
        assert wire.push(bytes(20_000_000), filename="a.bin").code == 400
        assert wire.push(bytes(200_000), filename="a.bin").disk["SlotId"] == "volume1"
