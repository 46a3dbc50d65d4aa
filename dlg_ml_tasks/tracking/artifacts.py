"""MLflow's artifact repository on NGAS: a thin adapter over the ``ngas://`` file system."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from urllib.parse import urlsplit

import fsspec
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import ArtifactRepository, verify_artifact_path

# MLflow sets the first in every server process; the second holds --artifacts-destination (mlflow.server.host_policy).
_SERVER_ROOTS = ("_MLFLOW_SERVER_ARTIFACT_ROOT", "_MLFLOW_SERVER_ARTIFACT_DESTINATION")


class NgasArtifactRepository(ArtifactRepository):
    """Artifacts below one ``ngas://host:port/path``. Building it contacts nobody; methods are thread safe."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        url = urlsplit(artifact_uri)
        _refuse_foreign_host(url.netloc, artifact_uri)
        self._fs, _ = fsspec.url_to_fs(f"ngas://{url.netloc}/")
        # MLflow appends to URIs that carry a query; only the path names artifacts.
        self._root = "/" + url.path.strip("/")

    def log_artifact(self, local_file: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Store a local file in the directory `artifact_path`, replacing a file of the same name."""
        self._fs.put_file(os.fspath(local_file), self._remote(artifact_path, Path(local_file).name))

    def log_artifacts(self, local_dir: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Store everything below `local_dir` (not the directory itself) in the directory `artifact_path`."""
        top = Path(local_dir)
        files = sorted(path for path in top.rglob("*") if path.is_file())
        targets = [self._remote(artifact_path, path.relative_to(top).as_posix()) for path in files]
        if files:
            self._fs.put([str(path) for path in files], targets)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Direct children of a directory, sorted; of a file or of nothing: an empty list, as MLflow's own repositories do."""
        directory = self._remote(path)
        try:
            entries = self._fs.ls(directory, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        children = [entry for entry in entries if entry["name"].rstrip("/") != directory]
        return sorted(
            (
                FileInfo(
                    posixpath.relpath(entry["name"], self._root),
                    entry["type"] == "directory",
                    None if entry["type"] == "directory" else entry["size"],
                )
                for entry in children
            ),
            key=lambda info: info.path,
        )

    def _is_directory(self, path: str | None) -> bool:
        return bool(self._fs.isdir(self._remote(path)))

    # MLflow calls it with these keyword names.
    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        try:
            self._fs.get_file(self._remote(remote_file_path), local_path)
        except FileNotFoundError as error:
            raise MlflowException(
                f"No artifact {remote_file_path!r} below {self.artifact_uri}", error_code=RESOURCE_DOES_NOT_EXIST
            ) from error

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file, or a directory with all below it. `mlflow gc` repeats deletions, so a missing path is no error."""
        path = self._remote(artifact_path)
        # fsspec would take the name of a missing file such as `model[1]` for a pattern, and delete `model1`.
        if self._fs.exists(path):
            self._fs.rm(path, recursive=True)

    def _remote(self, directory: str | None, name: str = "") -> str:
        # MLflow's REST client deletes with a trailing slash, which verify_artifact_path would refuse.
        relative = posixpath.join((directory or "").rstrip("/"), name).rstrip("/")
        if relative:
            verify_artifact_path(relative)
        return posixpath.join(self._root, relative) if relative else self._root


def _refuse_foreign_host(netloc: str, artifact_uri: str) -> None:
    """On a server, contact only the archives that its operator configured.

    MLflow's own policy covers a fixed list of schemes; without this any client could make the server call any host by creating an
    experiment or model version with a location of its choice.
    """
    if _SERVER_ROOTS[0] not in os.environ:
        return
    configured = {
        urlsplit(os.environ[name]).netloc for name in _SERVER_ROOTS if os.environ.get(name, "").startswith("ngas:")
    }
    if netloc not in configured:
        raise MlflowException(
            f"This server does not contact the archive {netloc!r} of {artifact_uri!r}; configured: {sorted(configured) or 'none'}",
            error_code=INVALID_PARAMETER_VALUE,
        )
