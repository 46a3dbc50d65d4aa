from __future__ import annotations

import io
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.cached import CachingFileSystem

from dlg_ml_tasks.archive import ArchiveUnreachable, CacheUnusable, FileNotInArchive, NgasFileSystem, NotInCache, naming
from dlg_ml_tasks.archive.cache import CacheMode, CacheStore, NgasCacheFileSystem, cache_settings
from dlg_ml_tasks.archive.opening import open_archive
from dlg_ml_tasks.archive.server import EmbeddedNgas

pytestmark = pytest.mark.integration

Cached = Callable[..., NgasCacheFileSystem]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cached(fs: NgasFileSystem, folder: Path) -> Cached:
    """A cache in `folder` before the session's archive."""

    def build(mode: str = "online", fs: NgasFileSystem = fs, **options: Any) -> NgasCacheFileSystem:
        return NgasCacheFileSystem(
            fs=fs, cache_mode=mode, cache_storage=str(folder), skip_instance_cache=True, **options
        )

    return build


class Failing:
    """An archive of one test that can be stopped, or made to accept connections and say nothing."""

    def __init__(self, root: Path) -> None:
        self._server = EmbeddedNgas(root)
        self._server.__enter__()
        self.host, self.port = self._server.host, self._server.port
        self.fs = NgasFileSystem(self.host, self.port, timeout=5, patience=0, skip_instance_cache=True)
        self._listening: socket.socket | None = None
        self._running = True

    def stop(self) -> None:
        if self._running:
            self._running = False
            self._server.__exit__(None, None, None)

    def fall_silent(self) -> None:
        self.stop()
        self._listening = socket.create_server((self.host, self.port))

    def close(self) -> None:
        self.stop()
        if self._listening is not None:
            self._listening.close()


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Failing]:
    archive = Failing(tmp_path / "archive")
    yield archive
    archive.close()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def contents(folder: Path) -> list[Path]:
    """The copies in a cache folder, whatever the cache itself thinks of them."""
    return sorted(path for path in folder.rglob("*") if len(path.name) == 53 and path.is_file())


# --- online ---


def test_a_file_is_fetched_once(proxied_fs: NgasFileSystem, proxy: Any, cached: Cached, home: str) -> None:
    cache = cached(fs=proxied_fs)
    proxied_fs.pipe_file(f"{home}/file", b"content")
    assert cache.cat_file(f"{home}/file") == b"content"
    proxy.requests.clear()
    for _ in range(3):
        assert cache.cat_file(f"{home}/file") == b"content"
    assert proxy.commands == ["STATUS"] * 3


def test_one_exact_request_tells_whether_a_path_is_a_directory(
    proxied_fs: NgasFileSystem, proxy: Any, cached: Cached, home: str
) -> None:
    cache = cached(fs=proxied_fs)
    proxied_fs.mkdir(home)
    proxy.requests.clear()
    assert cache.isdir(home)
    assert not cache.isdir(f"{home}/missing")
    assert proxy.commands == ["STATUS"] * 2


def test_a_file_that_changed_is_fetched_again_and_the_old_copy_goes(
    fs: NgasFileSystem, cached: Cached, home: str, folder: Path
) -> None:
    cache = cached()
    for content in (b"first", b"other", b"", b"first"):
        fs.pipe_file(f"{home}/file", content)
        assert cache.cat_file(f"{home}/file") == content
        assert len(contents(folder)) == 1


def test_a_removed_file_is_missing_and_its_copy_goes(
    fs: NgasFileSystem, cached: Cached, home: str, folder: Path
) -> None:
    cache = cached()
    fs.pipe_file(f"{home}/file", b"content")
    cache.cat_file(f"{home}/file")
    fs.rm_file(f"{home}/file")
    with pytest.raises(FileNotInArchive):
        cache.open(f"{home}/file")
    assert not cache.exists(f"{home}/file")
    assert contents(folder) == []


