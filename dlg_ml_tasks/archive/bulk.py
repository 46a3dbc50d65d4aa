"""Moves many files at once: small new ones go up in packs, and what lies in packs comes down in long stretches."""

from __future__ import annotations

import logging
import os
import stat
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dlg_ml_tasks.archive import naming
from dlg_ml_tasks.archive.errors import AccessRefused
from dlg_ml_tasks.archive.local_files import place
from dlg_ml_tasks.archive.naming import ROOT
from dlg_ml_tasks.archive.pack import INDEX_NAME, Cutter, Member, stretches
from dlg_ml_tasks.archive.packs import Packed
from dlg_ml_tasks.archive.reply import FileStatus
from dlg_ml_tasks.archive.tree import LISTING_PAYS_FROM, Entry, NgasTree, by_directory

log = logging.getLogger(__name__)

# Above this size a file alone moves nearly as fast as in a pack; below it, the request costs more than the bytes.
SMALL_BYTES = 256 << 10
PACK_BYTES = 32 << 20
PACK_FILES = 10_000
# Two members that lie further apart than this come by two requests.
GAP_BYTES = 1 << 20


# Small new files of one directory that are worth a pack: with fewer, the look at what the directory holds, the index and
# a reader's extra requests cost as much as a request per file.
PACK_FROM = 16


def pack_from(choice: str | int) -> int:
    """How many small new files of one directory are worth a pack, 0 for never, from "auto", "never" or a number.

    Raises ValueError for anything else.
    """
    if choice == "auto":
        return PACK_FROM
    if choice == "never":
        return 0
    if not str(choice).isdecimal() or int(choice) < 1:
        raise ValueError(f"{choice!r} does not say when to pack files; write auto, never, or a number of files")
    return int(choice)


class LocalFile(NamedTuple):
    """A local file or directory on its way to `path` in the archive; `size` in bytes, None for a directory."""

    source: Path
    path: str
    size: int | None

    @property
    def name(self) -> str:
        return naming.base_name(self.path)


class Plan(NamedTuple):
    """How the files of one directory go up.

    alone: each with what `NgasTree.find_object` says of its path. packs: the files of each new pack. sequence: of the new
    packs. held: how many files the archive has already, in packs. replacing: whether any of the others is in a pack.
    """

    directory: str
    alone: list[tuple[LocalFile, Entry | None]]
    packs: list[list[LocalFile]]
    sequence: int = 1
    held: int = 0
    replacing: bool = False


class BulkUpload:
    """Archives local files and directories, several at a time; what is there already is not sent.

    pack_from: how many small new files of one directory are worth a pack; 0: files are never packed.
    """

    def __init__(self, tree: NgasTree, callback: Any, pack_from: int) -> None:
        self._tree = tree
        self._progress = _Progress(callback)
        self._pack_from = pack_from

    def run(self, pairs: Iterable[tuple[Any, str]]) -> None:
        """Archives pairs of a local path and a path in the archive. Raises what `NgasTree.store` raises."""
        files = {path: _local_file(Path(source), path) for source, path in pairs}
        self._progress.begin(len(files))
        plans: list[Plan] = []
        self._tree.in_parallel(
            [(directory, [files[path] for path in paths]) for directory, paths in by_directory(files).items()],
            lambda directory, of_one: plans.append(self._plan(directory, of_one)),
        )
        self._progress.add(sum(plan.held for plan in plans))
        packs = [(plan.directory, plan.sequence, files) for plan in plans for files in plan.packs]
        self._tree.in_parallel(packs, self._send_pack)
        self._tree.in_parallel([one for plan in plans for one in plan.alone], self._send_alone)
        self._tree.in_parallel([(plan.directory,) for plan in plans if plan.replacing], self._tidy)

    # --- planning ---

    def _plan(self, directory: str, files: list[LocalFile]) -> Plan:
        if len(files) < LISTING_PAYS_FROM and not self._worth_a_pack(files):
            return Plan(directory, [(file, self._tree.find_object(file.path)) for file in files], [])
        contents = self._tree.contents(directory)
        plain, in_packs = contents.plain, contents.packed.files()
        fresh = [file for file in files if file.name in plain or not _is_held(file, in_packs.get(file.name))]
        to_pack = [file for file in fresh if _may_be_packed(file) and file.name not in plain]
        if not self._worth_a_pack(to_pack):
            to_pack = []
        apart = {file.path for file in to_pack}
        alone = [(file, plain.get(file.name)) for file in fresh if file.path not in apart]
        return Plan(
            directory,
            alone,
            _divided(to_pack),
            sequence=contents.packed.next_sequence,
            held=len(files) - len(fresh),
            replacing=any(file.name in in_packs for file in fresh),
        )

    def _worth_a_pack(self, files: list[LocalFile]) -> bool:
        return 0 < self._pack_from <= sum(_may_be_packed(file) for file in files)

    # --- sending ---

    def _send_pack(self, directory: str, sequence: int, files: list[LocalFile]) -> None:
        self._tree.make_directory(directory)
        with self._tree.about(directory):
            self._tree.packs.add(directory, sequence, [(file.name, file.source) for file in files])
        for file in files:
            with self._progress.of(file.source, file.path, file.size or 0):
                pass
        self._progress.add(len(files))

    def _send_alone(self, file: LocalFile, known: Entry | None) -> None:
        with self._progress.of(file.source, file.path, file.size or 0):
            if file.size is None:
                self._tree.make_directory(file.path)
            else:
                self._tree.store(file.path, file.source, known)
        self._progress.add(1)

    def _tidy(self, directory: str) -> None:
        """Frees the bytes of older packs all of whose files have been replaced."""
        contents = self._tree.contents(directory)
        try:
            with self._tree.about(directory):
                self._tree.packs.tidy(contents.packed, contents.plain.keys())
        except AccessRefused as error:
            # The new files are stored and are what readers get; old bytes are a matter for the operator.
            log.warning("packs of %s that are no longer needed stay in the archive: %s", directory, error)


