"""Restoring a backup: the archives first, the database last, so that what can be seen is never without its artifacts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dlg_ml_tasks.archive import FileStatus, NgasClient, NgasError, parse_address
from dlg_ml_tasks.archive.server import EmbeddedNgas, ServerStartError
from dlg_ml_tasks.archive.tree import NgasTree
from dlg_ml_tasks.backup.contents import measure, parsed_checksum, sound
from dlg_ml_tasks.backup.database import Database, SqliteDatabase, closing_engine
from dlg_ml_tasks.backup.errors import BackupError
from dlg_ml_tasks.backup.manifest import ArchivedObject, ArchivePart, Manifest
from dlg_ml_tasks.backup.objects import below, whole_archive
from dlg_ml_tasks.backup.progress import Progress, Silent
from dlg_ml_tasks.backup.reading import ArtifactsRead, read_artifacts
from dlg_ml_tasks.stack import StackError, load_state, processes
from dlg_ml_tasks.stack.lifecycle import hold
from dlg_ml_tasks.stack.ports import keep_archive_port
from dlg_ml_tasks.stack.services import database as database_of

log = logging.getLogger(__name__)

_LOCKED_WITHIN_S = 10.0


@dataclass(frozen=True)
class Report:
    """What a restore did.

    Objects of archives were `sent`, or `held` already; `ended_runs` had been under way when the backup was made. `problems` has a
    line for everything that is missing or damaged.
    """

    manifest: Manifest
    sent: int
    held: int
    ended_runs: int
    artifacts: ArtifactsRead
    problems: tuple[str, ...]


def restore_stack(
    directory: Path, home: Path, *, archive_survived: bool = False, progress: Progress | None = None
) -> Report:
    """Restore the backup of an embedded stack into the empty, stopped stack of `home`, then read every artifact.

    Raises BackupError, StackError and NgasErrors; the database is put in place last. The same call after an interruption goes on.
    """
    progress = progress or Silent()
    manifest, objects = sound(directory, progress)
    if manifest.embedded is None:
        raise BackupError(
            f"{directory} is no backup of an embedded stack. Name MLflow's database: --database-env or --database-file"
        )
    database = SqliteDatabase(database_of(home))
    try:
        database.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with hold(home, _LOCKED_WITHIN_S):
            _refuse_running(home)
            database.refuse_records()
            port = parse_address(manifest.embedded).port
            keep_archive_port(home, port)
            with _serving(home / "ngas", port):
                return _restore(directory, manifest, objects, database, archive_survived, progress)
    except OSError as error:
        raise _explained(error, home) from error


def restore_servers(
    directory: Path, database: Database, *, archive_survived: bool = False, progress: Progress | None = None
) -> Report:
    """Restore a backup into an empty database and the archives that the backup names, then read every artifact.

    MLflow must be stopped. Raises as `restore_stack` does.
    """
    progress = progress or Silent()
    manifest, objects = sound(directory, progress)
    if manifest.database.kind != database.kind:
        raise BackupError(f"{directory} holds a {manifest.database.kind} database, and {database} is another kind")
    database.refuse_records()
    try:
        return _restore(directory, manifest, objects, database, archive_survived, progress)
    except OSError as error:
        raise _explained(error, directory) from error


def _restore(
    directory: Path,
    manifest: Manifest,
    objects: list[ArchivedObject],
    database: Database,
    archive_survived: bool,
    progress: Progress,
) -> Report:
    parts = [_Part(directory, part, manifest, objects, progress) for part in manifest.archives]
    for part in parts:
        part.refuse_others(archive_survived=archive_survived or not manifest.with_files)
    problems = [problem for part in parts for problem in part.restore()]

    progress.step("restoring MLflow's database")
    database.replace_by(directory / manifest.database_file)
    ended = database.end_runs()
    with closing_engine(database) as engine:
        artifacts = read_artifacts(engine, manifest.destination, progress)
    return Report(
        manifest=manifest,
        sent=sum(part.sent for part in parts),
        held=sum(part.held for part in parts),
        ended_runs=ended,
        artifacts=artifacts,
        problems=(*problems, *artifacts.problems),
    )


class _Part:
    """The objects of one archive in a backup, and the archive that they go to."""

    def __init__(
        self, directory: Path, part: ArchivePart, manifest: Manifest, objects: list[ArchivedObject], progress: Progress
    ) -> None:
        address = parse_address(part.address)
        self._client = NgasClient(address.host, address.port)
        self._directory = directory
        self._part = part
        self._with_files = manifest.with_files
        self._rows = {row.file_id: row for row in objects if row.archive == part.address}
        self._progress = progress
        self._there: dict[str, FileStatus] = {}
        self.sent = 0
        self.held = 0

    def refuse_others(self, *, archive_survived: bool) -> None:
        """Raises BackupError if the archive has other content under an id of the backup, or what the backup does not know.

        The latter is right for an archive that outlived MLflow's database, where it stays.
        """
        self._progress.step(f"listing the archive {self._client.address}")
        self._there = whole_archive(self._client) if self._part.whole else below(self._client, self._part.roots)
        self._look_for_the_rest()
        different = [
            status.filename for id, status in self._there.items() if id in self._rows and self._differs(id, status)
        ]
        if different:
            raise BackupError(
                f"the archive {self._client.address} has {len(different)} files with other content than the backup "
                f"({different[0]}, ...). Nothing was changed; restore into an empty archive."
            )
        unknown = [status.filename for id, status in self._there.items() if id not in self._rows]
        if unknown and not archive_survived:
            raise BackupError(
                f"the archive {self._client.address} is not empty: it has {len(unknown)} files that the backup does not know "
                f"({unknown[0]}, ...). If only the database was lost, add --archive-survived: "
                "these files stay, and what is missing comes back."
            )

    def _look_for_the_rest(self) -> None:
        """Objects whose directory has no marker yet are in no listing: an interrupted restore leaves such."""
        unseen = [file_id for file_id in self._rows if file_id not in self._there]
        if not unseen or not self._client.totals().files:
            return
        self._progress.step(f"looking for {len(unseen):,} files")

        def look(file_id: str) -> None:
            if (status := self._client.find(file_id)) is not None:
                self._there[file_id] = status

        NgasTree(self._client).in_parallel([(file_id,) for file_id in unseen], look)

    def restore(self) -> list[str]:
        """Archive what is missing, under the ids and names that it had; a line for each object that cannot be."""
        missing = [row for id, row in self._rows.items() if id not in self._there]
        self.held = len(self._rows) - len(missing)
        if not self._with_files:
            return [f"{row.filename} (file id {row.file_id}) is not in the archive {row.archive}" for row in missing]
        self._progress.step(f"archiving {len(missing):,} files", sum(row.size for row in missing))
        sizes = iter(missing)
        NgasTree(self._client).in_parallel(
            [(row,) for row in missing], self._send, lambda: self._progress.advance(next(sizes).size)
        )
        self.sent = len(missing)
        return []

    def _send(self, row: ArchivedObject) -> None:
        self._client.archive(self._directory / row.place, row.file_id, row.filename, known=None)

    def _differs(self, file_id: str, status: FileStatus) -> bool:
        row = self._rows[file_id]
        if status.size != row.size:
            return True
        if status.checksum is None or row.checksum is None:
            return False
        expected = parsed_checksum(row.checksum)
        if expected.algorithm != status.checksum.algorithm:
            if not self._with_files:
                return False
            expected = measure(self._directory / row.place, status.checksum.algorithm).checksum
        return expected != status.checksum


def _refuse_running(home: Path) -> None:
    state = load_state(home)
    running = [service.name for service in state.services if processes.is_alive(service)] if state else []
    if running:
        raise BackupError(f"the stack in {home} is running ({', '.join(running)}); stop it first: dlg-ml down")


@contextmanager
def _serving(root: Path, port: int) -> Iterator[None]:
    with ExitStack() as running:
        try:
            running.enter_context(EmbeddedNgas(root, port))
        except ServerStartError as error:
            raise StackError(f"ngas: {error}") from error
        yield


def _explained(error: OSError, place: Path) -> Exception:
    """An error of the file system in one line; the archive's own errors, some of which are such, as they are."""
    return error if isinstance(error, NgasError) else BackupError(f"{place} cannot be used: {error}")
