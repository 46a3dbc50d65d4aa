"""Every kind of page in headless Chromium: no accessibility finding, no console error, every link leads somewhere."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed (scripts/browser.sh)")

AXE = Path(__file__).parent / "axe" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
MOST_OF_A_KIND = 3


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visitor:
    """A page in a browser that takes down everything that goes wrong in it."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        # The policy of a page keeps the tests' own script out, too, unless it is injected past it.
        self.context = browser.new_context(bypass_csp=False, reduced_motion="reduce", **context)
        self.page = self.context.new_page()
        self.url = url
        self.troubles: list[str] = []
        self.page.on("console", lambda m: self.troubles.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("requestfailed", lambda request: self._failed(request))
        self.page.on("response", lambda r: self.troubles.append(f"{r.status} {r.url}") if r.status >= 400 else None)

    def _failed(self, request: Any) -> None:
        # Leaving a page while a picture still loads is no fault.
        if "ERR_ABORTED" not in (request.failure or ""):
            self.troubles.append(f"{request.failure} {request.url}")

    def open(self, path: str) -> Any:
        self.page.goto(self.url + path, wait_until="networkidle")
        return self.page

    def findings(self, rules: list[str] = RULES) -> list[str]:
        """What axe finds on the page, by rules or tags of rules."""
        self.page.evaluate(AXE.read_text())
        report = self.page.evaluate("rules => axe.run(document, {runOnly: rules})", rules)
        return [f"{each['id']}: {node['html'][:160]}" for each in report["violations"] for node in each["nodes"]]


@pytest.fixture
def visitor(browser: Any, site: Any) -> Iterator[Visitor]:
    found = Visitor(browser, site.url)
    yield found
    found.context.close()


def kind_of(path: str) -> str:
    """The kind of page at a path: ids, numbers, names and queries do not make another one."""
    path = re.sub(r"[0-9a-f]{64}|[0-9a-f]{32}", "ID", urlsplit(path).path)
    path = re.sub(r"^(/models|/lineage/model)/[^/]+", r"\1/NAME", path)
    path = re.sub(r"/[0-9]+$", "/N", path)
    return re.sub(r"(/items|/files)/.*?(\.[a-z0-9]+)?$", r"\1/PATH\2", path)


def test_every_page_that_links_lead_to_is_accessible_and_without_errors(browser: Any, site: Any) -> None:
    light, dark = (Visitor(browser, site.url, color_scheme=scheme) for scheme in ("light", "dark"))
    waiting, seen, kinds = ["/", "/docs", "/search?q=digits"], set[str](), dict[str, int]()
    findings: dict[str, list[str]] = {}
    while waiting:
        path = waiting.pop(0)
        if path in seen or kinds.get(kind_of(path), 0) >= MOST_OF_A_KIND:
            continue
        seen.add(path)
        kinds[kind_of(path)] = kinds.get(kind_of(path), 0) + 1
        answer = site.get(path)
        assert answer.status == 200, path
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        waiting += [html.unescape(link) for link in re.findall(r'href="(/[^"]*)"', answer.text)]
        if kinds[kind_of(path)] == 1:
            light.open(path)
            dark.open(path)
            if found := light.findings() + dark.findings(["color-contrast"]):
                findings[path] = found
    assert findings == {}
    assert light.troubles == dark.troubles == []
    assert len(kinds) >= 18, sorted(kinds)


def test_the_filters_change_the_list_and_the_address_without_loading_the_page(visitor: Visitor, story: Any) -> None:
    page = visitor.open("/runs")
    page.evaluate("window.stays = true")
    page.select_option("#task", "train")
    page.wait_for_url(re.compile(r"task=train"))
    sync_api.expect(page.locator("tbody tr")).to_have_count(1)
    assert page.evaluate("window.stays")
    assert page.locator("tbody a").first.get_attribute("href").endswith(story.runs["train"])
    page.go_back()
    sync_api.expect(page.locator("tbody tr")).to_have_count(10)
    assert visitor.troubles == []


def test_a_search_is_answered_while_it_is_typed(visitor: Visitor) -> None:
    page = visitor.open("/search")
    page.locator("#q").press_sequentially("heldback", delay=20)
    sync_api.expect(page.locator(".hits li").first).to_contain_text("heldback")
    assert visitor.troubles == []


def test_curves_can_be_read_off(visitor: Visitor, story: Any) -> None:
    page = visitor.open(f"/runs/{story.runs['train']}")
    page.locator(".uplot").wait_for()
    page.locator(".uplot .u-over").hover()
    sync_api.expect(page.locator(".u-legend .u-value").nth(1)).to_have_text(re.compile(r"0\.\d+|1|2|3"))
    assert visitor.troubles == []


def test_without_scripts_every_part_is_there(browser: Any, site: Any, story: Any) -> None:
    visitor = Visitor(browser, site.url, java_script_enabled=False)
    page = visitor.open(f"/models/{story.model}")
    assert page.locator("svg.chart .mark").count() == 3
    page = visitor.open(f"/runs/{story.runs['train']}")
    page.get_by_text("Show the curves").click()
    assert page.locator("svg.chart path.curve").count() == 1
    page = visitor.open("/runs")
    page.select_option("#task", "infer")
    page.get_by_role("button", name="Show", exact=True).click()
    assert page.locator("tbody tr").count() == 2
    assert visitor.troubles == []
    visitor.context.close()


def test_on_a_phone_no_page_is_wider_than_the_screen(browser: Any, site: Any, story: Any) -> None:
    visitor = Visitor(browser, site.url, viewport={"width": 360, "height": 740}, has_touch=True)
    infer = story.runs["infer"]
    for path in (
        *("/", "/models", f"/models/{story.model}", f"/models/{story.model}/2", "/runs", "/results", "/docs"),
        *(f"/runs/{infer}", f"/runs/{infer}/files", f"/results/{infer}", f"/lineage/run/{infer}"),
        f"/results/{infer}/items/digits.B.4.heldback.npz",
    ):
        page = visitor.open(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
    visitor.context.close()


def test_the_keyboard_reaches_the_content_past_the_navigation(visitor: Visitor) -> None:
    page = visitor.open("/")
    page.keyboard.press("Tab")
    sync_api.expect(page.locator(":focus")).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
