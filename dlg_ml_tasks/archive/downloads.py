"""Getting a file from NGAS, verified by size and checksum, over as many connections as it takes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO

from urllib3.response import BaseHTTPResponse

from dlg_ml_tasks.archive.checksums import PREFERRED, RunningChecksum
from dlg_ml_tasks.archive.connection import TRANSIENT, Connection, Params
from dlg_ml_tasks.archive.errors import ArchiveUnreachable, ChecksumMismatch, ProtocolError
from dlg_ml_tasks.archive.local_files import place
from dlg_ml_tasks.archive.parts import Part, part_for
from dlg_ml_tasks.archive.reply import FileStatus
from dlg_ml_tasks.archive.shared import BLOCK

log = logging.getLogger(__name__)

# After these a later try, in this process or another, can go on with what has come.
_INTERRUPTIONS = (*TRANSIENT, KeyboardInterrupt, SystemExit)

_FIRST = 1 << 16  # bytes: more than a connection's buffer in this process holds
_CONTENT_RANGE = re.compile(r"bytes (?P<start>[0-9]+)-[0-9]+/[0-9]+")


Move = Callable[[int, int], int]
"""Moves at most so many bytes from a descriptor to where they are wanted, and returns how many; 0 if no more come."""


class Downloads:
    """Reads files whose status is known."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def retrieve(self, status: FileStatus, destination: Path) -> None:
        """Makes `destination` the content of a file; it appears, or is replaced, only when it is whole and verified."""
        if status.size <= BLOCK:
            self._retrieve_small(status, destination)
        else:
            self._retrieve_in_parts(status, destination)

    def copy_to(self, status: FileStatus, sink: IO[bytes]) -> None:
        """Writes the whole content of a file to `sink`, verified once all is written."""
        self._fill(status, sink, 0, running_checksum(status))

    def read(self, status: FileStatus, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive). Verified if that is the whole file."""
        body = bytearray()
        self.copy_range(status, start, end, body.extend)
        if start == 0 and end == status.size:
            running = running_checksum(status)
            running.update(body)
            self.verify(status, running)
        return bytes(body)

    def verify(self, status: FileStatus, received: RunningChecksum) -> None:
        """Raises ChecksumMismatch if a whole file was received with another checksum than the archive's."""
        if status.checksum is None:
            log.warning("NGAS file id %s has no checksum; only its size was verified", status.file_id)
        elif received.checksum != status.checksum:
            raise ChecksumMismatch(
                f"received bytes with checksum {received.checksum}, the archive recorded {status.checksum}",
                server=str(self._connection.address),
                file_id=status.file_id,
            )

    def _retrieve_small(self, status: FileStatus, destination: Path) -> None:
        """One block is cheaper fetched again than kept in part; it is verified before anything is written."""
        place(self.read(status, 0, status.size), destination)

    def _retrieve_in_parts(self, status: FileStatus, destination: Path) -> None:
        identity = f"{self._connection.address} {status.identity}"
        with part_for(destination, identity, kept_after=_INTERRUPTIONS) as part:
            self._complete(status, part)
            part.publish()

    def _complete(self, status: FileStatus, part: Part) -> None:
        there = part.size()
        if there > status.size:
            part.clear()
            there = 0
        running = running_checksum(status)
        if there:
            log.info("going on with %s, of which %d of %d bytes are there", part.path, there, status.size)
            while block := part.file.read(BLOCK):
                running.update(block)
        try:
            self._fill(status, part.file, there, running)
        except ChecksumMismatch:
            if not there:
                raise
            log.warning("the bytes in %s were damaged; downloading all of them", part.path)
            part.clear()
            self._fill(status, part.file, 0, running_checksum(status))

    def _fill(self, status: FileStatus, sink: IO[bytes], start: int, running: RunningChecksum) -> None:
        """Writes a file from byte `start` on; `running` has seen what is before."""

        def write(block: bytes) -> None:
            sink.write(block)
            running.update(block)

        self.copy_range(status, start, status.size, write)
        self.verify(status, running)

    def copy_range(
        self, status: FileStatus, start: int, end: int, write: Callable[[bytes], object], move: Move | None = None
    ) -> None:
        """Hands bytes `start` to `end` to `write`, over as many connections as it takes; after the first to `move`, if it is given.

        A connection that breaks is taken up where it broke, and patience begins anew whenever bytes have come.
        """
        while start < end:
            start = self._connection.patiently(self._pull, status, start, end, write, move)

    def _pull(
        self, status: FileStatus, start: int, end: int, write: Callable[[bytes], object], move: Move | None
    ) -> int:
        """One request; returns how far it came, which is beyond `start` or else raises ArchiveUnreachable."""
        params: Params = {"file_id": status.file_id, "file_version": status.version}
        # The server knows only ranges without an end, and one that starts at 0 is no range.
        headers = {"Range": f"bytes={start}-"} if start else {}
        position = start
        try:
            with self._connection.exchange("RETRIEVE", params, headers=headers) as response:
                self._check_range(response, status, start)
                if move is not None:
                    # One read gets what came together with the head, and leaves nothing outside of the connection.
                    first = response.read1(min(_FIRST, end - position))
                    write(first)
                    position += len(first)
                    while position < end and (moved := move(response.fileno(), end - position)):
                        position += moved
                while position < end and (block := response.read(min(BLOCK, end - position))):
                    write(block)
                    position += len(block)
        except ArchiveUnreachable:
            if position == start:
                raise
        if position == start:
            raise ArchiveUnreachable(
                "the connection ended before the file", server=str(self._connection.address), file_id=status.file_id
            )
        return position

    def _check_range(self, response: BaseHTTPResponse, status: FileStatus, start: int) -> None:
        """Refuses a body that does not begin at `start` or does not end at the end of the file."""
        given = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        begins = int(given["start"]) if given else 0
        length = response.headers.get("Content-Length", "")
        if begins != start or length != str(status.size - start):
            raise ProtocolError(
                f"asked for {status.size - start} bytes from byte {start}, was offered {length or '?'} from {begins}",
                server=str(self._connection.address),
                file_id=status.file_id,
            )


def running_checksum(status: FileStatus) -> RunningChecksum:
    """What to show a file's bytes to, in order, for `Downloads.verify`."""
    return RunningChecksum(status.checksum.algorithm if status.checksum else PREFERRED)
