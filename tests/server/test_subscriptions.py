"""SUBSCRIBE, UNSUBSCRIBE, and the delivery of new files."""

from __future__ import annotations

import http.server
import threading
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit

import pytest

from dlg_ml_tasks.archive.server import Access, EmbeddedNgas
from dlg_ml_tasks.archive.server.hosts import NO_HOSTS, AllowedHosts
from dlg_ml_tasks.archive.server.subscriptions import delivery

SUCCESS = b'<?xml version="1.0" ?><NgamsStatus><Status Status="SUCCESS" Message="ok"/></NgamsStatus>'
FAILURE = b'<?xml version="1.0" ?><NgamsStatus><Status Status="FAILURE" Message="no"/></NgamsStatus>'


class Listener(http.server.ThreadingHTTPServer):
    """A subscriber that is no archive: it notes what it is sent, and answers what it is told to."""

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.received = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.answers = []  # for the next requests: (status, body, headers); when there is none left, success
        self.url = f"http://127.0.0.1:{self.server_port}/QARCHIVE"

    @property
    def ids(self):
        return [headers["Content-Disposition"].rpartition("file_id=")[2] for _, headers, _ in self.received]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.received.append((self.path, dict(self.headers), body))
        self.server.may_answer.wait(30)
        status, answer, headers = self.server.answers.pop(0) if self.server.answers else (200, SUCCESS, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_):
        pass


@contextmanager
def listening(port=0):
    with Listener(port) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield listener
        finally:
            listener.shutdown()
            thread.join()


@pytest.fixture
def listener():
    with listening() as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(delivery, "_FIRST_PAUSE_SECONDS", 0.05)


def subscribers(wire, query="subscribers_list", **parameters):
    return wire.get("QUERY", query=query, format="json", **parameters).response.json()


def test_a_new_file_is_delivered_as_ngas_does_it(wire, listener, eventually):
    subscribed = wire.get("SUBSCRIBE", url=listener.url, subscr_id="s1", priority=3)
    assert (subscribed.code, subscribed.message) == (200, "Handled SUBSCRIBE command")
    file = wire.push(b"hello", filename="a b.bin", file_id="an id; with=ü").file
    eventually(lambda: listener.received)
    ((path, headers, body),) = listener.received
    assert urlsplit(path).path == "/QARCHIVE"
    assert dict(parse_qsl(urlsplit(path).query)) == {"crc_variant": "crc32"}
    assert body == b"hello"
    assert headers["NGAS-File-CRC"] == file["Checksum"]
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Length"] == "5"
    assert headers["Content-Disposition"] == 'attachment; filename="a%20b.bin"; file_id=an%20id%3B%20with%3D%C3%BC'
    eventually(lambda: subscribers(wire)[0]["last_file_ingestion_date"] == file["IngestionDate"])


