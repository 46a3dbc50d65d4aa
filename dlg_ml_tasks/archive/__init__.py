"""NGAS for Python: a client with verified transfers, and an fsspec file system (`ngas://host:port/path`) on top of it."""

from __future__ import annotations

from dlg_ml_tasks.archive.address import Address, parse_address, split_url
from dlg_ml_tasks.archive.checksums import Checksum
from dlg_ml_tasks.archive.client import NgasClient
from dlg_ml_tasks.archive.errors import (
    AccessRefused,
    ArchiveFull,
    ArchiveOffline,
    ArchiveOverloaded,
    ArchiveUnreachable,
    CacheUnusable,
    ChecksumMismatch,
    Conflict,
    FileNotInArchive,
    NgasError,
    NotInCache,
    ProtocolError,
)
from dlg_ml_tasks.archive.filesystem import NgasFileSystem
from dlg_ml_tasks.archive.reply import Container, FileStatus, StatusDocument

__all__ = [
    "AccessRefused",
    "Address",
    "ArchiveFull",
    "ArchiveOffline",
    "ArchiveOverloaded",
    "ArchiveUnreachable",
    "CacheUnusable",
    "Checksum",
    "ChecksumMismatch",
    "Conflict",
    "Container",
    "FileNotInArchive",
    "FileStatus",
    "NgasClient",
    "NgasError",
    "NgasFileSystem",
    "NotInCache",
    "ProtocolError",
    "StatusDocument",
    "parse_address",
    "split_url",
]
