"""Lineage: from which raw files something was made, and what came of it, as a picture of links and as lists."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, ClassVar

from fastapi import APIRouter, Path
from pydantic import BaseModel

from dlg_ml_tasks.web.drawing.graph import Link, Node
from dlg_ml_tasks.web.pages.answering import Crumb, PageModel, add_page
from dlg_ml_tasks.web.pages.formatting import day, part, plural, short
from dlg_ml_tasks.web.pages.models import Name, Number
from dlg_ml_tasks.web.pages.parts import RunLine, run_line
from dlg_ml_tasks.web.pages.run import RunId
from dlg_ml_tasks.web.readmodel.records import Run
from dlg_ml_tasks.web.readmodel.writing import Edge, Item
from dlg_ml_tasks.web.site import Site
from dlg_ml_tasks.web.sources.errors import NotThere

router = APIRouter(tags=["Lineage"])

Sha256 = Annotated[str, Path(description="SHA-256 of a raw file's content, in hex.", pattern=r"^[0-9a-f]{64}$")]

_MOST_NODES = 60
_MOST_ALIKE = 4
"""How many nodes of one kind beside one another are drawn singly; more become a group."""


class RawFile(BaseModel):
    """A raw file as one run loaded it; `size` in bytes."""

    name: str
    run_id: str
    source: str
    size: int


class FileResult(BaseModel):
    """An inference that was applied to a file."""

    run: RunLine
    item: str


class Lineage(PageModel):
    """What something was made from and what came of it: a graph whose nodes are raw files, runs and model versions.

    `cut` says that there is more than is drawn. Of a raw file: where it came from, and every result for it.
    """

    template: ClassVar[str] = "lineage.html"
    section: ClassVar[str] = "lineage"

    title: str
    of: str
    href: str
    nodes: list[Node]
    links: list[Link]
    cut: bool
    files: list[RawFile]
    held_back: bool
    results: list[FileResult]

    def page_title(self) -> str:
        return f"Lineage of {self.title}"

    def summary(self) -> str:
        return f"From which raw files {self.title} comes, and what came of it."

    def crumbs(self) -> list[Crumb]:
        if self.of.startswith("model:"):
            return [Crumb(name="Models", href="models"), Crumb(name=self.title, href=self.href)]
        if self.of.startswith("run:"):
            return [Crumb(name="Runs", href="runs"), Crumb(name=self.title, href=self.href)]
        return []


def of_run(site: Site, run_id: RunId) -> Lineage:
    """Where a run's inputs come from, and what came of its output."""
    run = site.run(run_id)
    return _lineage(site, f"run:{run_id}", run.node)


def of_model(site: Site, name: Name, number: Number) -> Lineage:
    """Where a model version comes from, and what it was used for."""
    model = site.model.model(name)
    if model is None or model.version(number) is None:
        raise NotThere(f"there is no version {number} of a model {name}")
    return _lineage(site, f"model:{name}/{number}", f"{name} version {number}")


def of_file(site: Site, sha256: Sha256) -> Lineage:
    """What came of a raw file, by its content."""
    held = site.model.holders(sha256)
    if not held:
        raise NotThere(f"no file with SHA-256 {sha256} was loaded")
    runs = site.model.runs_by_id([run_id for run_id, _ in held])
    raw = [(run_id, item) for run_id, item in held if item.kind == "raw" and run_id in runs]
    title = (raw or held)[0][1].name
    found = _lineage(site, f"file:{sha256}", title)
    found.files = [
        RawFile(name=item.name, run_id=run_id, source=item.fact("source"), size=item.size) for run_id, item in raw
    ]
    data = [(run_id, item) for run_id, item in held if item.kind == "data" and run_id in runs]
    found.held_back = any(item.fact("held_back") for _, item in data)
    found.results = _results(site, data)
    return found


def _results(site: Site, data: list[tuple[str, Item]]) -> list[FileResult]:
    found: dict[str, FileResult] = {}
    for run_id, item in data:
        for user in site.model.users(f"run:{run_id}", "infer"):
            held = any(each.name == item.name for each in site.model.items(user.run_id, "result"))
            if held and user.status == "FINISHED":
                found[user.run_id] = FileResult(run=run_line(user), item=item.name)
    return sorted(found.values(), key=lambda each: -each.run.start)


def _lineage(site: Site, focus: str, title: str) -> Lineage:
    walk = _Walk(site, focus)
    walk.go(upstream=True)
    walk.go(upstream=False)
    nodes = walk.nodes()
    hrefs = {node.id: node.href for node in nodes}
    return Lineage(
        title=title,
        of=focus,
        href=hrefs.get(focus, ""),
        nodes=nodes,
        links=walk.links,
        cut=walk.cut,
        files=[],
        held_back=False,
        results=[],
    )


