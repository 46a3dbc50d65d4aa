"""The bytes of the archive on disk: staged, flushed, then put in place under a name no other file can have.

An object's name is a hash of the file id and a random token, so that two ids never share bytes and a replaced version
never overwrites what somebody is reading. The catalogue decides what exists: an object no row names is left from a
crash between the two, and is removed at the next start.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from .checksums import Checksum

logger = logging.getLogger(__name__)

BLOCK = 1024 * 1024
_SUBDIRECTORIES = tuple(f"{number:02x}" for number in range(256))


class StagedFile:
    """A file that is being received. Blocking; its methods may be called from different threads, one at a time."""

    def __init__(self, path: Path, checksum: Checksum | None) -> None:
        self._checksum = checksum
        self._path = path
        self._file = path.open("xb", buffering=0)
        self.size = 0
        self.sum = 0

    def write(self, pieces: Sequence[bytes]) -> None:
        """Append the pieces, in one call of the system, and sum them."""
        length = sum(map(len, pieces))
        if os.writev(self._file.fileno(), pieces) < length:
            # Seldom: the disk is nearly full, or a signal came. What is missing is written again from the start of it.
            self._file.seek(self.size)
            self._write_all(b"".join(pieces))
        self.size += length
        if self._checksum is not None:
            for piece in pieces:
                self.sum = self._checksum.update(piece, self.sum)

    def _write_all(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[self._file.write(view) :]

    def place(self, destination: Path) -> None:
        """Flush the bytes to disk and move them to `destination`, durably."""
        os.fsync(self._file.fileno())
        self._file.close()
        self._path = self._path.rename(destination)
        flush_directory(destination.parent)

    def discard(self) -> None:
        """Remove the bytes, wherever they are."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Volume:
    """One disk: a directory with `staging/` and `objects/`. The attributes tell its id and whether it is mounted."""

    def __init__(self, disk_id: str, directory: Path, *, mounted: bool = True) -> None:
        self.disk_id = disk_id
        self.directory = directory
        self.mounted = mounted
        self._staging = directory / "staging"
        self._objects = directory / "objects"

    @property
    def slot_id(self) -> str:
        """The name of the volume's directory."""
        return self.directory.name

    def prepare(self) -> None:
        """Make what is missing and empty the staging directory. Raises OSError if it cannot be written."""
        self._staging.mkdir(parents=True, exist_ok=True)
        for name in _SUBDIRECTORIES:
            (self._objects / name).mkdir(parents=True, exist_ok=True)
        for directory in (self._objects, self.directory):
            flush_directory(directory)
        for left_over in self._staging.iterdir():
            logger.warning("Removing the unfinished upload %s", left_over.name)
            left_over.unlink()

    def stage(self, checksum: Checksum | None) -> StagedFile:
        """Begin to receive a file."""
        return StagedFile(self._staging / uuid.uuid4().hex, checksum)

    def place(self, staged: StagedFile, file_id: str) -> str:
        """Make `staged` an object of the volume, durably; gives its name."""
        digest = hashlib.sha256(file_id.encode()).hexdigest()
        name = f"{digest[:2]}/{digest[:40]}-{uuid.uuid4().hex}"
        staged.place(self.path(name))
        return name

    def path(self, name: str) -> Path:
        """Where the bytes of an object are."""
        return self._objects / name

    def remove(self, name: str) -> None:
        """Delete an object. One that is gone already is no error."""
        self.path(name).unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """The space left for new files; none on a disk that is not mounted."""
        return shutil.disk_usage(self.directory).free if self.mounted else 0

    def objects(self) -> Iterator[str]:
        """The names of all objects."""
        return (f"{path.parent.name}/{path.name}" for path in self._objects.glob("*/*"))

    def has_objects(self) -> bool:
        """Whether there is any object."""
        return next(self.objects(), None) is not None


class Reader(Protocol):
    """The bytes of an archived file. `size` is that of the whole."""

    size: int

    def read(self) -> bytes:
        """The next block, empty at the end."""

    def close(self) -> None:
        """Free what it holds."""


class BodyReader:
    """Bytes that are in memory, read as one block."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.size = len(body)
        self._read = False

    def read(self) -> bytes:
        """The bytes, then nothing."""
        block, self._read = b"" if self._read else self.body, True
        return block

    def close(self) -> None:
        """Nothing to free."""


class ObjectReader:
    """An open object, read in blocks."""

    def __init__(self, path: Path) -> None:
        """Open the object. Raises FileNotFoundError."""
        self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> ObjectReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The open file's descriptor."""
        return self._file.fileno()

    def read(self) -> bytes:
        """The next block, empty at the end."""
        return self._file.read(BLOCK)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def checksum_of(reader: Reader, checksum: Checksum) -> int:
    """The sum of the whole file."""
    total = 0
    while block := reader.read():
        total = checksum.update(block, total)
    return total


def flush_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
