"""The `dlg-ml` command: puts the groups together, and turns what a person can mend into one line and exit code 1."""

from __future__ import annotations

import logging
import signal
import sys

import typer

from dlg_ml_tasks.cli import backup, demo, graphs, models, ngas, sessions, simulate, stack, tasks, web
from dlg_ml_tasks.cli.output import fail, user_errors
from dlg_ml_tasks.slurm import GO_ON_LATER
from dlg_ml_tasks.tasks import TaskCancelled, TaskCutShort

app = typer.Typer(
    name="dlg-ml",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Machine learning for telescopes: tasks in DALiuGE graphs, files in NGAS, runs and models in MLflow.\n\n"
    "Start with **dlg-ml demo**, or **dlg-ml up** and **dlg-ml run graphs/lifecycle.graph --set recipe=digits**.",
)

app.command("up")(stack.up)
app.command("down")(stack.down)
app.command("status")(stack.status)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
app.command("run")(sessions.run)
app.command("demo")(demo.demo)
app.command("web")(web.web)
app.add_typer(sessions.app, name="sessions")
app.add_typer(tasks.app, name="task")
app.add_typer(models.app, name="models")
app.add_typer(graphs.app, name="graphs")
app.add_typer(ngas.app, name="ngas")
app.add_typer(simulate.app, name="simulate")


@app.callback()
def choose_stack(chosen: stack.Stack = None) -> None:
    """Choose the services for any command: dlg-ml --stack compose sessions list."""
    stack.use(chosen)


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 2 wrong usage, 75 to be run again to go on, 128 + n stopped by signal n."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except TaskCutShort:
        sys.exit(GO_ON_LATER)
    except TaskCancelled as cancelled:
        sys.exit(128 + (cancelled.args[0] if cancelled.args else signal.SIGTERM))
    except user_errors() as error:
        fail(str(error))


if __name__ == "__main__":
    main()
