"""Reads every file of an archive and compares it with its checksum: the proof that a restored stack is whole."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, cast

from dlg_ml_tasks.archive import Address, FileStatus, NgasClient, NgasError
from dlg_ml_tasks.stack.backup.folder import Progress

THREADS = 4


@dataclass(frozen=True)
class Damage:
    """A file that the catalogue knows and that cannot be read as it was stored."""

    file_id: str
    filename: str
    reason: str


class _Nowhere:
    """Takes bytes and keeps none."""

    def write(self, data: bytes) -> int:
        return len(data)


def read_everything(address: Address, on_progress: Progress) -> list[Damage]:
    """Read the latest version of every file of the archive at `address`; the ones that are not what they should be."""
    client = NgasClient(address.host, address.port)
    files = list(_latest(client.query("%")))
    damaged = []
    size = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for done, (file, reason) in enumerate(pool.map(lambda each: (each, _problem(client, each)), files), start=1):
            size += file.size
            if reason is not None:
                damaged.append(Damage(file.file_id, file.filename, reason))
            if done % 1000 == 0 or done == len(files):
                on_progress("archive", f"read {done} of {len(files)} files, {size / 1e6:.1f} MB")
    return damaged


def _latest(copies: list[FileStatus]) -> Iterator[FileStatus]:
    latest: dict[str, FileStatus] = {}
    for copy in copies:
        if copy.file_id not in latest or copy.version > latest[copy.file_id].version:
            latest[copy.file_id] = copy
    yield from latest.values()


def _problem(client: NgasClient, file: FileStatus) -> str | None:
    try:
        client.copy_to(file, cast(BinaryIO, _Nowhere()))
    except NgasError as error:
        return error.message
    return None
