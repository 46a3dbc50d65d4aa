"""Model versions: logging a network as a new version, loading it back without pickle, and moving champion and challenger.

The alias `challenger` goes to every new version; `champion` goes to the first version of a model, and from then on only the gate
moves it. Inference resolves ``models:/NAME@champion`` when it runs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.artifacts
import mlflow.pytorch
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature
from safetensors.torch import load_file, save_file

from dlg_ml_tasks.tracking.errors import ContentChanged, UnknownModel
from dlg_ml_tasks.tracking.files import hash_file
from dlg_ml_tasks.tracking.reference import WEIGHTS, Reference
from dlg_ml_tasks.tracking.runs import TaskRun
from dlg_ml_tasks.tracking.store import reachable_client

CHAMPION = "champion"
CHALLENGER = "challenger"

_RECIPE = "state/recipe.json"
_URI = re.compile(r"^models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))$")


@dataclass(frozen=True)
class VersionInfo:
    """One version of a registered model. `metrics` are those measured on held-back data when it was made."""

    name: str
    version: int
    run_id: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class LoadedModel:
    """A model version on this machine: the exported network, and what retraining needs to rebuild its class."""

    reference: Reference
    network: torch.nn.Module
    weights: Mapping[str, torch.Tensor]
    recipe: Mapping[str, Any]


def register(
    run: TaskRun,
    name: str,
    network: torch.nn.Module,
    example: torch.Tensor,
    recipe: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    fingerprint: str,
    work: Path,
) -> Reference:
    """Log the network (``pt2``, no pickle, plus its state dict as safetensors) and register it as the next version of `name`.

    `example` is a batch of at least two; its first axis becomes free in the exported graph. `recipe` (JSON-able) is kept with the
    weights. The version becomes `challenger`, and `champion` too if the model has none. `work` is an empty scratch folder.
    """
    client = run.client
    logged = client.create_logged_model(
        client.get_run(run.run_id).info.experiment_id, name=name, source_run_id=run.run_id, params={}, tags=dict(tags)
    )
    folder = work / "model"
    save(network, example, folder, Model(run_id=run.run_id, model_id=logged.model_id))
    weights = folder / WEIGHTS
    weights.parent.mkdir()
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, weights)
    (folder / _RECIPE).write_text(json.dumps(dict(recipe), indent=2, sort_keys=True))
    digest = hash_file(weights)

    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, 0)])
    version = _new_version(client, name, logged.model_id, run.run_id, digest, fingerprint, metrics, tags)
    return Reference(
        kind="model", uri=f"models:/{name}/{version}", run_id=run.run_id, digest=digest, fingerprint=fingerprint
    )


def save(network: torch.nn.Module, example: torch.Tensor, folder: Path, model: Model) -> None:
    """Write the network (``pt2``, no pickle) into the new folder `folder` as what `model` says of it; see `register`."""
    network.eval()
    with torch.no_grad():
        signature = infer_signature(example.numpy(), network(example).float().numpy())
    mlflow.pytorch.save_model(
        network,
        folder,
        mlflow_model=model,
        signature=signature,
        input_example=example,
        serialization_format="pt2",
        # Inferring requirements costs 3-6 s per model, and these two are all that loading a pt2 file needs.
        pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", f"mlflow=={mlflow.__version__}"],
    )


def resolve(uri: str) -> Reference:
    """Turn ``models:/NAME@alias`` or ``models:/NAME/3`` into a reference to one version. Raises UnknownModel."""
    match = _URI.match(uri)
    if match is None:
        raise UnknownModel(f"{uri!r} is no model URI; write models:/NAME@champion or models:/NAME/3")
    client = reachable_client()
    try:
        if match["alias"]:
            version = client.get_model_version_by_alias(match["name"], match["alias"])
        else:
            version = client.get_model_version(match["name"], match["version"])
    except MlflowException as error:
        raise UnknownModel(f"{uri} does not exist; 'dlg-ml models list' shows what does") from error
    missing = {"dlg_ml.digest", "dlg_ml.fingerprint"} - set(version.tags)
    if missing:
        raise UnknownModel(f"{uri} was not registered by a train or retrain task (it lacks the tags {sorted(missing)})")
    return Reference(
        kind="model",
        uri=f"models:/{version.name}/{version.version}",
        run_id=str(version.run_id),
        digest=version.tags["dlg_ml.digest"],
        fingerprint=version.tags["dlg_ml.fingerprint"],
    )


def load(reference: Reference, work: Path) -> LoadedModel:
    """Download a version into the empty folder `work`, check its weights against the reference, and load it.

    Raises ContentChanged if the weights are not those that the reference names.
    """
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=reference.uri, dst_path=str(work)))
    found = hash_file(folder / WEIGHTS)
    if found != reference.digest:
        raise ContentChanged(f"{reference.uri}: expected weights {reference.digest[:12]}…, found {found[:12]}…")
    # MLflow would load a pickled model if the archive held one in its place.
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    return LoadedModel(
        reference=reference,
        network=mlflow.pytorch.load_model(str(folder)),
        weights=load_file(folder / WEIGHTS),
        recipe=json.loads((folder / _RECIPE).read_text()),
    )


def champion(name: str) -> Reference | None:
    """The champion of a model, or None if the model or its champion does not exist."""
    try:
        return resolve(f"models:/{name}@{CHAMPION}")
    except UnknownModel:
        return None


def promote(reference: Reference) -> None:
    """Make a version the champion; it stops being challenger."""
    client = reachable_client()
    name, version = reference.uri.removeprefix("models:/").split("/")
    client.set_registered_model_alias(name, CHAMPION, version)
    aliases = client.get_registered_model(name).aliases
    if str(aliases.get(CHALLENGER)) == version:
        client.delete_registered_model_alias(name, CHALLENGER)


def versions(name: str | None = None) -> list[VersionInfo]:
    """All versions (of one model, or of all), by name and number. Raises UnknownModel for an unknown name."""
    client = reachable_client()
    names = sorted(model.name for model in client.search_registered_models()) if name is None else [name]
    found = []
    for each in names:
        try:
            aliases = client.get_registered_model(each).aliases
        except MlflowException as error:
            raise UnknownModel(f"no model {each!r}; 'dlg-ml models list' shows all") from error
        # search_model_versions leaves aliases empty, so they come from the model.
        for version in client.search_model_versions(f"name='{each}'"):
            found.append(
                VersionInfo(
                    name=each,
                    version=int(version.version),
                    run_id=str(version.run_id),
                    aliases=tuple(sorted(alias for alias, v in aliases.items() if str(v) == str(version.version))),
                    metrics={
                        k.removeprefix("metric."): float(v) for k, v in version.tags.items() if k.startswith("metric.")
                    },
                    tags=dict(version.tags),
                )
            )
    return sorted(found, key=lambda info: (info.name, info.version))


def _new_version(
    client: MlflowClient,
    name: str,
    model_id: str,
    run_id: str,
    digest: str,
    fingerprint: str,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> str:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        run_id=run_id,
        model_id=model_id,
        tags={
            **tags,
            **{f"metric.{key}": repr(float(value)) for key, value in metrics.items()},
            "dlg_ml.digest": digest,
            "dlg_ml.fingerprint": fingerprint,
        },
    ).version
    client.set_registered_model_alias(name, CHALLENGER, version)
    if CHAMPION not in client.get_registered_model(name).aliases:
        promote(
            Reference(
                kind="model", uri=f"models:/{name}/{version}", run_id=run_id, digest=digest, fingerprint=fingerprint
            )
        )
    return str(version)
