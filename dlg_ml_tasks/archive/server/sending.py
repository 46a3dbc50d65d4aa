"""Sending an archived file from the page cache to the socket without a copy, and without blocking the event loop."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable

from .node import Node
from .refusals import ClientGone
from .vault import ObjectReader

# How long a thread goes on sending before others get a turn, and how long it waits for a client to take more.
_TURN_SECONDS = 0.05
_PATIENCE_MILLISECONDS = 10
_MOST_AT_ONCE = 4 * 1024 * 1024


async def send_file(
    node: Node,
    transport: asyncio.Transport,
    drain: Callable[[], Awaitable[None]],
    reader: ObjectReader,
    start: int,
) -> None:
    """Send `reader` from byte `start` to its end after what `transport` holds; `drain` waits for its buffer.

    sendfile(2) reads the disk, so it runs in a thread; the event loop's own sendfile would stop every other client while
    a disk seeks. A thread that finds the client slow gives up its turn and the loop waits for the socket instead, so
    slow clients hold no threads. Raises ClientGone, and OSError if the file ends early.
    """
    # The reply's head must have left before anything passes the transport by.
    transport.set_write_buffer_limits(high=0)
    await drain()
    transport.set_write_buffer_limits()
    stream = transport.get_extra_info("socket")
    with socket.socket(fileno=os.dup(stream.fileno())) as connection:
        while start < reader.size:
            try:
                sent = await node.run(_send_turn, connection, reader, start)
                start += sent
                if start < reader.size:
                    await _writable(connection, node.limits.stall_seconds)
            except (ConnectionError, asyncio.TimeoutError):
                transport.abort()
                raise ClientGone from None


def _send_turn(connection: socket.socket, reader: ObjectReader, start: int) -> int:
    """Send what the client takes during one turn; gives the number of bytes. Blocking."""
    ready = select.poll()
    ready.register(connection, select.POLLOUT)
    end = time.monotonic() + _TURN_SECONDS
    position = start
    while position < reader.size and time.monotonic() < end:
        try:
            sent = os.sendfile(
                connection.fileno(), reader.fileno(), position, min(reader.size - position, _MOST_AT_ONCE)
            )
        except BlockingIOError:
            if not ready.poll(_PATIENCE_MILLISECONDS):
                break
            continue
        if not sent:
            lacking = reader.size - position
            # Too late for a refusal: the connection closes, and the client misses the bytes.
            raise OSError(f"An archived file ends {lacking} bytes early: somebody is changing the archive's files")
        position += sent
    return position - start


async def _writable(connection: socket.socket, timeout: float) -> None:
    loop = asyncio.get_running_loop()
    writable: asyncio.Future[None] = loop.create_future()
    loop.add_writer(connection, lambda: None if writable.done() else writable.set_result(None))
    try:
        await asyncio.wait_for(writable, timeout)
    finally:
        loop.remove_writer(connection)
