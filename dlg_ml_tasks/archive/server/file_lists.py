"""STATUS?file_list: the whole archive in pages, the only listing of NGAS that can be read a part at a time."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from .call import Call
from .dates import read_date
from .header_fields import header_parameter
from .listings import FileList
from .records import StoredFile
from .refusals import Refusal
from .replies import StreamReply
from .status_document import file_attributes, printed

_DEFAULT_PAGE = 100_000
_BATCH = 1000
_BEYOND = "WHERE (file_id, file_version, disk_id) > (?, ?, ?) AND ingestion_date >= ?"
_IN_ORDER = "ORDER BY file_id, file_version, disk_id LIMIT ?"
_FIRST_COPY = """AND NOT EXISTS (
    SELECT 1 FROM files AS other
    WHERE other.file_id = files.file_id AND other.file_version = files.file_version
    AND other.disk_id < files.disk_id
)"""
_NEXT = f"{_BEYOND} {_IN_ORDER}"
_NEXT_UNIQUE = f"{_BEYOND} {_FIRST_COPY} {_IN_ORDER}"
_GZIP = 31  # zlib's code for the gzip format


async def file_list(call: Call) -> StreamReply:
    """The first page of a new listing, or the next of `file_list_id`, of `max_elements` rows: gzipped XML."""
    size = call.integer("max_elements") or _DEFAULT_PAGE
    if size < 1:
        raise Refusal(f"max_elements={size} must be at least 1")
    list_id = call.text("file_list_id")
    lists = call.node.file_lists
    if list_id is not None:
        listing = lists.get(list_id)
    else:
        since = call.text("from_ingestion_date")
        from_date = "" if since is None else read_date(since, "from_ingestion_date")
        unique = bool(call.integer("unique"))
        listing = FileList(from_date, unique, await call.node.run(_count, call, from_date, unique=unique))
        lists.add(listing)
    headers = {
        "Content-Type": "application/x-gxml",
        "Content-Disposition": f"attachment; {header_parameter('filename', listing.list_id + '.xml.gz')}",
    }
    return StreamReply(_compressed(_page(call, listing, size)), headers)


async def _compressed(pieces: AsyncIterator[str]) -> AsyncGenerator[bytes, None]:
    compressor = zlib.compressobj(wbits=_GZIP)
    async for piece in pieces:
        if compressed := compressor.compress(piece.encode()):
            yield compressed
    yield compressor.flush()


async def _page(call: Call, listing: FileList, size: int) -> AsyncIterator[str]:
    remaining = max(0, listing.remaining - size)
    yield (
        '<?xml version="1.0" ?>\n<NgamsStatus>\n'
        f'<FileList Id={quoteattr(listing.list_id)} Status="REMAINING_DATA_OBJECTS: {remaining}">\n'
    )
    after, left = listing.after, size
    while left:
        condition = _NEXT_UNIQUE if listing.unique else _NEXT
        rows = await call.node.run(call.node.catalogue.select, condition, *after, listing.from_date, min(left, _BATCH))
        if not rows:
            break
        yield await call.node.run(_elements, rows)
        after, left = _key(rows[-1]), left - len(rows)
    yield "</FileList>\n</NgamsStatus>\n"
    # Only now: who was cut off asks for the same page again.
    listing.after, listing.remaining = after, remaining
    if not remaining:
        call.node.file_lists.remove(listing)


def _count(call: Call, from_date: str, *, unique: bool) -> int:
    query = "SELECT count(*) FROM files WHERE ingestion_date >= ?"
    if unique:
        query = "SELECT count(*) FROM (SELECT DISTINCT file_id, file_version FROM files WHERE ingestion_date >= ?)"
    with call.node.catalogue.reading() as connection:
        return int(connection.execute(query, (from_date,)).fetchone()[0])


def _elements(rows: list[StoredFile]) -> str:
    return "".join(_element(row) for row in rows)


def _element(file: StoredFile) -> str:
    attributes = printed({"DiskId": file.disk_id, **file_attributes(file)})
    return ElementTree.tostring(ElementTree.Element("FileStatus", attributes), encoding="unicode") + "\n"


def _key(file: StoredFile) -> tuple[str, int, str]:
    return file.file_id, file.file_version, file.disk_id
