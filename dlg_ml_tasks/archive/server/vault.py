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
from pathlib import Path
from types import TracebackType

from .checksums import Checksum

logger = logging.getLogger(__name__)

BLOCK = 1024 * 1024
_SUBDIRECTORIES = tuple(f"{number:02x}" for number in range(256))

# A crash leaves one unregistered object per upload then under way.
_MOST_ORPHANS = 1000


class CatalogueLost(Exception):
    """The archive has bytes its catalogue knows nothing of, and removing them would destroy data."""


class StagedFile:
    """A file that is being received. Blocking; its methods may be called from different threads, one at a time."""

    def __init__(self, path: Path, checksum: Checksum | None) -> None:
        self._checksum = checksum
        self._path = path
        self._file = path.open("xb", buffering=0)
        self.size = 0
        self.sum = 0

    def write(self, block: bytes) -> None:
        """Append a block and sum it."""
        view = memoryview(block)
        while view:
            view = view[self._file.write(view) :]
        self.size += len(block)
        if self._checksum is not None:
            self.sum = self._checksum.update(block, self.sum)

    def place(self, destination: Path) -> None:
        """Flush the bytes to disk and move them to `destination`, durably."""
        os.fsync(self._file.fileno())
        self._file.close()
        self._path = self._path.rename(destination)
        _flush_directory(destination.parent)

    def discard(self) -> None:
        """Remove the bytes, wherever they are."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Vault:
    """The directory `root` with its `staging/` and `objects/`."""

    def __init__(self, root: Path) -> None:
        """Create what is missing and empty the staging directory. Raises OSError if `root` cannot be written."""
        self.root = root
        self._staging = root / "staging"
        self._objects = root / "objects"
        self._staging.mkdir(parents=True, exist_ok=True)
        for name in _SUBDIRECTORIES:
            (self._objects / name).mkdir(parents=True, exist_ok=True)
        for directory in (self._objects, root):
            _flush_directory(directory)
        for left_over in self._staging.iterdir():
            logger.warning("Removing the unfinished upload %s", left_over.name)
            left_over.unlink()

    def stage(self, checksum: Checksum | None) -> StagedFile:
        """Begin to receive a file."""
        return StagedFile(self._staging / uuid.uuid4().hex, checksum)

    def place(self, staged: StagedFile, file_id: str) -> str:
        """Make `staged` an object of the vault, durably; gives its name."""
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
        """The space left for new files."""
        return shutil.disk_usage(self._objects).free

    def is_empty(self) -> bool:
        """Whether there is no object at all."""
        return next(self._objects.glob("*/*"), None) is None

    def reconcile(self, named: set[str]) -> None:
        """Remove the objects that no row names, and report the rows whose object is gone.

        Raises CatalogueLost, and removes nothing, if a crash cannot have left so many.
        """
        found = {f"{path.parent.name}/{path.name}" for path in self._objects.glob("*/*")}
        orphans = found - named
        if len(orphans) > _MOST_ORPHANS:
            raise CatalogueLost(f"The catalogue does not know {len(orphans)} of the files in {self._objects}")
        for name in orphans:
            logger.warning("Removing %s: its upload was cut off before it was registered", self.path(name))
            self.remove(name)
        for name in named - found:
            logger.error("%s is registered, but its bytes are gone; restore it from a backup", self.path(name))


class ObjectReader:
    """An open object, read in blocks from byte `start`. `size` is that of the whole."""

    def __init__(self, path: Path, start: int = 0) -> None:
        """Open the object. Raises FileNotFoundError."""
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self.size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> ObjectReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> bytes:
        """The next block, empty at the end."""
        return self._file.read(BLOCK)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def checksum_of(path: Path, checksum: Checksum) -> int:
    """The sum of a whole object."""
    total = 0
    with ObjectReader(path) as reader:
        while block := reader.read():
            total = checksum.update(block, total)
    return total


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
