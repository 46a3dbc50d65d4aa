"""The overview: what is new, which models are in use, how much there is, and how busy it was."""

from __future__ import annotations

import time
from typing import ClassVar

from fastapi import APIRouter
from pydantic import BaseModel

from dlg_ml_tasks.web.drawing.bars import DayCount
from dlg_ml_tasks.web.pages.answering import PageModel, add_page
from dlg_ml_tasks.web.pages.formatting import path
from dlg_ml_tasks.web.pages.parts import RunLine, VersionLine, champion_of, run_line, version_line
from dlg_ml_tasks.web.readmodel.reading import RunFilter
from dlg_ml_tasks.web.readmodel.records import Model
from dlg_ml_tasks.web.site import Site

_DAYS = 28
_LATEST = 6

router = APIRouter(tags=["Overview"])


class Champion(BaseModel):
    """A registered model and the version that inference uses; `champion` is None before the first promotion."""

    name: str
    description: str
    versions: int
    champion: VersionLine | None
    challenger: int | None


class Inference(BaseModel):
    """An inference with a picture of it, if it has one: a path among the run's files."""

    run: RunLine
    files: int
    picture: str


class ArchiveSize(BaseModel):
    """How much the archive holds."""

    files: int
    bytes: int


class Overview(PageModel):
    """The newest inferences, the champions, the activity of the last weeks."""

    template: ClassVar[str] = "overview.html"
    section: ClassVar[str] = "overview"

    inferences: list[Inference]
    champions: list[Champion]
    sessions: list[RunLine]
    activity: list[DayCount]
    runs: int
    running: int
    failed: int
    archive: ArchiveSize | None

    def page_title(self) -> str:
        return "Overview"

    def picture(self) -> str:
        newest = next((each for each in self.inferences if each.picture), None)
        return f"files/{newest.run.run_id}/{path(newest.picture)}" if newest else ""

    def summary(self) -> str:
        return f"{len(self.champions)} models, {self.runs} runs: what was trained, what was inferred, from which raw files."


def overview(site: Site) -> Overview:
    """The newest inferences, the champions, the activity of the last weeks."""
    model = site.model
    counts = model.count_by_status()
    archive = model.fact("archive")
    latest = model.page(RunFilter(task="infer", status="FINISHED"), _LATEST).runs
    return Overview(
        inferences=[_inference(site, run_line(run)) for run in latest],
        champions=[_champion(each) for each in model.models()],
        sessions=[run_line(run) for run in model.sessions(5)],
        activity=[DayCount(**each) for each in model.activity(int(time.time() * 1000), _DAYS)],
        runs=sum(counts.values()),
        running=counts.get("RUNNING", 0),
        failed=counts.get("FAILED", 0),
        archive=ArchiveSize(**archive) if archive else None,
    )


def _inference(site: Site, line: RunLine) -> Inference:
    pictures = site.model.items(line.run_id, "picture")
    return Inference(
        run=line,
        files=len(site.model.items(line.run_id, "result")),
        picture=pictures[0].name if pictures else "",
    )


def _champion(model: Model) -> Champion:
    champion, challenger = champion_of(model), model.with_alias("challenger")
    return Champion(
        name=model.name,
        description=model.description,
        versions=len(model.versions),
        champion=version_line(champion) if champion else None,
        challenger=challenger.version if challenger else None,
    )


add_page(router, "/", overview, json_path="/overview.json")
