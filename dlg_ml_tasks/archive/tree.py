"""A tree of files and directories kept in an NGAS archive; the rules of the tree, free of any file-system interface.

Every path here is canonical (see `naming.canonical`). The root always exists and has no object of its own. A file is a
plain object at an id made from its path, or a member of a pack of its directory; where there are both, the plain object
is the file. A directory is always a plain object, its marker.
"""

from __future__ import annotations

import errno
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from os import strerror
from pathlib import Path
from typing import IO, Any, NamedTuple

from dlg_ml_tasks.archive import naming
from dlg_ml_tasks.archive.address import SCHEME
from dlg_ml_tasks.archive.checksums import PREFERRED, Checksum, RunningChecksum
from dlg_ml_tasks.archive.client import NgasClient
from dlg_ml_tasks.archive.directories import KnownDirectories
from dlg_ml_tasks.archive.errors import ChecksumMismatch, FileNotInArchive, NgasError
from dlg_ml_tasks.archive.local_files import place
from dlg_ml_tasks.archive.naming import ROOT, Kind
from dlg_ml_tasks.archive.pack import Member
from dlg_ml_tasks.archive.packs import Packed, PackedDirectory, Packs, steadily
from dlg_ml_tasks.archive.reply import FileStatus

# On the real server one listing costs about as much as eight exact look-ups (20 ms and 2.4 ms at 100 000 files).
LISTING_PAYS_FROM = 8


class Entry(NamedTuple):
    """What the archive has at a path other than the root: an object of its own, or a member of the pack `status`."""

    path: str
    kind: Kind
    status: FileStatus
    member: Member | None = None

    @property
    def is_directory(self) -> bool:
        return self.kind is Kind.DIRECTORY

    @property
    def size(self) -> int:
        """Bytes of content; 0 for a directory."""
        if self.member is not None:
            return self.member.size
        return self.status.size if self.kind is Kind.FILE else 0

    @property
    def checksum(self) -> Checksum | None:
        """Checksum of the content; None for a directory, and where the archive has none."""
        if self.member is not None:
            return Checksum("crc32", self.member.crc32)
        if self.kind is Kind.FILE:
            return self.status.checksum
        return Checksum(PREFERRED, 0) if self.kind is Kind.EMPTY else None


class Contents(NamedTuple):
    """What a directory held when it was looked at: the entries with objects of their own, by name, and its packs."""

    plain: dict[str, Entry]
    packed: PackedDirectory

    def get(self, name: str) -> Entry | None:
        """What the directory holds under this name."""
        packed = self.packed.find(name) if name not in self.plain else None
        return _packed_entry(naming.join(self.packed.path, name), packed) if packed else self.plain.get(name)

    def entries(self) -> list[Entry]:
        """Every entry, by name."""
        found = {
            name: _packed_entry(naming.join(self.packed.path, name), packed)
            for name, packed in self.packed.files().items()
        }
        found.update(self.plain)
        return [found[name] for name in sorted(found)]


