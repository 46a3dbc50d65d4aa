"""What can go wrong between this process and an NGAS server, as exceptions that ordinary Python code already catches.

    Exception
    └── NgasError               everything below
        ├── FileNotInArchive    also FileNotFoundError: no such file, container or subscription, or it has gone
        ├── Conflict            also FileExistsError: something that the archive has stands in the way
        ├── AccessRefused       also PermissionError: credentials missing, wrong, or not enough
        ├── ArchiveFull         also OSError: no volume can take the file
        ├── ChecksumMismatch    also OSError: bytes sent, stored or received differ from what they should be
        ├── ChecksumUnsupported the server cannot compute the kind of checksum it was asked for
        ├── ArchiveOverloaded   too many requests at once; tried again until patience ran out
        ├── ArchiveOffline      the server runs but was switched to OFFLINE
        ├── ArchiveUnreachable  also ConnectionError: no connection, or it broke before the answer came
        ├── NotInCache          also OSError: working offline, and what was asked needs the archive
        ├── CacheUnusable       also OSError: the folder for local copies cannot be trusted
        └── ProtocolError       an answer that an NGAS server should not give

NGAS reports almost every failure as HTTP 400 and some as HTTP 200, so the message id decides; `ANSWERS` is the one table.
"""

from __future__ import annotations

import errno
from typing import ClassVar, NamedTuple


