"""The plugin is found whatever is imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "program",
    [
        "import mlflow; import dlg_ml_tasks.tracking",
        "import dlg_ml_tasks.tracking; import mlflow",
        "import dlg_ml_tasks.tracking.plugin; import mlflow",
        "import dlg_ml_tasks.tracking.artifacts",
    ],
)
def test_the_scheme_is_registered_without_a_warning_in_every_import_order(program: str) -> None:
    check = (
        "from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository as get;"
        "print(type(get('ngas://127.0.0.1:1/x')).__name__)"
    )
    # MLflow says in a UserWarning that it could not load an entry point, and goes on without the scheme.
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", f"{program}; {check}"], capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.returncode) == ("NgasArtifactRepository", 0), done.stderr


def test_the_entry_point_is_a_function_with_a_name_and_imports_no_mlflow() -> None:
    program = (
        "import sys; from importlib.metadata import entry_points;"
        "[entry] = [e for e in entry_points(group='mlflow.artifact_repository') if e.name == 'ngas'];"
        "print(entry.load().__name__, 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ngas_artifact_repository", "False"]
