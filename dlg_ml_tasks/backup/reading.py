"""Reading every artifact that MLflow's database names, and comparing it with its checksum and its reference."""

from __future__ import annotations

import hashlib
import sys
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Engine

from dlg_ml_tasks.archive import Address, NgasClient, NgasError
from dlg_ml_tasks.archive.naming import base_name
from dlg_ml_tasks.archive.tree import Entry, NgasTree
from dlg_ml_tasks.backup.names import ArtifactNames, Location, Named
from dlg_ml_tasks.backup.objects import topmost
from dlg_ml_tasks.backup.progress import Progress
from dlg_ml_tasks.tracking import digest_of


@dataclass
class ArtifactsRead:
    """How many artifacts were read and found sound, their bytes, and a line for each that is missing or damaged."""

    files: int = 0
    size: int = 0
    problems: list[str] = field(default_factory=list)


def read_artifacts(engine: Engine, destination: str | None, progress: Progress) -> ArtifactsRead:
    """Read all files below the artifact locations of every experiment; then see that what the database promises was among them."""
    names = ArtifactNames(engine, destination)
    roots: dict[Address, list[str]] = {}
    for location in names.roots()[0]:
        roots.setdefault(location.address, []).append(location.path)
    report = ArtifactsRead()
    read: dict[Address, _Hashes] = {}
    for address, paths in sorted(roots.items()):
        read[address] = _Hashes(_read_below(address, topmost(paths), report, progress))
    for named in names.promised():
        problem = _compared(named, read.get(named.location.address, _Hashes({})))
        if problem:
            report.problems.append(problem)
    return report


class _Sha256:
    """A sink that keeps the digest of what is written, and no bytes."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def write(self, block: bytes) -> int:
        self._digest.update(block)
        return len(block)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


class _Hashes:
    """sha256 by path, to be looked up by folder too."""

    def __init__(self, hashes: dict[str, str]) -> None:
        self._hashes = hashes
        self._paths = sorted(hashes)

    def at(self, path: str) -> dict[str, str]:
        """Those of the files at or below a path, by the names that `hash_files` gives them."""
        if path in self._hashes:
            return {base_name(path): self._hashes[path]}
        prefix = f"{path.rstrip('/')}/"
        first, end = (bisect_left(self._paths, bound) for bound in (prefix, f"{prefix}{chr(sys.maxunicode)}"))
        return {one.removeprefix(prefix): self._hashes[one] for one in self._paths[first:end]}


def _read_below(address: Address, roots: tuple[str, ...], report: ArtifactsRead, progress: Progress) -> dict[str, str]:
    """sha256 by path of every file below the roots that is sound."""
    tree = NgasTree(NgasClient(address.host, address.port))
    progress.step(f"listing the artifacts in {address}")
    entries: list[Entry] = []
    for root in roots:
        try:
            entries += _files_below(tree, root)
        except NgasError as error:
            report.problems.append(str(error))
    progress.step(f"reading {len(entries):,} artifacts", sum(entry.size for entry in entries))
    hashes: dict[str, str] = {}
    problems: list[str] = []

    def work(entry: Entry) -> None:
        sink = _Sha256()
        try:
            tree.copy_to(entry, sink)  # type: ignore[arg-type]  # `write` is all that it is used for
        except NgasError as error:
            problems.append(f"{Location(address, entry.path)}: {error}")
        else:
            hashes[entry.path] = sink.hexdigest()

    sizes = iter(entries)
    tree.in_parallel([(entry,) for entry in entries], work, lambda: progress.advance(next(sizes).size))
    report.files += len(hashes)
    report.size += sum(entry.size for entry in entries if entry.path in hashes)
    report.problems += sorted(problems)
    return hashes


def _files_below(tree: NgasTree, directory: str) -> Iterator[Entry]:
    for entry in tree.listing(directory):
        if entry.is_directory:
            yield from _files_below(tree, entry.path)
        else:
            yield entry


def _compared(named: Named, hashes: _Hashes) -> str | None:
    """What is wrong with what the database promises, if anything."""
    found = hashes.at(named.location.path)
    if not found:
        return f"{named.what}: there is no file at {named.location}"
    if named.digest is None:
        return None
    digest = next(iter(found.values())) if named.is_file else digest_of(found)
    return None if digest == named.digest else f"{named.what}: {named.location} is not what was recorded"
