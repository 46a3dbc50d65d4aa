"""File objects of the NGAS file system: a reader that fetches ranges, a writer that archives whole files on close."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any

from fsspec.spec import AbstractBufferedFile

from dlg_ml_tasks.archive.tree import Entry, NgasTree

SPOOL_BYTES = 8 << 20  # a file being written stays in memory up to this size, then goes to a temporary file


class NgasReader(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A seekable binary file, read block by block with one request each.

    It holds no connection in between, because an idle one occupies one of the server's few threads. Reading from the
    beginning to the end in order verifies the checksum: the last block raises ChecksumMismatch if it does not hold. The
    version is the one that was latest when the file was opened; if a writer replaces it meanwhile, reading raises
    FileNotInArchive.
    """

    def __init__(self, fs: Any, tree: NgasTree, entry: Entry, info: dict[str, Any], **options: Any) -> None:
        self._tree = tree
        self._entry = entry
        self._verified = 0
        self._running = tree.running_checksum(entry)
        super().__init__(fs, entry.path, mode="rb", size=entry.size, **options)
        self.details = info

    def _fetch_range(self, start: int, end: int) -> bytes:
        block = self._tree.read(self._entry, start, end)
        if start == self._verified:
            self._running.update(block)
            self._verified += len(block)
            if self._verified == self._entry.size:
                self._tree.verify(self._entry, self._running)
        return block


class NgasWriter(io.BufferedIOBase):
    """A seekable binary file that is archived when it is closed, and not at all if its `with` block raises.

    store: receives the whole content as a binary file, once.
    autocommit: False leaves the decision to `commit` and `discard`, for transactions of several files.
    """

    def __init__(self, path: str, store: Callable[[IO[bytes]], object], *, autocommit: bool = True) -> None:
        self.path = path
        self.mode = "wb"
        self.autocommit = autocommit
        self._store = store
        self._spool: tempfile.SpooledTemporaryFile[bytes] | None = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._open_spool().write(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._open_spool().seek(offset, whence)

    def tell(self) -> int:
        return self._open_spool().tell()

    def truncate(self, size: int | None = None) -> int:
        spool = self._open_spool()
        spool.truncate(size)
        return spool.tell() if size is None else size

    def close(self) -> None:
        """Archives the file, if `autocommit`. Raises what archiving raises; the content is gone then."""
        if self._closed:
            return
        self._closed = True
        if self.autocommit:
            self.commit()

    def commit(self) -> None:
        """Archives what was written."""
        if self._spool is None:
            return
        try:
            self._store(self._spool)
        finally:
            self.discard()

    def discard(self) -> None:
        """Throws away what was written; nothing of it was ever visible in the archive."""
        self._closed = True
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        # A file that nobody closed is not known to be whole. io.IOBase would close, and so archive, it here.
        if getattr(self, "_spool", None) is not None:
            self.discard()

    def _open_spool(self) -> tempfile.SpooledTemporaryFile[bytes]:
        if self._spool is None or self._closed:
            raise ValueError(f"the file {self.path} is closed")
        return self._spool


class NgasTextWriter(io.TextIOWrapper):
    """Text on top of an NgasWriter, with the same promise: nothing is archived if the `with` block raises."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and isinstance(self.buffer, NgasWriter):
            self.buffer.discard()
        super().__exit__(kind, error, trace)
