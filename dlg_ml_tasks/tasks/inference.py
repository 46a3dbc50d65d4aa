"""infer: apply the current champion (or a given version) and store results, metrics and pictures."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dlg_ml_tasks.tasks.dataset import gather
from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.execution import Context, Result
from dlg_ml_tasks.tasks.loading import RAW
from dlg_ml_tasks.tasks.parameters import InferParams
from dlg_ml_tasks.tasks.recipe import Counts, Item, Recipe, add_counts, load_recipe, load_recipe_class
from dlg_ml_tasks.tasks.showing import SHOWS_FILE, Shows
from dlg_ml_tasks.tracking import Reference, registry
from dlg_ml_tasks.tracking.files import download_artifact, hash_file

RESULTS = "results"

log = logging.getLogger(__name__)


def resolve(params: InferParams, inputs: Mapping[str, Any]) -> Any:
    """The version behind the model URI at this moment: a new champion makes a new fingerprint."""
    load_recipe(params.recipe, params.settings)
    return registry.resolve(params.model).model_dump()


def uses(params: InferParams) -> Sequence[object]:
    """The recipe's code."""
    return [load_recipe_class(params.recipe)]


def perform(context: Context, params: InferParams, data: Sequence[Reference]) -> Result:
    """Infer item by item; in the artifact `results` lie a folder for each raw file, `metrics.json` and `shows.json`."""
    torch.set_num_threads(params.threads)
    recipe = load_recipe(params.recipe, params.settings)
    reference = Reference.model_validate(context.resolved)
    network = registry.load(reference, context.folder("model")).network
    context.run.set_tags({"dlg_ml.model": reference.uri})
    items = [
        _with_raw(context, recipe, item, dataset.reference)
        for dataset in gather(context, "data", data, params)
        for item in dataset.items
        if not params.held_back_only or item.held_back or not recipe.is_labelled(item)
    ]
    if not items:
        raise BadInput(
            f"no item to infer in {[ref.uri for ref in data]}: none is held back or unlabelled (held_back_only=false takes all)"
        )
    results = context.folder(RESULTS)
    counts: dict[str, Counts] = {}
    for index, item in enumerate(items, 1):
        context.run.progress(f"file {index}/{len(items)}")
        out = results / item.name
        if out.exists():
            raise BadInput(f"two data sets have an item {item.name!r}; infer them in two tasks")
        out.mkdir(parents=True)
        counts[item.name] = recipe.infer(network, item, out)
    scored = [counts[item.name] for item in items if recipe.is_labelled(item)]
    overall = _finite(recipe.metrics(add_counts(scored))) if scored else {}
    report = {
        "model": reference.uri,
        "overall": overall,
        "items": {name: _finite(recipe.metrics(each)) for name, each in counts.items()},
    }
    (results / "metrics.json").write_text(json.dumps(report, indent=2, sort_keys=True))
    (results / SHOWS_FILE).write_text(Shows(shows=recipe.shows).model_dump_json(indent=2))
    pictures = len(list(results.rglob("*.png")))
    stored = context.run.log_files(results, RESULTS, context.fingerprint)
    log.info("applied %s to %d items, %d pictures", reference.uri, len(items), pictures)
    return Result(stored, {**overall, "files": len(items), "pictures": pictures})


def _with_raw(context: Context, recipe: Recipe, item: Item, source: Reference) -> Item:
    """Fetch the raw file behind an item, by way of the run that preprocessed it, for recipes that need it."""
    if not recipe.needs_raw:
        return item
    folder = context.work / f"raw-{source.digest}"
    inputs = download_artifact(source.run_id, "inputs.json", folder)
    if inputs is None:
        raise BadInput(f"run {source.run_id} does not say which raw files {source.uri} came from")
    [raw] = [Reference.model_validate(each) for each in json.loads(inputs.read_text())["raw"]]
    found = download_artifact(raw.run_id, f"{RAW}/{item.name}", folder)
    if found is None or hash_file(found) != item.raw_sha256:
        raise BadInput(f"the raw file {item.name} of {raw.uri} is gone or changed; load and preprocess it again")
    return replace(item, raw=found)


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """JSON and MLflow's stores know no NaN (a metric whose denominator is zero)."""
    return {key: float(value) for key, value in metrics.items() if np.isfinite(value)}
