"""Reads what an NGAS server answers: status documents (XML) and query results (JSON). Knows nothing of connections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from xml.etree import ElementTree

# Names under which NGAS reports the plain CRC-32 of zlib; what else it knows (crc32c) cannot be computed here.
CRC32_PLUGINS = frozenset({"crc32", "crc32z", "ngamsGenCrc32", "StreamCrc32"})


class MalformedReply(ValueError):
    """The bytes are not what an NGAS server sends."""


@dataclass(frozen=True)
class FileStatus:
    """One copy of one version of a file in the archive.

    `filename` is the base name on the server's disk, `size` is in bytes, `checksum` is the unsigned CRC-32 or None where
    the server computed another kind or none, times are in UTC and None where the server has none.
    """

    file_id: str
    version: int
    size: int
    checksum: int | None
    filename: str
    disk_id: str
    format: str
    ingested: datetime | None
    created: datetime | None


@dataclass(frozen=True)
class StatusDocument:
    """An `NgamsStatus` document: the server's verdict, its words, and the files it tells of."""

    success: bool
    message: str
    state: str
    files: tuple[FileStatus, ...]


def parse_status(body: bytes) -> StatusDocument:
    """Parses an XML status document. Raises MalformedReply."""
    text = _decode(body)
    # expat fetches nothing external, but it expands entities; NGAS declares none.
    if "<!ENTITY" in text:
        raise MalformedReply("the reply declares XML entities")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  entities are refused above, the caller bounds the size
    except ElementTree.ParseError as error:
        raise MalformedReply(f"the reply is not XML ({error}): {text[:100]!r}") from error
    status = root.find("Status")
    if root.tag != "NgamsStatus" or status is None:
        raise MalformedReply(f"the reply is not a status document: {text[:100]!r}")
    return StatusDocument(
        success=status.get("Status") == "SUCCESS",
        message=status.get("Message", ""),
        state=status.get("State", ""),
        files=tuple(
            _file_from_xml(file.attrib, disk.get("DiskId", ""))
            for disk in root.iter("DiskStatus")
            for file in disk.iter("FileStatus")
        ),
    )


def parse_query(body: bytes) -> list[dict[str, object]]:
    """Parses the rows of QUERY with `format=json`. Raises MalformedReply."""
    try:
        rows = json.loads(_decode(body))
    except ValueError as error:
        raise MalformedReply(f"the reply is not JSON ({error}): {body[:100]!r}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MalformedReply(f"the reply is not a list of rows: {body[:100]!r}")
    return rows


def file_from_row(row: Mapping[str, object]) -> FileStatus:
    """The file that one row of the `files_like` query describes. Raises MalformedReply."""
    try:
        return FileStatus(
            file_id=str(row["file_id"]),
            version=int(str(row["file_version"])),
            size=int(str(row["file_size"])),
            checksum=_crc32(row.get("checksum"), row.get("checksum_plugin")),
            filename=_base_name(str(row["file_name"])),
            disk_id=str(row["disk_id"]),
            format=str(row.get("format") or ""),
            ingested=_time(row.get("ingestion_date")),
            created=_time(row.get("creation_date")),
        )
    except (KeyError, ValueError) as error:
        raise MalformedReply(f"the reply has an unreadable row ({error!r}): {dict(row)!r}") from error


def _file_from_xml(attributes: Mapping[str, str], disk_id: str) -> FileStatus:
    try:
        return FileStatus(
            file_id=attributes["FileId"],
            version=int(attributes["FileVersion"]),
            size=int(attributes["FileSize"]),
            checksum=_crc32(attributes.get("Checksum"), attributes.get("ChecksumPlugIn")),
            filename=_base_name(attributes["FileName"]),
            disk_id=disk_id,
            format=attributes.get("Format", ""),
            ingested=_time(attributes.get("IngestionDate")),
            created=_time(attributes.get("CreationDate")),
        )
    except (KeyError, ValueError) as error:
        raise MalformedReply(f"the reply has an unreadable FileStatus ({error!r}): {dict(attributes)!r}") from error


def _decode(body: bytes) -> str:
    """NGAS declares UTF-8 and writes Latin-1 whenever a message or an id is not ASCII."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _base_name(path_on_volume: str) -> str:
    return path_on_volume.rpartition("/")[2]


def _crc32(checksum: object, plugin: object) -> int | None:
    if checksum in (None, "", "None") or plugin not in CRC32_PLUGINS:
        return None
    return int(str(checksum)) & 0xFFFFFFFF  # older servers wrote signed numbers


def _time(text: object) -> datetime | None:
    if text in (None, "", "None"):
        return None
    return datetime.fromisoformat(str(text)).replace(tzinfo=timezone.utc)
