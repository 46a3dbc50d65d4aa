"""Remembers for a while which directories were seen to exist, so that writing many files asks once."""

from __future__ import annotations

import threading
import time

# How long a directory that another process removed may stay missing from its parent's listing while this process goes
# on writing into it. Long enough to spare nearly all of a bulk upload's requests, short enough to heal by itself.
TRUST_SECONDS = 60.0


class KnownDirectories:
    """A set of paths that forgets each of them after a time. Thread safe."""

    def __init__(self, trust_seconds: float = TRUST_SECONDS) -> None:
        self._trust_seconds = trust_seconds
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, path: str) -> None:
        with self._lock:
            self._seen[path] = time.monotonic()

    def __contains__(self, path: str) -> bool:
        with self._lock:
            seen = self._seen.get(path)
            return seen is not None and time.monotonic() - seen < self._trust_seconds

    def forget(self, tree: str | None = None) -> None:
        """Forgets a directory and everything below it; without an argument, everything."""
        with self._lock:
            if tree is None:
                self._seen.clear()
                return
            below = f"{tree.rstrip('/')}/"
            for path in [path for path in self._seen if path == tree or path.startswith(below)]:
                del self._seen[path]
