"""dlg-ml graphs: writing the shipped palette and graphs, and checking one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlg_ml_tasks.cli.output import console
from dlg_ml_tasks.components.palette import build_palette, write_json
from dlg_ml_tasks.graphs.check import check as check_graph
from dlg_ml_tasks.graphs.document import read_graph
from dlg_ml_tasks.graphs.override import override
from dlg_ml_tasks.graphs.shipped import write_all

app = typer.Typer(no_args_is_help=True, help="Palette for the graph editor EAGLE, shipped graphs, and checking graphs.")


@app.command()
def palette(out: Annotated[Path, typer.Argument(help="File to write.")] = Path("dlg_ml_tasks.palette")) -> None:
    """Write the palette: one component per task, for EAGLE (Palette > Load, in its mode Graph)."""
    write_json(build_palette(), out)
    console.print(f"wrote {out}", highlight=False)


@app.command()
def write(folder: Annotated[Path, typer.Argument(help="Folder to write to.")] = Path("graphs")) -> None:
    """Write the shipped logical graphs and the palette."""
    folder.mkdir(parents=True, exist_ok=True)
    write_all(folder)
    console.print(f"wrote the graphs and the palette into {folder}", highlight=False)


@app.command()
def check(
    graph: Annotated[Path, typer.Argument(help="Logical graph (.graph).")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NODE.PARAM=VALUE", help="As for dlg-ml run.")
    ] = None,
) -> None:
    """Say what is wrong with a graph, node by node; exit code 1 if anything is."""
    problems = check_graph(override(read_graph(graph), settings or []))
    for problem in problems:
        console.print(f"[red]✗[/] {problem.node}: ", end="")
        console.print(problem.reason, markup=False, highlight=False)
    if problems:
        raise typer.Exit(1)
    console.print(f"{graph} can be run", highlight=False)
