"""The tasks that ship."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.parameters import (
    InferParams,
    LoadRawParams,
    PreprocessParams,
    PromoteParams,
    RetrainParams,
    TrainParams,
)
from dlg_ml_tasks.tasks.task import Port, Task

load_raw = Task(
    name="load_raw",
    params=LoadRawParams,
    inputs=(),
    output=Port("raw", "files", "raw files as loaded, each with its checksum"),
    description="Load raw files from anywhere into the archive.",
    module="dlg_ml_tasks.tasks.loading",
    light=True,
)

preprocess = Task(
    name="preprocess",
    params=PreprocessParams,
    inputs=(Port("raw", "files", "raw files from load_raw"),),
    output=Port("data", "files", "what the recipe made of each raw file"),
    description="Turn raw files into training data by the recipe.",
    module="dlg_ml_tasks.tasks.preprocessing",
    light=True,
)

train = Task(
    name="train",
    params=TrainParams,
    inputs=(Port("data", "files", "preprocessed data with labels", many=True),),
    output=Port("model", "model", "the new model version"),
    description="Train the recipe's network and register it as a new model version.",
    module="dlg_ml_tasks.tasks.training",
)

retrain = Task(
    name="retrain",
    params=RetrainParams,
    inputs=(
        Port("data", "files", "new preprocessed data with labels", many=True),
        Port("replay", "files", "earlier data to replay, so that it is not forgotten", required=False, many=True),
        Port("model", "model", "the version to start from (not connected: the parameter base)", required=False),
    ),
    output=Port("model", "model", "the new model version, a challenger"),
    description="Go on training a model version on new data, with replay of earlier data.",
    module="dlg_ml_tasks.tasks.retraining",
)

promote = Task(
    name="promote",
    params=PromoteParams,
    inputs=(
        Port("model", "model", "the challenger"),
        Port("data", "files", "new data with held-back files", many=True),
        Port("earlier", "files", "earlier data with held-back files", required=False, many=True),
    ),
    output=Port("model", "model", "the champion after the decision"),
    description="The gate: make the challenger champion if it is better on new data and no worse on earlier data.",
    module="dlg_ml_tasks.tasks.promotion",
)

infer = Task(
    name="infer",
    params=InferParams,
    inputs=(Port("data", "files", "preprocessed data", many=True),),
    output=Port("results", "files", "the recipe's results, metrics and pictures"),
    description="Apply a model version, by default the current champion, and store results, metrics and pictures.",
    module="dlg_ml_tasks.tasks.inference",
)

TASKS: Mapping[str, Task[Any]] = MappingProxyType(
    {task.name: task for task in (load_raw, preprocess, train, retrain, promote, infer)}
)


def find_task(name: str) -> Task[Any]:
    """The task of this name: one that ships, or the import path ``package.module:NAME`` of one's own. Raises BadInput."""
    if name in TASKS:
        return TASKS[name]
    module, colon, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute) if colon else None
    except (ImportError, AttributeError) as error:
        raise BadInput(f"there is no task {name!r}: {error}") from error
    if not isinstance(found, Task):
        raise BadInput(
            f"there is no task {name!r}; there are: {', '.join(TASKS)}, and import paths package.module:NAME"
        )
    return found
