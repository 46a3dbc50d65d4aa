"""Opens an archive by URL, with or without the local cache, as the environment says; the way in for everything above."""

from __future__ import annotations

from dlg_ml_tasks.archive.address import split_url
from dlg_ml_tasks.archive.cache import NgasCacheFileSystem, cache_settings
from dlg_ml_tasks.archive.filesystem import NgasFileSystem


def open_archive(url: str) -> tuple[NgasFileSystem | NgasCacheFileSystem, str]:
    """The file system for an `ngas://host:port/path` URL, and the path. Contacts nobody.

    With DLG_ML_NGAS_CACHE set (see `cache_settings`), reads go through the cache. Raises ValueError for what is no such
    URL, and for settings that cannot be read.
    """
    settings = cache_settings()
    address, path = split_url(url)
    archive = NgasFileSystem(address.host, address.port)
    path = archive._strip_protocol(path)
    if settings.mode is None:
        return archive, path
    cache = NgasCacheFileSystem(
        fs=archive, cache_mode=settings.mode.value, cache_storage=str(settings.folder), limit=settings.limit
    )
    return cache, path
