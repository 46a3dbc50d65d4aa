"""Bytes from one connection to another inside the kernel (Linux's splice): they never come into this process."""

from __future__ import annotations

import fcntl
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress

from dlg_ml_tasks.archive import ArchiveUnreachable

AVAILABLE = sys.platform == "linux"

_PIPE_BYTES = 1 << 20
_SOURCE_S = 10.0


class Pipe:
    """Between a source and the socket `target`, which it closes in the end. Not thread safe.

    held: bytes that came from a source and have not gone to the target yet. patience_s: how long the target may take none.
    """

    def __init__(self, target: int, patience_s: float) -> None:
        self._target = target
        self._patience_s = patience_s
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(OSError):  # beyond what one user may have in pipes it stays smaller
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.held = 0

    def close(self) -> None:
        """Give up what is held."""
        for descriptor in (self._out, self._in, self._target):
            os.close(descriptor)

    def move(self, source: int, most: int, may_go_on: Callable[[], bool]) -> int:
        """Move at most so many bytes; returns how many came from the source, 0 at its end.

        Raises Behind if the target takes none, or if `may_go_on` says no, before anything is taken from the source;
        ArchiveUnreachable if the source sends nothing.
        """
        self.drain()
        if not may_go_on():
            raise Behind
        while True:
            try:
                came = os.splice(source, self._in, min(most, _PIPE_BYTES))
                break
            except BlockingIOError:
                if not _ready(source, select.POLLIN, _SOURCE_S):
                    raise ArchiveUnreachable(f"nothing came for {_SOURCE_S:g} s") from None
        self.held += came
        return came

    def put(self, content: bytes) -> int:
        """Hold some bytes of the process's own; returns how many there was room for."""
        try:
            written = os.write(self._in, content)
        except BlockingIOError:
            return 0
        self.held += written
        return written

    def drain(self) -> None:
        """Hand on what is held. Raises Behind, and ConnectionError if the target has gone."""
        while self.held:
            try:
                self.held -= os.splice(self._out, self._target, self.held)
            except BlockingIOError:
                if not _ready(self._target, select.POLLOUT, self._patience_s):
                    raise Behind from None


class Behind(Exception):
    """The target does not keep up."""


def _ready(descriptor: int, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(1000 * seconds))
