from __future__ import annotations

from datetime import datetime, timezone

import pytest

from dlg_ml_tasks.archive.checksums import Checksum
from dlg_ml_tasks.archive.reply import MalformedReply, file_from_row, parse_query, parse_status

# As a real server sends it, host names shortened.
STATUS = """<?xml version="1.0" ?>
<!DOCTYPE NgamsStatus SYSTEM "http://127.0.0.1:7777/RETRIEVE?internal=ngamsStatus.dtd">
<NgamsStatus>
  <Status Date="2026-11-21T04:34:08.241" Version="12.0/2022-11-29T07:00:00" HostId="vm:7777" Message="{message}" Status="SUCCESS" State="ONLINE" SubState="IDLE"/>
  <DiskStatus DiskId="492704c1a6a9c865ac1f46a80d67fd09" Archive="MyArchive" HostId="vm:7777" MountPoint="/NGAS/volume1">
    <FileStatus FileName="MWAArchive/2026-11-21/1/r100k.bin" FileId="{file_id}" FileVersion="1" Format="application/octet-stream" FileSize="100000" IngestionDate="2026-11-21T04:34:35.349" Checksum="{checksum}" ChecksumPlugIn="{plugin}" CreationDate="None" ContainerId="None"/>
  </DiskStatus>
</NgamsStatus>"""  # noqa: E501


def status(message: str = "ok", file_id: str = "f", checksum: str = "236776700", plugin: str = "crc32") -> str:
    return STATUS.format(message=message, file_id=file_id, checksum=checksum, plugin=plugin)


def test_a_status_document_of_the_real_server_is_read() -> None:
    document = parse_status(status().encode())
    assert (document.success, document.message, document.state) == (True, "ok", "ONLINE")
    (file,) = document.files
    assert (file.file_id, file.version, file.size, file.checksum) == ("f", 1, 100000, Checksum("crc32", 236776700))
    assert (file.filename, file.disk_id) == ("r100k.bin", "492704c1a6a9c865ac1f46a80d67fd09")
    assert file.ingested == datetime(2026, 11, 21, 4, 34, 35, 349000, tzinfo=timezone.utc)
    assert file.created is None


def test_latin_1_that_claims_to_be_utf_8_is_read() -> None:
    assert parse_status(status(message="café", file_id="é").encode("latin-1")).files[0].file_id == "é"


def test_utf_8_is_not_taken_for_latin_1() -> None:
    assert parse_status(status(message="café").encode()).message == "café"


def test_the_encoding_that_container_replies_claim_is_read() -> None:
    body = b'<?xml version="1.0" encoding="utf8"?><NgamsStatus><Status Status="SUCCESS" Message="m"/></NgamsStatus>'
    assert parse_status(body).message == "m"


@pytest.mark.parametrize(
    ("checksum", "plugin", "expected"),
    [
        ("4294967295", "ngamsGenCrc32", Checksum("crc32", 4294967295)),
        ("-1", "ngamsGenCrc32", Checksum("crc32", 4294967295)),
        ("1", "StreamCrc32", Checksum("crc32", 1)),
        ("2", "crc32z", Checksum("crc32", 2)),
        ("152299802", "crc32c", Checksum("crc32c", 152299802)),
        ("None", "None", None),
        ("d41d8cd98f00b204", "md5", None),
    ],
)
def test_a_checksum_is_read_with_its_algorithm(checksum: str, plugin: str, expected: Checksum | None) -> None:
    assert parse_status(status(checksum=checksum, plugin=plugin).encode()).files[0].checksum == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>nginx</body></html>",
        b"<NgamsStatus>",
        b"<NgamsStatus/>",
        status().replace('FileSize="100000"', 'FileSize="many"').encode(),
        status().replace('FileId="f"', "").encode(),
    ],
)
def test_anything_but_a_status_document_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedReply):
        parse_status(body)


def test_a_billion_laughs_are_refused_before_they_are_told() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><NgamsStatus><Status Message="&b;"/></NgamsStatus>'
    with pytest.raises(MalformedReply, match="entities"):
        parse_status(bomb.encode())


def test_rows_of_a_query_are_read() -> None:
    body = b"""[{"disk_id": "d", "file_name": "A/2026-11-21/2/x.bin", "file_id": "f", "file_version": 2,
        "file_size": 7, "format": "application/octet-stream", "checksum": "5", "checksum_plugin": "crc32",
        "ingestion_date": "2026-11-21T04:34:35.349", "creation_date": null, "container_id": null}]"""
    (row,) = parse_query(body)
    file = file_from_row(row)
    assert (file.file_id, file.version, file.size, file.checksum, file.filename) == (
        "f",
        2,
        7,
        Checksum("crc32", 5),
        "x.bin",
    )


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"<html/>"])
def test_anything_but_rows_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedReply):
        parse_query(body)


def test_a_row_without_a_file_id_is_malformed() -> None:
    with pytest.raises(MalformedReply, match="file_id"):
        file_from_row({"file_version": 1})
