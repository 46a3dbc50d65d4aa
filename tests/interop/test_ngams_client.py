"""NGAS's own Python client against the embedded server."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.archive import NgasClient
from dlg_ml_tasks.archive.server import EmbeddedNgas

pytestmark = [
    pytest.mark.integration,
    # It leaves its sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


@pytest.fixture
def ngams(server: EmbeddedNgas) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports what setuptools has deprecated
        module = pytest.importorskip(
            "ngamsPClient.ngamsPClient", reason="NGAS's own client, ngamsPClient, is not installed"
        )
    yield module.ngamsPClient(server.host, server.port, timeout=30)
    gc.collect()


@pytest.fixture
def client(server: EmbeddedNgas) -> NgasClient:
    return NgasClient(server.host, server.port, timeout=30, patience=0)


@pytest.fixture
def source(tmp_path: Path, file_id: str) -> Path:
    path = tmp_path / f"{file_id}.bin"
    path.write_bytes(os.urandom(300_000))
    return path


def succeeded(status: Any) -> bool:
    return bool(status.getStatus() == "SUCCESS")


def test_what_it_archives_we_read(ngams: Any, client: NgasClient, source: Path) -> None:
    assert succeeded(ngams.archive(str(source), mimeType="application/octet-stream"))
    assert client.read(client.status(source.name)) == source.read_bytes()


def test_what_it_archives_from_memory_we_read(ngams: Any, client: NgasClient, file_id: str) -> None:
    assert succeeded(ngams.archive_data(b"from memory", f"{file_id}.bin", mimeType="application/octet-stream"))
    assert client.read(client.status(f"{file_id}.bin")) == b"from memory"


def test_what_we_archive_it_retrieves(ngams: Any, client: NgasClient, file_id: str, tmp_path: Path) -> None:
    client.archive(b"content", file_id, f"{file_id}.bin")
    assert succeeded(ngams.retrieve(file_id, targetFile=str(tmp_path / "back")))
    assert (tmp_path / "back").read_bytes() == b"content"


def test_it_reads_the_status_of_files_and_of_the_server(ngams: Any, client: NgasClient, file_id: str) -> None:
    stored = client.archive(b"content", file_id, f"{file_id}.bin")
    assert ngams.online().getStatus() == "FAILURE"  # it is online
    assert succeeded(ngams.status())
    (disk,) = ngams.status(pars=[("file_id", file_id)]).getDiskStatusList()
    (file,) = disk.getFileObjList()
    assert (file.getFileId(), file.getFileSize(), int(file.getChecksum())) == (
        file_id,
        7,
        stored.checksum.value if stored.checksum else None,
    )


def test_it_queries(ngams: Any, client: NgasClient, file_id: str) -> None:
    client.archive(b"content", file_id, f"{file_id}.bin")
    status = ngams.get_status("QUERY", pars=[("query", "files_like"), ("like", file_id), ("format", "list")])
    assert succeeded(status)
    assert file_id.encode() in status.getData()


def test_it_clones_and_discards(ngams: Any, client: NgasClient, file_id: str) -> None:
    stored = client.archive(b"content", file_id, f"{file_id}.bin")
    assert succeeded(ngams.clone(file_id, stored.disk_id, 1))
    assert len(client.query(file_id)) == 2
    copy = [("file_id", file_id), ("file_version", 1), ("disk_id", stored.disk_id), ("execute", 1)]
    assert succeeded(ngams.get_status("DISCARD", pars=copy))
    assert len(client.query(file_id)) == 1


def test_it_fills_a_container_and_fetches_it(ngams: Any, client: NgasClient, file_id: str, tmp_path: Path) -> None:
    client.archive(b"content", file_id, f"{file_id}.bin")
    name = f"c{file_id}"
    assert succeeded(ngams.ccreate(name))
    assert succeeded(ngams.cappend(fileId=file_id, containerName=name))
    assert [file.file_id for file in client.containers.contents(name).files] == [file_id]
    assert succeeded(ngams.cretrieve(containerName=name, targetDir=str(tmp_path)))
    assert [path.read_bytes() for path in tmp_path.rglob("*.bin")] == [b"content"]
    assert succeeded(ngams.cdestroy(containerName=name))


def test_it_subscribes_and_unsubscribes(ngams: Any, client: NgasClient, file_id: str) -> None:
    assert succeeded(ngams.subscribe("http://127.0.0.1:9/QARCHIVE", pars=[("subscr_id", file_id)]))
    assert file_id in {one.subscription_id for one in client.subscriptions()}
    client.unsubscribe(file_id)


def test_a_missing_file_is_a_failure_to_it(ngams: Any, file_id: str, tmp_path: Path) -> None:
    assert ngams.status(pars=[("file_id", file_id)]).getStatus() == "FAILURE"
    assert ngams.retrieve(file_id, targetFile=str(tmp_path / "back")).getStatus() == "FAILURE"
