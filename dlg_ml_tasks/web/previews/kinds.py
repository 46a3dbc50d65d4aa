"""Which preview a file gets, by its name; a file that is not what its name says is shown as what it can be."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import BinaryIO

from dlg_ml_tasks.web.previews import headers
from dlg_ml_tasks.web.previews.model import Preview
from dlg_ml_tasks.web.previews.ranges import opened
from dlg_ml_tasks.web.sources.errors import NotThere, SourceDown

log = logging.getLogger(__name__)

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp"})
_TEXTS = frozenset(
    {".txt", ".log", ".md", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".py", ".xml", ".html", ".svg", ".tex", ""}
)
_TEXT_BYTES = 256 << 10
_ROWS = 200

_HEADERS: dict[str, Callable[[BinaryIO, int], Preview]] = {
    ".npy": headers.npy,
    ".npz": headers.npz,
    ".parquet": headers.parquet,
    ".fits": headers.fits,
    ".fit": headers.fits,
    ".h5": headers.hdf5,
    ".hdf5": headers.hdf5,
    ".uvh5": headers.hdf5,
    ".safetensors": headers.safetensors,
}


def preview(name: str, size: int, fetch: Callable[[int, int], bytes]) -> Preview:
    """A preview of a file of `size` bytes, of which `fetch(start, end)` gets some. Raises SourceDown, NotThere."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICTURES:
        return Preview(kind="picture")
    if not size:
        return Preview(kind="none", note="The file is empty.")
    if suffix in _HEADERS:
        try:
            with opened(fetch, size) as file:
                return _HEADERS[suffix](file, size)
        except (SourceDown, NotThere):
            raise
        except Exception as error:  # noqa: BLE001  each library has errors of its own for a file that is not what it seems
            log.info("no preview of %s: %s: %s", name, type(error).__name__, error)
            return Preview(
                kind="none", note=f"This is no readable {suffix} file, or one of a kind that is not shown here."
            )
    if suffix == ".csv":
        return _table(fetch(0, min(size, _TEXT_BYTES)), size)
    if suffix == ".json":
        return _json(fetch(0, min(size, _TEXT_BYTES)), size)
    if suffix in _TEXTS or size <= _TEXT_BYTES:
        return _text(fetch(0, min(size, _TEXT_BYTES)), size)
    return Preview(kind="none", note="Files of this kind are not shown in place.")


def _text(content: bytes, size: int) -> Preview:
    if b"\0" in content[:4096]:
        return Preview(kind="none", note="Files of this kind are not shown in place.")
    return Preview(kind="text", text=content.decode("utf-8", "replace"), more=size > len(content))


def _json(content: bytes, size: int) -> Preview:
    if size > len(content):
        return _text(content, size)
    try:
        return Preview(kind="text", text=json.dumps(json.loads(content), indent=2, ensure_ascii=False))
    except ValueError:
        return _text(content, size)


def _table(content: bytes, size: int) -> Preview:
    lines = content.decode("utf-8", "replace").splitlines()
    if size > len(content):
        lines = lines[:-1]  # the last one was cut
    rows = list(csv.reader(lines[: _ROWS + 1]))
    more = len(lines) > _ROWS + 1 or size > len(content)
    return Preview(kind="table", columns=rows[0] if rows else [], rows=rows[1:], more=more)
