"""Fixtures that several rooms share: an embedded archive, and a tracking store whose artifacts lie in it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

# One thread: what the tests compare bit by bit, and what two busy cores bear best.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"


# The folders that one worker of `pytest -n 2 --dist loadgroup` runs alone: two whole stacks that start at the same time starve each
# other, and a server that many tests share need not be started twice.
GROUPS = {
    "integration": "stack",
    "stack": "stack",
    "slurm": "stack",
    "graphs": "engine",
    "components": "engine",
    "tracking": "tracking",
    "web": "web",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if group := GROUPS.get(item.path.relative_to(Path(__file__).parent).parts[0]):
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an embedded archive that lives as long as the test session."""
    from dlg_ml_tasks.archive.server import EmbeddedNgas

    with EmbeddedNgas(tmp_path_factory.mktemp("ngas")) as server:
        yield f"ngas://{server.host}:{server.port}"


@pytest.fixture(scope="session")
def tracking_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database, made once: its first migration takes many seconds."""
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture
def tracking(archive: str, tracking_store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment of the test's own with its artifacts in the embedded archive; returns its artifact location."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracking_store}")
    name = f"test-{uuid.uuid4().hex[:8]}"
    location = f"{archive}/{name}"
    mlflow.MlflowClient().create_experiment(name, artifact_location=location)
    monkeypatch.setenv("DLG_ML_EXPERIMENT", name)
    return location
