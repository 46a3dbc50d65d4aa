"""The commands about containers, CARCHIVE excepted: making, filling, listing, retrieving and destroying them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from ..call import Call
from ..copies import contents
from ..header_fields import header_parameter
from ..refusals import Refusal
from ..replies import Reply, StreamReply
from . import rows, streams
from .documents import container_element, container_name, read_file_list, read_hierarchy
from .rows import Container, ContainerNames

T = TypeVar("T")

_LARGEST_DOCUMENT = 16 * 2**20


async def ccreate(call: Call) -> Reply:
    """CCREATE one container by `container_name`, or by POST a tree of them.

    `parent_container_id` counts. (The real server looks for it among the headers, and so makes an orphan in silence.)
    """
    if call.is_push:
        names, parent_id = await call.node.run(read_hierarchy, await _document(call))
        parent_id = parent_id or call.text("parent_container_id")
    else:
        names = ContainerNames(container_name(call.text("container_name")))
        parent_id = call.text("parent_container_id")
    container = await _change(call, lambda connection: rows.create(connection, names, parent_id))
    return call.success("Successfully created container(s)", details=[container_element(container)])


async def cappend(call: Call) -> Reply:
    """CAPPEND the file `file_id`, or by POST a list of them: all or none."""
    file_ids = await _file_ids(call)
    force, close = call.text("force") == "1", call.text("close_container") == "1"

    def append(connection: sqlite3.Connection) -> None:
        container_id = _identify(call, connection)
        rows.append(connection, container_id, file_ids, force=force)
        if close:
            rows.close(connection, container_id)

    await _change(call, append)
    return call.success("Successfully handled request")


async def cremove(call: Call) -> Reply:
    """CREMOVE the file `file_id`, or by POST a list of them, from a container: all or none. The files stay."""
    file_ids = await _file_ids(call)
    await _change(call, lambda connection: rows.remove(connection, _identify(call, connection), file_ids))
    return call.success("Successfully handled request")


async def clist(call: Call) -> Reply:
    """CLIST a container with its files and all below it."""
    return await call.node.run(_listed, call)


async def cdestroy(call: Call) -> Reply:
    """CDESTROY a container, with `recursive=1` also those below it. The files stay."""
    recursive = call.text("recursive") == "1"
    await _change(call, lambda connection: rows.destroy(connection, _identify(call, connection), recursive=recursive))
    return call.success("Successfully handled request")


async def cretrieve(call: Call) -> StreamReply:
    """CRETRIEVE the latest versions of all files below a container: multipart, or with `format=application/x-tar` tar."""
    call.node.require_online("Command CRETRIEVE")
    if call.text("processing") is not None:
        raise Refusal("CRETRIEVE command does not allow processing (yet)")
    as_tar = call.text("format") == "application/x-tar"
    container = await call.node.run(_tree, call)
    parts_of = streams.tar if as_tar else streams.multipart
    length = await call.node.run(lambda: streams.length(parts_of(container)))
    headers = {"Content-Type": "application/x-tar" if as_tar else "ngas/container"}
    if as_tar:
        headers["Content-Disposition"] = f"attachment; {header_parameter('filename', container.name)}"
    return StreamReply(streams.stream(parts_of(container), lambda file: contents(call.node, file)), headers, length)


async def _document(call: Call) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in call.body.pieces():
        pieces.append(piece)
        size += len(piece)
        if size > _LARGEST_DOCUMENT:
            raise Refusal(f"The body is larger than {_LARGEST_DOCUMENT} bytes; send it in parts", close=True)
    return b"".join(pieces)


async def _file_ids(call: Call) -> list[str]:
    if call.is_push:
        return await call.node.run(read_file_list, await _document(call))
    file_id = call.text("file_id")
    if file_id is None:
        raise Refusal("No file_id given in GET request, one needs to be specified")
    return [file_id]


async def _change(call: Call, change: Callable[[sqlite3.Connection], T]) -> T:
    return await asyncio.wrap_future(call.node.catalogue.change(change))


def _identify(call: Call, connection: sqlite3.Connection) -> str:
    return rows.identify(connection, call.text("container_id"), call.text("container_name"))


def _listed(call: Call) -> Reply:
    return call.success("Successfully retrieved containers list", details=[container_element(_tree(call))])


def _tree(call: Call) -> Container:
    with call.node.catalogue.reading() as connection:
        # In one transaction, so that the tree is whole while others change it.
        connection.execute("BEGIN")
        try:
            return rows.tree(connection, _identify(call, connection))
        finally:
            connection.execute("ROLLBACK")
