"""Many small files in one object: what a user sees must not differ from files with objects of their own."""

from __future__ import annotations

import io
import os
import random
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.archive import (
    AccessRefused,
    ChecksumMismatch,
    FileStatus,
    NgasError,
    NgasFileSystem,
    ProtocolError,
    bulk,
    naming,
    packs,
)
from dlg_ml_tasks.archive.pack import INDEX_NAME
from dlg_ml_tasks.archive.server import EmbeddedNgas

pytestmark = pytest.mark.integration

ODD = {
    "with space": b"1",
    ".hidden": b"22",
    "a#b?c%d&e+f=g": b"",
    "star*[x]?": b"4444",
    "🛰️日本語": b"55555",
    "n" * 255: b"666666",
    INDEX_NAME: b"not an index",
}
Put = Callable[..., dict[str, bytes]]


@pytest.fixture
def fs(server: EmbeddedNgas) -> NgasFileSystem:
    return NgasFileSystem(server.host, server.port, timeout=10, patience=0, pack=3, skip_instance_cache=True)


@pytest.fixture
def other(server: EmbeddedNgas) -> NgasFileSystem:
    """The same archive, as another process sees it."""
    return NgasFileSystem(server.host, server.port, timeout=10, patience=0, pack=3, skip_instance_cache=True)


@pytest.fixture
def put(fs: NgasFileSystem, home: str, tmp_path: Path) -> Put:
    """Puts files (a dict, or this many made up) into a directory of the archive; returns contents by path."""

    def put_files(
        files: dict[str, bytes] | int = 5, *, into: str = home, by: NgasFileSystem = fs, salt: str = ""
    ) -> dict[str, bytes]:
        contents = (
            {f"file {number}": f"content {number} {salt}".encode() for number in range(files)}
            if isinstance(files, int)
            else files
        )
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        by.put([str(tmp_path / name) for name in contents], [f"{into}/{name}" for name in contents])
        return {f"{into}/{name}": content for name, content in contents.items()}

    return put_files


def objects(fs: NgasFileSystem, directory: str) -> list[FileStatus]:
    return fs._tree.copies(directory)


def packs_of(fs: NgasFileSystem, directory: str) -> list[FileStatus]:
    """Packs and removal records."""
    return [one for one in objects(fs, directory) if one.file_id.startswith(naming.pack_prefix(directory))]


def shown(fs: NgasFileSystem, directory: str) -> dict[str, bytes]:
    """What every way of looking says of the files in a directory; they must agree."""
    listed = fs.ls(directory) if fs.isdir(directory) else []
    contents = {}
    for info in listed:
        assert fs.info(info["name"]) == info
        assert fs.isfile(info["name"])
        contents[info["name"]] = fs.cat_file(info["name"])
        assert info["size"] == len(contents[info["name"]])
    return contents


# --- going in, and being seen ---


def test_many_small_files_of_one_directory_become_one_object(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str
) -> None:
    files = put(20)
    assert len(packs_of(fs, home)) == 1
    assert len(objects(fs, home)) == 1 + 1  # and the mark that says that there are packs
    assert shown(fs, home) == shown(other, home) == files


def test_odd_names_empty_files_and_large_ones_come_back(fs: NgasFileSystem, put: Put, home: str) -> None:
    files = put({**ODD, "large": os.urandom(bulk.SMALL_BYTES + 1)})
    # The large file and the one that is called like the index have objects of their own.
    assert len(packs_of(fs, home)) == 1
    assert len(objects(fs, home)) == 1 + 1 + 2
    assert shown(fs, home) == files


def test_info_of_a_packed_file_has_what_that_of_any_file_has(fs: NgasFileSystem, put: Put, home: str) -> None:
    put({"a": b"content", "b": b"", "c": b"other"})
    fs.pipe_file(f"{home}/alone", b"content")
    info, alone = fs.info(f"{home}/a"), fs.info(f"{home}/alone")
    assert info.keys() == alone.keys()
    assert info["checksum"] == fs.checksum(f"{home}/a") == f"crc32:{zlib.crc32(b'content')}"
    assert (info["size"], info["type"], info["version"]) == (7, "file", 1)
    assert fs.created(f"{home}/a") == info["created"]
    assert fs.modified(f"{home}/a") == info["modified"]


