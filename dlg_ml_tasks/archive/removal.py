"""Removes files and directories from a tree in the archive, so that bytes are freed and a removal cut short can be run again.

What hides something goes after what it hides: packs, oldest first, then the records of what was removed from them, then
the objects that come before packs. Whoever looks meanwhile, or after a crash, never sees an old file in place of a newer.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from os import strerror

from dlg_ml_tasks.archive import naming
from dlg_ml_tasks.archive.errors import FileNotInArchive
from dlg_ml_tasks.archive.naming import ROOT
from dlg_ml_tasks.archive.packs import in_order_of_removal
from dlg_ml_tasks.archive.reply import FileStatus
from dlg_ml_tasks.archive.tree import NgasTree, by_directory, objects


def remove_files(tree: NgasTree, paths: list[str]) -> None:
    """Removes files, all versions of them; of those in one directory all or none, unless the server fails in between.

    Raises FileNotInArchive, or IsADirectoryError.
    """
    for directory, wanted in by_directory(paths).items():
        names = {naming.base_name(path) for path in wanted}
        contents = tree.contents(directory, names)
        for path in wanted:
            entry = contents.get(naming.base_name(path))
            tree.refuse_directory(path, entry)
            if entry is None:
                raise tree.missing(path)
        with tree.about(directory):
            tree.packs.remove(contents.packed, names)
        tree.in_parallel([(tree, contents.plain[name].path) for name in names & contents.plain.keys()], _remove_object)


def remove_directory(tree: NgasTree, directory: str) -> None:
    """Removes an empty directory, not the root; raises OSError if it is not empty."""
    contents = tree.contents(directory)
    if contents.entries():
        raise OSError(errno.ENOTEMPTY, strerror(errno.ENOTEMPTY), tree.url(directory))
    with tree.about(directory):
        tree.packs.tidy(contents.packed, shadowing=frozenset())
        tree.packs.unmark(directory)
    tree.directories.forget(directory)
    _remove_object(tree, directory)


def remove_tree(tree: NgasTree, directory: str) -> None:
    """Removes what is in a directory, then the directory."""
    copies = tree.copies(directory)
    for entry in objects(directory, copies).values():
        if entry.is_directory:
            remove_tree(tree, entry.path)
    in_packs, others = in_order_of_removal(directory, copies)
    by_file: dict[str, list[FileStatus]] = {}
    for copy in others:
        by_file.setdefault(copy.file_id, []).append(copy)
    with tree.about(directory):
        for one in in_packs:
            tree.client.discard_all([one])
        tree.in_parallel([(of_one,) for of_one in by_file.values()], tree.client.discard_all)
        tree.packs.unmark(directory)
    if directory != ROOT:
        tree.directories.forget(directory)
        with suppress(FileNotInArchive):
            _remove_object(tree, directory)


def _remove_object(tree: NgasTree, path: str) -> None:
    """Removes the object of a path, all versions of it. Raises FileNotInArchive."""
    with tree.about(path):
        tree.client.delete(naming.file_id(path))
        for name in naming.continuations(path):
            with suppress(FileNotInArchive):
                tree.client.delete(name.file_id)
