"""Keeps a source that hangs from taking the site along: few may wait for it at once, and none while it is known to be down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dlg_ml_tasks.web.sources.errors import SourceDown

_REST_S = 2.0


class Breaker:
    """One per source. Thread safe.

    most: how many may wait for an answer at once. After a SourceDown one caller at a time, and not more often than every `rest_s`
    seconds, tries whether the source is back; all others are told at once, and need not wait for a timeout each.
    """

    def __init__(
        self, source: str, most: int, rest_s: float = _REST_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._most = most
        self._rest_s = rest_s
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = 0
        self._down_since: float | None = None
        self._reason = ""

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around one call. Raises SourceDown without making it."""
        with self._lock:
            if self._waiting >= (1 if self._down_since is not None else self._most):
                raise SourceDown(self._source, self._reason or "busy")
            if self._down_since is not None and self._clock() < self._down_since + self._rest_s:
                raise SourceDown(self._source, self._reason)
            self._waiting += 1
        down = ""
        try:
            yield
        except SourceDown as error:
            down = error.reason if error.whole else ""
            raise
        finally:
            with self._lock:
                self._waiting -= 1
                self._down_since, self._reason = (self._clock(), down) if down else (None, "")
