"""The commands of an NGAS server as Python calls; knows file ids, and nothing of paths or directories."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import IO, Final, Literal

from dlg_ml_tasks.archive import inventory
from dlg_ml_tasks.archive.address import DEFAULT_PORT, Address
from dlg_ml_tasks.archive.checksums import RunningChecksum
from dlg_ml_tasks.archive.connection import Connection, Params
from dlg_ml_tasks.archive.containers import Containers
from dlg_ml_tasks.archive.downloads import Downloads, Move, running_checksum
from dlg_ml_tasks.archive.errors import AccessRefused, ChecksumMismatch, FileNotInArchive, ProtocolError
from dlg_ml_tasks.archive.inventory import Disk, RecentFile, Subscription, Totals
from dlg_ml_tasks.archive.reply import FileStatus, StatusDocument, file_from_row
from dlg_ml_tasks.archive.uploads import ArchiveCommand, Source, Upload, opened, send

log = logging.getLogger(__name__)


class _Unknown(Enum):
    ASK = "ask"


ASK: Final = _Unknown.ASK


class NgasClient:
    """A client of one NGAS server. Thread safe.

    host, port: where the server listens.
    timeout: seconds without progress after which a connection counts as broken.
    auth: user and password; by default those of the environment or the netrc file (see `credentials`). Sent with every
        request, because NGAS never asks for them.
    patience: seconds during which a request that met a broken connection or an overloaded server is tried again. 0: not.
    archive_command: ARCHIVE picks the volume by the server's streams and replicates where its operator configured that;
        QARCHIVE does neither, and takes small files half as fast again.

    Every method raises a subclass of NgasError when the server refuses or cannot be reached. All clients of one server
    in a process share a limit of requests at a time, which follows what the server bears (see `limit`).
    """

    def __init__(
        self,
        host: str,
        port: int = DEFAULT_PORT,
        timeout: float = 60.0,
        auth: tuple[str, str] | None = None,
        *,
        patience: float = 30.0,
        archive_command: ArchiveCommand = "QARCHIVE",
    ) -> None:
        self._connection = Connection(Address(host, port), timeout=timeout, auth=auth, patience=patience)
        self._downloads = Downloads(self._connection)
        self._archive_command = archive_command
        self.address = self._connection.address
        self.containers = Containers(self._connection)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address.host!r}, {self.address.port})"

    @property
    def requests_at_a_time(self) -> int:
        """How many requests this process may have under way with the server, as of now."""
        return self._connection.shared.limit.current

    # --- looking ---

    def find(self, file_id: str) -> FileStatus | None:
        """The latest version of a file, or None if the archive has no such file."""
        try:
            return self.status(file_id)
        except FileNotInArchive:
            return None

    def status(self, file_id: str) -> FileStatus:
        """The latest version of a file; raises FileNotInArchive."""
        return self._connection.patiently(self._connection.file_status, file_id)

    def server_status(self) -> StatusDocument:
        """The server's own state, for health checks."""
        return self._command("STATUS", {})

    def query(self, like: str) -> list[FileStatus]:
        """Every copy of every version of the files whose ids match the SQL LIKE pattern, in no order.

        `%` and `_` are wildcards and cannot be escaped, and some databases ignore case: filter the result.
        The cost grows with the number of files in the whole archive; use `status` for a single file.
        """
        return self._connection.patiently(self._connection.query, "files_like", file_from_row, like=like)

    def disks(self) -> list[Disk]:
        """Every volume that the archive knows."""
        return self._connection.patiently(inventory.disks, self._connection)

    def totals(self) -> Totals:
        """How much the archive holds."""
        return self._connection.patiently(inventory.totals, self._connection)

    def recent_files(self) -> list[RecentFile]:
        """The newest 300 copies of files, newest first."""
        return self._connection.patiently(inventory.recent_files, self._connection)

    # --- bytes ---

    def archive(
        self,
        source: Source,
        file_id: str,
        filename: str,
        *,
        known: FileStatus | Literal[_Unknown.ASK] | None = ASK,
    ) -> FileStatus:
        """Stores `source` under `file_id` and returns what the server holds, verified by size and checksum.

        source: a local file, bytes, or a seekable binary file, read from its beginning; at least one byte long.
        filename: the name on the server's disk, which must be unique per file id (see `naming`).
        known: what the server holds under this id, if the caller has just asked; None for nothing.

        If the server holds the same bytes under the same names, nothing is sent. Otherwise a new version is stored and
        verified, and only then are older versions discarded: readers see a whole file at any time.

        Raises ValueError for an empty source, ChecksumMismatch, ArchiveFull, AccessRefused and other NgasErrors.
        """
        with opened(source) as stream, self._connection.shared.sole_writer(file_id):
            upload = Upload(stream, file_id, filename)
            held = self.find(file_id) if known is ASK else known
            if held is not None and upload.is_held_as(held):
                return held
            stored = send(self._connection, upload, self._archive_command)
            if stored.version > 1:
                self._discard_versions_before(stored)
            return stored

    def retrieve(self, file_id: str, destination: Path, *, known: FileStatus | None = None) -> FileStatus:
        """Downloads a file to `destination`, which appears, or is replaced, only when size and checksum are right.

        known: the file's status, if the caller has just asked. A connection that breaks is taken up where it broke; so
        is a download of more than a block by a process that was interrupted, from `<destination>.<tag>.part`.
        Returns the status of what was downloaded.
        """
        status = known or self.status(file_id)
        self._downloads.retrieve(status, destination)
        return status

    def copy_to(self, status: FileStatus, sink: IO[bytes]) -> None:
        """Writes the whole content of a file to `sink`, verified by size and checksum once all is written."""
        self._downloads.copy_to(status, sink)

    def read(self, status: FileStatus, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `start` to `end` (exclusive; default the end of the file). Verified if that is the whole file."""
        return self._downloads.read(status, start, status.size if end is None else min(end, status.size))

    def copy_range(
        self, status: FileStatus, start: int, end: int, write: Callable[[bytes], object], move: Move | None = None
    ) -> None:
        """Hands bytes `start` to `end` (exclusive) to `write`, block by block; they are not verified.

        move: takes all but the first block of each connection from its descriptor, without their coming into this process.
        """
        self._downloads.copy_range(status, start, end, write, move)

    def running_checksum(self, status: FileStatus) -> RunningChecksum:
        """What to show a file's bytes to, in order, for `verify`."""
        return running_checksum(status)

    def verify(self, status: FileStatus, received: RunningChecksum) -> None:
        """Raises ChecksumMismatch if a whole file was received with another checksum than the archive's."""
        self._downloads.verify(status, received)

    def checkfile(self, file_id: str) -> FileStatus:
        """Makes the server read the latest version and compare its checksum; raises ChecksumMismatch if damaged."""
        status = self.status(file_id)
        # Without a version CHECKFILE looks at version 1.
        self._command("CHECKFILE", {"file_id": file_id, "file_version": status.version})
        return status

    # --- copies ---

    def clone(self, file_id: str, target_disk_id: str | None = None) -> FileStatus:
        """Copies the latest version of a file to another disk, by default any that has no copy; returns the new copy.

        Raises FileNotInArchive, ArchiveFull if there is no such disk, and ChecksumMismatch for a copy that differs.
        """
        source = self.status(file_id)
        params: dict[str, str | int] = {"file_id": file_id, "file_version": source.version}
        if target_disk_id is not None:
            params["target_disk_id"] = target_disk_id
        before = {copy.disk_id for copy in self._copies(file_id) if copy.version == source.version}

        def new_copy() -> FileStatus | None:
            copies = self._connection.query("files_like", file_from_row, like=file_id)
            return next((copy for copy in copies if _is_new(copy)), None)

        def _is_new(copy: FileStatus) -> bool:
            return (copy.file_id, copy.version) == (file_id, source.version) and copy.disk_id not in before

        def clone_once() -> FileStatus:
            self._connection.status("CLONE", params)
            copy = new_copy()
            if copy is None:
                raise ProtocolError("CLONE made no copy", server=str(self.address), file_id=file_id)
            return copy

        copy = self._connection.once(clone_once, new_copy)
        if (copy.size, copy.checksum) != (source.size, source.checksum):
            raise ChecksumMismatch(
                f"the copy on disk {copy.disk_id} has {copy.size} bytes with checksum {copy.checksum}, "
                f"the original {source.size} with {source.checksum}",
                server=str(self.address),
                file_id=file_id,
            )
        return copy

    def discard(self, status: FileStatus) -> None:
        """Deletes exactly this copy of this version; raises FileNotInArchive if it has gone."""
        copy: Params = {"file_id": status.file_id, "file_version": status.version, "disk_id": status.disk_id}

        def gone() -> bool | None:
            try:
                self._connection.status("DISCARD", copy)  # a rehearsal: it lacks `execute`
            except FileNotInArchive:
                return True
            return None

        self._connection.once(lambda: bool(self._connection.status("DISCARD", {**copy, "execute": 1})), gone)

    def delete(self, file_id: str) -> None:
        """Deletes all copies of all versions of a file; raises FileNotInArchive if there is none."""
        with self._connection.shared.sole_writer(file_id):
            status: FileStatus | None = self.status(file_id)
            while status is not None:
                # A single version, the usual case, needs no scan of the archive. Of several the oldest goes first, so
                # that a reader meanwhile sees the newest or nothing.
                self.discard_all([status] if status.version == 1 else self._copies(file_id))
                left = self.find(file_id)
                if left == status:
                    raise ProtocolError(
                        f"the archive says that version {left.version} is discarded, and still has it",
                        server=str(self.address),
                        file_id=file_id,
                    )
                status = left

    def discard_all(self, copies: list[FileStatus]) -> None:
        """Deletes these copies, oldest version first; those already gone are no error."""
        for copy in sorted(copies, key=lambda copy: copy.version):
            with suppress(FileNotInArchive):
                self.discard(copy)

    # --- subscriptions ---

    def subscribe(self, url: str, subscription_id: str, *, start: datetime | None = None) -> None:
        """Makes the archive send every file archived from `start` (default: now) on to `url`, e.g. another QARCHIVE.

        Raises Conflict if the id belongs to another subscription.
        """
        start = (start or datetime.now(timezone.utc)).astimezone(timezone.utc)
        # The server takes a subscription without a start for another one each time.
        stamp = start.replace(tzinfo=None).isoformat(timespec="milliseconds")
        self._command("SUBSCRIBE", {"url": url, "subscr_id": subscription_id, "start_date": stamp})

    def unsubscribe(self, subscription_id: str) -> None:
        """Ends a subscription; raises FileNotInArchive if there is none."""

        def gone() -> bool | None:
            known = inventory.subscriptions(self._connection)
            return None if any(one.subscription_id == subscription_id for one in known) else True

        def unsubscribe_once() -> bool:
            try:
                return bool(self._connection.status("UNSUBSCRIBE", {"subscr_id": subscription_id}))
            except ProtocolError as error:
                # The real server removes one that it never delivered to, then trips over it and answers with its id.
                if error.message.strip("'\"") == subscription_id and gone():
                    return True
                raise

        if self._connection.patiently(gone):
            raise FileNotInArchive(f"there is no subscription {subscription_id}", server=str(self.address))
        self._connection.once(unsubscribe_once, gone)

    def subscriptions(self) -> list[Subscription]:
        """Everybody who is sent new files."""
        return self._connection.patiently(inventory.subscriptions, self._connection)

    def _command(self, command: str, params: Params) -> StatusDocument:
        return self._connection.patiently(self._connection.status, command, params)

    def _copies(self, file_id: str) -> list[FileStatus]:
        return [copy for copy in self.query(file_id) if copy.file_id == file_id]

    def _discard_versions_before(self, stored: FileStatus) -> None:
        copies = self._copies(stored.file_id)
        # Whatever the server answered: nothing goes before its successor stands in the archive's own list.
        if stored.version not in {copy.version for copy in copies}:
            raise ProtocolError(
                f"version {stored.version} was acknowledged and is not listed",
                server=str(self.address),
                file_id=stored.file_id,
            )
        older = [copy for copy in copies if 0 < copy.version < stored.version]
        try:
            self.discard_all(older)
        except AccessRefused as error:
            # The new version is stored and is what readers get; old bytes are a matter for the operator.
            log.warning("older versions of NGAS file id %s stay in the archive: %s", stored.file_id, error)
