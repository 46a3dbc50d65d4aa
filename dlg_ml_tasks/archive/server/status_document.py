"""The XML status document with which NGAS answers nearly every command."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from .records import StoredDisk, StoredFile, timestamp

VERSION = "12.0/embedded"

# What XML 1.0 cannot hold, not even escaped. A message may quote such a character from a request.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)

DTD = """\
<!ELEMENT NgamsStatus (Status, DiskStatus*, Container*)>
<!ELEMENT Status EMPTY>
<!ATTLIST Status Date CDATA #REQUIRED Version CDATA #REQUIRED HostId CDATA #REQUIRED Message CDATA #REQUIRED
  Status (SUCCESS|FAILURE) #REQUIRED State CDATA #IMPLIED SubState CDATA #IMPLIED
  RequestId CDATA #IMPLIED RequestTime CDATA #IMPLIED CompletionTime CDATA #IMPLIED
  CompletionPercent CDATA #IMPLIED ExpectedCount CDATA #IMPLIED ActualCount CDATA #IMPLIED>
<!ELEMENT DiskStatus (FileStatus*)>
<!ATTLIST DiskStatus DiskId CDATA #REQUIRED Archive CDATA #IMPLIED InstallationDate CDATA #IMPLIED
  Type CDATA #IMPLIED Manufacturer CDATA #IMPLIED LogicalName CDATA #IMPLIED HostId CDATA #IMPLIED
  SlotId CDATA #IMPLIED Mounted CDATA #IMPLIED MountPoint CDATA #IMPLIED NumberOfFiles CDATA #IMPLIED
  AvailableMb CDATA #IMPLIED BytesStored CDATA #IMPLIED Completed CDATA #IMPLIED CompletionDate CDATA #IMPLIED
  Checksum CDATA #IMPLIED TotalDiskWriteTime CDATA #IMPLIED LastCheck CDATA #IMPLIED>
<!ELEMENT FileStatus EMPTY>
<!ATTLIST FileStatus FileName CDATA #REQUIRED FileId CDATA #REQUIRED FileVersion CDATA #REQUIRED
  Format CDATA #IMPLIED FileSize CDATA #IMPLIED UncompressedFileSize CDATA #IMPLIED Compression CDATA #IMPLIED
  IngestionDate CDATA #IMPLIED Ignore CDATA #IMPLIED Checksum CDATA #IMPLIED ChecksumPlugIn CDATA #IMPLIED
  FileStatus CDATA #IMPLIED CreationDate CDATA #IMPLIED Tag CDATA #IMPLIED Permissions CDATA #IMPLIED
  Owner CDATA #IMPLIED Group CDATA #IMPLIED ModificationDate CDATA #IMPLIED AccessDate CDATA #IMPLIED
  TotalIoTime CDATA #IMPLIED IngestionRate CDATA #IMPLIED ContainerId CDATA #IMPLIED>
<!ELEMENT Container (FileStatus*, Container*)>
<!ATTLIST Container id CDATA #REQUIRED name CDATA #REQUIRED size CDATA #REQUIRED ingestionDate CDATA #IMPLIED>
"""


@dataclass(frozen=True)
class Disk:
    """A disk as a status document shows it; `mount_point` is where its directory is."""

    stored: StoredDisk
    host_id: str
    mount_point: Path
    free_bytes: int
    mounted: bool

    @property
    def logical_name(self) -> str:
        """The name an operator would find on the disk's label."""
        return f"EMBEDDED-M-{int(self.stored.slot_id.removeprefix('volume')):06d}"


@dataclass(frozen=True)
class Outcome:
    """What the Status element says. The request's id and times are given for commands about a file, `progress` (per cent
    done, number of files) for those that work on many."""

    message: str
    success: bool
    host_id: str
    online: bool
    busy: bool
    request_id: str | None = None
    request_time: str | None = None
    progress: tuple[int, int] | None = None


