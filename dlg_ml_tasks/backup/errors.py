"""What backing up and restoring raise when a person can mend it."""

from __future__ import annotations


class BackupError(RuntimeError):
    """A backup cannot be made, read or restored; the message names the value at fault and the remedy."""
