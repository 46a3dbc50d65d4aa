"""The recipe contract: the machine-learning code that a user plugs into the tasks; it knows no MLflow, no DALiuGE, no archive.

A recipe is named by import path (``package.module:Name``), so that it may live in any installed package. It brings the science:
how one raw file becomes training data, the network and its loss, and what inference writes. Loops, devices, tracking, storage and
resumption are the tasks' business.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from dlg_ml_tasks.tasks.errors import BadInput, describe_validation
from dlg_ml_tasks.tasks.showing import Show

if TYPE_CHECKING:
    import lightning as L
    import numpy as np
    import torch

Predict: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
"""The network in inference mode: a batch as of `Recipe.example_input` in, the network's raw output (logits) out."""

Counts: TypeAlias = "dict[str, float | np.ndarray]"
"""Additive statistics of one item (for instance true positives): the counts of many items are their key-wise sum."""


@dataclass(frozen=True)
class Item:
    """What `Recipe.preprocess` made of one raw file, on this machine's disk.

    `name` is the raw file's name; `folder` holds what was written; `held_back` items are never trained on, only scored;
    `raw_sha256` is the raw file's checksum in hex;
    `raw` is the raw file itself, present only during inference of a recipe with `needs_raw`.
    """

    name: str
    folder: Path
    held_back: bool = False
    raw_sha256: str = ""
    raw: Path | None = None


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train. A recipe gives its defaults; task parameters override single fields.

    `epochs` x `steps_per_epoch` optimiser steps of `batch_size` examples; a checkpoint is written after each epoch.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int
    learning_rate: float
    seed: int = 0


class RecipeSettings(BaseModel):
    """Base of a recipe's own settings: unknown names and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Recipe(ABC):
    """Base class of recipes. All methods are deterministic functions of their arguments and the settings."""

    Settings: ClassVar[type[RecipeSettings]] = RecipeSettings
    raw_glob: ClassVar[str] = "*"
    """Which names among the loaded files are raw files; others (such as truth files) are their companions."""
    needs_raw: ClassVar[bool] = False
    """Whether `infer` reads the raw file again (for instance to write a copy of it with flags)."""
    shows: ClassVar[tuple[Show, ...]] = ()
    """What the results site shows of each item's results, in this order; empty: every picture and table that is there."""
    metric: ClassVar[str]
    """The metric, higher is better, by which the gate compares model versions."""
    training: ClassVar[Plan]
    """Default plan of `train`."""
    retraining: ClassVar[Plan]
    """Default plan of `retrain`."""

    def __init__(self, settings: RecipeSettings) -> None:
        self.settings: Any = settings

    def sample(self, name: str, out: Path, seed: int) -> None:
        """Write the recipe's sample data set called `name` (source ``sample:NAME`` of load_raw) into the empty folder `out`.

        Raises BadInput if the recipe has no data set of that name.
        """
        raise BadInput(
            f"recipe {type(self).__name__} brings no sample data, so the source 'sample:{name}' does not exist"
        )

    @abstractmethod
    def preprocess(self, raw: Path, out: Path) -> None:
        """Turn one raw file (its companions lie in the same folder) into files below the empty folder `out`.

        Raises BadInput naming the file and the reason if it cannot be read.
        """

    @abstractmethod
    def is_labelled(self, item: Item) -> bool:
        """Whether the item carries truth to train on and to be scored against."""

    @abstractmethod
    def data(self, items: Sequence[Item], replay: Sequence[Item], plan: Plan) -> L.LightningDataModule:
        """Training data from labelled items and, when retraining, labelled items of earlier data to replay.

        Epoch e yields exactly `plan.steps_per_epoch` batches that depend on (plan.seed, e) only, so that a training resumed at an
        epoch's end goes on as if uninterrupted (a sampler with `set_epoch`, which Lightning calls).
        """

    @abstractmethod
    def module(self, plan: Plan) -> L.LightningModule:
        """A freshly initialised module. Its attribute `network` (torch.nn.Module) is what is exported, saved and retrained.

        It logs `train_loss` in `training_step`.
        """

    @abstractmethod
    def example_input(self) -> torch.Tensor:
        """A batch of at least two examples, as `network` takes it: the batch axis of the exported model is free."""

    @abstractmethod
    def infer(self, predict: Predict, item: Item, out: Path | None) -> Counts:
        """Apply the model to one item; write results and pictures (``*.png``) into the folder `out` unless it is None.

        Returns counts for `metrics`; of an item without truth, those that need none (possibly empty).
        """

    @abstractmethod
    def metrics(self, counts: Counts) -> dict[str, float]:
        """Metrics from summed counts; `Recipe.metric` is among them when the counts come from labelled items."""


def load_recipe_class(name: str) -> type[Recipe]:
    """Find a recipe class by import path ``package.module:Name``, or by a shipped recipe's short name (``rfi``).

    Raises BadInput if it cannot be imported or is no Recipe.
    """
    module_name, _, attribute = name.partition(":") if ":" in name else (f"dlg_ml_tasks.recipes.{name}", "", "RECIPE")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(
            f"unknown recipe {name!r} ({error}); give a shipped one (digits, rfi) or an import path 'package.module:Name' of "
            "an installed package"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Recipe)):
        raise BadInput(f"{name!r} is not a recipe: it must be a subclass of dlg_ml_tasks.tasks.Recipe")
    return found


def load_recipe(name: str, settings: Mapping[str, Any]) -> Recipe:
    """Build a recipe with validated settings. Raises BadInput for an unknown recipe or wrong settings."""
    recipe_class = load_recipe_class(name)
    try:
        validated = recipe_class.Settings.model_validate(dict(settings))
    except ValidationError as error:
        raise BadInput(f"settings of recipe {name!r}: {describe_validation(error)}") from error
    return recipe_class(validated)


def add_counts(parts: Sequence[Counts]) -> Counts:
    """Sum counts key by key."""
    total: Counts = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total[key] + value if key in total else value
    return total
