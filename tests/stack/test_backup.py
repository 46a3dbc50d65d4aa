"""A backup is whole or not there, and what is read back is what was stored."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dlg_ml_tasks.archive import Address, NgasFileSystem
from dlg_ml_tasks.archive.server import EmbeddedNgas
from dlg_ml_tasks.stack import StackError
from dlg_ml_tasks.stack.backup import backup, restore
from dlg_ml_tasks.stack.backup.embedded import EmbeddedStack, snapshot
from dlg_ml_tasks.stack.backup.folder import Manifest, read, write
from dlg_ml_tasks.stack.backup.reading import read_everything


def quiet(part: str, text: str) -> None:
    pass


def small(folder: Path) -> Manifest:
    return write(folder, ("embedded", {"a.sqlite": lambda part: part.write_bytes(b"abc") and None}), quiet)


def test_a_backup_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = small(tmp_path / "b")
    assert read(tmp_path / "b", quiet) == written


def test_an_existing_folder_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(StackError, match="exists"):
        small(tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []


@pytest.mark.parametrize("error", [OSError("disk full"), StackError("pg_dump failed"), KeyboardInterrupt()])
def test_a_backup_that_fails_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    def fail(part: Path) -> None:
        part.write_bytes(b"half")
        raise error

    with pytest.raises((StackError, KeyboardInterrupt)):
        write(tmp_path / "b", ("embedded", {"a": lambda part: part.write_bytes(b"a") and None, "b": fail}), quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_a_damaged_backup_is_refused_and_the_part_is_named(tmp_path: Path, damage: str) -> None:
    small(tmp_path / "b")
    part = tmp_path / "b" / "a.sqlite"
    part.unlink() if damage == "missing" else part.write_bytes(b"abd" if damage == "changed" else b"ab")
    with pytest.raises(StackError, match=r"a\.sqlite"):
        read(tmp_path / "b", quiet)


@pytest.mark.parametrize("manifest", [None, "{", '{"format": 2}'])
def test_a_folder_that_is_no_backup_is_refused(tmp_path: Path, manifest: str | None) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(StackError, match=r"manifest\.json"):
        read(tmp_path, quiet)


def test_a_snapshot_holds_what_was_committed_and_needs_no_log_beside_it(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "live.sqlite")) as live:
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("CREATE TABLE t (x)")
        live.execute("INSERT INTO t VALUES (1)")
        live.commit()
        live.execute("INSERT INTO t VALUES (2)")
        snapshot(tmp_path / "live.sqlite", tmp_path / "copy.sqlite")
    with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy:
        assert copy.execute("SELECT x FROM t").fetchall() == [(1,)]
    assert not list(tmp_path.glob("copy.sqlite-*"))


def test_an_archive_is_read_whole_and_damaged_files_are_named(tmp_path: Path) -> None:
    with EmbeddedNgas(tmp_path) as server:
        files = NgasFileSystem(server.host, server.port, skip_instance_cache=True)
        for name in ("good", "bad"):
            files.pipe_file(f"/a/{name}.bin", name.encode() * 100_000)
        assert read_everything(Address(server.host, server.port), quiet) == []
        (stored,) = [
            path for path in (tmp_path / "volume1").rglob("*") if path.is_file() and path.read_bytes()[:3] == b"bad"
        ]
        stored.write_bytes(b"BAD" + stored.read_bytes()[3:])
        (damage,) = read_everything(Address(server.host, server.port), quiet)
    assert damage.filename.startswith("bad.bin")


def test_an_empty_home_has_nothing_to_back_up(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="nothing to back up"):
        EmbeddedStack(tmp_path).source(files=False)


def test_a_home_that_holds_something_is_not_restored_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "mlflow").mkdir(parents=True)
    (home / "ngas").mkdir()
    for path in (home / "mlflow" / "mlflow.db", home / "ngas" / "catalogue.sqlite"):
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE t (x)")
    (home / "ports.json").write_text("{}")
    monkeypatch.setenv("DLG_ML_HOME", str(home))
    backup(tmp_path / "b", of_compose=False, files=True, on_progress=quiet)
    with pytest.raises(StackError, match="overwrites nothing"):
        restore(tmp_path / "b", to_compose=False, on_progress=quiet)


def test_a_stack_without_its_compose_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLG_ML_COMPOSE", str(tmp_path))
    with pytest.raises(StackError, match=r"no docker-compose\.yml"):
        backup(tmp_path / "b", of_compose=True, files=False, on_progress=quiet)
