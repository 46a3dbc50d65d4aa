"""The web application: routes, errors without internals, security headers, static files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from dlg_ml_tasks.web.headers import SecurityHeaders
from dlg_ml_tasks.web.pages import (
    downloads,
    feed,
    files,
    health,
    interface,
    lineage,
    models,
    overview,
    results,
    run,
    runs,
    search,
)
from dlg_ml_tasks.web.pages.answering import HTML, Answerer, PageModel, wants_json
from dlg_ml_tasks.web.settings import Settings
from dlg_ml_tasks.web.site import Site
from dlg_ml_tasks.web.sources.errors import NotThere, SourceDown

_STATIC = Path(__file__).parent / "static"
_RETRY_AFTER_S = 10

_PAGES = (overview, results, models, files, downloads, run, runs, lineage, search, feed, interface, health)


def create_app(settings: Settings) -> FastAPI:
    """The application of one site; it begins to read when it is started."""
    site = Site(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        site.start()
        try:
            yield
        finally:
            site.stop()

    app = FastAPI(
        title=settings.title,
        version=version("dlg-ml-tasks"),
        summary="What was trained, what was inferred, from which raw files. Read only.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{settings.prefix}/openapi.json",
        redirect_slashes=False,
    )
    app.state.site = site
    app.state.answerer = Answerer(site)
    for page in _PAGES:
        app.include_router(page.router, prefix=settings.prefix)
    app.mount(f"{settings.prefix}/static", StaticFiles(directory=_STATIC), name="static")
    app.add_exception_handler(NotThere, _not_there)
    app.add_exception_handler(SourceDown, _source_down)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)
    app.add_middleware(SecurityHeaders)
    return app


class Problem(PageModel):
    """Why a page cannot be shown."""

    template: ClassVar[str] = "problem.html"

    status: int
    title: str
    detail: str

    def page_title(self) -> str:
        return self.title


def _not_there(request: Request, error: Exception) -> Response:
    return _problem(request, 404, "Not found", f"{_sentence(str(error))} It may have been deleted, or is not public.")


def _source_down(request: Request, error: Exception) -> Response:
    source = error.source if isinstance(error, SourceDown) else "a source"
    detail = f"{_sentence(f'{source} does not answer at the moment')} What was read before is still shown; try again in a while."
    return _problem(request, 503, "Not available at the moment", detail, {"Retry-After": str(_RETRY_AFTER_S)})


def _invalid(request: Request, error: Exception) -> Response:
    findings = error.errors() if isinstance(error, RequestValidationError) else []
    detail = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in findings)
    return _problem(request, 422, "This address is not right", _sentence(detail))


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for it
    titles = {404: "Not found", 405: "This site can only be read"}
    title = titles.get(error.status_code, "This does not work")
    detail = "There is no page at this address." if error.status_code == 404 else _sentence(str(error.detail))
    return _problem(request, error.status_code, title, detail, dict(error.headers or {}))


def _bug(request: Request, error: Exception) -> Response:
    return _problem(
        request, 500, "Something went wrong", "The fault is on this side; the operator finds it in the site's log."
    )


def _problem(request: Request, status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    page = Problem(status=status, title=title, detail=detail)
    if wants_json(request) or request.url.path.endswith(".json"):
        return JSONResponse(page.model_dump(), status, headers)
    answerer: Answerer = request.app.state.answerer
    return Response(
        answerer.render(page, request),
        status,
        {**(headers or {}), "Cache-Control": "no-store"},
        HTML,
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""
