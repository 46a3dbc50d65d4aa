"""Backing up a stack: MLflow's database and the archive's catalogue, with or without the archive's files; and bringing it back."""

from __future__ import annotations

from pathlib import Path

from dlg_ml_tasks.stack.backup import compose, embedded
from dlg_ml_tasks.stack.backup.folder import Manifest, Progress, Source, read, write
from dlg_ml_tasks.stack.backup.reading import Damage, read_everything
from dlg_ml_tasks.stack.state import home_directory

__all__ = ["Damage", "Manifest", "Progress", "backup", "read", "restore"]


def backup(destination: Path, *, of_compose: bool, files: bool, on_progress: Progress) -> Manifest:
    """Write a backup of the embedded stack, or of the compose stack, as the new folder `destination`.

    The services go on working. MLflow's database is taken first and the archive's catalogue after it, so that the catalogue knows
    every file that the database names. files: the archive's files as well; without them the volume must be kept by other means.

    Raises StackError: `destination` exists, there is nothing to back up, or a part cannot be read. Nothing is left behind then.
    """
    return write(destination, _stack(of_compose).source(files=files), on_progress)


def restore(source: Path, *, to_compose: bool, on_progress: Progress) -> list[Damage]:
    """Bring the backup in the folder `source` back into an empty stack, read every file of the archive, return the damaged ones.

    Raises StackError: `source` is no whole backup, it is of another kind of stack, or the stack is not empty. Nothing is changed
    then.
    """
    manifest = read(source, on_progress)
    archive = _stack(to_compose).bring_back(source, manifest, on_progress)
    with archive as address:
        on_progress("archive", "reading every file")
        return read_everything(address, on_progress)


def _stack(is_compose: bool) -> Source:
    return compose.ComposeStack.here() if is_compose else embedded.EmbeddedStack(home_directory())
