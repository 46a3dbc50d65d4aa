"""dlg-ml simulate: raw files with exact truth, as the recipes' samples bring them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dlg_ml_tasks.cli.output import console
from dlg_ml_tasks.tasks import BadInput, load_recipe

app = typer.Typer(help="Write simulated raw files to disk.", no_args_is_help=True)


@app.callback()
def simulate() -> None:
    """Write simulated raw files to disk."""


@app.command()
def rfi(
    night: Annotated[
        Literal["A", "B"], typer.Option(help="A: the usual receiver; B: another bandpass and digital-TV bursts.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to; must be empty or new.")],
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same files.")] = 0,
) -> None:
    """Simulate a night of HERA observations: UVH5 files, and beside each the truth about its interference (npz).

    Example: dlg-ml simulate rfi --night A --out night-A, then dlg-ml task load-raw --sources 'night-A/*'
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{str(out)!r} is not an empty folder; give a new one")
    out.mkdir(parents=True, exist_ok=True)
    with console.status(f"simulating night {night} …"):
        load_recipe("rfi", {}).sample(f"night-{night}", out, seed)
    files = sorted(path.name for path in out.iterdir())
    console.print(f"{len(files)} files in {out}: {files[0]} … {files[-1]}", highlight=False)
