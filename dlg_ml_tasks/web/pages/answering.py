"""How a page is answered: HTML for people, JSON for programs, both from one model; rendered once per state of the read model."""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel

from dlg_ml_tasks.web.drawing.bars import daily_bars
from dlg_ml_tasks.web.drawing.graph import draw
from dlg_ml_tasks.web.drawing.waterfall import waterfall_svg
from dlg_ml_tasks.web.pages import formatting
from dlg_ml_tasks.web.site import Site

TEMPLATES = Path(__file__).parent.parent / "templates"

_CACHED_BYTES = 32 << 20


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


class Rendered:
    """Bytes of pages by what they show. Thread safe, of bounded size; the least lately used go first."""

    def __init__(self, limit: int = _CACHED_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[Hashable, tuple[Hashable, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, state: Hashable) -> bytes | None:
        """What was kept under a key in this state."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] != state:
                return None
            self._kept.move_to_end(key)
            return found[1]

    def put(self, key: Hashable, state: Hashable, body: bytes) -> None:
        """Keep it, in the place of an earlier state's."""
        with self._lock:
            before = self._kept.pop(key, None)
            self._size += len(body) - (len(before[1]) if before else 0)
            self._kept[key] = (state, body)
            while self._size > self._limit:
                _, (_, gone) = self._kept.popitem(last=False)
                self._size -= len(gone)


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

    def answer(self, request: Request, key: Hashable, build: Callable[[], PageModel]) -> Response:
        """A page as HTML, or as JSON if that is what the request accepts first."""
        self._site.await_first_look()
        as_json = wants_json(request)
        fragment = request.headers.get("hx-request") == "true" and request.headers.get("hx-target", "").endswith(
            "#part"
        )
        origin = self.origin(request)
        whole_key = (key, as_json, fragment, origin)
        state = (self._site.generation, self._site.freshness.problems, self._site.freshness.complete)
        body = self._rendered.get(whole_key, state)
        if body is None:
            page = build()
            body = page.model_dump_json().encode() if as_json else self.render(page, request, fragment=fragment)
            self._rendered.put(whole_key, state, body)
        return conditional(request, body, "application/json" if as_json else "text/html; charset=utf-8")

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
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
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
    name = build.__name__

    def html(request: Request, **values: Any) -> Response:
        answerer: Answerer = request.app.state.answerer
        site: Site = request.app.state.site
        key = (name, *((each, str(value)) for each, value in sorted(values.items())))
        return answerer.answer(request, key, lambda: build(site, **values))

    def as_json(request: Request, **values: Any) -> Any:
        site: Site = request.app.state.site
        site.await_first_look()
        return build(site, **values)

    described = signature.replace(parameters=[request_parameter, *parameters], return_annotation=Response)
    html.__signature__ = described  # type: ignore[attr-defined]
    as_json.__signature__ = described.replace(return_annotation=signature.return_annotation)  # type: ignore[attr-defined]
    as_json.__doc__ = build.__doc__
    as_json.__name__ = name
    router.get(json_path or f"{path}.json", response_model=signature.return_annotation, responses=PROBLEMS)(as_json)
    router.get(path, include_in_schema=False, response_model=None)(html)


PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such thing, or it is not public."},
    503: {"description": "MLflow or the archive does not answer; see Retry-After."},
}
