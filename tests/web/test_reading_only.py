"""Nothing that the site can do writes: not a route, not a call to MLflow, not a command to the archive."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from dlg_ml_tasks.archive.connection import Connection
from dlg_ml_tasks.web.app import _PAGES, create_app
from dlg_ml_tasks.web.settings import Settings
from dlg_ml_tasks.web.sources.archive import ArchiveReader
from dlg_ml_tasks.web.sources.mlflow import READS, MlflowReader


def test_no_route_takes_anything_but_reads(tmp_path: Path) -> None:
    routes = [route for page in _PAGES for route in page.router.routes]
    assert len(routes) > 40
    for route in routes:
        assert isinstance(route, Route)
        assert route.methods is not None
        assert route.methods <= {"GET", "HEAD"}, route.path
    documented = create_app(Settings(tracking_uri="http://127.0.0.1:9", cache=tmp_path)).openapi()["paths"]
    assert {method for methods in documented.values() for method in methods} == {"get"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_other_methods_are_refused(site: Any, method: str) -> None:
    for path in ("/", "/runs", "/models/x", "/static/site.css", "/health"):
        assert site.get(path, method=method).status == 405, path


def test_every_call_to_mlflow_is_a_search_or_a_get() -> None:
    assert all(call.endswith("/search") for method, call in READS if method == "POST")
    assert all(re.search(r"(/search|/get|/get-history)$", call) for method, call in READS if method == "GET")
    assert {method for method, _ in READS} == {"GET", "POST"}


@pytest.mark.parametrize(
    ("method", "call"), [("POST", "runs/create"), ("DELETE", "logged-models/m-1"), ("POST", "runs/get")]
)
def test_any_other_call_to_mlflow_is_impossible(method: str, call: str) -> None:
    with pytest.raises(AssertionError, match="none of the calls that read"):
        MlflowReader("http://127.0.0.1:9")._call(method, call, {})


def test_the_archive_sees_only_commands_that_read(site: Any, story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    exchange = Connection.exchange

    def noting(self: Connection, command: str, *arguments: Any, **options: Any) -> Any:
        seen.add(command)
        return exchange(self, command, *arguments, **options)

    monkeypatch.setattr(Connection, "exchange", noting)
    reader = ArchiveReader()
    location = story.location(story.runs["infer"])
    [picture, *_] = [
        each for each in reader.list(location, "results/digits.A.4.heldback.npz") if each.name.endswith(".png")
    ]
    blocks: list[bytes] = []
    reader.copy_range(location, picture, 0, picture.size, blocks.append)
    assert (
        b"".join(blocks)
        == reader.read(location, picture.path, 1 << 20)
        == reader.read_range(location, picture, 0, 1 << 20)
    )
    assert reader.find(location, picture.path).checksum == picture.checksum
    assert reader.size(location)[0] > 20
    assert seen == {"STATUS", "QUERY", "RETRIEVE"}


def test_a_visit_to_every_page_leaves_mlflow_as_it_was(site: Any, story: Any, tracking_store: Path) -> None:
    def state() -> dict[str, int]:
        with sqlite3.connect(f"file:{tracking_store}?mode=ro", uri=True) as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}

    before = state()
    infer = story.runs["infer"]
    for path in (
        "/",
        "/models",
        f"/models/{story.model}/2",
        "/runs",
        f"/runs/{infer}",
        f"/results/{infer}",
        f"/lineage/run/{infer}",
    ):
        assert site.get(path).status == 200
    assert state() == before
