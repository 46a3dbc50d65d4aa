"""dlg-ml ngas cache, and the other ngas commands with DLG_ML_NGAS_CACHE set."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dlg_ml_tasks.archive.opening import open_archive
from dlg_ml_tasks.cli.ngas import app

pytestmark = pytest.mark.integration


@pytest.fixture
def url(archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder in the archive with two files, both read through a cache of the test's own."""
    for name, value in {"": "online", "_DIR": str(tmp_path / "cache"), "_BYTES": "1MiB"}.items():
        monkeypatch.setenv(f"DLG_ML_NGAS_CACHE{name}", value)
    monkeypatch.setenv("COLUMNS", "300")
    url = f"{archive}/{uuid.uuid4().hex}"
    fs, path = open_archive(url)
    fs.pipe({f"{path}/a": b"one", f"{path}/b": b"two!"})
    fs.cat(path, recursive=True)
    return url


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments])
    return result.exit_code, result.output


def _copy(cache: Path, size: int) -> Path:
    return next(path for path in cache.rglob("*") if path.is_file() and path.stat().st_size == size)


def test_list_shows_each_copy_and_the_total(url: str, tmp_path: Path) -> None:
    code, output = _run("cache", "list")
    assert code == 0
    lines = [line.rstrip() for line in output.splitlines()]
    assert lines[1].split()[0] == "3"
    assert lines[1].endswith(f"{url}/a")
    assert lines[2].endswith(f"{url}/b")
    assert lines[3] == f"2 files, 7 bytes of 1.0 MB, in {tmp_path / 'cache'}"


def test_list_can_be_read_by_scripts(url: str, tmp_path: Path) -> None:
    listed = json.loads(_run("cache", "list", "--json")[1])
    assert (listed["folder"], listed["limit"], listed["bytes"]) == (str(tmp_path / "cache"), 1 << 20, 7)
    assert [(file["url"], file["size"], file["version"]) for file in listed["files"]] == [
        (f"{url}/a", 3, 1),
        (f"{url}/b", 4, 1),
    ]


def test_verify_removes_what_is_damaged_and_says_so_by_its_exit_code(url: str, tmp_path: Path) -> None:
    assert _run("cache", "verify") == (0, "2 of 2 copies are intact\n")
    copy = _copy(tmp_path / "cache", 3)
    copy.chmod(0o600)
    copy.write_bytes(b"0ne")
    assert _run("cache", "verify") == (1, f"damaged, removed: {url}/a\n1 of 2 copies are intact\n")
    assert json.loads(_run("cache", "verify", "--json")[1]) == {"checked": 1, "damaged": []}


def test_clear_frees_the_copies_or_only_old_ones(url: str, tmp_path: Path) -> None:
    old = _copy(tmp_path / "cache", 3)
    os.utime(old, (0, old.stat().st_mtime))
    assert "3 bytes freed" in _run("cache", "clear", "--older-than", "30")[1]
    assert [file["size"] for file in json.loads(_run("cache", "list", "--json")[1])["files"]] == [4]
    assert "4 bytes freed" in _run("cache", "clear")[1]
    assert json.loads(_run("cache", "list", "--json")[1])["files"] == []


def test_offline_the_other_commands_use_the_cache(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLG_ML_NGAS_CACHE", "offline")
    assert _run("get", f"{url}/a", str(tmp_path / "a"))[0] == 0
    assert (tmp_path / "a").read_bytes() == b"one"
    assert [entry["name"][-2:] for entry in json.loads(_run("ls", url, "--json")[1])] == ["/a", "/b"]
    assert _run("rm", f"{url}/a")[0] == 1
