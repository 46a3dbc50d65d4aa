"""The packs of a directory in the archive: which files they hold at the moment, adding to them, removing from them.

Nothing in the archive changes in place, and two processes may be at work, so the packs of a directory are a log:

- Of two packs that hold one name the newer counts, by sequence and then by id.
- A removal is a record that names exactly the members it removes, by pack. A pack that another process stores at the
  same time is not touched by it, and records only ever add up: it does not matter who writes them in which order.
- A pack without a file that counts is discarded, the oldest first, and so is a record that says nothing that is not also
  in a newer one. What hides something is written before anything is discarded, and only what is newer is relied on. So
  a process that dies in between leaves too much in the archive, never an old file where a newer one was, and two that
  clean up at the same time never each discard what the other relies on.

A plain object at a file's own id always comes before its packs (see `tree`).

Packs are found by a query, which on the real server reads the names of all files in the archive. So that a path at which
there is nothing costs no query in a directory without packs, a directory with packs has a mark. It is there before the
first pack, it goes after a query has found no pack left, and who adds a pack looks afterwards whether it is still there.
"""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from dlg_ml_tasks.archive import naming, pack
from dlg_ml_tasks.archive.client import NgasClient
from dlg_ml_tasks.archive.directories import KnownDirectories
from dlg_ml_tasks.archive.errors import ChecksumMismatch, FileNotInArchive, ProtocolError
from dlg_ml_tasks.archive.pack import Member
from dlg_ml_tasks.archive.reply import FileStatus

SPOOL_BYTES = 8 << 20  # a pack being made stays in memory up to this size, then goes to a temporary file
REMEMBERED_BYTES = 8 << 20  # of indices as they stand in packs: about 100 000 files, and 25 MB of memory
# A record up to this size is written anew, with what is to be added, instead of standing beside many others.
MERGED_BYTES = 64 << 10

T = TypeVar("T")
Names = frozenset[str]
NOTHING: Names = frozenset()


class Packed(NamedTuple):
    """A file in a pack."""

    pack: FileStatus
    member: Member


@dataclass(frozen=True)
class Pack:
    """A pack: its copies (at least one), and the files that its index names, by name."""

    copies: tuple[FileStatus, ...]
    sequence: int
    members: Mapping[str, Member]

    @property
    def file_id(self) -> str:
        return self.copies[0].file_id


@dataclass(frozen=True)
class Record:
    """A removal record: its copies (at least one), and the names removed, by the file id of the pack."""

    copies: tuple[FileStatus, ...]
    sequence: int
    removed: Mapping[str, Names]

    @property
    def file_id(self) -> str:
        return self.copies[0].file_id


@dataclass(frozen=True)
class PackedDirectory:
    """What the packs of one directory held when they were looked at; packs and records newest first."""

    path: str
    packs: tuple[Pack, ...]
    records: tuple[Record, ...]

    def find(self, name: str) -> Packed | None:
        """The file that counts under this name."""
        for one in self.packs:
            if name in one.members and name not in self.removed_from(one):
                return Packed(one.copies[0], one.members[name])
        return None

    def files(self) -> dict[str, Packed]:
        """Every file that counts, by name."""
        found: dict[str, Packed] = {}
        for one in reversed(self.packs):
            removed = self.removed_from(one)
            status = one.copies[0]
            found.update((name, Packed(status, member)) for name, member in one.members.items() if name not in removed)
        return found

    def removed_from(self, pack: Pack) -> Names:
        """The names that the records say were removed from a pack."""
        return NOTHING.union(*(record.removed.get(pack.file_id, NOTHING) for record in self.records))

    @property
    def next_sequence(self) -> int:
        seen = [one.sequence for one in self.packs] + [one.sequence for one in self.records]
        return max(seen, default=0) + 1


