"""The whole stack in containers, with the real NGAS and with the embedded archive. The tests of one stack build on each other."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from tests.deploy.conftest import Deployment

pytestmark = pytest.mark.deploy

TOP = Path(__file__).parents[2]
DIGITS = ("--set", "recipe=digits", "--set", "model_name=digits")
LIFECYCLE = ("run", str(TOP / "graphs/lifecycle.graph"), *DIGITS, "--set", "infer.model=models:/digits@champion")
KILLED = ("dlg-nm1", "dlg-nm2", "dlg-dim", "dlg-tm", "mlflow", "postgres", "archive")


def states(deployment: Deployment, session: str) -> dict[str, str]:
    shown = deployment.dlg_ml("sessions", "show", session, "--json", check=False)
    return {task["node"]: task["state"] for task in json.loads(shown.stdout)["tasks"]}


def newest_session(deployment: Deployment) -> str:
    return str(json.loads(deployment.dlg_ml("sessions", "list", "--json").stdout)[0]["session"])


def models(deployment: Deployment) -> list[dict[str, object]]:
    return list(json.loads(deployment.dlg_ml("models", "list", "--json").stdout))


def test_every_port_is_on_loopback_and_no_process_is_root(deployment: Deployment) -> None:
    for service in deployment.services:
        container = deployment.container(service)
        for bindings in container.ports.values():
            assert all(binding["HostIp"] == "127.0.0.1" for binding in bindings or [])
        users = {process[1] for process in container.top(ps_args="-eo pid,uid")["Processes"]}
        assert "0" not in users, f"{service} runs as {users}"
        assert container.attrs["HostConfig"]["ReadonlyRootfs"]


def test_no_secret_is_to_be_seen_from_outside(deployment: Deployment) -> None:
    password = Path(deployment.environment["POSTGRES_PASSWORD_PATH"]).read_text().strip()
    for service in deployment.services:
        container = deployment.container(service)
        assert password not in json.dumps(container.attrs)
        assert password not in json.dumps(container.top(ps_args="-eo pid,args"))
        assert password not in container.logs().decode(errors="replace")
    inside = deployment.compose("exec", "-T", "mlflow", "sh", "-c", "cat /proc/[0-9]*/environ").stdout
    assert password not in inside


def test_the_lifecycle_runs_from_the_host_and_everything_can_be_looked_at(deployment: Deployment) -> None:
    done = deployment.dlg_ml(*LIFECYCLE)
    assert "finished" in done.stdout
    assert [model["version"] for model in models(deployment)]
    assert "digits" in deployment.dlg_ml("models", "list").stdout
    session = newest_session(deployment)
    assert set(states(deployment, session).values()) == {"finished"}
    # The whole log of an ended task is an artifact, which the host reads from the archive by the name that only containers know.
    assert deployment.dlg_ml("sessions", "logs", session, "train").stdout.strip()
    assert deployment.dlg_ml("ngas", "ls", "ngas://ngas:7777/mlflow").stdout.strip()


def test_both_node_managers_work(deployment: Deployment) -> None:
    for node in ("dlg-nm1", "dlg-nm2"):
        answer = deployment.compose(*("exec", "-T", "dlg-dim", "python", "/opt/health.py", "node", f"{node}:8000"))
        assert answer.returncode == 0
        sessions = deployment.compose("exec", "-T", node, "ls", "/var/lib/dlg/workspace").stdout.split()
        assert sessions, f"no session has been on {node}"


def test_a_client_without_the_plugin_gets_artifacts_through_the_server(deployment: Deployment) -> None:
    url = f"http://127.0.0.1:{deployment.ports['MLFLOW']}/api/2.0/mlflow-artifacts/artifacts"
    path = f"through-the-server-{time.time_ns()}.txt"
    requests.put(f"{url}/{path}", data=b"by way of MLflow", timeout=60).raise_for_status()
    assert requests.get(f"{url}/{path}", timeout=60).content == b"by way of MLflow"


def test_a_graph_is_deployed_from_the_translators_page(deployment: Deployment, tmp_path: Path, chromium: str) -> None:
    page_file = tmp_path / "send.html"
    graph = str(TOP / "graphs/load_preprocess.graph")
    deployment.dlg_ml("graphs", "open", graph, "--set", "recipe=digits", "--out", str(page_file))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        context.route("https://**", lambda route: route.abort())
        page = context.new_page()
        page.goto(page_file.as_uri())
        page.wait_for_url("**/gen_pgt")
        deploy = page.locator("#activeDeployMethodButton")
        expect(deploy).to_have_class(re.compile("activeDeployMethodButtonOnline"), timeout=60_000)
        with context.expect_page() as opened:
            deploy.click()
        session = opened.value
        session.wait_for_url("**/session?sessionId=load_preprocess*")
        expect(session.get_by_text("Finished")).to_be_visible(timeout=300_000)
        browser.close()


def test_results_site_answers(deployment: Deployment) -> None:
    answer = requests.get(f"http://127.0.0.1:{deployment.ports['RESULTS']}/health", timeout=30)
    assert answer.status_code == 200


def test_down_and_up_again_loses_nothing_and_the_graph_reuses_every_task(deployment: Deployment) -> None:
    before = models(deployment)
    deployment.down()
    deployment.up()
    assert models(deployment) == before
    deployment.dlg_ml(*LIFECYCLE)
    assert set(states(deployment, newest_session(deployment)).values()) == {"reused"}
    assert models(deployment) == before


@pytest.mark.parametrize("service", KILLED)
def test_a_killed_container_comes_back_and_the_run_ends_right_or_goes_on(deployment: Deployment, service: str) -> None:
    name = {"default": "ngas", "embedded": "ngas-embedded"}[deployment.profile] if service == "archive" else service
    # A seed for each, so that nothing is reused; long enough to be killed in.
    own = ("--set", "train.epochs=40", "--set", f"train.seed={KILLED.index(service) + 1}")
    graph = ("run", str(TOP / "graphs/train.graph"), *DIGITS, *own)
    session = deployment.dlg_ml(*graph, "--detach").stdout.strip()
    deadline = time.monotonic() + 180
    while states(deployment, session).get("train") != "running":
        assert time.monotonic() < deadline, states(deployment, session)
        time.sleep(1)
    deployment.crash(name)
    deployment.wait_healthy(name)
    deployment.wait_healthy("dlg-dim")
    ended = deployment.dlg_ml("sessions", "show", session, "--follow", check=False)
    if ended.returncode != 0:
        assert ended.stderr.strip() or "forgotten" in ended.stdout
        deployment.dlg_ml(*graph)
    assert set(states(deployment, newest_session(deployment)).values()) <= {"finished", "reused"}


def test_a_backup_is_restored_into_an_empty_stack_and_everything_is_there(
    deployment: Deployment, tmp_path: Path
) -> None:
    before = models(deployment)
    folder = tmp_path / "backups" / "new"
    deployment.dlg_ml("backup", str(folder))
    assert folder.owner() == tmp_path.owner()
    assert deployment.dlg_ml("backup", "--verify", str(folder)).returncode == 0
    again = deployment.dlg_ml("backup", str(folder), check=False)
    assert (again.returncode, "is not empty" in again.stderr) == (1, True)
    full = deployment.dlg_ml("restore", str(folder), check=False)
    assert (full.returncode, "is in use" in full.stderr) == (1, True)
    # MLflow was stopped for that, and works again.
    assert models(deployment) == before
    deployment.down(volumes=True)
    deployment.up()
    assert models(deployment) == []
    deployment.dlg_ml("restore", str(folder))
    assert models(deployment) == before
    deployment.dlg_ml(*LIFECYCLE)
    assert set(states(deployment, newest_session(deployment)).values()) == {"reused"}
