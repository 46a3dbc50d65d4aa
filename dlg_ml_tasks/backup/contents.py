"""The bytes of a backup's files: flushed to disk, measured, and compared with what is known of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from dlg_ml_tasks.archive.checksums import Algorithm, Checksum, RunningChecksum
from dlg_ml_tasks.backup.errors import BackupError
from dlg_ml_tasks.backup.manifest import (
    SUMS,
    ArchivedObject,
    Manifest,
    expected_files,
    read_manifest,
    read_objects,
)
from dlg_ml_tasks.backup.progress import Progress

_BLOCK = 1 << 20


class Measured(NamedTuple):
    """A file as it lies on disk: bytes, the archive's kind of checksum, sha256 in hex."""

    size: int
    checksum: Checksum
    sha256: str


def measure(path: Path, algorithm: Algorithm = "crc32c") -> Measured:
    """Read a file once. Raises OSError."""
    running, digest, size = RunningChecksum(algorithm), hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            running.update(block)
            digest.update(block)
            size += len(block)
    return Measured(size, running.checksum, digest.hexdigest())


def parsed_checksum(text: str) -> Checksum:
    """``crc32c:152299802`` as the archive's client knows it."""
    algorithm, _, value = text.partition(":")
    return Checksum("crc32c" if algorithm == "crc32c" else "crc32", int(value))


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a directory's names, are on disk. Raises OSError, also for a disk that became full."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, lines: Iterable[str]) -> None:
    """Write text and wait until it is on disk."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def write_sums(directory: Path, sums: Mapping[str, str]) -> None:
    """Write the list of sha256 sums, by file relative to `directory`, as sha256sum does."""
    write_durably(directory / SUMS, (f"{sums[name]}  {name}" for name in sorted(sums)))


def problems_in(directory: Path, progress: Progress) -> tuple[Manifest, list[ArchivedObject], list[str]]:
    """Read all of a backup; what it holds, and a line for each file that is missing or differs from its sum.

    Raises BackupError if there is no backup to look at, or its list of objects cannot be read.
    """
    manifest = read_manifest(directory)
    objects = read_objects(directory)
    sums = _read_sums(directory)
    names = expected_files(manifest, objects)
    total = sum(one.size for one in objects) if manifest.with_files else 0
    progress.step("checking", total + sum(_size(directory / name) for name in names[:3]))
    problems = [problem for name in names if (problem := _problem(directory, name, sums, progress))]
    if (len(objects), sum(one.size for one in objects)) != (manifest.files, manifest.size):
        problems.append(f"the list of objects has {len(objects)} of {manifest.files}")
    return manifest, objects, problems


def sound(directory: Path, progress: Progress) -> tuple[Manifest, list[ArchivedObject]]:
    """What a backup holds, all of it read and compared with its sums. Raises BackupError if anything differs."""
    manifest, objects, problems = problems_in(directory, progress)
    if problems:
        shown = "".join(f"\n  {line}" for line in _first(problems))
        raise BackupError(f"the backup {directory} is damaged, nothing was restored:{shown}")
    return manifest, objects


def _problem(directory: Path, name: str, sums: Mapping[str, str], progress: Progress) -> str | None:
    if name not in sums:
        return f"{name}: it has no sum in {SUMS}"
    try:
        found = measure(directory / name)
    except OSError as error:
        return f"{name}: {error.strerror}"
    progress.advance(found.size)
    return None if found.sha256 == sums[name] else f"{name}: its sha256 is not that in {SUMS}"


def _read_sums(directory: Path) -> dict[str, str]:
    try:
        lines = (directory / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BackupError(f"{directory / SUMS} cannot be read: {error}") from error
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _first(lines: list[str], most: int = 10) -> Iterator[str]:
    yield from lines[:most]
    if len(lines) > most:
        yield f"... and {len(lines) - most} more"