def test_files_are_read_like_archived_ones(fs: NgasFileSystem, cached: Cached, home: str) -> None:
    cache = cached()
    fs.pipe_file(f"{home}/file", b"0123456789")
    for start, end in [(None, None), (2, 5), (-3, None), (None, -2), (6, 2)]:
        assert cache.cat_file(f"{home}/file", start, end) == b"0123456789"[start:end]
    assert cache.head(f"{home}/file", 3) == b"012"
    assert cache.tail(f"{home}/file", 3) == b"789"
    assert cache.cat_ranges([f"{home}/file"] * 2, [0, 5], [2, 7]) == [b"01", b"56"]
    with cache.open(f"{home}/file", "r") as file:
        assert file.read() == "0123456789"
    missing = cache.cat([f"{home}/file", f"{home}/missing"], on_error="return")
    assert missing[f"{home}/file"] == b"0123456789"
    assert isinstance(missing[f"{home}/missing"], FileNotFoundError)


def test_a_directory_cannot_be_opened(fs: NgasFileSystem, cached: Cached, home: str) -> None:
    fs.mkdir(home)
    with pytest.raises(IsADirectoryError):
        cached().open(home)


def test_info_says_whether_a_file_is_here_and_otherwise_what_the_archive_says(
    fs: NgasFileSystem, cached: Cached, home: str
) -> None:
    cache = cached()
    fs.pipe({f"{home}/a": b"one", f"{home}/sub/b": b"two"})
    assert cache.info(f"{home}/a") == fs.info(f"{home}/a") | {"cached": False, "stale": False}
    cache.cat_file(f"{home}/a")
    assert cache.info(f"{home}/a")["cached"]
    assert [(info["name"], info.get("cached")) for info in cache.ls(home)] == [
        (f"{home}/a", True),
        (f"{home}/sub", None),
    ]
    assert cache.find(home) == fs.find(home)
    assert (cache.checksum(f"{home}/a"), cache.modified(f"{home}/a")) == (
        fs.checksum(f"{home}/a"),
        fs.modified(f"{home}/a"),
    )
    assert cache.ukey(f"{home}/a") == fs.ukey(f"{home}/a")


def test_a_tree_is_fetched_with_independent_copies(
    fs: NgasFileSystem, cached: Cached, home: str, tmp_path: Path
) -> None:
    fs.pipe({f"{home}/a": b"one", f"{home}/sub/b": b"two", f"{home}/empty": b""})
    cache = cached()
    for target in ("first", "second"):
        cache.get(f"{home}/", str(tmp_path / target), recursive=True)
        assert (tmp_path / target / "sub" / "b").read_bytes() == b"two"
        assert (tmp_path / target / "empty").read_bytes() == b""
        (tmp_path / target / "a").write_bytes(b"changed by its user")
    assert cache.cat_file(f"{home}/a") == b"one"
    into = io.BytesIO()
    cache.get_file(f"{home}/a", into)
    assert into.getvalue() == b"one"


def test_packed_files_are_cached_one_by_one(
    server: EmbeddedNgas, cached: Cached, home: str, tmp_path: Path, folder: Path, no_network_after: Callable[[], None]
) -> None:
    packing = NgasFileSystem(server.host, server.port, pack=2, timeout=10, patience=0, skip_instance_cache=True)
    (tmp_path / "source").mkdir()
    for number in range(30):
        (tmp_path / "source" / f"{number}.txt").write_text(f"content {number}")
    packing.put(f"{tmp_path}/source/", home, recursive=True)
    cache = cached(fs=packing)
    assert cache.cat_file(f"{home}/7.txt") == b"content 7"
    assert len(contents(folder)) == 1
    cache.get(f"{home}/", f"{tmp_path}/target/", recursive=True)
    assert len(contents(folder)) == 30
    no_network_after()
    offline = cached("offline")
    assert [offline.cat_file(f"{home}/{number}.txt").decode() for number in range(30)] == [
        f"content {number}" for number in range(30)
    ]


@pytest.fixture
def no_network_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was touched")

    def forbid() -> None:
        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        monkeypatch.setattr(socket, "create_connection", refuse)

    return forbid


# --- writing ---


