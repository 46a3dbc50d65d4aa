"""Whether the site works, for whoever watches over it."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from dlg_ml_tasks.web.site import Site

router = APIRouter(tags=["Health"])


class Health(BaseModel):
    """`status` is ok while pages are served, whatever is down behind them: `problems` says what.

    `asked` is when MLflow answered last, in seconds since 1970; `complete` says whether all runs were read at least once.
    """

    status: Literal["ok"]
    problems: list[str]
    asked: float | None
    complete: bool


@router.get("/health")
async def health(request: Request) -> Health:
    """Whether the site works, and what is down behind it."""
    site: Site = request.app.state.site
    found = site.freshness
    return Health(status="ok", problems=list(found.problems), asked=found.asked, complete=found.complete)
