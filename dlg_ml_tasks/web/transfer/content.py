"""Under which type and name a file is handed out, so that a browser runs nothing of it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

PICTURES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
"""What a browser may show by itself: pictures of points. SVG is none, because it can carry scripts."""

_TYPES: Final = {
    **PICTURES,
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".log": "text/plain; charset=utf-8",
    ".fits": "application/fits",
    ".fit": "application/fits",
    ".h5": "application/x-hdf5",
    ".hdf5": "application/x-hdf5",
    ".uvh5": "application/x-hdf5",
    ".parquet": "application/vnd.apache.parquet",
    ".zip": "application/zip",
}
_ANY: Final = "application/octet-stream"
_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; sandbox"
_UNSAFE = re.compile(r"[^ !#$&-.0-\[\]-~]")
"""What does not stand in a quoted file name: quotes, slashes, controls, all but ASCII, and what some browsers decode."""


def content_headers(name: str) -> dict[str, str]:
    """The header fields that say what a file is, whatever its name: only pictures are shown, all else is a download."""
    suffix = PurePosixPath(name).suffix.lower()
    return {
        "Content-Type": _TYPES.get(suffix, _ANY),
        "Content-Disposition": disposition("inline" if suffix in PICTURES else "attachment", name),
        # Should a browser open it all the same: as a page of no site, that may do nothing.
        "Content-Security-Policy": _POLICY,
    }


def disposition(kind: str, name: str) -> str:
    """A Content-Disposition (RFC 6266) of any name: plain for old clients, and exact where that is not the same."""
    plain = _UNSAFE.sub("_", name)
    given = f'{kind}; filename="{plain}"'
    # Only what RFC 5987 lists stands as it is.
    return given if plain == name else f"{given}; filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~')}"
