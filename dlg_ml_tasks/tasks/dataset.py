"""Data sets: the artifact that preprocess writes and the other tasks read; one folder per raw file and a table of contents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from dlg_ml_tasks.tasks.batches import Batch, account
from dlg_ml_tasks.tasks.errors import BadInput
from dlg_ml_tasks.tasks.execution import Context
from dlg_ml_tasks.tasks.parameters import GatherParams
from dlg_ml_tasks.tasks.recipe import Item, Predict, Recipe, add_counts
from dlg_ml_tasks.tracking import Reference
from dlg_ml_tasks.tracking.files import download

DATA = "data"
_CONTENTS = "dataset.json"
_ITEMS = "items"


class Entry(BaseModel):
    """One raw file's line in the table: its name, content and whether it is kept for scoring."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    raw: str
    raw_sha256: str
    held_back: bool


class Contents(BaseModel):
    """The table of contents of a data set, written as JSON at its root."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    settings: Mapping[str, object]
    entries: tuple[Entry, ...]
    skipped: Mapping[str, str] = {}
    """Raw files left out, with the reason."""
    batch: Batch | None = None
    """Which batch of a survey this is, if it is one."""


def item_folder(dataset: Path, raw: str) -> Path:
    """Where a raw file's preprocessed files lie in a data set."""
    return dataset / _ITEMS / raw


def write_contents(dataset: Path, contents: Contents) -> None:
    """Write the table of contents."""
    (dataset / _CONTENTS).write_text(contents.model_dump_json(indent=2))


@dataclass(frozen=True)
class DataSet:
    """A data set on this machine: the reference that names it, its items by name, and which batch of a survey it is, if any."""

    reference: Reference
    items: tuple[Item, ...]
    batch: Batch | None


def gather(context: Context, port: str, references: Sequence[Reference], params: GatherParams) -> list[DataSet]:
    """Download the data sets of an input port, and note in the run which batches of a survey are not among them.

    Raises BadInput if one was made by another recipe, BatchesFailed if more batches are missing than `params` allow.
    """
    folder = context.folder(port)
    datasets = [_fetch(reference, folder / str(index), params.recipe) for index, reference in enumerate(references)]
    account(context, port, [dataset.batch for dataset in datasets], params.max_failed_batches)
    return datasets


def items_of(datasets: Iterable[DataSet]) -> list[Item]:
    """The items of some data sets, by data set and name."""
    return [item for dataset in datasets for item in dataset.items]


def _fetch(reference: Reference, folder: Path, recipe: str) -> DataSet:
    dataset = download(reference, folder)
    contents = Contents.model_validate_json((dataset / _CONTENTS).read_text())
    if contents.recipe != recipe:
        raise BadInput(f"{reference.uri} was preprocessed by recipe {contents.recipe!r}, this task runs {recipe!r}")
    items = (Item(e.raw, item_folder(dataset, e.raw), e.held_back, e.raw_sha256) for e in contents.entries)
    return DataSet(reference, tuple(items), contents.batch)


def labelled(recipe: Recipe, items: Sequence[Item], *, held_back: bool) -> list[Item]:
    """The items with truth among the held-back ones, or among those for training."""
    return [item for item in items if item.held_back == held_back and recipe.is_labelled(item)]


def score(
    recipe: Recipe, predict: Predict, items: Sequence[Item], progress: Callable[[str], None] = lambda text: None
) -> dict[str, float]:
    """Metrics of a model on labelled items; empty without items."""
    if not items:
        return {}
    counts = []
    for index, item in enumerate(items, 1):
        progress(f"scoring {index}/{len(items)}")
        counts.append(recipe.infer(predict, item, None))
    return {key: float(value) for key, value in recipe.metrics(add_counts(counts)).items() if np.isfinite(value)}
