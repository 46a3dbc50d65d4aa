"""dlg-ml task NAME: each task directly, without the engine; options come from the task's parameter model."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from dlg_ml_tasks import stack
from dlg_ml_tasks.cli.output import console, print_json
from dlg_ml_tasks.tasks import TASKS, BadInput, Outcome, Task
from dlg_ml_tasks.tracking import Reference

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Run one task directly, without the engine.\n\n"
    "Tasks hand on *references*: small JSON files, written with --out and read by the next task's inputs.\n\n"
    "    dlg-ml task load-raw --recipe digits --sources sample:night-A --out raw.json\n\n"
    "    dlg-ml task preprocess --recipe digits --raw raw.json --out data.json\n\n"
    "    dlg-ml task train --recipe digits --model-name digits --data data.json --out model.json\n\n"
    "    dlg-ml task infer --recipe digits --model models:/digits@champion --data data.json\n\n"
    "They use the running embedded stack, or the MLflow server of MLFLOW_TRACKING_URI, which is all that they need in a script or "
    "a Slurm job.\n\n"
    "Exit codes: 0 done, 1 failed (one line says why), 2 wrong usage, 75 stopped by SIGUSR1 ahead of a time limit: run it again to "
    "go on, 129, 130 and 143 stopped by SIGHUP, Ctrl-C and SIGTERM: the run is KILLED, its last checkpoint stays.",
)

_EXAMPLES = {
    "load_raw": (
        "--sources '/data/night/*.uvh5' --out raw.json",
        "--recipe digits --sources sample:night-A --out raw.json",
    ),
    "preprocess": ("--recipe digits --raw raw.json --out data.json",),
    "train": (
        "--recipe digits --model-name digits --data data.json --out model.json",
        "--recipe digits --model-name digits --data data.json --devices 2",
        "--recipe digits --model-name digits --data data.json --executor slurm "
        """--slurm '{"partition": "gpu", "gpus": 1, "time_limit": "04:00:00", "memory": "16G"}'""",
    ),
    "retrain": ("--recipe digits --model-name digits --data new.json --replay data.json --out model.json",),
    "promote": ("--recipe digits --model-name digits --model model.json --data new.json --earlier data.json",),
    "infer": ("--recipe digits --model models:/digits@champion --data data.json",),
}


def use_tracking_server() -> None:
    """Point MLflow at the environment's tracking server, else at the running embedded stack's."""
    os.environ["MLFLOW_TRACKING_URI"] = stack.resolve(stack.home_directory()).require_tracking_uri()


def prepare() -> None:
    """Make this process one that runs a task: its services, its log on standard error, and its answers to signals."""
    from dlg_ml_tasks.tasks.signals import answer_signals

    use_tracking_server()
    logging.getLogger("dlg_ml_tasks").setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s", "%H:%M:%S"))
    answer_signals()


def show(outcome: Outcome, json: bool, out: Path | None) -> None:
    """Print an outcome; write the reference to a file if asked."""
    if out is not None:
        out.write_text(outcome.reference.model_dump_json(indent=2) + "\n")
    if json:
        print_json(
            {
                "reference": outcome.reference.model_dump(),
                "run_id": outcome.run_id,
                "reused": outcome.reused,
                "seconds": round(outcome.seconds, 3),
                "metrics": dict(outcome.metrics),
            }
        )
        return
    console.print(
        f"{'reused' if outcome.reused else 'finished'} in {outcome.seconds:.1f} s: [bold]{outcome.reference.uri}[/]"
    )
    for name, value in sorted(outcome.metrics.items()):
        console.print(f"  {name:<24} {value:.6g}", highlight=False)


def read_reference(text: str, kind: str) -> Reference:
    """A reference from a file, from JSON text, or from ``models:/NAME@alias``. Raises BadInput."""
    if kind == "model" and text.startswith("models:/"):
        from dlg_ml_tasks.tracking.registry import resolve

        return resolve(text)
    try:
        content = text if text.lstrip().startswith("{") else Path(text).read_text()
        return Reference.model_validate_json(content)
    except OSError as error:
        raise BadInput(
            f"{text!r} is no readable file with a reference (what a task wrote with --out): {error.strerror}"
        ) from error
    except ValidationError as error:
        raise BadInput(f"{text!r} holds no reference: it must be what a task wrote with --out") from error


def _command(task: Task[Any]) -> Callable[..., None]:
    def command(**given: Any) -> None:
        prepare()
        inputs = {}
        for port in task.inputs:
            texts = given.pop(f"input_{port.name}") or []
            inputs[port.name] = [read_reference(text, port.kind) for text in texts]
        force, json, out = given.pop("force"), given.pop("json"), given.pop("out")
        params = {name: value for name, value in given.items() if value is not None}
        with nullcontext() if json else console.status(f"{task.name} …"):
            outcome = task.run(params, inputs, force=force)
        show(outcome, json, out)

    examples = "".join(f"\n\n    dlg-ml task {_command_name(task)} {each}" for each in _EXAMPLES[task.name])
    command.__doc__ = (
        f"{task.description}\n\nPrints the {task.output.kind} reference to {task.output.description}.{examples}"
    )
    command.__signature__ = inspect.Signature(_options(task))  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in command.__signature__.parameters.values()}  # type: ignore[attr-defined]
    return command


def _options(task: Task[Any]) -> list[inspect.Parameter]:
    options = []
    for port in task.inputs:
        text = f"Reference: {port.description}{' (may be repeated)' if port.many else ''}{'' if port.required else ' (optional)'}."
        options.append(_option(f"input_{port.name}", list[str] | None, None, text, f"--{port.name}"))
    for name, field in task.params.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "" if default in (PydanticUndefined, None, "", {}) else f" [default: {default}]"
        needed = " [required]" if field.is_required() else ""
        flag = f"--{name.replace('_', '-')}"
        many = name == "sources"
        text = f"{field.description}{shown}{needed}"
        options.append(_option(name, (list[str] if many else str) | None, None, text, flag))
    options.append(_option("out", Path | None, None, "Write the reference to this file.", "--out"))
    options.append(
        _option("force", bool, False, "Do the work even if a finished run of the same work exists.", "--force")
    )
    options.append(_option("json", bool, False, "Print JSON for scripts.", "--json"))
    return options


def _option(name: str, kind: Any, default: Any, text: str, flag: str) -> inspect.Parameter:
    annotation = Annotated[kind, typer.Option(flag, help=text, show_default=False)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _command_name(task: Task[Any]) -> str:
    return task.name.replace("_", "-")


def continue_run(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id of the MLflow run.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Do the work of a run that a task began for another machine (executor=slurm, devices): what the job and its processes do.

    By hand it goes on with such a run whose job is gone, from its last checkpoint.
    """
    from dlg_ml_tasks.tasks.continuing import continue_run as go_on

    prepare()
    outcome = go_on(run_id)
    if outcome is not None:  # else another process speaks
        show(outcome, json, None)


for _task in TASKS.values():
    app.command(_command_name(_task))(_command(_task))
app.command("continue")(continue_run)
