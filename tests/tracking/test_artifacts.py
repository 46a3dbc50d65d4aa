"""MLflow's artifact repository on an embedded archive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from dlg_ml_tasks.tracking.artifacts import NgasArtifactRepository


@pytest.fixture
def repository(archive: str, tmp_path: Path) -> NgasArtifactRepository:
    return get_artifact_repository(f"{archive}/repository/{tmp_path.name}")


def _write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


FILES = {
    "a.txt": b"a",
    "sub/b.txt": b"bb",
    "sub/deeper/c with space.txt": b"ccc",
    "empty.txt": b"",
    "naïve #1?.txt": b"odd",
}


def test_a_folder_comes_back_as_it_went(repository: NgasArtifactRepository, tmp_path: Path) -> None:
    repository.log_artifacts(_write(tmp_path / "in", FILES), "model")
    (tmp_path / "out").mkdir()
    got = Path(repository.download_artifacts("model", str(tmp_path / "out")))
    assert {path.relative_to(got).as_posix(): path.read_bytes() for path in got.rglob("*") if path.is_file()} == FILES


def test_a_listing_shows_direct_children_sorted_with_sizes(repository: NgasArtifactRepository, tmp_path: Path) -> None:
    repository.log_artifacts(_write(tmp_path / "in", FILES))
    listed = [(info.path, info.is_dir, info.file_size) for info in repository.list_artifacts()]
    assert listed == [("a.txt", False, 1), ("empty.txt", False, 0), ("naïve #1?.txt", False, 3), ("sub", True, None)]
    assert [info.path for info in repository.list_artifacts("sub")] == ["sub/b.txt", "sub/deeper"]
    assert repository.list_artifacts("a.txt") == []
    assert repository.list_artifacts("missing") == []


def test_an_artifact_logged_again_is_replaced(repository: NgasArtifactRepository, tmp_path: Path) -> None:
    for content in (b"first", b"second, longer"):
        repository.log_artifact(_write(tmp_path, {"x.bin": content}) / "x.bin", "p")
    (tmp_path / "out").mkdir()
    assert Path(repository.download_artifacts("p/x.bin", str(tmp_path / "out"))).read_bytes() == b"second, longer"


def test_a_missing_artifact_is_reported_as_missing_and_leaves_no_file(
    repository: NgasArtifactRepository, tmp_path: Path
) -> None:
    with pytest.raises(MlflowException) as caught:
        repository._download_file(remote_file_path="no/such.bin", local_path=str(tmp_path / "such.bin"))
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert not (tmp_path / "such.bin").exists()


def test_deleting_a_folder_frees_it_leaves_its_namesake_and_may_be_repeated(
    repository: NgasArtifactRepository, tmp_path: Path
) -> None:
    repository.log_artifacts(_write(tmp_path / "in", {"abc/x": b"1", "abcd/y": b"2"}))
    repository.delete_artifacts("abc/")
    repository.delete_artifacts("abc")
    assert repository.list_artifacts("abc") == []
    assert [info.path for info in repository.list_artifacts("abcd")] == ["abcd/y"]


def test_deleting_a_missing_name_that_looks_like_a_pattern_deletes_nothing_else(
    repository: NgasArtifactRepository, tmp_path: Path
) -> None:
    repository.log_artifact(_write(tmp_path, {"model1": b"1"}) / "model1")
    repository.delete_artifacts("model[1]")
    assert [info.path for info in repository.list_artifacts()] == ["model1"]


@pytest.mark.parametrize("path", ["../up", "/absolute", "a//b", "."])
def test_a_path_that_leaves_the_root_is_refused(repository: NgasArtifactRepository, tmp_path: Path, path: str) -> None:
    _write(tmp_path, {"x": b"1"})
    with pytest.raises(MlflowException):
        repository.log_artifact(tmp_path / "x", path)


def test_a_server_contacts_only_the_archive_it_was_configured_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "ngas://127.0.0.1:7777/mlflow")
    NgasArtifactRepository("ngas://127.0.0.1:7777/mlflow/1/run/artifacts")
    with pytest.raises(MlflowException, match=r"evil\.example:99"):
        NgasArtifactRepository("ngas://evil.example:99/x")


@pytest.mark.parametrize(
    "program",
    [
        "import mlflow; import dlg_ml_tasks.tracking",
        "import dlg_ml_tasks.tracking; import mlflow",
        "import dlg_ml_tasks.tracking.plugin; import mlflow",
        "import dlg_ml_tasks.tracking.artifacts",
    ],
)
def test_the_scheme_is_registered_in_every_import_order(program: str) -> None:
    check = (
        "from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository as get;"
        "print(type(get('ngas://127.0.0.1:1/x')).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:mlflow", "-c", f"{program}; {check}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "NgasArtifactRepository"