def test_what_is_written_goes_to_the_archive_and_not_into_the_cache(
    fs: NgasFileSystem, cached: Cached, home: str, tmp_path: Path, folder: Path
) -> None:
    cache = cached()
    (tmp_path / "local").write_bytes(b"put")
    cache.pipe_file(f"{home}/piped", b"piped")
    cache.put_file(str(tmp_path / "local"), f"{home}/put")
    with cache.open(f"{home}/opened", "wb") as file:
        file.write(b"opened")
    with cache.open(f"{home}/text", "w", encoding="latin-1") as file:
        file.write("é")
    cache.cp_file(f"{home}/put", f"{home}/copied")
    assert fs.cat([f"{home}/{name}" for name in ("piped", "put", "opened", "text", "copied")]) == {
        f"{home}/piped": b"piped",
        f"{home}/put": b"put",
        f"{home}/opened": b"opened",
        f"{home}/text": b"\xe9",
        f"{home}/copied": b"put",
    }
    assert contents(folder) == []


def test_every_change_drops_the_copy(
    fs: NgasFileSystem, cached: Cached, home: str, tmp_path: Path, folder: Path
) -> None:
    cache = cached()
    (tmp_path / "local").write_bytes(b"new")
    for change in (
        lambda: cache.pipe_file(f"{home}/file", b"new"),
        lambda: cache.put([str(tmp_path / "local")], [f"{home}/file"]),
        lambda: cache.open(f"{home}/file", "wb").close(),
        lambda: cache.rm_file(f"{home}/file"),
        lambda: cache.rm(f"{home}/file"),
        lambda: cache.rm(home, recursive=True),
        lambda: cache.mv(f"{home}/file", f"{home}/elsewhere"),
    ):
        fs.pipe_file(f"{home}/file", b"old")
        cache.cat_file(f"{home}/file")
        change()
        assert contents(folder) == []


def test_nothing_is_archived_if_the_block_raised(fs: NgasFileSystem, cached: Cached, home: str) -> None:
    with pytest.raises(RuntimeError), cached().open(f"{home}/file", "wb") as file:
        file.write(b"half")
        raise RuntimeError
    assert not fs.exists(f"{home}/file")


def test_files_of_a_transaction_appear_together(fs: NgasFileSystem, cached: Cached, home: str) -> None:
    cache = cached()
    with cache.transaction:
        for name in ("one", "two"):
            with cache.open(f"{home}/{name}", "wb") as file:
                file.write(b"content")
        assert not fs.exists(f"{home}/one")
    assert fs.exists(f"{home}/one")
    assert fs.exists(f"{home}/two")


# --- offline ---


def test_offline_reads_what_is_here_without_any_network(
    fs: NgasFileSystem, cached: Cached, home: str, tmp_path: Path, no_network_after: Callable[[], None]
) -> None:
    fs.pipe({f"{home}/a": b"one", f"{home}/sub/b": b"two", f"{home}/unread": b"three"})
    online = cached()
    online.get(f"{home}/sub/", f"{tmp_path}/ignored/", recursive=True)
    online.cat_file(f"{home}/a")
    online.find(home)
    assert not online.exists(f"{home}/missing")
    no_network_after()
    offline = cached("offline")
    assert offline.cat_file(f"{home}/a") == b"one"
    assert offline.find(home) == [f"{home}/a", f"{home}/sub/b", f"{home}/unread"]
    assert offline.glob(f"{home}/**/b") == [f"{home}/sub/b"]
    assert offline.isdir(f"{home}/sub")
    assert not offline.exists(f"{home}/missing")
    assert not offline.exists(f"{home}/never-asked-but-not-in-the-listing")
    assert offline.info(f"{home}/a")["stale"]
    assert [info["cached"] for info in offline.ls(home) if info["type"] == "file"] == [True, False]
    offline.get(f"{home}/sub/", f"{tmp_path}/target/", recursive=True)
    assert (tmp_path / "target" / "b").read_bytes() == b"two"


@pytest.mark.usefixtures("no_network")
def test_offline_a_miss_is_no_missing_file_but_an_error_that_says_what_to_do(cached: Cached, home: str) -> None:
    offline = cached("offline")
    for look in (offline.cat_file, offline.open, offline.info, offline.ls, offline.exists, offline.isdir, offline.find):
        with pytest.raises(NotInCache, match=rf"{home}/file.*DLG_ML_NGAS_CACHE=online") as caught:
            look(f"{home}/file")
        assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.usefixtures("no_network")
