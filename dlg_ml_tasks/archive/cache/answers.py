"""What an archive said of its paths, as it is written to disk and read back; whatever comes from disk is checked."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from dlg_ml_tasks.archive import naming

_OF_FILES = frozenset({"version", "file_id", "ukey"})

M = TypeVar("M", bound="_Stored")


def _canonical(path: str) -> str:
    if naming.canonical(path) != path:
        raise ValueError("not a canonical path")
    return path


CanonicalPath = Annotated[str, AfterValidator(_canonical)]


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Answer(_Stored):
    """What the archive said of one path. Fields are those of the file system's `info`; times are in UTC."""

    name: CanonicalPath
    type: Literal["file", "directory", "missing"]
    size: NonNegativeInt = 0
    created: datetime | None = None
    modified: datetime | None = None
    checksum: Annotated[str, Field(pattern=r"^[a-z0-9]+:[0-9]+$")] | None = None
    version: NonNegativeInt | None = None
    file_id: str | None = None
    ukey: str | None = None

    @classmethod
    def of(cls, info: dict[str, Any]) -> Answer:
        return cls.model_validate({field: info[field] for field in Answer.model_fields if field in info})

    def info(self) -> dict[str, Any]:
        """As the file system gives it."""
        info = self.model_dump(include=set(Answer.model_fields))
        return info if self.type == "file" else {k: v for k, v in info.items() if k not in _OF_FILES}


class Record(Answer):
    """An answer on disk. `said`: when it was given, nanoseconds since 1970.

    `content_time`: for a file with a copy, the modification time of the copy in nanoseconds, by which it is noticed
    that somebody changed it.
    """

    said: NonNegativeInt
    content_time: int | None = None


class Listing(_Stored):
    """What the archive said was in a directory, and when."""

    directory: CanonicalPath
    said: NonNegativeInt
    entries: list[Answer]

    @cached_property
    def by_name(self) -> dict[str, Answer]:
        return {entry.name: entry for entry in self.entries}


def load(kind: type[M], file: Path) -> M | None:
    """What was stored in `file`; None if there is nothing, or nothing that this module wrote."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
