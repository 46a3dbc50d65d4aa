"""What an archive holds, object by object, for a backup to copy and a restored archive to be compared with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from dlg_ml_tasks.archive import FileStatus, NgasClient, naming
from dlg_ml_tasks.archive.naming import ROOT, Kind
from dlg_ml_tasks.archive.tree import NgasTree
from dlg_ml_tasks.backup.manifest import ArchivedObject


def whole_archive(client: NgasClient) -> dict[str, FileStatus]:
    """The latest version of every object, by file id, also of those that no path leads to. One query."""
    return latest(client.query("%"))


def below(client: NgasClient, roots: Collection[str]) -> dict[str, FileStatus]:
    """The latest version of every object below some directories, with their own and their parents' markers, by file id.

    One query a directory. Objects that are not files of a path, packs of small files among them, are taken as they are.
    """
    tree = NgasTree(client)
    found: dict[str, FileStatus] = {}
    for path in {path for root in roots for path in _upwards(root)}:
        marker = tree.find_object(path)
        if marker is not None:
            found[marker.status.file_id] = marker.status
    pending = list(roots)
    while pending:
        directory = pending.pop()
        objects = latest(tree.copies(directory))
        found.update(objects)
        pending.extend(
            naming.join(directory, entry.name)
            for entry, _ in naming.listed(directory, objects.values())
            if entry.kind is Kind.DIRECTORY
        )
    return found


def topmost(paths: Iterable[str]) -> tuple[str, ...]:
    """Those of the canonical paths that do not lie below another one."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(path == top or path.startswith(f"{top.rstrip('/')}/") for top in kept):
            kept.append(path)
    return tuple(kept)


def row_of(archive: str, status: FileStatus) -> ArchivedObject:
    """How a backup lists an object."""
    return ArchivedObject(
        archive=archive,
        file_id=status.file_id,
        filename=status.filename,
        size=status.size,
        checksum=str(status.checksum) if status.checksum else None,
    )


def latest(copies: Iterable[FileStatus]) -> dict[str, FileStatus]:
    """One copy of the latest version of each object, by file id."""
    found: dict[str, FileStatus] = {}
    for copy in copies:
        if copy.file_id not in found or copy.version > found[copy.file_id].version:
            found[copy.file_id] = copy
    return found


def _upwards(path: str) -> Iterator[str]:
    while path != ROOT:
        yield path
        path = naming.parent(path)
