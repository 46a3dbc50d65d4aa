"""Models and their versions: what each was trained on, how good it is, and why the champion is the champion."""

from __future__ import annotations

from typing import Annotated, ClassVar

from fastapi import APIRouter, Path
from pydantic import BaseModel

from dlg_ml_tasks.web.drawing.curves import Axis, Chart, Curve
from dlg_ml_tasks.web.pages.answering import Crumb, PageModel, add_page
from dlg_ml_tasks.web.pages.formatting import number, part
from dlg_ml_tasks.web.pages.parts import RunLine, VersionLine, champion_of, run_line, version_line
from dlg_ml_tasks.web.readmodel.reading import RunFilter
from dlg_ml_tasks.web.readmodel.records import Model, Run, Version
from dlg_ml_tasks.web.readmodel.writing import node_of
from dlg_ml_tasks.web.site import Site
from dlg_ml_tasks.web.sources.errors import NotThere

router = APIRouter(tags=["Models"])

Name = Annotated[
    str, Path(description="Name of a registered model.", min_length=1, max_length=256, pattern=r"^[^/:]+$")
]
Number = Annotated[int, Path(description="Version number.", ge=1, le=2**31)]

_SCORES = ("champion_new", "challenger_new", "champion_earlier", "challenger_earlier")
_INFERENCES = 10


class Gate(BaseModel):
    """What the gate measured and decided when a version was proposed.

    `scores` is keyed ``champion_new``, ``challenger_new``, ``champion_earlier``, ``challenger_earlier``: the metric on held-back
    files of the new and of the earlier data. `champion` is the URI of the version it was compared with; empty if it was the first.
    """

    run_id: str
    when: int
    version: int
    champion: str
    promoted: bool
    reason: str
    scores: dict[str, float]


class ModelLine(BaseModel):
    """A model in the list."""

    name: str
    description: str
    versions: int
    updated: int
    champion: VersionLine | None
    challenger: VersionLine | None


class Models(PageModel):
    """Every registered model."""

    template: ClassVar[str] = "models.html"
    section: ClassVar[str] = "models"

    models: list[ModelLine]

    def page_title(self) -> str:
        return "Models"


class ModelPage(PageModel):
    """One model: its versions, oldest first, how its metrics went, and what the gate decided, newest first."""

    template: ClassVar[str] = "model.html"
    section: ClassVar[str] = "models"

    name: str
    description: str
    versions: list[VersionLine]
    champion: VersionLine | None
    gates: list[Gate]
    chart: Chart | None

    def page_title(self) -> str:
        return self.name

    def summary(self) -> str:
        told = f"Model {self.name} with {len(self.versions)} versions"
        if self.champion and self.champion.headline:
            best = self.champion.headline
            told += f"; champion is version {self.champion.version}, {best.name} {number(best.value)}"
        return f"{told}."

    def crumbs(self) -> list[Crumb]:
        return [Crumb(name="Models", href="models")]


class Origin(BaseModel):
    """Data that went into a version: the input's name, the run that made the data, and how many files it has."""

    port: str
    run_id: str
    name: str
    files: int


class VersionPage(PageModel):
    """One version of a model: where it comes from, how good it is, what was done with it."""

    template: ClassVar[str] = "version.html"
    section: ClassVar[str] = "models"

    version: VersionLine
    description: str
    tags: dict[str, str]
    run: RunLine | None
    recipe: str
    settings: str
    data: list[Origin]
    ancestors: list[int]
    successors: list[int]
    gates: list[Gate]
    inferences: list[RunLine]
    previous: int | None
    following: int | None

    def page_title(self) -> str:
        return f"{self.version.name} version {self.version.version}"

    def summary(self) -> str:
        metrics = ", ".join(f"{name} {number(value)}" for name, value in sorted(self.version.metrics.items())[:4])
        return f"Version {self.version.version} of model {self.version.name}" + (f": {metrics}." if metrics else ".")

    def crumbs(self) -> list[Crumb]:
        name = self.version.name
        return [Crumb(name="Models", href="models"), Crumb(name=name, href=f"models/{part(name)}")]


def models(site: Site) -> Models:
    """Every registered model with its champion and challenger."""
    return Models(models=[_line(each) for each in site.model.models()])


