"""A tree of files and directories kept in an NGAS archive; the rules of the tree, free of any file-system interface.

Every path here is canonical (see `naming.canonical`). The root always exists and has no object of its own.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from os import strerror
from pathlib import Path
from typing import IO, Any, NamedTuple

from dlg_ml_tasks.archive import naming
from dlg_ml_tasks.archive.address import SCHEME
from dlg_ml_tasks.archive.client import NgasClient
from dlg_ml_tasks.archive.directories import KnownDirectories
from dlg_ml_tasks.archive.errors import FileNotInArchive, NgasError
from dlg_ml_tasks.archive.naming import ROOT, Kind
from dlg_ml_tasks.archive.reply import FileStatus

# On the real server one listing costs about as much as eight exact look-ups (20 ms and 2.4 ms at 100 000 files).
LISTING_PAYS_FROM = 8


class Entry(NamedTuple):
    """What the archive has at a path other than the root."""

    path: str
    kind: Kind
    status: FileStatus

    @property
    def is_directory(self) -> bool:
        return self.kind is Kind.DIRECTORY

    @property
    def size(self) -> int:
        """Bytes of content; 0 for a directory."""
        return self.status.size if self.kind is Kind.FILE else 0

    @property
    def checksum(self) -> int | None:
        """CRC-32 of the content; None for a directory, and where the archive has none."""
        if self.kind is Kind.FILE:
            return self.status.checksum
        return 0 if self.kind is Kind.EMPTY else None


class NgasTree:
    """The tree in the archive of one server. Thread safe.

    threads: how many requests `in_parallel` and `remove_tree` have under way at a time.
    """

    def __init__(self, client: NgasClient, threads: int = 4) -> None:
        self.client = client
        self.directories = KnownDirectories()
        self._threads = threads
        self._marking = threading.Lock()

    def url(self, path: str) -> str:
        return f"{SCHEME}{self.client.address}{path}"

    # --- looking ---

    def find(self, path: str) -> Entry | None:
        """What is at `path`, by one exact request; None for nothing, and for the root."""
        if path == ROOT:
            return None
        with self.about(path):
            status = self.client.find(naming.file_id(path))
        return None if status is None else Entry(path, naming.kind_of(status.filename), status)

    def entry(self, path: str) -> Entry:
        """What is at `path`, not the root; raises FileNotInArchive."""
        entry = self.find(path)
        if entry is None:
            raise self.missing(path)
        return entry

    def file(self, path: str) -> Entry:
        """The file at `path`; raises FileNotInArchive, or IsADirectoryError."""
        self.refuse_directory(path, None)
        entry = self.entry(path)
        self.refuse_directory(path, entry)
        return entry

    def is_directory(self, path: str) -> bool:
        entry = self.find(path)
        return path == ROOT or (entry is not None and entry.is_directory)

    def listing(self, directory: str) -> list[Entry]:
        """The entries of a directory by name, from one query; empty also if it is a file or missing."""
        latest: dict[str, FileStatus] = {}
        for copy in self._copies(directory):
            held = latest.get(copy.file_id)
            if held is None or copy.version > held.version:
                latest[copy.file_id] = copy
        entries = [
            Entry(naming.join(directory, listed.name), listed.kind, status)
            for listed, status in naming.listed(directory, latest.values())
        ]
        return sorted(entries, key=lambda entry: entry.path)

    def lookup(self, paths: Iterable[str]) -> dict[str, Entry | None]:
        """What is at each of the paths, by one listing for a directory that has many of them."""
        by_directory: dict[str, list[str]] = {}
        for path in paths:
            by_directory.setdefault(naming.parent(path), []).append(path)
        found: dict[str, Entry | None] = {}
        for directory, wanted in by_directory.items():
            if len(wanted) < LISTING_PAYS_FROM:
                found.update((path, self.find(path)) for path in wanted)
            else:
                present = {entry.path: entry for entry in self.listing(directory)}
                found.update((path, present.get(path)) for path in wanted)
        return found

    # --- bytes ---

    def read(self, entry: Entry, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of a file; verified if that is all of it."""
        if end <= start:
            return b""
        with self.about(entry.path):
            return self.client.read(entry.status, start, end)

    def copy_to(self, entry: Entry, sink: IO[bytes]) -> None:
        """Writes the verified content of a file to `sink`."""
        if entry.kind is Kind.FILE:
            with self.about(entry.path):
                self.client.copy_to(entry.status, sink)

    def download(self, entry: Entry, destination: Path) -> None:
        """Makes `destination` the verified content of a file; it appears, or is replaced, only when it is whole."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind is Kind.EMPTY:
            destination.write_bytes(b"")
            return
        with self.about(entry.path):
            self.client.retrieve(entry.status.file_id, destination, known=entry.status)

    def check(self, path: str) -> None:
        """Makes the archive read a file and compare its checksum; raises ChecksumMismatch if it is damaged."""
        entry = self.file(path)
        with self.about(path):
            self.client.checkfile(entry.status.file_id)

    def store(self, path: str, content: Path | bytes | IO[bytes], known: Entry | None) -> None:
        """Archives `content` at `path` and makes its parents visible.

        known: what is at `path` now. Raises IsADirectoryError, or NotADirectoryError if a parent is a file.
        """
        self.refuse_directory(path, known)
        self.make_directory(naming.parent(path))
        if _is_empty(content):
            self._archive(path, Kind.EMPTY, naming.EMPTY_BODY, known)
        else:
            self._archive(path, Kind.FILE, content, known)

    # --- shape ---

    def make_directory(self, directory: str) -> None:
        """Makes sure that `directory` and its parents exist and stand in the listings of theirs.

        A directory's marker is written after its parents', so that finding one ends the search upwards. Its content is
        always the same, so that two processes that make one directory at the same time do no harm.
        Raises NotADirectoryError.
        """
        if directory in self.directories:
            return
        with self._marking:
            missing: list[str] = []
            while directory != ROOT and directory not in self.directories:
                entry = self.find(directory)
                if entry is None:
                    missing.append(directory)
                elif entry.is_directory:
                    self.directories.add(directory)
                else:
                    raise NotADirectoryError(errno.ENOTDIR, strerror(errno.ENOTDIR), self.url(directory))
                directory = naming.parent(directory)
            for path in reversed(missing):
                self._archive(path, Kind.DIRECTORY, path.encode(), None)
                self.directories.add(path)

    def remove(self, path: str) -> None:
        """Removes the object at `path`, all versions of it. Raises FileNotInArchive."""
        self.directories.forget(path)
        with self.about(path):
            self.client.delete(naming.file_id(path))
            for name in naming.continuations(path):
                with suppress(FileNotInArchive):
                    self.client.delete(name.file_id)

    def remove_tree(self, directory: str) -> None:
        """Removes what is in a directory, then the directory, so that a removal cut short can be run again."""
        for entry in self.listing(directory):
            if entry.is_directory:
                self.remove_tree(entry.path)
        by_file: dict[str, list[FileStatus]] = {}
        for copy in self._copies(directory):
            by_file.setdefault(copy.file_id, []).append(copy)
        with self.about(directory):
            self.in_parallel([(copies,) for copies in by_file.values()], self.client.discard_all)
        if directory != ROOT:
            with suppress(FileNotInArchive):
                self.remove(directory)

    # --- failing, and going fast ---

    def refuse_directory(self, path: str, entry: Entry | None) -> None:
        """Raises IsADirectoryError for the root and for a directory's entry."""
        if path == ROOT or (entry is not None and entry.is_directory):
            raise IsADirectoryError(errno.EISDIR, strerror(errno.EISDIR), self.url(path))

    def missing(self, path: str) -> FileNotInArchive:
        return FileNotInArchive("no such file or directory", server=str(self.client.address), path=path)

    @contextmanager
    def about(self, path: str) -> Iterator[None]:
        """Puts the path into an error, because a file id tells a reader nothing."""
        try:
            yield
        except NgasError as error:
            error.path = error.path or path
            raise

    def in_parallel(
        self, tasks: list[Any], work: Callable[..., object], done: Callable[[], object] = lambda: None
    ) -> None:
        """Calls `work(*task)` for each task on a few threads; the first exception cancels what has not begun."""
        with ThreadPoolExecutor(max(1, min(self._threads, len(tasks)))) as pool:
            futures = [pool.submit(work, *task) for task in tasks]
            try:
                for future in as_completed(futures):
                    future.result()
                    done()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _copies(self, directory: str) -> list[FileStatus]:
        """All copies of all versions of all objects in a directory."""
        prefix = naming.listing_prefix(directory)
        with self.about(directory):
            return [copy for copy in self.client.query(f"{prefix}%") if copy.file_id.startswith(prefix)]

    def _archive(self, path: str, kind: Kind, body: Path | bytes | IO[bytes], known: Entry | None) -> None:
        with self.about(path):
            if known is None:
                # First, so that the object never stands in a listing without its whole name. The path in the body lets
                # the tree be rebuilt from the archive's volumes alone.
                for name in naming.continuations(path):
                    self.client.archive(path.encode(), *name)
            self.client.archive(body, *naming.object_name(path, kind), known=known.status if known else None)


def _is_empty(content: Path | bytes | IO[bytes]) -> bool:
    if isinstance(content, bytes):
        return not content
    if isinstance(content, Path):
        return content.stat().st_size == 0
    return content.seek(0, 2) == 0
