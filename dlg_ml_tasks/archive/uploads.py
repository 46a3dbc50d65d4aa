"""Sending a file to NGAS so that it is there once and whole, whatever happens to the connection."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from dlg_ml_tasks.archive.checksums import Algorithm, Checksum, checksum_of, measure
from dlg_ml_tasks.archive.connection import Connection
from dlg_ml_tasks.archive.errors import (
    ArchiveFull,
    ArchiveUnreachable,
    ChecksumMismatch,
    ChecksumUnsupported,
    FileNotInArchive,
    NgasError,
    ProtocolError,
)
from dlg_ml_tasks.archive.inventory import disks
from dlg_ml_tasks.archive.reply import FileStatus
from dlg_ml_tasks.archive.shared import BLOCK

Source = Path | bytes | IO[bytes]
ArchiveCommand = Literal["QARCHIVE", "ARCHIVE"]


class Upload:
    """A source with the names it is to have in the archive.

    `size` is in bytes. Raises ValueError if that is none.
    """

    def __init__(self, stream: IO[bytes], file_id: str, filename: str) -> None:
        self.file_id = file_id
        self.filename = filename
        self._stream = stream
        stream.seek(0)
        # A file of one block is read once; the checksum of a longer one costs a pass over it, because it stands in a
        # header, ahead of the body.
        self._whole = stream.read(BLOCK + 1)
        self.size = len(self._whole)
        if self.size > BLOCK:
            self._whole = b""
            self.size = stream.seek(0, io.SEEK_END)
        if self.size == 0:
            raise ValueError(f"NGAS cannot hold an empty file (file id {file_id})")
        self._checksums: dict[Algorithm, Checksum] = {}

    def checksum(self, algorithm: Algorithm) -> Checksum:
        if algorithm not in self._checksums:
            if self._whole:
                self._checksums[algorithm] = checksum_of(self._whole, algorithm)
            else:
                size, self._checksums[algorithm] = measure(self._stream, algorithm)
                self._refuse_change(size)
        return self._checksums[algorithm]

    def is_held_as(self, held: FileStatus) -> bool:
        """Whether the archive has these bytes under these names, by the checksum that it recorded."""
        return (
            held.checksum is not None
            and (held.file_id, held.size, held.filename) == (self.file_id, self.size, self.filename)
            and held.checksum == self.checksum(held.checksum.algorithm)
        )

    def body(self) -> bytes | Blocks:
        """What to send; anew for each try."""
        return self._whole or Blocks(self._stream, self)

    def _refuse_change(self, size: int) -> None:
        if size != self.size:
            raise self.changed(size)

    def changed(self, size: int) -> ChecksumMismatch:
        return ChecksumMismatch(
            f"the source changed while it was read: it had {self.size} bytes, then {size}",
            file_id=self.file_id,
            remedy="Nothing was stored. Archive it again once nobody writes to it.",
        )


class Blocks:
    """Exactly as many bytes of a stream as the upload announced, in blocks.

    More would be taken for the next request on the connection, and of fewer the server would wait for the rest.
    """

    def __init__(self, stream: IO[bytes], upload: Upload) -> None:
        self._stream = stream
        self._upload = upload
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        # urllib3 takes an exception of the source's for one of the connection's; kept here, it can be told apart.
        try:
            self._stream.seek(0)
            left = self._upload.size
            while left:
                block = self._stream.read(min(BLOCK, left))
                if not block:
                    raise self._upload.changed(self._upload.size - left)
                left -= len(block)
                yield block
        except Exception as failure:
            self.failure = failure
            raise


@contextmanager
def opened(source: Source) -> Iterator[IO[bytes]]:
    """The source as a seekable binary file."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, os.PathLike):
        with source.open("rb") as stream:
            yield stream
    else:
        yield source


def send(connection: Connection, upload: Upload, command: ArchiveCommand) -> FileStatus:
    """Stores the upload as a new version and returns what the server recorded, verified by size and checksum.

    A try whose reply was lost is not repeated before the archive said that it does not have the bytes.
    Raises ChecksumMismatch, ArchiveFull and other NgasErrors, and whatever reading the source raises.
    """

    def held() -> FileStatus | None:
        with suppress(FileNotInArchive):
            status = connection.file_status(upload.file_id)
            if upload.is_held_as(status):
                return status
        _refuse_if_full(connection, upload)
        return None

    try:
        return connection.once(lambda: _push(connection, upload, command), held)
    except ArchiveUnreachable:
        _refuse_if_full(connection, upload)
        raise


def _push(connection: Connection, upload: Upload, command: ArchiveCommand) -> FileStatus:
    algorithm = connection.shared.algorithm
    try:
        return _push_with(algorithm, connection, upload, command)
    except ChecksumUnsupported:
        if algorithm == "crc32":
            raise
    connection.shared.algorithm = "crc32"  # remembered; every NGAS server has it
    return _push_with("crc32", connection, upload, command)


def _push_with(algorithm: Algorithm, connection: Connection, upload: Upload, command: ArchiveCommand) -> FileStatus:
    checksum, body = upload.checksum(algorithm), upload.body()
    try:
        document = connection.status(
            command,
            {"file_id": upload.file_id, "filename": upload.filename, "crc_variant": algorithm},
            body=body,
            headers={
                # The one type that every NGAS configuration knows.
                "Content-Type": "application/octet-stream",
                "Content-Length": str(upload.size),
                "NGAS-File-CRC": str(checksum.value),
            },
        )
    except NgasError as error:
        if isinstance(body, Blocks) and body.failure is not None:
            raise body.failure from error
        raise
    stored = connection.file_in(document, upload.file_id)
    if (stored.size, stored.checksum) != (upload.size, checksum):
        raise ChecksumMismatch(
            f"sent {upload.size} bytes with checksum {checksum}, "
            f"the archive recorded {stored.size} bytes with {stored.checksum}",
            server=str(connection.address),
            file_id=upload.file_id,
        )
    if stored.filename != upload.filename:
        raise ProtocolError(
            f"asked for the filename {upload.filename!r}, the archive took {stored.filename!r}",
            server=str(connection.address),
            file_id=upload.file_id,
            remedy="Choose a filename that NGAS does not change: ASCII, ending in .bin once.",
        )
    return stored


def _refuse_if_full(connection: Connection, upload: Upload) -> None:
    """Raises ArchiveFull if no volume has room: NGAS with a full disk drops the connection and says nothing."""
    try:
        free = [disk.available_bytes for disk in disks(connection) if disk.mounted]
    except NgasError:
        return  # then what is known of the failure stays all there is to say
    if free and max(free) < upload.size:
        raise ArchiveFull(
            f"a file of {upload.size} bytes does not fit on a volume with {max(free) // 1_000_000} MB free",
            server=str(connection.address),
            file_id=upload.file_id,
        )
