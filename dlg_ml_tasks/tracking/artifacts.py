"""MLflow's artifact repository on NGAS: a thin adapter over the ``ngas://`` file system."""

from __future__ import annotations

import asyncio
import os
import posixpath
import shutil
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from fsspec.callbacks import Callback
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import (
    ARTIFACT_STREAM_CHUNK_SIZE,
    ArtifactRepository,
    StreamUploadMixin,
    verify_artifact_path,
)
from mlflow.utils.file_utils import ArtifactProgressBar, create_tmp_dir

from dlg_ml_tasks.archive import Address, naming, parse_address
from dlg_ml_tasks.archive.credentials import bound_hosts
from dlg_ml_tasks.archive.opening import open_archive
from dlg_ml_tasks.tracking.artifact_errors import told_to_mlflow
from dlg_ml_tasks.tracking.upload_sources import below, refuse_irregular

# MLflow sets the first in every server process; the second holds --artifacts-destination (mlflow.store.artifact.host_policy).
SERVER_ROOTS = ("_MLFLOW_SERVER_ARTIFACT_ROOT", "_MLFLOW_SERVER_ARTIFACT_DESTINATION")


class NgasArtifactRepository(ArtifactRepository, StreamUploadMixin):
    """Artifacts below one ``ngas://host:port/path``. Building it contacts nobody; methods are thread safe.

    Every failure of the archive is an MlflowException whose cause is the archive's own error. Paths are relative to the
    root, with `/` between names; one with an empty, "." or ".." name in it is refused.
    """

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        # The location itself is not repeated in an error: somebody may have put a password into it.
        with told_to_mlflow("use the artifact location"):
            # MLflow appends to URIs that carry a query; only the path names artifacts.
            url = urlsplit(artifact_uri)
            address = parse_address(url.netloc)
            _refuse_foreign_host(address, artifact_uri)
            self._fs, self._root = open_archive(f"ngas://{address}{url.path}")

    # --- uploads ---

    def log_artifact(self, local_file: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Store a local file in the directory `artifact_path`, replacing a file of the same name."""
        source = Path(local_file)
        refuse_irregular(source)
        remote = self._target(artifact_path, source.name)
        with self._told("upload", remote):
            self._fs.put_file(os.fspath(source), remote)

    def log_artifacts(self, local_dir: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Store everything below `local_dir` (not the directory itself) in the directory `artifact_path`.

        Directories without files are kept too. Raises OSError for what cannot be read, before anything is sent.
        """
        self._upload(Path(local_dir), artifact_path, new=None)

    def log_new_artifacts(self, local_dir: str | os.PathLike[str], artifact_path: str | None, run_id: str) -> None:
        """Like `log_artifacts`, for a run that this process has just made: whether the names are taken is not asked."""
        ahead, found, _ = self._root.partition(f"/{run_id}/")
        self._upload(Path(local_dir), artifact_path, new=f"{ahead}/{run_id}" if found else None)

    def _upload(self, top: Path, artifact_path: str | None, new: str | None) -> None:
        sources = list(below(top))
        targets = [self._target(artifact_path, path.relative_to(top).as_posix()) for path in sources]
        if sources:
            with self._told("upload", self._target(artifact_path)):
                self._fs.put([os.fspath(path) for path in sources], targets, new=new)

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """Store what `stream` gives until its end; nothing is stored if it raises.

        NGAS wants the length ahead of the bytes and MLflow does not know it: the content waits in a temporary file.
        """
        remote = self._target(artifact_path, posixpath.basename(artifact_file_name))
        with self._told("upload", remote), self._fs.open(remote, "wb") as sink:
            shutil.copyfileobj(stream, sink, ARTIFACT_STREAM_CHUNK_SIZE)

    async def log_artifact_from_async_stream(
        self, chunks: AsyncIterable[bytes], artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """Like `log_artifact_from_stream`, on an event loop that is never kept waiting."""
        remote = self._target(artifact_path, posixpath.basename(artifact_file_name))
        with self._told("upload", remote):
            sink = await asyncio.to_thread(self._fs.open, remote, "wb")
            try:
                async for block in _blocks(chunks):
                    await asyncio.to_thread(sink.write, block)
                await asyncio.to_thread(sink.close)
            finally:
                sink.discard()

    # --- looking ---

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Direct children of a directory, sorted; of a file or of nothing: an empty list, as MLflow's own repositories do."""
        directory = self._remote(path)
        with self._told("list", directory):
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

    def _is_directory(self, artifact_path: str | None) -> bool:
        remote = self._remote(artifact_path)
        with self._told("look at", remote):
            return bool(self._fs.isdir(remote))

    # --- downloads ---

    def download_artifacts(self, artifact_path: str | None, dst_path: str | os.PathLike[str] | None = None) -> str:
        """Download a file, or a directory with all below it, into `dst_path`, and return where it is.

        dst_path: an existing directory; by default a new temporary one.
        A directory is one transfer of the file system, which knows what can be fetched together; MLflow's own method
        would ask for each file by itself.
        """
        destination = _existing_directory(dst_path)
        relative = (artifact_path or "").rstrip("/")
        remote = self._remote(relative)
        local = destination
        if relative:
            local = self._create_download_destination(relative, destination)  # type: ignore[no-untyped-call]
        with self._told("download", remote):
            if self._fs.isdir(remote):
                with _ProgressBar("Downloading artifacts") as progress:
                    self._fs.get(f"{remote}/", local, recursive=True, callback=progress)
            elif relative:
                self._fs.get_file(remote, local)
        return local

    # MLflow's trace hooks call it with a positional Path, the rest of MLflow with these keyword names.
    def _download_file(self, remote_file_path: str, local_path: str | os.PathLike[str]) -> None:
        remote = self._remote(remote_file_path)
        with self._told("download", remote):
            if self._fs.isdir(remote):
                raise IsADirectoryError(f"{remote_file_path!r} is a directory")
            self._fs.get_file(remote, local_path)

    # --- deleting ---

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file, or a directory with all below it. `mlflow gc` repeats deletions, so a missing path is no error."""
        remote = self._remote(artifact_path)
        with self._told("delete", remote):
            # fsspec would take the name of a missing file such as `model[1]` for a pattern, and delete `model1`.
            if self._fs.exists(remote):
                self._fs.rm(remote, recursive=True)

    # --- names ---

    def _target(self, directory: str | None, name: str = "") -> str:
        """The archive's path of what is to be stored as `name` in `directory`, both checked."""
        # MLflow's rule for directories to write to; it would also refuse files such as `..hidden`.
        verify_artifact_path(directory)
        return self._remote(posixpath.join(directory or "", name))

    def _remote(self, path: str | None) -> str:
        """The archive's path of what the caller calls `path`."""
        # MLflow's REST client deletes with a trailing slash. A slash alone is not the root: that has no name.
        relative = (path or "").rstrip("/") or path or ""
        if relative and not {"", ".", ".."}.isdisjoint(relative.split("/")):
            raise MlflowException(
                f"Invalid artifact path {path!r}: write names with single slashes between them, without '.' and '..'",
                error_code=INVALID_PARAMETER_VALUE,
            )
        with told_to_mlflow(f"use the artifact path {path!r}"):
            return naming.canonical(posixpath.join(self._root, relative))

    def _told(self, verb: str, remote: str) -> AbstractContextManager[None]:
        what = "the artifacts" if remote == self._root else repr(posixpath.relpath(remote, self._root))
        return told_to_mlflow(f"{verb} {what} of {self.artifact_uri}")


class _ProgressBar(Callback):  # type: ignore[misc]  # fsspec has no types
    """A transfer of the file system, shown as MLflow shows its own downloads."""

    def __init__(self, description: str) -> None:
        super().__init__()
        self._bar = ArtifactProgressBar(description, total=0, step=1)

    def set_size(self, size: int) -> None:
        """`size` files are to come."""
        super().set_size(size)
        self._bar.total = size
        self._bar.set_pbar()

    def relative_update(self, inc: int = 1) -> None:
        """`inc` more have come."""
        super().relative_update(inc)
        self._bar.step = inc
        self._bar.update()

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__()


def _refuse_foreign_host(address: Address, artifact_uri: str) -> None:
    """On a server, contact only the archives that its operator configured.

    MLflow's own policy covers a fixed list of schemes; without this any client could make the server call any host by creating an
    experiment or model version with a location of its choice.
    """
    if SERVER_ROOTS[0] not in os.environ:
        return
    roots = [urlsplit(os.environ.get(name, "")) for name in SERVER_ROOTS]
    # An operator with more archives than one names the others there.
    configured = bound_hosts() | {parse_address(root.netloc) for root in roots if root.scheme == "ngas"}
    if address not in configured:
        raise MlflowException(
            f"This server does not contact the archive {address} of {artifact_uri!r}; "
            f"its configuration names: {', '.join(sorted(map(str, configured))) or 'none'}",
            error_code=INVALID_PARAMETER_VALUE,
        )


def _existing_directory(path: str | os.PathLike[str] | None) -> str:
    if not path:
        return str(create_tmp_dir())
    absolute = os.path.abspath(path)  # noqa: PTH100  Path.absolute keeps `..`, which MLflow's check of the target refuses
    if not Path(absolute).exists():
        raise MlflowException(
            f"The directory to download to does not exist: {absolute}", error_code=RESOURCE_DOES_NOT_EXIST
        )
    if not Path(absolute).is_dir():
        raise MlflowException(
            f"The place to download to is not a directory: {absolute}", error_code=INVALID_PARAMETER_VALUE
        )
    return absolute


async def _blocks(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in larger pieces, so that each is worth a hop to a thread."""
    block = bytearray()
    async for chunk in chunks:
        block += chunk
        if len(block) >= ARTIFACT_STREAM_CHUNK_SIZE:
            yield bytes(block)
            block.clear()
    yield bytes(block)
