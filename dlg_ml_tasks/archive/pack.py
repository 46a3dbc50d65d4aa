"""The format of a pack, many small files of one directory in one plain tar with an index; knows nothing of connections.

NGAS takes about 60 files a second, however small, so many small files travel and rest as one object. A pack is a POSIX
(pax) tar that any `tar xf` reads without this package. Members have their base names. The last member, INDEX_NAME, says
where in the pack each file's bytes are:

    {"format": 1, "directory": "/run/images", "files": [{"name": "a.png", "offset": 512, "size": 70, "crc32": 123}, …]}

The index stands at the end because NGAS knows only ranges that go to the end of a file (`Range: bytes=N-`). A pack's
filename tells where it begins and its CRC-32 (see `naming.PackLabel`): one request reads it, and proves it whole.

What was removed from packs stands in records beside them, because what is archived does not change:

    {"format": 1, "directory": "/run/images", "removed": {"<file id of a pack>": ["a.png", …], …}}
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import IO, Any, NamedTuple

from dlg_ml_tasks.archive import naming

INDEX_NAME = ".ngas-pack.json"
FORMAT = 1


class Damaged(ValueError):
    """Bytes of a pack differ from those that were written."""


class Member(NamedTuple):
    """One file in a pack: `offset` and `size` of its content in bytes, `crc32` unsigned."""

    name: str
    offset: int
    size: int
    crc32: int

    @property
    def end(self) -> int:
        return self.offset + self.size


class PackWriter:
    """Writes a pack, file by file, to a binary file that is at its beginning."""

    def __init__(self, directory: str, sink: IO[bytes]) -> None:
        self._directory = directory
        self._sink = sink
        self._position = 0
        self._members: list[Member] = []

    def add(self, name: str, content: bytes) -> None:
        """Appends a file. Names must differ from one another and from INDEX_NAME."""
        offset = self._append(name, content)
        self._members.append(Member(name, offset, len(content), zlib.crc32(content)))

    def finish(self, sequence: int) -> naming.PackLabel:
        """Writes the index and the end of the tar; returns what the pack's filename has to say."""
        index = _to_json(self._directory, files=[member._asdict() for member in self._members])
        offset = self._append(INDEX_NAME, index)
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        return naming.PackLabel(sequence, offset, zlib.crc32(index))

    def _append(self, name: str, content: bytes) -> int:
        header = tarfile.TarInfo(name)
        header.size = len(content)
        self._write(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        offset = self._position
        self._write(content)
        self._write(bytes(-len(content) % tarfile.BLOCKSIZE))
        return offset

    def _write(self, block: bytes) -> None:
        self._sink.write(block)
        self._position += len(block)


def read_index(tail: bytes, directory: str, label: naming.PackLabel) -> dict[str, Member]:
    """The members of a pack by name, from everything that stands at and after `label.index_offset`.

    Raises Damaged, or ValueError if it is not the index of a pack of the canonical `directory`.
    """
    index = tail.rstrip(b"\0")
    if zlib.crc32(index) != label.index_crc32:
        raise Damaged(f"the index has CRC-32 {zlib.crc32(index):08x}, the filename says {label.index_crc32:08x}")
    members = [_member(file, label.index_offset) for file in _from_json(index, directory, "files", list)]
    return {member.name: member for member in members}


def write_removals(directory: str, removed: Mapping[str, Set[str]]) -> bytes:
    """The body of a record: the names that were removed, by the file id of the pack."""
    return _to_json(directory, removed={pack: sorted(names) for pack, names in sorted(removed.items())})


def read_removals(body: bytes, directory: str) -> dict[str, frozenset[str]]:
    """The names that were removed, by the file id of the pack. Raises ValueError for anything but a record."""
    removed = _from_json(body, directory, "removed", dict)
    for names in removed.values():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{str(names)[:100]!r} is not a list of names")
    return {pack: frozenset(names) for pack, names in removed.items()}


def stretches(members: Iterable[Member], gap: int) -> list[list[Member]]:
    """Members in the order of their bytes, divided wherever more than `gap` bytes lie between two."""
    divided: list[list[Member]] = []
    for member in sorted(members, key=lambda member: member.offset):
        if divided and member.offset - divided[-1][-1].end <= gap:
            divided[-1].append(member)
        else:
            divided.append([member])
    return divided


class Cutter:
    """Cuts the contents of members out of the bytes of a pack that pass by.

    members: at least one, in the order of their bytes. The bytes written must begin with the first member's.
    deliver: receives each member and its content, not yet verified, once the last of its bytes has been written.
    """

    def __init__(self, members: Sequence[Member], deliver: Callable[[Member, bytes], object]) -> None:
        self._left = list(reversed(members))
        self._deliver = deliver
        self._position = members[0].offset
        self._begun = bytearray()

    def write(self, block: bytes) -> None:
        first, end = self._position, self._position + len(block)
        while self._left and self._left[-1].end <= end:
            member = self._left.pop()
            content = block[max(member.offset - first, 0) : member.end - first]
            if self._begun:
                content = bytes(self._begun) + content
                self._begun.clear()
            self._deliver(member, content)
        if self._left and self._left[-1].offset < end:
            self._begun += block[max(self._left[-1].offset - first, 0) :]
        self._position = end

    def finish(self) -> None:
        """Delivers empty files at the very end, for which no byte had to come."""
        self.write(b"")


def _to_json(directory: str, **content: object) -> bytes:
    text = json.dumps({"format": FORMAT, "directory": directory, **content}, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def _from_json(body: bytes, directory: str, field: str, kind: type[Any]) -> Any:
    content = json.loads(body)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"not of format {FORMAT}, which is all that is known here: {body[:100]!r}")
    if content.get("directory") != directory:
        raise ValueError(f"it belongs to the directory {content.get('directory')!r}, not to {directory!r}")
    if not isinstance(content.get(field), kind):
        raise ValueError(f"it has no {field!r}: {body[:100]!r}")
    return content[field]


def _member(file: object, index_offset: int) -> Member:
    """The member that one element of the index describes; what comes from outside is checked here."""
    match file:
        case {"name": str(name), "offset": int(offset), "size": int(size), "crc32": int(crc32)}:
            member = Member(name, offset, size, crc32)
        case _:
            raise ValueError(f"{file!r} does not describe a file")
    naming.check_base_name(name)
    if min(offset, size) < 0 or member.end > index_offset:
        raise ValueError(f"{file!r} does not lie before the index at {index_offset}")
    return member
