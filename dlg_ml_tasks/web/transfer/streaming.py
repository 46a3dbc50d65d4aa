"""Bytes from the archive to clients: little memory, few connections to the archive, and no thread that waits for a slow client.

A thread reads from the archive while the event loop sends what was read before. A client that does not keep up loses its turn, and
with it the thread and the connection to the archive, which serves only so many at a time; it gets another turn once it has taken
what it was sent, and reading goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import anyio
from anyio import CapacityLimiter
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from dlg_ml_tasks.web.sources.errors import NotThere, SourceDown
from dlg_ml_tasks.web.transfer.splicing import AVAILABLE, Behind, Pipe

log = logging.getLogger(__name__)

Copy = Callable[[int, int, Callable[[bytes], object], Callable[[int, int], int] | None], None]
"""Hands the bytes from the first to the second number (exclusive) to a function, block by block; if there is another function,
all but the first block to that one, as a descriptor and how many are wanted. Raises SourceDown, NotThere."""

TRANSPORT = "transport"
"""Where in the state of a request its connection stands, if the server tells."""

_WORTH_SPLICING = 4 << 20  # bytes: a connection is closed after it

_RETRY_AFTER_S = 10


@dataclass(frozen=True)
class Pace:
    """How patient to be with clients.

    behind_s: seconds that a client may take for a block before it loses its turn. gone_s: before it counts as gone.
    share: bytes after which a turn ends if others wait for theirs.
    """

    behind_s: float = 1.0
    gone_s: float = 60.0
    share: int = 32 << 20


class Streams:
    """The downloads of a site. For the event loop.

    turns: how many may read from the archive at once: fewer than it serves, so that pages get to it, too. most: how many downloads
    may be in flight; each takes a socket and, if its client is slow, a block of memory. most_of_one: how many of one client; None:
    any number.
    """

    def __init__(
        self, *, turns: int = 6, most: int = 100, most_of_one: int | None = 16, pace: Pace | None = None
    ) -> None:
        self.turns = CapacityLimiter(turns)
        self.pace = pace or Pace()
        self.stopping = False
        self._most = most
        self._most_of_one = most_of_one
        self._in_flight: Counter[str] = Counter()

    def stop(self) -> None:
        """Break off what is in flight."""
        self.stopping = True

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """A place for one download of a client. Raises HTTPException if there is none."""
        again = {"Retry-After": str(_RETRY_AFTER_S)}
        if self._most_of_one is not None and self._in_flight[client] >= self._most_of_one:
            raise HTTPException(429, f"at most {self._most_of_one} downloads at once for one client", again)
        if self._in_flight.total() >= self._most:
            raise HTTPException(503, "too many downloads are under way", again)
        self._in_flight[client] += 1
        try:
            yield
        finally:
            self._in_flight[client] -= 1
            if not self._in_flight[client]:
                del self._in_flight[client]


class StreamedFile(Response):
    """The bytes from `start` to `end` (exclusive) of what `copy` gets.

    Until the first block has come, an archive that fails is answered as such; after that the connection is broken off, so that
    no client takes a part for the whole.
    """

    def __init__(
        self, streams: Streams, copy: Copy, start: int, end: int, *, status_code: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(None, status_code, {**headers, "Content-Length": str(end - start)})
        self._streams = streams
        self._copy = copy
        self._start = start
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it, unless the client leaves."""
        sender = _Sender(send, self.status_code, self.raw_headers, self._end - self._start)
        if scope["method"] == "HEAD" or self._start == self._end:
            await sender.send_head()
            return
        transport = _plain_connection(scope) if self._end - self._start >= _WORTH_SPLICING else None
        with self._streams.place(scope["client"][0] if scope.get("client") else ""):
            watching = asyncio.create_task(_watch(receive, sender))
            try:
                if transport is None:
                    await self._send_all(sender)
                else:
                    await self._splice_all(sender, transport, watching)
            finally:
                sender.gone = True
                watching.cancel()

    async def _send_all(self, sender: _Sender) -> None:
        turns, pace, position = self._streams.turns, self._streams.pace, self._start
        while position < self._end and not (sender.gone or self._streams.stopping):
            turn = _Turn(self._copy, position, self._end, sender, self._streams)
            try:
                position = await anyio.to_thread.run_sync(turn.take, limiter=turns, abandon_on_cancel=True)
                if turn.sending is not None:
                    await asyncio.wait_for(asyncio.wrap_future(turn.sending), pace.gone_s)
            except (SourceDown, NotThere) as error:
                if not sender.begun:
                    raise
                log.warning("a download broke off after %d of %d bytes: %s", sender.sent, sender.length, error)
                return
            except asyncio.TimeoutError:
                log.info("a client took nothing for %g s; its download is broken off", pace.gone_s)
                return

    async def _splice_all(self, sender: _Sender, transport: asyncio.Transport, watching: asyncio.Task[None]) -> None:
        """Head and first block go through the server; the rest goes inside the kernel, and the connection ends with it."""
        turns, pace, position = self._streams.turns, self._streams.pace, self._start
        self.headers["Connection"] = "close"
        # So that nothing waits in the process when the server has taken a message.
        transport.set_write_buffer_limits(0)
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
        pipe = Pipe(descriptor, pace.behind_s)
        try:
            while (position < self._end or pipe.held) and not (sender.gone or self._streams.stopping):
                turn = _SplicingTurn(self._copy, position, self._end, sender, self._streams, pipe)
                position = await anyio.to_thread.run_sync(turn.take, limiter=turns)
                if turn.sending is not None:
                    await asyncio.wait_for(asyncio.wrap_future(turn.sending), pace.gone_s)
                if pipe.held:
                    await _writable(descriptor, pace.gone_s)
        except (SourceDown, NotThere) as error:
            if not sender.begun:
                raise
            log.warning("a download broke off after %d of %d bytes: %s", position, sender.length, error)
            transport.abort()
        except (ConnectionError, asyncio.TimeoutError) as error:
            log.info("a client has gone or took nothing for %g s (%s); its download is broken off", pace.gone_s, error)
            transport.abort()
        finally:
            pipe.close()
        if sender.begun:
            transport.close()
            # The server learns that the connection has ended before it is told that the answer is not whole.
            await watching


