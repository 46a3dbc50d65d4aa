"""Results of inference: which there are, what one found in each file, and what the recipe declared to be shown of it."""

from __future__ import annotations

import csv
import json
import posixpath
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ValidationError

from dlg_ml_tasks.tasks.showing import SHOWS_FILE, Curves, Extent, Picture, Show, Shows, Table, Waterfall, Waterfalls
from dlg_ml_tasks.web.drawing.curves import Axis, Chart, Curve
from dlg_ml_tasks.web.pages.answering import Crumb, PageModel, add_page
from dlg_ml_tasks.web.pages.formatting import path as quoted
from dlg_ml_tasks.web.pages.parts import RunLine, run_line
from dlg_ml_tasks.web.pages.run import RunId
from dlg_ml_tasks.web.readmodel.reading import Place, RunFilter
from dlg_ml_tasks.web.readmodel.records import Run
from dlg_ml_tasks.web.readmodel.writing import Item as RawItem
from dlg_ml_tasks.web.readmodel.writing import node_of
from dlg_ml_tasks.web.site import Site
from dlg_ml_tasks.web.sources.archive import ArchiveFile
from dlg_ml_tasks.web.sources.errors import NotThere, SourceDown

router = APIRouter(tags=["Results"])

ItemName = Annotated[str, Path(description="Name of the raw file.", max_length=1000)]
_PLACE = r"^(\d{1,15}-[0-9a-zA-Z_-]{1,64})?$"

_ROOT = "results"
_LARGEST_TEXT = 4 << 20  # bytes of a CSV or JSON file that is drawn
_ROWS = 20
_MOST_VIEWS = 60
_PICTURES = ("*.png", "*.jpg", "*.jpeg", "*.webp", "*.gif")
_ANYTHING: tuple[Show, ...] = (
    *(Picture(files=pattern, caption="") for pattern in _PICTURES),
    Table(files="*.csv", caption=""),
)


class ResultLine(BaseModel):
    """An inference in the list."""

    run: RunLine
    files: int


class Results(PageModel):
    """The inferences, newest first; `older` and `newer` are the queries of the neighbouring pages."""

    template: ClassVar[str] = "results.html"
    section: ClassVar[str] = "results"

    results: list[ResultLine]
    total: int
    newer: str
    older: str

    def page_title(self) -> str:
        return "Results"

    def summary(self) -> str:
        return f"{self.total} inferences: models applied to files, with metrics and pictures."


class ItemLine(BaseModel):
    """A file that was inferred, with its metrics (none without truth); `before` are those of the earlier version, if any."""

    name: str
    metrics: dict[str, float]
    before: dict[str, float]


class Earlier(BaseModel):
    """An inference of an earlier version of the same model on the same files."""

    run_id: str
    model: str
    version: int


class Inference(PageModel):
    """One inference: every file with its metrics, beside those of an earlier version where that was applied too."""

    template: ClassVar[str] = "inference.html"
    section: ClassVar[str] = "results"

    run: RunLine
    items: list[ItemLine]
    columns: list[str]
    metrics: dict[str, float]
    before: dict[str, float]
    earlier: Earlier | None
    choices: list[Earlier]
    champion_before: str

    def page_title(self) -> str:
        return f"{self.run.name} with {self.run.model.removeprefix('models:/').replace('/', ' ')}"

    def summary(self) -> str:
        return (
            f"{self.run.model.removeprefix('models:/').replace('/', ' version ')} applied to {len(self.items)} files."
        )

    def crumbs(self) -> list[Crumb]:
        return [Crumb(name="Results", href="results")]


class PictureView(BaseModel):
    """A picture: `file` is its path among the run's files."""

    kind: Literal["picture"] = "picture"
    caption: str
    file: str


class TableView(BaseModel):
    """The beginning of a table."""

    kind: Literal["table"] = "table"
    caption: str
    file: str
    columns: list[str]
    rows: list[list[str]]
    more: bool


class CurvesView(BaseModel):
    """Curves; those of the earlier version carry its number in their name."""

    kind: Literal["curves"] = "curves"
    file: str
    chart: Chart


