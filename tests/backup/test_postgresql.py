"""MLflow's database in a real PostgreSQL server, by pg_dump and pg_restore."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlg_ml_tasks.archive.server import EmbeddedNgas
from dlg_ml_tasks.backup.database import database_at
from dlg_ml_tasks.backup.errors import BackupError
from dlg_ml_tasks.backup.making import Source, make
from dlg_ml_tasks.backup.manifest import read_manifest
from dlg_ml_tasks.backup.restoring import restore_servers

from .conftest import record

pytestmark = pytest.mark.integration

PASSWORD = "pässw:ord@/"
"""With what has a meaning in a URI."""
QUOTED = "p%C3%A4ssw%3Aord%40%2F"


def _program(name: str) -> str:
    """A program of PostgreSQL's server, which Debian keeps off the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))
    if found is None or shutil.which("pg_dump") is None:
        pytest.skip(f"PostgreSQL is not installed ({name} and pg_dump): apt-get install postgresql")
    return found


def _as_server_user() -> list[str]:
    """PostgreSQL refuses to be run by root."""
    return ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A PostgreSQL server that listens on a socket in the folder it gives, and nowhere else."""
    pg_ctl, initdb = _program("pg_ctl"), _program("initdb")
    # A socket's path has 107 characters at most, and the server's user must get to it.
    folder = Path(
        subprocess.check_output([*_as_server_user(), "mktemp", "-d", "/tmp/backup-pg-XXXXXX"], text=True).strip()
    )
    try:
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        data = str(folder / "data")
        subprocess.run(
            [
                *(*_as_server_user(), initdb, "-D", data, "-U", "mlflow", "-A", "scram-sha-256", "--no-sync"),
                *(f"--pwfile={folder / 'password'}", "-E", "UTF8"),
            ],
            check=True,
            capture_output=True,
        )
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        control = [*_as_server_user(), pg_ctl, "-D", data, "-w"]
        # To a file: the server would keep a pipe of ours open.
        subprocess.run([*control, "-l", f"{folder}/log", "-o", options, "start"], check=True, stdout=subprocess.DEVNULL)
        try:
            yield folder
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL)
    finally:
        shutil.rmtree(folder)


def _uri(server: Path, database: str, password: str = QUOTED) -> str:
    return f"postgresql+psycopg://mlflow:{password}@/{database}?host={server}"


def _create(server: Path, database: str) -> str:
    subprocess.run(
        ["createdb", "-h", str(server), "-U", "mlflow", database],
        env={**os.environ, "PGPASSWORD": PASSWORD},
        check=True,
    )
    return _uri(server, database)


def test_a_database_is_dumped_while_in_use_and_restored_into_an_empty_one(server: Path, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    uri = _create(server, "original")
    with EmbeddedNgas(tmp_path / "ngas") as archive:
        record(uri, archive.port, tmp_path)
        make(tmp_path / "backup", Source(database_at(uri)))
    manifest = read_manifest(tmp_path / "backup")
    assert (manifest.database.kind, manifest.database.runs) == ("postgresql", 2)
    assert "pg_dump" in manifest.software

    with EmbeddedNgas(tmp_path / "new", archive.port):
        with pytest.raises(BackupError, match="2 runs") as refused:
            restore_servers(tmp_path / "backup", database_at(uri))
        assert PASSWORD not in str(refused.value)
        restored = database_at(_create(server, "restored"))
        report = restore_servers(tmp_path / "backup", restored)
    assert report.problems == ()
    assert report.artifacts.files == 62
    assert report.ended_runs == 1
    assert restored.describe() == manifest.database
    # MLflow may have made its tables by then, as its container does when it starts.
    with EmbeddedNgas(tmp_path / "new", archive.port):
        emptied = _create(server, "emptied")
        subprocess.run(
            [
                *("psql", "-q", "-h", str(server), "-U", "mlflow", "emptied", "-c"),
                "CREATE TABLE experiments (experiment_id int, artifact_location text); CREATE TABLE runs (id int)",
            ],
            env={**os.environ, "PGPASSWORD": PASSWORD},
            check=True,
        )
        assert restore_servers(tmp_path / "backup", database_at(emptied)).problems == ()


def test_a_dump_that_cannot_be_restored_leaves_the_database_empty(server: Path, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    database = database_at(_create(server, "untouched"))
    (tmp_path / "cut.pgdump").write_bytes(b"PGDMP\x01\x0e\x00\x04\x08\x01\x01\x01\x00")
    with pytest.raises(BackupError, match="pg_restore with postgresql"):
        database.replace_by(tmp_path / "cut.pgdump")
    database.refuse_records()


def test_a_wrong_password_is_told_in_one_line_without_it(server: Path, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(BackupError, match="password authentication failed") as refused:
        make(tmp_path / "backup", Source(database_at(_uri(server, "postgres", "wrong-one"))))
    assert "wrong-one" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "backup").exists()


def test_the_password_is_on_no_command_line(server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pg_dump that writes down what it was told, in place of the real one."""
    spy = tmp_path / "bin" / "pg_dump"
    spy.parent.mkdir()
    spy.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/told; printf "%s" "$PGPASSWORD" > {tmp_path}/secret; touch {tmp_path}/dump\n'
    )
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy.parent}{os.pathsep}{os.environ['PATH']}")
    database_at(_uri(server, "mlflow")).copy_to(tmp_path / "dump")
    assert (tmp_path / "secret").read_text() == PASSWORD
    told = (tmp_path / "told").read_text()
    assert PASSWORD not in told
    assert QUOTED not in told
