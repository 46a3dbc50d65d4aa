"""dlg-ml up, down, status: the embedded stack."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer
from rich.table import Table

from dlg_ml_tasks import stack
from dlg_ml_tasks.cli.output import console, print_json

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]

USE = "DLG_ML_USE"
"""Environment variable with the chosen stack, for whole terminals and scripts."""

Stack = Annotated[
    Literal["compose"] | None,
    typer.Option(
        "--stack",
        envvar=USE,
        help="compose: the services of docker-compose.yml in this folder (or in DLG_ML_COMPOSE), at their published ports. "
        "By default those that the environment names, else the embedded stack.",
    ),
]


def use(chosen: Stack) -> None:
    """Let all that follows in this process find the services of the chosen stack."""
    if chosen == "compose":
        os.environ.update({**stack.compose_environment(), USE: chosen})


def up(
    nodes: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Node managers to run graphs on; by default as many as before, at first one."),
    ] = None,
    json: Json = False,
) -> None:
    """Start NGAS, MLflow, DALiuGE and the results site on this machine (loopback only), or what is missing of them.

    State, data and logs lie under ~/.dlg-ml (environment variable DLG_ML_HOME). Where a default port is taken another one is used:
    `dlg-ml status` shows the addresses.
    """
    if json:
        state = stack.up(stack.home_directory(), nodes=nodes)
        print_json(state.model_dump(mode="json"))
        return
    stack.up(
        stack.home_directory(),
        on_progress=lambda service, text: console.print(f"  {service:<11} {text}", highlight=False),
        nodes=nodes,
    )
    status()


def down() -> None:
    """Stop the embedded stack. Files, runs and models stay."""
    stopped = stack.down(stack.home_directory(), on_progress=lambda service, text: None)
    console.print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def status(json: Json = False) -> None:
    """Show each service: state, address, process, memory. Exit code 1 unless all are healthy."""
    found = stack.status(stack.home_directory())
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        table = Table("service", "state", "address", "pid", "memory", box=None)
        for service in found.services:
            table.add_row(
                service.name,
                "[green]healthy[/]" if service.healthy else f"[red]{service.state}[/] {service.problem or ''}",
                service.url or "",
                str(service.pid or ""),
                f"{service.memory_mb:.0f} MB" if service.memory_mb else "",
            )
        console.print(table)
    if not found.healthy:
        raise typer.Exit(1)
