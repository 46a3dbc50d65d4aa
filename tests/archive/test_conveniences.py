"""What fsspec builds on top of the few verbs of a file system, used as its users do."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import fsspec
import pytest
from fsspec.generic import GenericFileSystem, rsync
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

from dlg_ml_tasks.archive import NgasFileSystem
from dlg_ml_tasks.archive.server import EmbeddedNgas

pytestmark = pytest.mark.integration


@pytest.fixture
def tree(fs: NgasFileSystem, home: str) -> str:
    fs.pipe({f"{home}/a/1.txt": b"one", f"{home}/a/b/2.txt": b"two", f"{home}/3.csv": b"three"})
    return home


@pytest.fixture
def url(server: EmbeddedNgas, home: str) -> str:
    return f"ngas://{server.host}:{server.port}{home}"


def test_find_and_walk_and_du_take_their_options(fs: NgasFileSystem, tree: str) -> None:
    assert fs.find(tree, withdirs=True) == [
        tree,
        f"{tree}/3.csv",
        f"{tree}/a",
        f"{tree}/a/1.txt",
        f"{tree}/a/b",
        f"{tree}/a/b/2.txt",
    ]
    assert fs.find(tree, maxdepth=1) == [f"{tree}/3.csv"]
    assert fs.find(f"{tree}/3.csv") == [f"{tree}/3.csv"]
    assert fs.find(f"{tree}/missing") == []
    assert {name: info["size"] for name, info in fs.find(tree, detail=True).items()} == {
        f"{tree}/3.csv": 5,
        f"{tree}/a/1.txt": 3,
        f"{tree}/a/b/2.txt": 3,
    }
    assert [directory for directory, _, _ in fs.walk(tree, topdown=False)] == [f"{tree}/a/b", f"{tree}/a", tree]
    assert fs.du(tree, total=False) == {f"{tree}/3.csv": 5, f"{tree}/a/1.txt": 3, f"{tree}/a/b/2.txt": 3}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["3.csv", "a"]),
        ("*.csv", ["3.csv"]),
        ("**/*.txt", ["a/1.txt", "a/b/2.txt"]),
        ("a/?.txt", ["a/1.txt"]),
        ("a/[!2].txt", ["a/1.txt"]),
        ("{a,b}/*.txt", []),
        ("nothing*", []),
        ("missing/*", []),
    ],
)
def test_patterns_find_what_they_find_in_a_local_folder(
    fs: NgasFileSystem, tree: str, pattern: str, names: list[str]
) -> None:
    assert fs.glob(f"{tree}/{pattern}") == [f"{tree}/{name}" for name in names]


def test_a_tree_can_be_printed(fs: NgasFileSystem, tree: str) -> None:
    printed = fs.tree(tree, recursion_limit=3)
    assert all(name in printed for name in ("3.csv", "1.txt", "2.txt"))


def test_touch_makes_an_empty_file_and_empties_a_full_one(fs: NgasFileSystem, tree: str) -> None:
    fs.touch(f"{tree}/new")
    assert fs.size(f"{tree}/new") == 0
    with pytest.raises(NotImplementedError):
        fs.touch(f"{tree}/3.csv", truncate=False)
    assert fs.size(f"{tree}/3.csv") == 5
    fs.touch(f"{tree}/3.csv")
    assert fs.size(f"{tree}/3.csv") == 0


def test_all_files_of_a_directory_are_read(fs: NgasFileSystem, tree: str) -> None:
    fs.mkdir(f"{tree}/empty")
    fs.pipe_file(f"{tree}/a/[1].txt", b"literal")
    assert fs.cat(f"{tree}/a", recursive=True) == {
        f"{tree}/a/1.txt": b"one",
        f"{tree}/a/[1].txt": b"literal",
        f"{tree}/a/b/2.txt": b"two",
    }
    assert set(fs.cat(f"{tree}/a", recursive=True, maxdepth=1)) == {f"{tree}/a/1.txt", f"{tree}/a/[1].txt"}
    assert fs.cat(f"{tree}/empty", recursive=True) == {}
    with pytest.raises(FileNotFoundError):
        fs.cat(f"{tree}/missing", recursive=True)


def test_parts_of_many_files_are_read(fs: NgasFileSystem, tree: str) -> None:
    path = f"{tree}/3.csv"
    assert fs.head(path, 2) == b"th"
    assert fs.tail(path, 2) == b"ee"
    assert fs.cat_ranges([path, path, f"{tree}/a/1.txt"], [0, -2, 1], [2, None, 2]) == [b"th", b"ee", b"n"]
    missing = fs.cat_ranges([path, f"{tree}/missing"], 0, 2)
    assert missing[0] == b"th"
    assert isinstance(missing[1], FileNotFoundError)
    assert fs.read_block(path, 1, 3) == b"hre"


@pytest.mark.parametrize(("on_error", "names"), [("omit", ["3.csv"]), ("return", ["3.csv", "missing"])])
def test_many_files_are_read_with_missing_ones_as_asked(
    fs: NgasFileSystem, tree: str, on_error: str, names: list[str]
) -> None:
    found = fs.cat([f"{tree}/3.csv", f"{tree}/missing"], on_error=on_error)
    assert list(found) == [f"{tree}/{name}" for name in names]
    assert found[f"{tree}/3.csv"] == b"three"
    with pytest.raises(FileNotFoundError):
        fs.cat([f"{tree}/3.csv", f"{tree}/missing"])


@pytest.mark.parametrize("compression", [None, "gzip", "bz2", "xz"])
def test_text_is_written_and_read_by_url_compressed_or_not(url: str, compression: str | None) -> None:
    for name in ("file.txt", "file.txt.gz"):
        with fsspec.open(f"{url}/{name}", "wt", encoding="utf-8", compression=compression) as file:
            file.write("Größe\n" * 100)
        with fsspec.open(f"{url}/{name}", "rt", encoding="utf-8", compression=compression) as file:
            assert file.read() == "Größe\n" * 100


def test_many_files_are_opened_by_pattern(url: str, fs: NgasFileSystem, tree: str) -> None:
    with fsspec.open_files(f"{url}/**/*.txt") as files:
        assert [file.read() for file in files] == [b"one", b"two"]
    with fsspec.open_files(f"{url}/parts/*.bin", "wb", num=3) as files:
        for number, file in enumerate(files):
            file.write(bytes([number]))
    assert fs.cat(f"{tree}/parts/*") == {f"{tree}/parts/{number}.bin": bytes([number]) for number in range(3)}


def test_a_mapping_of_names_to_bytes(fs: NgasFileSystem, home: str) -> None:
    store = fs.get_mapper(home, create=True)
    store["a/0"] = b"zero"
    store.setitems({"a/1": b"one", ".meta": b"{}"})
    assert sorted(store) == [".meta", "a/0", "a/1"]
    assert (len(store), store["a/0"], "a/1" in store, "a/2" in store) == (3, b"zero", True, False)
    assert store.getitems(["a/0", "a/9"], on_error="omit") == {"a/0": b"zero"}
    with pytest.raises(KeyError):
        store["a/9"]
    del store["a/0"]
    store.delitems(["a/1"])
    assert sorted(store) == [".meta"]
    store.clear()
    assert list(store) == []


def test_trees_are_synchronised_in_both_directions(fs: NgasFileSystem, url: str, home: str, tmp_path: Path) -> None:
    local = tmp_path / "local"
    (local / "sub").mkdir(parents=True)
    (local / "a").write_bytes(b"one")
    (local / "sub" / "b").write_bytes(b"two")
    generic = GenericFileSystem(default_method="options")
    rsync(f"file://{local}", url, fs=generic)
    assert fs.cat(home, recursive=True) == {f"{home}/a": b"one", f"{home}/sub/b": b"two"}
    (local / "a").write_bytes(b"longer")
    (local / "sub" / "b").unlink()
    assert list(rsync(f"file://{local}", url, fs=generic).values()) == [f"{url}/a"]
    assert fs.exists(f"{home}/sub/b")
    rsync(f"file://{local}", url, fs=generic, delete_missing=True)
    assert fs.cat(home, recursive=True) == {f"{home}/a": b"longer"}
    back = tmp_path / "back"
    back.mkdir()
    rsync(url, f"file://{back}", fs=generic)
    assert (back / "a").read_bytes() == b"longer"
    assert rsync(url, f"file://{back}", fs=generic) == {}


# fsspec's blockcache leaves its memory map to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("layer", ["simplecache", "filecache", "blockcache"])
def test_fsspecs_own_caches_work_on_top(url: str, fs: NgasFileSystem, tree: str, tmp_path: Path, layer: str) -> None:
    options = {layer: {"cache_storage": str(tmp_path)} | ({} if layer == "simplecache" else {"check_files": True})}
    for content in (b"three", b"fours"):
        fs.pipe_file(f"{tree}/3.csv", content)
        with fsspec.open(f"{layer}::{url}/3.csv", **options) as file:
            # simplecache never looks at the archive again.
            assert file.read() == (b"three" if layer == "simplecache" else content)


def test_file_systems_and_open_files_go_to_other_processes(fs: NgasFileSystem, tree: str, url: str) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(fs.cat_file, f"{tree}/3.csv").result() == b"three"
    opened = pickle.loads(pickle.dumps(fsspec.open(f"{url}/3.csv")))
    with opened as file:
        assert file.read() == b"three"
    with fs.open(f"{tree}/3.csv") as file:
        file.read(2)
        with pickle.loads(pickle.dumps(file)) as other:
            assert other.read() == b"ree"


async def _roundtrip(fs: AsyncFileSystemWrapper, path: str) -> bytes:
    await fs._pipe_file(path, b"content")
    content: bytes = await fs._cat_file(path)
    return content


def test_asynchronous_libraries_can_wrap_it(fs: NgasFileSystem, home: str) -> None:
    import asyncio

    assert asyncio.run(_roundtrip(AsyncFileSystemWrapper(fs, asynchronous=True), f"{home}/file")) == b"content"