@pytest.mark.parametrize("command", ["ARCHIVE", "QARCHIVE"])
@pytest.mark.parametrize("size", [1, 64 * 1024, 64 * 1024 + 1, 3_000_000])
def test_another_archive_gets_the_same_file_under_the_same_id(wire, connect, tmp_path, eventually, command, size):
    data = bytes(range(251)) * (size // 251 + 1)
    with EmbeddedNgas(tmp_path / "other") as other:
        mirror = connect(other.url)
        wire.get("SUBSCRIBE", url=f"{other.url}/QARCHIVE")
        original = wire.push(
            data[:size], command, filename="run 7/ü%41.bin", file_id="run 7/ü%41", crc_variant="crc32c"
        ).file
        eventually(lambda: mirror.rows())
        copy = mirror.get("STATUS", file_id="run 7/ü%41").file
        for attribute in ("FileSize", "Checksum", "ChecksumPlugIn", "Format"):
            assert copy[attribute] == original[attribute]
        assert mirror.get("RETRIEVE", file_id="run 7/ü%41").response.content == data[:size]


def test_a_subscription_from_a_date_on_gets_the_files_since_then_and_each_once(wire, listener, eventually):
    dates = [wire.push(b"x", filename=f"{name}.bin").file["IngestionDate"] for name in "ab"]
    wire.get("SUBSCRIBE", url=listener.url, start_date=dates[0])
    eventually(lambda: len(listener.received) == 2)
    wire.push(b"x", filename="c.bin")
    eventually(lambda: len(listener.received) == 3)
    assert sorted(listener.ids) == ["a.bin", "b.bin", "c.bin"]


def test_without_a_date_only_later_files_come(wire, listener, eventually):
    wire.push(b"x", filename="before.bin")
    while wire.get("STATUS").status["Date"] <= wire.get("STATUS", file_id="before.bin").file["IngestionDate"]:
        pass
    wire.get("SUBSCRIBE", url=listener.url)
    wire.push(b"x", filename="after.bin")
    eventually(lambda: listener.received)
    assert listener.ids == ["after.bin"]


def test_every_version_is_delivered_and_so_is_one_that_is_overwritten(wire, listener, eventually):
    wire.get("SUBSCRIBE", url=listener.url)
    for data, parameters in ((b"1", {}), (b"2", {}), (b"two", {"versioning": 0})):
        wire.push(data, filename="a.bin", **parameters)
        eventually(lambda data=data: data in [body for _, _, body in listener.received])


def test_a_version_overwritten_while_it_is_delivered_is_delivered_again(wire, listener, eventually):
    listener.may_answer.clear()
    wire.get("SUBSCRIBE", url=listener.url)
    wire.push(b"old", filename="a.bin")
    eventually(lambda: listener.received)
    wire.push(b"new", filename="a.bin", versioning=0)
    listener.may_answer.set()
    eventually(lambda: [body for _, _, body in listener.received] == [b"old", b"new"])


def test_as_many_files_travel_at_once_as_the_subscriber_wants(wire, listener, eventually):
    for number in range(4):
        wire.push(b"x", filename=f"{number}.bin")
    listener.may_answer.clear()
    wire.get("SUBSCRIBE", url=listener.url, concurrent_threads=3, start_date="2026-01-01")
    eventually(lambda: len(listener.received) == 3)
    listener.may_answer.set()
    eventually(lambda: len(listener.received) == 4)


def test_a_copy_on_another_disk_is_nothing_new(root, connect, listener, eventually):
    with EmbeddedNgas(root, volumes=2) as server:
        wire = connect(server.url)
        wire.get("SUBSCRIBE", url=listener.url)
        wire.push(b"x", filename="a.bin")
        eventually(lambda: listener.received)
        assert wire.get("CLONE", file_id="a.bin").code == 200
        wire.push(b"x", filename="b.bin")
        eventually(lambda: "b.bin" in listener.ids)
    assert listener.ids == ["a.bin", "b.bin"]


@pytest.mark.parametrize(
    "answer", [(400, FAILURE, {}), (200, FAILURE, {}), (200, b"who is there?", {}), (500, b"", {}), (404, b"", {})]
)
def test_a_file_that_is_not_taken_is_sent_again(wire, listener, eventually, answer):
    listener.answers = [answer, answer]
    wire.get("SUBSCRIBE", url=listener.url)
    wire.push(b"x", filename="a.bin")
    eventually(lambda: len(listener.received) == 3)
    assert listener.ids == ["a.bin"] * 3


def test_a_file_that_is_refused_does_not_hold_up_the_others(wire, listener, eventually, monkeypatch):
    monkeypatch.setattr(delivery, "_FIRST_PAUSE_SECONDS", 1000)
    listener.answers = [(400, FAILURE, {})]
    wire.get("SUBSCRIBE", url=listener.url)
    wire.push(b"x", filename="a.bin")
    eventually(lambda: listener.received)
    wire.push(b"x", filename="b.bin")
    eventually(lambda: listener.ids == ["a.bin", "b.bin"])


def test_a_file_whose_bytes_are_lost_does_not_hold_up_the_others(server, wire, listener, eventually, monkeypatch):
    monkeypatch.setattr(delivery, "_FIRST_PAUSE_SECONDS", 1000)
    wire.push(bytes(100_000), filename="a.bin")
    (lost,) = server.root.rglob("objects/*/*")
    lost.unlink()
    wire.get("SUBSCRIBE", url=listener.url, start_date="2026-01-01")
    wire.push(b"x", filename="b.bin")
    eventually(lambda: listener.ids == ["b.bin"])


def test_a_subscriber_that_was_away_gets_what_it_missed(wire, eventually):
    with listening() as gone:
        url, port = gone.url, gone.server_port
    wire.get("SUBSCRIBE", url=url)
    for name in "abc":
        wire.push(b"x", filename=f"{name}.bin")
    with listening(port) as back:
        eventually(lambda: sorted(back.ids) == ["a.bin", "b.bin", "c.bin"])


def test_what_is_not_delivered_yet_survives_a_restart(root, connect, eventually):
    with listening() as gone:
        url, port = gone.url, gone.server_port
    with EmbeddedNgas(root) as server:
        connect(server.url).get("SUBSCRIBE", url=url, subscr_id="s1")
        connect(server.url).push(b"x", filename="a.bin")
    with listening(port) as back, EmbeddedNgas(root) as server:
        assert [row["subscr_id"] for row in subscribers(connect(server.url))] == ["s1"]
        eventually(lambda: back.ids == ["a.bin"])


@pytest.mark.integration
def test_what_is_not_delivered_yet_survives_a_kill(run_server, connect, eventually):
    with listening() as gone:
        url, port = gone.url, gone.server_port
    with run_server() as server:
        connect(server.url).get("SUBSCRIBE", url=url)
        for number in range(20):
            connect(server.url).push(b"x", filename=f"{number}.bin")
        server.kill()
    with listening(port) as back, run_server():
        eventually(lambda: set(back.ids) == {f"{number}.bin" for number in range(20)})


def test_a_file_discarded_before_its_delivery_is_forgotten(wire, eventually):
    with listening() as gone:
        url, port = gone.url, gone.server_port
    wire.get("SUBSCRIBE", url=url)
    wire.push(b"x", filename="a.bin")
    wire.get("DISCARD", file_id="a.bin", file_version=1, disk_id=wire.disk_id, execute=1)
    with listening(port) as back:
        wire.push(b"x", filename="b.bin")
        eventually(lambda: back.ids == ["b.bin"])


def test_the_same_subscription_again_is_201_and_another_with_its_id_409(wire, listener):
    values = {"subscr_id": "s1", "start_date": "2026-11-21T04:34:08.241"}
    assert wire.get("SUBSCRIBE", url=listener.url, **values).code == 200
    again = wire.get("SUBSCRIBE", url=listener.url, **values)
    assert (again.code, again.failed, again.message) == (201, False, "Identical subscription with ID 's1' existed")
    assert wire.get("SUBSCRIBE", url=listener.url, subscr_id="s1").code == 201  # "from now on" is no other date
    for other in (
        {"priority": 5},
        {"start_date": "2026-01-01"},
        {"concurrent_threads": 2},
        {"url": listener.url + "2"},
    ):
        refused = wire.get("SUBSCRIBE", **{"url": listener.url, **values, **other})
        assert (refused.code, refused.failed, refused.message) == (
            409,
            True,
            "Different subscription with ID 's1' existed",
        )
    assert [row["subscr_prio"] for row in subscribers(wire)] == [10]


def test_nothing_comes_after_unsubscribing(wire, listener, eventually):
    wire.get("SUBSCRIBE", url=listener.url, subscr_id="s1")
    wire.get("SUBSCRIBE", url=f"{listener.url}?stays=1")
    gone = wire.get("UNSUBSCRIBE", subscr_id="s1")
    assert (gone.code, gone.failed, gone.message) == (200, False, "Successfully handled UNSUBSCRIBE command")
    wire.push(b"x", filename="a.bin")
    eventually(lambda: listener.received)
    assert ["stays=1" in path for path, _, _ in listener.received] == [True]
    assert wire.get("UNSUBSCRIBE", url=listener.url).failed is False  # an id by default: the URL before its query
    assert subscribers(wire) == []


def test_unsubscribing_the_unknown_is_a_failure_with_code_200(idle_wire):
    refused = idle_wire.get("UNSUBSCRIBE", subscr_id="nobody")
    assert (refused.code, refused.failed) == (200, True)
    assert refused.message.startswith("UNSUBSCRIBE command failed: ")
    assert idle_wire.get("UNSUBSCRIBE").message.startswith("NGAMS_ER_CMD_SYNTAX:4035")


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({}, "NGAMS_ER_CMD_SYNTAX:4035"),
        ({"url": "http://archive.example/QARCHIVE"}, "the host archive.example:80 is not on the list"),
        ({"url": "http://127.0.0.1.evil.example/"}, "is not on the list"),
        ({"url": "http://2130706433/"}, "is not on the list"),
        ({"url": "http://localhost@evil.example/"}, "must not hold a user name or password"),
        ({"url": "http://ann:secret@localhost/"}, "must not hold a user name or password"),
        ({"url": "ftp://ann:secret@localhost/"}, "must not hold a user name or password"),
        ({"url": "ftp://localhost/"}, "must be a URL that begins with http:// or https://"),
        ({"url": "file:///etc/passwd"}, "must be a URL that begins with http:// or https://"),
        ({"url": "localhost:7777"}, "must be a URL that begins with http:// or https://"),
        ({"url": "http://localhost:99999/"}, "is no URL"),
        ({"url": "http://localhost/", "start_date": "yesterday"}, "start_date='yesterday' is no date"),
        ({"url": "http://localhost/", "concurrent_threads": 100}, "must be between 1 and 16"),
        ({"url": "http://localhost/", "filter_plug_in": "x"}, "filter_plug_in is not offered"),
    ],
)
def test_a_subscription_that_cannot_or_may_not_be_served_is_refused(idle_wire, parameters, fault):
    refused = idle_wire.get("SUBSCRIBE", **parameters)
    assert (refused.code, refused.failed) == (400, True)
    assert fault in refused.message
    assert "secret" not in refused.message
    assert subscribers(idle_wire) == []


