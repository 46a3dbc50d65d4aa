"""What the QUERY command tells of an archive as a whole: its disks, its size, its newest files, its subscribers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dlg_ml_tasks.archive.connection import Connection
from dlg_ml_tasks.archive.reply import Row, time_of


@dataclass(frozen=True)
class Disk:
    """A volume of the archive; sizes in bytes, the free space as of the last file that was archived there."""

    disk_id: str
    host_id: str
    mount_point: str
    mounted: bool
    number_of_files: int
    stored_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class Totals:
    """How much the archive holds: copies of versions of files, and their bytes to about a kilobyte."""

    files: int
    size: int


@dataclass(frozen=True)
class RecentFile:
    """One of the newest files; `size` in bytes, `ingested` in UTC."""

    file_id: str
    size: int
    ingested: datetime | None


@dataclass(frozen=True)
class Subscription:
    """Somebody to whom the archive sends every new file; `start` in UTC."""

    subscription_id: str
    url: str
    start: datetime | None


def disks(connection: Connection) -> list[Disk]:
    """Every volume that the archive knows; one try."""
    return connection.query("disks_list", _disk)


def totals(connection: Connection) -> Totals:
    """How much the archive holds; one try."""
    return connection.query("files_stats", _totals)[0]


def recent_files(connection: Connection) -> list[RecentFile]:
    """The newest 300 copies of files, newest first; one try."""
    return connection.query("files_list_recent", _recent_file)


def subscriptions(connection: Connection) -> list[Subscription]:
    """Everybody who is sent new files; one try."""
    return connection.query("subscribers_list", _subscription)


def _disk(row: Row) -> Disk:
    return Disk(
        disk_id=str(row["disk_id"]),
        host_id=str(row.get("host_id") or ""),
        mount_point=str(row.get("mount_point") or ""),
        mounted=bool(_number(row.get("mounted", 1))),
        number_of_files=int(_number(row.get("number_of_files"))),
        stored_bytes=int(_number(row.get("bytes_stored"))),
        available_bytes=int(_number(row["available_mb"]) * 1e6),
    )


def _totals(row: Row) -> Totals:
    return Totals(int(_number(row["Number of files"])), int(_number(row["Total volume [MB]"]) * (1 << 20)))


def _recent_file(row: Row) -> RecentFile:
    return RecentFile(str(row["file_id"]), int(_number(row["file_size"])), time_of(row.get("ingestion_date")))


def _subscription(row: Row) -> Subscription:
    return Subscription(str(row["subscr_id"]), str(row["subscr_url"]), time_of(row.get("subscr_start_date")))


def _number(value: object) -> float:
    """NGAS gives null for the size of an empty archive."""
    return 0.0 if value is None else float(str(value))
