"""ARCHIVE and QARCHIVE by GET: the server fetches the file itself."""

from __future__ import annotations

import http.server
import threading

import pytest

from dlg_ml_tasks.archive.server import Access, EmbeddedNgas, Limits
from dlg_ml_tasks.archive.server.hosts import AllowedHosts

DATA = bytes(range(256)) * 1000


class Source(http.server.BaseHTTPRequestHandler):
    """A web server with a file, and with all that can be wrong with one."""

    def do_GET(self):
        name = self.path.strip("/").partition("?")[0]
        self.server.asked.append(self.path)
        if name == "missing.bin":
            self.send_error(404)
            return
        self.send_response(302 if name.startswith("redirect") else 200)
        if name == "redirect.bin":
            self.send_header("Location", "/data.bin")
        elif name == "redirect-loop.bin":
            self.send_header("Location", "/redirect-loop.bin")
        elif name == "redirect-off.bin":
            self.send_header("Location", f"http://localhost:{self.server.server_port}/data.bin")
        elif name == "redirect-file.bin":
            self.send_header("Location", "file:///etc/hostname")
        elif name == "encoded.bin":
            self.send_header("Content-Encoding", "gzip")
        if name == "short.bin":
            self.send_header("Content-Length", str(len(DATA) + 1))
        elif name == "empty.bin":
            self.send_header("Content-Length", "0")
        elif name == "huge.bin":
            self.send_header("Content-Length", str(10**15))
        elif name != "endless.bin":
            self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        if name == "stalled.bin":
            self.wfile.write(DATA[:1000])
            self.wfile.flush()
            self.server.ending.wait(30)
        elif name != "empty.bin":
            try:
                self.wfile.write(DATA)
            except ConnectionError:
                self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def source():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Source) as running:
        running.asked = []
        running.ending = threading.Event()
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.ending.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def puller(root, connect, source):
    """A server that may fetch from 127.0.0.1, and not from localhost, which is another name."""
    hosts = AllowedHosts.parse(["127.0.0.1"])
    with EmbeddedNgas(root, limits=Limits(stall_seconds=1), access=Access(pull_hosts=hosts)) as server:
        yield connect(server.url)


@pytest.mark.parametrize("command", ["ARCHIVE", "QARCHIVE"])
def test_a_file_is_fetched_and_archived(puller, source, command):
    url = f"{source.url}/data.bin"
    answer = puller.get(command, filename=url, file_id="x", mime_type="application/octet-stream")
    assert answer.code == 200
    assert answer.message == f"Successfully handled Archive Pull Request for data file with URI: {url}"
    assert (answer.file["FileId"], answer.file["FileSize"]) == ("x", str(len(DATA)))
    assert puller.get("RETRIEVE", file_id="x").response.content == DATA


@pytest.mark.parametrize(
    ("path", "file_id"),
    [
        ("/some/where/a%20b.bin?signature=1#part", "a b.bin"),
        ("/RETRIEVE?file_id=run/7.bin&file_version=2", "7.bin"),
        ("/redirect.bin", "redirect.bin"),
    ],
)
def test_without_an_id_the_last_part_of_the_url_is_taken_or_the_id_in_it(puller, source, path, file_id):
    assert puller.get("QARCHIVE", filename=source.url + path).file["FileId"] == file_id
    assert source.asked[0] == path.partition("#")[0]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("missing.bin", "HTTP 404 Not Found"),
        ("redirect-off.bin", "the host localhost:"),
        ("redirect-file.bin", "must be a URL that begins with http:// or https://"),
        ("redirect-loop.bin", "HTTP 302"),
        ("short.bin", "Cannot fetch"),
        ("stalled.bin", "no answer in time"),
        ("endless.bin", "without a Content-Length"),
        ("encoded.bin", "Content-Encoding gzip"),
        ("empty.bin", "it is empty"),
        ("huge.bin", "No disk volumes are available for ingesting any files."),
        ("unknown.type", "NGAMS_ER_UNKNOWN_MIME_TYPE1:4014"),
    ],
)
def test_what_cannot_be_fetched_whole_is_a_clear_failure_and_leaves_nothing(puller, source, name, fault, root):
    refused = puller.get("QARCHIVE", filename=f"{source.url}/{name}")
    assert (refused.code, refused.failed) == (400, True)
    assert fault in refused.message
    assert puller.rows() == []
    assert not [path for path in root.rglob("*") if path.is_file() and path.parent.name == "staging"]
    assert puller.get("STATUS").status["SubState"] == "IDLE"


def test_a_source_that_is_not_there_is_a_clear_failure(puller, unused_port):
    refused = puller.get("ARCHIVE", filename=f"http://127.0.0.1:{unused_port}/a.bin")
    assert (refused.code, refused.failed) == (400, True)
    assert "Cannot fetch http://127.0.0.1:" in refused.message


@pytest.mark.parametrize(
    "url",
    [
        "/etc/hostname",
        "file:///etc/hostname",
        "ftp://127.0.0.1/a.bin",
        "http://example.org/a.bin",
        "http://localhost/a.bin",
        "http://127.0.0.1@localhost/a.bin",
        "http://2130706433/a.bin",
        "http:///a.bin",
        "//127.0.0.1/a.bin",
        "a.bin",
    ],
)
@pytest.mark.parametrize("command", ["ARCHIVE", "QARCHIVE"])
def test_nothing_is_fetched_from_elsewhere_or_from_this_machine_s_disk(puller, source, command, url):
    refused = puller.get(command, filename=url, mime_type="application/octet-stream")
    assert (refused.code, refused.failed) == (400, True)
    assert source.asked == []
    assert puller.rows() == []


def test_a_pull_without_a_url_is_refused(puller):
    assert puller.get("QARCHIVE").message.startswith("NGAMS_ER_MISSING_URI:4013")


def test_a_wrong_checksum_of_the_source_is_refused(puller, source):
    refused = puller.get("QARCHIVE", {"NGAS-File-CRC": "1"}, filename=f"{source.url}/data.bin")
    assert "Checksum error" in refused.message
    assert puller.rows() == []
