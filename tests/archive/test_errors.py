from __future__ import annotations

import errno
import pickle

import pytest

from dlg_ml_tasks.archive import (
    AccessRefused,
    ArchiveFull,
    ArchiveOffline,
    ArchiveOverloaded,
    ArchiveUnreachable,
    ChecksumMismatch,
    Conflict,
    FileNotInArchive,
    NgasError,
    ProtocolError,
)
from dlg_ml_tasks.archive.errors import ChecksumUnsupported, error_for

ALL = NgasError.__subclasses__()


@pytest.mark.parametrize(
    ("http", "message", "expected"),
    [
        (400, "NGAMS_ER_UNAVAIL_FILE:4019:ERROR: File with ID: x appears not to be available.", FileNotInArchive),
        (200, "NGAMS_ER_DISCARD_NOT_FOUND:4063:ERROR: nothing", FileNotInArchive),
        (400, "Cannot remove file. File ID: x, File Version: 1, Disk ID: d", FileNotInArchive),
        (401, "Unauthorized request received", AccessRefused),
        (403, "Unauthorized access denied", AccessRefused),
        (400, "NGAMS_ER_ILL_REQ:4017:ERROR: not configured for accepting Archive Requests", AccessRefused),
        (400, "NGAMS_AL_NO_STO_SETS:3014:ALERT: none", ArchiveFull),
        (400, "No disk volumes are available for ingesting any files.", ArchiveFull),
        (400, "Checksum error for file X, local crc = 1, but remote crc = 2", ChecksumMismatch),
        (200, "NGAMS_ER_FILE_NOK:4057:ERROR: Inconsistent checksum found", ChecksumMismatch),
        (503, "HTTP 503", ArchiveOverloaded),
        (400, "NGAMS_ER_IMPROPER_STATE:4015:ERROR: OFFLINE/IDLE", ArchiveOffline),
        (400, "Only read 5 out of 100 bytes (95 bytes missing)", ArchiveUnreachable),
        (400, "NGAMS_ER_CMD_EXEC:4036:ERROR: No files for cloning found", FileNotInArchive),
        (400, "NGAMS_ER_CLONE_REJECTED:4053:ERROR: Insufficient space", ArchiveFull),
        (400, "Invalid parameter: No container with id 'x'", FileNotInArchive),
        (400, "No container found with name x", FileNotInArchive),
        (400, "More than one container with name x found, cannot proceed with unique fetching", Conflict),
        (400, "No file with fileId 'x' found, cannot append it to container", FileNotInArchive),
        (400, "File x already associated to container y, 'force' parameter must be given", Conflict),
        (400, "Container x has sub-containers, use the recursive option to remove them", Conflict),
        (409, "Different subscription with ID 's1' existed", Conflict),
        (200, "UNSUBSCRIBE command failed: no such subscription", FileNotInArchive),
        (400, "Intel SSE 4.2 CRC32c instruction is not available", ChecksumUnsupported),
        (400, "Unknown crc_variant 'crc32c'", ChecksumUnsupported),
        (400, "invalid literal for int() with base 10: 'crc32c'", ChecksumUnsupported),
        (404, "Command not found", ProtocolError),
        (400, "database is locked", ArchiveOverloaded),
        (400, "UNIQUE constraint failed: ngas_files.file_id, ngas_files.file_version", ArchiveOverloaded),
        (400, 'duplicate key value violates unique constraint "ngas_files_idx"', ArchiveOverloaded),
        (400, "", ArchiveOverloaded),
        (500, "", ProtocolError),
    ],
)
def test_each_answer_of_ngas_is_one_exception(http: int, message: str, expected: type[NgasError]) -> None:
    error = error_for(http, message, server="archive:7777", file_id="x")
    assert type(error) is expected
    assert (error.server, error.file_id) == ("archive:7777", "x")


@pytest.mark.parametrize(
    ("error", "natural"),
    [
        (FileNotInArchive, FileNotFoundError),
        (AccessRefused, PermissionError),
        (Conflict, FileExistsError),
        (ArchiveFull, OSError),
        (ArchiveUnreachable, ConnectionError),
    ],
)
def test_ordinary_except_clauses_catch_archive_errors(error: type[NgasError], natural: type[Exception]) -> None:
    with pytest.raises(natural):
        raise error("no")


@pytest.mark.parametrize("error", ALL)
def test_an_error_tells_server_file_cause_and_remedy_in_one_line(error: type[NgasError]) -> None:
    text = str(error("it broke", server="archive:7777", file_id="abc", path="/a/b"))
    assert text == f"NGAS server archive:7777: it broke (path /a/b, file id abc). {error.default_remedy}"
    assert "\n" not in text


@pytest.mark.parametrize("error", ALL)
def test_an_error_survives_the_way_between_processes(error: type[NgasError]) -> None:
    sent = error("it broke", server="archive:7777", file_id="abc", path="/a/b", remedy="Mend it.")
    received = pickle.loads(pickle.dumps(sent))
    assert type(received) is error
    assert str(received) == str(sent)
    assert vars(received) == vars(sent)


def test_a_full_archive_has_the_errno_of_a_full_disk() -> None:
    assert ArchiveFull("full").errno == errno.ENOSPC
