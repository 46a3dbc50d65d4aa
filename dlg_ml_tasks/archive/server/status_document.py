"""The XML status document with which NGAS answers nearly every command."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from .catalogue import StoredFile, Volume, timestamp
from .node import SLOT_ID, VERSION

# What XML 1.0 cannot hold, not even escaped. A message may quote such a character from a request.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

DTD = """\
<!ELEMENT NgamsStatus (Status, DiskStatus*)>
<!ELEMENT Status EMPTY>
<!ATTLIST Status Date CDATA #REQUIRED Version CDATA #REQUIRED HostId CDATA #REQUIRED Message CDATA #REQUIRED
  Status (SUCCESS|FAILURE) #REQUIRED State CDATA #IMPLIED SubState CDATA #IMPLIED
  RequestId CDATA #IMPLIED RequestTime CDATA #IMPLIED CompletionTime CDATA #IMPLIED>
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
"""


@dataclass(frozen=True)
class Disk:
    """The server's disk as a status document shows it; `mount_point` is where its directory is."""

    volume: Volume
    host_id: str
    mount_point: Path
    free_bytes: int


@dataclass(frozen=True)
class Outcome:
    """What the Status element says. The request's id and times are given for commands about a file."""

    message: str
    success: bool
    host_id: str
    online: bool
    request_id: str | None = None
    request_time: str | None = None


def status_document(outcome: Outcome, dtd_host: str, disk: Disk | None = None, file: StoredFile | None = None) -> bytes:
    """The document in UTF-8. (The real server writes Latin-1 and calls it UTF-8; no parser can read that.)

    `dtd_host` is the `host:port` the DTD can be had from. A file stands in its disk.
    """
    root = ElementTree.Element("NgamsStatus")
    _add(root, "Status", _status_attributes(outcome))
    if disk is not None:
        disk_element = _add(root, "DiskStatus", _disk_attributes(disk))
        if file is not None:
            _add(disk_element, "FileStatus", _file_attributes(file))
    ElementTree.indent(root)
    doctype = f'<!DOCTYPE NgamsStatus SYSTEM "http://{dtd_host}/RETRIEVE?internal=ngamsStatus.dtd">'
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" ?>\n{doctype}\n{body}\n'.encode()


def _add(parent: ElementTree.Element, name: str, attributes: dict[str, object]) -> ElementTree.Element:
    # str() as NGAS does it: a null prints as "None".
    values = {key: _NOT_XML.sub("\ufffd", str(value)) for key, value in attributes.items()}
    return ElementTree.SubElement(parent, name, values)


def _status_attributes(outcome: Outcome) -> dict[str, object]:
    now = timestamp()
    attributes: dict[str, object] = {
        "Date": now,
        "Version": VERSION,
        "HostId": outcome.host_id,
        "Message": outcome.message,
        "Status": "SUCCESS" if outcome.success else "FAILURE",
        "State": "ONLINE" if outcome.online else "OFFLINE",
        "SubState": "IDLE",
    }
    if outcome.request_id is not None:
        attributes |= {
            "RequestId": outcome.request_id,
            "RequestTime": outcome.request_time,
            "CompletionTime": now,
        }
    return attributes


def _disk_attributes(disk: Disk) -> dict[str, object]:
    return {
        "DiskId": disk.volume.disk_id,
        "Archive": "EmbeddedArchive",
        "InstallationDate": disk.volume.installation_date,
        "Type": "None",
        "Manufacturer": "None",
        "LogicalName": "EMBEDDED-M-000001",
        "HostId": disk.host_id,
        "SlotId": SLOT_ID,
        "Mounted": 1,
        "MountPoint": disk.mount_point,
        "NumberOfFiles": disk.volume.number_of_files,
        "AvailableMb": disk.free_bytes // 2**20,
        "BytesStored": disk.volume.bytes_stored,
        "Completed": 0,
        "CompletionDate": "",
        "Checksum": "",
        "TotalDiskWriteTime": 0.0,
        "LastCheck": "",
    }


def ingestion_rate(file: StoredFile) -> float:
    """Bytes per second at which a file came in."""
    return file.file_size / file.io_time if file.io_time else 0.0


def _file_attributes(file: StoredFile) -> dict[str, object]:
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
        "ContainerId": None,
    }
