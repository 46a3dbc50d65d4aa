"""retrain: go on from a registered version with new data, replaying earlier data, and register the result as challenger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L

from dlg_ml_tasks.tasks.dataset import gather, items_of, labelled, score
from dlg_ml_tasks.tasks.devices import divide
from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.execution import Context, Result
from dlg_ml_tasks.tasks.fitting import fit, plan_from
from dlg_ml_tasks.tasks.parameters import RetrainParams
from dlg_ml_tasks.tasks.recipe import load_recipe, load_recipe_class
from dlg_ml_tasks.tasks.registering import digests, register_version
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.registry import CHAMPION, load
from dlg_ml_tasks.tracking.registry import resolve as resolve_model
from dlg_ml_tasks.tracking.tags import TASK


def resolve(params: RetrainParams, inputs: Mapping[str, Any]) -> Any:
    """The version to start from: the connected model, else the parameter `base`, else the champion."""
    plan_from(load_recipe(params.recipe, params.settings).retraining, params)
    if inputs["model"] is not None:
        # Its digest is among the inputs' already.
        return None
    return resolve_model(params.base or f"models:/{params.model_name}@{CHAMPION}").model_dump()


def uses(params: RetrainParams) -> Sequence[object]:
    """The recipe's code and the loop's."""
    return [load_recipe_class(params.recipe), fit, divide]


def perform(
    context: Context,
    params: RetrainParams,
    data: Sequence[Reference],
    replay: Sequence[Reference],
    model: Reference | None,
) -> Result | None:
    """Fit on new and replayed labelled items from the base version's weights; score on both parts' held-back items.

    None in a process of several that is not the first.
    """
    recipe = load_recipe(params.recipe, params.settings)
    base_reference = model or Reference.model_validate(context.resolved)
    base = load(base_reference, context.folder("base"))
    if base.recipe["recipe"] != params.recipe:
        raise BadInput(
            f"{base_reference.uri} belongs to recipe {base.recipe['recipe']!r}, this task runs {params.recipe!r}"
        )
    new = items_of(gather(context, "data", data, params))
    old = items_of(gather(context, "replay", replay, params))
    training = labelled(recipe, new, held_back=False)
    if not training:
        raise BadInput(f"no labelled item to retrain on in {[ref.uri for ref in data]} ({len(new)} items)")
    plan = plan_from(recipe.retraining, params)

    def start() -> L.LightningModule:
        module = recipe.module(plan)
        try:
            module.network.load_state_dict(dict(base.weights))
        except RuntimeError as error:
            raise BadInput(f"the weights of {base_reference.uri} do not fit the recipe's network: {error}") from error
        return module

    module = fit(context, params, plan, start, recipe.data(training, labelled(recipe, old, held_back=False), plan))
    if module is None:
        return None
    metrics = score(recipe, module.network, labelled(recipe, new, held_back=True), context.run.progress)
    earlier = score(recipe, module.network, labelled(recipe, old, held_back=True), context.run.progress)
    metrics |= {f"earlier_{key}": value for key, value in earlier.items()}
    tags = {
        TASK: "retrain",
        "retrained_from": base_reference.uri,
        "data": digests(data),
        "replay": digests(replay),
    }
    return register_version(context, params, recipe, module.network, metrics, tags)