def test_offline_nothing_is_changed(cached: Cached, home: str, tmp_path: Path) -> None:
    offline = cached("offline")
    (tmp_path / "local").write_bytes(b"content")
    for change in (
        lambda: offline.pipe_file(f"{home}/file", b"content"),
        lambda: offline.open(f"{home}/file", "wb"),
        lambda: offline.open(f"{home}/file", "x"),
        lambda: offline.put(str(tmp_path / "local"), f"{home}/file"),
        lambda: offline.put_file(str(tmp_path / "local"), f"{home}/file"),
        lambda: offline.rm(f"{home}/file"),
        lambda: offline.mkdir(f"{home}/directory"),
        lambda: offline.mv(f"{home}/file", f"{home}/other"),
        lambda: offline.touch(f"{home}/file"),
        lambda: offline.check(f"{home}/file"),
    ):
        with pytest.raises(NotInCache, match="offline"):
            change()


def test_offline_a_file_that_is_only_listed_cannot_be_read(fs: NgasFileSystem, cached: Cached, home: str) -> None:
    fs.pipe_file(f"{home}/file", b"content")
    cached().ls(home)
    with pytest.raises(NotInCache, match=f"{home}/file"):
        cached("offline").cat_file(f"{home}/file")


def test_what_was_learnt_later_counts(fs: NgasFileSystem, cached: Cached, home: str) -> None:
    online, offline = cached(), cached("offline")
    fs.pipe_file(f"{home}/other", b"other")
    assert not online.exists(f"{home}/file")
    fs.pipe_file(f"{home}/file", b"content")
    online.ls(home)
    assert offline.exists(f"{home}/file")
    fs.rm_file(f"{home}/file")
    assert not online.exists(f"{home}/file")
    assert not offline.exists(f"{home}/file")


def test_a_directory_made_by_a_write_is_not_remembered_as_missing(cached: Cached, home: str) -> None:
    online, offline = cached(), cached("offline")
    online.ls("/")
    assert not online.exists(home)
    online.pipe_file(f"{home}/sub/file", b"content")
    for path in (home, f"{home}/sub"):
        with pytest.raises(NotInCache):
            offline.exists(path)


# --- prefer-cache ---


def test_an_archive_that_is_down_is_replaced_by_what_was_last_seen_with_one_warning_per_file(
    failing: Failing, cached: Cached, caplog: pytest.LogCaptureFixture
) -> None:
    failing.fs.pipe({"/d/a": b"one", "/d/b": b"two"})
    cache = cached("prefer-cache", fs=failing.fs)
    cache.cat("/d/*")
    assert not cache.info("/d/a")["stale"]
    failing.stop()
    with caplog.at_level(logging.WARNING, "dlg_ml_tasks.archive.cache"):
        for _ in range(3):
            assert cache.cat_file("/d/a") == b"one"
            assert cache.cat_file("/d/b") == b"two"
        assert cache.info("/d/a")["stale"]
        assert cache.ls("/d", detail=False) == ["/d/a", "/d/b"]
    assert sum("/d/a: using what was last seen" in record.getMessage() for record in caplog.records) == 1
    with pytest.raises(FileNotInArchive, match="when the archive was last asked"):
        cache.cat_file("/d/not-listed")
    with pytest.raises(ArchiveUnreachable):
        cache.cat_file("/other/never-seen")


def test_a_newer_version_is_preferred_while_the_archive_answers(failing: Failing, cached: Cached) -> None:
    cache = cached("prefer-cache", fs=failing.fs)
    for content in (b"old", b"new"):
        failing.fs.pipe_file("/file", content)
        assert cache.cat_file("/file") == content
    failing.stop()
    assert cache.cat_file("/file") == b"new"


