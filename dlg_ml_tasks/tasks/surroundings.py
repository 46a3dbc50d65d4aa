"""What surrounds a task's work in whichever process it is done: errors explained, the run ended, scratch folder, log."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests
from mlflow.exceptions import MlflowException

from dlg_ml_tasks.archive import NgasError
from dlg_ml_tasks.tasks.environment import SCRATCH, environment_file
from dlg_ml_tasks.tasks.errors import TaskAbandoned, TaskCancelled, TaskCutShort, TaskError
from dlg_ml_tasks.tasks.explaining import explain
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.files import download_artifact
from dlg_ml_tasks.tracking.runs import TaskRun

log = logging.getLogger(__name__)

_LOG = "task.log"


@contextmanager
def explained() -> Iterator[None]:
    """Turn what a person can mend into a TaskError of one line; let bugs through as they are."""
    try:
        yield
    except TaskError:
        raise
    except Exception as error:
        explanation = explain(error)
        if explanation is None:
            raise
        raise explanation from error


@contextmanager
def ended(run: TaskRun, *, shared: bool = False) -> Iterator[None]:
    """Whatever ends the work early ends the run too, with the reason.

    A `shared` run is one that others end, too: the status that it got first stays, and if the work is to go on, here or elsewhere,
    the run is left as it is.
    """
    try:
        yield
    except (TaskCancelled, KeyboardInterrupt) as error:
        if not (shared and isinstance(error, TaskAbandoned | TaskCutShort)):
            end_quietly(lambda: None if shared and run.has_ended() else run.kill())
        raise
    except BaseException:
        reason = traceback.format_exc()
        end_quietly(lambda: None if shared and run.has_ended() else run.fail(reason))
        raise


def end_quietly(end: Callable[[], None]) -> None:
    """Ending a run must not hide the error that ended the work, which often is that the same server went away."""
    try:
        end()
    except (MlflowException, requests.RequestException, ConnectionError) as error:
        log.error("the run could not be ended in MLflow: %s", error)


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for temporary files, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="dlg-ml-", dir=os.environ.get(SCRATCH)) as folder:
        yield Path(folder)


@contextmanager
def recorded(
    run: TaskRun,
    folder: Path,
    inputs: Mapping[str, Sequence[Reference]],
    *,
    environment: bool = True,
    goes_on: bool = False,
) -> Iterator[Path]:
    """A folder that becomes artifacts of the run, also when the task fails, with inputs, log of this thread and environment.

    Sent together at the end: small files cost by the piece. The log `goes_on` from where an earlier attempt of the run left it.
    """
    folder.mkdir()
    if environment:
        (folder / "environment.json").write_text(environment_file()[1])
    if inputs:
        (folder / "inputs.json").write_text(_as_json(inputs))
    if goes_on:
        download_artifact(run.run_id, _LOG, folder)
    handler = logging.FileHandler(folder / _LOG, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    thread = threading.get_ident()
    handler.addFilter(lambda record: record.thread == thread)
    package = logging.getLogger("dlg_ml_tasks")
    level = package.level
    package.addHandler(handler)
    # Setting a level makes every logger of the process forget what it knows of levels.
    if not package.isEnabledFor(logging.INFO):
        package.setLevel(logging.INFO)
    try:
        yield folder
    except BaseException:
        log.exception("the task did not finish")
        raise
    finally:
        package.removeHandler(handler)
        if package.level != level:
            package.setLevel(level)
        handler.close()
        try:
            run.log_folder(folder)
        except (MlflowException, NgasError, requests.RequestException) as error:
            log.error("the task's log could not be stored: %s", error)


def _as_json(inputs: Mapping[str, Sequence[Reference]]) -> str:
    return json.dumps({port: [ref.model_dump() for ref in refs] for port, refs in inputs.items()}, sort_keys=True)