class _Walk:
    """Gathers what is around a node, breadth first, until there are too many to draw."""

    def __init__(self, site: Site, focus: str) -> None:
        self._site = site
        self._focus = focus
        self._known: dict[str, Node | None] = {focus: None}
        self.links: list[Link] = []
        self.cut = False

    def go(self, *, upstream: bool) -> None:
        """Follow all ways from the focus in one direction."""
        front, seen = [self._focus], {self._focus}
        while front:
            reached: list[str] = []
            for node in front:
                edges = self._site.model.sources(node) if upstream else self._site.model.targets(node)
                for group in _alike(self._site, edges, upstream=upstream):
                    reached += self._add(node, group, upstream=upstream)
            front = [node for node in dict.fromkeys(reached) if node not in seen]
            seen |= set(front)

    def _add(self, node: str, edges: list[Edge], *, upstream: bool) -> list[str]:
        """Draw the edges of one kind at a node, singly or as a group; returns the nodes to go on from."""
        ends = [edge.source if upstream else edge.target for edge in edges]
        fresh = [end for end in ends if end not in self._known]
        if len(fresh) > _MOST_ALIKE:
            group = f"group:{node}:{'up' if upstream else 'down'}:{edges[0].role}:{ends[0].partition(':')[0]}"
            self._known[group] = self._group(group, fresh, node)
            self._link(group, node, edges[0].role, upstream=upstream)
            known = [end for end in ends if end in self._known]
        else:
            known = ends
        if len(self._known) + len(known) > _MOST_NODES:
            self.cut = self.cut or any(end not in self._known for end in known)
            known = [end for end in known if end in self._known]
        for end in known:
            self._known.setdefault(end, None)
            role = next(edge.role for edge in edges if end in (edge.source, edge.target))
            self._link(end, node, role, upstream=upstream)
        return known

    def _link(self, end: str, node: str, role: str, *, upstream: bool) -> None:
        source, target = (end, node) if upstream else (node, end)
        if not any((link.source, link.target) == (source, target) for link in self.links):
            self.links.append(Link(source=source, target=target, role=role))

    def _group(self, ident: str, ends: list[str], node: str) -> Node:
        kind = ends[0].partition(":")[0]
        owner = node.removeprefix("run:") if node.startswith("run:") else ""
        if kind == "file":
            return Node(
                id=ident,
                kind="group",
                label=plural(len(ends), "raw file"),
                detail="with their checksums",
                href=f"runs/{owner}/files/raw",
            )
        task = (
            next((run.task for run in self._site.model.runs_by_id([ends[0][4:]]).values()), "") if kind == "run" else ""
        )
        label = plural(len(ends), f"run of {task}", f"runs of {task}") if task else plural(len(ends), "model version")
        return Node(
            id=ident, kind="group", label=label, detail="listed with the run", href=f"runs/{owner}" if owner else ""
        )

    def nodes(self) -> list[Node]:
        """What was gathered, with labels and addresses."""
        runs = self._site.model.runs_by_id([node[4:] for node in self._known if node.startswith("run:")])
        return [known or self._node(node, runs) for node, known in self._known.items()]

    def _node(self, node: str, runs: dict[str, Run]) -> Node:
        kind, _, name = node.partition(":")
        focus = node == self._focus
        if kind == "file":
            held = [item for _, item in self._site.model.holders(name) if item.kind == "raw"]
            label = held[0].name if held else short(name)
            return Node(id=node, kind="file", label=label, detail="raw file", href=f"lineage/file/{name}", focus=focus)
        if kind == "model":
            model, _, version = name.rpartition("/")
            known = self._site.model.model(model)
            found = known.version(int(version)) if known and version.isdecimal() else None
            detail = ", ".join(found.aliases) if found and found.aliases else "model version"
            href = f"models/{part(model)}/{version}" if found else ""
            return Node(id=node, kind="model", label=f"{model} {version}", detail=detail, href=href, focus=focus)
        run = runs.get(name)
        if run is None:
            return Node(
                id=node, kind="run", label=f"run {short(name)}", detail="not public, or gone", href="", focus=focus
            )
        href = f"results/{name}" if run.task == "infer" and run.status == "FINISHED" and not focus else f"runs/{name}"
        detail = f"{run.task or 'run'}, {day(run.start)}"
        if run.status != "FINISHED":
            detail = f"{run.task or 'run'}, {run.status.lower()}"
        return Node(id=node, kind="run", label=run.node, detail=detail, href=href, focus=focus)


def _alike(site: Site, edges: list[Edge], *, upstream: bool) -> list[list[Edge]]:
    """The edges by what is at their other end: kind, and the task of a run."""
    ends = {edge: edge.source if upstream else edge.target for edge in edges}
    tasks = site.model.tasks_of([end[4:] for end in ends.values() if end.startswith("run:")])
    groups: dict[tuple[str, str], list[Edge]] = defaultdict(list)
    for edge, end in ends.items():
        kind, _, name = end.partition(":")
        groups[kind, tasks.get(name, "") if kind == "run" else ""].append(edge)
    return list(groups.values())


add_page(router, "/lineage/run/{run_id}", of_run)
add_page(router, "/lineage/model/{name}/{number}", of_model)
add_page(router, "/lineage/file/{sha256}", of_file)
