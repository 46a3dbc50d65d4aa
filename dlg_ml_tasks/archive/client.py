"""Commands of an NGAS server as verified transfers; knows file ids, and nothing of paths or directories."""

from __future__ import annotations

import io
import logging
import os
import re
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import IO, Final, Literal
from weakref import WeakValueDictionary

import requests

from dlg_ml_tasks.archive.address import DEFAULT_PORT, Address
from dlg_ml_tasks.archive.connection import BLOCK, Connection, credentials_from_environment
from dlg_ml_tasks.archive.errors import (
    AccessRefused,
    ArchiveFull,
    ArchiveUnreachable,
    ChecksumMismatch,
    FileNotInArchive,
    NgasError,
    ProtocolError,
)
from dlg_ml_tasks.archive.reply import FileStatus, MalformedReply, StatusDocument, file_from_row

log = logging.getLogger(__name__)


class _Unknown(Enum):
    ASK = "ask"


ASK: Final = _Unknown.ASK

_CONTENT_RANGE = re.compile(r"bytes (?P<start>[0-9]+)-[0-9]+/[0-9]+")

# The real server gives concurrent uploads of one id the same version number, and one of them may end up damaged.
_writers: WeakValueDictionary[tuple[Address, str], threading.Lock] = WeakValueDictionary()
_writers_guard = threading.Lock()


