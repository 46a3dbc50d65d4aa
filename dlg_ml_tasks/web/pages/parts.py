"""What several pages show: a run in a list, a version in a list, a metric."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from dlg_ml_tasks.web.readmodel.records import Model, Run, Version

# The order in which a metric stands for a run; the first of a model's own is what its gate compares.
_HEADLINES = ("challenger_new", "f1", "accuracy", "auprc", "iou", "promoted", "train_loss", "files")
_HIDDEN = frozenset({"msamples_per_second"})


class Metric(BaseModel):
    """A metric's name and value."""

    name: str
    value: float


class RunLine(BaseModel):
    """A run in a list. Times in milliseconds since 1970; `task` is ``session`` for a graph session, empty for a stranger's run."""

    run_id: str
    name: str
    task: str
    status: str
    start: int
    end: int | None
    session: str
    model: str
    headline: Metric | None
    progress: str = ""

    @property
    def milliseconds(self) -> int | None:
        return self.end - self.start if self.end else None


class VersionLine(BaseModel):
    """A model version in a list."""

    name: str
    version: int
    aliases: list[str]
    created: int
    run_id: str
    task: str
    retrained_from: str
    metrics: dict[str, float]
    headline: Metric | None


def run_line(run: Run) -> RunLine:
    """A run as a line."""
    return RunLine(
        run_id=run.run_id,
        name=run.node or run.run_id,
        task="session" if run.is_session else run.task,
        status=run.status,
        start=run.start,
        end=run.end,
        session=run.session,
        model=run.model,
        headline=headline({name: each.value for name, each in run.metrics.items()}),
        progress=run.progress if run.status == "RUNNING" else "",
    )


def version_line(version: Version, gate_metric: str = "") -> VersionLine:
    """A version as a line; `gate_metric` is the one that stands for it."""
    return VersionLine(
        name=version.name,
        version=version.version,
        aliases=list(version.aliases),
        created=version.created,
        run_id=version.run_id,
        task=version.tags.get("dlg_ml.task", ""),
        retrained_from=version.retrained_from,
        metrics=dict(version.metrics),
        headline=headline(version.metrics, gate_metric),
    )


def headline(metrics: Mapping[str, float], first: str = "") -> Metric | None:
    """The metric that stands for a run or version."""
    for name in (first, *_HEADLINES):
        if name in metrics:
            return Metric(name=name, value=metrics[name])
    rest = sorted(set(metrics) - _HIDDEN)
    return Metric(name=rest[0], value=metrics[rest[0]]) if rest else None


def champion_of(model: Model) -> Version | None:
    """The version that inference uses."""
    return model.with_alias("champion")


def uri_href(uri: str) -> str:
    """The page of what a reference's URI names, without a leading slash; empty for a strange one."""
    from dlg_ml_tasks.web.pages.formatting import part

    if uri.startswith("runs:/"):
        return f"runs/{part(uri.removeprefix('runs:/').partition('/')[0])}"
    if uri.startswith("models:/"):
        name, _, version = uri.removeprefix("models:/").rpartition("/")
        return f"models/{part(name)}/{part(version)}"
    return ""
