"""promote: the gate between challenger and champion."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlg_ml_tasks.tasks.dataset import gather, items_of, labelled, score
from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.execution import Context, Result
from dlg_ml_tasks.tasks.parameters import PromoteParams
from dlg_ml_tasks.tasks.recipe import load_recipe, load_recipe_class
from dlg_ml_tasks.tracking import Reference, registry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """What the gate decided, and why in words."""

    promoted: bool
    reason: str


def decide(
    champion: Mapping[str, float], challenger: Mapping[str, float], min_gain: float, max_loss: float
) -> Decision:
    """Compare scores, higher is better, keyed `new` and (optionally) `earlier`.

    The challenger must beat the champion on new data by more than `min_gain` and lose at most `max_loss` on earlier data.
    """
    gain = challenger["new"] - champion["new"]
    loss = champion["earlier"] - challenger["earlier"] if "earlier" in champion else 0.0
    if gain <= min_gain:
        return Decision(False, f"gain on new data {gain:+.4f} is not above {min_gain}")
    if loss > max_loss:
        return Decision(False, f"loss on earlier data {loss:.4f} is above {max_loss}")
    return Decision(True, f"gain on new data {gain:+.4f}, loss on earlier data {loss:.4f}")


def resolve(params: PromoteParams, inputs: Mapping[str, Any]) -> Any:
    """Not the champion: a decision once made is reused, whatever became champion since."""
    load_recipe(params.recipe, params.settings)


def uses(params: PromoteParams) -> Sequence[object]:
    """The recipe's code, which scores."""
    return [load_recipe_class(params.recipe)]


def perform(
    context: Context, params: PromoteParams, model: Reference, data: Sequence[Reference], earlier: Sequence[Reference]
) -> Result:
    """Score champion and challenger on the held-back items and move the alias if the challenger passes."""
    recipe = load_recipe(params.recipe, params.settings)
    metric = params.metric or recipe.metric
    champion = registry.champion(params.model_name)
    scores: dict[str, dict[str, float]] = {}
    if champion is None or champion.uri == model.uri:
        decision = Decision(True, "there was no other champion")
    else:
        parts = {
            "new": labelled(recipe, items_of(gather(context, "data", data, params)), held_back=True),
            "earlier": labelled(recipe, items_of(gather(context, "earlier", earlier, params)), held_back=True),
        }
        if not parts["new"]:
            raise BadInput(
                f"no labelled held-back item in {[ref.uri for ref in data]}: the gate has nothing to compare on"
            )
        for role, reference in (("champion", champion), ("challenger", model)):
            network = registry.load(reference, context.folder(role)).network
            scores[role] = {
                part: _metric(score(recipe, network, items, context.run.progress), metric)
                for part, items in parts.items()
                if items
            }
        decision = decide(scores["champion"], scores["challenger"], params.min_gain, params.max_loss)
    log.info("%s %s: %s", model.uri, "becomes champion" if decision.promoted else "stays challenger", decision.reason)
    if decision.promoted:
        registry.promote(model)
    report = context.work / "gate.json"
    report.write_text(
        json.dumps(
            {"metric": metric, "scores": scores, "promoted": decision.promoted, "reason": decision.reason}, indent=2
        )
    )
    context.run.log_file(report)
    compared = {"dlg_ml.champion": champion.uri} if scores and champion else {}
    context.run.set_tags({"dlg_ml.decision": decision.reason, **compared})
    metrics = {f"{role}_{part}": value for role, by_part in scores.items() for part, value in by_part.items()}
    after = model if decision.promoted or champion is None else champion
    return Result(after, {"promoted": float(decision.promoted), **metrics})


def _metric(metrics: Mapping[str, float], name: str) -> float:
    if name not in metrics:
        raise BadInput(f"the recipe has no metric {name!r}; it has {sorted(metrics)}")
    return metrics[name]
