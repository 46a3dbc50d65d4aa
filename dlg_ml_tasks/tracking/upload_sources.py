"""What a user hands over to be stored: every file of a folder, or an error before anything is sent."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path


def below(top: Path) -> Iterator[Path]:
    """Files below `top`, and directories that hold nothing, in order; links are followed, as by a copy.

    Raises OSError for what cannot be listed or is not a regular file, and for a link to a directory above itself.
    """
    yield from _children(top, ancestors=(), top=True)


def _children(directory: Path, ancestors: tuple[Path, ...], *, top: bool = False) -> Iterator[Path]:
    real = directory.resolve()
    if real in ancestors:
        raise OSError(f"{directory} is a link to a directory that holds it; remove the link")
    children = sorted(directory.iterdir())
    if not children and not top:
        yield directory
    for child in children:
        if child.is_dir():
            yield from _children(child, (*ancestors, real))
        else:
            refuse_irregular(child)
            yield child


def refuse_irregular(path: Path) -> None:
    """Raises OSError for what is not a file, or a link to one: reading a pipe might wait for ever."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a directory; use log_artifacts")
    if not stat.S_ISREG(mode):
        raise OSError(f"{path} is not a regular file and cannot be stored")
