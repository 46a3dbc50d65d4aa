"""The web application: routes, errors without internals, security headers, static files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from dlg_ml_tasks.web.admission import Admission, Hosts, Rate, Refusal
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
from dlg_ml_tasks.web.transfer.streaming import Streams

_STATIC = Path(__file__).parent / "static"
_RETRY_AFTER_S = 10

_PAGES = (overview, results, models, files, downloads, run, runs, lineage, search, feed, interface, health)


def create_app(settings: Settings) -> FastAPI:
    """The application of one site; it begins to read when it is started."""
    site = Site(settings)
    streams = Streams() if settings.rate else Streams(most_of_one=None)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        site.start()
        try:
            yield
        finally:
            streams.stop()
            site.stop()

    app = _Guarded(
        settings,
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
    app.state.streams = streams
    for page in _PAGES:
        app.include_router(page.router, prefix=settings.prefix, responses=_REFUSALS)
        _answer_head(app, page.router, settings.prefix)
    app.mount(f"{settings.prefix}/static", StaticFiles(directory=_STATIC), name="static")
    app.add_exception_handler(NotThere, _not_there)
    app.add_exception_handler(SourceDown, _source_down)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)
    return app


class Problem(PageModel):
    """Why a page cannot be shown."""

    template: ClassVar[str] = "problem.html"

    status: int
    title: str
    detail: str

    def page_title(self) -> str:
        return self.title


_REFUSALS: dict[int | str, dict[str, Any]] = {
    422: {
        "model": Problem,
        "description": "The address is not right: an id, a number, a date or a text that cannot be.",
    },
    429: {"model": Problem, "description": "Too many requests from one address; see Retry-After."},
}


class _Guarded(FastAPI):
    """Lets requests in, and adds security headers, outside of everything that can fail: what FastAPI calls middleware does not see
    the answer to a bug."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(**options)
        self._settings = settings

    def build_middleware_stack(self) -> ASGIApp:
        """The application with what is around it."""
        settings = self._settings
        app = super().build_middleware_stack()
        app = Admission(app, Hosts(settings.names), Rate(settings.rate), _refused, settings.prefix)
        return SecurityHeaders(app, f"{settings.prefix}/static/")


def _answer_head(app: FastAPI, router: APIRouter, prefix: str) -> None:
    """Answer HEAD wherever GET is answered (RFC 9110, 9.1); the server leaves out the body."""
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    answered = {route.path for route in routes if "HEAD" in (route.methods or ())}
    for route in routes:
        if route.path not in answered:
            path = f"{prefix}{route.path}"
            app.add_api_route(path, route.endpoint, methods=["HEAD"], response_model=None, include_in_schema=False)


def _refused(request: Request, refusal: Refusal) -> Response:
    return _problem(request, refusal.status, refusal.title, refusal.detail, refusal.headers)


def _not_there(request: Request, error: Exception) -> Response:
    told = f"{_sentence(str(error))} It may have been deleted, or is not public."
    return _problem(request, 404, "Not found", told)


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
    titles = {
        404: "Not found",
        405: "This site can only be read",
        429: "Too many at once",
        503: "Too busy at the moment",
    }
    title = titles.get(error.status_code, "This does not work")
    detail = "There is no page at this address." if error.status_code == 404 else _sentence(str(error.detail))
    return _problem(request, error.status_code, title, detail, dict(error.headers or {}))


def _bug(request: Request, error: Exception) -> Response:
    return _problem(
        request, 500, "Something went wrong", "The fault is on this side; the operator finds it in the site's log."
    )


def _problem(
    request: Request, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    page = Problem(status=status, title=title, detail=detail)
    if wants_json(request) or request.url.path.endswith(".json"):
        return JSONResponse(page.model_dump(), status, {**(headers or {}), "Cache-Control": "no-store"})
    answerer: Answerer = request.app.state.answerer
    return Response(
        answerer.render(page, request),
        status,
        {**(headers or {}), "Cache-Control": "no-store"},
        HTML,
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""
