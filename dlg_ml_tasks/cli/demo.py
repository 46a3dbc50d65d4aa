"""dlg-ml demo: the whole life of a model on the embedded stack, and a summary for people and for scripts."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from dlg_ml_tasks import stack
from dlg_ml_tasks.cli.output import console
from dlg_ml_tasks.graphs.follow import SessionResult
from dlg_ml_tasks.graphs.override import override
from dlg_ml_tasks.graphs.shipped import lifecycle

_SUMMARY = Path("demo-summary.json")
_PICTURES = Path("demo-pictures")


def demo(
    recipe: Annotated[
        Literal["rfi", "digits"], typer.Option(help="rfi: flag interference (minutes); digits: seconds.")
    ] = "rfi",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up afterwards.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NODE.PARAM=VALUE", help="As for dlg-ml run.")
    ] = None,
) -> None:
    """Bring up the stack, run the lifecycle graph, show what came out.

    Two nights of telescope data are loaded and preprocessed; a model is trained on the first, retrained on the second, promoted if
    it is better, and applied. Writes demo-summary.json and demo-pictures. A second run reuses every finished task.
    """
    began = time.monotonic()
    home = stack.home_directory()
    was_up = stack.status(home).healthy
    console.print(f"[bold]1. The stack[/] (state and logs in {home})")
    state = stack.up(home, on_progress=lambda service, text: console.print(f"  {service:<11} {text}", highlight=False))
    try:
        from dlg_ml_tasks.cli.live import print_failure, start, watch

        console.print("[bold]2. The graph[/] graphs/lifecycle.graph on the engine")
        chosen = [f"recipe={recipe}", f"model_name={recipe}", f"infer.model=models:/{recipe}@champion"]
        result = watch(start(override(lifecycle().build(), chosen + (settings or []))))
        if not result.ok:
            print_failure(result)
            raise typer.Exit(1)
        console.print("[bold]3. What came out[/]")
        summary = _summarise(result, recipe, time.monotonic() - began)
        _show(summary, {service.name: service.url for service in state.services})
        _SUMMARY.write_text(json.dumps(summary, indent=2) + "\n")
        console.print(f"summary: {_SUMMARY.resolve()}", highlight=False, soft_wrap=True)
    finally:
        if keep:
            console.print("the stack stays up; stop it with: dlg-ml down")
        elif not was_up:
            stack.down(home, on_progress=lambda service, text: None)
            console.print("the stack is stopped; dlg-ml up brings it back with all runs, models and files")


def _summarise(result: SessionResult, recipe: str, seconds: float) -> dict[str, Any]:
    from dlg_ml_tasks.tracking.registry import versions
    from dlg_ml_tasks.tracking.sessions import session_runs

    by_node = {run.node: run for run in session_runs(result.session)}
    runs = [by_node[task.node] for task in result.tasks]
    gate = by_node["promote"].metrics
    return {
        "session": result.session,
        "seconds": round(seconds, 1),
        "tasks": [
            {
                "task": run.task,
                "name": run.node,
                "run_id": run.run_id,
                "status": run.status,
                "seconds": round(run.seconds, 1),
                "reused": run.reused,
                "metrics": dict(run.metrics),
            }
            for run in runs
        ],
        "models": [
            {
                "name": recipe,
                "versions": [
                    {key: asdict(version)[key] for key in ("version", "aliases", "metrics", "run_id")}
                    for version in versions(recipe)
                ],
            }
        ],
        "metrics": {
            "A": {"before": gate.get("champion_earlier"), "after": gate.get("challenger_earlier")},
            "B": {"before": gate.get("champion_new"), "after": gate.get("challenger_new")},
            "promoted": bool(gate.get("promoted")),
            "inference": dict(by_node["infer"].metrics),
        },
        "archive": _archive_size(),
        "pictures": [str(path) for path in _fetch_pictures(by_node["infer"].run_id)],
    }


def _archive_size() -> dict[str, int]:
    import fsspec
    from mlflow import MlflowClient

    from dlg_ml_tasks.tracking.store import experiment_id, reachable_client

    client: MlflowClient = reachable_client()
    fs, root = fsspec.url_to_fs(client.get_experiment(experiment_id(client)).artifact_location)
    sizes = [info["size"] for info in fs.find(root, detail=True).values()]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _fetch_pictures(run_id: str) -> list[Path]:
    """Copy the pictures of the inference from the archive, in the place of an earlier demo's."""
    from dlg_ml_tasks.tracking.files import download
    from dlg_ml_tasks.tracking.runs import find_output

    with tempfile.TemporaryDirectory() as folder:
        results = download(find_output(run_id), Path(folder))
        shutil.rmtree(_PICTURES, ignore_errors=True)
        copies = []
        for picture in sorted(results.rglob("*.png")):
            copy = _PICTURES / picture.relative_to(results)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copies.append(Path(shutil.copy(picture, copy)).resolve())
        return copies


def _show(summary: dict[str, Any], addresses: dict[str, str | None]) -> None:
    tasks = Table("task", "run", "time", "metric", "", box=None)
    from dlg_ml_tasks.cli.view import main_metric

    for task in summary["tasks"]:
        reused = "[blue]reused[/]" if task["reused"] else ""
        tasks.add_row(
            task["name"], task["run_id"][:8], f"{task['seconds']:.1f} s", main_metric(task["metrics"]), reused
        )
    console.print(tasks)
    if all(task["reused"] for task in summary["tasks"]):
        console.print("[blue]every task was finished before and reused[/]")
    for model in summary["models"]:
        for version in model["versions"]:
            aliases = " ".join(f"[green]@{alias}[/]" for alias in version["aliases"])
            console.print(f"model {model['name']} version {version['version']} {aliases}", highlight=False)
    for night in ("A", "B"):
        before, after = summary["metrics"][night]["before"], summary["metrics"][night]["after"]
        if before is not None:
            console.print(f"night {night}: champion before {before:.3f}, retrained {after:.3f}", highlight=False)
    archive = summary["archive"]
    console.print(f"archive: {archive['files']} files, {archive['bytes'] / 1e6:.1f} MB", highlight=False)
    console.print(f"pictures: {len(summary['pictures'])} in {_PICTURES.resolve()}", highlight=False, soft_wrap=True)
    for name, url in addresses.items():
        if url:
            console.print(f"  {name:<11} {url}", highlight=False)
