from __future__ import annotations

import pickle
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dlg_ml_tasks.archive import ChecksumMismatch, NgasFileSystem, naming
from dlg_ml_tasks.archive.checksums import checksum_of
from dlg_ml_tasks.archive.server import EmbeddedNgas

pytestmark = pytest.mark.integration

HARD_NAMES = [
    "with space",
    ".hidden",
    "a#b?c%d&e+f=g;h",
    "%41",
    "star*[x]?",
    "x.bin.bin",
    unicodedata.normalize("NFC", "é.dat"),
    unicodedata.normalize("NFD", "é.dat"),
    "🛰️日本語",
    "n" * 200,
    "日" * 66,
]


@pytest.fixture
def other(server: EmbeddedNgas) -> NgasFileSystem:
    """The same archive, as another process sees it."""
    return NgasFileSystem(server.host, server.port, patience=0, skip_instance_cache=True)


@pytest.fixture
def tree(fs: NgasFileSystem, home: str) -> str:
    """A small tree: two files, an empty one, a directory whose name begins like another's."""
    fs.pipe(
        {
            f"{home}/abc/one.txt": b"one",
            f"{home}/abc/sub/two.txt": b"two!",
            f"{home}/abcd/three.txt": b"three",
            f"{home}/empty": b"",
        }
    )
    return home


# --- looking ---


def test_a_listing_shows_files_and_directories_by_name(fs: NgasFileSystem, tree: str) -> None:
    assert [(entry["name"], entry["type"], entry["size"]) for entry in fs.ls(tree)] == [
        (f"{tree}/abc", "directory", 0),
        (f"{tree}/abcd", "directory", 0),
        (f"{tree}/empty", "file", 0),
    ]
    assert fs.ls(f"{tree}/abc/", detail=False) == [f"{tree}/abc/one.txt", f"{tree}/abc/sub"]


def test_a_listing_of_a_file_is_the_file(fs: NgasFileSystem, tree: str) -> None:
    assert fs.ls(f"{tree}/abc/one.txt", detail=False) == [f"{tree}/abc/one.txt"]


def test_a_listing_of_nothing_is_a_file_not_found_error_with_the_path(fs: NgasFileSystem, home: str) -> None:
    with pytest.raises(FileNotFoundError, match=home):
        fs.ls(home)


def test_a_directory_whose_name_begins_like_anothers_is_kept_apart(fs: NgasFileSystem, tree: str) -> None:
    fs.rm(f"{tree}/abc", recursive=True)
    assert fs.find(tree) == [f"{tree}/abcd/three.txt", f"{tree}/empty"]


def test_info_tells_size_checksum_time_and_kind(fs: NgasFileSystem, tree: str) -> None:
    info = fs.info(f"{tree}/abc/one.txt")
    assert (info["name"], info["size"], info["type"]) == (f"{tree}/abc/one.txt", 3, "file")
    assert info["checksum"] == fs.checksum(f"{tree}/abc/one.txt") == str(checksum_of(b"one", "crc32c"))
    for time in (info["created"], fs.created(info["name"]), fs.modified(info["name"])):
        assert abs(datetime.now(timezone.utc) - time) < timedelta(hours=1)
    assert fs.info(f"{tree}/abc")["type"] == "directory"
    assert fs.info("/")["type"] == "directory"


def test_a_listing_says_the_same_of_a_file_as_info(fs: NgasFileSystem, tree: str) -> None:
    assert [fs.info(entry["name"]) for entry in fs.ls(tree)] == fs.ls(tree)


def test_files_and_directories_are_told_apart(fs: NgasFileSystem, tree: str) -> None:
    assert fs.isfile(f"{tree}/empty")
    assert not fs.isdir(f"{tree}/empty")
    assert fs.isdir(f"{tree}/abc")
    assert not fs.isfile(f"{tree}/abc")
    assert fs.isdir("/")
    assert fs.exists("/")
    assert not fs.isfile("/")
    for look in (fs.exists, fs.isfile, fs.isdir):
        assert not look(f"{tree}/missing")


