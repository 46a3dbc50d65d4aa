"""Our client and file system against a real NGAS server."""

from __future__ import annotations

import os
import random
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import pytest

from dlg_ml_tasks.archive import ArchiveFull, Conflict, FileNotInArchive, NgasClient, NgasFileSystem

pytestmark = pytest.mark.integration


@pytest.fixture
def stored(real_ngas: NgasClient, file_id: str) -> Iterator[bytes]:
    """Content that stands in the archive under `file_id`."""
    content = os.urandom(3_000_000)
    real_ngas.archive(content, file_id, f"{file_id}.bin", known=None)
    yield content
    if real_ngas.find(file_id) is not None:
        real_ngas.delete(file_id)


def test_the_server_says_that_it_is_well(real_ngas: NgasClient) -> None:
    assert real_ngas.server_status().state == "ONLINE"


def test_bytes_come_back_as_they_went(real_ngas: NgasClient, file_id: str, stored: bytes, tmp_path: Path) -> None:
    status = real_ngas.retrieve(file_id, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == stored
    assert real_ngas.read(status, 1000, 2000) == stored[1000:2000]
    assert real_ngas.read(status, 2_999_999) == stored[-1:]
    assert real_ngas.checkfile(file_id) == status
    assert status.checksum is not None


@pytest.mark.parametrize("command", ["ARCHIVE", "QARCHIVE"])
def test_both_commands_of_archiving_work(real_ngas: NgasClient, file_id: str, command: str, tmp_path: Path) -> None:
    client = NgasClient(*real_ngas.address, archive_command=command)  # type: ignore[arg-type]
    source = tmp_path / "source"
    source.write_bytes(random.Random(1).randbytes(2_500_000))
    status = client.archive(source, file_id, f"{file_id}.bin")
    assert client.archive(source, file_id, f"{file_id}.bin") == status
    client.delete(file_id)
    assert client.find(file_id) is None


def test_overwriting_leaves_one_version(real_ngas: NgasClient, file_id: str, stored: bytes) -> None:
    new = real_ngas.archive(b"new", file_id, f"{file_id}.bin")
    assert [copy.version for copy in real_ngas.query(file_id)] == [new.version] == [2]
    assert real_ngas.read(real_ngas.status(file_id)) == b"new"


def test_an_interrupted_download_goes_on(real_ngas: NgasClient, file_id: str, stored: bytes, tmp_path: Path) -> None:
    status = real_ngas.status(file_id)
    real_ngas.retrieve(file_id, tmp_path / "back")
    (tmp_path / "back").unlink()
    from dlg_ml_tasks.archive.parts import part_for

    identity = f"{real_ngas.address} {status.identity}"
    with pytest.raises(KeyError), part_for(tmp_path / "back", identity, kept_after=(KeyError,)) as part:
        part.file.write(stored[:2_000_000])
        raise KeyError
    real_ngas.retrieve(file_id, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == stored


def test_many_small_files_go_and_come_at_the_same_time(real_ngas: NgasClient, file_id: str) -> None:
    names = [f"{file_id}-{number}" for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: real_ngas.archive(name.encode(), name, f"{name}.bin", known=None), names))
        assert list(pool.map(lambda name: real_ngas.read(real_ngas.status(name)), names)) == [n.encode() for n in names]
    assert len(real_ngas.query(f"{file_id}-%")) == 40
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(real_ngas.delete, names))
    assert real_ngas.query(f"{file_id}-%") == []


def test_a_container_comes_as_a_verified_tar(
    real_ngas: NgasClient, file_id: str, stored: bytes, tmp_path: Path
) -> None:
    name = f"container-{file_id}"
    made = real_ngas.containers.create(name)
    with pytest.raises(Conflict):
        real_ngas.containers.create(name)
    with pytest.raises(FileNotInArchive):
        real_ngas.containers.append(name, "nobody-has-this")
    real_ngas.containers.append(name, file_id)
    assert [file.file_id for file in real_ngas.containers.contents(made).files] == [file_id]
    real_ngas.containers.retrieve(name, tmp_path / "all.tar")
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert tar.getnames() == [name, f"{name}/{file_id}.bin"]
    real_ngas.containers.remove(name, file_id)
    real_ngas.containers.destroy(name)
    assert real_ngas.containers.find(name) is None
    with pytest.raises(FileNotInArchive):
        real_ngas.containers.destroy(name)


def test_a_clone_is_made_where_there_is_another_disk(real_ngas: NgasClient, file_id: str, stored: bytes) -> None:
    disks = len(real_ngas.disks())
    try:
        for _ in range(disks - 1):
            real_ngas.clone(file_id)
    finally:
        assert len({copy.disk_id for copy in real_ngas.query(file_id)}) == disks
    with pytest.raises(ArchiveFull):
        real_ngas.clone(file_id)


def test_the_archive_tells_of_itself(real_ngas: NgasClient, file_id: str, stored: bytes) -> None:
    assert real_ngas.totals().files > 0
    assert file_id in {file.file_id for file in real_ngas.recent_files()}
    assert all(disk.available_bytes > 0 for disk in real_ngas.disks())


def test_a_subscription_is_made_once_and_ends(real_ngas: NgasClient, file_id: str) -> None:
    start = datetime(2036, 1, 1, tzinfo=timezone.utc)
    url = "http://127.0.0.1:9/QARCHIVE"
    real_ngas.subscribe(url, file_id, start=start)
    real_ngas.subscribe(url, file_id, start=start)
    with pytest.raises(Conflict):
        real_ngas.subscribe(url, file_id, start=start.replace(year=2037))
    assert [one.url for one in real_ngas.subscriptions() if one.subscription_id == file_id] == [url]
    real_ngas.unsubscribe(file_id)
    with pytest.raises(FileNotInArchive):
        real_ngas.unsubscribe(file_id)


def test_the_file_system_works_on_it(real_fs: NgasFileSystem, file_id: str, tmp_path: Path) -> None:
    home = f"/{file_id}"
    contents = {"a b.txt": b"1", "c#d?e%41": b"2", "ü" * 100: b"3", "empty": b"", ".hidden": b"4"}
    for name, content in contents.items():
        real_fs.pipe_file(f"{home}/sub/{name}", content)
    assert {
        path.rpartition("/")[2]: real_fs.cat_file(path) for path in real_fs.ls(f"{home}/sub", detail=False)
    } == contents
    real_fs.get(f"{home}/", str(tmp_path / "back"), recursive=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "back" / "sub").iterdir()} == contents
    real_fs.rm(home, recursive=True)
    assert not real_fs.exists(home)
