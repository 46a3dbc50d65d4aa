"""A backup on disk: a folder with a manifest that names each part, its size and its checksum; whole or not there at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import IO, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlg_ml_tasks.archive import Address
from dlg_ml_tasks.stack.errors import StackError

MANIFEST = "manifest.json"
BLOCK = 1 << 20

Progress = Callable[[str, str], None]
"""Called with a part's name and what becomes of it."""

Writer = Callable[[Path], None]
"""Writes one part to the given new file. Raises StackError or OSError."""

Kind = Literal["embedded", "compose", "compose-embedded"]


class Part(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """What a backup holds. `kind` is the stack that it was made of, and the only one that it fits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    kind: Kind
    made: datetime
    version: str
    parts: tuple[Part, ...]

    @property
    def names(self) -> frozenset[str]:
        """The parts' names."""
        return frozenset(part.name for part in self.parts)


class Source(Protocol):
    """A stack that can be backed up, and brought back while it is empty."""

    def source(self, *, files: bool) -> tuple[Kind, Mapping[str, Writer]]:
        """The kind of stack, and a writer of each part, in the order in which they must be taken."""

    def bring_back(self, backup: Path, manifest: Manifest, on_progress: Progress) -> AbstractContextManager[Address]:
        """Put the parts in place and start the archive; gives its address while entered."""


def write(destination: Path, source: tuple[Kind, Mapping[str, Writer]], on_progress: Progress) -> Manifest:
    """Write the parts into a folder beside `destination` and give it that name once all of it is on disk."""
    kind, writers = source
    if destination.exists():
        raise StackError(f"{destination} exists; a backup goes into a new folder")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    except OSError as error:
        raise StackError(f"cannot write beside {destination}: {error.strerror}") from error
    try:
        parts = []
        for name, write_part in writers.items():
            on_progress(name, "writing")
            write_part(folder / name)
            _flush(folder / name)
            parts.append(Part(name=name, size=(folder / name).stat().st_size, sha256=_sha256(folder / name)))
        manifest = Manifest(
            kind=kind, made=datetime.now(timezone.utc), version=version("dlg-ml-tasks"), parts=tuple(parts)
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
        _flush(folder / MANIFEST)
        folder.rename(destination)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StackError(f"the backup could not be written: {error}") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return manifest


def read(folder: Path, on_progress: Progress) -> Manifest:
    """The manifest of a backup all of whose parts are what it says; raises StackError for anything else."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise StackError(f"{folder} is no backup: it has no {MANIFEST}") from error
    except (OSError, ValidationError) as error:
        raise StackError(f"{folder / MANIFEST} cannot be read: {str(error).splitlines()[0]}") from error
    for part in manifest.parts:
        on_progress(part.name, "checking")
        path = folder / part.name
        try:
            intact = path.stat().st_size == part.size and _sha256(path) == part.sha256
        except OSError as error:
            raise StackError(f"{path} cannot be read: {error.strerror}") from error
        if not intact:
            raise StackError(f"{path} is not what was written: its size or checksum differs from {MANIFEST}")
    return manifest


def copy(source: IO[bytes], sink: IO[bytes]) -> None:
    """Copy all of `source` in blocks."""
    shutil.copyfileobj(source, sink, BLOCK)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
