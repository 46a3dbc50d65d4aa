"""fsspec's own abstract tests: the rules of copy, get, put, open and pipe that every file system has to follow.

fsspec's tests of mv are about local folders; moving in the archive is tested in test_filesystem.py.
"""

from __future__ import annotations

from collections.abc import Callable

import fsspec.tests.abstract as abstract
import pytest

from dlg_ml_tasks.archive import NgasFileSystem
from dlg_ml_tasks.archive.cache import NgasCacheFileSystem
from dlg_ml_tasks.archive.server import EmbeddedNgas

pytestmark = pytest.mark.integration


class NgasFixtures(abstract.AbstractFixtures):  # type: ignore[misc]  # fsspec has no types
    """An archive's directory of its own for each test. Empty directories are supported, so nothing is skipped."""

    @pytest.fixture
    def fs(self, server: EmbeddedNgas) -> NgasFileSystem:
        return NgasFileSystem(server.host, server.port, timeout=10, patience=0, skip_instance_cache=True)

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_path(self, home: str) -> str:
        return home


class TestCopy(abstract.AbstractCopyTests, NgasFixtures):  # type: ignore[misc]
    pass


class TestGet(abstract.AbstractGetTests, NgasFixtures):  # type: ignore[misc]
    pass


class TestPut(abstract.AbstractPutTests, NgasFixtures):  # type: ignore[misc]
    pass


class TestOpen(abstract.AbstractOpenTests, NgasFixtures):  # type: ignore[misc]
    pass


class TestPipe(abstract.AbstractPipeTests, NgasFixtures):  # type: ignore[misc]
    pass


class CachedFixtures(NgasFixtures):
    """The same archive through a local cache; what goes by other ways than the archive's own is tested again."""

    @pytest.fixture
    def fs(self, server: EmbeddedNgas, tmp_path_factory: pytest.TempPathFactory) -> NgasCacheFileSystem:
        archive = NgasFileSystem(server.host, server.port, timeout=10, patience=0, skip_instance_cache=True)
        return NgasCacheFileSystem(
            fs=archive, cache_storage=str(tmp_path_factory.mktemp("cache")), skip_instance_cache=True
        )


class TestCachedGet(abstract.AbstractGetTests, CachedFixtures):  # type: ignore[misc]
    pass


class TestCachedOpen(abstract.AbstractOpenTests, CachedFixtures):  # type: ignore[misc]
    pass


class TestCachedPipe(abstract.AbstractPipeTests, CachedFixtures):  # type: ignore[misc]
    pass
