"""Whether, where and how much to cache, from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pydantic import ByteSize, TypeAdapter, ValidationError

OFF = "off"
DEFAULT_LIMIT = 10 << 30


class CacheMode(str, Enum):
    """When the archive is asked."""

    ONLINE = "online"
    PREFER_CACHE = "prefer-cache"
    OFFLINE = "offline"


@dataclass(frozen=True)
class CacheSettings:
    """mode: None for no cache. folder: where copies lie. limit: bytes they may take together."""

    mode: CacheMode | None
    folder: Path
    limit: int


def cache_settings() -> CacheSettings:
    """Reads DLG_ML_NGAS_CACHE (off, online, prefer-cache, offline), DLG_ML_NGAS_CACHE_DIR and DLG_ML_NGAS_CACHE_BYTES.

    Defaults: off; `dlg-ml-tasks/ngas` in XDG_CACHE_HOME or ~/.cache; 10 GiB. Sizes may have a unit, as in "50GiB".
    Raises ValueError for anything else.
    """
    return CacheSettings(
        mode=_mode(os.environ.get("DLG_ML_NGAS_CACHE", "")),
        folder=_folder(os.environ.get("DLG_ML_NGAS_CACHE_DIR", "")),
        limit=_limit(os.environ.get("DLG_ML_NGAS_CACHE_BYTES", "")),
    )


def _mode(text: str) -> CacheMode | None:
    if text in ("", OFF):
        return None
    try:
        return CacheMode(text)
    except ValueError:
        choices = ", ".join([OFF, *(mode.value for mode in CacheMode)])
        raise ValueError(f"DLG_ML_NGAS_CACHE={text!r}: choose one of {choices}") from None


def _folder(text: str) -> Path:
    if text:
        return Path(text).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: relative paths in its variables are ignored.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "dlg-ml-tasks" / "ngas"


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_LIMIT
    try:
        limit = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        limit = 0
    if limit <= 0:
        raise ValueError(f"DLG_ML_NGAS_CACHE_BYTES={text!r} is no size; write bytes or a size such as 50GiB")
    return limit
