"""dlg-ml backup, restore: MLflow's database and the archive's files in one folder, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from dlg_ml_tasks import stack
from dlg_ml_tasks.cli.output import console, errors, print_json
from dlg_ml_tasks.cli.stack import USE, Json, Stack, use
from dlg_ml_tasks.tasks import BadInput

if TYPE_CHECKING:
    from dlg_ml_tasks.backup.database import Database
    from dlg_ml_tasks.backup.making import Source
    from dlg_ml_tasks.backup.manifest import Manifest
    from dlg_ml_tasks.backup.restoring import Report

DatabaseEnv = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Environment variable with the URI of MLflow's database, as `mlflow server --backend-store-uri` takes it; "
        "without it, the embedded stack's.",
    ),
]
DatabaseFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The same from a file, such as a secret that is mounted.")
]
_MOST_LINES = 20


def backup(
    directory: Annotated[Path, typer.Argument(help="New folder for the backup, as in backups/2026-11-26.")],
    with_files: Annotated[
        bool, typer.Option("--with-files/--without-files", help="With the bytes of every archived file.")
    ] = True,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Make nothing: compare every file of the backup in DIRECTORY with its checksum."),
    ] = False,
    database_env: DatabaseEnv = None,
    database_file: DatabaseFile = None,
    artifacts_destination: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="MLFLOW_ARTIFACTS_DESTINATION",
            help="ngas://HOST:PORT/PATH that `mlflow server --artifacts-destination` says, for experiments at mlflow-artifacts:/.",
        ),
    ] = None,
    of: Stack = None,
    json: Json = False,
) -> None:
    """Copy MLflow's database and the archive's files into a folder, while everything runs on.

    **By default a backup is whole**: it restores on its own, and takes as much room as the archive. *--without-files* keeps the
    database and a list of the files with their checksums: minutes instead of hours, for an archive that outlives MLflow's database
    because its operator copies it (a real NGAS). Restoring that needs an archive that still has them, and tells which it lacks.

    Without further options it is the embedded stack that is saved, and of its archive everything. With *--database-env* or
    *--database-file* it is any MLflow on PostgreSQL (by pg_dump) or SQLite, and what lies in NGAS below its experiments' artifact
    locations. A password belongs into PGPASSFILE or the URI, never on the command line. With *--stack compose* it is the stack of
    docker-compose.yml, by this same command in MLflow's image.

    The folder appears when it is whole. An interrupted backup leaves NAME.partial, which the same command goes on with.
    """
    if verify:
        _verify(directory, json=json)
        return
    if _is_compose(of, database_env, database_file):
        from dlg_ml_tasks.backup.compose import run_backup

        options = {"--without-files": not with_files, "--json": json}
        given = [f"--artifacts-destination={artifacts_destination}"] if artifacts_destination else []
        raise typer.Exit(run_backup(directory, [*given, *_chosen(options)]))
    from dlg_ml_tasks.backup.making import make

    source = _source(_database(database_env, database_file), artifacts_destination)
    with _shown() as progress:
        manifest = make(directory, source, with_files=with_files, progress=progress)
    _describe(directory, manifest, "backed up", json=json)
    for location in manifest.elsewhere:
        errors.print(
            f"not in this backup, as it is in no NGAS archive: {location}"
            + (" (see --artifacts-destination)" if location.startswith("mlflow-artifacts:") else ""),
            style="yellow",
            markup=False,
            soft_wrap=True,
        )


def restore(
    directory: Annotated[Path, typer.Argument(help="A folder that `dlg-ml backup` made.")],
    database_env: DatabaseEnv = None,
    database_file: DatabaseFile = None,
    archive_survived: Annotated[
        bool,
        typer.Option(
            "--archive-survived", help="Only the database was lost: files that the backup does not know stay."
        ),
    ] = False,
    to: Stack = None,
    json: Json = False,
) -> None:
    """Restore a backup into an empty stack, and read every artifact with its checksum.

    The embedded stack must be stopped, and hold neither runs nor files: set DLG_ML_HOME to a new folder, or move the old one away.
    With *--database-env* or *--database-file* the database must be empty, MLflow stopped, and each archive reachable under the
    address that it had. Nothing is ever overwritten; what the archive has already is not sent again, so that the same command goes
    on after an interruption. With *--stack compose* MLflow is stopped meanwhile and started again.

    Exit code 1, and a list, if anything is missing or damaged in the end.
    """
    if _is_compose(to, database_env, database_file):
        from dlg_ml_tasks.backup.compose import run_restore

        options = {"--archive-survived": archive_survived, "--json": json}
        raise typer.Exit(run_restore(directory, _chosen(options)))
    from dlg_ml_tasks.backup.restoring import restore_servers, restore_stack

    database = _database(database_env, database_file)
    with _shown() as progress:
        if database is None:
            report = restore_stack(
                directory, stack.home_directory(), archive_survived=archive_survived, progress=progress
            )
        else:
            report = restore_servers(directory, database, archive_survived=archive_survived, progress=progress)
    _conclude(directory, report, embedded=database is None, json=json)


def _is_compose(chosen: Stack, variable: str | None, file: Path | None) -> bool:
    use(chosen)
    if chosen == "compose" and (variable is not None or file is not None):
        raise BadInput(
            f"--stack compose (or {USE}) knows MLflow's database; leave it out, or --database-env and --database-file"
        )
    return chosen == "compose"


def _chosen(options: dict[str, bool]) -> list[str]:
    return [option for option, is_given in options.items() if is_given]


def _database(variable: str | None, file: Path | None) -> Database | None:
    from dlg_ml_tasks.backup.database import database_at

    if variable is not None and file is not None:
        raise BadInput("--database-env and --database-file exclude each other")
    if variable is not None:
        uri = os.environ.get(variable)
        if not uri:
            # Whoever gives the URI itself would have it in the shell's history, and here in a log.
            shown = variable if variable.isidentifier() else "that"
            raise BadInput(
                f"--database-env: no environment variable is called {shown}; it names one, and is not the URI itself"
            )
        return database_at(uri)
    if file is not None:
        try:
            return database_at(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"--database-file {str(file)!r} cannot be read: {error}") from error
    return None


def _source(database: Database | None, destination: str | None) -> Source:
    from dlg_ml_tasks.archive import Address
    from dlg_ml_tasks.backup.database import SqliteDatabase
    from dlg_ml_tasks.backup.making import Source
    from dlg_ml_tasks.stack import processes
    from dlg_ml_tasks.stack.services import database as database_of

    if database is not None:
        return Source(database, destination=destination)
    home = stack.home_directory()
    state = stack.load_state(home)
    archive = state.get("ngas") if state else None
    if archive is None or not processes.is_alive(archive):
        raise BadInput(
            f"the archive of the embedded stack in {home} does not run; start it (dlg-ml up), or see --database-env"
        )
    return Source(SqliteDatabase(database_of(home)), Address(archive.host, archive.ports["ngas"]), destination)


def _verify(directory: Path, *, json: bool) -> None:
    from dlg_ml_tasks.backup.contents import problems_in

    with _shown() as progress:
        manifest, _, problems = problems_in(directory, progress)
    if problems:
        _list(problems)
        errors.print(f"{directory} is damaged", style="bold red", markup=False, soft_wrap=True)
        raise typer.Exit(1)
    _describe(directory, manifest, "intact", json=json)


def _describe(directory: Path, manifest: Manifest, verb: str, *, json: bool) -> None:
    if json:
        print_json({"directory": str(directory), **manifest.model_dump(mode="json")})
        return
    database = manifest.database
    kind = "with the bytes of" if manifest.with_files else "listing, without their bytes,"
    for line in (
        f"{verb}: {directory}, made {manifest.created:%Y-%m-%d %H:%M:%S} UTC",
        f"  MLflow ({database.kind}): {database.experiments} experiments, {database.runs} runs, "
        f"{database.model_versions} model versions",
        f"  archive: {kind} {manifest.files:,} objects, {decimal(manifest.size)}, of "
        + (", ".join(part.address for part in manifest.archives) or "no archive"),
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _conclude(directory: Path, report: Report, *, embedded: bool, json: bool) -> None:
    if json:
        print_json(
            {
                "directory": str(directory),
                "archived": report.sent,
                "in_the_archive_already": report.held,
                "ended_runs": report.ended_runs,
                "artifacts_read": report.artifacts.files,
                "bytes_read": report.artifacts.size,
                "problems": list(report.problems),
            }
        )
    else:
        _describe(directory, report.manifest, "restored", json=False)
        console.print(f"  {report.sent:,} objects archived, {report.held:,} were there", highlight=False)
        if report.ended_runs:
            console.print(f"  {report.ended_runs} runs had not ended; they are KILLED now", highlight=False)
        console.print(
            f"  {report.artifacts.files:,} artifacts ({decimal(report.artifacts.size)}) read with their checksums",
            highlight=False,
        )
    if report.problems:
        _list(report.problems)
        errors.print(f"{len(report.problems)} things are missing or damaged", style="bold red", markup=False)
        raise typer.Exit(1)
    if embedded and not json:
        console.print("start it: dlg-ml up", highlight=False)


def _list(problems: list[str] | tuple[str, ...]) -> None:
    for problem in problems[:_MOST_LINES]:
        errors.print(f"  {problem}", style="red", markup=False, soft_wrap=True, highlight=False)
    if len(problems) > _MOST_LINES:
        errors.print(f"  ... and {len(problems) - _MOST_LINES} more", style="red")


class _Shown:
    """Parts of the work as bars at a terminal, and as lines elsewhere."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def step(self, what: str, total: int | None = None) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        size = f" ({decimal(total)})" if total else ""
        self._task = self._bars.add_task(f"{what}{size}", total=total)
        if not errors.is_terminal:
            errors.print(f"  {what}{size}", markup=False, highlight=False, soft_wrap=True)

    def advance(self, amount: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, amount)


@contextmanager
def _shown() -> Iterator[_Shown]:
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn()
    # On the error stream: what --json prints goes to another program.
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bars:
        yield _Shown(bars)