def test_walk_find_glob_and_du_agree(fs: NgasFileSystem, tree: str) -> None:
    files = [f"{tree}/abc/one.txt", f"{tree}/abc/sub/two.txt", f"{tree}/abcd/three.txt", f"{tree}/empty"]
    assert fs.find(tree) == files
    assert list(fs.walk(tree)) == [
        (tree, ["abc", "abcd"], ["empty"]),
        (f"{tree}/abc", ["sub"], ["one.txt"]),
        (f"{tree}/abc/sub", [], ["two.txt"]),
        (f"{tree}/abcd", [], ["three.txt"]),
    ]
    assert fs.glob(f"{tree}/**/t*.txt") == [f"{tree}/abc/sub/two.txt", f"{tree}/abcd/three.txt"]
    assert fs.glob(f"{tree}/*") == [f"{tree}/abc", f"{tree}/abcd", f"{tree}/empty"]
    assert fs.du(tree) == 12


def test_one_exact_request_tells_what_a_path_is(proxied_fs: NgasFileSystem, proxy: Any, tree: str) -> None:
    for look in (proxied_fs.exists, proxied_fs.isfile, proxied_fs.isdir, proxied_fs.info):
        proxy.requests.clear()
        look(f"{tree}/abc")
        assert proxy.commands == ["STATUS"]


def test_one_query_lists_a_directory_even_with_long_names(
    proxied_fs: NgasFileSystem, proxy: Any, fs: NgasFileSystem, home: str
) -> None:
    for name in ("n" * 200, "m" * 255, "short"):
        fs.pipe(f"{home}/{name}", b"content")
    assert proxied_fs.ls(home, detail=False) == [f"{home}/{'m' * 255}", f"{home}/{'n' * 200}", f"{home}/short"]
    assert proxy.commands == ["QUERY"]


# --- names ---


@pytest.mark.parametrize("name", HARD_NAMES)
def test_hard_names_are_written_listed_read_and_removed(fs: NgasFileSystem, home: str, name: str) -> None:
    path = f"{home}/{name}/{name}"
    fs.pipe_file(path, name.encode())
    assert fs.ls(home, detail=False) == [f"{home}/{name}"]
    assert fs.ls(f"{home}/{name}", detail=False) == [path]
    assert fs.cat_file(path) == name.encode()
    fs.rm(path)
    assert fs.ls(f"{home}/{name}") == []
    fs.rm(f"{home}/{name}", recursive=True)
    assert fs.ls(home) == []


def test_names_that_differ_only_in_unicode_normalisation_are_two_files(fs: NgasFileSystem, home: str) -> None:
    for form in ("NFC", "NFD"):
        fs.pipe_file(f"{home}/{unicodedata.normalize(form, 'é')}", form.encode())  # type: ignore[arg-type]
    assert len(fs.ls(home)) == 2
    assert fs.cat_file(f"{home}/{unicodedata.normalize('NFC', 'é')}") == b"NFC"


def test_a_name_like_a_pattern_means_itself_when_it_exists(fs: NgasFileSystem, home: str) -> None:
    fs.pipe({f"{home}/model[1]": b"mine", f"{home}/model1": b"another"})
    assert fs.cat(f"{home}/model[1]") == b"mine"
    fs.rm(f"{home}/model[1]")
    assert fs.ls(home, detail=False) == [f"{home}/model1"]


@pytest.mark.parametrize("path", ["/a/../b", "ngas://archive/../b"])
def test_a_path_with_two_dots_is_refused(fs: NgasFileSystem, path: str) -> None:
    with pytest.raises(ValueError, match=r"'\.\.' cannot be the name"):
        fs.info(path)


def test_a_url_with_credentials_is_refused_by_fsspec_too() -> None:
    with pytest.raises(ValueError, match="DLG_ML_NGAS_PASSWORD") as caught:
        fsspec.url_to_fs("ngas://alice:s3cret@archive:7777/a")
    assert "s3cret" not in str(caught.value)


