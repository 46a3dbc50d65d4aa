"""The compose stack's parts of a backup: PostgreSQL's dump, the archive's catalogue and volumes, by way of `docker compose`."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dlg_ml_tasks.archive import Address, parse_address
from dlg_ml_tasks.stack.backup.folder import Kind, Manifest, Progress, Writer
from dlg_ml_tasks.stack.compose import ARCHIVE, compose_folder
from dlg_ml_tasks.stack.errors import StackError

MLFLOW = "mlflow.dump"
CATALOGUE = "archive.sqlite"
FILES = "files.tar"

_PSQL = ("psql", "-U", "mlflow", "-d", "mlflow", "-qAtc")

# These run in the archive's container, on its Python. The copy lies beside the database first: /tmp is memory.
_SNAPSHOT = """
import os, shutil, sqlite3, sys
source, part = sys.argv[1], sys.argv[1] + ".backup"
copy = sqlite3.connect(part)
try:
    sqlite3.connect("file:" + source + "?mode=ro", uri=True).backup(copy)
    copy.execute("PRAGMA journal_mode=DELETE")
    if copy.execute("PRAGMA integrity_check").fetchone() != ("ok",):
        sys.exit(source + " is damaged")
    copy.close()
    with open(part, "rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
finally:
    os.unlink(part)
"""
_COUNT = """
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM " + sys.argv[2]).fetchone()[0])
"""
_PLACE = """
import os, shutil, sys
path = sys.argv[1]
with open(path + ".restoring", "wb") as file:
    shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
    file.flush()
    os.fsync(file.fileno())
for log in (path + "-wal", path + "-shm"):
    if os.path.exists(log):
        os.unlink(log)
os.rename(path + ".restoring", path)
"""


@dataclass(frozen=True)
class _Archive:
    """How the archive lies in its container."""

    service: str
    kind: Kind
    user: str
    python: str
    root: str
    catalogue: str
    table: str


_ARCHIVES = (
    _Archive(
        "ngas", "compose", "ngas", "/home/ngas/ngas_rt/bin/python", "/home/ngas/NGAS", "ngas.sqlite", "ngas_files"
    ),
    _Archive("ngas-embedded", "compose-embedded", "10001", "python", "/archive", "catalogue.sqlite", "files"),
)


class ComposeStack:
    """The containers of docker-compose.yml in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def here(cls) -> ComposeStack:
        """The stack of the folder that the environment says; StackError if it has no docker-compose.yml."""
        folder = compose_folder()
        if not (folder / "docker-compose.yml").is_file():
            raise StackError(
                f"{folder} has no docker-compose.yml; go to the folder that has it, or name it in DLG_ML_COMPOSE"
            )
        if shutil.which("docker") is None:
            raise StackError(
                "there is no docker command on this machine, which backup and restore of the compose stack need"
            )
        return cls(folder)

    def source(self, *, files: bool) -> tuple[Kind, Mapping[str, Writer]]:
        """The database and the catalogue as they are at one moment each, while the services run."""
        archive = self._running_archive()
        writers: dict[str, Writer] = {
            MLFLOW: lambda part: self._to_file(
                part, "exec", "-T", "postgres", "pg_dump", "-U", "mlflow", "-Fc", "mlflow"
            ),
            CATALOGUE: lambda part: self._to_file(
                part, *_exec(archive), archive.python, "-c", _SNAPSHOT, f"{archive.root}/{archive.catalogue}"
            ),
        }
        if files:
            writers[FILES] = lambda part: self._to_file(
                part, *_exec(archive), "tar", "-C", archive.root, "-cf", "-", "volume1"
            )
        return archive.kind, writers

    @contextmanager
    def bring_back(self, backup: Path, manifest: Manifest, on_progress: Progress) -> Iterator[Address]:
        """Replace the empty database and catalogue of the running stack, which goes on running."""
        archive = self._running_archive()
        if manifest.kind != archive.kind:
            raise StackError(f"the backup is of a stack of kind {manifest.kind}; this one is of kind {archive.kind}")
        catalogue = f"{archive.root}/{archive.catalogue}"
        self._require_empty("MLflow", "exec", "-T", "postgres", *_PSQL, "SELECT count(*) FROM runs")
        self._require_empty("the archive", *_exec(archive), archive.python, "-c", _COUNT, catalogue, archive.table)
        self._call("stop", "mlflow", archive.service)
        try:
            on_progress(MLFLOW, "restoring")
            self._from_file(
                backup / MLFLOW,
                *("exec", "-T", "postgres", "pg_restore", "-U", "mlflow", "-d", "mlflow"),
                *("--clean", "--if-exists", "--no-owner", "--single-transaction"),
            )
            on_progress(CATALOGUE, "restoring")
            if FILES in manifest.names:
                self._from_file(backup / FILES, *_run(archive, "tar"), "-C", archive.root, "-xf", "-")
            self._from_file(backup / CATALOGUE, *_run(archive, archive.python), "-c", _PLACE, catalogue)
        finally:
            self._call("start", archive.service, "mlflow")
        self._call("up", "--detach", "--wait", "--no-recreate", archive.service, "mlflow")
        yield parse_address(ARCHIVE)

    def _running_archive(self) -> _Archive:
        running = set(self._output("ps", "--services", "--status", "running").split())
        found = [archive for archive in _ARCHIVES if archive.service in running]
        if len(found) != 1 or not {"postgres", "mlflow"} <= running:
            raise StackError(
                f"the compose stack of {self._folder} is not up (running: {', '.join(sorted(running)) or 'nothing'}); "
                "start it with: docker compose up --wait"
            )
        return found[0]

    def _require_empty(self, what: str, *arguments: str) -> None:
        count = self._output(*arguments).strip()
        if count != "0":
            raise StackError(
                f"{what} is not empty ({count} entries), and a restore overwrites nothing; use a new stack"
            )

    def _call(self, *arguments: str) -> None:
        self._output(*arguments)

    def _output(self, *arguments: str) -> str:
        with tempfile.TemporaryFile() as answer:
            self._docker(arguments, stdout=answer)
            answer.seek(0)
            return answer.read().decode()

    def _to_file(self, part: Path, *arguments: str) -> None:
        with part.open("xb") as file:
            self._docker(arguments, stdout=file)

    def _from_file(self, part: Path, *arguments: str) -> None:
        with part.open("rb") as file, tempfile.TemporaryFile() as answer:
            self._docker(arguments, stdin=file, stdout=answer)

    def _docker(self, arguments: tuple[str, ...], *, stdout: IO[bytes], stdin: IO[bytes] | None = None) -> None:
        done = subprocess.run(  # noqa: S603  a fixed program, and arguments that this module makes
            ["docker", "compose", "--project-directory", str(self._folder), *arguments],  # noqa: S607
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
            raise StackError(f"docker compose {' '.join(arguments[:3])} … failed: {lines[-1]}")


def _exec(archive: _Archive) -> tuple[str, ...]:
    return ("exec", "-T", "--user", archive.user, archive.service)


def _run(archive: _Archive, program: str) -> tuple[str, ...]:
    """A container of its own on the archive's volumes, for while the service is stopped."""
    return ("run", "--rm", "--no-deps", "-T", "--user", archive.user, "--entrypoint", program, archive.service)
