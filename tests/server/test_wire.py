"""What goes over the wire, byte by byte: requests no client library would send, and the exact form of the replies."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

import pytest

from dlg_ml_tasks.archive.server import EmbeddedNgas, Limits, sending
from dlg_ml_tasks.archive.server import transport as server_transport

HEAD = b"Host: localhost\r\nContent-Type: application/octet-stream\r\n"


@dataclass(frozen=True)
class Reply:
    """A reply taken apart."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> int:
        return int(self.line.split()[1])

    @property
    def message(self) -> str:
        return ElementTree.fromstring(self.body).find("Status").get("Message")


class Connection:
    """A TCP connection to the server."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.settimeout(30)
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, data: bytes) -> Reply:
        self.send(data)
        return self.reply()

    def reply(self) -> Reply:
        """The next reply, by its Content-Length."""
        line = self._file.readline().decode("latin-1")
        assert line.endswith("\r\n"), f"no reply but {line!r}"
        headers: dict[str, str] = {}
        while (header := self._file.readline()) != b"\r\n":
            name, _, value = header.decode("latin-1").rstrip("\r\n").partition(": ")
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        return Reply(line.rstrip("\r\n"), headers, self._file.read(int(headers.get("content-length", 0))))

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        return self._file.read()

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@pytest.fixture
def connections() -> Iterator[Callable[[EmbeddedNgas], Connection]]:
    opened: list[Connection] = []

    def connect(server: EmbeddedNgas) -> Connection:
        opened.append(Connection((server.host, server.port)))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def connection(server, connections) -> Connection:
    return connections(server)


@pytest.fixture
def idle(idle_server, connections) -> Connection:
    """A connection to a server in which nothing is ever stored."""
    return connections(idle_server)


def push(body: bytes, name: str = "a.bin", version: str = "1.1", more: bytes = b"") -> bytes:
    line = f"POST /QARCHIVE?filename={name} HTTP/{version}\r\n".encode()
    return line + HEAD + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


def get(path: str, version: str = "1.1", more: bytes = b"") -> bytes:
    return f"GET {path} HTTP/{version}\r\nHost: localhost\r\n".encode() + more + b"\r\n"


# The form of the replies


def test_a_status_reply_has_these_headers_and_no_others(idle):
    reply = idle.ask(get("/STATUS"))
    assert reply.line == "HTTP/1.1 200 OK"
    assert set(reply.headers) == {"server", "content-type", "content-length", "date"}
    assert reply.headers["server"] == "NGAMS/12.0-embedded"
    assert reply.headers["content-type"] == "text/xml"
    assert reply.body.startswith(b'<?xml version="1.0" ?>\n<!DOCTYPE NgamsStatus SYSTEM "http://localhost/RETRIEVE?')


@pytest.mark.parametrize("size", [10, 200_000], ids=["small", "large"])
def test_a_file_comes_with_these_headers_and_no_others(connection, size):
    data = os.urandom(size)
    assert connection.ask(push(data)).code == 200
    reply = connection.ask(get("/RETRIEVE?file_id=a.bin"))
    assert reply.body == data
    assert set(reply.headers) == {"server", "content-type", "content-length", "content-disposition", "date"}
    part = connection.ask(get("/RETRIEVE?file_id=a.bin", more=b"Range: bytes=4-\r\n"))
    assert part.line == "HTTP/1.1 200 OK"
    assert part.body == data[4:]
    assert set(part.headers) - set(reply.headers) == {"accept-ranges", "content-range"}
    assert part.headers["content-range"] == f"bytes 4-{size - 1}/{size}"
    assert connection.ask(get("/STATUS")).code == 200


@pytest.mark.parametrize(
    "form", ["bytes=0-3", "bytes=-3", "bytes=1-,2-", "bytes=", "bytes=--1", "bytes=1", "octets=1-", "bytes=0x1-", "1-"]
)
def test_a_range_of_another_form_is_refused_and_the_connection_goes_on(connection, form):
    connection.ask(push(b"0123456789"))
    refused = connection.ask(get("/RETRIEVE?file_id=a.bin", more=f"Range: {form}\r\n".encode()))
    assert (refused.code, refused.message[:21]) == (400, "Invalid Range header,")
    assert connection.ask(get("/STATUS")).code == 200


def test_a_range_may_begin_at_the_end_and_not_after_it(connection):
    connection.ask(push(b"0123456789"))
    at_end = connection.ask(get("/RETRIEVE?file_id=a.bin", more=b"Range: bytes=10-\r\n"))
    assert (at_end.code, at_end.headers["content-length"], at_end.body) == (200, "0", b"")
    for start in (b"11", b"999999999999999999999999"):
        after = connection.ask(get("/RETRIEVE?file_id=a.bin", more=b"Range: bytes=%s-\r\n" % start))
        assert after.code == 416
        assert int(after.headers["content-length"]) == len(after.body)


# Connections


def test_a_connection_serves_one_request_after_another(connection):
    for number in range(5):
        assert connection.ask(push(b"%d" % number, f"{number}.bin")).code == 200
        assert connection.ask(get(f"/RETRIEVE?file_id={number}.bin")).body == b"%d" % number


def test_requests_sent_at_once_are_answered_in_order(connection):
    connection.send(b"".join(push(b"%d" % number, f"{number}.bin") for number in range(10)))
    connection.send(b"".join(get(f"/RETRIEVE?file_id={number}.bin") for number in range(10)))
    assert [connection.reply().code for _ in range(10)] == [200] * 10
    assert [connection.reply().body for _ in range(10)] == [b"%d" % number for number in range(10)]


def test_the_connection_is_closed_when_the_client_asks_for_it(idle):
    reply = idle.ask(get("/STATUS", more=b"Connection: close\r\n"))
    assert reply.headers["connection"] == "close"
    assert idle.rest() == b""


@pytest.mark.parametrize("host", [b"", b"Host: localhost\r\n"])
def test_an_http_1_0_client_is_answered_in_its_version_and_the_connection_closed(idle, host):
    reply = idle.ask(b"GET /STATUS HTTP/1.0\r\n" + host + b"\r\n")
    assert reply.line == "HTTP/1.0 200 OK"
    assert idle.rest() == b""


@pytest.mark.parametrize("size", [10, 200_000], ids=["small", "large"])
def test_an_http_1_0_client_can_archive_and_retrieve(server, connections, size):
    data = os.urandom(size)
    assert connections(server).ask(push(data, version="1.0")).code == 200
    reader = connections(server)
    reply = reader.ask(get("/RETRIEVE?file_id=a.bin", version="1.0"))
    assert (reply.line, reply.body) == ("HTTP/1.0 200 OK", data)
    assert reader.rest() == b""


def test_an_http_1_0_client_may_ask_to_keep_the_connection(idle):
    for _ in range(2):
        reply = idle.ask(get("/STATUS", version="1.0", more=b"Connection: keep-alive\r\n"))
        assert reply.headers["connection"] == "keep-alive"


def test_a_request_in_single_bytes_is_one_request(connection):
    for byte in push(b"slowly"):
        connection.send(bytes([byte]))
    assert connection.reply().code == 200
    assert connection.ask(get("/RETRIEVE?file_id=a.bin")).body == b"slowly"


def test_bytes_after_the_content_are_another_request(connection):
    connection.send(push(b"abc") + b"GET /NOPE HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.reply().code == 200
    assert connection.reply().code == 404
    assert connection.ask(get("/RETRIEVE?file_id=a.bin")).body == b"abc"


def test_a_head_that_never_ends_is_given_up(root, connections, monkeypatch):
    monkeypatch.setattr(server_transport, "_IDLE_CONNECTION_SECONDS", 0.2)
    with EmbeddedNgas(root) as server:
        connection = connections(server)
        connection.send(b"GET /STATUS HTTP/1.1\r\n")
        assert connection.rest() == b""
        silent = connections(server)
        assert silent.rest() == b""


def test_a_client_that_takes_nothing_of_a_file_is_given_up(root, connect, connections):
    data = bytes(60_000_000)  # more than the buffers of the two sockets hold
    with EmbeddedNgas(root, limits=Limits(stall_seconds=0.2)) as server:
        connect(server.url).push(data, filename="a.bin")
        connection = connections(server)
        connection.send(get("/RETRIEVE?file_id=a.bin"))
        time.sleep(1)
        received = 0
        while piece := connection.socket.recv(2**20):
            received += len(piece)
        assert received < len(data)
        assert connect(server.url).get("STATUS").code == 200


def test_a_file_that_cannot_be_read_to_its_end_is_broken_off_and_nothing_else_sent(connection, monkeypatch):
    data = os.urandom(200_000)
    connection.ask(push(data))
    send_turn = sending._send_turn

    def send_some(stream, reader, start):
        if start:
            raise OSError("Input/output error")
        return send_turn(stream, Beginning(reader), start)

    class Beginning:
        size = len(data) - 10

        def __init__(self, reader) -> None:
            self.fileno = reader.fileno

    monkeypatch.setattr(sending, "_send_turn", send_some)
    connection.send(get("/RETRIEVE?file_id=a.bin"))
    head, _, body = connection.rest().partition(b"\r\n\r\n")
    assert b"Content-Length: 200000" in head
    assert body == data[:-10]


# Lengths


@pytest.mark.parametrize("length", [b"", b"Content-Length: 0\r\n"])
@pytest.mark.parametrize("method", [b"POST", b"PUT"])
def test_a_push_without_a_length_is_refused_with_411(idle, method, length):
    for command in (b"ARCHIVE", b"QARCHIVE"):
        refused = idle.ask(method + b" /" + command + b"?filename=a.bin HTTP/1.1\r\n" + HEAD + length + b"\r\n")
        assert refused.line == "HTTP/1.1 411 Length Required"
        assert refused.message == "Content-Length is 0 or unknown"


def test_a_chunked_push_is_refused_with_411_and_the_connection_goes_on(idle):
    chunks = b"5\r\nhello\r\n0\r\n\r\n"
    refused = idle.ask(
        b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    )
    assert (refused.code, refused.message) == (411, "Content-Length is 0 or unknown")
    assert idle.ask(get("/STATUS")).code == 200


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: -1\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: 3 3\r\n",
        b"Content-Length: 0x3\r\n",
        b"Content-Length: abc\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
    ],
)
def test_an_ambiguous_length_ends_the_connection_and_nothing_behind_it_is_taken_for_a_request(
    idle_server, idle, idle_wire, headers
):
    smuggled = b"0\r\n\r\n" + push(b"smuggled", "smuggled.bin")
    idle.send(b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\n" + HEAD + headers + b"\r\n" + smuggled)
    refused = idle.reply()
    assert refused.code == 400
    assert refused.message.startswith("Malformed request: ")
    assert idle.rest() == b""
    assert idle_wire.rows() == []


def test_a_length_without_room_is_refused_at_once_by_a_client_that_waits_for_it(idle):
    refused = idle.ask(
        b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\n" + HEAD + b"Expect: 100-continue\r\n"
        b"Content-Length: 9000000000000000000\r\n\r\n"
    )
    assert (refused.code, refused.message[:15]) == (400, "No disk volumes")


# Expect: 100-continue


@pytest.mark.parametrize("size", [10, 200_000], ids=["small", "large"])
def test_a_client_that_waits_is_told_to_go_on_once(connection, size):
    data = os.urandom(size)
    connection.send(push(b"", more=b"Expect: 100-continue\r\n").replace(b"Length: 0", b"Length: %d" % size))
    assert connection.reply().line == "HTTP/1.1 100 Continue"
    assert connection.ask(data).code == 200
    assert connection.ask(get("/RETRIEVE?file_id=a.bin")).body == data


def test_a_client_that_waits_is_refused_before_it_sends(idle):
    refused = idle.ask(
        b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n"
    )
    assert refused.code == 400
    assert refused.headers["connection"] == "close"
    assert idle.rest() == b""


def test_an_http_1_0_client_gets_no_interim_reply(connection):
    assert connection.ask(push(b"abc", version="1.0", more=b"Expect: 100-continue\r\n")).code == 200


# Heads


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of TLS
        b"GET\r\n\r\n",
        b"GET /STATUS HTTP/9.9\r\n\r\n",
        b"GET /STATUS FTP/1.1\r\n\r\n",
        b"get /STATUS HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /STATUS HTTP/1.1\r\n\r\n",  # no Host
        b"GET /STATUS HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n\r\n",
        b"GET /STATUS HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        b"GET /STATUS HTTP/1.1\r\nHost: localhost\r\nA b: c\r\n\r\n",
        b"GET /STATUS HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET /STATUS HTTP/1.1\r\nHost: localhost\r\nX: a\n folded\r\n\r\n",
    ],
)
def test_what_is_no_request_is_answered_with_a_400_and_the_connection_closed(idle, idle_wire, caplog, request_):
    refused = idle.ask(request_)
    assert refused.code == 400
    assert refused.message.startswith("Malformed request: ")
    assert idle.rest() == b""
    assert idle_wire.get("STATUS").code == 200
    assert "Traceback" not in caplog.text


def test_a_long_query_is_taken_and_a_longer_one_refused(idle, idle_server, connections):
    assert "4019" in idle.ask(get("/STATUS?file_id=" + "x" * 60_000)).message
    refused = connections(idle_server).ask(get("/STATUS?file_id=" + "x" * 70_000))
    assert (refused.code, refused.message[:17]) == (400, "Malformed request")


def test_a_header_too_long_and_headers_too_many_are_refused(idle_server, connections):
    for headers in (b"X: " + b"x" * 10_000 + b"\r\n", b"".join(b"X%d: x\r\n" % number for number in range(200))):
        refused = connections(idle_server).ask(get("/STATUS", more=headers))
        assert (refused.code, refused.message[:17]) == (400, "Malformed request")


@pytest.mark.parametrize(
    "path", ["//STATUS", "/STATUS/", "/STATUS?", "/STATUS?&&=&x", "http://localhost/STATUS", "/%53TATUS"]
)
def test_the_same_command_can_be_written_in_several_ways(idle, path):
    assert idle.ask(get(path)).code == 200


@pytest.mark.parametrize(
    "path", ["/", "/status", "/STATUS/x", "/../STATUS", "/STATUS%00", "/STATUS;x", "/%C3%A9", "/%FF"]
)
def test_any_other_path_is_an_unknown_command(idle, path):
    refused = idle.ask(get(path))
    assert (refused.code, refused.message) == (404, "Command not found")


def test_plus_and_percent_mean_what_they_mean_in_a_query(connection):
    connection.ask(push(b"abc", "a.bin&file_id=a%2Bb+c%252F"))
    assert connection.ask(get("/RETRIEVE?file_id=a%2Bb%20c%252F")).body == b"abc"


@pytest.mark.parametrize("raw", [b"/STATUS?file_id=\xc3\xa9", b"/STATUS?file_id=\xff", b"/\xc3\xa9", b"*"])
def test_what_must_be_percent_encoded_is_refused_if_it_is_not(idle, raw):
    refused = idle.ask(b"GET " + raw + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (refused.code, refused.message[:17]) == (400, "Malformed request")


def test_a_parameter_breaks_out_of_no_header(connection):
    connection.ask(push(b"abc", "a%22%3B%20x%3D%22.bin"))
    reply = connection.ask(get("/RETRIEVE?file_id=a%22%3B%20x%3D%22.bin"))
    assert reply.headers["content-disposition"] == r'attachment; filename="a\"; x=\".bin"'
    for name in ("a%0d%0aX: y", "a%0aX: y", "a%00"):
        assert connection.ask(push(b"abc", name.replace(" ", "%20"))).code == 400


@pytest.mark.parametrize("method", ["DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_another_method_is_refused_with_405(idle, method):
    refused = idle.ask(f"{method} /STATUS HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert (refused.line, refused.message[:6]) == ("HTTP/1.1 405 Method Not Allowed", "Method")
    assert idle.ask(get("/STATUS")).code == 200


def test_head_is_refused_with_405_and_no_body(idle):
    idle.send(b"HEAD /STATUS HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    head, _, body = idle.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert body == b""


def test_a_body_sent_along_with_a_question_is_passed_over(idle):
    for _ in range(2):
        request = b"POST /STATUS HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\nfile_id=never_parsed"
        assert idle.ask(request).message == "Successfully handled command STATUS"


def test_a_content_encoding_is_left_as_it_is(connection):
    body = b"\x1f\x8b not really gzip"
    assert connection.ask(push(body, more=b"Content-Encoding: gzip\r\n")).code == 200
    reply = connection.ask(get("/RETRIEVE?file_id=a.bin", more=b"Accept-Encoding: gzip\r\n"))
    assert reply.body == body
    assert "content-encoding" not in reply.headers


def test_an_upgrade_is_passed_over(idle):
    more = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    assert idle.ask(get("/STATUS", more=more)).code == 200
