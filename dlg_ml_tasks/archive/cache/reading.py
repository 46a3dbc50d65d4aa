"""What an archive has, by way of local copies and of what it said before: the rules of the cache's three modes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from fsspec.callbacks import DEFAULT_CALLBACK

from dlg_ml_tasks.archive.behaviour import Info
from dlg_ml_tasks.archive.bulk import BulkDownload
from dlg_ml_tasks.archive.cache.answers import Answer
from dlg_ml_tasks.archive.cache.settings import CacheMode
from dlg_ml_tasks.archive.cache.store import CacheStore
from dlg_ml_tasks.archive.errors import (
    ArchiveOffline,
    ArchiveOverloaded,
    ArchiveUnreachable,
    FileNotInArchive,
    NgasError,
    NotInCache,
)
from dlg_ml_tasks.archive.filesystem import NgasFileSystem, directory_info, file_info
from dlg_ml_tasks.archive.naming import ROOT
from dlg_ml_tasks.archive.tree import Entry

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

UNWELL = (ArchiveUnreachable, ArchiveOverloaded, ArchiveOffline)
REST_SECONDS = 30.0  # how long an unwell archive is not asked again for what the cache has
TRIES = 3


class Located(NamedTuple):
    """What a path is. `copy`: of a file, its local copy; None for one that cannot be kept."""

    is_directory: bool
    copy: Path | None = None


DIRECTORY = Located(is_directory=True)
NOT_KEPT = Located(is_directory=False)


class CachedReads:
    """Looks and fetches, in one of the modes that `NgasCacheFileSystem` describes. Paths are canonical. Thread safe.

    time_limit: seconds that the archive has in mode prefer-cache to answer what the cache could answer too.
    """

    def __init__(self, archive: NgasFileSystem, store: CacheStore, mode: CacheMode, time_limit: float) -> None:
        self.mode = mode
        self.shelf = store.shelf(archive.archive_tree.client.address)
        self._archive = archive
        self._store = store
        self._impatient = _impatient(archive, time_limit)
        self._rests_until = 0.0  # monotonic seconds; until then an unwell archive is left alone
        self._warned: set[str] = set()

    def info(self, path: str) -> Info:
        """As the file system's, with `cached` and `stale`. Raises FileNotInArchive, or NotInCache."""
        if path == ROOT:
            return directory_info(ROOT)
        return self._ask([path], lambda fs: self._noted_info(fs, path), lambda: self._remembered_info(path))

    def is_directory(self, path: str) -> bool:
        """Raises NotInCache."""
        return self._ask([path], lambda fs: fs.isdir(path), lambda: self._was_directory(path))

    def listing(self, path: str) -> list[Info]:
        """The entries of a directory, or the one entry of a file. Raises FileNotInArchive, or NotInCache."""
        return self._ask([path], lambda fs: self._noted_listing(fs, path), lambda: self._remembered_listing(path))

    def locate(self, paths: list[str]) -> dict[str, Located]:
        """What each path is, with files fetched that are not here. Raises FileNotInArchive, or NotInCache."""
        return self._ask(
            paths,
            lambda fs: self._fetched(fs, paths),
            lambda: {path: self._remembered_copy(path) for path in paths},
        )

    def archive_to(self, do: str, path: str) -> NgasFileSystem:
        """The archive, for what cannot be done without it. Raises NotInCache when offline."""
        if self.mode is CacheMode.OFFLINE:
            raise NotInCache(
                f"cannot {do} while working offline",
                server=str(self._archive.archive_tree.client.address),
                path=path,
                remedy="Set DLG_ML_NGAS_CACHE to online, prefer-cache or off.",
            )
        return self._archive

    # --- asking the archive, or not ---

    def _ask(self, paths: list[str], question: Callable[[NgasFileSystem], T], remembered: Callable[[], T]) -> T:
        """The archive's answer to `question`, or what is `remembered` of its last one, by the rules of the mode."""
        if self.mode is CacheMode.OFFLINE:
            return remembered()
        if self.mode is CacheMode.ONLINE or any(self.shelf.answer(path) is None for path in paths):
            return question(self._archive)
        try:
            if time.monotonic() < self._rests_until:
                raise ArchiveUnreachable("the archive failed a moment ago")
            return question(self._impatient)
        except UNWELL as error:
            if time.monotonic() >= self._rests_until:
                self._rests_until = time.monotonic() + REST_SECONDS
            try:
                answer = remembered()
            except NotInCache:
                return question(self._archive)
            except FileNotFoundError:
                self._warn(paths, error)
                raise
            self._warn(paths, error)
            return answer

    def _warn(self, paths: list[str], error: NgasError) -> None:
        for path in paths:
            if path not in self._warned:
                self._warned.add(path)
                url = self._archive.unstrip_protocol(path)
                log.warning("%s: using what was last seen of it, because %s", url, error.message)

    # --- what the archive says, and is noted for later ---

    def _noted_info(self, fs: NgasFileSystem, path: str) -> Info:
        try:
            return self._marked(Answer.of(fs.info(path)), stale=False)
        except FileNotFoundError:
            self._note(self.shelf.note_missing, path)
            raise

    def _noted_listing(self, fs: NgasFileSystem, path: str) -> list[Info]:
        try:
            answers = [Answer.of(info) for info in fs.ls(path, detail=True)]
        except FileNotFoundError:
            self._note(self.shelf.note_missing, path)
            raise
        if [answer.name for answer in answers] != [path]:
            self._note(self.shelf.note_listing, path, answers)
        return [self._marked(answer, stale=False) for answer in answers]

    def _fetched(self, fs: NgasFileSystem, paths: list[str], tries: int = TRIES) -> dict[str, Located]:
        tree = fs.archive_tree
        located = {ROOT: DIRECTORY}
        wanted: list[Entry] = []
        for path, entry in tree.lookup(path for path in paths if path != ROOT).items():
            if entry is None:
                self._note(self.shelf.note_missing, path)
                raise tree.missing(path)
            if entry.is_directory:
                located[path] = DIRECTORY
            elif (copy := self.shelf.content(Answer.of(file_info(entry)))) is not None:
                located[path] = Located(is_directory=False, copy=copy)
            else:
                located[path] = NOT_KEPT
                wanted.append(entry)
        size = sum(entry.size for entry in wanted)
        if size > self._store.limit:
            return located
        try:
            copies = self._fetch(fs, wanted, size)
        except FileNotInArchive:
            # Replaced since it was looked up: the archive keeps one version of a file.
            if tries == 1:
                raise
            return self._fetched(fs, paths, tries - 1)
        return located | {path: Located(is_directory=False, copy=copy) for path, copy in copies.items()}

    def _fetch(self, fs: NgasFileSystem, wanted: list[Entry], size: int) -> dict[str, Path]:
        """Puts files into the cache, or none if the local disk does not take them."""
        answers = [Answer.of(file_info(entry)) for entry in wanted]
        try:
            self._store.make_room(size)
            places = [self.shelf.place_for(answer) for answer in answers]
            BulkDownload(fs.archive_tree, DEFAULT_CALLBACK).fetch(list(zip(wanted, places, strict=True)))
            return {answer.name: self.shelf.keep(answer) for answer in answers}
        except NgasError:
            raise
        except OSError as error:
            log.warning("files are not cached: %s", error)
            return {}

    def _note(self, note: Callable[P, None], *what: P.args, **more: P.kwargs) -> None:
        """Reading goes on where the local disk is full."""
        try:
            note(*what, **more)
        except OSError as error:
            log.warning("what the archive said is not noted for later: %s", error)

    # --- what was noted ---

    def _remembered(self, path: str) -> Answer:
        answer = self.shelf.answer(path)
        if answer is None:
            raise self._not_in_cache(path)
        if answer.type == "missing":
            raise FileNotInArchive(
                "no such file or directory when the archive was last asked",
                server=str(self._archive.archive_tree.client.address),
                path=path,
            )
        return answer

    def _remembered_info(self, path: str) -> Info:
        return self._marked(self._remembered(path), stale=True)

    def _was_directory(self, path: str) -> bool:
        answer = self.shelf.answer(path)
        if answer is None:
            raise self._not_in_cache(path)
        return answer.type == "directory"

    def _remembered_listing(self, path: str) -> list[Info]:
        listing = self.shelf.listing(path)
        if listing is not None:
            return [self._marked(entry, stale=True) for entry in listing.entries]
        answer = self._remembered(path)
        if answer.type == "directory":
            raise self._not_in_cache(path)
        return [self._marked(answer, stale=True)]

    def _remembered_copy(self, path: str) -> Located:
        answer = self._remembered(path)
        if answer.type == "directory":
            return DIRECTORY
        record = self.shelf.record(path)
        copy = self.shelf.content(record) if record is not None else None
        if copy is None:
            raise self._not_in_cache(path)
        return Located(is_directory=False, copy=copy)

    def _marked(self, answer: Answer, *, stale: bool) -> Info:
        if answer.type == "directory":
            return {**answer.info(), "stale": stale}
        return {**answer.info(), "cached": self.shelf.content_file(answer).exists(), "stale": stale}

    def _not_in_cache(self, path: str) -> NotInCache:
        return NotInCache("no copy in the cache", server=str(self._archive.archive_tree.client.address), path=path)


def _impatient(archive: NgasFileSystem, time_limit: float) -> NgasFileSystem:
    """The same archive for somebody who can do without it."""
    address = archive.archive_tree.client.address
    options = {name: value for name, value in archive.storage_options.items() if name not in ("host", "port")}
    return NgasFileSystem(address.host, address.port, **{**options, "timeout": time_limit, "patience": 0})
