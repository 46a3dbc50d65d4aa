"""A run's files as they are: whole or in part, streamed from the archive, with what lets a client resume them and keep them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from dlg_ml_tasks.web.pages.files import FilePath
from dlg_ml_tasks.web.pages.run import RunId
from dlg_ml_tasks.web.readmodel.records import Run
from dlg_ml_tasks.web.site import Site
from dlg_ml_tasks.web.sources.archive import ArchiveFile
from dlg_ml_tasks.web.sources.errors import NotThere
from dlg_ml_tasks.web.transfer.conditions import Validators, answer
from dlg_ml_tasks.web.transfer.content import content_headers
from dlg_ml_tasks.web.transfer.streaming import StreamedFile, Streams

router = APIRouter(tags=["Files"])

_KEPT_S = 600
"""Seconds for which a browser need not ask again: what a finished run left does not change, but may cease to be public."""

_BYTES: dict[str, Any] = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}

_PAGE: dict[str, Any] = {"content": {"text/html": {}, "application/json": {}}}


@router.get(
    "/files/{run_id}/{path:path}",
    response_class=Response,
    responses={
        200: {"description": "The file.", **_BYTES},
        206: {"description": "The part that Range asked for.", **_BYTES},
        404: {"description": "There is no such file, or it is not public.", **_PAGE},
        422: {"description": "The address is not right.", **_PAGE},
        429: {"description": "Too many requests or downloads of one address; see Retry-After.", **_PAGE},
        503: {"description": "MLflow or the archive does not answer; see Retry-After.", **_PAGE},
        304: {"description": "The client has it, by If-None-Match or If-Modified-Since."},
        412: {"description": "It is not the one that If-Match or If-Unmodified-Since asked for."},
        416: {"description": "The file has no such part."},
    },
)
async def download(request: Request, run_id: RunId, path: FilePath) -> Response:
    """A file of a run, as it is. Range and conditional requests are understood; its ETag is the archive's checksum."""
    site: Site = request.app.state.site
    streams: Streams = request.app.state.streams
    run, file = await run_in_threadpool(_find, site, run_id, path)
    validators = Validators(file.tag, file.modified)
    wanted = answer(request.headers, validators, file.size)
    headers = {**validators.headers(), "Accept-Ranges": "bytes", "Cache-Control": _keeping(run)}
    if wanted.status in (304, 412):
        return Response(None, wanted.status, headers)
    if wanted.status == 416:
        return Response(None, 416, {**headers, "Content-Range": f"bytes */{file.size}"})
    if wanted.status == 206:
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.end - 1}/{file.size}"
    return StreamedFile(
        streams,
        lambda start, end, write, move: site.archive.copy_range(run.location, file, start, end, write, move),
        wanted.start,
        wanted.end,
        status_code=wanted.status,
        headers={**headers, **content_headers(file.name)},
    )


def _find(site: Site, run_id: str, path: str) -> tuple[Run, ArchiveFile]:
    run = site.run(run_id)
    file = site.archive.find(run.location, path)
    if file.is_folder:
        raise NotThere(f"{path!r} is a folder")
    return run, file


def _keeping(run: Run) -> str:
    return f"max-age={_KEPT_S}" if run.end else "no-cache"
