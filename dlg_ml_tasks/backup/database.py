"""MLflow's database: copying it while it is in use, putting a copy in its place, asking whether it is empty.

A password travels in this process and in the environment of PostgreSQL's own programs, never on a command line.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from dlg_ml_tasks.backup.contents import flush
from dlg_ml_tasks.backup.errors import BackupError
from dlg_ml_tasks.backup.manifest import DatabaseCopy, DatabaseKind

# Tables without which nothing was recorded; an experiment besides the one that MLflow makes itself counts as a record, too.
_MOST_WHEN_EMPTY = {"runs": 0, "registered_models": 0, "logged_models": 0, "experiments": 1}

# What a URI may say after the question mark, in the words of libpq, and the variables by which its programs are told.
_LIBPQ = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "service": "PGSERVICE",
    "passfile": "PGPASSFILE",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "application_name": "PGAPPNAME",
}


class Database(ABC):
    """MLflow's database. Every method raises BackupError, in one line, for what a person can mend."""

    kind: DatabaseKind

    def __init__(self, url: URL) -> None:
        self.url = url

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def engine(self) -> Engine:
        """A connection pool; to be disposed of."""
        try:
            return create_engine(self.url)
        except (ModuleNotFoundError, NoSuchModuleError) as error:
            raise BackupError(
                f"the driver of {self} is not installed here ({error}); install psycopg, or run this where MLflow runs"
            ) from error

    def describe(self) -> DatabaseCopy:
        """How much the database holds."""
        with closing_engine(self) as engine, engine.connect() as connection:
            counts = {
                table: int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)  # noqa: S608 - constants
                for table in ("experiments", "runs", "model_versions")
            }
            revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return DatabaseCopy(kind=self.kind, revision=str(revision), **counts)

    def refuse_records(self) -> None:
        """Raises BackupError if anything was recorded in the database."""
        with closing_engine(self) as engine, engine.connect() as connection:
            tables = set(inspect(engine).get_table_names())
            for table, most in _MOST_WHEN_EMPTY.items():
                query = text(f"SELECT count(*) FROM {table}")  # noqa: S608 - constants
                count = int(connection.scalar(query) or 0) if table in tables else 0
                if count > most:
                    raise BackupError(
                        f"{self} is in use: it has {count} {table.replace('_', ' ')}. "
                        "A backup is restored into an empty database only."
                    )

    def end_runs(self) -> int:
        """Give the runs that were under way when the copy was made an end, KILLED; returns how many there were.

        Their processes are gone, and nobody else would ever end them.
        """
        update = text("UPDATE runs SET status = 'KILLED', end_time = :now WHERE status IN ('RUNNING', 'SCHEDULED')")
        with closing_engine(self) as engine, engine.begin() as connection:
            return connection.execute(update, {"now": int(time.time() * 1000)}).rowcount

    @abstractmethod
    def copy_to(self, target: Path) -> Database | None:
        """Make `target` a consistent copy of the database, which may be in use; gives the copy if it can be asked itself."""

    @abstractmethod
    def replace_by(self, copy: Path) -> None:
        """Put a copy in the place of the database, whole or not at all."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """The programs that make and read copies, with their versions."""


class SqliteDatabase(Database):
    """A file."""

    kind: DatabaseKind = "sqlite"

    def __init__(self, path: Path) -> None:
        # Built and not parsed: a path may hold what has a meaning in a URL.
        super().__init__(URL.create("sqlite", database=str(path)))
        self.path = path

    def copy_to(self, target: Path) -> SqliteDatabase:
        """By SQLite's own backup, in one step: one that is made in pieces begins anew whenever MLflow writes."""
        if not self.path.is_file():
            raise BackupError(
                f"MLflow's database {self.path} does not exist; has this stack ever run? Start it: dlg-ml up"
            )
        target.unlink(missing_ok=True)
        try:
            with (
                closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, timeout=60)) as source,
                closing(sqlite3.connect(target)) as copy,
            ):
                source.backup(copy)
                (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            raise BackupError(f"{self.path} cannot be copied to {target}: {error}") from error
        if verdict != "ok":
            raise BackupError(f"MLflow's database {self.path} is damaged: {verdict}")
        flush(target)
        return SqliteDatabase(target)

    def replace_by(self, copy: Path) -> None:
        part = self.path.with_name(f".{self.path.name}.restoring")
        try:
            shutil.copyfile(copy, part)
            flush(part)
            # What an earlier database left beside itself must not be taken for this one's.
            for suffix in ("-journal", "-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            part.replace(self.path)
            flush(self.path.parent)
        finally:
            part.unlink(missing_ok=True)

    def refuse_records(self) -> None:
        if self.path.exists():
            super().refuse_records()

    def versions(self) -> dict[str, str]:
        return {"sqlite": sqlite3.sqlite_version}


class PostgresDatabase(Database):
    """A database of a PostgreSQL server, by its own programs pg_dump and pg_restore."""

    kind: DatabaseKind = "postgresql"

    def __init__(self, url: URL) -> None:
        super().__init__(url)
        self._environment = _libpq_environment(url)

    def copy_to(self, target: Path) -> None:
        target.unlink(missing_ok=True)
        self._run("pg_dump", "--no-password", "--format=custom", "--no-owner", "--no-privileges", f"--file={target}")
        flush(target)

    def replace_by(self, copy: Path) -> None:
        self._run(
            *("pg_restore", "--no-password", "--clean", "--if-exists", "--no-owner", "--no-privileges"),
            # Given by name: without it pg_restore would write a script. The rest comes from the environment.
            *("--single-transaction", "--exit-on-error", f"--dbname={self._environment['PGDATABASE']}", str(copy)),
        )

    def versions(self) -> dict[str, str]:
        return {"pg_dump": self._run("pg_dump", "--version").split()[-1]}

    def _run(self, program: str, *arguments: str) -> str:
        found = shutil.which(program)
        if found is None:
            raise BackupError(
                f"{program} is not installed here; it comes with PostgreSQL's client (apt-get install postgresql-client)"
            )
        try:
            done = subprocess.run(  # noqa: S603 - no shell; the password is in the environment alone
                [found, *arguments], env={**os.environ, **self._environment}, capture_output=True, text=True, check=True
            )
        except subprocess.CalledProcessError as error:
            reason = " ".join(error.stderr.split()) or f"it ended with code {error.returncode}"
            raise BackupError(f"{program} with {self}: {reason[:600]}") from error
        return done.stdout


class closing_engine:  # noqa: N801 - used as `contextlib.closing` is
    """The engine of a database for the length of a `with`; what SQLAlchemy raises in it becomes a BackupError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._engine = database.engine()

    def __enter__(self) -> Engine:
        return self._engine

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._engine.dispose()
        if isinstance(error, SQLAlchemyError):
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise BackupError(f"MLflow's database {self._database} cannot be read: {reason}") from error


def database_at(uri: str) -> Database:
    """The database that a URI names, as ``mlflow server --backend-store-uri`` takes it.

    Raises BackupError for anything but SQLite and PostgreSQL; the URI is not repeated, as it may hold a password.
    """
    try:
        url = make_url(uri.strip())
    except (ArgumentError, ValueError) as error:
        raise BackupError(
            "that is no database URI; write sqlite:////path/mlflow.db or postgresql://user@host/database"
        ) from error
    name = url.get_backend_name()
    if name == "sqlite" and url.database:
        return SqliteDatabase(Path(url.database).absolute())
    if name == "postgresql":
        return PostgresDatabase(url)
    raise BackupError(
        f"a database of the kind {name!r} cannot be backed up here; use its own tools, or SQLite or PostgreSQL"
    )


def _libpq_environment(url: URL) -> dict[str, str]:
    """What PostgreSQL's programs must be told to reach the database of a URL."""
    parts: Mapping[str, str | int | Sequence[str] | None] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
    }
    told = {name: str(value) for name, value in parts.items() if value is not None}
    for name, value in url.query.items():
        if name not in _LIBPQ:
            raise BackupError(
                f"the database URI says {name!r}, which is not understood here; there are {', '.join(_LIBPQ)}"
            )
        told[name] = value if isinstance(value, str) else ",".join(value)
    told.setdefault("dbname", os.environ.get("PGDATABASE") or told.get("user", ""))
    if not re.fullmatch(r"[^=\s]+", told["dbname"]):
        # A name with "=" would be read as a connection string.
        raise BackupError("the database URI must name a database, as in postgresql://user@host/mlflow")
    return {_LIBPQ[name]: value for name, value in told.items()}
