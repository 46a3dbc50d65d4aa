"""NGAS as an fsspec file system: `ngas://host:port/path`, with directories, for pandas, zarr, MLflow and everyone else."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime
from os import strerror
from pathlib import Path
from typing import Any, Literal

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import stringify_path

from dlg_ml_tasks.archive import naming
from dlg_ml_tasks.archive.address import DEFAULT_PORT, SCHEME, split_url
from dlg_ml_tasks.archive.behaviour import ArchiveBehaviour, Info, TransferPlan
from dlg_ml_tasks.archive.bulk import BulkDownload, BulkUpload, pack_from
from dlg_ml_tasks.archive.client import NgasClient
from dlg_ml_tasks.archive.files import SPOOL_BYTES, NgasReader, NgasWriter
from dlg_ml_tasks.archive.naming import ROOT
from dlg_ml_tasks.archive.removal import remove_directory, remove_files, remove_tree
from dlg_ml_tasks.archive.tree import Entry, Glance, NgasTree, Unasked


class NgasFileSystem(ArchiveBehaviour):
    """Files and directories in an NGAS archive.

    Differences from a local file system:

    - A file is written whole and appears when it is closed; nothing appears if the `with` block raised. (`fsspec.open`
      closes what it opened in either case, for every file system; use `fs.open` to have the promise.)
    - There is no appending and no changing of parts.
    - Writing a file makes its parent directories. As on POSIX they stay when their last file goes, until `rmdir` or
      `rm(recursive=True)`. If one process removes a directory while another writes into it, the new file can be read
      by its path at once, and its directory is in its parent's listing again after a later write, at most a minute on.
    - Two processes that write one path at the same time may both succeed, and one of the two stays.
    - The bytes of a file that was put with many others (see `pack` below) are freed when the last of those is removed or
      replaced. Reading one of them alone costs a query more than reading a file that was written alone.
    - As everywhere in fsspec, `*`, `?` and `[` are patterns for the methods that take many paths (`get`, `put`, `cat`,
      `rm`), unless a file of exactly that name exists; `get_file`, `put_file`, `cat_file`, `rm_file` and `open` are
      literal.

    `info` and `ls` give `name`, `size` (bytes), `type` ("file" or "directory"), `created` and `modified` (UTC),
    `checksum` (a text such as "crc32c:152299802"), `version`, `file_id` and `ukey`; directories have no times and none of
    the last four.

    host, port: the server. Credentials come from the environment or the netrc file (see `credentials`), never from a URL.
    timeout, patience: seconds, see NgasClient.
    pack: whether `put` stores many small files of one directory as one object (see `archive.pack`), of which nothing but
        their speed is to be seen here: "auto", "never", or the number of files from which on it does. Default:
        DLG_ML_NGAS_PACK, or "auto".
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
        pack: Literal["auto", "never"] | int | None = None,
        **storage_options: Any,
    ) -> None:
        super().__init__(
            host=host, port=port, timeout=timeout, patience=patience, threads=threads, pack=pack, **storage_options
        )
        self._tree = NgasTree(NgasClient(host, int(port), timeout, patience=patience), threads)
        self._pack_from = pack_from(os.environ.get("DLG_ML_NGAS_PACK", "auto") if pack is None else pack)

    @property
    def archive_tree(self) -> NgasTree:
        """What the file system is made of, for layers on top of it."""
        return self._tree

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
        """One exact request for a directory or a file of its own; a query more for a file in a pack; none for the root.

        Raises FileNotFoundError.
        """
        path = self._strip_protocol(path)
        return directory_info(ROOT) if path == ROOT else file_info(self._tree.entry(path))

    def isdir(self, path: str) -> bool:
        """One exact request: directories are never in packs."""
        return self._tree.is_directory(self._strip_protocol(path))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The entries of a directory by name, or the one entry of a file. Raises FileNotFoundError."""
        path = self._strip_protocol(path)
        entries = self._tree.listing(path)
        if not entries and path != ROOT:
            entry = self._tree.entry(path)
            entries = [] if entry.is_directory else [entry]
        return [file_info(entry) for entry in entries] if detail else [entry.path for entry in entries]

    def checksum(self, path: str) -> str | None:
        """The checksum of a file as in `info`. Raises FileNotFoundError, or IsADirectoryError."""
        return _checksum_text(self._tree.file(self._strip_protocol(path)))

    def ukey(self, path: str) -> str:
        """Differs between any two contents that a path ever has, and stays while the content stays: a key for caches."""
        return content_key(self._tree.file(self._strip_protocol(path)))

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

        What is there is asked once for a directory; many files from one pack come by one request.
        """
        glance = Glance(self._tree)
        if recursive and maxdepth is None and isinstance(rpath, str) and rpath.endswith("/"):
            # What is in a directory, all of it: fsspec would look at each path again to find out what it means.
            whole: list[tuple[Entry | None, Any]] = list(
                _below(glance, self._strip_protocol(rpath), stringify_path(lpath))
            )
            if whole:
                BulkDownload(glance, callback).fetch(whole)
                return
        pairs = TransferPlan.of_get(self._upon(glance), rpath, lpath, recursive=recursive, maxdepth=maxdepth)
        BulkDownload(glance, callback).run(pairs)

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
        known = self._to_be_replaced(path, create=mode == "create")
        self._tree.store(path, bytes(value), known)

    def put_file(self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, **_: Any) -> None:
        """Archives one local file, or makes a directory for a local directory."""
        rpath = self._strip_protocol(rpath)
        self._put(Path(lpath), rpath, self._tree.find_object(rpath), callback)

    def put(
        self,
        lpath: Any,
        rpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        new: str | None = None,
        **_: Any,
    ) -> None:
        """Archives files and trees, several at a time, by fsspec's rules for what goes where.

        What is there already is asked once for a directory, and not sent again. Many small files of one directory go as
        one pack.
        new: a path at and below which the caller knows that there is nothing to be asked for: a name just made up.
        """
        pairs = TransferPlan.of_put(self, lpath, rpath, recursive=recursive, maxdepth=maxdepth)
        tree = self._tree if new is None else Unasked(self._tree, self._strip_protocol(new))
        BulkUpload(tree, callback, self._pack_from).run(pairs)

    def _put(self, local: Path, path: str, known: Entry | None, callback: Any) -> None:
        if local.is_dir():
            self._tree.make_directory(path)
            return
        size = local.stat().st_size
        callback.set_size(size)
        self._tree.store(path, local, known)
        callback.absolute_update(size)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        size: int | None = None,
        **kwargs: Any,
    ) -> NgasReader | NgasWriter:
        # fsspec passes the `size` that it remembers; what is there now counts.
        if mode == "rb":
            entry = self._tree.file(path)
            return NgasReader(
                self, self._tree, entry, file_info(entry), block_size=block_size, cache_options=cache_options, **kwargs
            )
        if mode not in ("wb", "xb"):
            raise ValueError(f"mode {mode!r}: a file in the archive can be read (rb) or written whole (wb, xb)")
        self._tree.refuse_directory(path, self._to_be_replaced(path, create=mode == "xb"))
        # Asked again on closing: the file may be written over hours.
        return NgasWriter(
            path, lambda content: self._tree.store(path, content, self._tree.find_object(path)), autocommit=autocommit
        )

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copies a file by way of this machine, or makes a directory for a directory."""
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        source = None if path1 == ROOT else self._tree.entry(path1)
        if source is None or source.is_directory:
            self._tree.make_directory(path2)
            return
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
            self._tree.copy_to(source, spool)
            self._tree.store(path2, spool, self._tree.find_object(path2))

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **_: Any) -> None:
        """Copies, then removes the source; onto itself it does nothing.

        Raises ValueError for a directory moved into itself.
        """
        pairs = TransferPlan.of_copy(self, path1, path2, recursive=recursive, maxdepth=maxdepth)
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
        remove_directory(self._tree, path)

    def rm_file(self, path: str) -> None:
        """Removes one file, with all its versions. Raises FileNotFoundError, or IsADirectoryError."""
        remove_files(self._tree, [self._strip_protocol(path)])

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Removes files, and with `recursive` directories with everything in them.

        Raises FileNotFoundError; IsADirectoryError for a directory if not `recursive`; ValueError for `maxdepth`, which
        would leave files without their directories.
        """
        if maxdepth is not None:
            raise ValueError("rm has no maxdepth here; remove the files that find(path, maxdepth=...) gives")
        targets = [target for one in (path if isinstance(path, list) else [path]) for target in self.expand_path(one)]
        trees = [target for target in targets if recursive and self.isdir(target)]
        remove_files(self._tree, [target for target in targets if target not in trees])
        for target in trees:
            remove_tree(self._tree, target)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forgets which directories were seen; listings are never cached."""
        self._tree.directories.forget(None if path is None else self._strip_protocol(path))
        super().invalidate_cache(path)

    def _upon(self, tree: NgasTree) -> NgasFileSystem:
        """The same file system upon another tree; made past fsspec's cache of instances."""
        fs: NgasFileSystem = object.__new__(type(self))
        fs.__dict__.update(self.__dict__, _tree=tree)
        return fs

    def _to_be_replaced(self, path: str, *, create: bool) -> Entry | None:
        """The object that writing to `path` will replace; raises FileExistsError if `create` and there is anything."""
        if not create:
            return self._tree.find_object(path)
        if self._tree.find(path) is not None:
            raise self._exists_already(path)
        return None

    def _exists_already(self, path: str) -> FileExistsError:
        return FileExistsError(errno.EEXIST, strerror(errno.EEXIST), self.unstrip_protocol(path))