class LayerView(BaseModel):
    """A mask over a waterfall: `file` is its path among the files of the run `run_id`."""

    name: str
    run_id: str
    file: str
    fraction: float


class WaterfallView(BaseModel):
    """Values over two axes with masks over them."""

    kind: Literal["waterfall"] = "waterfall"
    caption: str
    title: str
    file: str
    x: Extent
    y: Extent
    value: Extent
    layers: list[LayerView]


View = PictureView | TableView | CurvesView | WaterfallView


class Item(PageModel):
    """What an inference found in one file, as its recipe declared it."""

    template: ClassVar[str] = "item.html"
    section: ClassVar[str] = "results"

    run: RunLine
    name: str
    metrics: dict[str, float]
    before: dict[str, float]
    earlier: Earlier | None
    views: list[View]
    files: list[str]
    sha256: str
    previous: str
    following: str

    def page_title(self) -> str:
        return self.name

    def summary(self) -> str:
        told = f"{self.run.model.removeprefix('models:/').replace('/', ' version ')} applied to {self.name}"
        metrics = ", ".join(f"{name} {value:.3g}" for name, value in list(self.metrics.items())[:3])
        return f"{told}: {metrics}." if metrics else f"{told}."

    def crumbs(self) -> list[Crumb]:
        return [Crumb(name="Results", href="results"), Crumb(name=self.run.name, href=f"results/{self.run.run_id}")]

    def picture(self) -> str:
        picture = next((file for file in self.files if file.endswith(".png")), "")
        return f"files/{self.run.run_id}/{quoted(picture)}" if picture else ""


def results(
    site: Site,
    after: Annotated[str, Query(pattern=_PLACE, description="Show what is older than this place.")] = "",
    before: Annotated[str, Query(pattern=_PLACE, description="Show what is newer than this place.")] = "",
) -> Results:
    """The finished inferences, newest first, a page at a time."""
    wanted = RunFilter(task="infer", status="FINISHED")
    page = site.model.page(
        wanted, 50, after=Place.parse(after) if after else None, before=Place.parse(before) if before else None
    )
    return Results(
        results=[ResultLine(run=run_line(run), files=_count(run)) for run in page.runs],
        total=site.model.count(wanted),
        newer=f"?before={page.newer}" if page.newer else "",
        older=f"?after={page.older}" if page.older else "",
    )


def inference(
    site: Site,
    run_id: RunId,
    against: Annotated[
        int, Query(ge=0, le=2**31, description="Version to compare with; 0: the champion before, if it was applied.")
    ] = 0,
) -> Inference:
    """One inference: every file with its metrics."""
    run = _inference(site, run_id)
    choices = _earlier(site, run)
    earlier = _chosen(choices, _champion_before(site, run), against)
    own, other = _metrics(site, run_id), _metrics(site, earlier.run_id) if earlier else {}
    items = [ItemLine(name=name, metrics=metrics, before=other.get(name, {})) for name, metrics in own.items()]
    before = site.model.run(earlier.run_id) if earlier else None
    return Inference(
        run=run_line(run),
        items=items,
        columns=_columns(items),
        metrics=_overall(run),
        before=_overall(before) if before else {},
        earlier=earlier,
        choices=choices,
        champion_before=_champion_before(site, run),
    )


def item(
    site: Site,
    run_id: RunId,
    name: ItemName,
    against: Annotated[int, Query(ge=0, le=2**31, description="Version to compare with; 0: as for the inference.")] = 0,
) -> Item:
    """What an inference found in one file: the recipe's pictures, tables, curves and waterfalls."""
    run = _inference(site, run_id)
    own = _metrics(site, run_id)
    if own and name not in own:
        raise NotThere(f"this inference has no file {name}")
    files = _files(site, run, name)
    if not files:
        raise NotThere(f"this inference has no results of {name}")
    choices = [each for each in _earlier(site, run) if name in _metrics(site, each.run_id)]
    earlier = _chosen(choices, _champion_before(site, run), against)
    names = list(own)
    at = names.index(name) if name in names else 0
    held = {each.name: each.sha256 for each in _raw_items(site, run)}
    return Item(
        run=run_line(run),
        name=name,
        metrics=own.get(name, {}),
        before=_metrics(site, earlier.run_id).get(name, {}) if earlier else {},
        earlier=earlier,
        views=_views(site, run, name, files, earlier),
        files=[f"{_ROOT}/{name}/{each.name}" for each in files if not each.is_folder],
        sha256=held.get(name, ""),
        previous=names[at - 1] if at else "",
        following=names[at + 1] if at + 1 < len(names) else "",
    )


