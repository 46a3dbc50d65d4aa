"""dlg-ml backup and dlg-ml restore."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from dlg_ml_tasks.cli.output import console, errors
from dlg_ml_tasks.cli.stack import USE, Stack, use


def backup(
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    files: Annotated[
        bool, typer.Option("--files", help="The archive's files, too; else keep its volume by other means.")
    ] = False,
    stack: Stack = None,
) -> None:
    """Back up MLflow's database and the archive's catalogue, while the services run.

    Of the embedded stack, or of the containers of docker-compose.yml (--stack compose). The folder appears when all of it is
    written.
    """
    from dlg_ml_tasks.stack import backup as backups

    manifest = backups.backup(folder.absolute(), of_compose=_is_compose(stack), files=files, on_progress=_say)
    for part in manifest.parts:
        console.print(f"  {part.name:<16} {decimal(part.size):>10}  sha256 {part.sha256[:16]}…", highlight=False)
    console.print(f"wrote {folder}", highlight=False, soft_wrap=True)


def restore(
    folder: Annotated[Path, typer.Argument(help="Folder that dlg-ml backup wrote.", exists=True, file_okay=False)],
    stack: Stack = None,
) -> None:
    """Bring a backup back into an empty stack, then read every file of the archive and compare its checksum.

    Nothing is overwritten. Without the archive's files in the backup, put its volume in place first. Exit code 1 if any file is
    damaged.
    """
    from dlg_ml_tasks.stack import backup as backups

    damaged = backups.restore(folder.absolute(), to_compose=_is_compose(stack), on_progress=_say)
    for each in damaged[:20]:
        errors.print(f"  {each.filename} ({each.file_id}): {each.reason}", markup=False, soft_wrap=True)
    if damaged:
        errors.print(f"restored; {len(damaged)} files of the archive cannot be read", style="red")
        raise typer.Exit(1)
    console.print("restored; every file of the archive was read and has its checksum")


def _is_compose(chosen: Stack) -> bool:
    use(chosen)
    return os.environ.get(USE) == "compose"


def _say(part: str, text: str) -> None:
    console.print(f"  {part:<16} {text}", highlight=False)
