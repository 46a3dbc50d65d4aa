"""Search over the names of raw files, runs and models."""

from __future__ import annotations

from typing import Annotated, ClassVar

from fastapi import APIRouter, Query
from pydantic import BaseModel

from dlg_ml_tasks.web.pages.answering import PageModel, add_page
from dlg_ml_tasks.web.pages.formatting import part, short
from dlg_ml_tasks.web.site import Site

router = APIRouter(tags=["Search"])

_MOST = 100


class Found(BaseModel):
    """Something with the text in its name: a model, a run or a file; `href` is its page."""

    kind: str
    name: str
    href: str
    detail: str


class Search(PageModel):
    """What was found: models first, then files and runs, the newest first."""

    template: ClassVar[str] = "search.html"
    section: ClassVar[str] = "search"

    q: str
    found: list[Found]
    more: bool

    def page_title(self) -> str:
        return f"Search for {self.q}" if self.q else "Search"


def search(
    site: Site, q: Annotated[str, Query(max_length=200, description="Part of a name, any case.")] = ""
) -> Search:
    """Raw files, runs and models with a text in their names."""
    hits = site.model.search(q, _MOST + 1)
    found: dict[str, Found] = {}
    for hit in hits[:_MOST]:
        if hit.kind == "file":
            each = Found(
                kind="file", name=hit.text, href=f"lineage/file/{hit.target}", detail=f"SHA-256 {hit.target[:12]}…"
            )
        elif hit.kind == "model":
            each = Found(kind="model", name=hit.target, href=f"models/{part(hit.target)}", detail="")
        else:
            name = hit.text.removesuffix(hit.target).strip()
            each = Found(kind="run", name=name or short(hit.target), href=f"runs/{hit.target}", detail=hit.target)
        found.setdefault(each.href, each)
    return Search(q=q, found=list(found.values()), more=len(hits) > _MOST)


add_page(router, "/search", search)
