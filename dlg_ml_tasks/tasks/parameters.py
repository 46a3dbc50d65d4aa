"""The tasks' typed parameters: one declaration gives validation, command-line options, component parameters and the palette."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from dlg_ml_tasks.slurm import SlurmOptions
from dlg_ml_tasks.tasks.errors import describe_validation


def _from_json(value: object) -> object:
    """Graphs and command lines carry lists and objects as JSON text (EAGLE destroys native ones on save)."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        return json.loads(value)
    return value


def _list_from_text(value: object) -> object:
    """A plain text is a list of one; empty text is an empty list."""
    value = _from_json(value)
    if isinstance(value, str):
        return [value] if value else []
    return value


def _none_from_empty(value: object) -> object:
    """EAGLE writes null as an empty text."""
    return None if value == "" else value


def _slurm_options(value: dict[str, Any]) -> dict[str, Any]:
    """Checked, and kept as given: what is not given is the site's to say where the job is submitted."""
    try:
        SlurmOptions.model_validate(value)
    except ValidationError as error:
        raise ValueError(describe_validation(error)) from error
    return value


OptionalInt = Annotated[int | None, BeforeValidator(_none_from_empty)]
OptionalFloat = Annotated[float | None, BeforeValidator(_none_from_empty)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(lambda v: {} if v in ("", None) else _from_json(v))]
SlurmJson = Annotated[
    dict[str, Any], BeforeValidator(lambda v: {} if v in ("", None) else _from_json(v)), AfterValidator(_slurm_options)
]
TextList = Annotated[list[str], BeforeValidator(_list_from_text)]
OnError = Literal["stop", "skip"]


class TaskParams(BaseModel):
    """Base of all task parameters: unknown names, wrong types and values out of range are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    where: ClassVar[frozenset[str]] = frozenset()
    """Names of the parameters that say where the work is done, not what comes out of it: they are no part of the fingerprint."""


class LoadRawParams(TaskParams):
    """Parameters of load_raw."""

    sources: TextList = Field(
        min_length=1,
        description="Files to load: paths, globs or URLs (file, http, ftp, s3, ngas, ...), or 'sample:NAME' for the recipe's "
        "sample data. A list is written as JSON.",
    )
    recipe: str = Field(
        "",
        description="Recipe whose raw files these are. Needed for 'sample:' sources, and with more than one batch, where it says "
        "which files are raw files and which their companions.",
    )
    settings: JsonObject = Field(
        default_factory=dict, description="The recipe's settings as a JSON object (for 'sample:' sources)."
    )
    seed: int = Field(0, ge=0, description="Seed of 'sample:' sources.")
    on_error: OnError = Field(
        "stop", description="What one unreadable or empty file among many does: stop the task, or skip the file."
    )
    batches: int = Field(
        1,
        ge=1,
        description="Into how many batches the files are divided, dealt out in turn in the order of their names; in a "
        "scatter: its number of copies.",
    )
    batch: OptionalInt = Field(
        None,
        ge=1,
        description="Which of the batches to load, counted from 1; empty in a scatter: the number of the copy.",
    )

    @field_validator("batches")
    @classmethod
    def _needs_recipe(cls, batches: int, info: ValidationInfo) -> int:
        if batches > 1 and not info.data.get("recipe"):
            raise ValueError("with more than one batch, the parameter recipe must say which files are raw files")
        return batches

    @field_validator("batch")
    @classmethod
    def _one_of_the_batches(cls, batch: int | None, info: ValidationInfo) -> int | None:
        if batch is not None and batch > info.data.get("batches", batch):
            raise ValueError(f"there are {info.data['batches']} batches")
        return batch


class RecipeParams(TaskParams):
    """Parameters shared by the tasks that run recipe code."""

    recipe: str = Field(min_length=1, description="Recipe: 'rfi', 'digits', or an import path 'package.module:Name'.")
    settings: JsonObject = Field(default_factory=dict, description="The recipe's settings as a JSON object.")


class PreprocessParams(RecipeParams):
    """Parameters of preprocess."""

    held_back: str = Field(
        "*heldback*", description="Raw files whose name matches this pattern are kept for scoring, never trained on."
    )
    on_error: OnError = Field(
        "stop", description="What one unreadable raw file among many does: stop the task, or skip the file."
    )


class GatherParams(RecipeParams):
    """Parameters shared by the tasks that may take the data of many batches."""

    max_failed_batches: int = Field(
        0,
        ge=0,
        description="Go on with the batches that succeeded where at most this many of a scatter's copies failed; the run then says "
        "which were left out, and why.",
    )


class TrainParams(GatherParams):
    """Parameters of train."""

    where: ClassVar[frozenset[str]] = frozenset({"executor", "slurm"})

    model_name: str = Field(
        min_length=1,
        pattern=r"^[^/:]+$",
        description="Name of the model in MLflow's registry. Each training registers a new version.",
    )
    epochs: OptionalInt = Field(None, ge=1, description="Epochs; empty: the recipe's own.")
    steps_per_epoch: OptionalInt = Field(None, ge=1, description="Optimiser steps per epoch; empty: the recipe's own.")
    batch_size: OptionalInt = Field(None, ge=1, description="Examples per step; empty: the recipe's own.")
    learning_rate: OptionalFloat = Field(None, gt=0, description="Peak learning rate; empty: the recipe's own.")
    seed: int = Field(
        0, ge=0, description="Seed of weights and data order. Same seed and one thread: bit-identical weights."
    )
    threads: int = Field(1, ge=1, description="CPU threads. More than one gives up bit-identical weights.")
    devices: int = Field(
        1,
        ge=1,
        description="Devices that train together, each on its share of every batch: GPUs where there are any, else processes. "
        "batch_size must be a multiple. Other weights than on one device.",
    )
    executor: Literal["local", "slurm"] = Field(
        "local", description="Where to train: on the machine that runs the task, or as a job of its Slurm cluster."
    )
    slurm: SlurmJson = Field(
        default_factory=dict,
        description="What the Slurm job asks for, as a JSON object; it goes before the site's defaults in DLG_ML_SLURM. "
        f"{SlurmOptions.describe()}.",
    )

    @model_validator(mode="after")
    def _devices_can_be_had(self) -> Self:
        SlurmOptions.model_validate(self.slurm).refuse_if_impossible(self.devices)
        return self


class RetrainParams(TrainParams):
    """Parameters of retrain."""

    base: str = Field(
        "", description="Model version to start from when no model is connected; empty: the champion of model_name."
    )


class PromoteParams(GatherParams):
    """Parameters of promote, the gate."""

    model_name: str = Field(min_length=1, pattern=r"^[^/:]+$", description="Name of the model in MLflow's registry.")
    metric: str = Field("", description="Metric that decides, higher is better; empty: the recipe's own.")
    min_gain: float = Field(0.0, description="The challenger must beat the champion on the new data by more than this.")
    max_loss: float = Field(0.03, ge=0, description="The challenger may lose at most this much on the earlier data.")


class InferParams(GatherParams):
    """Parameters of infer."""

    model: str = Field(
        min_length=1,
        description="Model to apply, resolved when the task runs: 'models:/NAME@champion' or 'models:/NAME/3'.",
    )
    held_back_only: bool = Field(True, description="Apply to the held-back and unlabelled files only; false: to all.")
    threads: int = Field(1, ge=1, description="CPU threads.")
