"""A graph goes through the translator's own page in a real browser, Deploy button included."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dlg_ml_tasks.graphs import handover
from dlg_ml_tasks.graphs.document import parameters_of, read_graph
from dlg_ml_tasks.graphs.override import override

pytestmark = pytest.mark.integration

GRAPHS = Path(__file__).parents[2] / "graphs"
ARTIFACTS = Path(__file__).parents[2] / "build" / "test-artifacts"
DIGITS = ("--set", "recipe=digits")
SECONDS = 1000
ALIVE = re.compile("activeDeployMethodButtonOnline")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    # The page asks a content network for one of its charts; whether it answers must not matter.
    context.route("https://**", lambda route: route.abort())
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    yield context.new_page()
    context.close()


@pytest.fixture
def services(stack: Callable[..., object], home: Path) -> dict[str, str]:
    """The URLs of the running stack's services."""
    state = json.loads((home / "stack.json").read_text())
    return {each["name"]: each["url"].rstrip("/") for each in state["services"]}


def open_in_translator(page: Page, stack: Callable[..., object], graph: Path, out: Path, *settings: str) -> None:
    """As a user does: the command makes the page that sends the graph, and a browser opens it."""
    stack("graphs", "open", str(graph), *settings, "--out", str(out))
    page.goto(out.as_uri())
    page.wait_for_url("**/gen_pgt")


def test_a_graph_is_deployed_from_the_page_and_its_session_turns_green(
    page: Page, stack: Callable[..., object], tmp_path: Path
) -> None:
    open_in_translator(page, stack, GRAPHS / "load_preprocess.graph", tmp_path / "send.html", *DIGITS)
    expect(page.locator("g.node")).to_have_count(4)
    page.screenshot(path=ARTIFACTS / "translator.png")
    deploy = page.locator("#activeDeployMethodButton")
    expect(deploy).to_have_class(ALIVE, timeout=20 * SECONDS)
    with page.context.expect_page() as opened:
        deploy.click()
    session = opened.value
    session.wait_for_url("**/session?sessionId=load_preprocess*")
    expect(session.get_by_text("Finished")).to_be_visible(timeout=120 * SECONDS)
    session.screenshot(path=ARTIFACTS / "session.png")


def test_a_bad_graph_that_is_deployed_from_the_page_fails_at_once_with_the_reason(
    page: Page, stack: Callable[..., Any], services: dict[str, str], tmp_path: Path
) -> None:
    graph = override(read_graph(GRAPHS / "train.graph"), ["recipe=digits", "train.epochs=-1"])
    nodes = {node["name"]: node for node in graph["nodeDataArray"]}
    parameters_of(nodes["preprocess"])["dropclass"]["value"] = "dlg_ml_tasks.components.NoSuchApp"
    # The command checks; EAGLE, which posts this form, does not.
    (tmp_path / "send.html").write_text(handover.page(graph, "bad.graph", services["translator"], 1))
    page.goto((tmp_path / "send.html").as_uri())
    page.wait_for_url("**/gen_pgt")
    deploy = page.locator("#activeDeployMethodButton")
    expect(deploy).to_have_class(ALIVE, timeout=20 * SECONDS)
    with page.context.expect_page() as opened:
        deploy.click()
    session = opened.value
    session.wait_for_url("**/session?sessionId=bad*")
    expect(session.get_by_text("Failed")).to_be_visible(timeout=60 * SECONDS)
    session.screenshot(path=ARTIFACTS / "session-of-a-bad-graph.png")
    said = stack("sessions", "show", session.url.partition("sessionId=")[2], check=False)
    assert said.returncode == 1
    assert "preprocess: unknown component 'dlg_ml_tasks.components.NoSuchApp'" in said.stderr
    assert re.search("train: .*epochs.*-1", said.stderr)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_deploy_button_is_alive_at_both_addresses_of_the_page(
    page: Page, services: dict[str, str], host: str
) -> None:
    page.goto(services["translator"].replace("127.0.0.1", host))
    expect(page.locator("#activeDeployMethodButton")).to_have_class(ALIVE, timeout=20 * SECONDS)


@pytest.mark.parametrize("graph", sorted(GRAPHS.glob("*.graph")), ids=lambda path: path.stem)
def test_every_shipped_graph_is_drawn_by_the_page(
    page: Page, stack: Callable[..., object], graph: Path, tmp_path: Path
) -> None:
    open_in_translator(page, stack, graph, tmp_path / "send.html")
    expect(page.locator("g.node").first).to_be_visible()
    expect(page.locator("#activeDeployMethodButton")).to_be_visible()


def test_a_page_of_strangers_cannot_deploy_a_graph(services: dict[str, str]) -> None:
    stranger = {"Origin": "http://stranger.example.org"}
    answer = requests.post(f"{services['island']}/api/sessions", json={"sessionId": "x"}, headers=stranger, timeout=10)
    assert answer.status_code == 403
    assert "x" not in {
        each["sessionId"] for each in requests.get(f"{services['island']}/api/sessions", timeout=10).json()
    }
