"""Finding a copy of a file that can be read, whatever became of the others."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import closing

from .node import Node
from .records import StoredFile
from .refusals import missing
from .vault import BodyReader, ObjectReader

logger = logging.getLogger(__name__)


async def open_file(
    node: Node, file_id: str, version: int | None = None, disk_id: str | None = None
) -> tuple[StoredFile, BodyReader | ObjectReader]:
    """A copy of a version (the latest for None), on `disk_id` if that is given, and its bytes; the caller closes these.

    A copy whose bytes are gone or have another length than they should is passed over. Raises a Refusal if there is no
    sound one.
    """
    tried: set[StoredFile] = set()
    while True:
        copies = [
            (copy, body)
            for copy, body in node.catalogue.copies_with_bodies(file_id, version)
            if disk_id in (None, copy.disk_id)
        ]
        for copy, body in copies:
            # In memory already, and the most frequent case by far: no thread, no other copy.
            if body is not None and len(body) == copy.file_size:
                return copy, BodyReader(body)
        untried = [copy for copy, _ in copies if copy.object is not None and copy not in tried]
        if not untried:
            raise missing(file_id, version)
        opened = await node.run(_first_sound, node, untried)
        if opened is not None:
            return opened
        # All were lost, or replaced or discarded since the rows were read: the rows tell which.
        tried.update(untried)


async def contents(node: Node, file: StoredFile) -> AsyncGenerator[bytes, None]:
    """The bytes of a version in blocks, of whichever copy is sound; to be closed. Raises a Refusal if none is."""
    _, reader = await open_file(node, file.file_id, file.file_version)
    if isinstance(reader, BodyReader):
        yield reader.body
        return
    with closing(reader):
        while block := await node.run(reader.read):
            yield block


def _open_object(node: Node, copy: StoredFile) -> ObjectReader | None:
    """The bytes of a copy that has an object; None, and a line in the log, if they are gone or of another length."""
    path = node.object_path(copy)
    try:
        reader = ObjectReader(path)
    except OSError as error:
        logger.error("Cannot read %s version %d: %s", copy.file_id, copy.file_version, error)
        return None
    if reader.size == copy.file_size:
        return reader
    logger.error(
        "%s version %d has %d bytes, but %s has %d",
        *(copy.file_id, copy.file_version, copy.file_size, path, reader.size),
    )
    reader.close()
    return None


def _first_sound(node: Node, copies: list[StoredFile]) -> tuple[StoredFile, ObjectReader] | None:
    for copy in copies:
        reader = _open_object(node, copy)
        if reader is not None:
            return copy, reader
    return None
