"""An Atom feed of new results and of new champions' versions, for readers and for programs that wait for something."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dlg_ml_tasks.web.pages.answering import Answerer, conditional
from dlg_ml_tasks.web.pages.formatting import number, part, utc
from dlg_ml_tasks.web.pages.parts import run_line
from dlg_ml_tasks.web.readmodel.reading import RunFilter
from dlg_ml_tasks.web.site import Site

router = APIRouter(tags=["Feed"])

_ENTRIES = 30


@router.get("/feed.atom", response_class=Response, responses={200: {"content": {"application/atom+xml": {}}}})
def feed(request: Request) -> Response:
    """New inferences and model versions as an Atom feed (RFC 4287), newest first."""
    site: Site = request.app.state.site
    answerer: Answerer = request.app.state.answerer
    site.await_look()
    origin = answerer.origin(request)
    entries = sorted((*_inferences(site, origin), *_versions(site, origin)), reverse=True)[:_ENTRIES]
    updated = utc(entries[0][0] if entries else 0)
    body = (
        '<?xml version="1.0" encoding="utf-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">'
        f"<title>{escape(site.settings.title)}</title><id>{escape(origin)}/</id>"
        f"<updated>{updated.strftime('%Y-%m-%dT%H:%M:%SZ')}</updated>"
        f'<link rel="self" href={quoteattr(f"{origin}/feed.atom")}/><link href={quoteattr(f"{origin}/")}/>'
        f"<author><name>{escape(site.settings.title)}</name></author>{''.join(text for _, text in entries)}</feed>\n"
    )
    return conditional(request, body.encode(), "application/atom+xml")


def _inferences(site: Site, origin: str) -> list[tuple[int, str]]:
    runs = site.model.page(RunFilter(task="infer", status="FINISHED"), _ENTRIES).runs
    found = []
    for run in runs:
        line = run_line(run)
        told = f"{run.model.removeprefix('models:/').replace('/', ' version ')} was applied"
        if line.headline:
            told += f": {line.headline.name} {number(line.headline.value)}"
        found.append(_entry(run.end or run.start, f"Result: {line.name}", f"{origin}/results/{run.run_id}", told))
    return found


def _versions(site: Site, origin: str) -> list[tuple[int, str]]:
    return [
        _entry(
            version.created,
            f"Model {version.name} version {version.version}",
            f"{origin}/models/{part(version.name)}/{version.version}",
            f"Registered{f', retrained from {version.retrained_from}' if version.retrained_from else ''}",
        )
        for model in site.model.models()
        for version in model.versions
    ]


def _entry(when: int, title: str, href: str, told: str) -> tuple[int, str]:
    return when, (
        f"<entry><title>{escape(title)}</title><id>{escape(href)}</id><link href={quoteattr(href)}/>"
        f"<updated>{utc(when).strftime('%Y-%m-%dT%H:%M:%SZ')}</updated><summary>{escape(told)}.</summary></entry>"
    )
