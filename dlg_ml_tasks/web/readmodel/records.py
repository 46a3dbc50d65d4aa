"""Runs, models and versions as the site keeps them, made from MLflow's JSON."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dlg_ml_tasks.tracking.tags import ERROR, KIND, NODE, OUTPUT, PROGRESS, REUSED, SESSION, TASK

MODEL = "dlg_ml.model"
DECISION = "dlg_ml.decision"
_METRIC = "metric."


class Measured(NamedTuple):
    """The last value of a metric, and its step."""

    value: float
    step: int


class Input(NamedTuple):
    """What a run read: the port it came by, and its URI (``runs:/…/path`` or ``models:/name/3``)."""

    port: str
    uri: str


@dataclass(frozen=True)
class Run:
    """One MLflow run. Times are milliseconds since 1970; `end` is None while it runs.

    `task` is empty for a session and for runs that no task of this package made.
    """

    run_id: str
    experiment: str
    name: str
    status: str
    start: int
    end: int | None
    location: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Input, ...] = ()

    @property
    def task(self) -> str:
        return self.tags.get(TASK, "")

    @property
    def is_session(self) -> bool:
        return self.tags.get(KIND) == "session"

    @property
    def node(self) -> str:
        return self.tags.get(NODE, self.name)

    @property
    def session(self) -> str:
        return self.tags.get(SESSION, "")

    @property
    def recipe(self) -> str:
        return self.params.get("recipe", "")

    @property
    def model(self) -> str:
        """The model version that an inference applied, such as ``models:/rfi/3``."""
        return self.tags.get(MODEL, "")

    @property
    def progress(self) -> str:
        return self.tags.get(PROGRESS, "")

    @property
    def error(self) -> str:
        return self.tags.get(ERROR, "")

    @property
    def decision(self) -> str:
        return self.tags.get(DECISION, "")

    @property
    def output(self) -> str:
        """URI of what a finished task left behind."""
        try:
            return str(json.loads(self.tags[OUTPUT])["uri"])
        except (KeyError, ValueError, TypeError):
            return ""

    @property
    def reused(self) -> dict[str, str]:
        """Of a session: the runs it reused, by the node that did."""
        return {tag.removeprefix(REUSED): run for tag, run in self.tags.items() if tag.startswith(REUSED)}

    def pack(self) -> bytes:
        """The whole record in few bytes: most runs of a survey are never looked at."""
        return zlib.compress(json.dumps(vars(self), sort_keys=True).encode(), 1)

    @classmethod
    def unpack(cls, packed: bytes) -> Run:
        fields = json.loads(zlib.decompress(packed))
        fields["metrics"] = {name: Measured(*both) for name, both in fields["metrics"].items()}
        fields["inputs"] = tuple(Input(*both) for both in fields["inputs"])
        return cls(**fields)


@dataclass(frozen=True)
class Version:
    """One version of a registered model; `metrics` are those of its held-back data, `created` in milliseconds since 1970."""

    name: str
    version: int
    run_id: str
    created: int
    source: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"

    @property
    def retrained_from(self) -> str:
        """URI of the version it went on from; empty if it was trained from scratch."""
        return self.tags.get("retrained_from", "")


@dataclass(frozen=True)
class Model:
    """A registered model with its versions, oldest first."""

    name: str
    description: str
    versions: tuple[Version, ...] = ()

    def with_alias(self, alias: str) -> Version | None:
        """The version that has an alias."""
        return next((version for version in self.versions if alias in version.aliases), None)

    def version(self, number: int) -> Version | None:
        """The version of this number."""
        return next((version for version in self.versions if version.version == number), None)


def run_from(document: Mapping[str, Any]) -> Run:
    """A run from MLflow's JSON."""
    info, data = document["info"], document.get("data", {})
    datasets = document.get("inputs", {}).get("dataset_inputs", [])
    return Run(
        run_id=str(info["run_id"]),
        experiment=str(info["experiment_id"]),
        name=str(info.get("run_name", "")),
        status=str(info["status"]),
        start=int(info.get("start_time", 0)),
        end=int(info["end_time"]) if info.get("end_time") else None,
        location=str(info.get("artifact_uri", "")),
        params={str(each["key"]): str(each.get("value", "")) for each in data.get("params", [])},
        metrics={
            str(each["key"]): Measured(float(each.get("value", 0.0)), int(each.get("step", 0)))
            for each in data.get("metrics", [])
            if math.isfinite(float(each.get("value", 0.0)))
        },
        tags={str(each["key"]): str(each.get("value", "")) for each in data.get("tags", [])},
        inputs=tuple(found for each in datasets if (found := _input(each))),
    )


def _input(document: Mapping[str, Any]) -> Input | None:
    """A task's input among a run's data sets; None for one that another program logged."""
    dataset = document.get("dataset", {})
    port, _, _ = str(dataset.get("name", "")).rpartition("-")
    try:
        return Input(port, str(json.loads(dataset["source"])["uri"]))
    except (KeyError, ValueError, TypeError):
        return None


def model_from(document: Mapping[str, Any], versions: Sequence[Mapping[str, Any]]) -> Model:
    """A model from MLflow's JSON; `versions` lack their aliases, which stand with the model."""
    aliases: dict[str, list[str]] = {}
    for each in document.get("aliases", []):
        aliases.setdefault(str(each["version"]), []).append(str(each["alias"]))
    found = [_version(each, tuple(sorted(aliases.get(str(each["version"]), [])))) for each in versions]
    return Model(
        name=str(document["name"]),
        description=str(document.get("description", "")),
        versions=tuple(sorted(found, key=lambda version: version.version)),
    )


def _version(document: Mapping[str, Any], aliases: tuple[str, ...]) -> Version:
    tags = {str(each["key"]): str(each.get("value", "")) for each in document.get("tags", [])}
    metrics: dict[str, float] = {}
    for tag, text in tags.items():
        if tag.startswith(_METRIC):
            try:
                metrics[tag.removeprefix(_METRIC)] = float(text)
            except ValueError:
                continue  # somebody's own tag that begins like one of ours
    return Version(
        name=str(document["name"]),
        version=int(document["version"]),
        run_id=str(document.get("run_id", "")),
        created=int(document.get("creation_timestamp", 0)),
        source=str(document.get("source", "")),
        description=str(document.get("description", "")),
        aliases=aliases,
        metrics=metrics,
        tags=tags,
    )


def is_public(document: Mapping[str, Any]) -> bool:
    """Whether an experiment or model has the tag `public` (with any value but ``false``, ``no`` and ``0``)."""
    tags = {str(each["key"]): str(each.get("value", "")) for each in document.get("tags", [])}
    return "public" in tags and tags["public"].strip().lower() not in ("false", "no", "0")
