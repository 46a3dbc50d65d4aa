"""Backup and restore of the compose stack: the same commands in MLflow's image, which reaches its database and the archive."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from dlg_ml_tasks.backup.errors import BackupError
from dlg_ml_tasks.stack import compose_folder

SERVICE = "mlflow"

DATABASE_VARIABLE = "MLFLOW_BACKEND_STORE_URI"
"""What deploy/mlflow/serve.py sets to the URI of MLflow's database, without the password."""

_INSIDE = "/backup"


def run_backup(directory: Path, options: Sequence[str]) -> int:
    """`dlg-ml backup` of the compose stack into a folder of this machine; returns the command's exit code.

    Raises BackupError if there is no `docker`, or the folder above `directory` cannot be made.
    """
    return _dlg_ml("backup", _mountable(directory), options, access="rw")


def run_restore(directory: Path, options: Sequence[str]) -> int:
    """`dlg-ml restore` from a folder of this machine into the compose stack; returns the command's exit code.

    MLflow is stopped meanwhile, and started again however it ends if it ran. Raises as `run_backup` does.
    """
    directory = _mountable(directory)
    with _mlflow_stopped():
        return _dlg_ml("restore", directory, options, access="ro")


def _mountable(directory: Path) -> Path:
    directory = directory.resolve()
    if ":" in str(directory.parent):
        raise BackupError(f"{str(directory.parent)!r} has a colon in its name and cannot be mounted into a container")
    try:
        # By this user: the engine would make it as root.
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackupError(f"{str(directory.parent)!r} cannot be made: {error.strerror}") from error
    return directory


def _dlg_ml(command: str, directory: Path, options: Sequence[str], access: Literal["ro", "rw"]) -> int:
    return _compose(
        # As whoever called, so that the backup is theirs. The folder above, because a mount point cannot be renamed.
        *(
            "run",
            "--rm",
            "-T",
            "--user",
            f"{os.getuid()}:{os.getgid()}",
            "-v",
            f"{directory.parent}:{_INSIDE}:{access}",
        ),
        *(SERVICE, "dlg-ml", command, f"--database-env={DATABASE_VARIABLE}", *options),
        *("--", f"{_INSIDE}/{directory.name}"),
    ).returncode


@contextmanager
def _mlflow_stopped() -> Iterator[None]:
    running = _compose("ps", "--quiet", "--status=running", SERVICE, capture=True)
    if running.returncode != 0:
        raise BackupError(f"the compose stack in {compose_folder()} cannot be looked at: {running.stderr.strip()}")
    if not running.stdout.strip():
        yield
        return
    _must("stop", SERVICE)
    try:
        yield
    finally:
        _must("up", "--detach", "--wait", "--no-deps", "--no-recreate", SERVICE)


def _must(*arguments: str) -> None:
    if code := _compose(*arguments).returncode:
        raise BackupError(f"docker compose {' '.join(arguments)} ended with code {code}; run it again by hand")


def _compose(*arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    program = shutil.which("docker")
    if program is None:
        raise BackupError("the backup of the compose stack needs the `docker` command, and there is none on PATH")
    try:
        return subprocess.run(  # noqa: S603 - no shell
            [program, "compose", *arguments], cwd=compose_folder(), capture_output=capture, text=True, check=False
        )
    except OSError as error:
        raise BackupError(f"docker compose cannot be run in {compose_folder()}: {error.strerror}") from error