class NgasTree:
    """The tree in the archive of one server. Thread safe.

    threads: how many requests `in_parallel` and `remove_tree` have under way at a time.
    """

    def __init__(self, client: NgasClient, threads: int = 4) -> None:
        self.client = client
        self.directories = KnownDirectories()
        self.packs = Packs(client)
        self._threads = threads
        self._marking = threading.Lock()

    def url(self, path: str) -> str:
        return f"{SCHEME}{self.client.address}{path}"

    # --- looking ---

    def find_object(self, path: str) -> Entry | None:
        """What is at `path` outside of packs, by one exact request; None for nothing, and for the root.

        It is all that a writer has to know: what it writes comes before what packs hold.
        """
        if path == ROOT:
            return None
        with self.about(path):
            status = self.client.find(naming.file_id(path))
        return None if status is None else Entry(path, naming.kind_of(status.filename), status)

    def find(self, path: str) -> Entry | None:
        """What is at `path`; None for nothing, and for the root.

        By one exact request for an object; otherwise by two more, and a query if the directory has packs.
        """
        return self.lookup([path])[path]

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
        """By one exact request."""
        entry = self.find_object(path)
        return path == ROOT or (entry is not None and entry.is_directory)

    def contents(self, directory: str, names: Collection[str] | None = None) -> Contents:
        """What a directory holds, by one query and one request for each pack that was not seen before.

        names: the only names that matter; each of a few is asked for, lest a large directory be listed.
        Empty also if it is a file or missing.
        """
        if names is not None and len(names) < LISTING_PAYS_FROM:
            found = [self.find_object(naming.join(directory, name)) for name in names]
            with self.about(directory):
                packed = self.packs.look(directory)
            return Contents({naming.base_name(one.path): one for one in found if one is not None}, packed)
        return steadily(lambda: self._contents(directory, self.copies(directory)))

    def listing(self, directory: str) -> list[Entry]:
        """The entries of a directory by name; see `contents`."""
        return self.contents(directory).entries()

    def lookup(self, paths: Iterable[str]) -> dict[str, Entry | None]:
        """What is at each of the paths, by one listing for a directory that has many of them."""
        found: dict[str, Entry | None] = {}
        for directory, wanted in by_directory(paths).items():
            if len(wanted) < LISTING_PAYS_FROM:
                found.update((path, self.find_object(path)) for path in wanted)
                missing = [path for path in wanted if found[path] is None and path != ROOT]
                packed = self._find_packed(missing)
                found.update(packed)
                # Asked again, because an object may have come meanwhile, and the pack that it replaces have gone.
                found.update((path, self.find_object(path)) for path in missing if path not in packed)
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
            if entry.member is None:
                return self.client.read(entry.status, start, end)
            content = self.client.read(entry.status, entry.member.offset + start, entry.member.offset + end)
            if (start, end) == (0, entry.size):
                self.verify_member(entry.status, entry.member, content)
            return content

    def copy_to(self, entry: Entry, sink: IO[bytes]) -> None:
        """Writes the verified content of a file to `sink`."""
        if entry.member is not None:
            sink.write(self.read(entry, 0, entry.size))
        elif entry.kind is Kind.FILE:
            with self.about(entry.path):
                self.client.copy_to(entry.status, sink)

    def running_checksum(self, entry: Entry) -> RunningChecksum:
        """What to feed a file's bytes to, for `verify`."""
        return RunningChecksum(entry.checksum.algorithm if entry.checksum else PREFERRED)

    def verify(self, entry: Entry, received: RunningChecksum) -> None:
        """Raises ChecksumMismatch if a whole file was received with another checksum than the archive's."""
        with self.about(entry.path):
            if entry.member is None:
                self.client.verify(entry.status, received)
            else:
                self._compare(entry.status, entry.member, received.checksum.value)

    def verify_member(self, pack: FileStatus, member: Member, content: bytes) -> None:
        """Raises ChecksumMismatch if this is not the whole content of a member."""
        self._compare(pack, member, zlib.crc32(content))

    def download(self, entry: Entry, destination: Path) -> None:
        """Makes `destination` the verified content of a file; it appears, or is replaced, only when it is whole."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind is Kind.EMPTY:
            place(b"", destination)
        elif entry.member is not None:
            place(self.read(entry, 0, entry.size), destination)
        else:
            with self.about(entry.path):
                self.client.retrieve(entry.status.file_id, destination, known=entry.status)

    def check(self, path: str) -> None:
        """Makes the archive read a file and compare its checksum; raises ChecksumMismatch if it is damaged."""
        entry = self.file(path)
        with self.about(path):
            self.client.checkfile(entry.status.file_id)
        if entry.member is not None:
            self.read(entry, 0, entry.size)

    def store(self, path: str, content: Path | bytes | IO[bytes], known: Entry | None) -> None:
        """Archives `content` as an object of its own at `path` and makes its parents visible.

        known: what `find_object` says of `path` now. Raises IsADirectoryError, or NotADirectoryError if a parent is a
        file.
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
                entry = self.find_object(directory)
                if entry is None:
                    missing.append(directory)
                elif entry.is_directory:
                    self.directories.add(directory)
                else:
                    raise self._not_a_directory(directory)
                directory = naming.parent(directory)
            # Only the uppermost can be a file in a pack: the others would lie in directories that do not exist.
            if missing and self._find_packed(missing[-1:]):
                raise self._not_a_directory(missing[-1])
            for path in reversed(missing):
                self._archive(path, Kind.DIRECTORY, path.encode(), None)
                self.directories.add(path)

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
        """Calls `work(*task)` for each task on a few threads; the first exception cancels what has not begun.

        How many requests these threads really have under way is for the client's limit to say (see `limit`).
        """
        if len(tasks) == 1:
            work(*tasks[0])
            done()
            return
        with ThreadPoolExecutor(max(1, min(self._threads, len(tasks)))) as pool:
            futures = [pool.submit(work, *task) for task in tasks]
            try:
                for future in as_completed(futures):
                    future.result()
                    done()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _compare(self, pack: FileStatus, member: Member, crc32: int) -> None:
        if crc32 != member.crc32:
            raise ChecksumMismatch(
                f"received bytes with CRC-32 {crc32}, the index of the pack says {member.crc32}",
                server=str(self.client.address),
                file_id=pack.file_id,
            )

    # --- objects ---

    def copies(self, directory: str) -> list[FileStatus]:
        """All copies of all versions of all objects in a directory."""
        prefix = naming.listing_prefix(directory)
        with self.about(directory):
            return [copy for copy in self.client.query(f"{prefix}%") if copy.file_id.startswith(prefix)]

    def _contents(self, directory: str, copies: list[FileStatus]) -> Contents:
        with self.about(directory):
            return Contents(objects(directory, copies), self.packs.read(directory, copies))

    def _find_packed(self, paths: list[str]) -> dict[str, Entry]:
        """Those of the paths, all in one directory, that are files in packs."""
        if not paths:
            return {}
        directory = naming.parent(paths[0])
        with self.about(directory):
            packs = self.packs.look(directory)
        found = {path: packs.find(naming.base_name(path)) for path in paths}
        return {path: _packed_entry(path, packed) for path, packed in found.items() if packed is not None}

    def _archive(self, path: str, kind: Kind, body: Path | bytes | IO[bytes], known: Entry | None) -> None:
        with self.about(path):
            if known is None:
                # First, so that the object never stands in a listing without its whole name. The path in the body lets
                # the tree be rebuilt from the archive's volumes alone.
                for name in naming.continuations(path):
                    self.client.archive(path.encode(), *name)
            self.client.archive(body, *naming.object_name(path, kind), known=known.status if known else None)

    def _not_a_directory(self, path: str) -> NotADirectoryError:
        return NotADirectoryError(errno.ENOTDIR, strerror(errno.ENOTDIR), self.url(path))


