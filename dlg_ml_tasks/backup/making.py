"""Making a backup: first the database, then what the archives hold, so that whatever the copied database names is there."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from dlg_ml_tasks.archive import Address, FileNotInArchive, FileStatus, NgasClient, NgasError
from dlg_ml_tasks.archive.checksums import PREFERRED
from dlg_ml_tasks.archive.tree import NgasTree
from dlg_ml_tasks.backup.contents import flush, measure, write_durably, write_sums
from dlg_ml_tasks.backup.database import Database, closing_engine
from dlg_ml_tasks.backup.errors import BackupError
from dlg_ml_tasks.backup.manifest import (
    DATABASES,
    FILES,
    LAYOUT,
    LISTING,
    MANIFEST,
    ArchivedObject,
    ArchivePart,
    Manifest,
    expected_files,
)
from dlg_ml_tasks.backup.names import ArtifactNames, parsed_location
from dlg_ml_tasks.backup.objects import below, row_of, topmost, whole_archive
from dlg_ml_tasks.backup.progress import Progress, Silent

log = logging.getLogger(__name__)

_MOST_ROUNDS = 20
"""How often the archive is listed anew because objects went while they were fetched."""

_SPARE_BYTES = 64 << 20
"""What a disk must have left beyond the objects, for names and for what is archived meanwhile."""


@dataclass(frozen=True)
class Source:
    """What is backed up: MLflow's database and, in every archive that it names, what lies below its artifact locations.

    Of `embedded`, the archive of the embedded stack, everything is taken. `destination`: see `Manifest`.
    """

    database: Database
    embedded: Address | None = None
    destination: str | None = None


def make(directory: Path, source: Source, *, with_files: bool = True, progress: Progress | None = None) -> Manifest:
    """Make a backup in `directory`, which may exist if it is empty, while everything goes on.

    It is built beside it, in NAME.partial, and gets its name when all of it is on disk. What an interrupted call left there is
    used by the next one.

    Raises BackupError, and an NgasError if an archive cannot be read.
    """
    directory = directory.resolve()
    _refuse_unusable(directory)
    try:
        with _being_built(directory) as partial:
            manifest = _build(partial, source, with_files, progress or Silent())
            _publish(partial, directory)
    except NgasError:
        raise
    except OSError as error:
        full = "; the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise BackupError(
            f"the backup cannot be written: {error}{full}. What is done stays in {_partial(directory)}: "
            "the same command goes on with it, or remove it."
        ) from error
    return manifest


def _build(partial: Path, source: Source, with_files: bool, progress: Progress) -> Manifest:
    progress.step("copying MLflow's database")
    database = source.database
    # A dump cannot be asked, and is described by the database that it was made of a moment ago.
    copy = database.copy_to(partial / DATABASES[database.kind]) or database
    with closing_engine(copy) as engine:
        locations, elsewhere = ArtifactNames(engine, source.destination).roots()

    roots: dict[Address, list[str]] = {} if source.embedded is None else {source.embedded: []}
    for location in locations:
        roots.setdefault(location.address, []).append(location.path)
    if source.destination is not None:
        destination = parsed_location(source.destination)
        roots.setdefault(destination.address, []).append(destination.path)

    rows: list[ArchivedObject] = []
    sums: dict[str, str] = {}
    parts: list[ArchivePart] = []
    for address, paths in sorted(roots.items()):
        fetcher = _Archive(address, topmost(paths), address == source.embedded, partial, progress)
        found = fetcher.fetch(sums) if with_files else [row_of(str(address), one) for one in fetcher.listing().values()]
        parts.append(fetcher.part(found))
        rows += found

    manifest = Manifest(
        created=datetime.now(timezone.utc),
        with_files=with_files,
        software=_software(database),
        database=copy.describe(),
        archives=tuple(parts),
        embedded=str(source.embedded) if source.embedded else None,
        destination=source.destination,
        elsewhere=tuple(elsewhere),
    )
    progress.step("writing the list")
    _write(partial, manifest, rows, sums)
    return manifest


class _Archive:
    """The part of one archive that goes into a backup."""

    def __init__(
        self, address: Address, roots: tuple[str, ...], whole: bool, partial: Path, progress: Progress
    ) -> None:
        self._client = NgasClient(address.host, address.port)
        self._roots = roots
        self._whole = whole
        self._partial = partial
        self._progress = progress

    def listing(self) -> dict[str, FileStatus]:
        """What is to be in the backup, by file id."""
        self._progress.step(f"listing the archive {self._client.address}")
        return whole_archive(self._client) if self._whole else below(self._client, self._roots)

    def part(self, rows: list[ArchivedObject]) -> ArchivePart:
        """How the manifest describes it."""
        return ArchivePart(
            address=str(self._client.address),
            whole=self._whole,
            roots=self._roots,
            files=len(rows),
            size=sum(row.size for row in rows),
        )

    def fetch(self, sums: dict[str, str]) -> list[ArchivedObject]:
        """Copy every object, and put the sha256 of its copy into `sums`.

        An object that went meanwhile may have been replaced by another one (packs of small files are), so the archive is listed
        anew until nothing went. What is there already is not fetched again.
        """
        for _ in range(_MOST_ROUNDS):
            listing = self.listing()
            self._refuse_lack_of_space(listing)
            rows, gone = self._fetch_all(listing)
            if not gone:
                break
            log.info("%d objects were removed meanwhile; listing again", gone)
        else:
            raise BackupError(
                f"files in the archive {self._client.address} are replaced faster than they are copied; "
                "try again when less is running"
            )
        sums.update((row.place, sha256) for row, sha256 in rows)
        return [row for row, _ in rows]

    def _fetch_all(self, listing: dict[str, FileStatus]) -> tuple[list[tuple[ArchivedObject, str]], int]:
        self._progress.step(f"copying {len(listing):,} files", sum(status.size for status in listing.values()))
        found: list[tuple[ArchivedObject, str]] = []
        gone: list[str] = []

        def work(status: FileStatus) -> None:
            try:
                found.append(self._fetch(status))
            except FileNotInArchive:
                gone.append(status.file_id)

        done = 0

        def told() -> None:
            # Called by this thread after each; what other threads have appended by then is told with it.
            nonlocal done
            now = sum(row.size for row, _ in found[done:])
            done = len(found)
            self._progress.advance(now)

        NgasTree(self._client).in_parallel([(status,) for status in listing.values()], work, told)
        return found, len(gone)

    def _fetch(self, status: FileStatus) -> tuple[ArchivedObject, str]:
        row = row_of(str(self._client.address), status)
        path = self._partial / row.place
        algorithm = status.checksum.algorithm if status.checksum else PREFERRED
        if path.exists():
            held = measure(path, algorithm)
            if held.size == status.size and held.checksum == status.checksum:
                return row, held.sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        self._client.retrieve(status.file_id, path, known=status)
        flush(path)
        held = measure(path, algorithm)
        if held.size != status.size or (status.checksum is not None and held.checksum != status.checksum):
            raise BackupError(f"{path} is not what was written to it; the disk of the backup is faulty")
        return row.model_copy(update={"checksum": str(held.checksum)}), held.sha256

    def _refuse_lack_of_space(self, listing: dict[str, FileStatus]) -> None:
        address = str(self._client.address)
        missing = sum(s.size for s in listing.values() if not (self._partial / row_of(address, s).place).exists())
        free = shutil.disk_usage(self._partial).free
        if missing + _SPARE_BYTES > free:
            raise BackupError(
                f"{self._partial.parent} has {free / 1e9:.1f} GB free, and {missing / 1e9:.1f} GB of files are to be copied there. "
                "Choose another disk, or --without-files where the archive itself is backed up."
            )


def _write(partial: Path, manifest: Manifest, rows: list[ArchivedObject], sums: dict[str, str]) -> None:
    """Write the lists, take away what does not belong, and wait until all is on disk."""
    write_durably(partial / LISTING, (row.model_dump_json() for row in sorted(rows, key=lambda row: row.place)))
    write_durably(partial / MANIFEST, [manifest.model_dump_json(indent=2)])
    for name in (MANIFEST, manifest.database_file, LISTING):
        sums[name] = measure(partial / name).sha256
    wanted = set(expected_files(manifest, rows))
    write_sums(partial, {name: sums[name] for name in wanted})
    for path in sorted((partial / FILES).rglob("*"), reverse=True):
        if path.is_dir():
            flush(path)
        elif path.relative_to(partial).as_posix() not in wanted:
            path.unlink()
    for directory in (partial / FILES, partial):
        if directory.is_dir():
            flush(directory)


def _publish(partial: Path, directory: Path) -> None:
    # The system replaces an empty directory, and refuses one that got something in it meanwhile.
    partial.replace(directory)
    flush(directory.parent)


def _refuse_unusable(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise BackupError(f"{str(directory)!r} exists and is no directory; name a new one")
    if directory.is_dir() and any(directory.iterdir()):
        raise BackupError(
            f"{str(directory)!r} is not empty; name a new directory for each backup, as in backups/2026-11-26"
        )
    if directory.is_mount():
        raise BackupError(f"{str(directory)!r} is a mount point, which cannot be renamed; name a directory below it")


@contextmanager
def _being_built(directory: Path) -> Iterator[Path]:
    """NAME.partial, of which this process is the only writer."""
    partial = _partial(directory)
    partial.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"another backup to {str(directory)!r} is being made") from None
        foreign = sorted(path.name for path in partial.iterdir() if path.name not in LAYOUT)
        if foreign:
            raise BackupError(f"{str(partial)!r} holds {foreign[0]!r}, which no backup made; move it away")
        yield partial
    finally:
        os.close(descriptor)


def _partial(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.partial")


def _software(database: Database) -> dict[str, str]:
    return {
        "dlg-ml-tasks": version("dlg-ml-tasks"),
        "mlflow": version("mlflow"),
        "python": sys.version.split()[0],
        **database.versions(),
    }
