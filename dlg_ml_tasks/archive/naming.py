"""Maps paths to NGAS names and back; knows nothing of connections.

What the server forces (docs of the NGAS protocol; measured on NGAS 12):

- A file id has at most 64 ASCII characters: longer ones do not fit the PostgreSQL and MySQL schemas, and a non-ASCII
  one breaks QUERY for every user.
- The place on disk is made from the `filename` parameter alone: two ids with one filename share their bytes.
- Files can be listed only by SQL LIKE on the id.
- `filename` is %-unquoted twice, gets `.bin` appended if missing, and a doubled `.bin.bin` is collapsed.
- No file may be empty.

So the object of a path is named

    file_id  = key(parent directory) "." key(path)                       53 characters
    filename = escaped base name "." key(path) [".dir" | ".empty"] ".bin"

where `key` is a 26-character base32 hash. One prefix query, `key(directory).%`, lists a directory, and the names come
back from the filenames. A file and a directory of one path have the same id, so that one exact STATUS tells which of
the two a path is, and they cannot both exist.

A base name whose escaped form is too long for one filename goes on in continuation objects, `<file_id>.1`, `.2`, …
whose filenames hold the next pieces. They share the prefix, so a listing is one query for long names too; a side object
with the name in its body would cost one more request per long name in every listing. The hash in the id proves that a
name put together from its pieces is whole.

Packs (see `pack`) and the records of what was removed from them have ids of chance, so that none is ever used twice:

    file_id  = key(directory) ".pack-" token                              58 characters
    filename = "pack-" token "." sequence "." index offset "." CRC-32 of the index ".bin"
    filename = "pack-" token "." sequence ".removed.bin"

A directory that has packs has a mark, `key(directory) ".packs"`, so that an exact STATUS tells that there are none.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import secrets
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

log = logging.getLogger(__name__)

ROOT = "/"
MAX_BASE_NAME_BYTES = 255  # NAME_MAX of every common local file system, so that what is stored can be fetched
PIECE = 160  # characters of escaped name in one filename: with key and suffixes it stays below 200

# NGAS cannot hold zero bytes. The byte is never shown: the kind in the filename says that the file is empty.
EMPTY_BODY = b"\0"


class Kind(Enum):
    """What a path is; the value stands in the filename."""

    FILE = ""
    DIRECTORY = ".dir"
    EMPTY = ".empty"


class NgasName(NamedTuple):
    """The two names of one NGAS object, both ASCII."""

    file_id: str
    filename: str


class PackLabel(NamedTuple):
    """What the filename of a pack says: where its index is, and which of two packs is the newer.

    sequence: greater than that of every pack and record that was in the directory when this one was made. Times would not
    do, because the clocks of servers jump.
    index_offset: where the index begins, in bytes from the beginning of the pack. It goes on to the end.
    """

    sequence: int
    index_offset: int
    index_crc32: int


class RemovalLabel(NamedTuple):
    """What the filename of a removal record says; `sequence` as for packs."""

    sequence: int


class Named(Protocol):
    """What a listing needs to know of an NGAS object."""

    @property
    def file_id(self) -> str: ...
    @property
    def filename(self) -> str: ...


N = TypeVar("N", bound=Named)


class Listed(NamedTuple):
    """One entry of a directory: its base name, what it is, and the key for looking up its objects."""

    name: str
    kind: Kind
    file_id: str


def canonical(path: str) -> str:
    """The one spelling of `path`: a leading slash, no trailing one, no empty or "." components.

    Raises ValueError for "..", for NUL, for text that is not valid Unicode and for a base name above 255 bytes of UTF-8.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for part in parts:
        check_base_name(part)
    return ROOT + "/".join(parts)


def parent(path: str) -> str:
    """The directory that holds the canonical `path`; the root is its own parent."""
    return path.rpartition("/")[0] or ROOT


def base_name(path: str) -> str:
    """The last component of the canonical `path`; empty for the root."""
    return path.rpartition("/")[2]


def join(directory: str, name: str) -> str:
    """The canonical path of `name` in the canonical `directory`."""
    return f"{directory.rstrip('/')}/{name}"


@lru_cache(maxsize=8192)  # base32 is slow in Python, and the key of a directory is needed for each of its files
def key(path: str) -> str:
    """26 lower-case base32 characters: 16 bytes of BLAKE2b over the UTF-8 of the canonical path."""
    return _base32(hashlib.blake2b(path.encode(), digest_size=16).digest())


def file_id(path: str) -> str:
    """The NGAS file id of the object at the canonical `path`, whatever its kind."""
    return f"{key(parent(path))}.{key(path)}"


def listing_prefix(directory: str) -> str:
    """What the ids of all objects in the canonical `directory` begin with, and no others do.

    It holds no LIKE wildcard, which NGAS could not escape.
    """
    return f"{key(directory)}."


def object_name(path: str, kind: Kind) -> NgasName:
    """The names of the object at the canonical `path`."""
    return NgasName(file_id(path), f"{_pieces(path)[0]}.{key(path)}{kind.value}.bin")


def continuations(path: str) -> list[NgasName]:
    """The names of the objects that hold the rest of a long base name; empty for nearly every path."""
    own_id, own_key = file_id(path), key(path)
    return [
        NgasName(f"{own_id}.{number}", f"{piece}.{own_key}.{number}.bin")
        for number, piece in enumerate(_pieces(path)[1:], start=1)
    ]