def _inference(site: Site, run_id: str) -> Run:
    run = site.run(run_id)
    if run.task != "infer":
        raise NotThere(f"run {run_id} is no inference")
    return run


def _count(run: Run) -> int:
    return int(run.metrics["files"].value) if "files" in run.metrics else 0


def _overall(run: Run) -> dict[str, float]:
    return {name: each.value for name, each in sorted(run.metrics.items()) if name not in ("files", "pictures")}


def _metrics(site: Site, run_id: str) -> dict[str, dict[str, float]]:
    """Metrics of each file of an inference."""
    return {each.name: json.loads(each.detail) for each in site.model.items(run_id, "result")}


def _raw_items(site: Site, run: Run) -> list[RawItem]:
    runs = [each.uri.removeprefix("runs:/").partition("/")[0] for each in run.inputs if each.uri.startswith("runs:/")]
    return [each for run_id in runs for each in site.model.items(run_id, "data")]


def _columns(items: Sequence[ItemLine]) -> list[str]:
    """The metrics that say most, of those that any file has: what fits beside one another."""
    known = {name for each in items for name in each.metrics}
    order = (
        "f1",
        "accuracy",
        "precision",
        "recall",
        "auprc",
        "flagged_fraction",
        "precision_pipeline",
        "recall_pipeline",
    )
    first = [name for name in order if name in known]
    return (first + sorted(known - set(first)))[:6]


def _earlier(site: Site, run: Run) -> list[Earlier]:
    """The newest inference with each other version of the same model on any of the same data, newest version first."""
    name, _, version = run.model.removeprefix("models:/").rpartition("/")
    found: dict[int, tuple[int, Earlier]] = {}
    for uri in dict.fromkeys(each.uri for each in run.inputs if each.uri.startswith("runs:/")):
        for other in site.model.users(node_of(uri), "infer"):
            same, _, number = other.model.removeprefix("models:/").rpartition("/")
            if same != name or number == version or not number.isdecimal() or other.status != "FINISHED":
                continue
            if found.get(int(number), (-1,))[0] < other.start:
                found[int(number)] = other.start, Earlier(run_id=other.run_id, model=other.model, version=int(number))
    return [found[number][1] for number in sorted(found, reverse=True)]


def _champion_before(site: Site, run: Run) -> str:
    """URI of the version that was champion before the one that was applied, by the gate's word; empty if none was."""
    for gate in site.model.users(node_of(run.model), "promote"):
        if "dlg_ml.champion" in gate.tags:
            return gate.tags["dlg_ml.champion"]
    return ""


def _chosen(choices: list[Earlier], champion_before: str, against: int) -> Earlier | None:
    if against:
        return next((each for each in choices if each.version == against), None)
    return next((each for each in choices if each.model == champion_before), choices[0] if choices else None)


# --- what the recipe declared ---


def _files(site: Site, run: Run, name: str) -> list[ArchiveFile]:
    return site.archive.list(run.location, f"{_ROOT}/{name}")


def _views(site: Site, run: Run, name: str, files: list[ArchiveFile], earlier: Earlier | None) -> list[View]:
    try:
        text = site.archive.read(run.location, f"{_ROOT}/{SHOWS_FILE}", _LARGEST_TEXT)
        declared: tuple[Show, ...] = Shows.model_validate_json(text).shows or _ANYTHING
    except (NotThere, ValidationError):  # of before there were declarations, or of a newer version than this site
        declared = _ANYTHING
    other = site.model.run(earlier.run_id) if earlier else None
    views: list[View] = []
    for show in declared:
        pattern = show.file if isinstance(show, Curves) else show.files
        matching = [each for each in files if not each.is_folder and fnmatchcase(each.name, pattern)]
        for file in matching[: _MOST_VIEWS - len(views)]:
            view = _view(site, run, name, file, show, other, earlier)
            if view is not None:
                views.append(view)
    return views


