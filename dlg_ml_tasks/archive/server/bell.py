"""Telling those who wait that something has happened."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """Sets an event of everybody who listens; costs nothing while nobody does. Used by one event loop only."""

    def __init__(self) -> None:
        self._listeners: list[asyncio.Event] = []

    def ring(self) -> None:
        """Wake everybody."""
        for event in self._listeners:
            event.set()

    @contextmanager
    def heard(self) -> Iterator[asyncio.Event]:
        """An event that is set by each `ring`, and at the beginning; who waits for it clears it."""
        event = asyncio.Event()
        event.set()
        self._listeners.append(event)
        try:
            yield event
        finally:
            self._listeners.remove(event)
