"""Finding the archive's volumes when the server starts, and repairing what a crash left on them.

Each volume is a directory `volume1`, `volume2`, … below the root: a directory, or the mount point of a disk. A file in it
holds the disk's id, so that a disk that is not mounted is not taken for one whose files are gone.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

from .catalogue import Catalogue
from .records import StoredDisk
from .vault import Volume, flush_directory

logger = logging.getLogger(__name__)

_CATALOGUE = "catalogue.sqlite"
_MARKER = "disk_id"
# A crash leaves one unregistered object per upload then under way.
_MOST_ORPHANS = 1000


class CatalogueLost(Exception):
    """The archive has bytes its catalogue knows nothing of, and removing them would destroy data."""


def open_archive(root: Path, count: int) -> tuple[Catalogue, list[Volume]]:
    """The catalogue and the volumes of the archive in `root`, at least `count` of these; all are made if it is empty.

    Raises OSError if `root` cannot be written, sqlite3.Error if the catalogue cannot be read, CatalogueLost if it is
    missing or lacks most of the files.
    """
    path = root / _CATALOGUE
    if path.exists():
        _adopt_first_volume(root, path)
    elif any(Volume("", directory).has_objects() for directory in (root, *root.glob("volume*"))):
        raise CatalogueLost(f"The catalogue {path} is missing, but there are files for it to know")
    catalogue = Catalogue(path)
    try:
        return catalogue, _open_volumes(root, catalogue, count)
    except BaseException:
        catalogue.close()
        raise


def _adopt_first_volume(root: Path, path: Path) -> None:
    """Give the only disk of an archive made by version 1, which was the root itself, a directory of its own.

    Each step may be the last before a crash: the next start goes on with the one after it.
    """
    if not (root / "objects").is_dir():
        return
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != 1:
            return
        (disk_id,) = connection.execute("SELECT disk_id FROM volume").fetchone()
    logger.info("Moving the files of %s to its volume1", root)
    first = root / "volume1"
    _mark(first, disk_id)
    for name in ("staging", "objects"):
        if (root / name).is_dir():
            (root / name).rename(first / name)
    flush_directory(first)
    flush_directory(root)


def _open_volumes(root: Path, catalogue: Catalogue, count: int) -> list[Volume]:
    known = {disk.slot_id: disk for disk in catalogue.disks()}
    slots = [f"volume{number}" for number in range(1, max(count, len(known)) + 1)]
    return [_open_volume(root / slot, catalogue, known.get(slot)) for slot in slots]


def _open_volume(directory: Path, catalogue: Catalogue, known: StoredDisk | None) -> Volume:
    marker = directory / _MARKER
    found = marker.read_text().strip() if marker.exists() else None
    named = catalogue.objects(known.disk_id) if known else {}
    if known and found != known.disk_id and (found or named):
        logger.error(
            "%s is not mounted: disk %s is expected there, with %d files, and %s was found. Mount it and start again",
            *(directory, known.disk_id, len(named), f"disk {found}" if found else "none"),
        )
        return Volume(known.disk_id, directory, mounted=False)
    if known is None and Volume("", directory).has_objects():
        raise CatalogueLost(f"{directory} holds files of another archive, which this catalogue does not know")
    disk_id = found or (known.disk_id if known else uuid.uuid4().hex)
    if found is None:
        _mark(directory, disk_id)
    if known is None:
        catalogue.add_disk(disk_id, directory.name).result()
    volume = Volume(disk_id, directory)
    volume.prepare()
    _reconcile(volume, named)
    return volume


def _mark(directory: Path, disk_id: str) -> None:
    directory.mkdir(exist_ok=True)
    marker = directory / _MARKER
    if not marker.exists():
        new = marker.with_suffix(".new")
        with new.open("w") as file:
            file.write(f"{disk_id}\n")
            file.flush()
            os.fsync(file.fileno())
        new.rename(marker)
    flush_directory(directory)
    flush_directory(directory.parent)


def _reconcile(volume: Volume, named: dict[str, int]) -> None:
    """Remove the objects that no row names, and report the rows whose object is gone.

    Raises CatalogueLost, and removes nothing, if a crash cannot have left so many.
    """
    found = set(volume.objects())
    orphans = found - named.keys()
    if len(orphans) > max(_MOST_ORPHANS, len(named)):
        raise CatalogueLost(
            f"{volume.directory} holds {len(orphans)} files that its catalogue, with {len(named)}, does not know"
        )
    for orphan in sorted(orphans):
        logger.warning("Removing %s, which was never registered", volume.path(orphan))
        volume.remove(orphan)
    for lost in sorted(named.keys() - found):
        logger.error("%s is registered, but its bytes are gone", volume.path(lost))
