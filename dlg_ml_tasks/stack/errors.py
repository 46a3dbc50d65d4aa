"""What the embedded stack raises when it cannot be started, stopped or found."""

from __future__ import annotations


class StackError(RuntimeError):
    """A service cannot be started, stopped or reached; the message names it, the reason and the remedy."""
