"""dlg-ml models: the registered versions, and moving the champion by hand."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from dlg_ml_tasks.cli.output import console, print_json
from dlg_ml_tasks.cli.stack import Json
from dlg_ml_tasks.cli.tasks import use_tracking_server

app = typer.Typer(no_args_is_help=True, help="Registered models: versions, aliases, metrics; move the champion.")


@app.command("list")
def list_models(json: Json = False) -> None:
    """List every model with its versions."""
    _show(None, json)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Model name, such as rfi.")], json: Json = False) -> None:
    """Show one model's versions with their metrics and where they came from."""
    _show(name, json)


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="Model name.")],
    version: Annotated[int, typer.Argument(help="Version.", min=1)],
) -> None:
    """Make a version the champion, past the gate. Inference uses it from its next run on."""
    use_tracking_server()
    from dlg_ml_tasks.tracking import registry

    before = registry.champion(name)
    registry.promote(registry.resolve(f"models:/{name}/{version}"))
    console.print(f"champion of {name}: version {version}" + (f" (before: {before.uri})" if before else ""))


def _show(name: str | None, json: bool) -> None:
    use_tracking_server()
    from dlg_ml_tasks.tracking.registry import versions
    from dlg_ml_tasks.tracking.tags import TASK

    found = versions(name)
    if json:
        print_json(
            [
                {
                    "name": v.name,
                    "version": v.version,
                    "aliases": list(v.aliases),
                    "run_id": v.run_id,
                    "metrics": dict(v.metrics),
                    "tags": dict(v.tags),
                }
                for v in found
            ]
        )
        return
    if not found:
        console.print("no models yet; train one: dlg-ml task train --help")
        return
    table = Table("model", "version", "aliases", "metrics on held-back data", "made by", "run", box=None)
    for v in found:
        metrics = ", ".join(f"{key} {value:.3f}" for key, value in sorted(v.metrics.items())[: None if name else 3])
        origin = v.tags.get("retrained_from", "")
        table.add_row(
            v.name,
            str(v.version),
            ", ".join(v.aliases),
            metrics,
            v.tags.get(TASK, "") + (f" from {origin}" if origin else ""),
            v.run_id,
        )
    console.print(table)