class BulkDownload:
    """Fetches files, several at a time; those of one pack by as few requests as are worth it."""

    def __init__(self, tree: NgasTree, callback: Any) -> None:
        self._tree = tree
        self._progress = _Progress(callback)

    def run(self, pairs: list[tuple[str, Any]]) -> None:
        """Fetches pairs of a path and what it becomes: a local path, or a binary file to write to.

        A local path becomes a directory for a directory, and a file, which appears when it is whole and verified, for a
        file. Raises FileNotInArchive, before anything is fetched, ChecksumMismatch and other NgasErrors.
        """
        entries = self._tree.lookup(path for path, _ in pairs)
        for path, _ in pairs:
            if entries[path] is None and path != ROOT:
                raise self._tree.missing(path)
        self.fetch([(entries[path], target) for path, target in pairs])

    def fetch(self, wanted: list[tuple[Entry | None, Any]]) -> None:
        """Fetches exactly the entries that were looked up, None being the root; see `run`."""
        self._progress.begin(len(wanted))
        alone: list[tuple[Entry, Any]] = []
        in_packs: dict[str, _FromPack] = {}
        for entry, target in wanted:
            if entry is None or entry.is_directory:
                Path(target).mkdir(parents=True, exist_ok=True)
                self._progress.add(1)
            elif entry.member is None:
                alone.append((entry, target))
            else:
                pack = in_packs.setdefault(entry.status.file_id, _FromPack(entry.status, {}))
                pack.targets.setdefault(entry.member, []).append((entry.path, target))
        for directory in {os.path.dirname(target) for target in _paths(in_packs.values())}:  # noqa: PTH120
            Path(directory).mkdir(parents=True, exist_ok=True)
        self._tree.in_parallel(
            [(pack, members) for pack in in_packs.values() for members in stretches(pack.targets, GAP_BYTES)],
            self._fetch_packed,
        )
        self._tree.in_parallel(alone, self._fetch_alone)

    def _fetch_alone(self, entry: Entry, target: Any) -> None:
        with self._progress.of(entry.path, target, entry.size):
            if hasattr(target, "write"):
                self._tree.copy_to(entry, target)
            else:
                self._tree.download(entry, Path(target))
        self._progress.add(1)

    def _fetch_packed(self, pack: _FromPack, members: list[Member]) -> None:
        """Fetches members of one pack that lie near one another, by one request."""

        def deliver(member: Member, content: bytes) -> None:
            for path, target in pack.targets[member]:
                with self._progress.of(path, target, member.size), self._tree.about(path):
                    self._tree.verify_member(pack.status, member, content)
                    if hasattr(target, "write"):
                        target.write(content)
                    else:
                        place(content, target)
                self._progress.add(1)

        cutter = Cutter(members, deliver)
        path, _ = pack.targets[members[0]][0]
        with self._tree.about(path):
            self._tree.client.copy_range(pack.status, members[0].offset, members[-1].end, cutter.write)
        cutter.finish()


class _FromPack(NamedTuple):
    """What is wanted of one pack: for each member its path and where it goes, seldom to more than one place."""

    status: FileStatus
    targets: dict[Member, list[tuple[str, Any]]]


class _Progress:
    """An fsspec callback, which is not made for threads, told of progress by several of them."""

    def __init__(self, callback: Any) -> None:
        self._callback = callback
        self._lock = threading.Lock()

    def begin(self, files: int) -> None:
        self._callback.set_size(files)

    def add(self, files: int) -> None:
        with self._lock:
            self._callback.relative_update(files)

    @contextmanager
    def of(self, source: object, target: object, size: int) -> Iterator[None]:
        """Tells of one file, `size` bytes long, that is moved in the `with` block."""
        with self._callback.branched(str(source), str(target)) as child:
            child.set_size(size)
            yield
            child.absolute_update(size)


def _local_file(source: Path, path: str) -> LocalFile:
    found = source.stat()
    return LocalFile(source, path, None if stat.S_ISDIR(found.st_mode) else found.st_size)


def _may_be_packed(file: LocalFile) -> bool:
    return file.size is not None and file.size <= SMALL_BYTES and file.name != INDEX_NAME


def _is_held(file: LocalFile, packed: Packed | None) -> bool:
    """Whether a pack holds this file with this content."""
    if packed is None or file.size != packed.member.size:
        return False
    return zlib.crc32(file.source.read_bytes()) == packed.member.crc32


def _divided(files: list[LocalFile]) -> list[list[LocalFile]]:
    """The files for each of as many packs as it takes."""
    packs: list[list[LocalFile]] = []
    room = 0
    for file in files:
        size = file.size or 0
        if not packs or size > room or len(packs[-1]) == PACK_FILES:
            packs.append([])
            room = PACK_BYTES
        packs[-1].append(file)
        room -= size
    return packs


def _paths(packs: Iterable[_FromPack]) -> Iterator[str]:
    """The local paths among the targets."""
    for pack in packs:
        for targets in pack.targets.values():
            yield from (os.fspath(target) for _, target in targets if not hasattr(target, "write"))
