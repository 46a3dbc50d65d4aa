"""What a source raises when it cannot answer."""

from __future__ import annotations


class SourceDown(Exception):
    """MLflow or the archive does not answer, or not in time; `source` says which one, in words for a reader."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source


class NotThere(LookupError):
    """What was asked for does not exist (any more)."""
