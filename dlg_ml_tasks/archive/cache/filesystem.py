"""The cache as a file system before an NGAS archive: reads come from verified local copies, writes go to the archive."""

from __future__ import annotations

import errno
import io
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.implementations.cached import SimpleCacheFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from fsspec.transaction import Transaction

from dlg_ml_tasks.archive.behaviour import ArchiveBehaviour, Info, TransferPlan
from dlg_ml_tasks.archive.cache.reading import NOT_KEPT, CachedReads, Located
from dlg_ml_tasks.archive.cache.settings import CacheMode, cache_settings
from dlg_ml_tasks.archive.cache.store import CacheStore
from dlg_ml_tasks.archive.filesystem import NgasFileSystem
from dlg_ml_tasks.archive.naming import ROOT

TRIES = 3
COPY_BYTES = 1 << 20


class NgasCacheFileSystem(ArchiveBehaviour, SimpleCacheFileSystem):  # type: ignore[misc]  # fsspec has no types
    """`ngascache::ngas://host:port/path`: whole files are fetched once, verified, and read from local copies.

    A copy belongs to one file id, version and checksum. Modes:

    - online: each file is asked for with one STATUS when it is opened; the copy serves if it is what the archive has.
    - prefer-cache: the same, but where the archive is unreachable, overloaded or silent for `time_limit` seconds, what
      was last seen serves, with one warning per file; the archive is then left alone for 30 seconds. What the cache
      does not have is asked for with the archive's usual patience.
    - offline: the network is never touched. Answers are the last ones that the archive gave through this cache: files
      by their copies, directories by their last listing, missing files if they were missing then. Anything else raises
      NotInCache, `exists` too: a cache cannot know what it never saw.

    `info` and `ls` add `cached` (this version is here) and `stale` (the archive was not asked). Files larger than the
    cache are read from the archive each time. Writes and removals go to the archive at once, the copy is dropped; they
    raise NotInCache when offline. Local copies are read-only; `get` makes independent ones.

    target_protocol, target_options, fs: the archive, as in every chained file system of fsspec.
    cache_mode, cache_storage, limit: by default from the environment, see `cache_settings`; without a mode there, online.
    (Not `mode`, which fsspec would take for that of `open`.)
    """

    protocol = "ngascache"
    local_file = True
    transaction_type = Transaction

    # fsspec's caches send every method that they do not list to the remote file system. Here one that was overlooked
    # must not reach the network behind the cache's back.
    __getattribute__ = object.__getattribute__
    # Theirs wants all content in the cache; this goes by way of `open`.
    cat_ranges = AbstractFileSystem.cat_ranges
    # Theirs does not compare the modes.
    __eq__ = AbstractFileSystem.__eq__
    __hash__ = AbstractFileSystem.__hash__

    def __init__(
        self,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        fs: NgasFileSystem | None = None,
        *,
        cache_mode: str | None = None,
        cache_storage: str | None = None,
        limit: int | None = None,
        time_limit: float = 5.0,
        **options: Any,
    ) -> None:
        settings = cache_settings()
        self._store = CacheStore(Path(cache_storage or settings.folder), limit or settings.limit)
        super().__init__(
            target_protocol=target_protocol,
            target_options=target_options,
            fs=fs,
            cache_storage=os.fspath(self._store.folder),
            cache_storage_mode=0o700,
            **options,
        )
        if not isinstance(self.fs, NgasFileSystem):
            raise ValueError(f"ngascache is for ngas:// URLs, not for {self.target_protocol}")
        self.root_marker = ROOT
        self.mode = CacheMode(cache_mode) if cache_mode else settings.mode or CacheMode.ONLINE
        self._reads = CachedReads(self.fs, self._store, self.mode, time_limit)
        self._shelf = self._reads.shelf

    # --- names ---

    def unstrip_protocol(self, name: str) -> str:
        return str(self.fs.unstrip_protocol(name))

    @property
    def fsid(self) -> str:
        return str(self.fs.fsid)

    # --- looking ---

    def info(self, path: str, **_: Any) -> Info:
        """One STATUS, or none when offline. Raises FileNotFoundError, or NotInCache."""
        return self._reads.info(self._strip_protocol(path))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The entries of a directory by name, or the one entry of a file. Raises FileNotFoundError, or NotInCache."""
        infos = self._reads.listing(self._strip_protocol(path))
        return infos if detail else [info["name"] for info in infos]

    def isdir(self, path: str) -> bool:
        """One exact request: directories are never in packs. Raises NotInCache."""
        return self._reads.is_directory(self._strip_protocol(path))

    def checksum(self, path: str) -> str | None:
        """The checksum of a file as in `info`. Raises FileNotFoundError, or NotInCache."""
        checksum: str | None = self.info(path)["checksum"]
        return checksum

    def created(self, path: str) -> datetime | None:
        """When the present content of a file was made in the archive (UTC)."""
        created: datetime | None = self.info(path)["created"]
        return created

    def modified(self, path: str) -> datetime | None:
        """When the present content of a file was archived (UTC)."""
        modified: datetime | None = self.info(path)["modified"]
        return modified

    def ukey(self, path: str) -> str:
        """As the archive's: see there."""
        key: str = self.info(path)["ukey"]
        return key

    # --- reading ---

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        path = self._strip_protocol(path)
        if mode != "rb":
            archive = self._reads.archive_to("write", path)
            self._shelf.forget(path)
            return archive._open(path, mode, **options)
        return self._open_located(path, self._reads.locate([path])[path], **options)

    def _open_located(self, path: str, located: Located, **options: Any) -> Any:
        for _ in range(TRIES):
            if located.is_directory:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.unstrip_protocol(path))
            if located.copy is None:
                break
            with suppress(FileNotFoundError):
                return LocalFileSystem().open(located.copy, "rb")
            # Another process needed the room.
            located = self._reads.locate([path])[path]
        return self._reads.archive_to("read", path)._open(path, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Content, or bytes `start` to `end`, which may be negative as in slices."""
        with self.open(path) as file:
            first, last, _step = slice(start, end).indices(file.seek(0, io.SEEK_END))
            file.seek(first)
            content: bytes = file.read(max(0, last - first))
            return content

    def open_many(self, open_files: Any, **options: Any) -> list[Any]:
        """For fsspec.open_files: what is not here is fetched at once, several files at a time."""
        paths = [self._strip_protocol(file.path) for file in open_files]
        if "r" not in open_files.mode:
            return [self.open(path, open_files.mode, **options) for path in paths]
        located = self._reads.locate(paths)
        return [self._open_located(path, located[path]) for path in paths]

    def commit_many(self, open_files: Any) -> None:
        for file in open_files:
            file.close()

    def get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **_: Any) -> None:
        """Makes a local copy of one file; `lpath` (a path, or a writable binary file) appears only when it is whole."""
        rpath = self._strip_protocol(rpath)
        located = self._reads.locate([rpath])[rpath]
        if located.copy is None and not located.is_directory:
            self._reads.archive_to("read", rpath).get_file(rpath, lpath, callback=callback)
        else:
            self._deliver(rpath, located, lpath, callback)

    def get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **_: Any,
    ) -> None:
        """Makes local copies of files and trees, by fsspec's rules for what goes where."""
        wanted = TransferPlan.of_get(self, rpath, lpath, recursive=recursive, maxdepth=maxdepth)
        located = self._reads.locate([remote for remote, _ in wanted])
        here = [(remote, local) for remote, local in wanted if located[remote] != NOT_KEPT]
        not_kept = [(remote, local) for remote, local in wanted if located[remote] == NOT_KEPT]

        callback.set_size(len(wanted))
        for remote, local in here:
            with callback.branched(remote, str(local)) as child:
                self._deliver(remote, located[remote], local, child)
            callback.relative_update()
        if not_kept:
            self._reads.archive_to("read", not_kept[0][0]).get(
                [r for r, _ in not_kept], [local for _, local in not_kept]
            )
            callback.relative_update(len(not_kept))

    def _deliver(self, path: str, located: Located, target: Any, callback: Any) -> None:
        """Makes an independent local copy of what was located."""
        if located.is_directory:
            Path(target).mkdir(parents=True, exist_ok=True)
            return
        with self._open_located(path, located) as source:
            callback.set_size(source.size)
            if hasattr(target, "write"):
                shutil.copyfileobj(source, target, COPY_BYTES)
            else:
                _write_whole(source, Path(target))
            callback.absolute_update(source.size)

    # --- writing: the archive does it, the cache forgets ---

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        path = self._strip_protocol(path)
        self._change(path, lambda archive: archive.pipe_file(path, value, mode, **options))

    def pipe(self, path: Any, value: bytes | None = None, **options: Any) -> None:
        AbstractFileSystem.pipe(self, path, value, **options)

    def put_file(self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, **options: Any) -> None:
        rpath = self._strip_protocol(rpath)
        self._change(rpath, lambda archive: archive.put_file(lpath, rpath, callback=callback, **options))

    def put(
        self,
        lpath: Any,
        rpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **options: Any,
    ) -> None:
        archive = self._reads.archive_to("write", str(rpath))
        pairs = TransferPlan.of_put(archive, lpath, rpath, recursive=recursive, maxdepth=maxdepth)
        try:
            archive.put([local for local, _ in pairs], [remote for _, remote in pairs], callback=callback, **options)
        finally:
            for _, remote in pairs:
                self._shelf.forget(remote)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        path2 = self._strip_protocol(path2)
        self._change(path2, lambda archive: archive.cp_file(path1, path2, **options))

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **options: Any) -> None:
        archive = self._reads.archive_to("move", str(path1))
        pairs = TransferPlan.of_copy(archive, path1, path2, recursive=recursive, maxdepth=maxdepth)
        try:
            archive.mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **options)
        finally:
            for path in {path for pair in pairs for path in pair}:
                self._shelf.forget(path)

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        path = self._strip_protocol(path)
        self._change(path, lambda archive: archive.mkdir(path, create_parents, **options))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        path = self._strip_protocol(path)
        self._change(path, lambda archive: archive.makedirs(path, exist_ok))

    def rmdir(self, path: str) -> None:
        path = self._strip_protocol(path)
        self._change(path, lambda archive: archive.rmdir(path))

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)
        self._change(path, lambda archive: archive.rm_file(path))

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        archive = self._reads.archive_to("remove", str(path))
        targets = [
            target for one in (path if isinstance(path, list) else [path]) for target in archive.expand_path(one)
        ]
        try:
            archive.rm(path, recursive=recursive, maxdepth=maxdepth)
        finally:
            for target in targets:
                (self._shelf.forget_tree if recursive else self._shelf.forget)(target)

    def check(self, path: str) -> None:
        """Make the archive read a file and compare its checksum. Raises ChecksumMismatch if it is damaged."""
        self._reads.archive_to("check", path).check(path)

    def invalidate_cache(self, path: str | None = None) -> None:
        self.fs.invalidate_cache(path)

    def _change(self, path: str, change: Callable[[NgasFileSystem], None]) -> None:
        archive = self._reads.archive_to("write", path)
        try:
            change(archive)
        finally:
            self._shelf.forget(path)

    # --- the verbs of fsspec's caches ---

    def clear_cache(self) -> None:
        """Empties the cache, for all archives."""
        self._store.clear()

    def clear_expired_cache(self, expiry_time: float) -> None:
        """Removes what was not used for `expiry_time` seconds."""
        self._store.clear(timedelta(seconds=expiry_time))

    def pop_from_cache(self, path: str) -> None:
        """Removes the copy of one file."""
        self._shelf.forget(self._strip_protocol(path))

    def cache_size(self) -> int:
        """Bytes of all copies, for all archives."""
        return self._store.used()


def _write_whole(source: IO[bytes], target: Path) -> None:
    """Copies to a new file that appears, or replaces an older one, only when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".ngas-{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as sink:
            shutil.copyfileobj(source, sink, COPY_BYTES)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
