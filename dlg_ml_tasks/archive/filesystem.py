"""NGAS as an fsspec file system: `ngas://host:port/path`, with directories, for pandas, zarr, MLflow and everyone else."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from datetime import datetime
from os import PathLike, strerror
from pathlib import Path
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractFileSystem
from fsspec.utils import stringify_path

from dlg_ml_tasks.archive import naming
from dlg_ml_tasks.archive.address import DEFAULT_PORT, SCHEME, split_url
from dlg_ml_tasks.archive.client import NgasClient
from dlg_ml_tasks.archive.files import SPOOL_BYTES, NgasReader, NgasTextWriter, NgasWriter
from dlg_ml_tasks.archive.naming import ROOT
from dlg_ml_tasks.archive.tree import Entry, NgasTree

Info = dict[str, Any]


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
    - As everywhere in fsspec, `*`, `?` and `[` are patterns for the methods that take many paths (`get`, `put`, `cat`,
      `rm`), unless a file of exactly that name exists; `get_file`, `put_file`, `cat_file`, `rm_file` and `open` are
      literal.

    `info` and `ls` give `name`, `size` (bytes), `type` ("file" or "directory"), `created` and `modified` (UTC),
    `checksum` (CRC-32), `version` and `file_id`; directories have no times, checksum or version.

    host, port: the server. Credentials come from DLG_ML_NGAS_USER and DLG_ML_NGAS_PASSWORD and from nowhere else.
    timeout, patience: seconds, see NgasClient.
    threads: how many files `put`, `get`, `mv` and `rm` work on at the same time.
    """

    protocol = "ngas"
    root_marker = ROOT

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
        self._tree = NgasTree(NgasClient(host, int(port), timeout, patience=patience), threads)

    # --- names ---

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = stringify_path(path)
        return naming.canonical(split_url(text)[1] if text.startswith(SCHEME) else text)

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        if not path.startswith(SCHEME):
            return {}
        address, _ = split_url(path)
        return {"host": address.host, "port": address.port}

    def unstrip_protocol(self, name: str) -> str:
        """The full URL of a path."""
        return self._tree.url(self._strip_protocol(name))

    @property
    def fsid(self) -> str:
        """Names the archive, whatever the options of this object."""
        return f"ngas_{self._tree.client.address}"

    # --- looking ---

    def info(self, path: str, **_: Any) -> Info:
        """One exact request (none for the root). Raises FileNotFoundError."""
        path = self._strip_protocol(path)
        return _directory_info(ROOT) if path == ROOT else _info(self._tree.entry(path))

    def exists(self, path: str, **_: Any) -> bool:
        """Unlike fsspec's own, this and `isfile` and `isdir` raise when the server cannot say."""
        path = self._strip_protocol(path)
        return path == ROOT or self._tree.find(path) is not None

    def isfile(self, path: str) -> bool:
        entry = self._tree.find(self._strip_protocol(path))
        return entry is not None and not entry.is_directory

    def isdir(self, path: str) -> bool:
        return self._tree.is_directory(self._strip_protocol(path))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The entries of a directory by name, or the one entry of a file. Raises FileNotFoundError."""
        path = self._strip_protocol(path)
        entries = self._tree.listing(path)
        if not entries and path != ROOT:
            entry = self._tree.entry(path)
            entries = [] if entry.is_directory else [entry]
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

    def checksum(self, path: str) -> int | None:
        """The CRC-32 of a file, None where the archive has none. Raises FileNotFoundError, or IsADirectoryError."""
        return self._tree.file(self._strip_protocol(path)).checksum

    def created(self, path: str) -> datetime | None:
        """When the present content of a file was made in the archive (UTC)."""
        return self._tree.file(self._strip_protocol(path)).status.created

    def modified(self, path: str) -> datetime | None:
        """When the present content of a file was archived (UTC)."""
        return self._tree.file(self._strip_protocol(path)).status.ingested

    def check(self, path: str) -> None:
        """Make the archive read a file and compare its checksum. Raises ChecksumMismatch if it is damaged."""
        self._tree.check(self._strip_protocol(path))

    # --- reading ---

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Content, or bytes `start` to `end`, which may be negative as in slices. A whole file is verified."""
        entry = self._tree.file(self._strip_protocol(path))
        first, last, _step = slice(start, end).indices(entry.size)
        return self._tree.read(entry, first, last)

    def get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **_: Any) -> None:
        """Downloads one file, verified; `lpath` (a path, or a writable binary file) appears only when it is whole."""
        rpath = self._strip_protocol(rpath)
        self._get(None if rpath == ROOT else self._tree.entry(rpath), lpath, callback)

    def get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **_: Any,
    ) -> None:
        """Downloads files and trees, several at a time, by fsspec's rules for what goes where.

        Many files of one directory cost about one request each: what is there is asked once.
        """
        plan = _Plan(self)
        AbstractFileSystem.get(plan, rpath, lpath, recursive=recursive, maxdepth=maxdepth)
        wanted = [(self._strip_protocol(remote), local) for remote, local in plan.pairs]
        entries = self._tree.lookup(remote for remote, _ in wanted)

        def get_one(remote: str, local: Any) -> None:
            entry = entries[remote]
            if entry is None and remote != ROOT:
                raise self._tree.missing(remote)
            with callback.branched(remote, str(local)) as child:
                self._get(entry, local, child)

        callback.set_size(len(wanted))
        self._tree.in_parallel(wanted, get_one, callback.relative_update)

    def _get(self, entry: Entry | None, lpath: Any, callback: Any) -> None:
        """Downloads what `entry` is, None being the root."""
        if entry is None or entry.is_directory:
            Path(lpath).mkdir(parents=True, exist_ok=True)
            return
        callback.set_size(entry.size)
        if hasattr(lpath, "write"):
            self._tree.copy_to(entry, lpath)
        else:
            self._tree.download(entry, Path(lpath))
        callback.absolute_update(entry.size)

    # --- writing ---

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Archives bytes; mode "create" raises FileExistsError if the path exists."""
        path = self._strip_protocol(path)
        known = self._tree.find(path)
        if mode == "create" and known is not None:
            raise self._exists_already(path)
        self._tree.store(path, bytes(value), known)

    def put_file(self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, **_: Any) -> None:
        """Archives one local file, or makes a directory for a local directory."""
        rpath = self._strip_protocol(rpath)
        self._put(Path(lpath), rpath, self._tree.find(rpath), callback)

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
        wanted = [(Path(local), self._strip_protocol(remote)) for local, remote in plan.pairs]
        entries = self._tree.lookup(remote for _, remote in wanted)

        def put_one(local: Path, remote: str) -> None:
            with callback.branched(str(local), remote) as child:
                self._put(local, remote, entries[remote], child)

        callback.set_size(len(wanted))
        self._tree.in_parallel(wanted, put_one, callback.relative_update)

    def _put(self, local: Path, path: str, known: Entry | None, callback: Any) -> None:
        if local.is_dir():
            self._tree.make_directory(path)
            return
        size = local.stat().st_size
        callback.set_size(size)
        self._tree.store(path, local, known)
        callback.absolute_update(size)

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
            entry = self._tree.file(path)
            return NgasReader(
                self, self._tree, entry, _info(entry), block_size=block_size, cache_options=cache_options, **kwargs
            )
        if mode not in ("wb", "xb"):
            raise ValueError(f"mode {mode!r}: a file in the archive can be read (rb) or written whole (wb, xb)")
        known = self._tree.find(path)
        if mode == "xb" and known is not None:
            raise self._exists_already(path)
        self._tree.refuse_directory(path, known)
        # Asked again on closing: the file may be written over hours.
        return NgasWriter(
            path, lambda content: self._tree.store(path, content, self._tree.find(path)), autocommit=autocommit
        )

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copies a file by way of this machine, or makes a directory for a directory."""
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        if self._tree.is_directory(path1):
            self._tree.make_directory(path2)
            return
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
            self._tree.copy_to(self._tree.file(path1), spool)
            self._tree.store(path2, spool, self._tree.find(path2))

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **_: Any) -> None:
        """Copies, then removes the source; onto itself it does nothing.

        Raises ValueError for a directory moved into itself.
        """
        plan = _Plan(self)
        AbstractFileSystem.copy(plan, path1, path2, recursive=recursive, maxdepth=maxdepth, on_error="raise")
        pairs = [(self._strip_protocol(source), self._strip_protocol(target)) for source, target in plan.pairs]
        if any(target == source for source, target in pairs):
            return
        for source, target in pairs:
            if target.startswith(f"{source}/"):
                raise ValueError(f"cannot move {source} into itself, to {target}")
        self._tree.in_parallel(pairs, self.cp_file)
        self.rm(path1, recursive=recursive, maxdepth=maxdepth)

    # --- directories ---

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Makes a directory. Raises FileExistsError, or FileNotFoundError for a missing parent if not create_parents."""
        path = self._strip_protocol(path)
        if not create_parents and not self._tree.is_directory(naming.parent(path)):
            raise self._tree.missing(naming.parent(path))
        self.makedirs(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Makes a directory and its parents. Raises FileExistsError unless exist_ok, NotADirectoryError on a file."""
        path = self._strip_protocol(path)
        if not exist_ok and self.exists(path):
            raise self._exists_already(path)
        self._tree.make_directory(path)

    def rmdir(self, path: str) -> None:
        """Removes an empty directory. Raises FileNotFoundError, NotADirectoryError, or OSError if it is not empty."""
        path = self._strip_protocol(path)
        if path == ROOT:
            raise OSError(errno.EBUSY, "the root directory cannot be removed", self.unstrip_protocol(path))
        if not self._tree.entry(path).is_directory:
            raise NotADirectoryError(errno.ENOTDIR, strerror(errno.ENOTDIR), self.unstrip_protocol(path))
        if self._tree.listing(path):
            raise OSError(errno.ENOTEMPTY, strerror(errno.ENOTEMPTY), self.unstrip_protocol(path))
        self._tree.remove(path)

    def rm_file(self, path: str) -> None:
        """Removes one file, with all its versions. Raises FileNotFoundError, or IsADirectoryError."""
        self._tree.remove(self._tree.file(self._strip_protocol(path)).path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Removes files, and with `recursive` directories with everything in them.

        Raises FileNotFoundError; IsADirectoryError for a directory if not `recursive`; ValueError for `maxdepth`, which
        would leave files without their directories.
        """
        if maxdepth is not None:
            raise ValueError("rm has no maxdepth here; remove the files that find(path, maxdepth=...) gives")
        for one in path if isinstance(path, list) else [path]:
            for target in self.expand_path(one):
                if recursive and self.isdir(target):
                    self._tree.remove_tree(target)
                else:
                    self.rm_file(target)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forgets which directories were seen; listings are never cached."""
        self._tree.directories.forget(None if path is None else self._strip_protocol(path))
        super().invalidate_cache(path)

    def _exists_already(self, path: str) -> FileExistsError:
        return FileExistsError(errno.EEXIST, strerror(errno.EEXIST), self.unstrip_protocol(path))


class _Plan:
    """Stands in for the file system while fsspec works out which path goes where, and takes down the pairs."""

    def __init__(self, fs: NgasFileSystem) -> None:
        self._fs = fs
        self.pairs: list[tuple[Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)

    def put_file(self, source: Any, target: Any, **_: Any) -> None:
        self.pairs.append((source, target))

    get_file = cp_file = put_file


def _info(entry: Entry) -> Info:
    if entry.is_directory:
        return _directory_info(entry.path)
    return {
        "name": entry.path,
        "size": entry.size,
        "type": "file",
        "created": entry.status.created,
        "modified": entry.status.ingested,
        "checksum": entry.checksum,
        "version": entry.status.version,
        "file_id": entry.status.file_id,
    }


def _directory_info(path: str) -> Info:
    return {"name": path, "size": 0, "type": "directory", "created": None, "modified": None, "checksum": None}


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
