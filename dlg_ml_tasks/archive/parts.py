"""The local file in which a download grows until it is whole, and from which a later process can go on."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dlg_ml_tasks.archive.local_files import temporary_name

# <name>.<tag>.part: the tag says what the bytes belong to, so that no other download goes on with them.
_TAG = 16
_SUFFIX = re.compile(rf"\.[0-9a-f]{{{_TAG}}}\.part")
_MAX_NAME_BYTES = 255


class Part:
    """An open `<name>.<tag>.part` beside its destination, of which this process is the only writer."""

    def __init__(self, path: Path, destination: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self._destination = destination

    def size(self) -> int:
        """Bytes that are there."""
        return os.fstat(self.file.fileno()).st_size

    def clear(self) -> None:
        self.file.seek(0)
        self.file.truncate()

    def publish(self) -> None:
        """Gives the file its name, in place of what has it."""
        self.file.flush()
        self.path.replace(self._destination)


@contextmanager
def part_for(destination: Path, identity: str, *, kept_after: tuple[type[BaseException], ...]) -> Iterator[Part]:
    """Opens the part of the download of `identity` to `destination`, with what an earlier process left in it.

    The part stays for a later process if the block raises one of `kept_after`, and is removed if it raises anything
    else. Parts of other contents for this destination are removed. If another download is writing the part right now,
    or its file system has no locks to tell, this download gets a part of its own, which never stays.
    """
    tag = hashlib.blake2b(f"{destination.name}\0{identity}".encode(), digest_size=_TAG // 2).hexdigest()
    path = _path(destination, tag)
    _remove_others(destination, path)
    file = _open_as_sole_writer(path)
    if file is None:
        kept_after = ()
        path = temporary_name(destination)
        file = path.open("x+b")
    with file:
        try:
            yield Part(path, destination, file)
        except BaseException as error:
            file.flush()
            if not isinstance(error, kept_after) or os.fstat(file.fileno()).st_size == 0:
                path.unlink(missing_ok=True)
            raise


def _path(destination: Path, tag: str) -> Path:
    return destination.with_name(f"{_stem(destination)}.{tag}.part")


def _stem(destination: Path) -> str:
    """The destination's name, as much of it as leaves room for the rest."""
    room = _MAX_NAME_BYTES - len(f".{'0' * _TAG}.part")
    return os.fsdecode(os.fsencode(destination.name)[:room])


def _open_as_sole_writer(path: Path) -> BinaryIO | None:
    """Opens and locks the file; None if that cannot be. The lock goes when the file is closed."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
        if not _lock(file):
            file.close()
            return None
        if _is_still(path, file):
            return file
        # Between opening and locking, the other one finished and gave the file its name.
        file.close()


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is taken, or the file system has no locks
        return False
    return True


def _is_still(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _remove_others(destination: Path, wanted: Path) -> None:
    """Removes what downloads of other contents left, unless one is at work."""
    stem = _stem(destination)
    for path in destination.parent.iterdir():
        if path.name.startswith(stem) and _SUFFIX.fullmatch(path.name, len(stem)) and path != wanted:
            _remove_unless_locked(path)


def _remove_unless_locked(path: Path) -> None:
    try:
        with path.open("r+b") as file:
            if _lock(file) and _is_still(path, file):
                path.unlink()
    except FileNotFoundError:
        pass