def model(site: Site, name: Name) -> ModelPage:
    """One model: its versions, how its metrics went, what the gate decided."""
    found = _find(site, name)
    gates = sorted((gate for each in found.versions for gate in gates_of(site, each)), key=lambda gate: -gate.when)
    lines = [version_line(each) for each in found.versions]
    champion = champion_of(found)
    return ModelPage(
        name=found.name,
        description=found.description,
        versions=lines,
        champion=version_line(champion) if champion else None,
        gates=gates,
        chart=_chart(lines),
    )


def version(site: Site, name: Name, number: Number) -> VersionPage:
    """One version: where it comes from, how good it is, what was done with it."""
    found = _find(site, name)
    chosen = found.version(number)
    if chosen is None:
        raise NotThere(f"model {name} has no version {number}")
    run = site.model.run(chosen.run_id)
    numbers = [each.version for each in found.versions]
    at = numbers.index(number)
    return VersionPage(
        version=version_line(chosen),
        description=chosen.description,
        tags=dict(chosen.tags),
        run=run_line(run) if run else None,
        recipe=run.recipe if run else "",
        settings=run.params.get("settings", "") if run else "",
        data=_origins(site, run) if run else [],
        ancestors=_ancestors(found, chosen),
        successors=[each.version for each in found.versions if each.retrained_from == chosen.uri],
        gates=gates_of(site, chosen),
        inferences=[run_line(each) for each in site.model.page(RunFilter(model=chosen.uri), _INFERENCES).runs],
        previous=numbers[at - 1] if at else None,
        following=numbers[at + 1] if at + 1 < len(numbers) else None,
    )


def gates_of(site: Site, version: Version) -> list[Gate]:
    """What the gate decided each time a version was proposed, newest first."""
    runs = site.model.users(node_of(version.uri), "promote")
    return [_gate(run, version) for run in runs if run.status == "FINISHED"]


def _gate(run: Run, version: Version) -> Gate:
    return Gate(
        run_id=run.run_id,
        when=run.end or run.start,
        version=version.version,
        champion=run.tags.get("dlg_ml.champion", ""),
        promoted="promoted" in run.metrics and run.metrics["promoted"].value == 1,
        reason=run.decision,
        scores={name: run.metrics[name].value for name in _SCORES if name in run.metrics},
    )


def _find(site: Site, name: str) -> Model:
    found = site.model.model(name)
    if found is None:
        raise NotThere(f"there is no model {name}")
    return found


def _line(model: Model) -> ModelLine:
    champion, challenger = champion_of(model), model.with_alias("challenger")
    return ModelLine(
        name=model.name,
        description=model.description,
        versions=len(model.versions),
        updated=max((each.created for each in model.versions), default=0),
        champion=version_line(champion) if champion else None,
        challenger=version_line(challenger) if challenger else None,
    )


def _chart(versions: list[VersionLine]) -> Chart | None:
    """The metric that stands for the model, by version, on the new data and on the earlier."""
    named = next((each.headline.name for each in reversed(versions) if each.headline), None)
    if named is None or len(versions) < 2:
        return None
    curves = [
        Curve(
            name=label,
            x=[each.version for each in versions],
            y=[each.metrics.get(key) for each in versions],
        )
        for key, label in ((named, f"{named}, data of its training"), (f"earlier_{named}", f"{named}, earlier data"))
    ]
    curves = [curve for curve in curves if any(y is not None for y in curve.y)]
    return Chart(
        title=f"{named} of each version on held-back files",
        x=Axis(label="version"),
        y=Axis(label=named),
        curves=curves,
        whole=True,
        marks=True,
    )


def _ancestors(model: Model, version: Version) -> list[int]:
    """The versions it goes back to by retraining, the nearest first."""
    found: list[int] = []
    by_uri = {each.uri: each for each in model.versions}
    before = by_uri.get(version.retrained_from)
    while before is not None and before.version not in found:
        found.append(before.version)
        before = by_uri.get(before.retrained_from)
    return found


def _origins(site: Site, run: Run) -> list[Origin]:
    wanted = [
        (each.port, node_of(each.uri).removeprefix("run:")) for each in run.inputs if each.uri.startswith("runs:/")
    ]
    runs = site.model.runs_by_id([run_id for _, run_id in wanted])
    return [
        Origin(
            port=port,
            run_id=run_id,
            name=runs[run_id].node,
            files=int(runs[run_id].metrics["files"].value) if "files" in runs[run_id].metrics else 0,
        )
        for port, run_id in wanted
        if run_id in runs
    ]


add_page(router, "/models", models)
add_page(router, "/models/{name}/{number}", version)
add_page(router, "/models/{name}", model)