class Packs:
    """The packs in the archive of one server. Thread safe."""

    def __init__(self, client: NgasClient) -> None:
        self._client = client
        self._marked = KnownDirectories()
        self._indices: _Remembered[Mapping[str, Member]] = _Remembered(REMEMBERED_BYTES)
        self._removals: _Remembered[Mapping[str, Names]] = _Remembered(REMEMBERED_BYTES)

    # --- looking ---

    def look(self, directory: str) -> PackedDirectory:
        """What the packs of a directory hold.

        By one exact request if there are none; else by a query too, and one request for each index not remembered.
        """
        # A mark that was seen is not asked for again: if it has gone since, the query finds nothing.
        if directory not in self._marked:
            if self._client.find(naming.packs_mark(directory).file_id) is None:
                return PackedDirectory(directory, (), ())
            self._marked.add(directory)
        return steadily(lambda: self.read(directory, self._query(directory)))

    def read(self, directory: str, copies: Iterable[FileStatus]) -> PackedDirectory:
        """What the packs among these objects of a directory hold.

        Raises FileNotInArchive if one of them has been discarded since the query (see `steadily`), and ProtocolError
        for one that cannot be read: leaving it out would hide files, or show removed ones.
        """
        packs: list[Pack] = []
        records: list[Record] = []
        for of_one in _by_object(naming.pack_prefix(directory), copies):
            newest = of_one[0]
            try:
                label = naming.label_of(newest.filename)
                if isinstance(label, naming.RemovalLabel):
                    records.append(Record(of_one, label.sequence, self._removals_in(directory, newest)))
                else:
                    packs.append(Pack(of_one, label.sequence, self._index_of(directory, newest, label)))
            except pack.Damaged as error:
                raise ChecksumMismatch(
                    f"the index of a pack arrived damaged: {error}",
                    server=str(self._client.address),
                    file_id=newest.file_id,
                ) from error
            except ValueError as error:
                raise ProtocolError(
                    f"a pack of the directory {directory} is not readable: {error}",
                    server=str(self._client.address),
                    file_id=newest.file_id,
                    remedy="A pack is a tar file: retrieve it by its file id to see what is in it, then discard it.",
                ) from error
        packs.sort(key=_age, reverse=True)
        records.sort(key=_age, reverse=True)
        return PackedDirectory(directory, tuple(packs), tuple(records))

    # --- adding ---

    def add(self, directory: str, sequence: int, files: Iterable[tuple[str, Path]]) -> None:
        """Stores the contents of local files as one new pack, under the names given.

        sequence: the `next_sequence` of the directory, as it was when nothing of these names stood outside of packs.
        """
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
            writer = pack.PackWriter(directory, spool)
            for name, path in files:
                writer.add(name, path.read_bytes())
            label = writer.finish(sequence)
            self._mark(directory)
            self._client.archive(spool, *naming.pack_name(directory, label), known=None)
        # Another process may have removed the directory meanwhile.
        self._mark(directory)

    # --- removing ---

    def remove(self, directory: PackedDirectory, names: Set[str]) -> None:
        """Makes sure that no pack of the directory shows one of these names."""
        removed = {one.file_id: directory.removed_from(one) | (names & one.members.keys()) for one in directory.packs}
        self._discard_dead(directory, removed, shadowing=NOTHING)

    def tidy(self, directory: PackedDirectory, shadowing: Set[str]) -> None:
        """Discards the packs and records that no longer count.

        shadowing: the names at which plain objects stand in the directory.
        """
        removed = {one.file_id: directory.removed_from(one) for one in directory.packs}
        self._discard_dead(directory, removed, shadowing)

    def unmark(self, directory: str) -> None:
        """Takes the mark of a directory away if it has no packs any more."""
        self._marked.forget(directory)
        mark = naming.packs_mark(directory).file_id
        if self._client.find(mark) is not None and not _by_object(
            naming.pack_prefix(directory), self._query(directory)
        ):
            with suppress(FileNotInArchive):
                self._client.delete(mark)

    def _mark(self, directory: str) -> None:
        # The path in the body lets the tree be rebuilt from the archive's volumes alone.
        self._client.archive(directory.encode(), *naming.packs_mark(directory))

    def _discard_dead(self, directory: PackedDirectory, removed: Mapping[str, Names], shadowing: Set[str]) -> None:
        kept, dead = _divided(directory.packs, removed, shadowing)
        superseded = self._record(directory, {one.file_id: removed[one.file_id] for one in kept})
        # The oldest first: it would show its files again if a newer one went before it.
        for copies in [one.copies for one in reversed(dead)] + [record.copies for record in superseded]:
            self._client.discard_all(list(copies))
        if directory.packs and not kept:
            self.unmark(directory.path)

    def _record(self, directory: PackedDirectory, removed: Mapping[str, Names]) -> list[Record]:
        """Puts on record what was removed from the packs that stay; returns the records that are not needed then."""
        lasting: list[Record] = []
        short: list[Record] = []
        for record in directory.records:
            long = record.copies[0].size > MERGED_BYTES and removed.keys() & record.removed.keys()
            (lasting if long else short).append(record)
        needed = _without(removed, lasting)
        if needed and short and not _without(needed, short[:1]):
            return short[1:]
        if needed:
            name = naming.removal_name(directory.path, naming.RemovalLabel(directory.next_sequence))
            self._client.archive(pack.write_removals(directory.path, needed), *name, known=None)
        return short

    # --- reading what is not remembered ---

    def _query(self, directory: str) -> list[FileStatus]:
        return self._client.query(f"{naming.pack_prefix(directory)}%")

    def _index_of(self, directory: str, status: FileStatus, label: naming.PackLabel) -> Mapping[str, Member]:
        return self._indices.get(
            status,
            lambda: self._client.read(status, label.index_offset),
            lambda tail: pack.read_index(tail, directory, label),
        )

    def _removals_in(self, directory: str, status: FileStatus) -> Mapping[str, Names]:
        return self._removals.get(
            status, lambda: self._client.read(status), lambda body: pack.read_removals(body, directory)
        )


