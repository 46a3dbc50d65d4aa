"""How long work tells of itself; knows nothing of terminals."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told what is being done. Called from the calling thread only."""

    def step(self, what: str, total: int | None = None) -> None:
        """The next part of the work begins; `total` is in the unit that `advance` counts, None where nobody knows."""

    def advance(self, amount: int) -> None:
        """So much more of the part is done."""


class Silent:
    """Tells nobody."""

    def step(self, what: str, total: int | None = None) -> None:
        """Nothing."""

    def advance(self, amount: int) -> None:
        """Nothing."""
