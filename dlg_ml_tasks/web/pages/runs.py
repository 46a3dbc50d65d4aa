"""The list of runs: filtered by task, session, state and date, in pages that stay cheap however many runs there are."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator

from dlg_ml_tasks.web.pages.answering import PageModel, add_page
from dlg_ml_tasks.web.pages.parts import RunLine, run_line
from dlg_ml_tasks.web.readmodel.reading import Place, RunFilter
from dlg_ml_tasks.web.site import Site

router = APIRouter(tags=["Runs"])

_SESSIONS_OFFERED = 50

State = Literal["FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED", ""]
Day = Annotated[date | None, BeforeValidator(lambda text: text or None)]
_PLACE = r"^(\d{1,15}-[0-9a-zA-Z_-]{1,64})?$"


class Chosen(BaseModel):
    """The filters that are set; empty ones do not restrict."""

    task: str
    session: str
    state: str
    since: date | None
    until: date | None

    def query(self, **more: str) -> str:
        """As a query string that begins with ``?``, or empty."""
        chosen = {name: str(value) for name, value in self if value} | more
        return f"?{urlencode(chosen)}" if chosen else ""


class Runs(PageModel):
    """A page of the runs that pass the filters, newest first; `older` and `newer` are the queries of the neighbouring pages."""

    template: ClassVar[str] = "runs.html"
    section: ClassVar[str] = "runs"

    chosen: Chosen
    runs: list[RunLine]
    total: int
    complete: bool
    newer: str
    older: str
    tasks: list[str]
    sessions: list[str]

    def page_title(self) -> str:
        return "Runs"

    def summary(self) -> str:
        return f"{self.total} runs of tasks: state, duration, metrics."


def runs(
    site: Site,
    task: Annotated[str, Query(max_length=100, description="Name of a task, or session for graph sessions.")] = "",
    session: Annotated[str, Query(max_length=500, description="Name of a graph session.")] = "",
    state: Annotated[State, Query(description="State of the runs.")] = "",
    since: Annotated[Day, Query(description="First day of their start (UTC).")] = None,
    until: Annotated[Day, Query(description="Last day of their start (UTC).")] = None,
    after: Annotated[str, Query(pattern=_PLACE, description="Show what is older than this place.")] = "",
    before: Annotated[str, Query(pattern=_PLACE, description="Show what is newer than this place.")] = "",
    limit: Annotated[int, Query(ge=1, le=200, description="Runs a page.")] = 50,
) -> Runs:
    """The runs that pass the filters, newest first, a page at a time."""
    chosen = Chosen(task=task, session=session, state=state, since=since, until=until)
    wanted = RunFilter(
        task=task,
        session=session,
        status=state,
        since=_milliseconds(since) if since else None,
        until=_milliseconds(until + timedelta(days=1)) if until and until < date.max else None,
    )
    page = site.model.page(
        wanted, limit, after=Place.parse(after) if after else None, before=Place.parse(before) if before else None
    )
    more = {"limit": str(limit)} if limit != 50 else {}
    return Runs(
        chosen=chosen,
        runs=[run_line(run) for run in page.runs],
        total=site.once(wanted, lambda: site.model.count(wanted)),
        complete=site.freshness.complete,
        newer=chosen.query(before=str(page.newer), **more) if page.newer else "",
        older=chosen.query(after=str(page.older), **more) if page.older else "",
        tasks=site.once("tasks", site.model.tasks),
        sessions=site.once("sessions", lambda: [run.session for run in site.model.sessions(_SESSIONS_OFFERED)]),
    )


def _milliseconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp() * 1000)


add_page(router, "/runs", runs)
