"""What a stranger may try: other names, floods, traversal, scripts in whatever a run holds; and nothing hidden shows anywhere."""

from __future__ import annotations

import re
import socket
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}


class Active(HTMLParser):
    """Everything in a page by which it could run something of its own."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._in_script = tag == "script"
        given = {name: value or "" for name, value in attributes}
        for name, value in given.items():
            if name.startswith("on") or name == "style" or re.match(r"\s*(javascript|data|vbscript):", value, re.I):
                self.found.append(f"{tag} {name}={value}")
        if tag in ("iframe", "object", "embed", "base", "style") or (tag == "script" and "src" not in given):
            self.found.append(tag)
        if tag == "script" and not re.match(r"/[^/]", given.get("src", "")):
            self.found.append(f"script from {given.get('src')}")

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.found.append(f"inline script {data[:50]}")


def links(page: str) -> list[str]:
    return [link for link in re.findall(r'(?:href|src)="(/[^"]*)"', page) if "/static/" not in link]


def raw(site: Any, request: bytes) -> bytes:
    """The answer to bytes that no proper client would send."""
    parts = urlsplit(site.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while block := connection.recv(65536):
            answer += block
    return answer


# --- what is not public ---


def test_no_page_feed_search_or_header_shows_anything_hidden(site: Any, story: Any, hidden: Any) -> None:
    infer = story.runs["infer"]
    waiting = ["/", "/feed.atom", "/openapi.json", "/health", "/overview.json", f"/search?q={hidden.word}"]
    waiting += [f"/{each}.json" for each in ("runs", "models", "results")]
    waiting += [f"/runs?task=infer&session={hidden.word}-session", f"/lineage/run/{infer}.json", f"/runs/{infer}.json"]
    waiting += [f"/{kind}/{run}.json" for run in story.runs.values() for kind in ("runs", "lineage/run")]
    seen: set[str] = set()
    words = (hidden.word, *hidden.runs.values(), hidden.sha256)
    while waiting:
        path = waiting.pop().replace("&amp;", "&")
        if path in seen or "/items/" in path or path.count("/files/") > 0:
            continue
        seen.add(path)
        found = site.get(path)
        shown = found.text.replace(f"{hidden.word}-session", "").replace(f"Search for {hidden.word}", "")
        if hidden.word in path:  # what was asked is said back, and no more
            assert found.headers["content-type"].startswith("text/html")
            assert 'class="hits"' not in shown
            assert "<tbody>" not in shown
            continue
        for word in words:
            assert word not in shown + str(found.headers), (path, word)
        if found.headers["content-type"].startswith("text/html"):
            waiting += links(shown)
    assert len(seen) > 50


def test_counts_filters_and_sizes_are_those_of_what_is_public(site: Any, story: Any, hidden: Any) -> None:
    overview = site.get("/overview.json").json
    assert overview["runs"] == 9
    assert overview["archive"] is None
    assert len(overview["champions"]) == 1
    runs = site.get("/runs.json").json
    assert (runs["total"], runs["sessions"]) == (10, [story.session])
    assert site.get(f"/search.json?q={hidden.word}").json == {"q": hidden.word, "found": [], "more": False}
    used = site.get(f"/runs/{story.runs['preprocess-A']}.json").json["used_by"]
    assert {each["run_id"] for each in used} <= set(story.runs.values())


def test_what_is_hidden_is_answered_like_what_does_not_exist(site: Any, open_site: Any, hidden: Any) -> None:
    run, nobody = hidden.runs["infer"], "0" * 32
    [large] = [name for name in hidden.checksums if name.endswith("large.bin")]
    pairs = [(pattern.format(run), pattern.format(nobody)) for pattern in (
        "/runs/{}", "/runs/{}.json", "/runs/{}/curves", "/runs/{}/files", f"/runs/{{}}/files/{quote(large)}",
        f"/files/{{}}/{quote(large)}", "/results/{}", f"/results/{{}}/items/{hidden.word}.uvh5", "/lineage/run/{}",
    )]  # fmt: skip
    pairs += [(f"/models/{hidden.model}{rest}", f"/models/nobody{rest}") for rest in ("", ".json", "/1", "/1.json")]
    pairs += [(f"/lineage/model/{hidden.model}/1", "/lineage/model/nobody/1")]
    pairs += [(f"/lineage/file/{hidden.sha256}", f"/lineage/file/{'0' * 64}")]
    conditions = {"If-None-Match": f'"{hidden.checksums[large]}"', "Range": "bytes=0-9"}
    for path, like in pairs:
        if not path.endswith(".json"):
            assert open_site.get(path).status == 200, path
        for method, headers in (("GET", {}), ("HEAD", {}), ("GET", conditions), ("GET", {"If-None-Match": "*"})):
            found, other = (site.get(each, headers, method) for each in (path, like))
            assert found.status == other.status == 404, path
            names = (run, hidden.model, hidden.sha256)
            told, same = found.text, other.text
            for name in names:
                told = told.replace(name, "_")
            for name in ("0" * 64, nobody, "nobody"):
                same = same.replace(name, "_")
            assert told == same
            assert "etag" not in found.headers


def test_a_deleted_run_is_gone_at_once(site: Any, story: Any, tracking_store: Any) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tracking_store}")
    experiment = client.get_experiment_by_name(story.experiment)
    run = client.create_run(experiment.experiment_id).info.run_id
    client.delete_run(run)
    assert site.get(f"/runs/{run}").status == 404


# --- scripts, names, headers ---


def test_whatever_a_run_holds_is_shown_as_text(open_site: Any, hidden: Any) -> None:
    run = hidden.runs["infer"]
    script = quote("<script>alert(1)</script>")
    pages = ["/", "/runs", "/models", "/results", f"/models/{hidden.model}", f"/models/{hidden.model}/1"]
    pages += [f"/lineage/file/{hidden.sha256}", f"/lineage/run/{run}", f"/lineage/model/{hidden.model}/1"]
    pages += [f"/runs/{run}", f"/runs/{run}/curves", f"/runs/{run}/files", f"/results/{run}"]
    pages += [f"/results/{run}/items/{hidden.word}.uvh5"]
    pages += [f"/runs/{run}/files/{quote(name)}" for name in (*hidden.names, *hidden.checksums)]
    pages += [
        f"/search?q={script}",
        f"/runs?session=%22%3E{script}",
    ]
    for path in pages:
        found = open_site.get(path)
        assert found.status == 200, (path, found.text[-500:])
        assert Active(found.text).found == [], path
        assert "script-src 'self'" in found.headers["content-security-policy"]
        for header, value in HEADERS.items():
            assert found.headers[header] == value
        assert found.headers["content-security-policy"].count("unsafe") == 0
        assert open_site.get(path, {"Accept": "application/json"}).status == 200, path
    assert "&lt;script&gt;" in open_site.get(f"/runs/{run}").text


def test_a_json_file_is_shown_in_place_under_its_own_name(site: Any, story: Any) -> None:
    address = f"/runs/{story.runs['infer']}/files"
    shown = site.get(f"{address}/results/metrics.json")
    assert (shown.status, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert site.get(f"{address}.json/results/metrics.json").json["preview"]["kind"] == "text"


def test_the_feed_is_well_formed_whatever_stands_in_it(open_site: Any, hidden: Any) -> None:
    from xml.etree import ElementTree

    feed = open_site.get("/feed.atom")
    assert hidden.word in "".join(ElementTree.fromstring(feed.body).itertext())


def test_a_file_of_any_name_comes_as_a_download_that_runs_nowhere(open_site: Any, hidden: Any) -> None:
    for name in hidden.names:
        found = open_site.get(f"/files/{hidden.runs['infer']}/{quote(name)}")
        assert found.status == 200, name
        assert found.headers["content-disposition"].startswith("attachment"), name
        assert found.headers["content-type"].partition(";")[0] in (
            *("application/octet-stream", "text/plain", "text/csv", "application/json"),
        )
        assert "sandbox" in found.headers["content-security-policy"]
        assert found.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in found.headers


@pytest.mark.parametrize(
    "path",
    [
        *("../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "x/../../y", "./x"),
        *("..%5c..%5cwindows", "%00", "x%00.png", "%ff%fe", "a" * 1900, "a/" * 900, "%0d%0aSet-Cookie:%20a=b"),
    ],
)
def test_no_path_leads_out_of_a_run(open_site: Any, hidden: Any, story: Any, path: str) -> None:
    for run in (hidden.runs["infer"], story.runs["infer"]):
        for address in (f"/files/{run}/{path}", f"/runs/{run}/files/{path}", f"/results/{run}/items/{path}"):
            found = open_site.get(address)
            assert found.status in (404, 422), (address, found.status)
            assert "set-cookie" not in found.headers
    assert open_site.get(f"/static/{path}").status == 404


def test_no_input_however_large_or_odd_is_more_than_a_refusal(open_site: Any) -> None:
    for path in (
        *(
            "/runs?limit=0",
            "/runs?limit=99999999999999999999",
            "/runs?after=x",
            "/runs?state=nope",
            "/runs?since=yesterday",
        ),
        *(
            "/runs?until=99999-01-01",
            f"/search?q={'x' * 201}",
            f"/models/{'x' * 300}",
            "/models/a/0",
            "/models/a/99999999999",
        ),
        *(
            "/lineage/file/zz",
            "/runs/../..",
            f"/runs?session={'x' * 501}",
            "/results?after=9999999999999999-a",
            "/models/a%3ab",
        ),
    ):
        found = open_site.get(path)
        assert found.status in (404, 422), (path, found.status)
        for word in ("Traceback", "sqlite", "site-packages", "/srv", "pydantic"):
            assert word not in found.text
    for text in ("a%00bc", "%22%22%22", "*?()%20NEAR", "%f0%9f%98%80" * 50, "%ff%fe%fd"):
        assert open_site.get(f"/search?q={text}").status == 200, text
    assert open_site.get(f"/search?q={'x' * 9000}").status == 414
    assert open_site.get("/", {"X-Much": "x" * 20_000}).status == 431
    assert open_site.get("/runs?after=999999999999999-z&since=0001-01-01&until=9999-12-31").status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"\0\1\2\3\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    ],
)
def test_what_is_no_proper_request_gets_a_refusal(open_site: Any, request_bytes: bytes) -> None:
    assert re.match(rb"HTTP/1\.1 4(00|21|31) ", raw(open_site, request_bytes))
    assert open_site.get("/health").status == 200


# --- who asks, and how ---


def test_another_sites_name_is_refused_and_never_said_back(site: Any) -> None:
    for path in ("/", "/models", "/feed.atom", "/overview.json"):
        found = site.get(path, {"Host": "evil.example"})
        assert found.status == 421
        assert "evil" not in found.text + str(found.headers)
    assert site.get("/health", {"Host": "web"}).status == 200
    assert "evil" not in site.get("/", {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "evil"}).text


def test_one_address_may_ask_so_often_and_only_a_trusted_proxy_can_speak_for_others(serve: Any) -> None:
    def told(site: Any, forwarded: str) -> int:
        return int(site.get("/models", {"X-Forwarded-For": forwarded}).status)

    alone = serve("http://127.0.0.1:9", DLG_ML_WEB_RATE="5")
    assert [told(alone, f"10.0.0.{number}") for number in range(7)] == [200] * 5 + [429] * 2
    refused = alone.get("/models.json")
    assert refused.status == refused.json["status"] == 429
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert alone.get("/health").status == alone.get("/static/site.css").status == 200
    behind = serve("http://127.0.0.1:9", DLG_ML_WEB_RATE="5", DLG_ML_WEB_TRUSTED_PROXIES="127.0.0.1")
    assert [told(behind, f"10.0.0.{number}") for number in range(7)] == [200] * 7
    # A client's own word on where it comes from stands to the left of the proxy's.
    assert [told(behind, f"10.9.9.{number}, 10.0.1.1") for number in range(7)] == [200] * 5 + [429] * 2


def test_the_site_listens_on_this_machine_only_unless_told() -> None:
    import inspect

    from dlg_ml_tasks.cli.web import web

    assert inspect.signature(web).parameters["host"].default == "127.0.0.1"


def test_an_answer_to_a_bug_says_nothing_of_it_and_has_the_headers_too(tmp_path: Path) -> None:
    import asyncio

    from dlg_ml_tasks.web.app import create_app
    from dlg_ml_tasks.web.settings import Settings

    app = create_app(Settings(tracking_uri="http://127.0.0.1:9", cache=tmp_path))

    @app.get("/bug")
    def bug() -> None:
        raise RuntimeError("password=hunter2 in /srv/secret.py")

    sent: list[Any] = []

    async def ask() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/bug",
            "raw_path": b"/bug",
            "query_string": b"",
            "headers": [],
        }
        scope |= {"http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1)}
        with pytest.raises(RuntimeError):
            await app(scope, receive, send)

    asyncio.run(ask())
    start, body = sent[0], b"".join(each.get("body", b"") for each in sent)
    assert start["status"] == 500
    assert b"hunter2" not in body
    assert b"secret" not in body
    names = {name for name, _ in start["headers"]}
    assert {b"content-security-policy", b"x-content-type-options"} <= names
