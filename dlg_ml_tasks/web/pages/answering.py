"""How a page is answered: HTML for people, JSON for programs, both from one model; rendered once per state of the read model."""

from __future__ import annotations

import hashlib
import inspect
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from weakref import WeakValueDictionary

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel

from dlg_ml_tasks.web.drawing.bars import daily_bars
from dlg_ml_tasks.web.drawing.graph import draw
from dlg_ml_tasks.web.drawing.waterfall import waterfall_svg
from dlg_ml_tasks.web.pages import formatting
from dlg_ml_tasks.web.site import Site

TEMPLATES = Path(__file__).parent.parent / "templates"

HTML = "text/html; charset=utf-8"

_CACHED_BYTES = 24 << 20


class Crumb(BaseModel):
    """A step of the way from the overview to a page."""

    name: str
    href: str


class PageModel(BaseModel):
    """What a page shows. Subclasses name their template; the three methods are for people's eyes only."""

    template: ClassVar[str]
    section: ClassVar[str] = ""

    def page_title(self) -> str:
        """The title, most particular first."""
        raise NotImplementedError

    def summary(self) -> str:
        """One sentence for search engines and the cards of shared links."""
        return self.page_title()

    def crumbs(self) -> list[Crumb]:
        """The way to the page, without the overview and the page itself."""
        return []

    def picture(self) -> str:
        """Path of a picture for the cards of shared links; empty for none."""
        return ""


class Kept(NamedTuple):
    """A rendered page: the state of the site that it shows, its bytes and their ETag."""

    state: Hashable
    body: bytes
    etag: str


