"""What goes wrong in the archive, in MLflow's words: with these codes a tracking server answers its clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    DATA_LOSS,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    RESOURCE_CONFLICT,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)

from dlg_ml_tasks.archive.errors import (
    ArchiveFull,
    ArchiveOffline,
    ArchiveOverloaded,
    ArchiveUnreachable,
    CacheUnusable,
    ChecksumMismatch,
    ChecksumUnsupported,
    NgasError,
    NotInCache,
)


class Code(NamedTuple):
    """One row of `CODES`."""

    errors: tuple[type[Exception], ...]
    code: int


# MLflow's clients repeat a request for minutes on HTTP 429, 500, 503 and 504, and then lose the message: only what may
# pass by itself gets a code that means one of these. The first row that matches counts.
CODES: tuple[Code, ...] = (
    Code((ArchiveOverloaded, ArchiveOffline, ArchiveUnreachable), TEMPORARILY_UNAVAILABLE),
    Code((ChecksumMismatch,), DATA_LOSS),
    Code((ArchiveFull, ChecksumUnsupported, NotInCache, CacheUnusable), RESOURCE_CONFLICT),
    Code((FileNotFoundError,), RESOURCE_DOES_NOT_EXIST),
    Code((PermissionError,), PERMISSION_DENIED),
    # A directory where a file is meant or the other way round, and names that the archive cannot hold.
    Code((IsADirectoryError, NotADirectoryError, FileExistsError, ValueError), INVALID_PARAMETER_VALUE),
    # A strange answer: the real server's database, when it is locked, gives such to one request and not to the next.
    Code((NgasError,), INTERNAL_ERROR),
)


@contextmanager
def told_to_mlflow(attempt: str) -> Iterator[None]:
    """Turn an error of the archive into an MlflowException with the error as its cause.

    attempt: what was tried, such as "download model/weights.pt from ngas://…"; the message begins with it.
    Other errors pass, those of the local file system among them.
    """
    try:
        yield
    except (NgasError, IsADirectoryError, NotADirectoryError, FileExistsError, ValueError) as error:
        code = next(row.code for row in CODES if isinstance(error, row.errors))
        raise MlflowException(f"Could not {attempt}: {error}", error_code=code) from error
