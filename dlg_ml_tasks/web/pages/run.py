"""One run: parameters, metrics, what went in and what came out, its log and its files."""

from __future__ import annotations

from typing import Annotated, ClassVar

from fastapi import APIRouter, Path
from pydantic import BaseModel

from dlg_ml_tasks.web.drawing.curves import Axis, Chart, Curve
from dlg_ml_tasks.web.pages.answering import Crumb, PageModel, add_page
from dlg_ml_tasks.web.pages.formatting import number, short
from dlg_ml_tasks.web.pages.parts import Metric, RunLine, run_line, uri_href
from dlg_ml_tasks.web.readmodel.reading import RunFilter
from dlg_ml_tasks.web.readmodel.records import Run
from dlg_ml_tasks.web.site import Site

router = APIRouter(tags=["Runs"])

RunId = Annotated[str, Path(description="MLflow's id of a run.", pattern=r"^[0-9a-f]{32}$")]

_TASKS_SHOWN = 200
_CURVES = 12


class Tie(BaseModel):
    """What a run read or left: the input's or output's name, the reference's URI, and its page (relative to the site)."""

    port: str
    uri: str
    href: str
    name: str


class RunPage(PageModel):
    """One run of a task, or a graph session with the runs of its tasks."""

    template: ClassVar[str] = "run.html"
    section: ClassVar[str] = "runs"

    run: RunLine
    experiment: str
    params: dict[str, str]
    metrics: list[Metric]
    inputs: list[Tie]
    outputs: list[Tie]
    used_by: list[RunLine]
    tasks: list[RunLine]
    tasks_total: int
    reused: list[str]
    error: str
    decision: str
    commit: str
    tags: dict[str, str]
    has_curves: bool
    has_results: bool

    def page_title(self) -> str:
        return f"{self.run.name} ({short(self.run.run_id)})"

    def summary(self) -> str:
        told = f"Run of {self.run.task or 'a program'}, {self.run.status.lower()}"
        metrics = ", ".join(f"{each.name} {number(each.value)}" for each in self.metrics[:4])
        return f"{told}: {metrics}." if metrics else f"{told}."

    def crumbs(self) -> list[Crumb]:
        return [Crumb(name="Runs", href="runs")]

    def metric_values(self) -> dict[str, float]:
        """The metrics by name."""
        return {each.name: each.value for each in self.metrics}


class RunCurves(PageModel):
    """How the metrics of a run went over its steps."""

    template: ClassVar[str] = "run_curves.html"
    section: ClassVar[str] = "runs"

    run_id: str
    name: str
    charts: list[Chart]

    def page_title(self) -> str:
        return f"Curves of {self.name}"

    def crumbs(self) -> list[Crumb]:
        return [Crumb(name="Runs", href="runs"), Crumb(name=self.name, href=f"runs/{self.run_id}")]


def run(site: Site, run_id: RunId) -> RunPage:
    """One run: parameters, metrics, inputs and outputs."""
    found = site.run(run_id)
    tasks, total = _tasks(site, found)
    return RunPage(
        run=run_line(found),
        experiment=site.experiment(found),
        params=dict(sorted(found.params.items())),
        metrics=[Metric(name=name, value=each.value) for name, each in sorted(found.metrics.items())],
        inputs=_inputs(site, found),
        outputs=_outputs(found),
        used_by=_users(site, found),
        tasks=tasks,
        tasks_total=total,
        reused=sorted(found.reused),
        error=found.error,
        decision=found.decision,
        commit=found.tags.get("mlflow.source.git.commit", ""),
        tags={name: value for name, value in sorted(found.tags.items()) if not name.startswith(("dlg_ml.", "mlflow."))},
        has_curves=bool(_stepped(found)),
        has_results=found.task == "infer" and found.status == "FINISHED",
    )


def run_curves(site: Site, run_id: RunId) -> RunCurves:
    """How the metrics of a run went over its steps."""
    found = site.run(run_id)
    charts = [_chart(site, found, name) for name in _stepped(found)[:_CURVES]]
    return RunCurves(run_id=run_id, name=found.node, charts=charts)


def _stepped(run: Run) -> list[str]:
    """The metrics with more than one step."""
    return sorted(name for name, each in run.metrics.items() if each.step > 0)


def _chart(site: Site, run: Run, name: str) -> Chart:
    points = sorted(
        (int(each.get("step", 0)), float(each.get("value", 0))) for each in site.mlflow.history(run.run_id, name)
    )
    training = run.task in ("train", "retrain")
    return Chart(
        title=name,
        x=Axis(label="epoch" if training else "step"),
        y=Axis(label=name),
        # Tasks count epochs from 0; people count from 1.
        curves=[Curve(name=name, x=[step + training for step, _ in points], y=[value for _, value in points])],
        whole=True,
        marks=len(points) <= 50,
    )


def _inputs(site: Site, run: Run) -> list[Tie]:
    ties = [(each.port, each.uri) for each in run.inputs]
    if run.model:
        ties.append(("model", run.model))
    runs = site.model.runs_by_id(
        [uri.removeprefix("runs:/").partition("/")[0] for _, uri in ties if uri.startswith("runs:/")]
    )
    return [_tie(port, uri, runs) for port, uri in ties]


def _outputs(run: Run) -> list[Tie]:
    if not run.output:
        return []
    if run.output.startswith(f"runs:/{run.run_id}"):
        folder = run.output.removeprefix(f"runs:/{run.run_id}/")
        return [Tie(port="output", uri=run.output, href=f"runs/{run.run_id}/files/{folder}", name=f"{folder}/")]
    return [_tie("output", run.output, {})]


def _tie(port: str, uri: str, runs: dict[str, Run]) -> Tie:
    run_id = uri.removeprefix("runs:/").partition("/")[0]
    known = runs.get(run_id)
    hidden = uri.startswith("runs:/") and run_id not in runs
    return Tie(port=port, uri=uri, href="" if hidden else uri_href(uri), name=known.node if known else uri)


def _users(site: Site, run: Run) -> list[RunLine]:
    edges = site.model.targets(f"run:{run.run_id}")[:_TASKS_SHOWN]
    ids = sorted({edge.target.removeprefix("run:") for edge in edges if edge.target.startswith("run:")})
    return sorted((run_line(each) for each in site.model.runs_by_id(ids).values()), key=lambda line: line.start)


def _tasks(site: Site, run: Run) -> tuple[list[RunLine], int]:
    """The runs of a session's tasks, those it reused included, oldest first."""
    if not run.is_session:
        return [], 0
    wanted = RunFilter(session=run.session)
    own = [each for each in site.model.page(wanted, _TASKS_SHOWN).runs if not each.is_session]
    reused = site.model.runs_by_id(list(run.reused.values())[:_TASKS_SHOWN])
    lines = [run_line(each) for each in (*own, *reused.values())]
    return sorted(lines, key=lambda line: line.start), site.model.count(wanted) - 1 + len(run.reused)


add_page(router, "/runs/{run_id}/curves", run_curves)
add_page(router, "/runs/{run_id}", run)
