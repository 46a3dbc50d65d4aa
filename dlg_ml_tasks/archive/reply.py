"""Reads what an NGAS server answers: status documents (XML) and query results (JSON). Knows nothing of connections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from xml.etree import ElementTree

from dlg_ml_tasks.archive.checksums import Checksum, recorded

Row = Mapping[str, object]


class MalformedReply(ValueError):
    """The bytes are not what an NGAS server sends."""


@dataclass(frozen=True)
class FileStatus:
    """One copy of one version of a file in the archive.

    `filename` is the base name on the server's disk, `size` is in bytes, `checksum` is None where the server computed
    none or a kind unknown here, times are in UTC and None where the server has none.
    """

    file_id: str
    version: int
    size: int
    checksum: Checksum | None
    filename: str
    disk_id: str
    format: str
    ingested: datetime | None
    created: datetime | None

    @property
    def identity(self) -> str:
        """Names these bytes among all that the archive ever has under this id, whose version numbers come again."""
        content = self.checksum or self.ingested
        return f"{self.file_id} {self.version} {self.size} {content}"


@dataclass(frozen=True)
class Container:
    """A container in the archive: a named set of files, and of other containers. `size` is in bytes."""

    container_id: str
    name: str
    size: int
    files: tuple[FileStatus, ...]
    containers: tuple[Container, ...]


@dataclass(frozen=True)
class StatusDocument:
    """An `NgamsStatus` document: the server's verdict, its words, and the files and containers it tells of."""

    success: bool
    message: str
    state: str
    files: tuple[FileStatus, ...]
    containers: tuple[Container, ...]


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
        containers=tuple(_container(element) for element in root.findall("Container")),
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


def file_from_row(row: Row) -> FileStatus:
    """The file that one row of the `files_like` query describes. Raises MalformedReply."""
    try:
        return FileStatus(
            file_id=str(row["file_id"]),
            version=int(str(row["file_version"])),
            size=int(str(row["file_size"])),
            checksum=recorded(row.get("checksum"), row.get("checksum_plugin")),
            filename=_base_name(str(row["file_name"])),
            disk_id=str(row["disk_id"]),
            format=str(row.get("format") or ""),
            ingested=time_of(row.get("ingestion_date")),
            created=time_of(row.get("creation_date")),
        )
    except (KeyError, ValueError) as error:
        raise MalformedReply(f"the reply has an unreadable row ({error!r}): {dict(row)!r}") from error


def _file_from_xml(attributes: Mapping[str, str], disk_id: str) -> FileStatus:
    try:
        return FileStatus(
            file_id=attributes["FileId"],
            version=int(attributes["FileVersion"]),
            size=int(attributes["FileSize"]),
            checksum=recorded(attributes.get("Checksum"), attributes.get("ChecksumPlugIn")),
            filename=_base_name(attributes["FileName"]),
            disk_id=disk_id,
            format=attributes.get("Format", ""),
            ingested=time_of(attributes.get("IngestionDate")),
            created=time_of(attributes.get("CreationDate")),
        )
    except (KeyError, ValueError) as error:
        raise MalformedReply(f"the reply has an unreadable FileStatus ({error!r}): {dict(attributes)!r}") from error


def _container(element: ElementTree.Element) -> Container:
    try:
        return Container(
            container_id=element.attrib["id"],
            name=element.attrib["name"],
            size=int(element.get("size", "0")),
            files=tuple(_file_from_xml(file.attrib, "") for file in element.findall("FileStatus")),
            containers=tuple(_container(child) for child in element.findall("Container")),
        )
    except (KeyError, ValueError) as error:
        raise MalformedReply(f"the reply has an unreadable Container ({error!r}): {element.attrib!r}") from error


def _decode(body: bytes) -> str:
    """NGAS declares UTF-8 and writes Latin-1 whenever a message or an id is not ASCII."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _base_name(path_on_volume: str) -> str:
    return path_on_volume.rpartition("/")[2]


def time_of(text: object) -> datetime | None:
    """A time as NGAS writes it: UTC without a zone."""
    if text in (None, "", "None"):
        return None
    return datetime.fromisoformat(str(text)).replace(tzinfo=timezone.utc)
