"""The archive as the site sees it: listings and bytes of artifacts, and nothing that changes it."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from dlg_ml_tasks.archive import Address, FileNotInArchive, NgasClient, NgasError, parse_address
from dlg_ml_tasks.archive.naming import canonical
from dlg_ml_tasks.archive.tree import Entry, NgasTree
from dlg_ml_tasks.web.sources.errors import NotThere, SourceDown

_NAME = "the archive"
_PROXIED = "mlflow-artifacts"


@dataclass(frozen=True)
class ArchiveFile:
    """A file or folder in the archive; `path` is relative to the artifact root that was asked, `size` in bytes.

    `checksum` is a text such as ``crc32c:152299802``; None for folders, and where the archive has none.
    """

    path: str
    is_folder: bool
    size: int
    checksum: str | None
    entry: Entry

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)


class ArchiveReader:
    """Reads artifacts by their MLflow location. Thread safe. Of the archive's commands it uses STATUS, QUERY and RETRIEVE only.

    proxied: the ``ngas://`` URL behind ``mlflow-artifacts:`` locations; empty if there are none. timeout: seconds without
    progress after which the archive counts as down.
    """

    def __init__(self, proxied: str = "", timeout: float = 10.0) -> None:
        self._proxied = proxied
        self._timeout = timeout
        self._trees: dict[Address, NgasTree] = {}

    def list(self, location: str, path: str = "") -> list[ArchiveFile]:
        """What is directly in a folder, by name; empty also if there is no such folder. Raises SourceDown, NotThere."""
        tree, root = self._place(location)
        folder = _below(root, path)
        with _told():
            entries = tree.listing(folder)
        return [_file(root, entry) for entry in entries]

    def find(self, location: str, path: str) -> ArchiveFile:
        """What is at a path. Raises SourceDown, NotThere."""
        tree, root = self._place(location)
        with _told():
            return _file(root, tree.entry(_below(root, path)))

    def read(self, location: str, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a file. Raises SourceDown, NotThere."""
        tree, root = self._place(location)
        with _told():
            entry = tree.file(_below(root, path))
            return tree.read(entry, 0, min(limit, entry.size))

    def read_range(self, location: str, file: ArchiveFile, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of a file that was found before. Raises SourceDown, NotThere if it has gone meanwhile."""
        tree, _ = self._place(location)
        with _told():
            return tree.read(file.entry, start, min(end, file.size))

    def copy_range(
        self, location: str, file: ArchiveFile, start: int, end: int, write: Callable[[bytes], object]
    ) -> None:
        """Hand bytes `start` to `end` of a file to `write`, block by block. Raises SourceDown, NotThere."""
        tree, _ = self._place(location)
        offset = file.entry.member.offset if file.entry.member is not None else 0
        with _told():
            if end > start:
                tree.client.copy_range(file.entry.status, offset + start, offset + end, write)

    def size(self, location: str) -> tuple[int, int]:
        """How many files the archive behind a location holds, and their bytes. Raises SourceDown, NotThere."""
        tree, _ = self._place(location)
        with _told():
            totals = tree.client.totals()
        return totals.files, totals.size

    def host(self, location: str) -> str:
        """Which archive a location is in. Raises NotThere."""
        tree, _ = self._place(location)
        return str(tree.client.address)

    def readable(self, location: str) -> bool:
        """Whether this reader can say anything of a location."""
        scheme = urlsplit(location).scheme
        return scheme == "ngas" or (scheme == _PROXIED and bool(self._proxied))

    def _place(self, location: str) -> tuple[NgasTree, str]:
        if not self.readable(location):
            raise NotThere(
                f"files at {urlsplit(location).scheme or 'a local path'}: are not in an archive that this site reads"
            )
        url = urlsplit(location)
        if url.scheme == _PROXIED:
            url = urlsplit(f"{self._proxied}/{url.path.lstrip('/')}")
        try:
            address, root = parse_address(url.netloc), canonical(url.path)
        except ValueError as error:
            raise NotThere(str(error)) from error
        if address not in self._trees:
            client = NgasClient(address.host, address.port, self._timeout, patience=0.0)
            self._trees[address] = NgasTree(client)
        return self._trees[address], root


def _below(root: str, path: str) -> str:
    relative = path.strip("/")
    if not {"", ".", ".."}.isdisjoint(relative.split("/")) and relative:
        raise NotThere(f"{path!r} is no path of a file")
    try:
        return canonical(posixpath.join(root, relative))
    except ValueError as error:
        raise NotThere(str(error)) from error


def _file(root: str, entry: Entry) -> ArchiveFile:
    checksum = entry.checksum
    return ArchiveFile(
        path=posixpath.relpath(entry.path, root),
        is_folder=entry.is_directory,
        size=entry.size,
        checksum=str(checksum) if checksum and not entry.is_directory else None,
        entry=entry,
    )


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except FileNotInArchive as error:
        raise NotThere(f"{error.path or error.file_id} is not in the archive") from error
    except NgasError as error:
        raise SourceDown(_NAME, type(error).__name__) from error
    except (IsADirectoryError, NotADirectoryError) as error:
        raise NotThere(str(error)) from error
