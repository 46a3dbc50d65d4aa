"""An archive made by an earlier version is taken over with everything in it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from dlg_ml_tasks.archive.server import EmbeddedNgas, ServerStartError

# A dump of the catalogue of a server that knew one disk, whose root directory was the disk, and what was archived in it.
DUMP = Path(__file__).with_name("version_1.sql")
DISK_ID = "f997aa084d304c94bc57c67d448f70c7"
CONTENTS = {
    ("a.bin", 1): b"one",
    ("a.bin", 2): b"two again",
    ("b", 1): b"x",
    ("c.bin", 1): b"y" * 10,
    ("é/日本", 1): "é".encode() * 40_000,
}


@pytest.fixture
def old_root(root: Path) -> Path:
    for number in range(256):
        (root / "objects" / f"{number:02x}").mkdir(parents=True)
    (root / "staging").mkdir()
    (root / "staging" / "left").write_bytes(b"of a crash")
    with contextlib.closing(sqlite3.connect(root / "catalogue.sqlite")) as database:
        database.executescript(DUMP.read_text())
        objects = database.execute("SELECT file_id, file_version, object FROM files").fetchall()
    for file_id, version, name in objects:
        (root / "objects" / name).write_bytes(CONTENTS[file_id, version])
    return root


def assert_all_is_there(wire) -> None:
    rows = {(row["file_id"], row["file_version"]): row for row in wire.rows()}
    assert rows.keys() == CONTENTS.keys()
    for (file_id, version), data in CONTENTS.items():
        row = rows[file_id, version]
        assert (row["file_size"], row["disk_id"]) == (len(data), DISK_ID)
        assert wire.get("RETRIEVE", file_id=file_id, file_version=version).response.content == data
        if row["checksum"] is not None:
            assert "4056" in wire.get("CHECKFILE", file_id=file_id, file_version=version).message
    disk = wire.get("STATUS", disk_id=DISK_ID).disk
    assert (disk["NumberOfFiles"], disk["BytesStored"]) == ("5", str(sum(map(len, CONTENTS.values()))))
    assert disk["InstallationDate"] == "2026-11-21T11:12:29.831"


def test_every_file_of_version_1_keeps_its_bytes_its_row_and_its_disk(old_root, connect):
    for _ in range(2):  # the second time there is nothing to take over
        with EmbeddedNgas(old_root) as server:
            assert_all_is_there(connect(server.url))
    with EmbeddedNgas(old_root) as server:
        wire = connect(server.url)
        (row,) = [row for row in wire.rows("a.bin") if row["file_version"] == 1]
        assert row["ingestion_date"] == "2026-11-21T11:12:29.928"
        assert row["file_name"] == "EmbeddedArchive/2026-11-21/1/a.bin"
        assert wire.push(b"new", filename="a.bin").file["FileVersion"] == "3"


@pytest.mark.parametrize("done", [("disk_id",), ("disk_id", "staging"), ("disk_id", "staging", "objects")])
def test_taking_over_goes_on_where_a_crash_interrupted_it(old_root, connect, done):
    volume = old_root / "volume1"
    volume.mkdir()
    (volume / "disk_id").write_text(f"{DISK_ID}\n")
    for name in done[1:]:
        (old_root / name).rename(volume / name)
    with EmbeddedNgas(old_root) as server:
        assert_all_is_there(connect(server.url))


def test_a_catalogue_that_cannot_be_brought_up_to_date_is_left_as_it_was(old_root, connect):
    with contextlib.closing(sqlite3.connect(old_root / "catalogue.sqlite")) as database:
        database.execute("CREATE TABLE bodies (in_the_way)")
    with pytest.raises(ServerStartError, match=r"catalogue\.sqlite cannot be used"):
        EmbeddedNgas(old_root).__enter__()
    with contextlib.closing(sqlite3.connect(old_root / "catalogue.sqlite")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert database.execute("SELECT count(*) FROM files").fetchone() == (5,)
        database.execute("DROP TABLE bodies")
    with EmbeddedNgas(old_root) as server:
        assert_all_is_there(connect(server.url))


def test_a_catalogue_of_a_later_version_is_refused(root):
    with EmbeddedNgas(root):
        pass
    with contextlib.closing(sqlite3.connect(root / "catalogue.sqlite")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(ServerStartError, match=r"has version 99; this server reads versions up to 2"):
        EmbeddedNgas(root).__enter__()