class Glance(NgasTree):
    """A tree as it was when it was looked at: what one listing showed is not asked again. For one operation of one thread."""

    def __init__(self, tree: NgasTree) -> None:
        vars(self).update(vars(tree))
        self._listed: dict[str, dict[str, Entry]] = {}

    def listing(self, directory: str) -> list[Entry]:
        if directory not in self._listed:
            self._listed[directory] = {entry.path: entry for entry in super().listing(directory)}
        return list(self._listed[directory].values())

    def find_object(self, path: str) -> Entry | None:
        listed = self._listed.get(naming.parent(path))
        if listed is None:
            return super().find_object(path)
        entry = listed.get(path)
        return entry if entry is not None and entry.member is None else None

    def _find_packed(self, paths: list[str]) -> dict[str, Entry]:
        listed = self._listed.get(naming.parent(paths[0])) if paths else {}
        if listed is None:
            return super()._find_packed(paths)
        return {path: listed[path] for path in paths if path in listed and listed[path].member is not None}


class Unasked(NgasTree):
    """A tree that is not asked what is at `top` or below it: the caller knows that there is nothing. For one operation."""

    def __init__(self, tree: NgasTree, top: str) -> None:
        vars(self).update(vars(tree))
        self._top = top

    def find_object(self, path: str) -> Entry | None:
        return None if self._is_new(path) else super().find_object(path)

    def contents(self, directory: str, names: Collection[str] | None = None) -> Contents:
        if self._is_new(directory):
            return Contents({}, PackedDirectory(directory, (), ()))
        return super().contents(directory, names)

    def _find_packed(self, paths: list[str]) -> dict[str, Entry]:
        return super()._find_packed([path for path in paths if not self._is_new(path)])

    def _is_new(self, path: str) -> bool:
        return path == self._top or path.startswith(f"{self._top}/")


def objects(directory: str, copies: Iterable[FileStatus]) -> dict[str, Entry]:
    """The entries that have objects of their own among the copies of everything in a directory, by name."""
    latest: dict[str, FileStatus] = {}
    for copy in copies:
        held = latest.get(copy.file_id)
        if held is None or copy.version > held.version:
            latest[copy.file_id] = copy
    return {
        listed.name: Entry(naming.join(directory, listed.name), listed.kind, status)
        for listed, status in naming.listed(directory, latest.values())
    }


def by_directory(paths: Iterable[str]) -> dict[str, list[str]]:
    """The paths by the directory that holds them."""
    grouped: dict[str, list[str]] = {}
    for path in paths:
        grouped.setdefault(naming.parent(path), []).append(path)
    return grouped


def _packed_entry(path: str, packed: Packed) -> Entry:
    return Entry(path, Kind.FILE, packed.pack, packed.member)


def _is_empty(content: Path | bytes | IO[bytes]) -> bool:
    if isinstance(content, bytes):
        return not content
    if isinstance(content, Path):
        return content.stat().st_size == 0
    return content.seek(0, 2) == 0
