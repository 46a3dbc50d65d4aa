"""A run's files: folders to walk through, and each file shown in place as far as its kind allows."""

from __future__ import annotations

import posixpath
from typing import Annotated, ClassVar

from fastapi import APIRouter, Path
from pydantic import BaseModel

from dlg_ml_tasks.web.pages.answering import Crumb, PageModel, add_page
from dlg_ml_tasks.web.pages.formatting import path as quoted
from dlg_ml_tasks.web.pages.run import RunId
from dlg_ml_tasks.web.previews import Preview, preview
from dlg_ml_tasks.web.readmodel.records import Run
from dlg_ml_tasks.web.site import Site
from dlg_ml_tasks.web.sources.archive import ArchiveFile

router = APIRouter(tags=["Files"])

FilePath = Annotated[str, Path(description="Path among the run's files.", max_length=2000)]


class FileLine(BaseModel):
    """A file or folder in a folder; `size` in bytes, `checksum` as the archive has it (empty for none)."""

    name: str
    path: str
    is_folder: bool
    size: int
    checksum: str


class Files(PageModel):
    """A run's folder with what is in it, or a file of a run with a preview of it."""

    template: ClassVar[str] = "files.html"
    section: ClassVar[str] = "runs"

    run_id: str
    run_name: str
    path: str
    lines: list[FileLine]
    file: FileLine | None = None
    preview: Preview | None = None

    def page_title(self) -> str:
        return posixpath.basename(self.path) or "Files"

    def summary(self) -> str:
        return f"{self.path or 'Files'} of run {self.run_name}."

    def crumbs(self) -> list[Crumb]:
        found = [Crumb(name="Runs", href="runs"), Crumb(name=self.run_name, href=f"runs/{self.run_id}")]
        if self.path:
            found.append(Crumb(name="Files", href=f"runs/{self.run_id}/files"))
        parts = self.path.split("/")[:-1]
        return found + [
            Crumb(name=part, href=f"runs/{self.run_id}/files/{quoted('/'.join(parts[: number + 1]))}")
            for number, part in enumerate(parts)
        ]

    def picture(self) -> str:
        is_picture = self.preview is not None and self.preview.kind == "picture"
        return f"files/{self.run_id}/{quoted(self.path)}" if is_picture else ""


def folder(site: Site, run_id: RunId) -> Files:
    """The files and folders at the top of a run's artifacts."""
    run = site.run(run_id)
    return _folder(site, run, "")


def files(site: Site, run_id: RunId, path: FilePath) -> Files:
    """What is in a folder, or a file with a preview of it."""
    run = site.run(run_id)
    path = path.strip("/")
    found = site.archive.find(run.location, path)
    if found.is_folder:
        return _folder(site, run, path)
    shown = preview(found.name, found.size, lambda start, end: site.archive.read_range(run.location, found, start, end))
    return Files(run_id=run_id, run_name=run.node, path=path, lines=[], file=_line(found), preview=shown)


def _folder(site: Site, run: Run, path: str) -> Files:
    found = site.archive.list(run.location, path)
    lines = sorted(map(_line, found), key=lambda line: (not line.is_folder, line.name))
    return Files(run_id=run.run_id, run_name=run.node, path=path, lines=lines)


def _line(file: ArchiveFile) -> FileLine:
    return FileLine(
        name=file.name, path=file.path, is_folder=file.is_folder, size=file.size, checksum=file.checksum or ""
    )


add_page(router, "/runs/{run_id}/files/{path:path}", files)
add_page(router, "/runs/{run_id}/files", folder)