class Rendered:
    """Rendered pages by what they show. Thread safe, of bounded size; the least lately used go first."""

    def __init__(self, limit: int = _CACHED_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._making: WeakValueDictionary[Hashable, _Making] = WeakValueDictionary()

    def get(self, key: Hashable) -> Kept | None:
        """What was kept under a key, of whatever state."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: Hashable, kept: Kept) -> None:
        """Keep it, in the place of an earlier state's."""
        with self._lock:
            before = self._kept.pop(key, None)
            self._size += len(kept.body) - (len(before.body) if before else 0)
            self._kept[key] = kept
            while self._size > self._limit:
                _, gone = self._kept.popitem(last=False)
                self._size -= len(gone.body)

    def making(self, key: Hashable) -> _Making:
        """What whoever makes the page of a key holds meanwhile, so that many who ask for it at once wait for one."""
        with self._lock:
            return self._making.setdefault(key, _Making())


class _Making:
    """A lock that a WeakValueDictionary can hold."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Answerer:
    """Makes responses of page models."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rendered = Rendered()
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters.update(formatting.FILTERS)
        self._environment.globals.update(
            prefix=site.settings.prefix,
            site_title=site.settings.title,
            plural=formatting.plural,
            asset=_Assets(),
            bars=daily_bars,
            draw=draw,
            waterfall_svg=waterfall_svg,
        )
        for name in self._environment.list_templates():
            self._environment.get_template(name)  # compiled before anybody waits for it

    async def answer(
        self, request: Request, key: Hashable, build: Callable[[], PageModel], *, as_json: bool
    ) -> Response:
        """A page as HTML or JSON, made anew only if something has changed since it was made last."""
        fragment = _is_part(request) and not as_json
        whole_key = (key, as_json, fragment, self.origin(request))
        kept = self._rendered.get(whole_key)
        if not self._site.attended() or kept is None or kept.state != self._state():

            def make() -> bytes:
                page = build()
                return page.model_dump_json().encode() if as_json else self.render(page, request, fragment=fragment)

            kept = await run_in_threadpool(self._made, whole_key, make)
        return _conditional(request, kept.body, kept.etag, "application/json" if as_json else HTML)

    def _made(self, key: Hashable, make: Callable[[], bytes]) -> Kept:
        """Make a page, or wait for whoever makes it already; an earlier state's is good enough meanwhile."""
        self._site.await_look()
        lock = self._rendered.making(key).lock
        if not lock.acquire(blocking=False):
            stale = self._rendered.get(key)
            if stale is not None:
                return stale
            lock.acquire()
        try:
            state, kept = self._state(), self._rendered.get(key)
            if kept is None or kept.state != state:
                body = make()
                kept = Kept(state, body, etag_of(body))
                self._rendered.put(key, kept)
            return kept
        finally:
            lock.release()

    def _state(self) -> Hashable:
        fresh = self._site.freshness
        # The hour, because a page may show the last days.
        return (self._site.generation, fresh.ready, fresh.complete, fresh.problems, int(time.time() // 3600))

    def render(self, page: PageModel, request: Request, *, fragment: bool = False) -> bytes:
        """A page as HTML; as a fragment, only the part that changes with its filters."""
        template = self._environment.get_template(page.template)
        context = template.new_context(
            {
                "page": page,
                "here": request.url.path,
                "origin": self.origin(request),
                "freshness": self._site.freshness,
            }
        )
        if fragment and "part" in template.blocks:
            return "".join(template.blocks["part"](context)).encode()
        return "".join(template.root_render_func(context)).encode()

    def origin(self, request: Request) -> str:
        """The site's address as others see it, for links that leave it."""
        return self._site.settings.url or f"{request.url.scheme}://{request.url.netloc}"


class _Assets:
    """Addresses of static files with a mark of their content, so that browsers may keep them for ever."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        if name not in self._marks:
            content = (Path(__file__).parent.parent / "static" / name).read_bytes()
            self._marks[name] = hashlib.sha256(content).hexdigest()[:12]
        return f"static/{name}?v={self._marks[name]}"


def wants_json(request: Request) -> bool:
    """Whether a program asked: JSON stands before HTML in what it accepts."""
    accept = request.headers.get("accept", "")
    json_at, html_at = accept.find("application/json"), accept.find("text/html")
    return json_at >= 0 and (html_at < 0 or json_at < html_at)


def conditional(request: Request, body: bytes, media_type: str) -> Response:
    """The body with its ETag, or 304 if the client has it."""
    return _conditional(request, body, etag_of(body), media_type)


def etag_of(body: bytes) -> str:
    """An ETag that says what the bytes are."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _is_part(request: Request) -> bool:
    """Whether htmx asks for the part of a page that changes with its filters."""
    return request.headers.get("hx-request") == "true" and request.headers.get("hx-target", "").endswith("#part")


def _conditional(request: Request, body: bytes, etag: str, media_type: str) -> Response:
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept, HX-Request, HX-Target"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def add_page(router: APIRouter, path: str, build: Callable[..., PageModel], *, json_path: str = "") -> None:
    """Serve what `build` makes at `path` as HTML (or JSON, by Accept), and at `path`.json as JSON.

    `build` takes a Site first; its other parameters are the page's path and query parameters.
    """
    signature = inspect.signature(build, eval_str=True)
    _, *parameters = signature.parameters.values()
    request_parameter = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)

    async def answer(request: Request, values: dict[str, Any], *, as_json: bool) -> Response:
        answerer: Answerer = request.app.state.answerer
        site: Site = request.app.state.site
        key = (build, *((name, str(value)) for name, value in sorted(values.items())))
        return await answerer.answer(request, key, lambda: build(site, **values), as_json=as_json)

    async def html(request: Request, **values: Any) -> Response:
        return await answer(request, values, as_json=wants_json(request))

    async def json(request: Request, **values: Any) -> Response:
        return await answer(request, values, as_json=True)

    described = signature.replace(parameters=[request_parameter, *parameters], return_annotation=Response)
    for route in (html, json):
        route.__signature__ = described  # type: ignore[attr-defined]
    json.__doc__, json.__name__ = build.__doc__, build.__name__
    router.get(json_path or f"{path}.json", response_model=signature.return_annotation, responses=PROBLEMS)(json)
    router.head(json_path or f"{path}.json", include_in_schema=False, response_model=None)(json)
    router.api_route(path, methods=["GET", "HEAD"], include_in_schema=False, response_model=None)(html)


PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such thing, or it is not public."},
    503: {"description": "MLflow or the archive does not answer; see Retry-After."},
}
