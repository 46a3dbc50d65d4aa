from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from fsspec.callbacks import Callback

from dlg_ml_tasks.archive import ChecksumMismatch, NgasFileSystem

pytestmark = pytest.mark.integration


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A local tree with an empty file, an empty directory and a name that is not ASCII."""
    root = tmp_path / "local"
    (root / "sub" / "deeper").mkdir(parents=True)
    (root / "void").mkdir()
    (root / "one.txt").write_bytes(b"one")
    (root / "empty").touch()
    (root / "sub" / "two.txt").write_bytes(b"two!")
    (root / "sub" / "deeper" / "drei größer.txt").write_bytes(b"three")
    return root


def contents(root: Path) -> dict[str, bytes | None]:
    """Everything below `root`; None stands for a directory."""
    return {path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}


def test_a_tree_comes_back_as_it_went(fs: NgasFileSystem, home: str, local: Path, tmp_path: Path) -> None:
    fs.put(str(local), home, recursive=True)
    fs.get(home, str(tmp_path / "back"), recursive=True)
    assert contents(tmp_path / "back") == contents(local)


def test_a_tree_lands_where_fsspec_says(fs: NgasFileSystem, home: str, local: Path, tmp_path: Path) -> None:
    fs.mkdir(home)
    fs.put(str(local), home, recursive=True)  # into a directory that exists: below its own name
    assert fs.cat_file(f"{home}/local/one.txt") == b"one"
    fs.put(f"{local}/", home, recursive=True)  # with a slash: what is in it
    assert fs.cat_file(f"{home}/one.txt") == b"one"
    fs.get(f"{home}/sub/*.txt", f"{tmp_path}/picked/")
    assert contents(tmp_path / "picked") == {"two.txt": b"two!"}


def test_lists_of_files_go_pair_by_pair(fs: NgasFileSystem, home: str, local: Path, tmp_path: Path) -> None:
    fs.put([str(local / "one.txt"), str(local / "empty")], [f"{home}/a[1]", f"{home}/b?"])
    assert fs.cat_file(f"{home}/a[1]") == b"one"
    fs.get([f"{home}/a[1]", f"{home}/b?"], [str(tmp_path / "x" / "a"), str(tmp_path / "x" / "b")])
    assert contents(tmp_path / "x") == {"a": b"one", "b": b""}


def test_a_file_goes_to_an_open_stream(fs: NgasFileSystem, home: str) -> None:
    fs.pipe_file(f"{home}/file", b"content")
    sink = io.BytesIO()
    fs.get_file(f"{home}/file", sink)
    assert sink.getvalue() == b"content"


def test_many_files_outside_of_packs_cost_about_one_request_each(proxy: Any, home: str, tmp_path: Path) -> None:
    unpacked = NgasFileSystem(proxy.host, proxy.port, timeout=10, patience=5, pack="never", skip_instance_cache=True)
    for number in range(40):
        (tmp_path / str(number)).write_bytes(b"content %d" % number)
    names = [str(number) for number in range(40)]
    locals_, remotes = [str(tmp_path / name) for name in names], [f"{home}/run/{name}" for name in names]
    unpacked.put(locals_, remotes)
    # One listing, a look-up and a marker for each of two directories, a look whether a pack has the upper one's name,
    # and the files.
    assert (proxy.commands.count("QUERY"), proxy.commands.count("STATUS")) == (1, 3)
    assert proxy.commands.count("QARCHIVE") == 2 + 40
    proxy.requests.clear()
    unpacked.put(locals_, remotes)
    assert proxy.commands == ["QUERY"]  # all there already
    proxy.requests.clear()
    unpacked.get(remotes, [str(tmp_path / "back" / name) for name in names])
    assert sorted(set(proxy.commands)) == ["QUERY", "RETRIEVE"]
    assert len(proxy.commands) == 1 + 40
    assert contents(tmp_path / "back") == {name: b"content %s" % name.encode() for name in names}


def test_a_missing_file_among_many_is_an_error_that_names_it(fs: NgasFileSystem, home: str, tmp_path: Path) -> None:
    fs.pipe_file(f"{home}/there", b"content")
    with pytest.raises(FileNotFoundError, match=f"{home}/missing"):
        fs.get([f"{home}/there", f"{home}/missing"], [str(tmp_path / "a"), str(tmp_path / "b")])


def test_a_missing_local_file_is_an_error_and_leaves_nothing(fs: NgasFileSystem, home: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fs.put_file(tmp_path / "missing", f"{home}/file")
    assert not fs.exists(f"{home}/file")


def test_a_damaged_file_in_a_tree_is_not_written(
    proxied_fs: NgasFileSystem, proxy: Any, home: str, tmp_path: Path
) -> None:
    proxied_fs.pipe({f"{home}/good": b"good", f"{home}/bad": b"precious"})
    proxy.answer = lambda request, forward: forward().replace(b"precious", b"prec1ous")
    with pytest.raises(ChecksumMismatch, match=f"{home}/bad"):
        proxied_fs.get(home, str(tmp_path / "back"), recursive=True)
    assert not (tmp_path / "back" / "bad").exists()
    assert not list((tmp_path / "back").glob(".ngas-*"))


def test_progress_is_told_for_all_and_for_each(fs: NgasFileSystem, home: str, local: Path, tmp_path: Path) -> None:
    class Recorder(Callback):  # type: ignore[misc]
        def __init__(self, log: list[tuple[int | None, int]], **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.log = log

        def branched(self, path_1: str, path_2: str, **kwargs: Any) -> Callback:
            return Recorder(self.log)

        def close(self) -> None:
            self.log.append((self.size, self.value))

    files: list[tuple[int | None, int]] = []
    whole = Recorder(files)
    fs.put([str(local / "one.txt"), str(local / "sub" / "two.txt")], [f"{home}/1", f"{home}/2"], callback=whole)
    assert (whole.size, whole.value) == (2, 2)
    assert sorted(files) == [(3, 3), (4, 4)]
    files.clear()
    whole = Recorder(files)
    fs.get([f"{home}/1", f"{home}/2"], [str(tmp_path / "1"), str(tmp_path / "2")], callback=whole)
    assert (whole.size, whole.value) == (2, 2)
    assert sorted(files) == [(3, 3), (4, 4)]