def test_few_or_unwanted_packs_are_not_made(server: EmbeddedNgas, fs: NgasFileSystem, put: Put, home: str) -> None:
    put(2)
    assert packs_of(fs, home) == []
    never = NgasFileSystem(server.host, server.port, pack="never", skip_instance_cache=True)
    put(20, into=f"{home}/never", by=never)
    assert packs_of(fs, f"{home}/never") == []


def test_by_default_packing_begins_where_it_pays_and_the_environment_can_forbid_it(
    server: EmbeddedNgas, put: Put, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = NgasFileSystem(server.host, server.port, skip_instance_cache=True)
    put(bulk.PACK_FROM - 1, by=default)
    assert packs_of(default, home) == []
    put(bulk.PACK_FROM, into=f"{home}/many", by=default)
    assert len(packs_of(default, f"{home}/many")) == 1
    monkeypatch.setenv("DLG_ML_NGAS_PACK", "never")
    forbidden = NgasFileSystem(server.host, server.port, skip_instance_cache=True)
    put(bulk.PACK_FROM, into=f"{home}/forbidden", by=forbidden)
    assert packs_of(default, f"{home}/forbidden") == []


@pytest.mark.parametrize("choice", ["always", 0, -1, "1.5", ""])
def test_a_choice_that_means_nothing_is_refused_with_what_to_write(choice: Any) -> None:
    with pytest.raises(ValueError, match="write auto, never, or a number"):
        NgasFileSystem("localhost", pack=choice, skip_instance_cache=True)


def test_packs_are_limited_in_size_and_number_of_files(
    fs: NgasFileSystem, put: Put, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "PACK_FILES", 4)
    put(10)
    assert len(packs_of(fs, home)) == 3
    monkeypatch.setattr(bulk, "PACK_BYTES", 1000)
    files = put({f"{number}": bytes(300) for number in range(7)}, into=f"{home}/sized")
    assert len(packs_of(fs, f"{home}/sized")) == 3
    assert shown(fs, f"{home}/sized") == files


def test_a_tree_is_packed_directory_by_directory(fs: NgasFileSystem, home: str, tmp_path: Path) -> None:
    for directory in ("", "a", "a/b"):
        (tmp_path / directory).mkdir(exist_ok=True)
        for number in range(4):
            (tmp_path / directory / str(number)).write_text(f"{directory} {number}")
    (tmp_path / "empty").mkdir()
    fs.put(f"{tmp_path}/", home, recursive=True)
    assert [len(packs_of(fs, f"{home}{directory}")) for directory in ("", "/a", "/a/b")] == [1, 1, 1]
    fs.get(f"{home}/", str(tmp_path / "back"), recursive=True)
    there = {
        path.relative_to(tmp_path / "back"): path.is_file() and path.read_bytes()
        for path in (tmp_path / "back").rglob("*")
    }
    assert there == {
        path.relative_to(tmp_path): path.is_file() and path.read_bytes()
        for path in tmp_path.rglob("*")
        if "back" not in path.parts
    }


def test_what_is_there_already_is_not_sent_again(proxied_fs: NgasFileSystem, proxy: Any, put: Put, home: str) -> None:
    put(20, by=proxied_fs)
    proxy.requests.clear()
    put(20, by=proxied_fs)
    assert "QARCHIVE" not in proxy.commands
    put({"file 7": b"changed", "file 8": b"content 8 "}, by=proxied_fs)
    assert proxy.commands.count("QARCHIVE") == 1 + 1  # two files look too few to ask what packs hold


def test_only_what_changed_is_sent(fs: NgasFileSystem, put: Put, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = put(10)
    sent: list[int] = []
    archive = fs._tree.client.archive
    monkeypatch.setattr(fs._tree.client, "archive", lambda *a, **k: sent.append(1) or archive(*a, **k))
    files |= put({**{f"file {number}": f"content {number} ".encode() for number in range(10)}, "file 3": b"changed"})
    assert len(sent) == 1
    assert shown(fs, home) == files


def test_a_directory_without_packs_is_never_searched_for_them(
    proxied_fs: NgasFileSystem, proxy: Any, home: str
) -> None:
    """A query costs a scan of the whole archive."""
    proxied_fs.pipe_file(f"{home}/file", b"content")
    assert not proxied_fs.exists(f"{home}/missing")
    with pytest.raises(FileNotFoundError):
        proxied_fs.cat_file(f"{home}/missing")
    proxied_fs.pipe_file(f"{home}/new", b"content", mode="create")
    proxied_fs.makedirs(f"{home}/below")
    proxied_fs.rm_file(f"{home}/file")
    assert "QUERY" not in proxy.commands


def test_what_is_packed_while_its_directory_is_removed_can_be_read(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(5, salt="old")
    archive = fs._tree.client.archive

    def remove_after(*arguments: Any, **options: Any) -> FileStatus:
        stored = archive(*arguments, **options)
        if arguments[1] == naming.packs_mark(home).file_id:
            monkeypatch.setattr(fs._tree.client, "archive", archive)
            other.rm(home, recursive=True)
        return stored

    monkeypatch.setattr(fs._tree.client, "archive", remove_after)
    files = put(5, salt="new")
    assert {path: other.cat_file(path) for path in files} == files


def test_reading_many_packed_files_one_by_one_asks_for_the_mark_and_the_index_once(
    proxied_fs: NgasFileSystem, proxy: Any, put: Put, home: str
) -> None:
    files = put(5)
    assert {path: proxied_fs.cat_file(path) for path in files} == files
    assert proxy.commands.count("STATUS") == 5 + 1
    assert proxy.commands.count("QUERY") == 5
    assert proxy.commands.count("RETRIEVE") == 5 + 1


# --- reading ---


def test_all_files_of_a_pack_come_by_one_request(
    proxied_fs: NgasFileSystem, proxy: Any, put: Put, home: str, tmp_path: Path
) -> None:
    files = put(50)
    proxied_fs.get(home, str(tmp_path / "out"), recursive=True)
    assert {f"{home}/{path.name}": path.read_bytes() for path in (tmp_path / "out").iterdir()} == files
    assert proxy.commands.count("RETRIEVE") == 2  # the index, and the files


def test_members_far_apart_come_by_requests_of_their_own(
    proxied_fs: NgasFileSystem, proxy: Any, put: Put, home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = put(9)
    monkeypatch.setattr(bulk, "GAP_BYTES", 1500)
    wanted = [f"{home}/file {number}" for number in (0, 1, 5, 8)]
    proxied_fs.get(wanted, [str(tmp_path / "out" / Path(path).name) for path in wanted])
    assert {f"{home}/{path.name}": path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        path: files[path] for path in wanted
    }
    assert proxy.commands.count("RETRIEVE") == 1 + 3


def test_a_tree_is_looked_at_once_to_be_fetched(
    proxied_fs: NgasFileSystem, proxy: Any, put: Put, home: str, tmp_path: Path
) -> None:
    directories = [f"{home}/{name}" for name in ("a", "b", "c")]
    for directory in directories:
        put(2, into=directory)
    put(4, into=home)
    proxied_fs.get(f"{home}/", str(tmp_path / "out"), recursive=True)
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 2 * 3 + 4
    assert proxy.commands.count("QUERY") == 1 + 3
    assert proxy.commands.count("RETRIEVE") == 1 + 1 + 2 * 3
    assert proxy.commands.count("STATUS") <= 3  # of the directory itself


def test_a_directory_whose_name_looks_like_a_pattern_is_fetched_as_itself(
    fs: NgasFileSystem, put: Put, home: str, tmp_path: Path
) -> None:
    put(4, into=f"{home}/[a]")
    fs.makedirs(f"{home}/[b]")
    for name in ("[a]", "[b]"):
        fs.get(f"{home}/{name}/", str(tmp_path / "out" / name), recursive=True)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == [
        "[a]",
        "[b]",
        *(f"file {n}" for n in range(4)),
    ]


def test_one_file_can_go_to_several_places_and_into_open_files(
    fs: NgasFileSystem, put: Put, home: str, tmp_path: Path
) -> None:
    put(5)
    sink, path = io.BytesIO(), f"{home}/file 2"
    fs.get([path, path, path], [str(tmp_path / "x" / "a"), str(tmp_path / "y" / "b"), sink])
    assert (
        (tmp_path / "x" / "a").read_bytes() == (tmp_path / "y" / "b").read_bytes() == sink.getvalue() == b"content 2 "
    )


def test_a_missing_file_is_noticed_before_anything_is_fetched(
    fs: NgasFileSystem, put: Put, home: str, tmp_path: Path
) -> None:
    put(5)
    with pytest.raises(FileNotFoundError, match="missing"):
        fs.get([f"{home}/file 1", f"{home}/missing"], [str(tmp_path / "a"), str(tmp_path / "b")])
    assert not (tmp_path / "a").exists()


def test_parts_of_a_packed_file_are_read(fs: NgasFileSystem, put: Put, home: str, tmp_path: Path) -> None:
    put({"a": b"0123456789", "b": b"abc", "c": b""})
    path = f"{home}/a"
    assert fs.cat_file(path, 2, 5) == b"234"
    assert fs.cat_file(path, -3) == b"789"
    assert fs.head(path, 4) == b"0123"
    with fs.open(path, block_size=4) as file:
        assert file.read(3) == b"012"
        file.seek(8)
        assert file.read() == b"89"
    with fs.open(path, "r") as file:
        assert file.read() == "0123456789"
    with fs.open(f"{home}/c") as file:
        assert file.read() == b""
    fs.get_file(path, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"0123456789"
    assert fs.cat([path, f"{home}/b"]) == {path: b"0123456789", f"{home}/b": b"abc"}


@pytest.mark.parametrize("way", ["get", "get_file", "cat_file", "open"])
def test_a_damaged_file_never_arrives(
    way: str, proxied_fs: NgasFileSystem, proxy: Any, put: Put, home: str, tmp_path: Path
) -> None:
    put(5)
    proxy.answer = lambda request, forward: forward().replace(b"content 3", b"c0ntent 3")
    path, out = f"{home}/file 3", tmp_path / "out"
    ways: dict[str, Callable[[], object]] = {
        "get": lambda: proxied_fs.get(home, str(out), recursive=True),
        "get_file": lambda: proxied_fs.get_file(path, out / "file 3"),
        "cat_file": lambda: proxied_fs.cat_file(path),
        "open": lambda: proxied_fs.open(path).read(),
    }
    with pytest.raises(ChecksumMismatch, match=path):
        ways[way]()
    assert all(found.read_bytes() != b"c0ntent 3 " and ".part" not in found.name for found in out.rglob("*.*"))
    assert not (out / "file 3").exists()


def test_an_index_that_arrives_damaged_is_refused(proxied_fs: NgasFileSystem, proxy: Any, put: Put, home: str) -> None:
    files = put(5)
    honest = proxy.answer
    proxy.answer = lambda request, forward: forward().replace(b'"offset":512', b'"offset":513')
    with pytest.raises(ChecksumMismatch, match=rf"index of a pack arrived damaged.*{home}"):
        proxied_fs.ls(home)
    proxy.answer = honest
    assert proxied_fs.ls(home, detail=False) == sorted(files)


def test_check_finds_damage_on_the_servers_disk(tmp_path: Path, put: Put, home: str) -> None:
    with EmbeddedNgas(tmp_path / "root") as damaged:
        fs = NgasFileSystem(damaged.host, damaged.port, patience=0, pack=3, skip_instance_cache=True)
        put({name: os.urandom(100_000) for name in "abc"}, by=fs)
        fs.check(f"{home}/a")
        stored = max(
            (path for path in (tmp_path / "root").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
        )
        content = bytearray(stored.read_bytes())
        content[5000] ^= 1
        stored.write_bytes(content)
        with pytest.raises(ChecksumMismatch, match=f"{home}/b"):
            fs.check(f"{home}/b")


def test_every_copy_of_a_pack_that_is_no_longer_needed_goes(
    fs: NgasFileSystem, put: Put, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive that replicates has several copies of each object."""
    put(5)
    (only,) = packs_of(fs, home)
    twin = replace(only, disk_id="another disk")
    discarded: list[FileStatus] = []
    query = fs._tree.client.query
    monkeypatch.setattr(fs._tree.client, "query", lambda like: [twin, *query(like)])
    monkeypatch.setattr(fs._tree.client, "discard", discarded.append)
    fs.rm([f"{home}/file {number}" for number in range(5)])
    assert {copy.disk_id for copy in discarded} == {only.disk_id, "another disk"}


def test_a_pack_of_a_format_unknown_here_is_an_error_and_can_be_removed(
    fs: NgasFileSystem, put: Put, home: str
) -> None:
    put(5)
    name = naming.pack_name(home, naming.PackLabel(9, 0, zlib.crc32(b"{}")))
    fs._tree.client.archive(b"{}", *name)
    with pytest.raises(ProtocolError, match=rf"{home} is not readable.*{name.file_id}.*tar file"):
        fs.ls(home)
    fs.rm(home, recursive=True)
    assert objects(fs, home) == []


def test_a_pack_that_goes_while_a_directory_is_looked_at_is_no_error(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(5, salt="old")
    query = other._tree.client.query

    def query_then_replace(like: str) -> list[FileStatus]:
        found = query(like)
        monkeypatch.setattr(other._tree.client, "query", query)
        put(5, salt="new")
        return found

    monkeypatch.setattr(other._tree.client, "query", query_then_replace)
    assert other.cat_file(f"{home}/file 1") == b"content 1 new"


def test_a_file_that_leaves_its_pack_while_it_is_looked_for_is_found(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(8)
    query = other._tree.client.query

    def replace_then_query(like: str) -> list[FileStatus]:
        monkeypatch.setattr(other._tree.client, "query", query)
        put({f"file {number}": os.urandom(bulk.SMALL_BYTES + 1) for number in range(8)})
        return query(like)

    monkeypatch.setattr(other._tree.client, "query", replace_then_query)
    assert other.size(f"{home}/file 1") == bulk.SMALL_BYTES + 1


def test_caches_can_tell_contents_apart(fs: NgasFileSystem, put: Put, home: str) -> None:
    put({"a": b"same", "b": b"same", "c": b""})
    fs.pipe_file(f"{home}/alone", b"same")
    keys = [fs.ukey(f"{home}/{name}") for name in ("a", "b", "c", "alone")]
    assert [fs.ukey(f"{home}/{name}") for name in ("a", "b", "c", "alone")] == keys
    fs.pipe_file(f"{home}/a", b"other")
    fs.pipe_file(f"{home}/alone", b"other")
    keys += [fs.ukey(f"{home}/{name}") for name in ("a", "alone")]
    assert len(set(keys)) == 6


# --- writing over, removing ---


def test_a_file_written_alone_comes_before_its_pack_and_stays_removed(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str
) -> None:
    files = put(5)
    files[f"{home}/file 2"] = b"new"
    fs.pipe_file(f"{home}/file 2", b"new")
    assert shown(other, home) == files
    fs.rm_file(f"{home}/file 2")
    del files[f"{home}/file 2"]
    assert shown(other, home) == files
    assert not other.exists(f"{home}/file 2")


def test_a_newer_pack_comes_before_an_older_one_which_goes_when_nothing_of_it_is_left(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str
) -> None:
    files = put(8, salt="old")
    files |= put(4, salt="new")
    assert len(packs_of(fs, home)) == 2
    assert shown(other, home) == files
    assert put(8, salt="newest") == shown(other, home)
    assert len(packs_of(fs, home)) == 1


def test_a_pack_goes_when_files_of_their_own_have_replaced_all_of_it(fs: NgasFileSystem, put: Put, home: str) -> None:
    put(4)
    files = put({f"file {number}": os.urandom(bulk.SMALL_BYTES + 1) for number in range(8)})
    assert packs_of(fs, home) == []
    assert shown(fs, home) == files


def test_the_newest_pack_counts_whatever_its_id(
    fs: NgasFileSystem, put: Put, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token in ("b" * 26, "a" * 26, "c" * 26, "a" * 25 + "b"):
        monkeypatch.setattr(naming, "_token", lambda token=token: token)
        files = put({**{f"file {number}": f"by {token}".encode() for number in range(3)}, token: b"keeps the pack"})
    assert len(packs_of(fs, home)) == 4
    assert files.items() <= shown(fs, home).items()


def test_a_removed_file_is_gone_and_the_others_stay(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str
) -> None:
    files = put(6)
    for name in ("file 1", "file 4"):
        fs.rm_file(f"{home}/{name}")
        del files[f"{home}/{name}"]
        assert not other.exists(f"{home}/{name}")
        with pytest.raises(FileNotFoundError, match=name):
            other.cat_file(f"{home}/{name}")
        with pytest.raises(FileNotFoundError, match=name):
            fs.rm_file(f"{home}/{name}")
        assert shown(other, home) == files
    assert len(packs_of(fs, home)) == 2  # the pack, and one record of both removals


def test_when_the_last_file_goes_no_byte_stays(fs: NgasFileSystem, put: Put, home: str) -> None:
    for path in put(5):
        fs.rm_file(path)
    assert objects(fs, home) == []
    put(5)
    put(5, salt="newer")
    fs.rm(f"{home}/*")
    assert objects(fs, home) == []


def test_many_removals_cost_few_requests(proxied_fs: NgasFileSystem, proxy: Any, put: Put, home: str) -> None:
    files = put(30)
    proxy.requests.clear()
    proxied_fs.rm([path for path in files if "1" in path])
    assert len(proxied_fs.ls(home)) == len([path for path in files if "1" not in path])
    assert len(proxy.commands) < 15


def test_long_records_are_not_written_anew(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "MERGED_BYTES", 300)
    files = put({f"a long name {'x' * 30} {number}": b"content" for number in range(20)})
    for path in list(files)[:12]:
        fs.rm_file(path)
        del files[path]
    records = [one for one in packs_of(fs, home) if one.filename.endswith(".removed.bin")]
    assert 1 < len(records) < 12
    assert shown(other, home) == files
    for path in files:
        fs.rm_file(path)
    assert objects(fs, home) == []


def test_a_removed_file_can_be_put_again_alone_or_in_a_pack(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str
) -> None:
    files = put(5)
    fs.rm([f"{home}/file 1", f"{home}/file 2", f"{home}/file 3", f"{home}/file 4"])
    files = {f"{home}/file 0": files[f"{home}/file 0"]} | put({"file 1": b"alone"})
    files |= put(dict.fromkeys(("file 2", "file 3", "file 4"), b"packed"))
    assert len(packs_of(fs, home)) == 3
    assert shown(other, home) == files


def test_removing_several_files_removes_none_if_one_is_missing(fs: NgasFileSystem, put: Put, home: str) -> None:
    files = put(5)
    with pytest.raises(FileNotFoundError, match="missing"):
        fs.rm([f"{home}/file 1", f"{home}/missing"])
    assert shown(fs, home) == files


def test_a_directory_with_packed_files_is_not_empty(fs: NgasFileSystem, put: Put, home: str) -> None:
    files = put(5)
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir(home)
    fs.rm(list(files)[:4])
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir(home)
    fs.rm(list(files)[4:])
    fs.rmdir(home)
    assert not fs.exists(home)


def test_removing_a_tree_removes_packs_and_records(fs: NgasFileSystem, put: Put, home: str) -> None:
    put(5)
    put(5, into=f"{home}/below")
    put(4, into=f"{home}/below", salt="newer")
    fs.rm_file(f"{home}/below/file 0")
    fs.rm(home, recursive=True)
    assert objects(fs, home) == objects(fs, f"{home}/below") == []
    assert not fs.exists(home)


def test_a_directory_cannot_take_the_place_of_a_packed_file_nor_a_file_of_a_directory(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str
) -> None:
    files = put(5)
    for write in (
        lambda: other.makedirs(f"{home}/file 1", exist_ok=True),
        lambda: other.pipe_file(f"{home}/file 1/below", b"content"),
        lambda: other.pipe_file(f"{home}/file 1/far/below", b"content"),
        lambda: put(5, into=f"{home}/file 1/far", by=other),
    ):
        with pytest.raises(NotADirectoryError, match="file 1"):
            write()
    with pytest.raises(FileExistsError):
        other.mkdir(f"{home}/file 1")
    fs.makedirs(f"{home}/directory")
    with pytest.raises(IsADirectoryError, match="directory"):
        put({"directory": b"x", "b": b"x", "c": b"x", "d": b"x"})
    assert fs.isdir(f"{home}/directory")
    assert files.items() <= {path: fs.cat_file(path) for path in files}.items()


def test_create_mode_does_not_replace_a_packed_file(fs: NgasFileSystem, put: Put, home: str) -> None:
    files = put(5)
    with pytest.raises(FileExistsError, match="file 1"):
        fs.pipe_file(f"{home}/file 1", b"other", mode="create")
    with pytest.raises(FileExistsError, match="file 1"):
        fs.open(f"{home}/file 1", "xb")
    assert shown(fs, home) == files


def test_packed_files_are_copied_and_moved(fs: NgasFileSystem, put: Put, home: str) -> None:
    files = put(5)
    fs.cp_file(f"{home}/file 1", f"{home}/copy")
    fs.mv(f"{home}/file 2", f"{home}/moved")
    contents = files | {f"{home}/copy": b"content 1 ", f"{home}/moved": b"content 2 "}
    del contents[f"{home}/file 2"]
    assert shown(fs, home) == contents
    fs.mv(home, f"{home}-elsewhere", recursive=True)
    assert not fs.exists(home)
    assert shown(fs, f"{home}-elsewhere") == {
        path.replace(home, f"{home}-elsewhere"): content for path, content in contents.items()
    }


# --- two processes, and one that dies ---


def test_a_removal_spares_what_another_process_packs_meanwhile(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str
) -> None:
    put(5, salt="old")
    before = fs._tree.packs.look(home)
    files = put({**{f"file {number}": b"new" for number in range(4)}}, by=other)
    fs._tree.packs.remove(before, {"file 1"})
    assert files.items() <= shown(fs, home).items()


def test_two_processes_that_remove_at_the_same_time_remove_both(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str
) -> None:
    files = put(6)
    fs.rm_file(f"{home}/file 5")
    before = fs._tree.packs.look(home)
    other.rm_file(f"{home}/file 1")
    fs._tree.packs.remove(before, {"file 2"})
    for gone in ("file 1", "file 2", "file 5"):
        del files[f"{home}/{gone}"]
    assert shown(fs, home) == shown(other, home) == files


def test_two_processes_that_clean_up_at_the_same_time_do_not_both_discard_what_the_other_keeps(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str
) -> None:
    files = put(4)
    before = fs._tree.packs.look(home)
    for one in (fs, other):
        one._tree.packs.remove(before, {"file 1"})  # two records that say the same
    seen = fs._tree.packs.look(home)
    assert len(seen.records) == 2
    # A query answers in no order.
    ordered = [fs._tree.packs.read(home, copies) for copies in (objects(fs, home), objects(fs, home)[::-1])]
    for one, looked in zip((fs, other), ordered, strict=True):
        one._tree.packs.tidy(looked, frozenset())
    del files[f"{home}/file 1"]
    assert shown(fs, home) == files
    assert len(packs_of(fs, home)) == 2


def test_packs_of_the_same_age_do_not_lose_each_others_files(
    fs: NgasFileSystem, other: NgasFileSystem, put: Put, home: str, tmp_path: Path
) -> None:
    (tmp_path / "local").write_bytes(b"content")
    put(3)
    sequence = fs._tree.packs.look(home).next_sequence
    for one, name in ((fs, "mine"), (other, "theirs")):
        one._tree.packs.add(home, sequence, [(name, tmp_path / "local"), ("both", tmp_path / "local")])
    assert {"mine", "theirs", "both", "file 0", "file 1", "file 2"} == {Path(path).name for path in shown(fs, home)}


@pytest.mark.parametrize("kept", [{"b": b"b"}, {}], ids=["some", "all"])
def test_a_process_that_dies_while_removing_never_brings_an_old_file_back(
    kept: dict[str, bytes], fs: NgasFileSystem, proxy: Any, put: Put, home: str
) -> None:
    """The connection is cut before the first, second, … request that changes something, until none is cut any more."""
    for allowed in range(20):
        directory = f"{home}/{allowed}"
        put({"twice": b"old", "a": b"a", "b": b"b", "removed": b"before"}, into=directory)
        fs.rm_file(f"{directory}/removed")
        put({"twice": b"new", "c": b"c", "d": b"d"}, into=directory)
        fs.pipe_file(f"{directory}/a", b"alone")
        dying = NgasFileSystem(proxy.host, proxy.port, timeout=10, patience=0, skip_instance_cache=True)
        changes = 0

        def cut(request: Any, forward: Callable[[], bytes], allowed: int = allowed) -> bytes:
            nonlocal changes
            changes += request.command in ("QARCHIVE", "DISCARD")
            return forward() if changes <= allowed else b""

        proxy.answer = cut
        newest = {
            f"{directory}/{name}": content
            for name, content in {"twice": b"new", "a": b"alone", "b": b"b", "c": b"c", "d": b"d"}.items()
        }
        staying = {f"{directory}/{name}": content for name, content in kept.items()}
        try:
            dying.rm([path for path in newest if path not in staying])
        except NgasError:
            died = True
        else:
            died = False
        left = shown(fs, directory)
        assert staying.items() <= left.items() <= newest.items()
        if not died:
            assert left == staying
            # Some: a new record, a pack, the old record. All: two packs, the record, the mark. And an object of its own.
            assert allowed == (4 if kept else 5)
            return
        fs.rm([path for path in left if path not in staying])
        assert shown(fs, directory) == staying
    pytest.fail("the removal never got through")


def test_a_process_that_dies_while_packing_leaves_the_old_files_or_the_new(
    fs: NgasFileSystem, proxy: Any, put: Put, home: str
) -> None:
    for allowed in range(10):
        directory = f"{home}/{allowed}"
        old, changes = put(5, into=directory, salt="old"), 0
        dying = NgasFileSystem(proxy.host, proxy.port, timeout=10, patience=0, pack=3, skip_instance_cache=True)

        def cut(request: Any, forward: Callable[[], bytes], allowed: int = allowed) -> bytes:
            nonlocal changes
            changes += request.command in ("QARCHIVE", "DISCARD")
            return forward() if changes <= allowed else b""

        proxy.answer = cut
        new = {path: content.replace(b"old", b"new") for path, content in old.items()}
        try:
            put(5, into=directory, by=dying, salt="new")
        except NgasError:
            assert shown(fs, directory) in (old, new)
            assert put(5, into=directory, salt="new") == shown(fs, directory)
            continue
        assert shown(fs, directory) == new
        assert allowed > 1
        return
    pytest.fail("the files never got through")


def test_a_user_who_may_not_discard_can_put_packs(
    fs: NgasFileSystem, put: Put, home: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(5, salt="old")

    def refuse(copies: list[FileStatus]) -> None:
        raise AccessRefused("Unauthorized access denied", server="here:7777")

    monkeypatch.setattr(fs._tree.client, "discard_all", refuse)
    assert put(5, salt="new") == shown(fs, home)
    assert f"packs of {home} that are no longer needed stay" in caplog.text


# --- any sequence of operations ---


@pytest.mark.parametrize("seed", range(5))
def test_any_sequence_of_operations_by_two_processes_leaves_what_a_dictionary_would_hold(
    seed: int, fs: NgasFileSystem, other: NgasFileSystem, home: str, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    names = ["a", "b b", "日本", "d*", "e" * 200, ".f", "g%41", "h"]
    model: dict[str, bytes] = {}

    def some(of: list[str]) -> list[str]:
        return chance.sample(of, chance.randint(1, len(of)))

    def content() -> bytes:
        return chance.choice([b"", b"same", chance.randbytes(chance.randint(1, 3000))])

    for step in range(40):
        acting = chance.choice([fs, other])
        present = sorted(model)
        operation = chance.choice(["put", "put", "put", "pipe", "rm_file", "rm", "mv", "cp", "rmtree"])
        if operation == "put":
            files = {name: content() for name in some(names)}
            for name, body in files.items():
                (tmp_path / name).write_bytes(body)
            acting.put([str(tmp_path / name) for name in files], [f"{home}/{name}" for name in files])
            model |= {f"{home}/{name}": body for name, body in files.items()}
        elif operation == "pipe":
            path = f"{home}/{chance.choice(names)}"
            model[path] = content()
            acting.pipe_file(path, model[path])
        elif operation == "rmtree" and present and chance.random() < 0.3:
            acting.rm(home, recursive=True)
            fs.invalidate_cache()
            other.invalidate_cache()
            model.clear()
        elif operation == "rm" and present:
            gone = some(present)
            acting.rm([path.replace("*", "[*]") for path in gone])
            for path in gone:
                del model[path]
        elif operation in ("rm_file", "mv", "cp") and present:
            path, target = chance.choice(present), f"{home}/{chance.choice(names)}"
            if operation == "rm_file":
                acting.rm_file(path)
                del model[path]
            elif path != target:
                acting.cp_file(path, target)
                model[target] = model[path]
                if operation == "mv":
                    acting.rm_file(path)
                    del model[path]
        if step % 4 == 3:
            looking = chance.choice([fs, other])
            assert shown(looking, home) == model
            out = tmp_path / f"out {step}"
            if model:
                looking.get(f"{home}/", str(out), recursive=True)
                assert {f"{home}/{path.name}": path.read_bytes() for path in out.iterdir()} == model
    assert shown(other, home) == model
    for path in list(model):
        fs.rm_file(path)
    assert objects(fs, home) == []
