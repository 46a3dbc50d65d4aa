"""Puts contents into local files that appear, or are replaced, only when they are whole."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def temporary_name(destination: Path) -> Path:
    """A new name beside the destination, for what is to become it."""
    return destination.with_name(f".ngas-{uuid.uuid4().hex}.part")


def place(content: bytes, destination: Path) -> None:
    """Makes `destination`, in a directory that exists, a file with this content."""
    part = os.path.join(os.path.dirname(destination), f".ngas-{uuid.uuid4().hex}.part")  # noqa: PTH118, PTH120  hot path
    try:
        with open(part, "xb") as file:  # noqa: PTH123  buffered: a raw file may write less than all, and say nothing
            file.write(content)
        os.replace(part, destination)  # noqa: PTH105
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
