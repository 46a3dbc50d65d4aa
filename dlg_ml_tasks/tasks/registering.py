"""How train and retrain end: the fitted network becomes the next version of its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from dlg_ml_tasks.tasks.execution import Context, Result
from dlg_ml_tasks.tasks.parameters import RetrainParams, TrainParams
from dlg_ml_tasks.tasks.recipe import Recipe
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.registry import register


def register_version(
    context: Context,
    params: TrainParams | RetrainParams,
    recipe: Recipe,
    network: torch.nn.Module,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> Result:
    """Log and register `network` with its metrics, and with tags that say which data made it."""
    reference = register(
        context.run,
        params.model_name,
        network,
        recipe.example_input(),
        recipe={"recipe": params.recipe, "settings": params.settings},
        metrics=metrics,
        tags=tags,
        fingerprint=context.fingerprint,
        work=context.folder("registering"),
    )
    return Result(reference, metrics)


def digests(references: Sequence[Reference]) -> str:
    """The digests of some references as the value of one tag."""
    return " ".join(reference.digest for reference in references)