def steadily(look: Callable[[], T]) -> T:
    """Calls `look` again if a pack was discarded between the query that named it and the request for its index."""
    for _ in range(9):
        try:
            return look()
        except FileNotInArchive:
            continue
    return look()


def in_order_of_removal(directory: str, copies: Iterable[FileStatus]) -> tuple[list[FileStatus], list[FileStatus]]:
    """Divides all objects of a directory into its packs and records, in the order in which they may go, and the others.

    The mark of packs is among neither, because it goes last.
    Indices are not read, so that a directory with a damaged pack can be removed.
    """
    prefix, mark = naming.pack_prefix(directory), naming.packs_mark(directory).file_id
    of_packs: list[FileStatus] = []
    others: list[FileStatus] = []
    for copy in copies:
        if copy.file_id != mark:
            (of_packs if copy.file_id.startswith(prefix) else others).append(copy)
    return sorted(of_packs, key=_removal_rank), others


def _removal_rank(status: FileStatus) -> tuple[int, int, str]:
    """Packs by age, then records."""
    try:
        label = naming.label_of(status.filename)
    except ValueError:
        return 0, 0, status.file_id
    return int(isinstance(label, naming.RemovalLabel)), label.sequence, status.file_id


class _Remembered(Generic[T]):
    """What was read lately from objects that never change, `limit` bytes of it. Thread safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._values: OrderedDict[tuple[str, int], tuple[T, int]] = OrderedDict()
        self._bytes = 0

    def get(self, status: FileStatus, fetch: Callable[[], bytes], parse: Callable[[bytes], T]) -> T:
        key = (status.file_id, status.version)
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        body = fetch()
        value = parse(body)
        with self._lock:
            if key not in self._values:
                self._values[key] = (value, len(body))
                self._bytes += len(body)
            while self._bytes > self._limit:
                _, (_, size) = self._values.popitem(last=False)
                self._bytes -= size
        return value


def _age(one: Pack | Record) -> tuple[int, str]:
    return one.sequence, one.file_id


def _by_object(prefix: str, copies: Iterable[FileStatus]) -> list[tuple[FileStatus, ...]]:
    """The copies of each object whose id begins with `prefix`, the newest version first."""
    by_object: dict[str, list[FileStatus]] = {}
    for copy in copies:
        # Some databases ignore case in a query.
        if copy.file_id.startswith(prefix):
            by_object.setdefault(copy.file_id, []).append(copy)
    return [tuple(sorted(of_one, key=lambda copy: -copy.version)) for of_one in by_object.values()]


def _divided(packs: Iterable[Pack], removed: Mapping[str, Names], shadowing: Set[str]) -> tuple[list[Pack], list[Pack]]:
    """The packs that hold a file that counts, and those that do not; each newest first, as `packs` are."""
    seen = set(shadowing)
    kept: list[Pack] = []
    dead: list[Pack] = []
    for one in packs:
        names = one.members.keys() - removed[one.file_id]
        (dead if names <= seen else kept).append(one)
        seen |= names
    return kept, dead


def _without(removed: Mapping[str, Names], records: Iterable[Record]) -> dict[str, Names]:
    """What of `removed` these records do not say."""
    said = [record.removed for record in records]
    rest = {
        file_id: names.difference(*(one.get(file_id, NOTHING) for one in said)) for file_id, names in removed.items()
    }
    return {file_id: names for file_id, names in rest.items() if names}