def status_document(
    outcome: Outcome,
    dtd_host: str,
    disk: Disk | None = None,
    file: StoredFile | None = None,
    details: Iterable[ElementTree.Element] = (),
) -> bytes:
    """The document in UTF-8. (The real server writes Latin-1 and calls it UTF-8; no parser can read that.)

    `dtd_host` is the `host:port` the DTD can be had from. A file stands in its disk; `details` come last.
    """
    lines = ['<?xml version="1.0" ?>']
    lines += [f'<!DOCTYPE NgamsStatus SYSTEM "http://{dtd_host}/RETRIEVE?internal=ngamsStatus.dtd">', "<NgamsStatus>"]
    lines.append(f"  <Status{_written(_status_attributes(outcome))} />")
    if disk is not None and file is not None:
        lines.append(f"  <DiskStatus{_written(_disk_attributes(disk))}>")
        lines.append(f"    <FileStatus{_written(file_attributes(file))} />")
        lines.append("  </DiskStatus>")
    elif disk is not None:
        lines.append(f"  <DiskStatus{_written(_disk_attributes(disk))} />")
    for element in details:
        ElementTree.indent(element, level=1)
        lines.append("  " + ElementTree.tostring(element, encoding="unicode"))
    lines.append("</NgamsStatus>\n")
    return "\n".join(lines).encode()


def _written(attributes: dict[str, object]) -> str:
    """Attributes in XML. Every archive reply has fifty, for which ElementTree takes three times as long."""
    return _NOT_XML.sub(
        "\ufffd", "".join(f' {name}="{str(value).translate(_ESCAPES)}"' for name, value in attributes.items())
    )


def printed(attributes: dict[str, object]) -> dict[str, str]:
    """Attributes as the values of an ElementTree element can hold them."""
    # str() as NGAS does it: a null prints as "None".
    return {key: _NOT_XML.sub("\ufffd", str(value)) for key, value in attributes.items()}


def _status_attributes(outcome: Outcome) -> dict[str, object]:
    now = timestamp()
    attributes: dict[str, object] = {
        "Date": now,
        "Version": VERSION,
        "HostId": outcome.host_id,
        "Message": outcome.message,
        "Status": "SUCCESS" if outcome.success else "FAILURE",
        "State": "ONLINE" if outcome.online else "OFFLINE",
        "SubState": "BUSY" if outcome.busy else "IDLE",
    }
    if outcome.request_id is not None:
        attributes |= {
            "RequestId": outcome.request_id,
            "RequestTime": outcome.request_time,
            "CompletionTime": now,
        }
    if outcome.progress is not None:
        percent, expected = outcome.progress
        attributes |= {"CompletionPercent": percent, "ExpectedCount": expected, "ActualCount": 0}
    return attributes


def _disk_attributes(disk: Disk) -> dict[str, object]:
    return {
        "DiskId": disk.stored.disk_id,
        "Archive": "EmbeddedArchive",
        "InstallationDate": disk.stored.installation_date,
        "Type": "None",
        "Manufacturer": "None",
        "LogicalName": disk.logical_name,
        "HostId": disk.host_id,
        "SlotId": disk.stored.slot_id,
        "Mounted": int(disk.mounted),
        "MountPoint": disk.mount_point,
        "NumberOfFiles": disk.stored.number_of_files,
        "AvailableMb": disk.free_bytes // 2**20,
        "BytesStored": disk.stored.bytes_stored,
        "Completed": 0,
        "CompletionDate": "",
        "Checksum": "",
        "TotalDiskWriteTime": 0.0,
        "LastCheck": "",
    }


def ingestion_rate(file: StoredFile) -> float:
    """Bytes per second at which a file came in."""
    return file.file_size / file.io_time if file.io_time else 0.0


def file_attributes(file: StoredFile) -> dict[str, object]:
    """The attributes of a FileStatus element."""
    return {
        "FileName": file.file_name,
        "FileId": file.file_id,
        "FileVersion": file.file_version,
        "Format": file.format,
        "FileSize": file.file_size,
        "UncompressedFileSize": file.file_size,
        "Compression": "NONE",
        "IngestionDate": file.ingestion_date,
        "Ignore": 0,
        "Checksum": file.checksum,
        "ChecksumPlugIn": file.checksum_plugin,
        "FileStatus": "00000000",
        "CreationDate": file.ingestion_date,
        "Tag": "",
        "Permissions": "",
        "Owner": "",
        "Group": "",
        "ModificationDate": "",
        "AccessDate": "",
        "TotalIoTime": f"{file.io_time:.4f}",
        "IngestionRate": f"{ingestion_rate(file):.0f}",
        "ContainerId": file.container_id,
    }
