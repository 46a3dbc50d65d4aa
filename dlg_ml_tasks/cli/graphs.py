"""dlg-ml graphs: writing the shipped palette and graphs, and checking one's own."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from dlg_ml_tasks import stack
from dlg_ml_tasks.cli.output import console
from dlg_ml_tasks.components.palette import build_palette, write_json
from dlg_ml_tasks.graphs import handover
from dlg_ml_tasks.graphs.check import check as check_graph
from dlg_ml_tasks.graphs.document import read_graph
from dlg_ml_tasks.graphs.override import override, with_absolute_sources
from dlg_ml_tasks.graphs.shipped import write_all
from dlg_ml_tasks.tasks import BadInput

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


@app.command("open")
def open_graph(
    graph: Annotated[Path, typer.Argument(help="Logical graph (.graph).")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NODE.PARAM=VALUE", help="As for dlg-ml run.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the page that sends the graph here, and open no browser.")
    ] = None,
) -> None:
    """Open a graph in the translator's web page, as EAGLE's Translate button does; there, press Deploy.

    The graph is checked first. The translator is the running stack's, or the one that DLG_ML_TRANSLATOR names.
    """
    changed = with_absolute_sources(override(read_graph(graph), settings or []), Path.cwd())
    if problems := check_graph(changed):
        raise BadInput("the graph cannot run: " + "; ".join(map(str, problems)))
    from dlg_ml_tasks.cli.live import the_island

    translator = stack.resolve(stack.home_directory()).require_translator()
    page = handover.page(changed, graph.name, translator, len(the_island().nodes()))
    if out is not None:
        out.write_text(page, encoding="utf-8")
        console.print(f"open {out} in a browser", highlight=False)
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".html", delete=False) as file:
        file.write(page)
    if not webbrowser.open(Path(file.name).as_uri()):
        raise BadInput(f"no browser could be started; open {file.name} in one")
    console.print(f"opened {file.name}, which sends {graph.name} to the translator", highlight=False)
