"""A file in the archive as a seekable binary file that fetches what is read."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

_BLOCK = 128 << 10


class RangeFile(io.RawIOBase):
    """Reads through `fetch(start, end)`, which returns the bytes between; `size` in bytes."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size)
        if end <= self._at:
            return 0
        block = self._fetch(self._at, end)
        view[: len(block)] = block
        self._at += len(block)
        return len(block)


def opened(fetch: Callable[[int, int], bytes], size: int) -> io.BufferedReader:
    """The file with a buffer, so that many small reads are few requests."""
    return io.BufferedReader(RangeFile(fetch, size), _BLOCK)