def _view(
    site: Site,
    run: Run,
    name: str,
    file: ArchiveFile,
    show: Show,
    other: Run | None,
    earlier: Earlier | None,
) -> View | None:
    path = f"{_ROOT}/{name}/{file.name}"
    if isinstance(show, Picture):
        return PictureView(caption=show.caption or file.name, file=path)
    if file.size > _LARGEST_TEXT:
        return None  # it can be downloaded
    text = site.archive.read_range(run.location, file, 0, file.size)
    before = _read_other(site, other, path)
    label = f"version {earlier.version}" if earlier else ""
    if isinstance(show, Table):
        return _table(show, path, text)
    if isinstance(show, Curves):
        return CurvesView(file=path, chart=_chart(show, text, before, label))
    return _waterfall(show, run, path, text, other, before, label)


def _read_other(site: Site, other: Run | None, path: str) -> bytes:
    if other is None:
        return b""
    try:
        return site.archive.read(other.location, path, _LARGEST_TEXT)
    except (NotThere, SourceDown):
        return b""


def _table(show: Table, path: str, text: bytes) -> TableView:
    lines = list(csv.reader(text.decode("utf-8", "replace").splitlines()[: _ROWS + 2]))
    rows = lines[1 : _ROWS + 1]
    return TableView(
        caption=show.caption or posixpath.basename(path),
        file=path,
        columns=lines[0] if lines else [],
        rows=rows,
        more=len(lines) > _ROWS + 1,
    )


def _chart(show: Curves, text: bytes, before: bytes, label: str) -> Chart:
    curves = _curves(text)
    known = {curve.name: curve for curve in curves}
    # What does not depend on the model is the same in both.
    curves += [
        curve.model_copy(update={"name": f"{curve.name}, {label}"})
        for curve in (_curves(before) if before else [])
        if curve.name not in known or known[curve.name] != curve
    ]
    return Chart(
        title=show.caption,
        x=Axis(**show.x.model_dump()),
        y=Axis(**show.y.model_dump()),
        curves=curves,
        zero=True,
    )


def _curves(text: bytes) -> list[Curve]:
    rows = list(csv.reader(text.decode("utf-8", "replace").splitlines()))
    names, numbers = (rows[0], [[_float(cell) for cell in row] for row in rows[1:]]) if rows else ([], [])
    points = [row for row in numbers if row and row[0] is not None]
    xs = [float(row[0] or 0.0) for row in points]
    return [
        Curve(name=name, x=xs, y=[row[number] if number < len(row) else None for row in points])
        for number, name in enumerate(names)
        if number
    ]


def _float(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _waterfall(
    show: Waterfalls, run: Run, path: str, text: bytes, other: Run | None, before: bytes, label: str
) -> WaterfallView | None:
    try:
        found = Waterfall.model_validate_json(text)
        earlier = Waterfall.model_validate_json(before) if before else None
    except ValidationError:
        return None
    folder = posixpath.dirname(path)
    layers = [
        LayerView(
            name=each.name, run_id=run.run_id, file=f"{folder}/{posixpath.basename(each.file)}", fraction=each.fraction
        )
        for each in found.layers
    ]
    if earlier is not None and earlier.layers and other is not None:
        first = earlier.layers[0]
        mask = f"{folder}/{posixpath.basename(first.file)}"
        layers.append(LayerView(name=f"{first.name}, {label}", run_id=other.run_id, file=mask, fraction=first.fraction))
    return WaterfallView(
        caption=show.caption,
        title=found.title,
        file=f"{folder}/{posixpath.basename(found.file)}",
        x=found.x,
        y=found.y,
        value=found.value,
        layers=layers,
    )


add_page(router, "/results", results)
add_page(router, "/results/{run_id}/items/{name:path}", item)
add_page(router, "/results/{run_id}", inference)
