"""What is answered SUCCESS is kept; what is not leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import requests

from dlg_ml_tasks.archive.server import EmbeddedNgas, Limits, ServerStartError
from dlg_ml_tasks.archive.server.vault import StagedFile


def objects(root: Path) -> list[Path]:
    return list((root / "volume1" / "objects").glob("*/*"))


def staged(root: Path) -> list[Path]:
    return list((root / "volume1" / "staging").iterdir())


def test_a_restart_keeps_everything(root, connect):
    with EmbeddedNgas(root) as server:
        wire = connect(server.url)
        for data in (b"one", b"two"):
            wire.push(data, filename="é.bin")
        before, disk_id = wire.rows(), wire.disk_id
    with EmbeddedNgas(root) as server:
        wire = connect(server.url)
        assert (wire.rows(), wire.disk_id) == (before, disk_id)
        assert wire.get("RETRIEVE", file_id="é.bin", file_version=1).response.content == b"one"
        assert wire.push(b"three", filename="é.bin").file["FileVersion"] == "3"


@pytest.mark.integration
def test_a_server_killed_in_the_middle_of_an_upload_has_the_older_files_and_no_part_of_the_new(
    root, run_server, connect
):
    with run_server() as server:
        connect(server.url).push(b"old", filename="a.bin")
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as upload:
            upload.sendall(
                b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/octet-stream\r\nContent-Length: 50000000\r\n\r\n" + bytes(20_000_000)
            )
            assert staged(root)
            server.kill()
    with run_server() as server:
        wire = connect(server.url)
        assert [row["file_version"] for row in wire.rows()] == [1]
        assert wire.get("RETRIEVE", file_id="a.bin").response.content == b"old"
        assert staged(root) == []
        assert objects(root) == []


@pytest.mark.integration
@pytest.mark.parametrize("acknowledged_before", [1, 20, 60])
def test_a_server_killed_at_any_moment_has_every_acknowledged_file_and_only_whole_ones(
    root, run_server, connect, acknowledged_before
):
    # Every other one is large enough to be an object of a volume, the others are kept in the catalogue.
    contents = {
        f"{thread}-{number}": os.urandom(100_000 if number % 2 else 20_000)
        for thread in range(4)
        for number in range(100)
    }
    acknowledged: set[str] = set()
    enough = threading.Event()

    def upload(url: str, thread: int) -> None:
        wire = connect(url)
        for number in range(100):
            file_id = f"{thread}-{number}"
            with contextlib.suppress(requests.RequestException):
                if wire.push(contents[file_id], filename="a.bin", file_id=file_id).code == 200:
                    acknowledged.add(file_id)
            if len(acknowledged) >= acknowledged_before:
                enough.set()

    with run_server() as server:
        threads = [threading.Thread(target=upload, args=(server.url, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        assert enough.wait(60)
        server.kill()
        for thread in threads:
            thread.join()
    with run_server() as server:
        wire = connect(server.url)
        kept = {row["file_id"] for row in wire.rows()}
        assert acknowledged <= kept
        for file_id in kept:
            assert wire.get("RETRIEVE", file_id=file_id).response.content == contents[file_id]
            assert wire.get("CHECKFILE", file_id=file_id).message.startswith("NGAMS_INFO_FILE_OK")
        assert len(objects(root)) == len([file_id for file_id in kept if len(contents[file_id]) == 100_000])
        assert staged(root) == []


@pytest.mark.integration
def test_a_server_killed_during_200_uploads_at_once_has_the_acknowledged_ones_and_nothing_else(
    root, run_server, connect
):
    contents = {f"f{number}": os.urandom((1_000, 50_000, 300_000)[number % 3]) for number in range(200)}
    acknowledged: set[str] = set()
    all_begun = threading.Barrier(200)
    enough = threading.Event()

    def upload(address: tuple[str, int], file_id: str) -> None:
        data = contents[file_id]
        head = (
            f"POST /QARCHIVE?filename=same.bin&file_id={file_id} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        with contextlib.suppress(OSError), socket.create_connection(address) as connection:
            connection.sendall(head.encode() + data[:100])
            all_begun.wait(60)
            connection.sendall(data[100:])
            if connection.recv(100).startswith(b"HTTP/1.1 200 "):
                acknowledged.add(file_id)
                if len(acknowledged) >= 50:
                    enough.set()

    with run_server() as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        threads = [threading.Thread(target=upload, args=((host, int(port)), file_id)) for file_id in contents]
        for thread in threads:
            thread.start()
        assert enough.wait(60)
        server.kill()
        for thread in threads:
            thread.join()
    with run_server() as server:
        wire = connect(server.url)
        kept = {str(row["file_id"]) for row in wire.rows()}
        assert acknowledged <= kept
        for file_id in kept:
            assert wire.get("RETRIEVE", file_id=file_id).response.content == contents[file_id]
            assert wire.get("CHECKFILE", file_id=file_id).message.startswith("NGAMS_INFO_FILE_OK")
        large = [file_id for file_id in kept if len(contents[file_id]) == 300_000]
        assert len(objects(root)) == len(large)
        assert staged(root) == []
        disk = wire.get("STATUS", disk_id=wire.disk_id).disk
        assert disk["NumberOfFiles"] == str(len(kept))


@pytest.mark.integration
def test_an_upload_under_way_is_finished_before_the_server_stops(root, run_server, connect):
    with run_server() as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as upload:
            upload.sendall(
                b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/octet-stream\r\nContent-Length: 4000000\r\n\r\n" + bytes(3_000_000)
            )
            while not staged(root):  # until the server has begun to receive
                time.sleep(0.01)
            server.process.terminate()
            upload.sendall(bytes(1_000_000))
            assert upload.recv(100).startswith(b"HTTP/1.1 200 ")
        assert server.process.wait(30) == 0
    with run_server() as server:
        assert connect(server.url).get("STATUS", file_id="a.bin").file["FileSize"] == "4000000"


def test_bytes_without_a_row_are_removed_at_the_start_and_rows_without_bytes_reported(root, connect, caplog):
    kept, lost = (bytes([number]) * 100_000 for number in (1, 2))
    with EmbeddedNgas(root) as server:
        wire = connect(server.url)
        wire.push(kept, filename="kept.bin")
        wire.push(lost, filename="lost.bin")
    (gone,) = [path for path in objects(root) if path.read_bytes() == lost]
    gone.unlink()
    orphan = gone.with_name("0" * 40)
    orphan.write_bytes(b"orphan")
    (root / "volume1" / "staging" / "left").write_bytes(b"left")
    with EmbeddedNgas(root) as server:
        assert connect(server.url).get("RETRIEVE", file_id="kept.bin").response.content == kept
    assert staged(root) == []
    assert len(objects(root)) == 1
    assert f"Removing {orphan}" in caplog.text
    assert f"{gone} is registered, but its bytes are gone" in caplog.text


def test_files_are_not_removed_because_the_catalogue_was_lost(root, connect):
    with EmbeddedNgas(root) as server:
        connect(server.url).push(b"precious" * 10_000, filename="a.bin")
    for path in root.glob("catalogue.sqlite*"):
        path.unlink()
    for _ in range(2):
        with pytest.raises(ServerStartError, match=r"catalogue.sqlite is missing.* Restore .* from a backup"):
            EmbeddedNgas(root).__enter__()
    assert [path.read_bytes() for path in objects(root)] == [b"precious" * 10_000]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("ARCHIVE", "NGAMS_AL_NO_STO_SETS:3014:ALERT: "),
        ("QARCHIVE", "No disk volumes are available for ingesting any files."),
    ],
)
def test_a_file_that_would_fill_the_disk_is_refused_and_the_answer_arrives(root, connect, command, message):
    with EmbeddedNgas(root, limits=Limits(minimum_free_bytes=2**60)) as server:
        wire = connect(server.url)
        refused = wire.push(bytes(10_000_000), command, filename="a.bin")
        assert (refused.code, refused.failed) == (400, True)
        assert refused.message.startswith(message)
        assert wire.get("STATUS").code == 200
    assert staged(root) == objects(root) == []


def test_a_disk_that_fills_up_during_an_upload_keeps_nothing_of_it(root, wire, monkeypatch):
    # A full file system cannot be had without privileges; the system's answer on one is put in its place.
    write = StagedFile.write

    def write_until_full(self: StagedFile, pieces: Sequence[bytes]) -> None:
        if self.size:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, pieces)

    monkeypatch.setattr(StagedFile, "write", write_until_full)
    refused = wire.push(bytes(5_000_000), filename="a.bin")
    assert (refused.code, refused.message[:16]) == (400, "No disk volumes ")
    assert staged(root) == objects(root) == wire.rows() == []
    monkeypatch.undo()
    assert wire.push(bytes(5_000_000), filename="a.bin").code == 200


def test_a_catalogue_that_cannot_be_written_keeps_nothing_of_an_upload(root, wire):
    with sqlite3.connect(root / "catalogue.sqlite") as database:
        database.execute("CREATE TRIGGER broken BEFORE INSERT ON files BEGIN SELECT RAISE(ABORT, 'broken'); END")
    database.close()
    for size in (1, 100_000):
        refused = wire.push(bytes(size), filename="a.bin")
        assert refused.code == 400
        assert refused.message.startswith("NGAMS_ER_REQ_HANDLING:4010:ERROR: ")
    assert staged(root) == objects(root) == []


@pytest.mark.parametrize("size", [100, 1_000_000])
def test_an_upload_from_which_nothing_comes_is_given_up(root, size):
    with (
        EmbeddedNgas(root, limits=Limits(stall_seconds=0.1)) as server,
        socket.create_connection((server.host, server.port)) as upload,
    ):
        upload.settimeout(30)
        upload.sendall(
            b"POST /QARCHIVE?filename=a.bin HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\nabc" % size
        )
        answer = b""
        while piece := upload.recv(10_000):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"No data for 0.1 seconds" in answer
        assert staged(root) == objects(root) == []


@pytest.mark.integration
def test_a_large_file_needs_little_memory_in_both_directions(root, run_server, connect):
    size, block = 128 * 2**20, os.urandom(2**20)

    class Zeros:
        """A body of known length that is never in memory as a whole."""

        def __init__(self) -> None:
            self.left = size

        def __len__(self) -> int:
            return size

        def read(self, _: int) -> bytes:
            self.left -= len(block)
            return block if self.left >= 0 else b""

    def peak(pid: int) -> int:
        (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024

    with run_server() as server:
        wire = connect(server.url)
        wire.push(b"warm", filename="warm.bin")
        before = peak(server.process.pid)
        assert wire.push(Zeros(), filename="big.bin").file["FileSize"] == str(size)
        received = hashlib.sha256()
        with wire.session.get(f"{server.url}/RETRIEVE?file_id=big.bin", stream=True, timeout=60) as response:
            for piece in response.iter_content(2**20):
                received.update(piece)
        grown = peak(server.process.pid) - before
    expected = hashlib.sha256()
    for _ in range(size // len(block)):
        expected.update(block)
    assert received.digest() == expected.digest()
    assert grown < 32 * 2**20
