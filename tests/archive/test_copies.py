"""Copies of a file on several disks, what the archive tells of its disks, and who is sent new files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from dlg_ml_tasks.archive import ArchiveFull, Conflict, FileNotInArchive, NgasClient
from dlg_ml_tasks.archive.server import EmbeddedNgas

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def two_disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNgas]:
    with EmbeddedNgas(tmp_path_factory.mktemp("two"), volumes=2) as running:
        yield running


@pytest.fixture
def client(two_disks: EmbeddedNgas) -> NgasClient:
    return NgasClient(two_disks.host, two_disks.port, timeout=10, patience=0)


@pytest.fixture
def proxied(two_disks: EmbeddedNgas, proxy: Any) -> NgasClient:
    proxy._upstream = (two_disks.host, two_disks.port)
    return NgasClient(proxy.host, proxy.port, timeout=10, patience=5)


def disks_of(client: NgasClient, file_id: str) -> set[str]:
    return {copy.disk_id for copy in client.query(file_id)}


def test_a_clone_is_a_verified_copy_on_another_disk(client: NgasClient, file_id: str) -> None:
    original = client.archive(b"content", file_id, f"{file_id}.bin")
    copy = client.clone(file_id)
    assert (copy.file_id, copy.version, copy.size, copy.checksum) == (
        original.file_id,
        original.version,
        original.size,
        original.checksum,
    )
    assert disks_of(client, file_id) == {original.disk_id, copy.disk_id} == {disk.disk_id for disk in client.disks()}


def test_a_disk_can_be_named_for_the_clone(client: NgasClient, file_id: str) -> None:
    original = client.archive(b"content", file_id, f"{file_id}.bin")
    (other,) = {disk.disk_id for disk in client.disks()} - {original.disk_id}
    assert client.clone(file_id, other).disk_id == other


def test_the_latest_version_is_cloned(client: NgasClient, file_id: str) -> None:
    client.archive(b"old", file_id, f"{file_id}.bin")
    new = client.archive(b"new", file_id, f"{file_id}.bin")
    assert client.clone(file_id).version == new.version


def test_without_another_disk_there_is_no_clone(client: NgasClient, file_id: str) -> None:
    client.archive(b"content", file_id, f"{file_id}.bin")
    client.clone(file_id)
    with pytest.raises(ArchiveFull):
        client.clone(file_id)


def test_what_is_not_there_is_not_cloned(client: NgasClient, file_id: str) -> None:
    with pytest.raises(FileNotInArchive):
        client.clone(file_id)


def test_one_copy_can_be_discarded_and_the_other_is_read(client: NgasClient, file_id: str) -> None:
    original = client.archive(b"content", file_id, f"{file_id}.bin")
    copy = client.clone(file_id)
    client.discard(original)
    assert disks_of(client, file_id) == {copy.disk_id}
    assert client.read(client.status(file_id)) == b"content"


def test_delete_takes_every_copy(client: NgasClient, file_id: str) -> None:
    client.archive(b"content", file_id, f"{file_id}.bin")
    client.clone(file_id)
    client.delete(file_id)
    assert disks_of(client, file_id) == set()


def lose_the_first_reply_to(proxy: Any, command: str) -> None:
    left = [1]

    def answer(request: Any, forward: Callable[[], bytes]) -> bytes:
        reply = forward()
        if request.command == command and left[0]:
            left[0] -= 1
            return b""
        return reply

    proxy.answer = answer


def test_a_lost_reply_to_a_clone_is_no_error(proxied: NgasClient, proxy: Any, file_id: str) -> None:
    proxied.archive(b"content", file_id, f"{file_id}.bin")
    lose_the_first_reply_to(proxy, "CLONE")
    proxied.clone(file_id)
    assert proxy.commands.count("CLONE") == 1
    assert len(disks_of(proxied, file_id)) == 2


def test_a_lost_reply_to_a_discard_is_no_error(proxied: NgasClient, proxy: Any, file_id: str) -> None:
    status = proxied.archive(b"content", file_id, f"{file_id}.bin")
    lose_the_first_reply_to(proxy, "DISCARD")
    proxied.discard(status)
    assert proxied.find(file_id) is None


def test_disks_totals_and_newest_files_are_told(client: NgasClient, file_id: str) -> None:
    before = client.totals()
    client.archive(bytes(3_000_000), file_id, f"{file_id}.bin")
    after = client.totals()
    assert after.files == before.files + 1
    assert after.size - before.size == pytest.approx(3_000_000, abs=2000)
    assert client.recent_files()[0].file_id == file_id
    assert client.recent_files()[0].size == 3_000_000
    assert all(disk.mounted and disk.available_bytes > 0 for disk in client.disks())


@pytest.fixture
def subscriber() -> str:
    return "http://127.0.0.1:9/QARCHIVE"  # a port that discards


def test_a_subscription_is_made_once_and_ends(client: NgasClient, subscriber: str, file_id: str) -> None:
    start = datetime(2036, 1, 1, tzinfo=timezone.utc)
    client.subscribe(subscriber, file_id, start=start)
    client.subscribe(subscriber, file_id, start=start)
    (known,) = [one for one in client.subscriptions() if one.subscription_id == file_id]
    assert (known.url, known.start) == (subscriber, start)
    with pytest.raises(Conflict):
        client.subscribe(subscriber, file_id, start=start.replace(year=2037))
    client.unsubscribe(file_id)
    assert file_id not in {one.subscription_id for one in client.subscriptions()}
    with pytest.raises(FileNotInArchive):
        client.unsubscribe(file_id)


@pytest.mark.parametrize("command", ["SUBSCRIBE", "UNSUBSCRIBE"])
def test_a_lost_reply_about_a_subscription_is_no_error(
    proxied: NgasClient, proxy: Any, subscriber: str, file_id: str, command: str
) -> None:
    lose_the_first_reply_to(proxy, command)
    proxied.subscribe(subscriber, file_id)
    proxied.unsubscribe(file_id)
    assert file_id not in {one.subscription_id for one in proxied.subscriptions()}


def test_the_real_servers_odd_answer_to_unsubscribe_is_understood(
    proxied: NgasClient, proxy: Any, subscriber: str, file_id: str, http_reply: Callable[..., bytes]
) -> None:
    odd = f'<NgamsStatus><Status Status="FAILURE" Message="\'{file_id}\'"/></NgamsStatus>'

    def answer(request: Any, forward: Callable[[], bytes]) -> bytes:
        reply = forward()
        return http_reply(400, odd) if request.command == "UNSUBSCRIBE" else reply

    proxy.answer = answer
    proxied.subscribe(subscriber, file_id)
    proxied.unsubscribe(file_id)
    assert file_id not in {one.subscription_id for one in proxied.subscriptions()}