def _below(tree: NgasTree, directory: str, local: str) -> Iterator[tuple[Entry, str]]:
    """Everything below a directory, and where it goes."""
    for entry in tree.listing(directory):
        target = os.path.join(local, naming.base_name(entry.path))  # noqa: PTH118
        yield entry, target
        if entry.is_directory:
            yield from _below(tree, entry.path, target)


def file_info(entry: Entry) -> Info:
    if entry.is_directory:
        return directory_info(entry.path)
    return {
        "name": entry.path,
        "size": entry.size,
        "type": "file",
        "created": entry.status.created,
        "modified": entry.status.ingested,
        "checksum": _checksum_text(entry),
        "version": entry.status.version,
        "file_id": entry.status.file_id,
        "ukey": content_key(entry),
    }


def content_key(entry: Entry) -> str:
    """Names the content of a file: of two contents that a path ever has, each has its own.

    NGAS gives a version number again once the versions above it were discarded, so that id and version alone say
    nothing. Where it recorded no checksum, the time of archiving stands in.
    """
    member = f":{entry.member.offset}:{entry.member.name}" if entry.member else ""
    distinct = entry.checksum or entry.status.ingested
    return f"{entry.status.file_id}:{entry.status.version}:{entry.size}:{distinct}{member}"


def _checksum_text(entry: Entry) -> str | None:
    return str(entry.checksum) if entry.checksum else None


def directory_info(path: str) -> Info:
    return {"name": path, "size": 0, "type": "directory", "created": None, "modified": None, "checksum": None}
