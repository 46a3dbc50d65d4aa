from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dlg_ml_tasks.archive import ChecksumMismatch, Conflict, FileNotInArchive, NgasClient

pytestmark = pytest.mark.integration


@pytest.fixture
def name(client: NgasClient, home: str) -> Iterator[str]:
    """A name for a container that no other test uses."""
    name = f"c{home.strip('/')}"
    yield name
    if client.containers.find(name) is not None:
        client.containers.destroy(name, recursive=True)


@pytest.fixture
def files(client: NgasClient, file_id: str) -> dict[str, bytes]:
    """Content by file id of some files in the archive."""
    contents = {f"{file_id}-{number}": os.urandom(1000 * (number + 1)) for number in range(3)}
    for one, content in contents.items():
        client.archive(content, one, f"{one}.bin")
    return contents


def test_a_container_holds_the_files_that_are_put_into_it(
    client: NgasClient, name: str, files: dict[str, bytes]
) -> None:
    made = client.containers.create(name)
    assert (made.name, made.files, made.containers) == (name, (), ())
    for one in files:
        client.containers.append(name, one)
        client.containers.append(made, one)  # again, and by the other way to name it
    held = client.containers.contents(name)
    assert held.container_id == made.container_id
    assert {file.file_id: file.size for file in held.files} == {one: len(content) for one, content in files.items()}
    assert held.size == sum(map(len, files.values()))
    gone = next(iter(files))
    client.containers.remove(name, gone)
    assert gone not in {file.file_id for file in client.containers.contents(name).files}
    assert client.find(gone) is not None


def test_a_name_is_used_once(client: NgasClient, name: str) -> None:
    client.containers.create(name)
    with pytest.raises(Conflict, match="already"):
        client.containers.create(name)


def test_what_is_not_there_is_not_found(client: NgasClient, name: str, files: dict[str, bytes]) -> None:
    assert client.containers.find(name) is None
    one = next(iter(files))
    for command in (
        lambda: client.containers.contents(name),
        lambda: client.containers.destroy(name),
        lambda: client.containers.append(name, one),
        lambda: client.containers.remove(name, one),
    ):
        with pytest.raises(FileNotInArchive):
            command()
    client.containers.create(name)
    with pytest.raises(FileNotInArchive):
        client.containers.append(name, "nobody-has-this")


def test_a_file_changes_its_container_only_when_told_to(client: NgasClient, name: str, files: dict[str, bytes]) -> None:
    one = next(iter(files))
    first, second = client.containers.create(name), client.containers.create(f"{name}2")
    client.containers.append(first, one)
    with pytest.raises(Conflict):
        client.containers.append(second, one)
    client.containers.append(second, one, move=True)
    assert [len(client.containers.contents(container).files) for container in (first, second)] == [0, 1]
    client.containers.destroy(second)


def test_files_survive_their_container(client: NgasClient, name: str, files: dict[str, bytes]) -> None:
    client.containers.create(name)
    for one in files:
        client.containers.append(name, one)
    client.containers.destroy(name)
    assert client.containers.find(name) is None
    assert all(client.read(client.status(one)) == content for one, content in files.items())


def test_a_container_comes_as_a_tar(client: NgasClient, name: str, files: dict[str, bytes], tmp_path: Path) -> None:
    client.containers.create(name)
    for one in files:
        client.containers.append(name, one)
    client.containers.retrieve(name, tmp_path / "all.tar")
    with tarfile.open(tmp_path / "all.tar") as tar:
        members = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        assert {member: content.read() for member, content in members.items() if content} == {
            f"{name}/{one}.bin": content for one, content in files.items()
        }
    assert list(tmp_path.iterdir()) == [tmp_path / "all.tar"]


@pytest.mark.parametrize("damage", ["a byte", "a file", "the end", "everything"])
def test_a_damaged_tar_is_not_kept(
    client: NgasClient,
    proxied: NgasClient,
    proxy: Any,
    name: str,
    files: dict[str, bytes],
    tmp_path: Path,
    http_reply: Callable[..., bytes],
    damage: str,
) -> None:
    client.containers.create(name)
    for one in files:
        client.containers.append(name, one)
    target = tmp_path / "all.tar"
    client.containers.retrieve(name, target)
    tar, victim = target.read_bytes(), next(iter(files.values()))
    target.write_bytes(b"from before")
    spoilt = {
        "a byte": tar.replace(victim[:50], victim[50:100]),
        "a file": tar.replace(f"{next(iter(files))}.bin".encode(), b"x" * len(f"{next(iter(files))}.bin")),
        "the end": tar[: len(tar) // 2 // 512 * 512],
        "everything": b"no tar at all" * 100,
    }[damage]
    proxy.answer = lambda request, forward: http_reply(200, spoilt) if request.command == "CRETRIEVE" else forward()
    with pytest.raises(ChecksumMismatch, match=name):
        proxied.containers.retrieve(name, target)
    assert target.read_bytes() == b"from before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_lost_reply_makes_no_second_container_and_no_error(proxied: NgasClient, proxy: Any, name: str) -> None:
    lost = {"CCREATE", "CDESTROY"}

    def answer(request: Any, forward: Callable[[], bytes]) -> bytes:
        reply = forward()
        if request.command in lost:
            lost.remove(request.command)
            return b""
        return reply

    proxy.answer = answer
    made = proxied.containers.create(name)
    assert proxied.containers.contents(name).container_id == made.container_id
    proxied.containers.destroy(made)
    assert proxied.containers.find(name) is None
    assert not lost
