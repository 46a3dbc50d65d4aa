"""Backups of an archive and a database that are real, and restores into empty ones."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dlg_ml_tasks.archive import Address, NgasClient, NgasFileSystem
from dlg_ml_tasks.backup import making
from dlg_ml_tasks.backup.contents import problems_in
from dlg_ml_tasks.backup.database import SqliteDatabase
from dlg_ml_tasks.backup.errors import BackupError
from dlg_ml_tasks.backup.making import Source, make
from dlg_ml_tasks.backup.manifest import read_manifest, read_objects
from dlg_ml_tasks.backup.progress import Silent
from dlg_ml_tasks.backup.restoring import restore_servers, restore_stack
from dlg_ml_tasks.stack import StackError

from .conftest import Recorded

pytestmark = pytest.mark.integration

SMALL = "/mlflow/recorded/small-and-late"


class Interrupting(Silent):
    """Does something when a part of the work begins whose description holds `at`, the first time."""

    def __init__(self, at: str, act: Callable[[], object]) -> None:
        self._at = at
        self._act: Callable[[], object] | None = act

    def step(self, what: str, total: int | None = None) -> None:
        if self._at in what and self._act is not None:
            act, self._act = self._act, None
            act()


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    """A copy of the whole backup, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "damaged"))


@pytest.fixture
def source(recorded: Recorded, tmp_path: Path) -> Path:
    """A copy of the archive, to be changed; serve it with `recorded.serving(source)`."""
    return Path(shutil.copytree(recorded.root, tmp_path / "source"))


def largest(directory: Path) -> Path:
    return max((directory / "files").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)


def test_a_backup_says_what_it_holds_and_standard_tools_can_check_it(whole: Path, recorded: Recorded) -> None:
    manifest = read_manifest(whole)
    assert manifest.with_files
    assert (manifest.database.kind, manifest.database.runs) == ("sqlite", 2)
    [part] = manifest.archives
    assert (part.address, part.whole, part.roots) == (f"127.0.0.1:{recorded.port}", False, ("/mlflow/recorded",))
    assert part.size == sum(path.stat().st_size for path in (whole / "files").rglob("*") if path.is_file()) > 512_000
    assert {"dlg-ml-tasks", "mlflow", "python", "sqlite"} == manifest.software.keys()
    assert whole.stat().st_mode & 0o077 == 0
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=whole, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == manifest.files + 3


def test_a_restored_database_finds_every_artifact(
    whole: Path, recorded: Recorded, tmp_path: Path, tracked: Callable[[Path], None]
) -> None:
    database = tmp_path / "mlflow.db"
    with recorded.serving(tmp_path / "ngas"):
        report = restore_servers(whole, SqliteDatabase(database))
        assert report.problems == ()
        assert report.artifacts.files == 62
        assert (report.sent, report.held) == (read_manifest(whole).files, 0)
        tracked(database)
        from mlflow import MlflowClient

        from dlg_ml_tasks.tracking.files import download
        from dlg_ml_tasks.tracking.runs import find_output

        run = MlflowClient().get_run(recorded.reference.run_id)
        assert find_output(run.info.run_id) == recorded.reference
        # It compares the digest of all files.
        folder = download(recorded.reference, tmp_path / "again")
        assert (folder / "empty #1 ä.txt").read_bytes() == b""
        assert report.ended_runs == 1
        assert MlflowClient().get_run(recorded.unfinished).info.status == "KILLED"


def test_a_stack_that_is_in_use_is_left_as_it_is(whole: Path, recorded: Recorded, tmp_path: Path) -> None:
    used = tmp_path / "used.db"
    shutil.copyfile(recorded.database, used)
    with pytest.raises(BackupError, match="2 runs"):
        restore_servers(whole, SqliteDatabase(used))
    assert used.read_bytes() == recorded.database.read_bytes()


def test_files_that_the_backup_does_not_know_stop_a_restore_unless_the_archive_survived(
    whole: Path, recorded: Recorded, tmp_path: Path
) -> None:
    database = SqliteDatabase(tmp_path / "mlflow.db")
    with recorded.serving(tmp_path / "ngas"):
        NgasFileSystem("127.0.0.1", recorded.port).pipe_file(SMALL, b"later")
        with pytest.raises(BackupError, match="--archive-survived"):
            restore_servers(whole, database)
        assert not database.path.exists()
        report = restore_servers(whole, database, archive_survived=True)
        assert report.problems == ()
        assert NgasFileSystem("127.0.0.1", recorded.port).cat_file(SMALL) == b"later"