class NgasError(Exception):
    """An NGAS command failed.

    Attributes: `message` (the server's own words, or what was seen on the connection), `server` ("host:port"),
    `file_id` (the archive's name of the file), `path` (the file's path, where a file system gave it), `remedy`
    (what to do next). All are plain strings, empty where unknown, and survive pickling.
    """

    default_remedy: ClassVar[str] = "See the log of the NGAS server."

    def __init__(
        self, message: str, *, server: str = "", file_id: str = "", path: str = "", remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.server = server
        self.file_id = file_id
        self.path = path
        self.remedy = self.default_remedy if remedy is None else remedy

    def __str__(self) -> str:
        where = f"NGAS server {self.server}: " if self.server else ""
        names = ", ".join(f"{label} {name}" for label, name in (("path", self.path), ("file id", self.file_id)) if name)
        what = f"{self.message} ({names})" if names else self.message
        return f"{where}{what.rstrip('.')}. {self.remedy}".rstrip()


class FileNotInArchive(NgasError, FileNotFoundError):
    default_remedy = "Check the name; list its directory to see what is there."


class Conflict(NgasError, FileExistsError):
    default_remedy = "Choose another name, or remove what is there first."


class AccessRefused(NgasError, PermissionError):
    default_remedy = (
        "Set DLG_ML_NGAS_USER and DLG_ML_NGAS_PASSWORD, or write into ~/.netrc, a user whose Commands in the NGAS "
        "configuration allow this. With DLG_ML_NGAS_HOSTS set, the server must be in it."
    )


class ArchiveFull(NgasError, OSError):
    default_remedy = "Free space on the server's volumes or mount another one."

    def __init__(
        self, message: str, *, server: str = "", file_id: str = "", path: str = "", remedy: str | None = None
    ) -> None:
        super().__init__(message, server=server, file_id=file_id, path=path, remedy=remedy)
        self.errno = errno.ENOSPC


class ChecksumMismatch(NgasError, OSError):
    default_remedy = "Nothing was kept. Try again; if it persists, the network or a disk damages data."


class ChecksumUnsupported(NgasError):
    default_remedy = "Install the Python package crc32c where the NGAS server runs."


class ArchiveOverloaded(NgasError):
    default_remedy = "Try again later, use fewer parallel transfers, or raise MaxSimReqs in the NGAS configuration."


class ArchiveOffline(NgasError):
    default_remedy = "Ask the operator to send the server the ONLINE command."


class ArchiveUnreachable(NgasError, ConnectionError):
    default_remedy = (
        "Check that the server runs and that host and port are right. A server that is up drops connections without "
        "an answer when it is overloaded, when its disk is full, or when a file is missing on its disk: see its log."
    )
    # Whether a connection kept from an earlier request turned out to be closed, which says nothing of the server.
    stale = False


class NotInCache(NgasError, OSError):
    """Not a FileNotFoundError: the file may well be in the archive, and zarr fills what is not found with zeros."""

    default_remedy = (
        "Read it once with DLG_ML_NGAS_CACHE=online while the archive can be reached, "
        "or set it to prefer-cache or online."
    )


class CacheUnusable(NgasError, OSError):
    default_remedy = "Set DLG_ML_NGAS_CACHE_DIR to a folder of your own."


class ProtocolError(NgasError):
    default_remedy = "Check that host and port belong to an NGAS server; its log says more."


class Answer(NamedTuple):
    """One row of `ANSWERS`: matches when the HTTP code is equal (None: any) and the message contains `text`.

    `text` None: the message is empty.
    """

    http: int | None
    text: str | None
    error: type[NgasError]


ANSWERS: tuple[Answer, ...] = (
    Answer(401, "", AccessRefused),
    Answer(403, "", AccessRefused),
    Answer(503, "", ArchiveOverloaded),
    Answer(None, "NGAMS_ER_UNAVAIL_FILE:4019", FileNotInArchive),
    Answer(None, "NGAMS_ER_DISCARD_NOT_FOUND:4063", FileNotInArchive),
    Answer(400, "Cannot remove file", FileNotInArchive),  # DISCARD, when somebody else's came between
    # SQLite below a server with many requests at a time: 24 clients met each of these; the last was a MemoryError.
    Answer(400, "database is locked", ArchiveOverloaded),
    Answer(400, "cannot commit transaction", ArchiveOverloaded),
    Answer(400, "error return without exception set", ArchiveOverloaded),
    Answer(400, None, ArchiveOverloaded),
    # Two writers took the same version of one id at a time, as when both make a directory; the one refused looks again,
    # and finds the bytes or takes the next version. As SQLite, PostgreSQL and MySQL say it.
    Answer(400, "UNIQUE constraint failed", ArchiveOverloaded),
    Answer(400, "duplicate key value violates unique constraint", ArchiveOverloaded),
    Answer(400, "Duplicate entry", ArchiveOverloaded),
    # CLONE
    Answer(None, "No files for cloning found", FileNotInArchive),
    Answer(None, "NGAMS_ER_CLONE_REJECTED:4053", ArchiveFull),
    # Containers
    Answer(None, "No container with id", FileNotInArchive),
    Answer(None, "No container found with name", FileNotInArchive),
    Answer(None, "cannot append it to container", FileNotInArchive),
    Answer(None, "More than one container with name", Conflict),
    Answer(None, "already associated to container", Conflict),
    Answer(None, "has sub-containers", Conflict),
    # SUBSCRIBE and UNSUBSCRIBE
    Answer(409, "", Conflict),
    Answer(200, "UNSUBSCRIBE command failed", FileNotInArchive),
    Answer(None, "NGAMS_ER_IMPROPER_STATE:4015", ArchiveOffline),
    # AllowArchiveReq=0 or AllowRetrieveReq=0 in the server's configuration.
    Answer(None, "NGAMS_ER_ILL_REQ:4017", AccessRefused),
    Answer(None, "NGAMS_AL_NO_STO_SETS:3014", ArchiveFull),
    Answer(None, "No disk volumes are available", ArchiveFull),
    Answer(None, "NGAMS_ER_FILE_NOK:4057", ChecksumMismatch),
    Answer(None, "Checksum error for file", ChecksumMismatch),
    # crc_variant=crc32c on a server without the crc32c package, and on one that knows no names of variants.
    Answer(400, "CRC32c instruction is not available", ChecksumUnsupported),
    Answer(400, "Unknown CRC variant", ChecksumUnsupported),
    Answer(400, "Unknown crc_variant", ChecksumUnsupported),
    Answer(400, "invalid literal for int() with base 10: 'crc32c'", ChecksumUnsupported),
    # The upload's connection broke on its way to the server, which saw a short body.
    Answer(400, "Only read ", ArchiveUnreachable),
)


def error_for(http: int, message: str, *, server: str, file_id: str = "") -> NgasError:
    """The exception for an NGAS answer, by `ANSWERS`; `ProtocolError` for an answer the table does not know."""
    for answer in ANSWERS:
        says_so = not message if answer.text is None else answer.text in message
        if answer.http in (None, http) and says_so:
            return answer.error(message or f"HTTP {http}", server=server, file_id=file_id)
    return ProtocolError(message or f"HTTP {http} without a message", server=server, file_id=file_id)
