"""A local read-through cache of archived files: `ngascache::ngas://host:port/path`, online, preferred, or offline."""

from __future__ import annotations

from dlg_ml_tasks.archive.cache.filesystem import NgasCacheFileSystem
from dlg_ml_tasks.archive.cache.settings import CacheMode, CacheSettings, cache_settings
from dlg_ml_tasks.archive.cache.store import CacheStore, Copy

__all__ = ["CacheMode", "CacheSettings", "CacheStore", "Copy", "NgasCacheFileSystem", "cache_settings"]
