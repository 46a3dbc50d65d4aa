"""How many requests this process keeps under way with one server: fewer when it is overloaded, more while it copes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

FLOOR = 1
START = 8  # a server's MaxSimReqs is 10 in NGAS's sample configuration
CEILING = 64


class AdaptiveLimit:
    """A number of slots that follows what a server bears: halved by an overload, one more per round of successes.

    It is TCP's rule (additive increase, multiplicative decrease), by which several processes that know nothing of each
    other come to share a server. Thread safe.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._limit = float(START)
        self._under_way = 0
        self._overloads = 0
        self._freed = threading.Condition()
        self._this_thread = threading.local()

    @property
    def current(self) -> int:
        """How many requests may be under way."""
        return int(self._limit)

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Waits until one more request may begin, and counts it as under way inside the block.

        A request that a thread makes within another one of its own (a download whose sink uploads) does not wait: two
        of them could wait for each other.
        """
        if getattr(self._this_thread, "has_slot", False):
            yield Slot(self, self._overloads)
            return
        with self._freed:
            while self._under_way >= self.current:
                self._freed.wait()
            self._under_way += 1
            slot = Slot(self, self._overloads)
        self._this_thread.has_slot = True
        try:
            yield slot
        finally:
            self._this_thread.has_slot = False
            with self._freed:
                self._under_way -= 1
                self._freed.notify_all()

    def grow(self) -> None:
        """A request succeeded. Slots that nobody needs prove nothing, so an idle limit stays as it is."""
        with self._freed:
            if 2 * self._under_way > self.current:
                self._limit = min(CEILING, self._limit + 1 / self._limit)

    def shrink(self, overloads_when_begun: int) -> None:
        """A request met an overload. Of the many that meet the same one, only the first counts."""
        with self._freed:
            if overloads_when_begun != self._overloads:
                return
            self._overloads += 1
            before, self._limit = self.current, max(FLOOR, self._limit / 2)
            after = self.current
        if after < before:
            log.warning(
                "NGAS server %s is overloaded: %d requests at a time instead of %d", self._server, after, before
            )


class Slot:
    """One request under way."""

    def __init__(self, limit: AdaptiveLimit, overloads: int) -> None:
        self._limit = limit
        self._overloads = overloads

    def succeeded(self) -> None:
        self._limit.grow()

    def overloaded(self) -> None:
        self._limit.shrink(self._overloads)
