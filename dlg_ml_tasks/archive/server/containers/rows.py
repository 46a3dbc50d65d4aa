"""Containers in the catalogue: a tree of names in which every file stands at most once.

The functions that change something are for a transaction of the catalogue, and change all or nothing.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from ..catalogue import select_files
from ..records import StoredFile, timestamp
from ..refusals import Refusal

_LATEST_OF_CONTAINER = """
WHERE container_id = ?
AND file_version = (SELECT max(file_version) FROM files AS other WHERE other.file_id = files.file_id)
AND disk_id = (
    SELECT min(disk_id) FROM files AS other
    WHERE other.file_id = files.file_id AND other.file_version = files.file_version
) ORDER BY file_id
"""


@dataclass(frozen=True)
class ContainerNames:
    """A tree of containers still to be made."""

    name: str
    children: tuple[ContainerNames, ...] = ()


@dataclass(frozen=True)
class Container:
    """A container with all below it. `files` are the latest versions, one copy each, in the order of their ids.

    `ingestion_date` is when it was closed; None for one that is open.
    """

    container_id: str
    name: str
    ingestion_date: str | None
    files: tuple[StoredFile, ...] = ()
    children: tuple[Container, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of its own files."""
        return sum(file.file_size for file in self.files)


def create(connection: sqlite3.Connection, names: ContainerNames, parent_id: str | None) -> Container:
    """Make a tree of containers below `parent_id`, or at the top for None."""
    if parent_id is not None and not _exists(connection, parent_id):
        raise Refusal(f"No container with id '{parent_id}' exists, cannot use it as parent_container_id")
    container_id = str(uuid.uuid4())
    try:
        connection.execute("INSERT INTO containers VALUES (?, ?, ?, NULL)", (container_id, parent_id, names.name))
    except sqlite3.IntegrityError:
        raise Refusal(
            f"A container with name '{names.name}' already exists as subcontainer of '{parent_id}', "
            "cannot add a new container with the same name"
        ) from None
    children = tuple(create(connection, child, container_id) for child in names.children)
    return Container(container_id, names.name, None, children=children)


def identify(connection: sqlite3.Connection, container_id: str | None, name: str | None) -> str:
    """The id of the container that a request names, by id or else by a name that only one has."""
    if container_id is not None:
        if not _exists(connection, container_id):
            raise Refusal(f"Invalid parameter: No container with id '{container_id}'")
        return container_id
    if name is None:
        raise Refusal("Invalid parameter: container_id or container_name needed")
    found = connection.execute(
        "SELECT container_id FROM containers WHERE container_name = ? LIMIT 2", (name,)
    ).fetchall()
    if not found:
        raise Refusal(f"No container found with name {name}")
    if len(found) > 1:
        raise Refusal(f"More than one container with name {name} found, cannot proceed with unique fetching")
    return str(found[0][0])


def tree(connection: sqlite3.Connection, container_id: str) -> Container:
    """A container with all below it; whole if read within one transaction."""
    query = "SELECT container_name, ingestion_date FROM containers WHERE container_id = ?"
    name, ingestion_date = connection.execute(query, (container_id,)).fetchone()
    files = tuple(select_files(connection, _LATEST_OF_CONTAINER, container_id))
    children = tuple(tree(connection, child_id) for child_id in _children(connection, container_id))
    return Container(container_id, name, ingestion_date, files, children)


def append(connection: sqlite3.Connection, container_id: str, file_ids: Iterable[str], *, force: bool) -> None:
    """Put files into a container; `force` takes those in another one out of it."""
    for file_id in file_ids:
        current = _container_of(connection, file_id, "append it to container")
        if current not in (None, container_id) and not force:
            raise Refusal(
                f"File '{file_id}' is already associated to container '{current}'. "
                "To override the 'force' parameter must be given"
            )
        _put(connection, file_id, container_id)


def remove(connection: sqlite3.Connection, container_id: str, file_ids: Iterable[str]) -> None:
    """Take files out of a container; one that is in none stays so."""
    for file_id in file_ids:
        current = _container_of(connection, file_id, "remove it from container")
        if current not in (None, container_id):
            raise Refusal(f"File with fileId '{file_id}' is associated with a different container: {current}")
        _put(connection, file_id, None)


def close(connection: sqlite3.Connection, container_id: str) -> None:
    """Date a container as complete."""
    connection.execute("UPDATE containers SET ingestion_date = ? WHERE container_id = ?", (timestamp(), container_id))


def destroy(connection: sqlite3.Connection, container_id: str, *, recursive: bool) -> None:
    """Remove a container, and those below it if `recursive`; its files stay in the archive."""
    children = _children(connection, container_id)
    if children and not recursive:
        raise Refusal(f"Container with id '{container_id}' has sub-containers, use the recursive option to remove them")
    for child_id in children:
        destroy(connection, child_id, recursive=True)
    connection.execute("UPDATE files SET container_id = NULL WHERE container_id = ?", (container_id,))
    connection.execute("DELETE FROM containers WHERE container_id = ?", (container_id,))


def _exists(connection: sqlite3.Connection, container_id: str) -> bool:
    found = connection.execute("SELECT 1 FROM containers WHERE container_id = ?", (container_id,)).fetchone()
    return found is not None


def _children(connection: sqlite3.Connection, container_id: str) -> list[str]:
    rows = connection.execute(
        "SELECT container_id FROM containers WHERE parent_container_id = ? ORDER BY container_name", (container_id,)
    )
    return [child_id for (child_id,) in rows.fetchall()]


def _container_of(connection: sqlite3.Connection, file_id: str, purpose: str) -> str | None:
    found = connection.execute("SELECT container_id FROM files WHERE file_id = ? LIMIT 1", (file_id,)).fetchone()
    if found is None:
        raise Refusal(f"No file with fileId '{file_id}' found, cannot {purpose}")
    return None if found[0] is None else str(found[0])


def _put(connection: sqlite3.Connection, file_id: str, container_id: str | None) -> None:
    # All versions and copies: NGAS groups file ids.
    connection.execute("UPDATE files SET container_id = ? WHERE file_id = ?", (container_id, file_id))
