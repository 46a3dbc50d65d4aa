"""A run's files as they are: bytes from the archive, handed on block by block."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from dlg_ml_tasks.web.pages.files import FilePath
from dlg_ml_tasks.web.pages.run import RunId
from dlg_ml_tasks.web.site import Site

router = APIRouter(tags=["Files"])

_BLOCK = 1 << 20
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}


@router.get("/files/{run_id}/{path:path}", response_class=StreamingResponse)
def download(request: Request, run_id: RunId, path: FilePath) -> StreamingResponse:
    """A file of a run."""
    site: Site = request.app.state.site
    run = site.run(run_id)
    file = site.archive.find(run.location, path)

    def blocks() -> Iterator[bytes]:
        for start in range(0, file.size, _BLOCK):
            yield site.archive.read_range(run.location, file, start, start + _BLOCK)

    suffix = f".{file.name.rpartition('.')[2].lower()}"
    headers = {"Content-Length": str(file.size), "ETag": f'"{file.checksum}"'}
    return StreamingResponse(blocks(), media_type=_TYPES.get(suffix, "application/octet-stream"), headers=headers)
