from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.archive import ArchiveOverloaded, ArchiveUnreachable, FileNotInArchive, NgasClient, NgasFileSystem

pytestmark = pytest.mark.integration

BUSY = b"HTTP/1.0 503 Service Unavailable\r\n\r\n"  # all that the real server says


def names(file_id: str) -> tuple[str, str]:
    return file_id, f"{file_id}.bin"


@pytest.fixture
def nobody() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as briefly:
        port: int = briefly.getsockname()[1]
    return port


def first(times: int, command: str, spoil: Callable[[Callable[[], bytes]], bytes]) -> Any:
    """An answer for the proxy that spoils the first replies to a command and lets the rest through."""
    left = [times]

    def answer(request: Any, forward: Callable[[], bytes]) -> bytes:
        if request.command == command and left[0]:
            left[0] -= 1
            return spoil(forward)
        return forward()

    return answer


def store_but_drop_the_reply(forward: Callable[[], bytes]) -> bytes:
    forward()
    return b""


def test_a_server_that_is_down_is_unreachable_and_the_error_says_what_to_do(nobody: int) -> None:
    client = NgasClient("127.0.0.1", nobody, patience=0)
    with pytest.raises(ConnectionError) as caught:
        client.server_status()
    assert isinstance(caught.value, ArchiveUnreachable)
    text = str(caught.value)
    assert f"127.0.0.1:{nobody}" in text
    assert "Connection refused" in text
    assert "Check that the server runs" in text


def test_a_server_that_is_down_is_not_an_empty_archive(nobody: int) -> None:
    fs = NgasFileSystem("127.0.0.1", nobody, patience=0, skip_instance_cache=True)
    for look in (fs.exists, fs.isfile, fs.isdir, fs.ls, fs.find, fs.glob, fs.info):
        with pytest.raises(ArchiveUnreachable):
            look("/a*" if look == fs.glob else "/a")


def test_a_busy_server_is_asked_again(proxied: NgasClient, proxy: Any, file_id: str) -> None:
    proxy.answer = first(2, "QARCHIVE", lambda forward: BUSY)
    assert proxied.archive(b"content", *names(file_id)).version == 1
    assert proxy.commands.count("QARCHIVE") == 3


def test_a_server_that_stays_busy_is_overloaded(proxy: Any) -> None:
    proxy.answer = lambda request, forward: BUSY
    client = NgasClient(proxy.host, proxy.port, patience=0.3)
    with pytest.raises(ArchiveOverloaded, match="MaxSimReqs"):
        client.server_status()
    assert len(proxy.requests) > 1


def test_without_patience_there_is_one_try(proxy: Any) -> None:
    proxy.answer = lambda request, forward: BUSY
    with pytest.raises(ArchiveOverloaded):
        NgasClient(proxy.host, proxy.port, patience=0).server_status()
    assert len(proxy.requests) == 1


def test_retries_are_logged_so_that_nobody_wonders_why_it_waits(
    proxied: NgasClient, proxy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.answer = first(1, "STATUS", lambda forward: b"")
    proxied.server_status()
    assert f"NGAS server {proxied.address}: the connection failed" in caplog.text


def test_a_refusal_is_not_tried_again(proxied: NgasClient, proxy: Any, file_id: str) -> None:
    with pytest.raises(FileNotInArchive):
        proxied.status(file_id)
    assert len(proxy.requests) == 1


def test_a_lost_reply_makes_no_second_version(proxied: NgasClient, proxy: Any, file_id: str) -> None:
    proxy.answer = first(1, "QARCHIVE", store_but_drop_the_reply)
    stored = proxied.archive(b"content", *names(file_id), known=None)
    assert proxy.commands == ["QARCHIVE", "STATUS"]
    assert [copy.version for copy in proxied.query(file_id)] == [stored.version] == [1]


def test_a_lost_reply_to_an_overwrite_leaves_the_new_content_only(
    proxied: NgasClient, proxy: Any, file_id: str
) -> None:
    proxied.archive(b"old", *names(file_id))
    proxy.answer = first(1, "QARCHIVE", store_but_drop_the_reply)
    stored = proxied.archive(b"new", *names(file_id))
    assert proxied.read(stored) == b"new"
    assert [copy.version for copy in proxied.query(file_id)] == [2]


def test_an_upload_that_never_arrived_is_sent_again(proxied: NgasClient, proxy: Any, file_id: str) -> None:
    proxy.answer = first(1, "QARCHIVE", lambda forward: b"")
    stored = proxied.archive(b"content", *names(file_id))
    assert proxied.read(stored) == b"content"
    assert stored.version == 1


def test_a_truncated_download_leaves_nothing_behind(proxy: Any, file_id: str, tmp_path: Path) -> None:
    client = NgasClient(proxy.host, proxy.port, patience=0)
    client.archive(b"content", *names(file_id))
    # Not a byte more after the first three: the next request meets a server that has gone.
    left = [1]

    def answer(request: Any, forward: Callable[[], bytes]) -> bytes:
        if request.command != "RETRIEVE":
            return forward()
        left[0] -= 1
        return forward()[:-4] if left[0] >= 0 else b""

    proxy.answer = answer
    with pytest.raises(ArchiveUnreachable):
        client.retrieve(file_id, tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_download_goes_on_where_it_broke(
    proxied: NgasClient, proxy: Any, file_id: str, tmp_path: Path
) -> None:
    content = bytes(range(256)) * (3 << 12)
    proxied.archive(content, *names(file_id))
    proxy.answer = first(1, "RETRIEVE", lambda forward: forward()[:-1000])
    proxied.retrieve(file_id, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    ranges = [request.header("Range") for request in proxy.requests if request.command == "RETRIEVE"]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert 1 << 20 <= int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= len(content) - 1000


def test_a_server_that_stops_sending_is_given_up_after_the_timeout(file_id: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = NgasClient("127.0.0.1", silent.getsockname()[1], timeout=0.1, patience=0)
        with pytest.raises(ArchiveUnreachable, match="timed out"):
            client.status(file_id)