def test_other_content_under_an_id_of_the_backup_is_never_replaced(
    whole: Path, recorded: Recorded, tmp_path: Path
) -> None:
    row = next(row for row in read_objects(whole) if "large" in row.filename)
    with recorded.serving(tmp_path / "ngas"):
        client = NgasClient("127.0.0.1", recorded.port)
        client.archive(b"x" * row.size, row.file_id, row.filename)
        with pytest.raises(BackupError, match="other content"):
            restore_servers(whole, SqliteDatabase(tmp_path / "mlflow.db"), archive_survived=True)
        assert client.read(client.status(row.file_id)) == b"x" * row.size
    assert not (tmp_path / "mlflow.db").exists()


def test_a_restore_that_was_interrupted_goes_on(whole: Path, recorded: Recorded, tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "mlflow.db")
    with recorded.serving(tmp_path / "ngas"):
        with pytest.raises(KeyboardInterrupt):
            restore_servers(whole, database, progress=Interrupting("restoring MLflow's database", interrupt))
        assert not database.path.exists()
        report = restore_servers(whole, database)
    assert (report.sent, report.held, report.problems) == (0, read_manifest(whole).files, ())


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("which", ["manifest.json", "mlflow.sqlite", "files.jsonl", "SHA256SUMS", "an object"])
@pytest.mark.parametrize("damage", [_flip, Path.unlink, lambda path: os.truncate(path, path.stat().st_size // 2)])
def test_a_damaged_backup_is_refused_before_anything_is_restored(
    which: str, damage: Callable[[Path], object], damaged: Path, recorded: Recorded, tmp_path: Path
) -> None:
    damage(largest(damaged) if which == "an object" else damaged / which)
    # No archive is served: it is not even asked.
    with pytest.raises(BackupError) as refused:
        restore_servers(damaged, SqliteDatabase(tmp_path / "mlflow.db"))
    assert str(damaged) in str(refused.value)
    assert not (tmp_path / "mlflow.db").exists()


def test_each_damaged_file_is_named(damaged: Path) -> None:
    object_ = largest(damaged)
    _flip(object_)
    (damaged / "mlflow.sqlite").unlink()
    _, _, problems = problems_in(damaged, Silent())
    assert problems == [
        "mlflow.sqlite: No such file or directory",
        f"{object_.relative_to(damaged)}: its sha256 is not that in SHA256SUMS",
    ]


def test_a_backup_of_a_later_format_is_refused(damaged: Path) -> None:
    content = json.loads((damaged / "manifest.json").read_text())
    (damaged / "manifest.json").write_text(json.dumps({**content, "format": 2, "new": 1}))
    with pytest.raises(BackupError, match="format 2, made by a later version"):
        read_manifest(damaged)


def test_an_interrupted_backup_does_not_look_like_one_and_is_gone_on_with(recorded: Recorded, tmp_path: Path) -> None:
    directory, partial = tmp_path / "backup", tmp_path / "backup.partial"
    with recorded.serving():
        with pytest.raises(KeyboardInterrupt):
            make(directory, recorded.source, progress=Interrupting("writing the list", interrupt))
        assert not directory.exists()
        with pytest.raises(BackupError, match="never finished"):
            read_manifest(partial)
        (partial / "files" / "ff" / "left over").parent.mkdir(exist_ok=True)
        (partial / "files" / "ff" / "left over").write_text("of an object that is gone")
        fetched = {path.name: path.stat().st_ino for path in (partial / "files").rglob("*") if path.is_file()}
        make(directory, recorded.source)
    assert not partial.exists()
    kept = {path.name: path.stat().st_ino for path in (directory / "files").rglob("*") if path.is_file()}
    del fetched["left over"]
    assert kept == fetched
    assert problems_in(directory, Silent())[2] == []


def test_a_full_disk_ends_a_backup_in_one_line_and_leaves_nothing_that_looks_complete(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(making, "flush", full)
    with recorded.serving(), pytest.raises(BackupError, match=r"the disk is full.*same command goes on"):
        make(tmp_path / "backup", recorded.source)
    assert [path.name for path in tmp_path.iterdir()] == ["backup.partial"]
    assert not (tmp_path / "backup.partial" / "manifest.json").exists()


def test_a_disk_that_cannot_hold_the_files_is_seen_before_they_are_copied(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with recorded.serving(), pytest.raises(BackupError, match="--without-files"):
        make(tmp_path / "backup", recorded.source)
    assert not list(tmp_path.rglob("files/*"))


def test_files_removed_and_written_while_they_are_copied_leave_a_sound_backup(
    recorded: Recorded, source: Path, tmp_path: Path
) -> None:
    output = f"/mlflow/recorded/{recorded.reference.run_id}/artifacts/output"
    local = tmp_path / "later"
    local.mkdir()
    for number in range(60):
        (local / f"{number}.txt").write_text(f"another {number}")

    def change() -> None:
        fs = NgasFileSystem("127.0.0.1", recorded.port)
        fs.rm_file(f"{output}/large.bin")
        # One pack takes the place of another, which is discarded.
        fs.put(f"{local}/", f"{output}/small/", recursive=True)

    with recorded.serving(source):
        make(tmp_path / "backup", recorded.source, progress=Interrupting("copying 1", change))
    assert problems_in(tmp_path / "backup", Silent())[2] == []
    with recorded.serving(tmp_path / "restored"):
        report = restore_servers(tmp_path / "backup", SqliteDatabase(tmp_path / "mlflow.db"))
        fs = NgasFileSystem("127.0.0.1", recorded.port)
        assert fs.cat_file(f"{output}/small/7.txt") == b"another 7"
        assert len(fs.ls(f"{output}/small")) == 60
        assert not fs.exists(f"{output}/large.bin")
    # The run promised other content than it has now, and that is told.
    assert [problem for problem in report.problems if "is not what was recorded" in problem]


def test_a_backup_without_files_restores_beside_an_archive_that_has_them(
    listed: Path, recorded: Recorded, tmp_path: Path
) -> None:
    assert not (listed / "files").exists()
    with recorded.serving():
        report = restore_servers(listed, SqliteDatabase(tmp_path / "mlflow.db"))
    assert report.problems == ()
    assert report.artifacts.files == 62


def test_a_backup_without_files_tells_what_the_archive_lacks(
    listed: Path, recorded: Recorded, source: Path, tmp_path: Path
) -> None:
    output = f"/mlflow/recorded/{recorded.reference.run_id}/artifacts/output"
    with recorded.serving(source):
        NgasFileSystem("127.0.0.1", recorded.port).rm_file(f"{output}/large.bin")
        report = restore_servers(listed, SqliteDatabase(tmp_path / "mlflow.db"))
    assert any("large.bin" in problem and "is not in the archive" in problem for problem in report.problems)
    assert any(recorded.reference.run_id in problem for problem in report.problems)


def test_an_artifact_that_is_damaged_in_the_archive_is_found_by_reading_it(
    listed: Path, recorded: Recorded, source: Path, tmp_path: Path
) -> None:
    [stored] = [path for path in source.glob("volume*/objects/*/*") if path.stat().st_size == 512_000]
    _flip(stored)
    with recorded.serving(source):
        report = restore_servers(listed, SqliteDatabase(tmp_path / "mlflow.db"))
    assert any("large.bin" in problem and "checksum" in problem for problem in report.problems)
    assert report.artifacts.files == 61


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="does not exist"):
        make(tmp_path / "backup", Source(SqliteDatabase(tmp_path / "missing.db")))
    assert not (tmp_path / "missing.db").exists()


def test_the_folder_one_stands_in_may_become_the_backup(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with recorded.serving():
        make(Path(), recorded.source, with_files=False)
    assert problems_in(tmp_path / "here", Silent())[2] == []


def test_a_folder_that_is_in_use_is_no_place_for_a_backup(recorded: Recorded, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").touch()
    with pytest.raises(BackupError, match="not empty"):
        make(tmp_path / "used", recorded.source)
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "thesis.tex").touch()
    with pytest.raises(BackupError, match=r"thesis\.tex"):
        make(tmp_path / "new", recorded.source)
    with pytest.raises(BackupError, match="is no backup"):
        read_manifest(tmp_path / "used")


def test_a_backup_of_servers_is_not_taken_for_one_of_an_embedded_stack(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="--database-env"):
        restore_stack(whole, tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_the_backup_of_an_embedded_stack_brings_all_of_its_archive_to_an_empty_home(
    recorded: Recorded, source: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home #1 50%?"
    with recorded.serving(source):
        NgasFileSystem("127.0.0.1", recorded.port).pipe_file("/raw/night.bin", b"no run of MLflow's")
        # Another program's, which no path of the file system leads to.
        NgasClient("127.0.0.1", recorded.port).archive(b"foreign", "dir/a b.fits", "a b.fits.bin")
        embedded = replace(recorded.source, embedded=Address("127.0.0.1", recorded.port))
        make(tmp_path / "backup", embedded)
        with pytest.raises(StackError, match=rf"port {recorded.port} is held by .*dlg-ml down"):
            restore_stack(tmp_path / "backup", home)
    report = restore_stack(tmp_path / "backup", home)
    assert (report.problems, report.artifacts.files) == ((), 62)
    assert json.loads((home / "ports.json").read_text())["ngas"] == recorded.port
    with recorded.serving(home / "ngas"):
        assert NgasFileSystem("127.0.0.1", recorded.port).cat_file("/raw/night.bin") == b"no run of MLflow's"
        client = NgasClient("127.0.0.1", recorded.port)
        assert client.read(client.status("dir/a b.fits")) == b"foreign"
    with pytest.raises(BackupError, match="is in use"):
        restore_stack(tmp_path / "backup", home)