class NgasClient:
    """A client of one NGAS server. Thread safe; holds no connection between calls.

    host, port: where the server listens.
    timeout: seconds without progress after which a connection counts as broken.
    auth: user and password; by default from DLG_ML_NGAS_USER and DLG_ML_NGAS_PASSWORD, if set. Sent with every request,
        because NGAS never asks for them.
    patience: seconds during which a request that met a broken connection or an overloaded server is tried again. 0: not.

    Every method raises a subclass of NgasError when the server refuses or cannot be reached.
    """

    def __init__(
        self,
        host: str,
        port: int = DEFAULT_PORT,
        timeout: float = 60.0,
        auth: tuple[str, str] | None = None,
        *,
        patience: float = 30.0,
    ) -> None:
        self._connection = Connection(
            Address(host, port),
            timeout=timeout,
            auth=credentials_from_environment() if auth is None else auth,
            patience=patience,
        )
        self.address = self._connection.address

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address.host!r}, {self.address.port})"

    def archive(
        self,
        source: Path | bytes | IO[bytes],
        file_id: str,
        filename: str,
        *,
        known: FileStatus | Literal[_Unknown.ASK] | None = ASK,
    ) -> FileStatus:
        """Stores `source` under `file_id` and returns what the server holds, verified by size and CRC-32.

        source: a local file, bytes, or a seekable binary file, read from its beginning; at least one byte long.
        filename: the name on the server's disk, which must be unique per file id (see `naming`).
        known: what the server holds under this id, if the caller has just asked; None for nothing.

        If the server holds the same bytes under the same names, nothing is sent. Otherwise a new version is stored and
        verified, and only then are older versions discarded: readers see a whole file at any time.

        Raises ValueError for an empty source, ChecksumMismatch, ArchiveFull, AccessRefused and other NgasErrors.
        """
        with _opened(source) as stream, self._sole_writer(file_id):
            upload = _Upload(stream, file_id, filename)
            held = self.find(file_id) if known is ASK else known
            if held is not None and upload.is_held_as(held):
                return held
            stored = self._send(upload)
            if stored.version > 1:
                self._discard_versions_before(stored)
            return stored

    def find(self, file_id: str) -> FileStatus | None:
        """The latest version of a file, or None if the archive has no such file."""
        try:
            return self.status(file_id)
        except FileNotInArchive:
            return None

    def status(self, file_id: str) -> FileStatus:
        """The latest version of a file; raises FileNotInArchive."""
        return self._connection.patiently(self._status, file_id)

    def server_status(self) -> StatusDocument:
        """The server's own state, for health checks."""
        return self._command("STATUS", {})

    def query(self, like: str) -> list[FileStatus]:
        """Every copy of every version of the files whose ids match the SQL LIKE pattern, in no order.

        `%` and `_` are wildcards and cannot be escaped, and some databases ignore case: filter the result.
        The cost grows with the number of files in the whole archive; use `status` for a single file.
        """
        rows = self._connection.patiently(self._connection.query, "files_like", like=like)
        try:
            return [file_from_row(row) for row in rows]
        except MalformedReply as error:
            raise ProtocolError(str(error), server=str(self.address)) from error

    def retrieve(self, file_id: str, destination: Path, *, known: FileStatus | None = None) -> FileStatus:
        """Downloads a file to `destination`, which appears, or is replaced, only when size and CRC-32 are right.

        known: the file's status, if the caller has just asked. A connection that breaks is taken up where it broke.
        Returns the status of what was downloaded.
        """
        status = known or self.status(file_id)
        part = destination.with_name(f".ngas-{uuid.uuid4().hex}.part")
        try:
            with part.open("xb") as sink:
                self.copy_to(status, sink)
            part.replace(destination)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return status

    def copy_to(self, status: FileStatus, sink: IO[bytes]) -> None:
        """Writes the whole content of a file to `sink`, verified by size and CRC-32 once all is written."""
        checksum = 0

        def write(block: bytes) -> None:
            nonlocal checksum
            sink.write(block)
            checksum = zlib.crc32(block, checksum)

        self._transfer(status, 0, status.size, write)
        self.verify(status, checksum)

    def read(self, status: FileStatus, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` to `end` (exclusive; default the end of the file). Verified if that is the whole file."""
        end = status.size if end is None else min(end, status.size)
        body = bytearray()
        self._transfer(status, start, end, body.extend)
        if start == 0 and end == status.size:
            self.verify(status, zlib.crc32(body))
        return bytes(body)

    def verify(self, status: FileStatus, checksum: int) -> None:
        """Raises ChecksumMismatch if `checksum`, the CRC-32 of a whole file, is not the archive's."""
        if status.checksum is None:
            log.warning("NGAS file id %s has no CRC-32; only its size was verified", status.file_id)
        elif checksum != status.checksum:
            raise ChecksumMismatch(
                f"received bytes with CRC-32 {checksum}, the archive recorded {status.checksum}",
                server=str(self.address),
                file_id=status.file_id,
            )

    def checkfile(self, file_id: str) -> FileStatus:
        """Makes the server read the latest version and compare its checksum; raises ChecksumMismatch if damaged."""
        status = self.status(file_id)
        # Without a version CHECKFILE looks at version 1.
        self._command("CHECKFILE", {"file_id": file_id, "file_version": status.version})
        return status

    def discard(self, status: FileStatus) -> None:
        """Deletes exactly this copy of this version; raises FileNotInArchive if it has gone."""
        self._command(
            "DISCARD",
            {"file_id": status.file_id, "file_version": status.version, "disk_id": status.disk_id, "execute": 1},
        )

    def delete(self, file_id: str) -> None:
        """Deletes all copies of all versions of a file; raises FileNotInArchive if there is none."""
        with self._sole_writer(file_id):
            status: FileStatus | None = self.status(file_id)
            while status is not None:
                # A single version, the usual case, needs no scan of the archive. Of several the oldest goes first, so
                # that a reader meanwhile sees the newest or nothing.
                self.discard_all([status] if status.version == 1 else self._copies(file_id))
                status = self.find(file_id)

    def discard_all(self, copies: list[FileStatus]) -> None:
        """Deletes these copies, oldest version first; those already gone are no error."""
        for copy in sorted(copies, key=lambda copy: copy.version):
            with suppress(FileNotInArchive):
                self.discard(copy)

    def _send(self, upload: _Upload) -> FileStatus:
        try:
            return self._connection.patiently(self._push_once, upload)
        except ArchiveUnreachable as error:
            self._raise_if_full(upload, error)
            raise

    def _push_once(self, upload: _Upload) -> FileStatus:
        """Sends the file, unless an earlier try got it there and only the reply was lost: no second version then."""
        if upload.sent:
            with suppress(FileNotInArchive):
                held = self._status(upload.file_id)
                if upload.is_held_as(held):
                    return held
        upload.sent = True
        return self._push(upload)

    def _push(self, upload: _Upload) -> FileStatus:
        upload.stream.seek(0)
        document = self._connection.status(
            "QARCHIVE",
            {"file_id": upload.file_id, "filename": upload.filename, "crc_variant": "crc32"},
            body=upload.stream,
            headers={
                "Content-Type": "application/octet-stream",
                "NGAS-File-CRC": str(upload.checksum),
            },
        )
        stored = self._only_file(document, upload.file_id)
        if (stored.size, stored.checksum) != (upload.size, upload.checksum):
            raise ChecksumMismatch(
                f"sent {upload.size} bytes with CRC-32 {upload.checksum}, "
                f"the archive recorded {stored.size} bytes with {stored.checksum}",
                server=str(self.address),
                file_id=upload.file_id,
            )
        return stored

    def _raise_if_full(self, upload: _Upload, error: ArchiveUnreachable) -> None:
        """NGAS drops the connection, with no answer, when its disk is full: ask how much space there is."""
        try:
            free = [float(str(disk["available_mb"])) for disk in self._connection.query("disks_list")]
        except (NgasError, LookupError, ValueError):
            return
        if free and max(free) * 1e6 < upload.size:
            raise ArchiveFull(
                f"a file of {upload.size} bytes does not fit on a volume with {max(free):.0f} MB free",
                server=str(self.address),
                file_id=upload.file_id,
            ) from error

    def _status(self, file_id: str) -> FileStatus:
        return self._only_file(self._connection.status("STATUS", {"file_id": file_id}), file_id)

    def _only_file(self, document: StatusDocument, file_id: str) -> FileStatus:
        files = [file for file in document.files if file.file_id == file_id]
        if not files:
            raise ProtocolError(
                f"the reply {document.message!r} says nothing of the file", server=str(self.address), file_id=file_id
            )
        return files[0]

    def _command(self, command: str, params: dict[str, str | int]) -> StatusDocument:
        return self._connection.patiently(self._connection.status, command, params)

    def _copies(self, file_id: str) -> list[FileStatus]:
        return [copy for copy in self.query(file_id) if copy.file_id == file_id]

    def _discard_versions_before(self, stored: FileStatus) -> None:
        older = [copy for copy in self._copies(stored.file_id) if copy.version < stored.version]
        try:
            self.discard_all(older)
        except AccessRefused as error:
            # The new version is stored and is what readers get; old bytes are a matter for the operator.
            log.warning("older versions of NGAS file id %s stay in the archive: %s", stored.file_id, error)

    def _transfer(self, status: FileStatus, start: int, end: int, write: Callable[[bytes], object]) -> None:
        """Hands bytes `start` to `end` to `write`, over as many connections as it takes.

        A connection that breaks is taken up where it broke, and patience begins anew whenever bytes have come.
        """
        while start < end:
            start = self._connection.patiently(self._pull, status, start, end, write)

    def _pull(self, status: FileStatus, start: int, end: int, write: Callable[[bytes], object]) -> int:
        """One request; returns how far it came, which is beyond `start` or else raises ArchiveUnreachable."""
        params: dict[str, str | int] = {"file_id": status.file_id, "file_version": status.version}
        # The server knows only ranges without an end, and one that starts at 0 is no range.
        headers = {"Range": f"bytes={start}-"} if start else {}
        position = start
        try:
            with self._connection.exchange("RETRIEVE", params, headers=headers) as response:
                self._check_range(response, status, start)
                for block in response.iter_content(min(BLOCK, end - start)):
                    wanted = block[: end - position]
                    write(wanted)
                    position += len(wanted)
                    if position == end:
                        return end
        except ArchiveUnreachable:
            if position == start:
                raise
        if position == start:
            raise ArchiveUnreachable(
                "the connection ended before the file", server=str(self.address), file_id=status.file_id
            )
        return position

    def _check_range(self, response: requests.Response, status: FileStatus, start: int) -> None:
        """Refuses a body that does not begin at `start` or does not end at the end of the file."""
        given = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        begins = int(given["start"]) if given else 0
        length = response.headers.get("Content-Length", "")
        if begins != start or length != str(status.size - start):
            raise ProtocolError(
                f"asked for {status.size - start} bytes from byte {start}, was offered {length or '?'} from {begins}",
                server=str(self.address),
                file_id=status.file_id,
            )

    @contextmanager
    def _sole_writer(self, file_id: str) -> Iterator[None]:
        with _writers_guard:
            lock = _writers.setdefault((self.address, file_id), threading.Lock())
        with lock:
            yield


class _Upload:
    """A stream with what the server must report after storing it."""

    def __init__(self, stream: IO[bytes], file_id: str, filename: str) -> None:
        self.stream = stream
        self.file_id = file_id
        self.filename = filename
        self.sent = False
        # The checksum stands in a header, ahead of the body: one more pass over the source.
        self.size, self.checksum = _measure(stream)
        if self.size == 0:
            raise ValueError(f"NGAS cannot hold an empty file (file id {file_id})")

    def is_held_as(self, held: FileStatus) -> bool:
        """Whether the archive has these bytes under these names."""
        return (held.size, held.checksum, held.filename) == (self.size, self.checksum, self.filename)


def _measure(stream: IO[bytes]) -> tuple[int, int]:
    """Size and CRC-32 of all of `stream`."""
    stream.seek(0)
    size, checksum = 0, 0
    while block := stream.read(BLOCK):
        size += len(block)
        checksum = zlib.crc32(block, checksum)
    return size, checksum


@contextmanager
def _opened(source: Path | bytes | IO[bytes]) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, os.PathLike):
        with source.open("rb") as stream:
            yield stream
    else:
        yield source
