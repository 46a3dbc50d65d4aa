"""The embedded stack's parts of a backup: two SQLite databases, the record of its ports, and the archive's volumes."""

from __future__ import annotations

import sqlite3
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from dlg_ml_tasks.archive import Address
from dlg_ml_tasks.stack import lifecycle
from dlg_ml_tasks.stack.backup.folder import Kind, Manifest, Progress, Writer
from dlg_ml_tasks.stack.errors import StackError
from dlg_ml_tasks.stack.ports import LOOPBACK
from dlg_ml_tasks.stack.services import database
from dlg_ml_tasks.stack.state import load_state

MLFLOW = "mlflow.sqlite"
CATALOGUE = "archive.sqlite"
PORTS = "ports.json"
FILES = "files.tar"


class EmbeddedStack:
    """The stack of one home directory."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._catalogue = home / "ngas" / "catalogue.sqlite"

    def source(self, *, files: bool) -> tuple[Kind, Mapping[str, Writer]]:
        """The databases as they are at one moment each, whether or not the services run."""
        for path in (database(self._home), self._catalogue):
            if not path.exists():
                raise StackError(f"there is nothing to back up: {path} does not exist")
        writers: dict[str, Writer] = {
            MLFLOW: lambda part: snapshot(database(self._home), part),
            CATALOGUE: lambda part: snapshot(self._catalogue, part),
            # The archive's port stands in every artifact's address.
            PORTS: lambda part: _write(part, (self._home / PORTS).read_bytes()),
        }
        if files:
            writers[FILES] = self._pack_volumes
        return "embedded", writers

    @contextmanager
    def bring_back(self, backup: Path, manifest: Manifest, on_progress: Progress) -> Iterator[Address]:
        """Fill the home and start its services; they stop again at the end."""
        if manifest.kind != "embedded":
            raise StackError(f"the backup is of a stack of kind {manifest.kind}; it fits no embedded one")
        if load_state(self._home) is not None:
            raise StackError(
                f"the stack of {self._home} is up; stop it (dlg-ml down), or name an empty one in DLG_ML_HOME"
            )
        targets = {MLFLOW: database(self._home), CATALOGUE: self._catalogue, PORTS: self._home / PORTS}
        for path in targets.values():
            if path.exists():
                raise StackError(f"{path} exists, and a restore overwrites nothing; name an empty home in DLG_ML_HOME")
        archive = self._catalogue.parent
        if FILES in manifest.names and any(archive.glob("volume*")):
            raise StackError(f"{archive} holds volumes, and a restore overwrites nothing")
        placed: list[Path] = []
        try:
            if FILES in manifest.names:
                on_progress(FILES, "unpacking")
                archive.mkdir(mode=0o700, parents=True, exist_ok=True)
                with tarfile.open(backup / FILES) as tar:
                    tar.extractall(archive, filter="data")
            for name, path in targets.items():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                part = path.with_name(path.name + ".restoring")
                _write(part, (backup / name).read_bytes())
                placed.append(part.rename(path))
        except (OSError, tarfile.TarError) as error:
            for path in placed:
                path.unlink()
            raise StackError(f"the backup could not be brought back: {error}") from error
        state = lifecycle.up(self._home, on_progress=on_progress)
        try:
            yield Address(LOOPBACK, state.ports["ngas"])
        finally:
            lifecycle.down(self._home)

    def _pack_volumes(self, part: Path) -> None:
        with tarfile.open(part, "w") as tar:
            for volume in sorted(self._catalogue.parent.glob("volume*")):
                tar.add(volume, arcname=volume.name)


def snapshot(source: Path, destination: Path) -> None:
    """Copy an SQLite database as it is at one moment, while others write to it."""
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(destination)) as copy,
        ):
            live.backup(copy)
            # A write-ahead log beside the copy would be a part that the manifest does not name.
            copy.execute("PRAGMA journal_mode=DELETE")
            (answer,) = copy.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        raise StackError(f"{source} cannot be read: {error}") from error
    if answer != "ok":
        raise StackError(f"{source} is damaged: {answer}")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