def test_an_archive_that_says_nothing_is_given_up_after_the_time_limit_and_then_left_alone(
    failing: Failing, cached: Cached, no_network_after: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("asked with the archive's usual patience")

    failing.fs.pipe({"/a": b"one", "/b": b"two"})
    cache = cached("prefer-cache", fs=failing.fs, time_limit=0.3)
    cache.cat(["/a", "/b"])
    failing.fall_silent()
    monkeypatch.setattr(failing.fs.archive_tree, "lookup", refuse)
    assert cache.cat_file("/a") == b"one"
    no_network_after()
    assert cache.cat_file("/b") == b"two"


def test_an_unread_file_of_an_archive_that_is_down_is_asked_for_every_time(failing: Failing, cached: Cached) -> None:
    failing.fs.pipe({"/a": b"one"})
    cache = cached("prefer-cache", fs=failing.fs)
    cache.cat_file("/a")
    failing.stop()
    cache.cat_file("/a")
    with pytest.raises(ArchiveUnreachable):
        cache.cat_file("/b")


def test_a_new_version_that_cannot_be_fetched_leaves_the_old_copy_in_use(
    proxied_fs: NgasFileSystem, proxy: Any, fs: NgasFileSystem, cached: Cached, home: str
) -> None:
    cache = cached("prefer-cache", fs=proxied_fs, time_limit=5)
    fs.pipe_file(f"{home}/file", b"old")
    cache.cat_file(f"{home}/file")
    fs.pipe_file(f"{home}/file", b"new")
    proxy.answer = lambda request, forward: b"" if request.command == "RETRIEVE" else forward()
    assert cache.cat_file(f"{home}/file") == b"old"


# --- the folder ---


def test_the_least_recently_used_go_first(fs: NgasFileSystem, cached: Cached, home: str, folder: Path) -> None:
    cache = cached(limit=5000)
    fs.pipe({f"{home}/{number}": bytes([number]) * 1000 for number in range(8)})
    for number in range(8):
        cache.cat_file(f"{home}/{number}")
        cache.cat_file(f"{home}/0")
    kept = {path: cache.info(path)["cached"] for path in fs.find(home)}
    assert kept[f"{home}/0"]
    assert kept[f"{home}/7"]
    assert not kept[f"{home}/1"]
    assert cache.cache_size() <= 5000
    assert sum(path.stat().st_size for path in contents(folder)) == cache.cache_size()


def test_a_reader_keeps_its_file_when_room_is_made(fs: NgasFileSystem, cached: Cached, home: str) -> None:
    cache = cached(limit=2500)
    fs.pipe({f"{home}/{number}": bytes([number]) * 1000 for number in range(4)})
    with cache.open(f"{home}/0") as file:
        assert file.read(10) == bytes(10)
        for number in range(1, 4):
            cache.cat_file(f"{home}/{number}")
        assert not cache.info(f"{home}/0")["cached"]
        assert file.read() == bytes(990)


def test_a_file_larger_than_the_cache_is_read_from_the_archive(
    fs: NgasFileSystem, cached: Cached, home: str, tmp_path: Path, folder: Path
) -> None:
    cache = cached(limit=1000)
    fs.pipe({f"{home}/large": bytes(2000), f"{home}/small": b"small"})
    assert cache.cat_file(f"{home}/large") == bytes(2000)
    cache.get(f"{home}/", f"{tmp_path}/target/", recursive=True)
    cache.get_file(f"{home}/large", f"{tmp_path}/one")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "target" / "large").read_bytes() == bytes(2000)
    assert (tmp_path / "target" / "small").read_bytes() == b"small"
    assert sum(path.stat().st_size for path in contents(folder)) <= 1000


@pytest.mark.parametrize("size", [100, 3 << 20])
def test_a_damaged_copy_is_noticed_and_fetched_again(
    fs: NgasFileSystem, cached: Cached, home: str, folder: Path, size: int
) -> None:
    cache = cached()
    fs.pipe_file(f"{home}/file", bytes(size))
    for damage in (lambda content: content[:-1], lambda content: b"x" + content[1:]):
        cache.cat_file(f"{home}/file")
        (copy,) = contents(folder)
        content = copy.read_bytes()
        copy.chmod(0o600)
        copy.write_bytes(damage(content))
        assert cache.cat_file(f"{home}/file") == bytes(size)


def test_a_touched_copy_is_still_good(fs: NgasFileSystem, cached: Cached, home: str, folder: Path) -> None:
    cache = cached()
    fs.pipe_file(f"{home}/file", bytes(3 << 20))
    cache.cat_file(f"{home}/file")
    (copy,) = contents(folder)
    os.utime(copy, ns=(5, 5))
    assert cached("offline").cat_file(f"{home}/file") == bytes(3 << 20)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_copy_that_cannot_be_read_is_fetched_again(
    fs: NgasFileSystem, cached: Cached, home: str, folder: Path
) -> None:
    cache = cached()
    fs.pipe_file(f"{home}/file", b"content")
    cache.cat_file(f"{home}/file")
    contents(folder)[0].chmod(0)
    assert cache.cat_file(f"{home}/file") == b"content"