def pack_prefix(directory: str) -> str:
    """What the ids of the packs and removal records of the canonical `directory` begin with, and no others do."""
    return f"{listing_prefix(directory)}pack-"


def pack_name(directory: str, label: PackLabel) -> NgasName:
    """Names for a new pack of the canonical `directory`."""
    token = _token()
    return NgasName(
        f"{pack_prefix(directory)}{token}",
        f"pack-{token}.{label.sequence}.{label.index_offset}.{label.index_crc32:08x}.bin",
    )


def packs_mark(directory: str) -> NgasName:
    """The names of the object that says that the canonical `directory` has packs, or had."""
    return NgasName(f"{listing_prefix(directory)}packs", f"packs-{key(directory)}.bin")


def removal_name(directory: str, label: RemovalLabel) -> NgasName:
    """Names for a new record of what was removed from packs of the canonical `directory`."""
    token = _token()
    return NgasName(f"{pack_prefix(directory)}{token}", f"pack-{token}.{label.sequence}.removed.bin")


def label_of(filename: str) -> PackLabel | RemovalLabel:
    """What the filename of a pack or of a removal record says. Raises ValueError for any other."""
    if match := _PACK.fullmatch(filename):
        return PackLabel(int(match["sequence"]), int(match["offset"]), int(match["crc32"], 16))
    if match := _REMOVAL.fullmatch(filename):
        return RemovalLabel(int(match["sequence"]))
    raise ValueError(f"{filename!r} is neither the filename of a pack nor of a removal record")


def kind_of(filename: str) -> Kind:
    """What an object is, by its filename. Raises ValueError for a filename that this scheme did not make."""
    match = _OBJECT.fullmatch(filename)
    if match is None:
        raise ValueError(f"{filename!r} is not a filename made from a path")
    return Kind(match["kind"] or "")


def listed(directory: str, objects: Iterable[N]) -> Iterator[tuple[Listed, N]]:
    """Base names and objects in the canonical `directory`, from the latest version of each object of a prefix query.

    Packs, removal records and objects that this scheme did not make are left out, and so is one whose name cannot be put
    together again.
    """
    packs = pack_prefix(directory)
    mains: dict[str, tuple[N, re.Match[str]]] = {}
    rest: dict[str, dict[int, str]] = {}
    for item in objects:
        if item.file_id.startswith(packs):
            continue
        own_id = item.file_id[:_ID_LENGTH]
        if match := _CONTINUATION.fullmatch(item.filename):
            rest.setdefault(own_id, {})[int(match["number"])] = match["piece"]
        elif match := _OBJECT.fullmatch(item.filename):
            mains[own_id] = (item, match)
    for own_id, (item, match) in mains.items():
        pieces = rest.get(own_id, {})
        name = _unescape(match["piece"] + "".join(pieces[number] for number in sorted(pieces)))
        if name is None or file_id(join(directory, name)) != item.file_id:
            log.warning(
                "NGAS file id %s in %s: its name cannot be read from %r", item.file_id, directory, item.filename
            )
            continue
        yield Listed(name, Kind(match["kind"] or ""), item.file_id), item


_ID_LENGTH = 26 + 1 + 26
_OBJECT = re.compile(r"(?P<piece>.*)\.(?P<key>[a-z2-7]{26})(?P<kind>\.dir|\.empty)?\.bin")
_CONTINUATION = re.compile(r"(?P<piece>.*)\.(?P<key>[a-z2-7]{26})\.(?P<number>[1-9])\.bin")


_PACK = re.compile(
    r"pack-[a-z2-7]{26}\.(?P<sequence>[0-9]{1,18})\.(?P<offset>[0-9]{1,18})\.(?P<crc32>[0-9a-f]{8})\.bin"
)
_REMOVAL = re.compile(r"pack-[a-z2-7]{26}\.(?P<sequence>[0-9]{1,18})\.removed\.bin")


def _pieces(path: str) -> list[str]:
    escaped = _escape(base_name(path))
    return [escaped[start : start + PIECE] for start in range(0, len(escaped), PIECE)] or [""]


def _token() -> str:
    return _base32(secrets.token_bytes(16))


def _base32(sixteen_bytes: bytes) -> str:
    return base64.b32encode(sixteen_bytes).decode().rstrip("=").lower()


def _escape(name: str) -> str:
    """`name` in letters, digits, `-._` and `=XX`: `=` and not `%`, because the server unquotes filenames twice."""
    return quote_from_bytes(name.encode(), safe="").replace("~", "%7E").replace("%", "=")


def _unescape(escaped: str) -> str | None:
    """The name, or None if no name has this escaped form (a stored name is data from outside: see `check_base_name`)."""
    try:
        name = unquote_to_bytes(escaped.replace("=", "%")).decode()
        check_base_name(name)
    except ValueError:
        return None
    return name


def check_base_name(name: str) -> None:
    """Raises ValueError for what no local file could be called."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} cannot be the name of a file or directory in the archive")
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"the name {name!r} is not valid Unicode; rename the file") from error
    if length > MAX_BASE_NAME_BYTES:
        raise ValueError(f"the name {name!r} has {length} bytes of UTF-8; at most {MAX_BASE_NAME_BYTES} are allowed")
