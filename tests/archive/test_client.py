from __future__ import annotations

import io
import time
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.archive import (
    ArchiveFull,
    ArchiveOffline,
    ArchiveUnreachable,
    ChecksumMismatch,
    FileNotInArchive,
    NgasClient,
    NgasError,
    NgasFileSystem,
    ProtocolError,
)
from dlg_ml_tasks.archive.checksums import Checksum, checksum_of
from dlg_ml_tasks.archive.server import EmbeddedNgas

pytestmark = pytest.mark.integration

Build = Callable[..., bytes]


def names(file_id: str) -> tuple[str, str]:
    return file_id, f"{file_id}.bin"


def versions(client: NgasClient, file_id: str) -> list[int]:
    return sorted(copy.version for copy in client.query(file_id))


def test_bytes_come_back_as_they_went(client: NgasClient, file_id: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    stored = client.archive(content, *names(file_id))
    assert (stored.size, stored.checksum, stored.version) == (len(content), checksum_of(content, "crc32c"), 1)
    assert client.status(file_id) == stored
    assert client.retrieve(file_id, tmp_path / "back") == stored
    assert (tmp_path / "back").read_bytes() == content
    assert list(tmp_path.iterdir()) == [tmp_path / "back"]


def test_a_file_and_an_open_stream_can_be_archived(client: NgasClient, file_id: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"from disk")
    assert client.archive(source, *names(file_id)).size == 9
    stream = io.BytesIO(b"from a stream")
    stream.read()  # it is rewound
    assert client.archive(stream, *names(f"{file_id}2")).size == 13


def test_an_empty_source_is_refused_before_anything_is_sent(client: NgasClient, file_id: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        client.archive(b"", *names(file_id))
    assert client.find(file_id) is None


def test_what_is_not_there_is_a_file_not_found_error_that_names_it(client: NgasClient, file_id: str) -> None:
    assert client.find(file_id) is None
    for command in (client.status, client.delete, client.checkfile):
        with pytest.raises(FileNotFoundError, match=file_id) as caught:
            command(file_id)
        assert isinstance(caught.value, FileNotInArchive)
        assert caught.value.server == str(client.address)


def test_a_missing_file_leaves_no_file_at_the_destination(client: NgasClient, file_id: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotInArchive):
        client.retrieve(file_id, tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


def test_overwriting_leaves_only_the_new_version(client: NgasClient, file_id: str) -> None:
    client.archive(b"old", *names(file_id))
    stored = client.archive(b"newer", *names(file_id))
    assert versions(client, file_id) == [stored.version]
    assert client.read(stored) == b"newer"


def test_overwriting_leaves_files_alone_whose_ids_begin_alike(client: NgasClient, file_id: str) -> None:
    other = f"{file_id}x"
    client.archive(b"other", *names(other))
    client.archive(b"old", *names(file_id))
    client.archive(b"new", *names(file_id))
    client.delete(file_id)
    assert client.read(client.status(other)) == b"other"


def test_overwriting_leaves_files_alone_whose_ids_match_as_a_pattern(client: NgasClient, file_id: str) -> None:
    client.archive(b"other", *names(f"{file_id}xa"))
    client.archive(b"other", *names(f"{file_id}_A"))
    for content in (b"old", b"new"):
        client.archive(content, *names(f"{file_id}_a"))
    client.delete(f"{file_id}_a")
    assert client.find(f"{file_id}xa") is not None
    assert client.find(f"{file_id}_A") is not None


def test_the_same_content_is_not_sent_again(proxied: NgasClient, proxy: Any, file_id: str) -> None:
    first = proxied.archive(b"same", *names(file_id))
    proxy.requests.clear()
    assert proxied.archive(b"same", *names(file_id)) == first
    assert proxy.commands == ["STATUS"]


def test_the_same_content_under_another_filename_is_sent(client: NgasClient, file_id: str) -> None:
    client.archive(b"same", *names(file_id))
    assert client.archive(b"same", file_id, f"{file_id}.empty.bin").filename == f"{file_id}.empty.bin"


def test_what_a_caller_knows_is_not_asked_again(proxied: NgasClient, proxy: Any, file_id: str, tmp_path: Path) -> None:
    stored = proxied.archive(b"content", *names(file_id), known=None)
    proxied.retrieve(file_id, tmp_path / "back", known=stored)
    assert proxy.commands == ["QARCHIVE", "RETRIEVE"]


def test_a_caller_who_knows_wrongly_still_leaves_one_version(client: NgasClient, file_id: str) -> None:
    client.archive(b"written by someone else", *names(file_id))
    stored = client.archive(b"mine", *names(file_id), known=None)
    assert versions(client, file_id) == [stored.version]


def test_delete_takes_every_version(client: NgasClient, server: EmbeddedNgas, file_id: str, http_reply: Build) -> None:
    no_discard = NgasClient(server.host, server.port, patience=0)
    no_discard.discard_all = lambda copies: None  # type: ignore[method-assign]  # as a writer that died in between
    for content in (b"1", b"22", b"333"):
        no_discard.archive(content, *names(file_id))
    assert versions(client, file_id) == [1, 2, 3]
    client.delete(file_id)
    assert versions(client, file_id) == []
    assert client.archive(b"again", *names(file_id)).size == 5


def test_an_archive_that_only_says_it_discards_is_found_out(
    proxied: NgasClient, proxy: Any, file_id: str, http_reply: Build
) -> None:
    proxied.archive(b"content", *names(file_id))
    pretended = '<NgamsStatus><Status Status="SUCCESS" Message="NGAMS_INFO_DISCARD_OK:4066:INFO: done"/></NgamsStatus>'
    proxy.answer = lambda request, forward: http_reply(200, pretended) if request.command == "DISCARD" else forward()
    with pytest.raises(ProtocolError, match="still has it"):
        proxied.delete(file_id)


def test_ranges_are_exact(client: NgasClient, file_id: str) -> None:
    content = bytes(range(250))
    status = client.archive(content, *names(file_id))
    for start, end in [(0, 250), (0, 1), (1, 250), (100, 150), (249, 250), (250, 250), (10, 9999)]:
        assert client.read(status, start, end) == content[start:end]


def test_a_range_takes_no_more_of_the_file_than_it_needs(proxied: NgasClient, proxy: Any, file_id: str) -> None:
    status = proxied.archive(b"0123456789", *names(file_id))
    assert proxied.read(status, 4, 6) == b"45"
    assert proxy.requests[-1].header("Range") == "bytes=4-"


def test_files_are_streamed_in_bounded_memory(client: NgasClient, file_id: str, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    with source.open("wb") as sink:
        for number in range(64):
            sink.write(bytes([number]) * (1 << 20))
    # The server's thread shares this process, and streams too: the bound holds for both together.
    tracemalloc.start()
    try:
        client.archive(source, *names(file_id))
        client.retrieve(file_id, back)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20
    assert back.stat().st_size == 64 << 20
    client.delete(file_id)


class Restless(io.BytesIO):
    """A long source that is another one from the third reading on: after its size was found, and its checksum."""

    def __init__(self, later: bytes) -> None:
        super().__init__(b"first" * 1_000_001)
        self._later = later
        self._readings = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        if (offset, whence) == (0, 0):
            self._readings += 1
        if self._readings == 3:
            super().seek(0)
            self.truncate()
            self.write(self._later)
        return super().seek(offset, whence)


def test_a_source_that_changes_while_it_is_sent_is_refused_by_the_server(client: NgasClient, file_id: str) -> None:
    with pytest.raises(ChecksumMismatch, match="Checksum error"):
        client.archive(Restless(b"later" * 1_000_001), *names(file_id))
    assert client.find(file_id) is None


def test_a_source_that_shrinks_while_it_is_sent_is_an_error_at_once(client: NgasClient, file_id: str) -> None:
    with pytest.raises(ChecksumMismatch, match="it had 5000005 bytes, then 2500000"):
        client.archive(Restless(b"later" * 500_000), *names(file_id))
    assert client.find(file_id) is None


def test_a_source_that_grows_while_it_is_sent_is_not_taken_for_two_requests(client: NgasClient, file_id: str) -> None:
    stored = client.archive(Restless(b"first" * 1_000_001 + b"GET /EXIT HTTP/1.1\r\n\r\n"), *names(file_id))
    assert client.read(client.status(file_id)) == b"first" * 1_000_001
    assert stored.version == 1


def test_a_source_that_cannot_be_read_raises_its_own_error(client: NgasClient, file_id: str) -> None:
    class Worn(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 2 << 20:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(OSError, match="Input/output error") as caught:
        client.archive(Worn(bytes(4 << 20)), *names(file_id))
    assert not isinstance(caught.value, NgasError)


def test_a_server_without_crc32c_is_sent_crc32_from_then_on(
    proxied: NgasClient, proxy: Any, file_id: str, http_reply: Build
) -> None:
    refusal = '<NgamsStatus><Status Status="FAILURE" Message="Intel SSE 4.2 CRC32c instruction is not available"/></NgamsStatus>'
    proxy.answer = lambda request, forward: (
        http_reply(400, refusal) if b"crc_variant=crc32c" in request.head else forward()
    )
    stored = proxied.archive(b"content", *names(file_id), known=None)
    assert stored.checksum == Checksum("crc32", zlib.crc32(b"content"))
    proxied.archive(b"content", *names(f"{file_id}2"), known=None)
    assert proxy.commands == ["QARCHIVE", "QARCHIVE", "QARCHIVE"]
    assert proxied.read(stored) == b"content"


def test_content_is_compared_by_the_checksum_that_the_archive_recorded(
    proxied: NgasClient, proxy: Any, file_id: str
) -> None:
    proxy.answer = lambda request, forward: forward()
    with_crc32 = NgasClient(proxy.host, proxy.port, patience=0, archive_command="ARCHIVE")
    with_crc32._connection.shared.algorithm = "crc32"
    first = with_crc32.archive(b"content" * 300_000, *names(file_id))
    assert first.checksum == Checksum("crc32", zlib.crc32(b"content" * 300_000))
    with_crc32._connection.shared.algorithm = "crc32c"
    proxy.requests.clear()
    assert proxied.archive(b"content" * 300_000, *names(file_id)) == first
    assert proxy.commands == ["STATUS"]


def test_nothing_is_discarded_for_a_version_that_the_archive_does_not_list(
    proxied: NgasClient, client: NgasClient, proxy: Any, file_id: str
) -> None:
    proxy.answer = lambda request, forward: (
        forward().replace(b'FileVersion="1"', b'FileVersion="5"') if request.command == "QARCHIVE" else forward()
    )
    with pytest.raises(ProtocolError, match="version 5 was acknowledged and is not listed"):
        proxied.archive(b"content", *names(file_id))
    assert client.read(client.status(file_id)) == b"content"


def test_a_server_that_stores_under_another_filename_is_found_out(
    proxied: NgasClient, proxy: Any, file_id: str
) -> None:
    proxy.answer = lambda request, forward: forward().replace(b".bin&quot;", b".b1n").replace(b'.bin"', b'.b1n"')
    with pytest.raises(ProtocolError, match="asked for the filename"):
        proxied.archive(b"content", *names(file_id))


def test_a_server_that_records_other_bytes_than_were_sent_is_found_out(
    proxied: NgasClient, proxy: Any, file_id: str
) -> None:
    proxy.answer = lambda request, forward: forward().replace(b'FileSize="7"', b'FileSize="8"')
    with pytest.raises(ChecksumMismatch, match="the archive recorded 8 bytes"):
        proxied.archive(b"content", *names(file_id))


def test_a_damaged_download_leaves_nothing_behind(
    proxied: NgasClient, proxy: Any, file_id: str, tmp_path: Path
) -> None:
    proxied.archive(b"precious", *names(file_id))
    proxy.answer = lambda request, forward: forward().replace(b"precious", b"prec1ous")
    target = tmp_path / "back"
    target.write_bytes(b"what was here before")
    with pytest.raises(ChecksumMismatch, match="received bytes with checksum crc32c:"):
        proxied.retrieve(file_id, target)
    assert target.read_bytes() == b"what was here before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_server_that_answers_with_another_range_is_found_out(
    proxied: NgasClient, proxy: Any, file_id: str, http_reply: Build
) -> None:
    status = proxied.archive(b"0123456789", *names(file_id))
    proxy.answer = lambda request, forward: http_reply(200, b"0123456789")
    with pytest.raises(ProtocolError, match="asked for 6 bytes from byte 4, was offered 10 from 0"):
        proxied.read(status, 4)


def test_the_server_checks_the_version_that_is_there(client: NgasClient, file_id: str) -> None:
    client.archive(b"old", *names(file_id))
    client.archive(b"new", *names(file_id))
    assert client.checkfile(file_id).version == 2


def test_damage_that_the_server_calls_a_success_is_an_error(
    proxied: NgasClient, proxy: Any, file_id: str, http_reply: Build
) -> None:
    proxied.archive(b"content", *names(file_id))
    damaged = (
        '<NgamsStatus><Status Status="SUCCESS" '
        'Message="NGAMS_ER_FILE_NOK:4057:ERROR: Inconsistent checksum found"/></NgamsStatus>'
    )
    proxy.answer = lambda request, forward: http_reply(200, damaged) if request.command == "CHECKFILE" else forward()
    with pytest.raises(ChecksumMismatch, match="Inconsistent checksum"):
        proxied.checkfile(file_id)


def test_a_failure_in_a_reply_with_http_200_is_an_error(client: NgasClient, file_id: str) -> None:
    status = client.archive(b"content", *names(file_id))
    client.discard(status)
    with pytest.raises(FileNotInArchive):
        client.discard(status)


def test_an_unknown_failure_in_a_reply_with_http_200_is_an_error(
    proxied: NgasClient, proxy: Any, http_reply: Build
) -> None:
    failure = '<NgamsStatus><Status Status="FAILURE" Message="it did not work"/></NgamsStatus>'
    proxy.answer = lambda request, forward: http_reply(200, failure)
    with pytest.raises(ProtocolError, match="it did not work"):
        proxied.server_status()


def test_an_offline_server_says_so(proxied: NgasClient, proxy: Any, file_id: str, http_reply: Build) -> None:
    offline = '<NgamsStatus><Status Status="FAILURE" Message="NGAMS_ER_IMPROPER_STATE:4015:ERROR: OFFLINE/IDLE"/></NgamsStatus>'
    proxy.answer = lambda request, forward: http_reply(400, offline)
    with pytest.raises(ArchiveOffline, match="ONLINE command"):
        proxied.archive(b"content", *names(file_id))


def test_something_that_is_no_ngas_server_is_recognised(proxied: NgasClient, proxy: Any, http_reply: Build) -> None:
    proxy.answer = lambda request, forward: http_reply(200, "<html><body>Welcome to nginx</body></html>")
    with pytest.raises(ProtocolError, match="not a status document"):
        proxied.server_status()


def test_a_reply_without_end_is_cut_off(
    proxied: NgasClient, proxy: Any, http_reply: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlg_ml_tasks.archive.connection.MAX_STATUS_BYTES", 1000)
    proxy.answer = lambda request, forward: http_reply(200, b"<" * 2000)
    with pytest.raises(ProtocolError, match="longer than 1000 bytes"):
        proxied.server_status()


def test_a_web_proxy_of_the_environment_is_not_used(client: NgasClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert client.server_status().success


def test_old_versions_that_may_not_be_discarded_do_not_fail_the_write(
    proxied: NgasClient, proxy: Any, file_id: str, http_reply: Build, caplog: pytest.LogCaptureFixture
) -> None:
    proxied.archive(b"old", *names(file_id))
    proxy.answer = lambda request, forward: http_reply(403, "no") if request.command == "DISCARD" else forward()
    stored = proxied.archive(b"new", *names(file_id))
    assert proxied.read(stored) == b"new"
    assert "older versions" in caplog.text


def test_a_connection_dropped_for_want_of_space_is_an_archive_that_is_full(
    proxy: Any, file_id: str, http_reply: Build
) -> None:
    client = NgasClient(proxy.host, proxy.port, patience=0)
    answers = {"QARCHIVE": b"", "QUERY": http_reply(200, '[{"disk_id": "d", "mounted": 1, "available_mb": 0}]')}
    proxy.answer = lambda request, forward: (
        answers.get(request.command) or (b"" if request.command in answers else forward())
    )
    with pytest.raises(ArchiveFull, match="does not fit on a volume with 0 MB free"):
        client.archive(b"content", *names(file_id))


def test_a_dropped_connection_with_space_left_stays_what_it_is(proxy: Any, file_id: str) -> None:
    client = NgasClient(proxy.host, proxy.port, patience=0)
    proxy.answer = lambda request, forward: b"" if request.command == "QARCHIVE" else forward()
    with pytest.raises(ArchiveUnreachable):
        client.archive(b"content", *names(file_id))


def test_many_threads_writing_one_file_leave_one_whole_version(client: NgasClient, file_id: str) -> None:
    contents = [bytes([number]) * (number + 1) for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda content: client.archive(content, *names(file_id)), contents))
    assert len(versions(client, file_id)) == 1
    assert client.read(client.checkfile(file_id)) in contents


def test_one_file_is_written_by_one_thread_at_a_time(proxied: NgasClient, proxy: Any, file_id: str) -> None:
    # The real server gives concurrent uploads of one id the same version.
    under_way, most = [0], [0]

    def answer(request: Any, forward: Callable[[], bytes]) -> bytes:
        if request.command != "QARCHIVE":
            return forward()
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        time.sleep(0.02)
        reply = forward()
        under_way[0] -= 1
        return reply

    proxy.answer = answer
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: proxied.archive(b"content %d" % number, *names(file_id)), range(4)))
    assert most == [1]


def test_a_cluster_node_that_has_not_the_file_is_left_for_the_one_that_has(
    proxied: NgasClient, proxy: Any, server: EmbeddedNgas, file_id: str, http_reply: Build
) -> None:
    status = proxied.archive(b"content", *names(file_id))

    def elsewhere(request: Any, forward: Callable[[], bytes]) -> bytes:
        target = request.head.split(b" ")[1].decode()
        return http_reply(303, "", Location=f"http://{server.host}:{server.port}{target}")

    proxy.answer = elsewhere
    assert proxied.read(status) == b"content"


def test_ids_with_characters_of_urls_are_quoted(client: NgasClient, file_id: str) -> None:
    hard = f"{file_id} a&b=c#d+e%41;f"
    stored = client.archive(b"content", hard, f"{file_id}.bin")
    assert stored.file_id == hard
    assert client.read(client.status(hard)) == b"content"
    client.delete(hard)


def test_a_full_disk_here_is_not_mistaken_for_the_archives(client: NgasClient, file_id: str) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    status = client.archive(b"content", *names(file_id))
    with pytest.raises(OSError, match="No space left") as caught:
        client.copy_to(status, Full())
    assert not isinstance(caught.value, ArchiveFull)


def test_the_url_scheme_is_known_to_fsspec_by_itself(server: EmbeddedNgas) -> None:
    import fsspec

    fs, path = fsspec.url_to_fs(f"ngas://{server.host}:{server.port}/a b/c#d?e")
    assert isinstance(fs, NgasFileSystem)
    assert path == "/a b/c#d?e"
    assert fs.unstrip_protocol(path) == f"ngas://{server.host}:{server.port}/a b/c#d?e"
