"""The lifecycle on the real engine, MLflow server and archive, driven by the command line."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from dlg_ml_tasks.graphs.document import parameters_of, read_graph
from dlg_ml_tasks.graphs.override import override

pytestmark = pytest.mark.integration

GRAPHS = Path(__file__).parents[2] / "graphs"
DIGITS = ["--set", "recipe=digits", "--set", "model_name=digits", "--set", "infer.model=models:/digits@champion"]


def _json(stack: Callable[..., object], *arguments: str) -> dict[str, object]:
    return json.loads(stack(*arguments, "--json").stdout)


def _pid(home: Path, service: str) -> int:
    state = json.loads((home / "stack.json").read_text())
    return next(each["pid"] for each in state["services"] if each["name"] == service)


def test_the_demo_tells_the_whole_story_and_a_second_one_reuses_it(stack, home, tmp_path) -> None:
    first = stack("demo", "--recipe", "digits", "--keep", cwd=tmp_path)
    summary = json.loads((tmp_path / "demo-summary.json").read_text())
    assert {task["task"] for task in summary["tasks"]} == {
        "load_raw",
        "preprocess",
        "train",
        "retrain",
        "promote",
        "infer",
    }
    assert [task["name"] for task in summary["tasks"] if task["status"] != "FINISHED"] == []
    assert summary["metrics"]["promoted"]
    assert summary["metrics"]["B"]["after"] > summary["metrics"]["B"]["before"]
    champion = [v for v in summary["models"][0]["versions"] if "champion" in v["aliases"]]
    assert [v["version"] for v in champion] == [2]
    assert all(Path(picture).stat().st_size > 1000 for picture in summary["pictures"])
    assert summary["archive"]["files"] > 20
    assert "@champion" in first.stdout

    again = stack("demo", "--recipe", "digits", "--keep", cwd=tmp_path)
    second = json.loads((tmp_path / "demo-summary.json").read_text())
    assert all(task["reused"] for task in second["tasks"])
    assert {t["name"]: t["run_id"] for t in second["tasks"]} == {t["name"]: t["run_id"] for t in summary["tasks"]}
    assert "reused" in again.stdout


def test_a_killed_archive_loses_nothing(stack, home) -> None:
    graph = str(GRAPHS / "train.graph")
    settings = ["--set", "recipe=digits", "--set", "model_name=killed"]
    stack("run", graph, *settings)
    os.kill(_pid(home, "ngas"), signal.SIGKILL)
    psutil.wait_procs([p for p in psutil.process_iter() if p.pid == _pid(home, "ngas")], timeout=10)
    assert stack("status", check=False).returncode == 1
    stack("up")
    again = stack("run", graph, *settings)
    assert again.stdout.count("reused") >= 3
    assert [v["version"] for v in _json(stack, "models", "show", "killed")] == [1]


def test_a_failing_task_is_named_with_its_error_log_and_run(stack) -> None:
    done = stack(
        "run", str(GRAPHS / "train.graph"), *DIGITS[:4], "--set", "load_raw.sources=/no/such/*.npz", check=False
    )
    assert done.returncode == 1
    assert "/no/such/*.npz" in done.stderr
    assert "load-raw" in done.stderr or "load_raw" in done.stderr
    assert ".log" in done.stderr


def test_a_bad_graph_is_refused_node_by_node_before_anything_is_deployed(stack, tmp_path) -> None:
    graph = read_graph(GRAPHS / "lifecycle.graph")
    nodes = {node["name"]: node for node in graph["nodeDataArray"]}
    parameters_of(nodes["infer"])["dropclass"]["value"] = "dlg_ml_tasks.components.InfreApp"
    graph["linkDataArray"] = [link for link in graph["linkDataArray"] if link["to"] != nodes["preprocess-B"]["id"]]
    (tmp_path / "bad.graph").write_text(json.dumps(graph))
    before = _json(stack, "sessions", "list")
    settings = ["--set", "train.epochs=-1", "--set", "retrain.learning_rate=fast"]
    done = stack("run", str(tmp_path / "bad.graph"), *settings, check=False)
    assert done.returncode == 1
    for node, reason in {
        "infer": "unknown component 'dlg_ml_tasks.components.InfreApp'",
        "preprocess-B": "nothing is connected to its required port 'raw'",
        "train": "epochs",
        "retrain": "'fast'",
    }.items():
        assert re.search(rf"\b{node}: [^;]*{re.escape(reason)}", done.stderr), done.stderr
    assert _json(stack, "sessions", "list") == before


def test_the_translators_page_deploys_a_shipped_graph(stack, home) -> None:
    services = {each["name"]: each for each in json.loads((home / "stack.json").read_text())["services"]}
    translator, island = services["translator"]["url"].rstrip("/"), services["island"]
    graph = override(read_graph(GRAPHS / "load_preprocess.graph"), ["recipe=digits"])
    form = {
        "json_data": json.dumps(graph),
        "lg_name": "load_preprocess.graph",
        "algo": "metis",
        "num_par": 1,
        "num_islands": 1,
        "rmode": 0,
    }
    page = requests.post(f"{translator}/gen_pgt", data=form, timeout=30)
    pgt = re.search(r"load_preprocess\d+_pgt\.graph", page.text)
    assert pgt is not None, page.text[:500]
    port = island["ports"]["island"]
    query = {"pgt_id": pgt[0], "dlg_mgr_host": "127.0.0.1", "dlg_mgr_port": port, "dlg_mgr_deploy": "YES"}
    shown = requests.get(f"{translator}/gen_pg", params=query, timeout=60)
    session = re.search(r"sessionId=([\w.:-]+)", shown.url)
    assert session is not None, shown.url
    from dlg_ml_tasks.graphs.follow import follow
    from dlg_ml_tasks.graphs.island import Island

    result = follow(Island(f"127.0.0.1:{port}"), session[1])
    assert result.ok, result.reason


def test_tasks_run_one_by_one_without_the_engine(stack, tmp_path) -> None:
    raw, data = str(tmp_path / "raw.json"), str(tmp_path / "data.json")
    stack("task", "load-raw", "--recipe", "digits", "--sources", "sample:night-A", "--seed", "3", "--out", raw)
    stack("task", "preprocess", "--recipe", "digits", "--raw", raw, "--out", data)
    model = _json(stack, "task", "train", "--recipe", "digits", "--model-name", "cli", "--epochs", "1", "--data", data)
    assert model["reference"]["uri"] == "models:/cli/1"
    done = stack("task", "infer", "--recipe", "digits", "--model", "models:/cli@champion", "--data", data)
    assert "accuracy" in done.stdout


def test_bad_usage_ends_with_one_line_and_a_code(stack, tmp_path) -> None:
    done = stack("task", "preprocess", "--recipe", "digits", "--raw", str(tmp_path / "none.json"), check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "none.json" in done.stderr


def test_the_archive_is_reached_by_url(stack, home, tmp_path) -> None:
    services = {each["name"]: each for each in json.loads((home / "stack.json").read_text())["services"]}
    url = f"ngas://127.0.0.1:{services['ngas']['ports']['ngas']}/by-hand"
    text = "hello" * 20_000  # more than what the embedded server keeps in its catalogue
    (tmp_path / "x.txt").write_text(text)
    stack("ngas", "put", str(tmp_path / "x.txt"), f"{url}/x.txt")
    assert "x.txt" in stack("ngas", "ls", url).stdout
    stack("ngas", "get", f"{url}/x.txt", str(tmp_path / "y.txt"))
    assert (tmp_path / "y.txt").read_text() == text
    assert "1 of 1" in stack("ngas", "check", url).stdout
    [stored] = [path for path in (home / "ngas").rglob("*") if path.is_file() and path.read_bytes() == text.encode()]
    stored.chmod(0o644)
    stored.write_bytes(b"j" + text.encode()[1:])
    damaged = stack("ngas", "check", url, check=False)
    assert damaged.returncode == 1
    assert "damaged: /by-hand/x.txt" in damaged.stdout
    stack("ngas", "rm", f"{url}/x.txt")
    assert stack("ngas", "ls", f"{url}/x.txt", check=False).returncode == 1


def test_mlflow_gc_frees_the_bytes_of_a_deleted_run(stack, home) -> None:
    import subprocess
    import sys

    from mlflow import MlflowClient

    services = {each["name"]: each for each in json.loads((home / "stack.json").read_text())["services"]}
    outcome = _json(stack, "task", "load-raw", "--recipe", "digits", "--sources", "sample:night-A", "--seed", "9")
    client = MlflowClient(services["mlflow"]["url"])
    uri = client.get_run(outcome["run_id"]).info.artifact_uri
    client.delete_run(outcome["run_id"])
    database = f"sqlite:///{home}/mlflow/mlflow.db"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "mlflow",
            "gc",
            "--backend-store-uri",
            database,
            "--tracking-uri",
            database,
            "--run-ids",
            outcome["run_id"],
        ],
        check=True,
        capture_output=True,
    )
    assert stack("ngas", "ls", uri, check=False).returncode == 1
