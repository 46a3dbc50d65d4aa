"""The server says no in time: a full archive, a full disk, too many requests at once."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dlg_ml_tasks.archive.server import EmbeddedNgas, Limits
from dlg_ml_tasks.archive.server.catalogue import Catalogue

NO_ROOM = "No disk volumes are available for ingesting any files."


@pytest.fixture
def small_archive(root, connect):
    with EmbeddedNgas(root, limits=Limits(capacity_bytes=1_000_000)) as server:
        yield connect(server.url)


def test_an_archive_takes_no_more_than_its_capacity_and_goes_on_serving(small_archive):
    wire = small_archive
    assert wire.push(bytes(600_000), filename="a.bin").code == 200
    refused = wire.push(bytes(600_000), filename="b.bin")
    assert (refused.code, refused.message[: len(NO_ROOM)]) == (400, NO_ROOM)
    assert wire.push(bytes(600_000), "ARCHIVE", filename="b.bin").message.startswith("NGAMS_AL_NO_STO_SETS:3014:ALERT")
    assert wire.push(bytes(400_000), filename="b.bin").code == 200
    assert wire.push(b"x", filename="c.bin").code == 400
    assert wire.get("RETRIEVE", file_id="a.bin").response.content == bytes(600_000)
    wire.get("DISCARD", file_id="b.bin", file_version=1, disk_id=wire.disk_id, execute=1)
    assert wire.push(b"x", filename="c.bin").code == 200


def test_concurrent_uploads_do_not_pass_the_capacity_together(small_archive, connect):
    def upload(number: int) -> int:
        return connect(small_archive.url).push(bytes(300_000), filename=f"{number}.bin").code

    with ThreadPoolExecutor(8) as threads:
        codes = list(threads.map(upload, range(8)))
    assert codes.count(200) <= 3
    assert set(codes) == {200, 400}
    # Nothing stays reserved for those that were refused.
    for row in small_archive.rows():
        named = {"file_id": row["file_id"], "file_version": 1, "disk_id": row["disk_id"]}
        small_archive.get("DISCARD", execute=1, **named)
    assert small_archive.push(bytes(1_000_000), filename="a.bin").code == 200


@pytest.mark.parametrize("size", [1000, 300_000])
def test_an_upload_broken_off_or_refused_leaves_its_room_to_others(small_archive, size):
    for _ in range(5):
        assert small_archive.push(bytes(size), filename="a.bin", headers={"NGAS-File-CRC": "1"}).code == 400
        host, _, port = small_archive.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as upload:
            upload.sendall(
                b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\nabc" % size
            )
    while small_archive.push(bytes(1_000_000), filename="b.bin").code != 200:
        time.sleep(0.01)  # until the server has noticed that the last one is gone
    assert len(small_archive.rows()) == 1


@pytest.mark.parametrize("size", [1000, 300_000])
def test_a_catalogue_that_fills_its_disk_refuses_and_goes_on_serving(root, wire, monkeypatch, size):
    """SQLite gives the same error for its own limit on the size of a database as for a full disk."""
    for number in range(5):
        wire.push(bytes(1000), filename=f"{number}.bin", file_id=f"kept{number}")
    with contextlib.closing(sqlite3.connect(root / "catalogue.sqlite")) as database:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
    codes = []
    with limited(monkeypatch, pages):
        for number in range(200):
            name = f"{'n' * 200}{number}"
            answer = wire.push(bytes(size), filename=f"{name}.bin", file_id=name)
            codes.append(answer.code)
            if answer.code != 200:
                assert answer.message.startswith(NO_ROOM)
            if codes.count(400) == 3:
                break
        assert codes.count(400) == 3
        assert wire.get("RETRIEVE", file_id="kept0").response.content == bytes(1000)
        assert len(wire.rows()) == 5 + codes.count(200)
    assert len(list((root / "volume1" / "objects").glob("*/*"))) == (codes.count(200) if size == 300_000 else 0)
    assert wire.push(bytes(size), filename="again.bin").code == 200


@contextlib.contextmanager
def limited(monkeypatch, pages: int) -> Iterator[None]:
    """Within it no change may make the database larger than `pages`."""
    register = Catalogue.register

    def set_limit(count: int) -> None:
        def registering(self, new, overwrite=None):
            self.change(lambda connection: connection.execute(f"PRAGMA max_page_count = {count}").fetchall()).result()
            return register(self, new, overwrite)

        monkeypatch.setattr(Catalogue, "register", registering)

    set_limit(pages)
    yield
    set_limit(2**30)


def test_a_request_too_many_gets_the_503_of_an_overloaded_ngas(root, connect):
    with EmbeddedNgas(root, limits=Limits(max_requests=2)) as server:
        address = (server.host, server.port)
        head = (
            b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"
        )
        with socket.create_connection(address) as first, socket.create_connection(address) as second:
            for upload in (first, second):
                upload.sendall(head + b"some")
            while len(list((root / "volume1" / "staging").iterdir())) < 2:
                time.sleep(0.01)
            with socket.create_connection(address) as third:
                third.settimeout(30)
                third.sendall(b"GET /STATUS HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = b""
                while piece := third.recv(1000):
                    answer += piece
                assert answer == b"HTTP/1.0 503 Service Unavailable\r\n\r\n"
            for upload in (first, second):
                upload.settimeout(30)
                upload.sendall(bytes(1_000_000 - 4))
                assert upload.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert connect(server.url).get("STATUS").code == 200
