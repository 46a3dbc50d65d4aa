"""NGAS as an fsspec file system: `ngas://host:port/path`, with directories, for pandas, zarr, MLflow and everyone else."""

from __future__ import annotations

import errno
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import datetime
from os import PathLike, strerror
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple, TypeVar

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractFileSystem
from fsspec.utils import stringify_path

from dlg_ml_tasks.archive import naming
from dlg_ml_tasks.archive.address import DEFAULT_PORT, SCHEME, split_url
from dlg_ml_tasks.archive.client import NgasClient
from dlg_ml_tasks.archive.directories import KnownDirectories
from dlg_ml_tasks.archive.errors import FileNotInArchive, NgasError
from dlg_ml_tasks.archive.files import SPOOL_BYTES, NgasReader, NgasTextWriter, NgasWriter
from dlg_ml_tasks.archive.naming import ROOT, Kind
from dlg_ml_tasks.archive.reply import FileStatus

# On the real server one listing costs about as much as eight exact look-ups (20 ms and 2.4 ms at 100 000 files).
LISTING_PAYS_FROM = 8

Info = dict[str, Any]
T = TypeVar("T")


class Entry(NamedTuple):
    """What the archive has at a path."""

    path: str
    kind: Kind
    status: FileStatus


class NgasFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files and directories in an NGAS archive.

    Differences from a local file system:

    - A file is written whole and appears when it is closed; nothing appears if the `with` block raised. (`fsspec.open`
      closes what it opened in either case, for every file system; use `fs.open` to have the promise.)
    - There is no appending and no changing of parts.
    - Writing a file makes its parent directories. As on POSIX they stay when their last file goes, until `rmdir` or
      `rm(recursive=True)`. If one process removes a directory while another writes into it, the new file can be read
      by its path at once, and its directory is in its parent's listing again after a later write, at most a minute on.
    - Two processes that write one path at the same time may both succeed, and one of the two stays.

    `info` and `ls` give `name`, `size` (bytes), `type` ("file" or "directory"), `created` and `modified` (UTC),
    `checksum` (CRC-32), `version` and `file_id`; directories have no times, checksum or version.

    host, port: the server. Credentials come from DLG_ML_NGAS_USER and DLG_ML_NGAS_PASSWORD and from nowhere else.
    timeout, patience: seconds, see NgasClient.
    threads: how many files `put`, `get` and `rm` move at the same time.
    """

    protocol = "ngas"
    root_marker = ROOT
    cachable: ClassVar[bool] = True

    def __init__(
        self,
        host: str,
        port: int = DEFAULT_PORT,
        *,
        timeout: float = 60.0,
        patience: float = 30.0,
        threads: int = 4,
        **storage_options: Any,
    ) -> None:
        super().__init__(host=host, port=port, timeout=timeout, patience=patience, threads=threads, **storage_options)
        self.client = NgasClient(host, int(port), timeout, patience=patience)
        self._threads = threads
        self._directories = KnownDirectories()
        self._marking = threading.Lock()

    # --- names ---

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = stringify_path(path)
        return naming.canonical(split_url(text)[1] if text.startswith(SCHEME) else text)

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        address, _ = split_url(path)
        return {"host": address.host, "port": address.port}

    def unstrip_protocol(self, name: str) -> str:
        """The full URL of a path."""
        return f"{SCHEME}{self.client.address}{self._strip_protocol(name)}"

    @property
    def fsid(self) -> str:
        """Names the archive, whatever the options of this object."""
        return f"ngas_{self.client.address}"

    # --- looking ---

    def info(self, path: str, **_: Any) -> Info:
        """One exact request (none for the root). Raises FileNotFoundError."""
        path = self._strip_protocol(path)
        return _directory_info(ROOT) if path == ROOT else _info(self._entry(path))

    def exists(self, path: str, **_: Any) -> bool:
        """Unlike fsspec's own, raises when the server cannot say."""
        path = self._strip_protocol(path)
        return path == ROOT or self._find(path) is not None

    def isfile(self, path: str) -> bool:
        path = self._strip_protocol(path)
        entry = None if path == ROOT else self._find(path)
        return entry is not None and entry.kind is not Kind.DIRECTORY

    def isdir(self, path: str) -> bool:
        path = self._strip_protocol(path)
        if path == ROOT:
            return True
        entry = self._find(path)
        return entry is not None and entry.kind is Kind.DIRECTORY

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The entries of a directory by name, or the one entry of a file. Raises FileNotFoundError."""
        path = self._strip_protocol(path)
        entries = self._listing(path)
        if not entries and path != ROOT:
            entry = self._entry(path)
            entries = [] if entry.kind is Kind.DIRECTORY else [entry]
        return [_info(entry) for entry in entries] if detail else [entry.path for entry in entries]

    def walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True, on_error: Any = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Like fsspec's, but by default omits only what is not there: an unreachable server is not an empty archive."""
        return super().walk(path, maxdepth, topdown, on_error or _raise_unless_missing, **kwargs)  # type: ignore[no-any-return]

    def expand_path(self, path: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> list[str]:
        """Like fsspec's, but a name with `*`, `?` or `[` that exists means itself."""
        if isinstance(path, str | PathLike) and not kwargs.get("assume_literal"):
            literal = self._strip_protocol(path)
            if set("*?[") & set(literal) and self.exists(literal):
                kwargs["assume_literal"] = True
                path = [literal]
        return super().expand_path(path, recursive, maxdepth, **kwargs)  # type: ignore[no-any-return]

    def checksum(self, path: str) -> int:
        """The CRC-32 of a file. Raises FileNotFoundError, or IsADirectoryError."""
        return int(_info(self._file(path))["checksum"])

    def created(self, path: str) -> datetime | None:
        """When the present content was archived (UTC)."""
        return self._file(path).status.created

    def modified(self, path: str) -> datetime | None:
        """When the present content was archived (UTC)."""
        return self._file(path).status.ingested

    # --- reading ---

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Content, or bytes `start` to `end`, which may be negative as in slices. A whole file is verified."""
        entry = self._file(path)
        first, last, _step = slice(start, end).indices(_size(entry))
        with self._naming(entry.path):
            return self.client.read(entry.status, first, last) if last > first else b""

    def get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **_: Any) -> None:
        """Downloads one file, verified; `lpath` (a path or a writable binary file) appears only when it is whole."""
        rpath = self._strip_protocol(rpath)
        self._get(rpath, None if rpath == ROOT else self._entry(rpath), lpath, callback)

    def get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **_: Any,
    ) -> None:
        """Downloads files and trees, several at a time, by fsspec's rules for what goes where."""
        plan = _Plan(self)
        AbstractFileSystem.get(plan, rpath, lpath, recursive=recursive, maxdepth=maxdepth)
        wanted = [(self._strip_protocol(remote), local) for remote, local in plan.pairs]
        entries = self._lookup(remote for remote, _ in wanted)

        def get_one(remote: str, local: Any, child: Any) -> None:
            if remote != ROOT and entries[remote] is None:
                raise self._missing(remote)
            self._get(remote, entries.get(remote), local, child)

        self._transfer(wanted, get_one, callback)

    # --- writing ---

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Archives bytes; mode "create" raises FileExistsError if the path exists."""
        path = self._strip_protocol(path)
        if mode == "create" and self.exists(path):
            raise FileExistsError(errno.EEXIST, strerror(errno.EEXIST), self.unstrip_protocol(path))
        self._store(path, bytes(value), self._find(path))

    def put_file(self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, **_: Any) -> None:
        """Archives one local file, or makes a directory for a local directory."""
        rpath = self._strip_protocol(rpath)
        self._put(lpath, rpath, self._find(rpath), callback)

    def put(
        self,
        lpath: Any,
        rpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **_: Any,
    ) -> None:
        """Archives files and trees, several at a time, by fsspec's rules for what goes where.

        Many files in one directory cost about one request each: what is there already is asked once.
        """
        plan = _Plan(self)
        AbstractFileSystem.put(plan, lpath, rpath, recursive=recursive, maxdepth=maxdepth)
        wanted = [(self._strip_protocol(remote), local) for local, remote in plan.pairs]
        entries = self._lookup(remote for remote, local in wanted if not Path(local).is_dir())

        def put_one(remote: str, local: Any, child: Any) -> None:
            self._put(local, remote, entries.get(remote), child)

        self._transfer(wanted, put_one, callback)

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        """Modes r, w and x, binary or text. Not a: what is archived does not change.

        Raises NotImplementedError for `compression` when writing; `fsspec.open` does that.
        """
        writing = "r" not in mode
        if writing and kwargs.get("compression") is not None:
            raise NotImplementedError("write compressed files with fsspec.open(url, compression=...)")
        if writing and "b" not in mode:
            text = {name: kwargs.pop(name) for name in ("encoding", "errors", "newline") if name in kwargs}
            return NgasTextWriter(super().open(path, f"{mode.replace('t', '')}b", **kwargs), **text)
        return super().open(path, mode, **kwargs)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> NgasReader | NgasWriter:
        if mode == "rb":
            entry = self._file(path)
            return NgasReader(
                self,
                self.client,
                entry.status,
                _info(entry),
                block_size=block_size,
                cache_options=cache_options,
                **kwargs,
            )
        if mode not in ("wb", "xb"):
            raise ValueError(f"mode {mode!r}: a file in the archive can be read (rb) or written whole (wb, xb)")
        entry_now = self._find(path)
        if mode == "xb" and entry_now is not None:
            raise FileExistsError(errno.EEXIST, strerror(errno.EEXIST), self.unstrip_protocol(path))
        self._refuse_directory(path, entry_now)
        return NgasWriter(path, lambda content: self._store(path, content, self._find(path)), autocommit=autocommit)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copies a file by way of this machine, or makes a directory for a directory."""
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        if path1 == ROOT:
            return
        entry = self._entry(path1)
        if entry.kind is Kind.DIRECTORY:
            self.makedirs(path2, exist_ok=True)
            return
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
            self._read_into(entry, spool)  # type: ignore[arg-type]  # an IO[bytes] in all but name
            self._store(path2, spool, self._find(path2))  # type: ignore[arg-type]

    # --- directories ---

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Makes a directory. Raises FileExistsError, or FileNotFoundError for a missing parent if not create_parents."""
        path = self._strip_protocol(path)
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, strerror(errno.EEXIST), self.unstrip_protocol(path))
        if not create_parents and not self.isdir(naming.parent(path)):
            raise self._missing(naming.parent(path))
        self._make_visible(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Makes a directory and its parents. Raises FileExistsError unless exist_ok, NotADirectoryError on a file."""
        path = self._strip_protocol(path)
        if not exist_ok and self.exists(path):
            raise FileExistsError(errno.EEXIST, strerror(errno.EEXIST), self.unstrip_protocol(path))
        self._make_visible(path)

    def rmdir(self, path: str) -> None:
        """Removes an empty directory. Raises FileNotFoundError, NotADirectoryError, or OSError if it is not empty."""
        path = self._strip_protocol(path)
        if path == ROOT:
            raise OSError(errno.EBUSY, "the root directory cannot be removed", self.unstrip_protocol(path))
        entry = self._entry(path)
        if entry.kind is not Kind.DIRECTORY:
            raise NotADirectoryError(errno.ENOTDIR, strerror(errno.ENOTDIR), self.unstrip_protocol(path))
        if self._listing(path):
            raise OSError(errno.ENOTEMPTY, strerror(errno.ENOTEMPTY), self.unstrip_protocol(path))
        self._remove(entry.path)

    def rm_file(self, path: str) -> None:
        """Removes one file, with all its versions. Raises FileNotFoundError, or IsADirectoryError."""
        self._remove(self._file(path).path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Removes files, and with `recursive` directories with everything in them. Raises FileNotFoundError."""
        if maxdepth is not None:
            super().rm(path, recursive, maxdepth)
            return
        for one in path if isinstance(path, list) else [path]:
            for target in self.expand_path(one):
                if not recursive:
                    self.rm_file(target)
                elif target == ROOT or self._entry(target).kind is Kind.DIRECTORY:
                    self._remove_tree(target)
                else:
                    self._remove(target)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forgets which directories were seen; listings are never cached."""
        self._directories.forget(None if path is None else self._strip_protocol(path))
        super().invalidate_cache(path)

    # --- how ---

    def _find(self, path: str) -> Entry | None:
        with self._naming(path):
            status = self.client.find(naming.file_id(path))
        return None if status is None else Entry(path, naming.kind_of(status.filename), status)

    def _entry(self, path: str) -> Entry:
        entry = self._find(path)
        if entry is None:
            raise self._missing(path)
        return entry

    def _file(self, path: str) -> Entry:
        path = self._strip_protocol(path)
        self._refuse_directory(path, None)
        entry = self._entry(path)
        self._refuse_directory(path, entry)
        return entry

    def _listing(self, directory: str) -> list[Entry]:
        """The entries of a directory by name; empty also if it is a file or missing."""
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

    def _copies(self, directory: str) -> list[FileStatus]:
        """All copies of all versions of all objects in a directory."""
        prefix = naming.listing_prefix(directory)
        with self._naming(directory):
            return [copy for copy in self.client.query(f"{prefix}%") if copy.file_id.startswith(prefix)]

    def _lookup(self, paths: Iterable[str]) -> dict[str, Entry | None]:
        """What is at each of the paths, by one listing for a directory with many of them."""
        by_directory: dict[str, list[str]] = {}
        for path in paths:
            by_directory.setdefault(naming.parent(path), []).append(path)
        found: dict[str, Entry | None] = {}
        for directory, wanted in by_directory.items():
            if len(wanted) < LISTING_PAYS_FROM:
                found.update((path, self._find(path)) for path in wanted if path != ROOT)
            else:
                present = {entry.path: entry for entry in self._listing(directory)}
                found.update((path, present.get(path)) for path in wanted)
        return found

    def _get(self, path: str, entry: Entry | None, lpath: Any, callback: Any) -> None:
        if entry is None or entry.kind is Kind.DIRECTORY:
            Path(lpath).mkdir(parents=True, exist_ok=True)
            return
        callback.set_size(_size(entry))
        if hasattr(lpath, "write"):
            self._read_into(entry, lpath)
        else:
            local = Path(lpath)
            local.parent.mkdir(parents=True, exist_ok=True)
            with self._naming(path):
                self.client.retrieve(entry.status.file_id, local, known=entry.status)
            if entry.kind is Kind.EMPTY:
                local.write_bytes(b"")
        callback.absolute_update(_size(entry))

    def _read_into(self, entry: Entry, sink: IO[bytes]) -> None:
        if entry.kind is not Kind.EMPTY:
            with self._naming(entry.path):
                self.client.copy_to(entry.status, sink)

    def _put(self, lpath: Any, path: str, entry: Entry | None, callback: Any) -> None:
        local = Path(lpath)
        if local.is_dir():
            self._make_visible(path)
            return
        size = local.stat().st_size
        callback.set_size(size)
        self._store(path, local if size else b"", entry)
        callback.absolute_update(size)

    def _store(self, path: str, content: Path | bytes | IO[bytes], entry: Entry | None) -> None:
        """Archives `content` at `path`, where `entry` is now."""
        self._refuse_directory(path, entry)
        self._make_visible(naming.parent(path))
        if _is_empty(content):
            self._archive(path, Kind.EMPTY, naming.EMPTY_BODY, entry)
        else:
            self._archive(path, Kind.FILE, content, entry)

    def _archive(self, path: str, kind: Kind, body: Path | bytes | IO[bytes], entry: Entry | None) -> None:
        with self._naming(path):
            if entry is None:
                # First, so that the object never stands in a listing without its whole name. The path in the body lets
                # the tree be rebuilt from the archive's volumes alone.
                for name in naming.continuations(path):
                    self.client.archive(path.encode(), *name)
            name = naming.object_name(path, kind)
            self.client.archive(body, *name, known=entry.status if entry else None)

    def _make_visible(self, directory: str) -> None:
        """Makes sure that `directory` and its parents are in the listings of theirs.

        A directory's marker is written after its parents', so that finding one ends the search.
        """
        if directory == ROOT or directory in self._directories:
            return
        with self._marking:
            missing: list[str] = []
            while directory != ROOT and directory not in self._directories:
                entry = self._find(directory)
                if entry is None:
                    missing.append(directory)
                elif entry.kind is Kind.DIRECTORY:
                    self._directories.add(directory)
                else:
                    raise NotADirectoryError(errno.ENOTDIR, strerror(errno.ENOTDIR), self.unstrip_protocol(directory))
                directory = naming.parent(directory)
            for path in reversed(missing):
                self._archive(path, Kind.DIRECTORY, path.encode(), None)
                self._directories.add(path)

    def _remove(self, path: str) -> None:
        self._directories.forget(path)
        with self._naming(path):
            self.client.delete(naming.file_id(path))
            for name in naming.continuations(path):
                if self.client.find(name.file_id) is not None:
                    self.client.delete(name.file_id)

    def _remove_tree(self, directory: str) -> None:
        """Removes what is in a directory, then the directory, so that a removal cut short can be run again."""
        self._directories.forget(directory)
        for entry in self._listing(directory):
            if entry.kind is Kind.DIRECTORY:
                self._remove_tree(entry.path)
        by_file: dict[str, list[FileStatus]] = {}
        for copy in self._copies(directory):
            by_file.setdefault(copy.file_id, []).append(copy)
        with self._naming(directory):
            self._in_parallel([(copies,) for copies in by_file.values()], self.client.discard_all)
        if directory != ROOT:
            self._remove(directory)

    def _transfer(self, wanted: list[tuple[str, Any]], move: Callable[[str, Any, Any], None], callback: Any) -> None:
        """Moves (remote, local) pairs in parallel, with fsspec's progress callback: one step for each pair."""
        callback.set_size(len(wanted))

        def move_one(remote: str, local: Any) -> None:
            with callback.branched(str(local), remote) as child:
                move(remote, local, child)

        self._in_parallel(wanted, move_one, callback.relative_update)

    def _in_parallel(
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

    def _refuse_directory(self, path: str, entry: Entry | None) -> None:
        if path == ROOT or (entry is not None and entry.kind is Kind.DIRECTORY):
            raise IsADirectoryError(errno.EISDIR, strerror(errno.EISDIR), self.unstrip_protocol(path))

    def _missing(self, path: str) -> FileNotInArchive:
        return FileNotInArchive("no such file or directory", server=str(self.client.address), path=path)

    @contextmanager
    def _naming(self, path: str) -> Iterator[None]:
        """Puts the path into an error, because a file id tells a reader nothing."""
        try:
            yield
        except NgasError as error:
            error.path = error.path or path
            raise


class _Plan:
    """Stands in for the file system while fsspec works out which file goes where, and takes down the pairs."""

    def __init__(self, fs: NgasFileSystem) -> None:
        self._fs = fs
        self.pairs: list[tuple[Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)

    def put_file(self, lpath: Any, rpath: Any, **_: Any) -> None:
        self.pairs.append((lpath, rpath))

    get_file = put_file


def _size(entry: Entry) -> int:
    return entry.status.size if entry.kind is Kind.FILE else 0


def _info(entry: Entry) -> Info:
    if entry.kind is Kind.DIRECTORY:
        return _directory_info(entry.path)
    status = entry.status
    return {
        "name": entry.path,
        "size": _size(entry),
        "type": "file",
        "created": status.created,
        "modified": status.ingested,
        "checksum": status.checksum if entry.kind is Kind.FILE else 0,
        "version": status.version,
        "file_id": status.file_id,
    }


def _directory_info(path: str) -> Info:
    return {"name": path, "size": 0, "type": "directory", "created": None, "checksum": None}


def _is_empty(content: Path | bytes | IO[bytes]) -> bool:
    if isinstance(content, bytes):
        return not content
    if isinstance(content, Path):
        return content.stat().st_size == 0
    return content.seek(0, 2) == 0


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
