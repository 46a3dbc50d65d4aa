"""Each page on real data, as a program sees it."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from typing import Any

import pytest

PAGES = ("/", "/models", "/runs")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_html_for_people_and_json_for_programs(site: Any, path: str) -> None:
    page = site.get(path, {"Accept": "text/html,*/*"})
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    asked = site.get(path, {"Accept": "application/json"})
    named = site.get("/overview.json" if path == "/" else f"{path}.json")
    assert asked.json == named.json


def test_the_overview_names_the_champion_and_the_latest_inferences(site: Any, story: Any) -> None:
    found = site.get("/overview.json").json
    [champion] = found["champions"]
    assert (champion["name"], champion["champion"]["version"]) == (story.model, 2)
    assert [each["run"]["run_id"] for each in found["inferences"]] == [story.runs["infer"], story.runs["infer-1"]]
    assert found["runs"] == 9
    assert sum(day["finished"] for day in found["activity"]) == 9
    assert story.model in site.get("/").text


def test_a_model_shows_its_versions_and_why_the_champion_is_the_champion(site: Any, story: Any) -> None:
    page = site.get(f"/models/{story.model}.json").json
    assert [version["version"] for version in page["versions"]] == [1, 2]
    [gate] = page["gates"]
    assert (gate["version"], gate["promoted"], gate["champion"]) == (2, True, f"models:/{story.model}/1")
    assert gate["scores"]["challenger_new"] > gate["scores"]["champion_new"]
    assert len(page["chart"]["curves"]) == 2
    shown = site.get(f"/models/{story.model}").text
    assert "Version 2 was promoted" in shown
    assert gate["reason"][1:] in shown


def test_a_version_tells_its_data_its_ancestors_and_its_uses(site: Any, story: Any) -> None:
    page = site.get(f"/models/{story.model}/2.json").json
    assert {(each["port"], each["run_id"]) for each in page["data"]} == {
        ("data", story.runs["preprocess-B"]),
        ("replay", story.runs["preprocess-A"]),
    }
    assert page["ancestors"] == [1]
    assert [run["run_id"] for run in page["inferences"]] == [story.runs["infer"]]
    assert site.get(f"/models/{story.model}/1.json").json["successors"] == [2]


def test_runs_are_filtered_by_task_session_state_and_date(site: Any, story: Any) -> None:
    def ids(query: str) -> set[str]:
        return {run["run_id"] for run in site.get(f"/runs.json?{query}").json["runs"]}

    assert ids("task=train") == {story.runs["train"]}
    assert set(story.runs.values()) < ids(f"session={story.session}")
    assert ids("state=FAILED") == set()
    assert ids("since=2999-01-01") == ids("until=1999-12-31") == set()
    assert len(ids("since=2000-01-01&until=2998-12-31")) == 10


def test_runs_are_paged_both_ways(site: Any) -> None:
    whole = [run["run_id"] for run in site.get("/runs.json").json["runs"]]
    pages, query = [], "?limit=4"
    while query:
        page = site.get(f"/runs.json{query}").json
        pages.append([run["run_id"] for run in page["runs"]])
        query = page["older"]
    assert [run for page in pages for run in page] == whole
    assert [len(page) for page in pages] == [4, 4, 2]
    back = site.get(f"/runs.json{page['newer']}").json
    assert [run["run_id"] for run in back["runs"]] == pages[1]


def test_a_run_shows_parameters_metrics_and_what_went_in_and_out(site: Any, story: Any) -> None:
    page = site.get(f"/runs/{story.runs['retrain']}.json").json
    assert page["params"]["recipe"] == "digits"
    assert {metric["name"] for metric in page["metrics"]} >= {"accuracy", "earlier_accuracy", "train_loss"}
    assert {(tie["port"], tie["name"]) for tie in page["inputs"]} == {
        ("data", "preprocess-B"),
        ("replay", "preprocess-A"),
        ("model", f"models:/{story.model}/1"),
    }
    assert page["outputs"][0]["href"] == f"models/{story.model}/2"
    curves = site.get(f"/runs/{story.runs['retrain']}/curves.json").json["charts"]
    assert [(chart["title"], chart["curves"][0]["x"]) for chart in curves] == [("train_loss", [1, 2])]


def test_a_session_lists_its_tasks(site: Any, story: Any) -> None:
    [session] = site.get("/runs.json?task=session").json["runs"]
    page = site.get(f"/runs/{session['run_id']}.json").json
    assert {task["run_id"] for task in page["tasks"]} == set(story.runs.values())


def test_a_page_the_client_has_is_not_sent_again(site: Any) -> None:
    first = site.get("/models")
    again = site.get("/models", {"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_what_is_not_there_is_a_page_that_says_so(site: Any) -> None:
    for path in ("/models/nobody", f"/runs/{'0' * 32}", "/no/such/page"):
        answer = site.get(path)
        assert answer.status == 404
        assert "Not found" in answer.text
        assert site.get(path, {"Accept": "application/json"}).json["status"] == 404
    assert site.get("/runs/not-an-id").status == 422


def test_what_is_not_tagged_public_does_not_exist(
    site: Any, archive: str, tracking_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracking_store}")
    client = MlflowClient()
    secret = client.create_experiment("not-for-everyone", artifact_location=f"{archive}/secret")
    run = client.create_run(secret, run_name="concealed-run").info.run_id
    client.create_registered_model("concealed-model")
    assert site.get(f"/runs/{run}").status == 404
    assert site.get("/models/concealed-model").status == 404
    assert "concealed" not in site.get("/runs").text + site.get("/models").text


def test_a_shared_link_is_readable(site: Any, story: Any) -> None:
    page = site.get(f"/models/{story.model}").text
    meta = {
        name: html.unescape(content)
        for name, content in re.findall(r'<meta (?:name|property)="([^"]+)" content="([^"]*)"', page)
    }
    assert meta["og:title"] == story.model
    assert meta["og:url"] == f"{site.url}/models/{story.model}"
    assert "champion is version 2" in meta["og:description"]


def test_the_site_loads_neither_mlflow_nor_machine_learning() -> None:
    program = "import sys, dlg_ml_tasks.web.server; print([m for m in ('mlflow', 'torch', 'lightning', 'dlg') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
