"""dlg-ml run: submit a logical graph and follow it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlg_ml_tasks.cli.output import console
from dlg_ml_tasks.graphs.document import read_graph
from dlg_ml_tasks.graphs.override import override, with_absolute_sources


def run(
    graph: Annotated[Path, typer.Argument(help="Logical graph (.graph) to run.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NODE.PARAM=VALUE", help="Change a parameter; without NODE: in all tasks."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow; print the session's name.")] = False,
) -> None:
    """Run a logical graph on the engine and follow it; exit code 0 only if every task completed.

    Finished tasks with the same inputs, parameters and code are reused. Ctrl-C cancels.

    Examples: dlg-ml run graphs/lifecycle.graph · dlg-ml run graphs/lifecycle.graph --set recipe=digits --set model_name=digits
    --set infer.model=models:/digits@champion · dlg-ml run graphs/train.graph --set train.epochs=10
    """
    changed = with_absolute_sources(override(read_graph(graph), settings or []), Path.cwd())
    from dlg_ml_tasks.cli.live import print_failure, start, table_of, watch

    session = start(changed)
    if detach:
        console.print(session, highlight=False)
        return
    result = watch(session)
    if not console.is_terminal:
        console.print(table_of(session, result.tasks))
    if not result.ok:
        print_failure(result)
        raise typer.Exit(1)