class _Sender:
    """What goes to one client, in order. For the event loop, but for `gone`, which says that nothing more is to be sent."""

    def __init__(self, send: Send, status: int, headers: list[tuple[bytes, bytes]], length: int) -> None:
        self._send = send
        self._head = {"type": "http.response.start", "status": status, "headers": headers}
        self.length = length
        self.sent = 0
        self.begun = False
        self.gone = False

    async def send_block(self, content: bytes) -> None:
        """One block; with the first one the head."""
        if not self.begun:
            self.begun = True
            await self._send(self._head)
        self.sent += len(content)
        await self._send({"type": "http.response.body", "body": content, "more_body": self.sent < self.length})

    async def send_first(self, content: bytes) -> None:
        """The first block, with the head, out of the process; what comes after it goes another way."""
        await self.send_block(content)
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})

    async def send_head(self) -> None:
        """The head alone."""
        await self._send(self._head)
        await self._send({"type": "http.response.body", "body": b""})


class _Turn:
    """Reads in a thread until the end, or until the client does not keep up or has gone, or others are to have a turn.

    sending: the last block on its way to the client.
    """

    def __init__(self, copy: Copy, start: int, end: int, sender: _Sender, streams: Streams) -> None:
        self._copy = copy
        self._start = self._position = start
        self._end = end
        self._sender = sender
        self._streams = streams
        self._loop = asyncio.get_running_loop()
        self.sending: Future[None] | None = None

    def take(self) -> int:
        """Returns how far it came. Raises SourceDown, NotThere."""
        with suppress(_Over):
            self._copy(self._start, self._end, self._hand_on, None)
        return self._position

    def _hand_on(self, block: bytes) -> None:
        """Send a block while the next one is read, once the one before has gone."""
        if self.sending is not None:
            try:
                self.sending.result(self._streams.pace.behind_s)
            except FutureTimeout:
                raise _Over from None
        if not self._may_go_on():
            raise _Over
        self.sending = asyncio.run_coroutine_threadsafe(self._sender.send_block(block), self._loop)
        self._position += len(block)

    def _may_go_on(self) -> bool:
        if self._sender.gone or self._streams.stopping:
            return False
        has_had = self._position - self._start
        return has_had < self._streams.pace.share or self._streams.turns.statistics().tasks_waiting == 0


class _SplicingTurn(_Turn):
    """A turn whose bytes go through a pipe, but for the very first."""

    def __init__(
        self,
        copy: Copy,
        start: int,
        end: int,
        sender: _Sender,
        streams: Streams,
        pipe: Pipe,
    ) -> None:
        super().__init__(copy, start, end, sender, streams)
        self._pipe = pipe

    def take(self) -> int:
        """Returns how far it came in reading. Raises SourceDown, NotThere, ConnectionError, TimeoutError."""
        with suppress(Behind):
            self._pipe.drain()
            if self._position < self._end:
                self._copy(self._start, self._end, self._first, self._move)
                self._pipe.drain()
        return self._position

    def _first(self, block: bytes) -> None:
        if self._sender.begun:
            self._position += self._pipe.put(block)
            return
        self.sending = asyncio.run_coroutine_threadsafe(self._sender.send_first(block), self._loop)
        self._position += len(block)
        try:
            self.sending.result(self._streams.pace.behind_s)
        except FutureTimeout:
            raise Behind from None

    def _move(self, source: int, most: int) -> int:
        moved = self._pipe.move(source, most, self._may_go_on)
        self._position += moved
        return moved


class _Over(Exception):
    """The turn is over before the end of the file."""


def _plain_connection(scope: Scope) -> asyncio.Transport | None:
    """The connection of a request, if bytes can be sent past the server; None with TLS, another server or system."""
    transport: asyncio.Transport | None = scope.get("state", {}).get(TRANSPORT)
    if not AVAILABLE or transport is None or transport.get_extra_info("sslcontext") is not None:
        return None
    return transport


async def _writable(descriptor: int, seconds: float) -> None:
    """Wait until a client takes more. Raises TimeoutError."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), seconds)
    finally:
        loop.remove_writer(descriptor)


async def _watch(receive: Receive, sender: _Sender) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    sender.gone = True