def test_a_server_does_not_subscribe_to_itself(wire):
    refused = wire.get("SUBSCRIBE", url=f"{wire.url}/QARCHIVE")
    assert (refused.code, refused.failed) == (400, True)
    assert "it would send itself every file again" in refused.message
    assert subscribers(wire) == []


def test_a_redirect_is_not_followed(wire, listener, eventually):
    with listening() as elsewhere:
        listener.answers = [(303, b"", {"Location": elsewhere.url})]
        wire.get("SUBSCRIBE", url=listener.url)
        wire.push(b"x", filename="a.bin")
        eventually(lambda: len(listener.received) == 2)
        assert elsewhere.received == []


def test_a_host_taken_off_the_list_is_sent_nothing_more(root, connect, listener, caplog, eventually):
    with EmbeddedNgas(root) as server:
        connect(server.url).get("SUBSCRIBE", url=listener.url)
    with EmbeddedNgas(root, access=Access(subscriber_hosts=NO_HOSTS)) as server:
        connect(server.url).push(b"x", filename="a.bin")
        eventually(lambda: "is not on the list of this server" in caplog.text)
    assert listener.received == []


def test_a_list_may_name_a_port(root, connect, listener):
    hosts = AllowedHosts.parse([f"127.0.0.1:{listener.server_port}"])
    with EmbeddedNgas(root, access=Access(subscriber_hosts=hosts)) as server:
        wire = connect(server.url)
        assert wire.get("SUBSCRIBE", url=listener.url).code == 200
        assert wire.get("SUBSCRIBE", url=f"http://127.0.0.1:{server.port}/QARCHIVE").code == 400


def test_the_subscribers_of_a_host_are_listed(wire, listener):
    wire.get("SUBSCRIBE", url=listener.url, subscr_id="s1", start_date="2026-11-21T04:34:08Z", concurrent_threads=4)
    (row,) = subscribers(wire)
    host_id = wire.get("STATUS").status["HostId"]
    assert row == {
        "host_id": host_id,
        "srv_port": int(host_id.rpartition(":")[2]),
        "subscr_prio": 10,
        "subscr_id": "s1",
        "subscr_url": listener.url,
        "subscr_start_date": "2026-11-21T04:34:08.000",
        "subscr_filter_plugin": None,
        "subscr_filter_plugin_pars": None,
        "last_file_ingestion_date": None,
        "concurrent_threads": 4,
    }
    assert subscribers(wire, "subscribers_like", like=f"{host_id[:2]}%") == [row]
    assert subscribers(wire, "subscribers_like", like="other%") == []
