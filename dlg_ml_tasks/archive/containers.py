"""Containers of an NGAS archive: named sets of files that can be fetched as one tar."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from dlg_ml_tasks.archive.checksums import Algorithm, Checksum, RunningChecksum
from dlg_ml_tasks.archive.connection import Connection, Params
from dlg_ml_tasks.archive.errors import ChecksumMismatch, Conflict, FileNotInArchive, ProtocolError
from dlg_ml_tasks.archive.local_files import temporary_name
from dlg_ml_tasks.archive.reply import Container, FileStatus, StatusDocument
from dlg_ml_tasks.archive.shared import BLOCK


class Containers:
    """Commands about containers. One is named by its name, or, where names are not unique, by a `Container`.

    A file is in at most one container, and stays in the archive when its container goes.
    Every method raises FileNotInArchive for a missing container, and Conflict for a name that several have.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, name: str) -> Container:
        """Makes an empty container. Raises Conflict if the name is taken: NGAS itself would make a second one."""
        if self.find(name) is not None:
            raise Conflict(f"there is a container with name {name} already", server=str(self._connection.address))
        return self._connection.once(
            lambda: self._only(self._connection.status("CCREATE", {"container_name": name})),
            lambda: self._find_once(name),
        )

    def find(self, name: str) -> Container | None:
        """The container with what it holds, or None."""
        return self._connection.patiently(self._find_once, name)

    def contents(self, container: str | Container) -> Container:
        """The container with what it holds now."""
        return self._connection.patiently(self._list_once, container)

    def append(self, container: str | Container, file_id: str, *, move: bool = False) -> None:
        """Puts a file into a container; no error if it is there.

        move: takes it out of another container, instead of raising Conflict. Raises FileNotInArchive.
        """
        params = {**_name(container), "file_id": file_id, **({"force": 1} if move else {})}
        self._connection.patiently(self._connection.status, "CAPPEND", params)

    def remove(self, container: str | Container, file_id: str) -> None:
        """Takes a file out of a container; no error if it is not there."""
        self._connection.patiently(self._connection.status, "CREMOVE", {**_name(container), "file_id": file_id})

    def destroy(self, container: str | Container, *, recursive: bool = False) -> None:
        """Removes a container, not its files. Raises Conflict if it has containers of its own and not `recursive`."""
        params: Params = {**_name(container), **({"recursive": 1} if recursive else {})}
        self._connection.once(
            lambda: self._connection.status("CDESTROY", params),
            lambda: self._gone(container),
        )

    def retrieve(self, container: str | Container, destination: Path) -> None:
        """Downloads a container as a tar, which appears, or is replaced, only when every file in it is verified.

        The members are named as on the server's disk, below a directory with the container's name.
        """
        held = self.contents(container)
        part = temporary_name(destination)
        try:
            self._connection.patiently(self._retrieve_once, held, part)
            self._verify(held, part)
            part.replace(destination)
        finally:
            part.unlink(missing_ok=True)

    def _find_once(self, name: str) -> Container | None:
        try:
            return self._list_once(name)
        except FileNotInArchive:
            return None

    def _list_once(self, container: str | Container) -> Container:
        return self._only(self._connection.status("CLIST", _name(container)))

    def _gone(self, container: str | Container) -> StatusDocument | None:
        """What stands for the lost reply to CDESTROY; None if the container is still there."""
        try:
            self._list_once(container)
        except FileNotInArchive as error:
            return StatusDocument(success=True, message=error.message, state="", files=(), containers=())
        return None

    def _retrieve_once(self, container: Container, part: Path) -> None:
        params: Params = {**_name(container), "format": "application/x-tar"}
        with part.open("wb") as sink, self._connection.exchange("CRETRIEVE", params) as response:
            while block := response.read(BLOCK):
                sink.write(block)

    def _verify(self, container: Container, tar: Path) -> None:
        """Compares what came with what the archive recorded: CRETRIEVE tells no checksum of its own."""
        expected = list(_files(container))
        algorithms = {file.checksum.algorithm for file in expected if file.checksum}
        try:
            with tarfile.open(tar, "r:") as archive:
                for member in archive:
                    if content := archive.extractfile(member):
                        self._check_off(expected, member, _checksums(content, algorithms), container)
        except tarfile.TarError as error:
            raise self._damaged(container, f"as no tar ({error})") from error
        if expected:
            raise self._damaged(container, f"without {expected[0].filename}")

    def _check_off(
        self,
        expected: list[FileStatus],
        member: tarfile.TarInfo,
        checksums: dict[Algorithm, Checksum],
        container: Container,
    ) -> None:
        for file in expected:
            same = (file.filename, file.size) == (member.name.rpartition("/")[2], member.size)
            if same and (file.checksum is None or file.checksum == checksums[file.checksum.algorithm]):
                expected.remove(file)
                return
        raise self._damaged(container, f"with {member.name} of {member.size} bytes")

    def _damaged(self, container: Container, how: str) -> ChecksumMismatch:
        return ChecksumMismatch(
            f"the container {container.name} came {how}, against the archive's record",
            server=str(self._connection.address),
        )

    def _only(self, document: StatusDocument) -> Container:
        if len(document.containers) != 1:
            raise ProtocolError(
                f"the reply {document.message!r} says nothing of the container", server=str(self._connection.address)
            )
        return document.containers[0]


def _name(container: str | Container) -> Params:
    if isinstance(container, Container):
        return {"container_id": container.container_id}
    return {"container_name": container}


def _files(container: Container) -> Iterator[FileStatus]:
    """The files of a container and of those in it."""
    yield from container.files
    for child in container.containers:
        yield from _files(child)


def _checksums(content: IO[bytes], algorithms: Iterable[Algorithm]) -> dict[Algorithm, Checksum]:
    running = {algorithm: RunningChecksum(algorithm) for algorithm in algorithms}
    while block := content.read(BLOCK):
        for one in running.values():
            one.update(block)
    return {algorithm: one.checksum for algorithm, one in running.items()}