def test_nothing_secret_is_in_what_describes_the_file_system(
    server: EmbeddedNgas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLG_ML_NGAS_USER", "alice")
    monkeypatch.setenv("DLG_ML_NGAS_PASSWORD", "s3cret")
    fs = NgasFileSystem(server.host, server.port, skip_instance_cache=True)
    assert "s3cret" not in f"{fs!r} {fs.to_json()} {fs.storage_options} {pickle.dumps(fs)!r}"


def test_a_file_system_can_be_sent_to_another_process(fs: NgasFileSystem, tree: str) -> None:
    assert pickle.loads(pickle.dumps(fs)).find(tree) == fs.find(tree)


# --- writing and removing ---


def test_writing_makes_parents_visible_all_the_way_up(fs: NgasFileSystem, other: NgasFileSystem, home: str) -> None:
    fs.pipe_file(f"{home}/a/b/c.txt", b"content")
    assert home in other.ls("/", detail=False)
    assert other.ls(home, detail=False) == [f"{home}/a"]
    assert other.ls(f"{home}/a", detail=False) == [f"{home}/a/b"]


def test_overwriting_replaces_content_and_keeps_one_version(fs: NgasFileSystem, home: str) -> None:
    for content in (b"first", b"", b"third", b"third", b""):
        fs.pipe_file(f"{home}/file", content)
        assert fs.cat_file(f"{home}/file") == content
        assert fs.size(f"{home}/file") == len(content)
    assert len(fs._tree.client.query(naming.file_id(f"{home}/file"))) == 1
    assert fs.ls(home, detail=False) == [f"{home}/file"]


def test_an_empty_file_is_a_file_like_any_other(fs: NgasFileSystem, home: str, tmp_path: Path) -> None:
    fs.touch(f"{home}/empty")
    assert fs.info(f"{home}/empty")["size"] == 0
    assert fs.checksum(f"{home}/empty") == str(checksum_of(b"", "crc32c"))
    assert fs.cat_file(f"{home}/empty") == b""
    assert fs.cat_file(f"{home}/empty", 0, 10) == b""
    with fs.open(f"{home}/empty") as file:
        assert file.read() == b""
    fs.get_file(f"{home}/empty", tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""
    fs.cp_file(f"{home}/empty", f"{home}/copy")
    assert fs.size(f"{home}/copy") == 0


def test_a_file_cannot_be_put_in_place_of_a_directory(fs: NgasFileSystem, tree: str, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"content")
    for write in (
        lambda: fs.pipe_file(f"{tree}/abc", b"content"),
        lambda: fs.put_file(tmp_path / "local", f"{tree}/abc"),
        lambda: fs.open(f"{tree}/abc", "wb"),
        lambda: fs.cp_file(f"{tree}/empty", f"{tree}/abc"),
        lambda: fs.pipe_file("/", b"content"),
    ):
        with pytest.raises(IsADirectoryError):
            write()
    assert fs.isdir(f"{tree}/abc")


def test_a_file_cannot_hold_files(fs: NgasFileSystem, tree: str) -> None:
    for write in (
        lambda: fs.pipe_file(f"{tree}/empty/below", b"content"),
        lambda: fs.pipe_file(f"{tree}/empty/far/below", b"content"),
        lambda: fs.makedirs(f"{tree}/empty", exist_ok=True),
    ):
        with pytest.raises(NotADirectoryError, match="empty"):
            write()


def test_a_directory_cannot_be_read(fs: NgasFileSystem, tree: str) -> None:
    for read in (fs.cat_file, fs.open, fs.checksum, fs.rm_file):
        with pytest.raises(IsADirectoryError):
            read(f"{tree}/abc")


def test_a_directory_stays_when_its_last_file_goes(fs: NgasFileSystem, tree: str) -> None:
    fs.rm(f"{tree}/abcd/three.txt")
    assert fs.isdir(f"{tree}/abcd")
    assert fs.ls(f"{tree}/abcd") == []
    fs.rmdir(f"{tree}/abcd")
    assert not fs.exists(f"{tree}/abcd")


def test_only_an_empty_directory_is_removed_by_rmdir(fs: NgasFileSystem, tree: str) -> None:
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir(f"{tree}/abc")
    with pytest.raises(NotADirectoryError):
        fs.rmdir(f"{tree}/empty")
    with pytest.raises(FileNotFoundError):
        fs.rmdir(f"{tree}/missing")
    with pytest.raises(OSError, match="root"):
        fs.rmdir("/")


def test_making_directories_follows_fsspecs_rules(fs: NgasFileSystem, home: str) -> None:
    with pytest.raises(FileNotFoundError, match=home):
        fs.mkdir(f"{home}/a", create_parents=False)
    fs.mkdir(f"{home}/a")
    assert fs.ls(home, detail=False) == [f"{home}/a"]
    with pytest.raises(FileExistsError):
        fs.mkdir(f"{home}/a")
    with pytest.raises(FileExistsError):
        fs.makedirs(f"{home}/a")
    fs.makedirs(f"{home}/a", exist_ok=True)
    fs.makedirs("/", exist_ok=True)


def test_removing_what_is_not_there_is_an_error(fs: NgasFileSystem, home: str) -> None:
    for remove in (fs.rm, fs.rm_file, lambda path: fs.rm(path, recursive=True)):
        with pytest.raises(FileNotFoundError, match="missing"):
            remove(f"{home}/missing")


def test_a_directory_is_removed_only_on_purpose(fs: NgasFileSystem, tree: str) -> None:
    with pytest.raises(IsADirectoryError):
        fs.rm(tree)
    with pytest.raises(ValueError, match="maxdepth"):
        fs.rm(tree, recursive=True, maxdepth=1)
    assert len(fs.find(tree)) == 4


def test_removing_a_tree_leaves_no_object_of_it_in_the_archive(fs: NgasFileSystem, tree: str) -> None:
    fs.pipe_file(f"{tree}/abc/{'n' * 255}", b"long")
    fs.pipe_file(f"{tree}/{'d' * 255}/file", b"in a long directory")
    directories = [naming.parent(tree), tree, *(path for path, _, _ in fs.walk(tree))]
    fs.rm(tree, recursive=True)
    assert not fs.exists(tree)
    left = [copy for path in directories for copy in fs._tree.copies(path) if path != "/"]
    assert left == []
    assert not any(copy.file_id.startswith(naming.file_id(tree)) for copy in fs._tree.copies("/"))


def test_removing_a_file_with_a_long_name_leaves_no_object_of_it(fs: NgasFileSystem, home: str) -> None:
    fs.pipe_file(f"{home}/{'n' * 255}", b"long")
    fs.rm(f"{home}/{'n' * 255}")
    assert fs._tree.copies(home) == []


def test_removing_a_tree_spares_a_strangers_file_whose_id_differs_in_case(
    fs: NgasFileSystem, tree: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, foreign = fs._tree.client, f"{naming.listing_prefix(tree).upper()}FOREIGN"
    client.archive(b"not ours", foreign, f"{foreign}.bin")
    query = client.query
    # LIKE ignores case on the real server with SQLite, and not on the embedded one.
    monkeypatch.setattr(client, "query", lambda like: query(like) + query(foreign))
    fs.rm(tree, recursive=True)
    assert client.find(foreign) is not None


def test_a_removed_tree_can_be_written_again(fs: NgasFileSystem, tree: str, other: NgasFileSystem) -> None:
    fs.rm(tree, recursive=True)
    fs.pipe_file(f"{tree}/abc/new.txt", b"new")
    assert other.find(tree) == [f"{tree}/abc/new.txt"]
    assert tree in other.ls("/", detail=False)


def test_patterns_and_lists_are_removed(fs: NgasFileSystem, tree: str) -> None:
    fs.rm([f"{tree}/abc/*.txt", f"{tree}/empty"])
    assert fs.find(tree) == [f"{tree}/abc/sub/two.txt", f"{tree}/abcd/three.txt"]


def test_a_directory_that_another_process_removed_comes_back_by_itself(
    fs: NgasFileSystem, other: NgasFileSystem, home: str
) -> None:
    fs.pipe_file(f"{home}/a/one", b"1")
    other.rm(home, recursive=True)
    fs.pipe_file(f"{home}/a/two", b"2")
    assert other.cat_file(f"{home}/a/two") == b"2"
    assert other.ls(f"{home}/a", detail=False) == [f"{home}/a/two"]
    fs.invalidate_cache()  # as time does
    fs.pipe_file(f"{home}/a/three", b"3")
    assert other.find(home) == [f"{home}/a/three", f"{home}/a/two"]


def test_what_was_seen_of_directories_is_forgotten_with_time() -> None:
    from dlg_ml_tasks.archive.directories import KnownDirectories

    trusting, wary = KnownDirectories(1e9), KnownDirectories(0.0)
    for known in (trusting, wary):
        known.add("/a/b")
        known.add("/ab")
    assert "/a/b" in trusting
    assert "/a/b" not in wary
    trusting.forget("/a")
    assert "/a/b" not in trusting
    assert "/ab" in trusting


def test_writing_many_files_asks_for_their_directory_once(proxied_fs: NgasFileSystem, proxy: Any, home: str) -> None:
    for number in range(5):
        proxied_fs.pipe_file(f"{home}/a/{number}", b"content")
    # Two directories and five files, each looked up once and sent once; and the first might be a file in a pack.
    assert proxy.commands.count("QARCHIVE") == 2 + 5
    assert proxy.commands.count("STATUS") == 2 + 5 + 1
    assert len(proxy.commands) == 2 * (2 + 5) + 1


def test_many_threads_make_one_directory_once(fs: NgasFileSystem, home: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: fs.pipe_file(f"{home}/a/b/{number}", b"content"), range(12)))
    assert len(fs.ls(f"{home}/a/b")) == 12
    assert [copy.version for copy in fs._tree.client.query(naming.file_id(f"{home}/a/b"))] == [1]


def test_create_mode_does_not_replace(fs: NgasFileSystem, tree: str) -> None:
    with pytest.raises(FileExistsError, match=r"one\.txt"):
        fs.pipe_file(f"{tree}/abc/one.txt", b"other", mode="create")
    with pytest.raises(FileExistsError, match=r"one\.txt"):
        fs.open(f"{tree}/abc/one.txt", "xb")
    with fs.open(f"{tree}/abc/new.txt", "xb") as file:
        file.write(b"new")
    assert fs.cat_file(f"{tree}/abc/new.txt") == b"new"


# --- copying and moving ---


def test_a_copy_has_the_content_and_the_source_stays(fs: NgasFileSystem, tree: str) -> None:
    fs.copy(f"{tree}/abc", f"{tree}/copied", recursive=True)
    assert fs.cat_file(f"{tree}/copied/sub/two.txt") == b"two!"
    assert fs.cat_file(f"{tree}/abc/sub/two.txt") == b"two!"


def test_a_move_leaves_nothing_at_the_source(fs: NgasFileSystem, tree: str) -> None:
    fs.mv(f"{tree}/abc/one.txt", f"{tree}/moved.txt")
    assert fs.cat_file(f"{tree}/moved.txt") == b"one"
    assert not fs.exists(f"{tree}/abc/one.txt")
    fs.mv(f"{tree}/abc", f"{tree}/elsewhere", recursive=True)
    assert fs.find(f"{tree}/elsewhere") == [f"{tree}/elsewhere/sub/two.txt"]
    assert not fs.exists(f"{tree}/abc")


def test_moving_a_file_onto_itself_keeps_it(fs: NgasFileSystem, tree: str) -> None:
    path = f"{tree}/abc/one.txt"
    for target in (path, fs.unstrip_protocol(path), f"{tree}/abc/", f"{tree}//abc/./one.txt"):
        fs.mv(path, target)
        assert fs.cat_file(path) == b"one"


def test_a_directory_cannot_be_moved_into_itself(fs: NgasFileSystem, tree: str) -> None:
    with pytest.raises(ValueError, match="into itself"):
        fs.mv(f"{tree}/abc", f"{tree}/abc/sub/deeper", recursive=True)
    assert len(fs.find(tree)) == 4


def test_a_copy_that_arrives_damaged_is_not_stored(
    proxied_fs: NgasFileSystem, fs: NgasFileSystem, proxy: Any, home: str
) -> None:
    fs.pipe_file(f"{home}/source", b"precious")
    proxy.answer = lambda request, forward: forward().replace(b"precious", b"prec1ous")
    with pytest.raises(ChecksumMismatch, match=f"{home}/source"):
        proxied_fs.cp_file(f"{home}/source", f"{home}/target")
    assert not fs.exists(f"{home}/target")


@pytest.fixture
def pristine_cache() -> Iterator[None]:
    NgasFileSystem.clear_instance_cache()
    yield
    NgasFileSystem.clear_instance_cache()


@pytest.mark.usefixtures("pristine_cache")
def test_pandas_reads_and_writes_by_url(server: EmbeddedNgas, home: str) -> None:
    pandas = pytest.importorskip("pandas")
    url = f"ngas://{server.host}:{server.port}{home}/table.csv"
    table = pandas.DataFrame({"channel": [1, 2], "flagged": [0.5, 0.25]})
    table.to_csv(url, index=False)
    assert pandas.read_csv(url).equals(table)