def test_what_a_dead_process_left_is_swept_away_after_a_day(
    fs: NgasFileSystem, cached: Cached, home: str, folder: Path
) -> None:
    cache = cached()
    fs.pipe_file(f"{home}/file", b"content")
    cache.cat_file(f"{home}/file")
    directory = contents(folder)[0].parent
    for name, age in (("old.part", 2 * 86400), ("new.part", 60)):
        (directory / name).touch()
        os.utime(directory / name, (0, time.time() - age))
    cache.clear_expired_cache(7 * 86400)
    assert {path.suffix for path in directory.iterdir()} >= {".part", ".json"}
    assert not (directory / "old.part").exists()
    assert (directory / "new.part").exists()
    assert cached("offline").cat_file(f"{home}/file") == b"content"


def test_nonsense_in_the_folder_is_never_believed(fs: NgasFileSystem, cached: Cached, home: str, folder: Path) -> None:
    cache = cached()
    fs.pipe_file(f"{home}/file", b"content")
    cache.cat_file(f"{home}/file")
    cache.ls(home)
    for nonsense in (b"", b"{", b"[]", b'{"name": "/../x", "type": "file", "said": 1}', pickle.dumps(print)):
        for record in folder.rglob("*.json"):
            record.write_bytes(nonsense)
        with pytest.raises(NotInCache):
            cached("offline").cat_file(f"{home}/file")
        assert cache.cat_file(f"{home}/file") == b"content"


def test_a_record_moved_to_another_path_is_not_believed(
    fs: NgasFileSystem, cached: Cached, home: str, folder: Path
) -> None:
    cache = cached()
    fs.pipe({f"{home}/a": b"one", f"{home}/b": b"two"})
    cache.cat(f"{home}/*")
    first, second = (next(folder.rglob(f"{naming.key(f'{home}/{name}')}.json")) for name in "ab")
    first.write_bytes(second.read_bytes())
    with pytest.raises(NotInCache):
        cached("offline").cat_file(f"{home}/a")
    assert cache.cat([f"{home}/a", f"{home}/b"]) == {f"{home}/a": b"one", f"{home}/b": b"two"}


def test_copies_are_private_and_cannot_be_changed_by_accident(
    fs: NgasFileSystem, cached: Cached, home: str, folder: Path
) -> None:
    fs.pipe_file(f"{home}/file", b"content")
    cached().cat_file(f"{home}/file")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o700 for path in folder.rglob("*") if path.is_dir())
    assert all(path.stat().st_mode & 0o777 == 0o400 for path in contents(folder))


