"""train: fit the recipe's network from scratch and register it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlg_ml_tasks.tasks.dataset import gather, items_of, labelled, score
from dlg_ml_tasks.tasks.devices import divide
from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.execution import Context, Result
from dlg_ml_tasks.tasks.fitting import fit, plan_from
from dlg_ml_tasks.tasks.parameters import TrainParams
from dlg_ml_tasks.tasks.recipe import load_recipe, load_recipe_class
from dlg_ml_tasks.tasks.registering import digests, register_version
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.tags import TASK


def resolve(params: TrainParams, inputs: Mapping[str, Any]) -> Any:
    """Nothing outside the parameters decides; a wrong recipe or setting is refused here."""
    plan_from(load_recipe(params.recipe, params.settings).training, params)


def uses(params: TrainParams) -> Sequence[object]:
    """The recipe's code and the loop's."""
    return [load_recipe_class(params.recipe), fit, divide]


def perform(context: Context, params: TrainParams, data: Sequence[Reference]) -> Result | None:
    """Train on the labelled items that are not held back; score on those that are.

    None in a process of several that is not the first.
    """
    recipe = load_recipe(params.recipe, params.settings)
    items = items_of(gather(context, "data", data, params))
    training = labelled(recipe, items, held_back=False)
    if not training:
        raise BadInput(
            f"no labelled item to train on in {[ref.uri for ref in data]} ({len(items)} items): training needs raw files with "
            "truth beside them that are not all held back"
        )
    plan = plan_from(recipe.training, params)
    module = fit(context, params, plan, lambda: recipe.module(plan), recipe.data(training, (), plan))
    if module is None:
        return None
    held_back = labelled(recipe, items, held_back=True)
    metrics = score(recipe, module.network, held_back, context.run.progress)
    return register_version(context, params, recipe, module.network, metrics, {TASK: "train", "data": digests(data)})
