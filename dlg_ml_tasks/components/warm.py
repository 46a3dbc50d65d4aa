"""Does once, in the fork server, what every task would have to do again: heavy imports, and what is the same for all of them.

Imported by the fork server only. A task starts as a copy of it, in milliseconds instead of seconds.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import logging
import sys
from unittest import mock

from dlg_ml_tasks.tasks import TASKS
from dlg_ml_tasks.tasks.environment import environment_file, git_commit

HEAVY = (
    "torch",
    "lightning",
    "safetensors.numpy",
    "safetensors.torch",
    "mlflow.pytorch",
    # MLflow and fsspec import the rest of themselves when they are first used.
    "mlflow.store.tracking.rest_store",
    "mlflow.store.model_registry.rest_store",
    "mlflow.tracking.client",
    "mlflow.tracking.request_header.registry",
    "fsspec.implementations.local",
    "dlg_ml_tasks.components.child",
    "dlg_ml_tasks.tasks.execution",
    "dlg_ml_tasks.tracking.artifacts",
    "dlg_ml_tasks.tracking.registry",
)

RECIPES = (
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "sklearn.datasets",
    "dlg_ml_tasks.recipes.digits.training",
    "dlg_ml_tasks.recipes.digits.pictures",
)
"""What the shipped recipes use; one may be missing where its extra is not installed."""

ABSENT = ("IPython", "dbruntime", "pyspark")
"""What MLflow looks for with every call, to know whether it runs in a notebook; where it is missing the whole path is searched."""


def warm() -> None:
    """Import everything, and find out what does not change while the node manager runs."""
    for module in (*HEAVY, *(task.module for task in TASKS.values())):
        importlib.import_module(module)
    for module in RECIPES:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    for module in ABSENT:
        if importlib.util.find_spec(module) is None:
            sys.modules[module] = None  # type: ignore[assignment]  # an import of it then fails at once
    _save_a_network()
    # MLflow's support of Lightning gives the root logger a handler when it is imported: each line of a task would be in the node
    # manager's log twice. What these two tell at INFO is for people who sit before a notebook.
    logging.getLogger().handlers.clear()
    for chatty in ("lightning.pytorch", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # The code that runs is the code that was imported here, whatever is checked out later.
    environment_file()
    git_commit()
    # The collector would touch, and so copy, every page that a task shares with this process.
    gc.collect()
    gc.freeze()


def _save_a_network() -> None:
    """A second of a training's end is spent on what is done for the first time: torch imports four hundred modules to export its
    network, and MLflow reads which packages are installed.
    """
    import torch
    from mlflow.models import Model

    from dlg_ml_tasks.tasks.surroundings import scratch
    from dlg_ml_tasks.tracking import registry

    # Exporting asks whether there is a GPU. That would start its driver here, and a copy of this process could not use it any more.
    with mock.patch.object(torch.cuda, "is_available", return_value=False), scratch() as folder:
        registry.save(torch.nn.Linear(1, 1), torch.zeros(2, 1), folder / "model", Model())


warm()