def test_a_folder_that_others_can_write_is_refused(cached: Cached, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(CacheUnusable, match="DLG_ML_NGAS_CACHE_DIR"):
        cached()


def test_a_folder_that_cannot_be_made_is_one_clear_error(cached: Cached, folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(CacheUnusable, match=f"{folder}.*DLG_ML_NGAS_CACHE_DIR"):
        cached()


def test_a_full_local_disk_means_reading_from_the_archive(
    fs: NgasFileSystem, cached: Cached, home: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    cache = cached()
    fs.pipe_file(f"{home}/file", b"content")
    monkeypatch.setattr("dlg_ml_tasks.archive.cache.shelf.place", full)
    assert cache.cat_file(f"{home}/file") == b"content"
    assert cache.ls(home, detail=False) == [f"{home}/file"]
    assert not cache.exists(f"{home}/missing")
    assert "No space left" in caplog.text


# --- several processes, and crashes ---

READ = """
    import sys
    from dlg_ml_tasks.archive import NgasFileSystem
    from dlg_ml_tasks.archive.cache import NgasCacheFileSystem
    host, port, folder, path = sys.argv[1:]
    fs = NgasCacheFileSystem(fs=NgasFileSystem(host, int(port)), cache_mode="online", cache_storage=folder, limit=9_000_000)
    """


def _process(server: EmbeddedNgas, folder: Path, path: str, program: str) -> subprocess.Popen[bytes]:
    code = textwrap.dedent(READ) + textwrap.dedent(program)
    return subprocess.Popen([sys.executable, "-c", code, server.host, str(server.port), str(folder), path])


def test_processes_that_read_one_file_at_once_all_get_it(
    fs: NgasFileSystem, server: EmbeddedNgas, home: str, folder: Path
) -> None:
    fs.pipe({f"{home}/{number}": bytes([number]) * 2_000_000 for number in range(6)})
    program = """
        for _ in range(3):
            for number in range(6):
                assert fs.cat_file(f"{path}/{number}") == bytes([number]) * 2_000_000
        """
    processes = [_process(server, folder, home, program) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    store = CacheStore(folder, 9_000_000)
    assert all(store.is_intact(copy) for copy in store.copies())
    assert not list(folder.rglob("*.part"))


def test_a_process_killed_in_the_middle_leaves_nothing_that_is_read(
    fs: NgasFileSystem, server: EmbeddedNgas, home: str, folder: Path, cached: Cached
) -> None:
    fs.pipe_file(f"{home}/file", bytes(range(256)) * 20_000)
    program = """
        import os, signal
        from dlg_ml_tasks.archive.checksums import RunningChecksum
        update, seen = RunningChecksum.update, []
        def die(self, block):
            seen.append(block)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            update(self, block)
        RunningChecksum.update = die
        fs.cat_file(path)
        """
    assert _process(server, folder, f"{home}/file", program).wait(60) == -signal.SIGKILL
    assert list(folder.rglob("*.part"))
    with pytest.raises(NotInCache):
        cached("offline").cat_file(f"{home}/file")
    assert cached().cat_file(f"{home}/file") == bytes(range(256)) * 20_000
    assert not list(folder.rglob("*.part"))


def test_a_process_killed_before_its_record_is_written_leaves_nothing_that_is_read(
    fs: NgasFileSystem, server: EmbeddedNgas, home: str, folder: Path, cached: Cached
) -> None:
    fs.pipe_file(f"{home}/file", b"content")
    program = """
        import os, signal
        fs._shelf.keep = lambda answer: os.kill(os.getpid(), signal.SIGKILL)
        fs.cat_file(path)
        """
    assert _process(server, folder, f"{home}/file", program).wait(60) == -signal.SIGKILL
    assert len(contents(folder)) == 1
    with pytest.raises(NotInCache):
        cached("offline").cat_file(f"{home}/file")
    assert cached().cat_file(f"{home}/file") == b"content"


def test_threads_share_a_cache(fs: NgasFileSystem, cached: Cached, home: str) -> None:
    cache = cached(limit=20_000)
    fs.pipe({f"{home}/{number}": bytes([number]) * 5000 for number in range(8)})
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda number: cache.cat_file(f"{home}/{number % 8}"), range(64)))
    assert read == [bytes([number % 8]) * 5000 for number in range(64)]


# --- looking after the folder ---


def test_the_store_lists_verifies_and_clears(fs: NgasFileSystem, cached: Cached, home: str, folder: Path) -> None:
    cache = cached()
    fs.pipe({f"{home}/a": b"one", f"{home}/b": b"two!"})
    cache.cat(f"{home}/*")
    store = CacheStore(folder, 1000)
    a, b = sorted(store.copies(), key=lambda copy: copy.url)
    assert (a.url, b.url) == (fs.unstrip_protocol(f"{home}/a"), fs.unstrip_protocol(f"{home}/b"))
    assert (a.answer.size, b.answer.checksum, store.used()) == (3, fs.checksum(f"{home}/b"), 7)
    os.utime(a.content, (time.time() - 3 * 86400, a.content.stat().st_mtime))
    b.content.chmod(0o600)
    b.content.write_bytes(b"tw0!")
    assert [store.is_intact(copy) for copy in (a, b)] == [True, False]
    assert [copy.url for copy in store.copies()] == [a.url]
    store.clear(timedelta(days=4))
    assert len(list(store.copies())) == 1
    store.clear(timedelta(days=2))
    assert list(store.copies()) == []


def test_clearing_removes_all_the_cache_made_and_nothing_else(
    fs: NgasFileSystem, cached: Cached, home: str, folder: Path
) -> None:
    cache = cached()
    fs.pipe_file(f"{home}/file", b"content")
    cache.cat_file(f"{home}/file")
    cache.ls(home)
    cache.exists(f"{home}/missing")
    (folder / "mine.txt").write_text("of the user")
    (folder / "my_1").mkdir()
    (folder / "my_1" / "notes").write_text("of the user")
    cache.clear_cache()
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"mine.txt", "notes"}


def test_the_verbs_of_fsspecs_caches_work(fs: NgasFileSystem, cached: Cached, home: str) -> None:
    cache = cached()
    assert isinstance(cache, CachingFileSystem)
    fs.pipe({f"{home}/a": b"one", f"{home}/b": b"two"})
    cache.cat(f"{home}/*")
    assert cache.cache_size() == 6
    cache.pop_from_cache(f"{home}/a")
    assert cache.cache_size() == 3
    cache.clear_expired_cache(3600)
    assert cache.cache_size() == 3
    cache.clear_expired_cache(0)
    assert cache.cache_size() == 0


# --- by URL, and by the environment ---


def test_chained_urls_read_and_write_through_the_cache(server: EmbeddedNgas, home: str, folder: Path) -> None:
    url = f"ngascache::ngas://{server.host}:{server.port}{home}/file.txt"
    options = {"cache_storage": str(folder)}
    with fsspec.open(url, "w", **options) as file:
        file.write("content")
    assert contents(folder) == []
    with fsspec.open(url, "r", **options) as file:
        assert file.read() == "content"
    assert Path(fsspec.open_local(url, **options)).read_text() == "content"
    assert len(contents(folder)) == 1
    with fsspec.open_files(url.replace("file.txt", "*.txt"), **options) as files:
        assert [file.read() for file in files] == [b"content"]
    with fsspec.open_files([url.replace("file", str(n)) for n in range(3)], "wb", **options) as files:
        for file in files:
            file.write(b"many")
    fs, path = fsspec.url_to_fs(url, **options)
    assert fs.cat_file(path.replace("file", "2")) == b"many"


def test_a_cache_can_be_sent_to_another_process(fs: NgasFileSystem, cached: Cached, home: str) -> None:
    fs.pipe_file(f"{home}/file", b"content")
    cache = pickle.loads(pickle.dumps(cached("prefer-cache")))
    assert cache.mode is CacheMode.PREFER_CACHE
    assert cache.cat_file(f"{home}/file") == b"content"


def test_the_cache_is_for_this_archive_only(folder: Path) -> None:
    with pytest.raises(ValueError, match="ngascache is for ngas://"):
        fsspec.filesystem("ngascache", target_protocol="memory", cache_storage=str(folder))


def test_the_environment_chooses_between_the_archive_and_the_cache(
    server: EmbeddedNgas, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"ngas://{server.host}:{server.port}/a/b"
    monkeypatch.setenv("DLG_ML_NGAS_CACHE_DIR", str(folder))
    for off in ("", "off"):
        monkeypatch.setenv("DLG_ML_NGAS_CACHE", off)
        plain, path = open_archive(url)
        assert (type(plain), path) == (NgasFileSystem, "/a/b")
    for mode in CacheMode:
        monkeypatch.setenv("DLG_ML_NGAS_CACHE", mode.value)
        cache, path = open_archive(url)
        assert isinstance(cache, NgasCacheFileSystem)
        assert (cache.mode, cache.storage, path) == (mode, [str(folder)], "/a/b")


def test_settings_come_from_the_environment_with_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DLG_ML_NGAS_CACHE", "DLG_ML_NGAS_CACHE_DIR", "DLG_ML_NGAS_CACHE_BYTES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = cache_settings()
    assert (settings.mode, settings.folder, settings.limit) == (None, tmp_path / "dlg-ml-tasks" / "ngas", 10 << 30)
    monkeypatch.setenv("DLG_ML_NGAS_CACHE_BYTES", "3GiB")
    assert cache_settings().limit == 3 << 30


@pytest.mark.parametrize(
    ("name", "value"),
    [("DLG_ML_NGAS_CACHE", "on"), ("DLG_ML_NGAS_CACHE_BYTES", "much"), ("DLG_ML_NGAS_CACHE_BYTES", "-1")],
)
def test_a_setting_that_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}='{value}'"):
        cache_settings()
