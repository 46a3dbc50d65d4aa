"""A run's files on this machine: fetched from the archive and checked against the reference that names them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from dlg_ml_tasks.tracking.errors import ContentChanged
from dlg_ml_tasks.tracking.reference import Reference, digest_of
from dlg_ml_tasks.tracking.store import reachable_client, usual_artifact_uri


def download(reference: Reference, destination: Path) -> Path:
    """Fetch the files that a reference names into the folder `destination` and check them against its digest.

    Raises ContentChanged if they differ, FileNotFoundError if they are gone.
    """
    path = artifact_path(reference)
    local = download_artifact(reference.run_id, path, destination)
    if local is None:
        raise FileNotFoundError(f"{reference.uri} is no longer in the archive; run the task that made it again")
    found = digest_of(hash_files(local))
    if found != reference.digest:
        raise ContentChanged(f"{reference.uri}: expected content {reference.digest[:12]}…, found {found[:12]}…")
    return local


def download_artifact(run_id: str, path: str, destination: Path) -> Path | None:
    """Fetch a run's artifact (file or folder) below `destination`; None if there is no such artifact."""
    destination.mkdir(parents=True, exist_ok=True)
    for uri in _locations(run_id):
        # MLflow's client would ask for the run twice, and for logged models.
        repository = get_artifact_repository(uri)
        try:
            return Path(repository.download_artifacts(path, str(destination)))
        except (MlflowException, OSError):
            # Each kind of repository says in its own way that there is nothing.
            parent = str(PurePosixPath(path).parent)
            if path in {info.path for info in repository.list_artifacts(None if parent == "." else parent)}:
                raise
    return None


def _locations(run_id: str) -> Iterator[str]:
    """Where a run's artifacts may be: first where MLflow keeps those of its experiment's other runs, which saves asking it."""
    likely = usual_artifact_uri(run_id)
    if likely:
        yield likely
    actual = str(reachable_client().get_run(run_id).info.artifact_uri)
    if actual != likely:
        yield actual


def hash_files(folder: Path) -> dict[str, str]:
    """sha256 in hex of every file below `folder` (or of the one file), by path relative to it."""
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    return {file.name if file == folder else file.relative_to(folder).as_posix(): hash_file(file) for file in files}


def hash_file(file: Path) -> str:
    """sha256 of a file in hex."""
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def artifact_path(reference: Reference) -> str:
    """The path of a reference's files among its run's artifacts. Raises ValueError for a model."""
    if reference.kind != "files":
        raise ValueError(f"{reference.uri} names a model, not files")
    return reference.uri.removeprefix(f"runs:/{reference.run_id}").strip("/")
