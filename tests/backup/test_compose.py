"""The compose stack is backed up by this same command in MLflow's image: what `docker` is told, by a program in its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dlg_ml_tasks.backup.compose import run_backup, run_restore
from dlg_ml_tasks.backup.errors import BackupError

Engine = Callable[..., Callable[[], list[str]]]

USER = f"{os.getuid()}:{os.getgid()}"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Puts a `docker` on PATH that writes down its arguments; gives what it was told, a line a call."""

    def make(*, mlflow_runs: bool, run: int = 0) -> Callable[[], list[str]]:
        told = tmp_path / "told"
        told.touch()
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir()
        running = "echo 1234" if mlflow_runs else ":"
        program.write_text(f'#!/bin/sh\necho "$@" >> {told}\ncase $2 in ps) {running};; run) exit {run};; esac\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return lambda: told.read_text().splitlines()

    return make


def test_a_backup_runs_as_its_caller_with_the_folder_above_it_mounted(tmp_path: Path, engine: Engine) -> None:
    told = engine(mlflow_runs=True)
    assert run_backup(tmp_path / "backups" / "new", ["--json"]) == 0
    assert told() == [
        f"compose run --rm -T --user {USER} -v {tmp_path}/backups:/backup:rw "
        "mlflow dlg-ml backup --database-env=MLFLOW_BACKEND_STORE_URI --json -- /backup/new"
    ]
    assert (tmp_path / "backups").is_dir()


@pytest.mark.parametrize("code", [0, 1])
def test_mlflow_is_stopped_for_a_restore_and_started_again_however_it_ends(
    tmp_path: Path, engine: Engine, code: int
) -> None:
    told = engine(mlflow_runs=True, run=code)
    assert run_restore(tmp_path / "old", ["--archive-survived"]) == code
    _, stopped, restored, started = told()
    assert stopped == "compose stop mlflow"
    assert f"-v {tmp_path}:/backup:ro mlflow dlg-ml restore" in restored
    assert restored.endswith("--archive-survived -- /backup/old")
    assert started == "compose up --detach --wait --no-deps --no-recreate mlflow"


def test_an_mlflow_that_did_not_run_is_not_started_by_a_restore(tmp_path: Path, engine: Engine) -> None:
    told = engine(mlflow_runs=False)
    assert run_restore(tmp_path / "old", []) == 0
    assert [call.split()[1] for call in told()] == ["ps", "run"]


def test_without_docker_a_backup_of_containers_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackupError, match="`docker`"):
        run_backup(tmp_path / "new", [])


def test_a_folder_that_cannot_be_mounted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="colon"):
        run_backup(tmp_path / "a:b" / "new", [])
