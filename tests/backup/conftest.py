"""An archive and an MLflow database with runs in it, and backups of the two; each test serves the archive itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlg_ml_tasks.archive.server import EmbeddedNgas
from dlg_ml_tasks.backup.database import SqliteDatabase
from dlg_ml_tasks.backup.making import Source, make
from dlg_ml_tasks.tracking import Reference

FINGERPRINT = "0" * 64


@dataclass(frozen=True)
class Recorded:
    """Runs whose artifacts lie in the archive kept at `root`, which is served on `port` while somebody serves it."""

    database: Path
    root: Path
    port: int
    reference: Reference
    unfinished: str

    def serving(self, root: Path | None = None) -> EmbeddedNgas:
        """The archive, or another one in its place."""
        return EmbeddedNgas(root or self.root, self.port)

    @property
    def source(self) -> Source:
        return Source(SqliteDatabase(self.database))


def record(uri: str, port: int, folder: Path) -> tuple[Reference, str]:
    """A finished task with files of every sort, and one that never ended; MLflow's tables are made if need be."""
    from mlflow import MlflowClient

    from dlg_ml_tasks.tracking.runs import TaskRun, TaskToRun

    files = folder / "files"
    (files / "small").mkdir(parents=True)
    for number in range(60):
        (files / "small" / f"{number}.txt").write_text(f"number {number}")
    (files / "large.bin").write_bytes(bytes(range(256)) * 2000)
    (files / "empty #1 ä.txt").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("DLG_ML_EXPERIMENT", "recorded")
        MlflowClient().create_experiment("recorded", artifact_location=f"ngas://127.0.0.1:{port}/mlflow/recorded")
        run = TaskRun.start(TaskToRun("load", "load", FINGERPRINT))
        reference = run.log_files(files, "output", FINGERPRINT)
        run.finish(reference)
        unfinished = TaskRun.start(TaskToRun("train", "train", FINGERPRINT))
    return reference, unfinished.run_id


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    database, root = folder / "mlflow.db", folder / "ngas"
    with EmbeddedNgas(root) as server:
        reference, unfinished = record(f"sqlite:///{database}", server.port, folder)
        port = server.port
    return Recorded(database, root, port, reference, unfinished)


@pytest.fixture(scope="session")
def whole(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup with files; not to be changed."""
    directory = tmp_path_factory.mktemp("backups") / "whole"
    with recorded.serving():
        make(directory, recorded.source)
    return directory


@pytest.fixture(scope="session")
def listed(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup without files; not to be changed."""
    directory = tmp_path_factory.mktemp("backups") / "listed"
    with recorded.serving():
        make(directory, recorded.source, with_files=False)
    return directory


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Makes a database file MLflow's for the rest of the test."""

    def use(database: Path) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")

    return use
