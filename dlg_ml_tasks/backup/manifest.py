"""What a backup's folder holds and what it says of itself; knows neither MLflow nor the archive.

    manifest.json    when, by which versions, of what: `Manifest`
    mlflow.sqlite    MLflow's database, or
    mlflow.pgdump    the same from PostgreSQL, in the custom format of pg_dump
    files.jsonl      one archived object per line: `ArchivedObject`
    files/ab/ab...   the objects' bytes, unless the backup was made without them
    SHA256SUMS       of all of these, for `sha256sum -c SHA256SUMS` too

The folder gets its name when all of it is on disk. What is not whole is called NAME.partial.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlg_ml_tasks.backup.errors import BackupError

FORMAT: Literal[1] = 1
MANIFEST = "manifest.json"
LISTING = "files.jsonl"
SUMS = "SHA256SUMS"
FILES = "files"
DATABASES = {"sqlite": "mlflow.sqlite", "postgresql": "mlflow.pgdump"}
LAYOUT = frozenset({MANIFEST, LISTING, SUMS, FILES, *DATABASES.values()})

DatabaseKind = Literal["sqlite", "postgresql"]
Authority = Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$")]
"""host:port of an archive."""


class ArchivedObject(BaseModel):
    """One object of an archive, in its latest version.

    `size` is in bytes; `checksum` is the archive's own, as ``crc32c:152299802``, None where it has none and the backup has no bytes
    to compute one from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    archive: Authority
    file_id: str = Field(min_length=1)
    filename: str = Field(pattern=r"^[^/\x00]+$")
    size: int = Field(ge=1)
    checksum: str | None = Field(pattern=r"^crc32c?:[0-9]{1,10}$")

    @property
    def place(self) -> str:
        """Where its bytes lie, relative to the backup: made from a hash, because an id may be anything."""
        name = hashlib.blake2b(f"{self.archive} {self.file_id}".encode(), digest_size=20).hexdigest()
        return f"{FILES}/{name[:2]}/{name}"


class DatabaseCopy(BaseModel):
    """MLflow's database as it was: the schema's revision, and how much it held."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: DatabaseKind
    revision: str
    experiments: int
    runs: int
    model_versions: int


class ArchivePart(BaseModel):
    """What the backup has of one archive: all of it, or what lies below `roots`. `size` is in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Authority
    whole: bool
    roots: tuple[str, ...]
    files: int
    size: int


class Manifest(BaseModel):
    """What a backup says of itself.

    `embedded` is the address of the embedded stack's archive, None for a backup of other servers. `destination` is the archive URL
    that ``mlflow-artifacts:/`` stood for. `elsewhere` are artifact locations of which the backup has nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    created: datetime
    with_files: bool
    software: dict[str, str]
    database: DatabaseCopy
    archives: tuple[ArchivePart, ...]
    embedded: Authority | None
    destination: str | None
    elsewhere: tuple[str, ...]

    @property
    def database_file(self) -> str:
        """The database's file, relative to the backup."""
        return DATABASES[self.database.kind]

    @property
    def files(self) -> int:
        """How many objects of archives the backup lists."""
        return sum(part.files for part in self.archives)

    @property
    def size(self) -> int:
        """Bytes of these objects."""
        return sum(part.size for part in self.archives)


def read_manifest(directory: Path) -> Manifest:
    """What the backup in `directory` says of itself. Raises BackupError if that is none, or of a format unknown here."""
    path = directory / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        found = content.get("format") if isinstance(content, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise BackupError(f"{directory} is of format {found}, made by a later version; this one reads {FORMAT}")
        return Manifest.model_validate(content)
    except FileNotFoundError:
        hint = ": it was never finished" if directory.name.endswith(".partial") else ""
        raise BackupError(f"{str(directory)!r} is no backup (it has no {MANIFEST}){hint}") from None
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        wrong = error.errors()[0]
        raise BackupError(f"{path} is damaged: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from error
    except ValueError as error:
        raise BackupError(f"{path} is damaged: {error}") from error


def read_objects(directory: Path) -> list[ArchivedObject]:
    """The objects that a backup lists. Raises BackupError for a damaged line."""
    objects = []
    try:
        with (directory / LISTING).open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    objects.append(ArchivedObject.model_validate_json(line))
                except ValidationError as error:
                    raise BackupError(f"{directory / LISTING}, line {number} is damaged: {line[:80]!r}") from error
    except OSError as error:
        raise BackupError(f"{directory / LISTING} cannot be read: {error.strerror}") from error
    return objects


def expected_files(manifest: Manifest, objects: Iterable[ArchivedObject]) -> list[str]:
    """Every file that a backup has, relative to it, but for its list of sums."""
    places = (one.place for one in objects) if manifest.with_files else ()
    return [MANIFEST, manifest.database_file, LISTING, *places]
