"""QUERY: the tables of the archive, as JSON or as text."""

from __future__ import annotations

import json
from collections.abc import Callable

from .call import Call
from .records import StoredFile
from .refusals import Refusal
from .replies import Reply
from .status_document import VERSION, Disk, ingestion_rate
from .subscriptions.rows import subscriptions

Table = tuple[tuple[str, ...], list[tuple[object, ...]]]  # column names, rows

_FILE_COLUMNS = (
    "disk_id",
    "file_name",
    "file_id",
    "file_version",
    "format",
    "file_size",
    "uncompressed_file_size",
    "compression",
    "ingestion_date",
    "file_ignore",
    "checksum",
    "checksum_plugin",
    "file_status",
    "creation_date",
    "io_time",
    "ingestion_rate",
    "container_id",
)
_SUBSCRIBER_COLUMNS = (
    "host_id",
    "srv_port",
    "subscr_prio",
    "subscr_id",
    "subscr_url",
    "subscr_start_date",
    "subscr_filter_plugin",
    "subscr_filter_plugin_pars",
    "last_file_ingestion_date",
    "concurrent_threads",
)
_RECENT = 300


async def query(call: Call) -> Reply:
    """The table a `query` names, in the `format` asked for."""
    name = call.text("query")
    if name is None:
        raise Refusal(f"No query specified. Valid queries are: {list(_QUERIES)}")
    if name.lower() not in _QUERIES:
        raise Refusal(f"Invalid query specified. Valid queries are: {list(_QUERIES)}")
    body, media_type = await call.node.run(_answer, call, _QUERIES[name.lower()])
    return Reply(body.encode(), {"Content-Type": media_type})


def _answer(call: Call, table_of: Callable[[Call], Table]) -> tuple[str, str]:
    columns, rows = table_of(call)
    wanted = call.text("format")
    if wanted == "json":
        return json.dumps([dict(zip(columns, row, strict=True)) for row in rows]), "application/json"
    if wanted in ("list", "text"):
        return _aligned(columns, rows), "text/plain"
    if wanted == "pickle":
        raise Refusal("format=pickle is not offered: reading a pickle can run any code. Use format=json")
    return str(rows), "application/python-list"


def _aligned(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    cells = [columns, *(tuple(str(value) for value in row) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    rule = " ".join("-" * width for width in widths)
    lines = [" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join([rule, lines[0], rule, *lines[1:]])


def _file_row(file: StoredFile) -> tuple[object, ...]:
    return (
        file.disk_id,
        file.file_name,
        file.file_id,
        file.file_version,
        file.format,
        file.file_size,
        file.file_size,
        "NONE",
        file.ingestion_date,
        0,
        file.checksum,
        file.checksum_plugin,
        "00000000",
        file.ingestion_date,
        file.io_time,
        ingestion_rate(file),
        file.container_id,
    )


def _files(files: list[StoredFile]) -> Table:
    return _FILE_COLUMNS, [_file_row(file) for file in files]


def _files_list(call: Call) -> Table:
    return _files(call.node.catalogue.like("%"))


def _files_like(call: Call) -> Table:
    return _files(call.node.catalogue.like(call.text("like") or "%"))


def _files_between(call: Call) -> Table:
    start, end = call.text("start"), call.text("end")
    if start is None or end is None:
        raise Refusal("files_between needs both start and end, as 2026-11-21T04:34:08.241")
    return _files(call.node.catalogue.between(start, end))


def _files_list_recent(call: Call) -> Table:
    rows: list[tuple[object, ...]] = [
        (file.file_id, file.file_name, file.file_size, file.ingestion_date)
        for file in call.node.catalogue.recent(_RECENT)
    ]
    return ("file_id", "file_name", "file_size", "ingestion_date"), rows


def _files_stats(call: Call) -> Table:
    disks = call.node.catalogue.disks()
    count = sum(disk.number_of_files for disk in disks)
    megabytes = sum(disk.bytes_stored for disk in disks) / 2**20 if count else None
    return ("Number of files", "Total volume [MB]"), [(count, megabytes)]


def _disks_list(call: Call) -> Table:
    rows = [_disk_row(disk) for disk in call.node.disks()]
    return tuple(rows[0]), [tuple(row.values()) for row in rows]


def _disk_row(disk: Disk) -> dict[str, object]:
    return {
        "disk_id": disk.stored.disk_id,
        "archive": "EmbeddedArchive",
        "logical_name": disk.logical_name,
        "host_id": disk.host_id,
        "slot_id": disk.stored.slot_id,
        "mounted": int(disk.mounted),
        "mount_point": str(disk.mount_point),
        "number_of_files": disk.stored.number_of_files,
        "available_mb": disk.free_bytes // 2**20,
        "bytes_stored": disk.stored.bytes_stored,
        "completed": 0,
        "completion_date": None,
        "type": None,
        "manufacturer": None,
        "installation_date": disk.stored.installation_date,
        "checksum": None,
        "total_disk_write_time": 0.0,
        "last_check": None,
        "last_host_id": disk.host_id,
    }


def _hosts_list(call: Call) -> Table:
    row = {
        "host_id": call.node.host_id,
        "srv_version": VERSION,
        "srv_port": int(call.node.host_id.rpartition(":")[2]),
        "srv_archive": 1,
        "srv_retrieve": 1,
        "srv_process": 0,
        "srv_remove": 1,
        "srv_state": "ONLINE" if call.node.online else "OFFLINE",
    }
    return tuple(row), [tuple(row.values())]


def _subscribers(call: Call, pattern: str) -> Table:
    """NGAS's subscribers table; of the hosts that match, of which there is one."""
    with call.node.catalogue.reading() as connection:
        (wanted,) = connection.execute("SELECT ? LIKE ?", (call.node.host_id, pattern)).fetchone()
        found = subscriptions(connection) if wanted else []
    port = int(call.node.host_id.rpartition(":")[2])
    return _SUBSCRIBER_COLUMNS, [
        (
            call.node.host_id,
            port,
            each.priority,
            each.subscr_id,
            each.url,
            each.start_date,
            None,
            None,
            each.last_file_ingestion_date,
            each.concurrent_threads,
        )
        for each in found
    ]


def _subscribers_list(call: Call) -> Table:
    return _subscribers(call, "%")


def _subscribers_like(call: Call) -> Table:
    return _subscribers(call, call.text("like") or "%")


_QUERIES: dict[str, Callable[[Call], Table]] = {
    "files_list": _files_list,
    "files_like": _files_like,
    "files_between": _files_between,
    "files_stats": _files_stats,
    "files_list_recent": _files_list_recent,
    "disks_list": _disks_list,
    "hosts_list": _hosts_list,
    "subscribers_list": _subscribers_list,
    "subscribers_like": _subscribers_like,
}
