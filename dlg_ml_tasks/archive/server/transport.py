"""The HTTP side of the server, by aiohttp: requests come in as `Request` and `Body`, replies go out.

The only module that knows aiohttp's server. The low-level one is used, whose requests pass no router and no middleware:
a server of small files does little else than take a request and send a reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import ClientPayloadError, HttpVersion11, StreamReader, web
from aiohttp.web_protocol import RequestPayloadError

from .application import Application
from .call import Request, failure
from .node import Node
from .refusals import ClientGone, Refusal
from .replies import AnyReply, FileReply, Reply, StreamReply
from .sending import send_file

logger = logging.getLogger(__name__)

_SERVER = {"Server": "NGAMS/12.0-embedded"}
# NGAS itself takes a request line of this size. Longer ones, and a head with more or longer fields, are refused with 400.
_LONGEST_LINE = 64 * 1024
_LONGEST_FIELD = 8 * 1024
_MOST_FIELDS = 100
# What is held of an upload that comes faster than the disk takes it: up to twice this per connection.
_READ_AHEAD = 1024 * 1024
_IDLE_CONNECTION_SECONDS = 60.0
# How long the unread rest of a request is read after the reply, so that its client gets to see the reply.
_LINGERING_SECONDS = 5.0
_SHUTDOWN_SECONDS = 10.0
# The real server's words when it serves MaxSimReqs requests already: no header, no body.
_OVERLOADED = b"HTTP/1.0 503 Service Unavailable\r\n\r\n"


_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class HttpServer:
    """Serves `application` on one listening socket."""

    def __init__(self, application: Application, node: Node) -> None:
        self._application = application
        self._node = node
        self._under_way = 0
        self._loop = asyncio.new_event_loop()
        self._idle = asyncio.Event()
        self._idle.set()

    def run(self, listening: socket.socket) -> None:
        """Serve until `stop`, then finish the requests under way (for 10 seconds at most) and return."""
        try:
            self._loop.run_until_complete(self._serve(listening))
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    def stop(self) -> None:
        """Make `run` return, also if it has not begun yet. May be called from any thread and from a signal handler."""
        self._loop.call_soon_threadsafe(self._node.stopping.set)

    def close(self) -> None:
        """Free what `run` used."""
        self._loop.close()

    async def _serve(self, listening: socket.socket) -> None:
        async with self._node.at_work():
            await self._accept(listening)

    async def _accept(self, listening: socket.socket) -> None:
        connections = _Connections(
            self._handle,
            self._node,
            access_log=None,
            logger=logger,
            keepalive_timeout=_IDLE_CONNECTION_SECONDS,
            lingering_time=_LINGERING_SECONDS,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_FIELD,
            max_headers=_MOST_FIELDS,
            read_bufsize=_READ_AHEAD,
            # A body with a Content-Encoding is archived as it is.
            auto_decompress=False,
        )
        accepting = await self._loop.create_server(connections, sock=listening)
        await self._node.stopping.wait()
        accepting.close()
        # aiohttp's own shutdown stops reading at once, so an upload under way would never get to its end.
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), _SHUTDOWN_SECONDS)
        connections.pre_shutdown()
        await connections.shutdown(timeout=0.1)
        await accepting.wait_closed()

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        most = self._node.limits.max_requests
        if most is not None and self._under_way >= most:
            return _overloaded(http)
        self._under_way += 1
        self._idle.clear()
        try:
            return await self._respond(http)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _respond(self, http: web.BaseRequest) -> web.StreamResponse:
        request = Request(http.method, http.path, http.rel_url.raw_query_string, http.headers)
        body = _RequestBody(http, self._node.limits.stall_seconds)
        # Until the last byte has left: a server told to go OFFLINE must not be called idle before.
        self._node.busy += request.moves_files
        try:
            reply = await self._application.answer(request, body)
            # Sent here and not by aiohttp on return, so that a stop waits for the end of the reply.
            return await self._send(http, reply)
        except ClientGone:
            logger.info("%s: the client closed the connection before its request was complete", request.path)
            raise ConnectionResetError from None
        finally:
            self._node.busy -= request.moves_files
            body.close()
            if body.unasked and http.transport is not None:
                # Nothing has been sent that would have to be read first.
                http.transport.close()

    async def _send(self, http: web.BaseRequest, reply: AnyReply) -> web.StreamResponse:
        if isinstance(reply, Reply):
            response: web.StreamResponse = web.Response(
                body=reply.body, status=reply.status, headers={**_SERVER, **reply.headers}
            )
            if reply.close or self._node.stopping.is_set():
                response.force_close()
            await response.prepare(http)
            await response.write_eof()
            return response
        if isinstance(reply, FileReply):
            with reply.reader:
                return await self._send_file(http, reply)
        return await self._send_stream(http, reply)

    async def _send_file(self, http: web.BaseRequest, reply: FileReply) -> web.StreamResponse:
        response = web.StreamResponse(headers={**_SERVER, **reply.headers})
        if self._node.stopping.is_set():
            response.force_close()
        await response.prepare(http)
        if http.transport is None:
            raise ClientGone
        await send_file(self._node, http.transport, http.writer.drain, reply.reader, reply.start)
        await response.write_eof()
        return response

    async def _send_stream(self, http: web.BaseRequest, reply: StreamReply) -> web.StreamResponse:
        response = web.StreamResponse(headers={**_SERVER, **reply.headers})
        response.content_length = reply.length
        if self._node.stopping.is_set():
            response.force_close()
        await response.prepare(http)
        try:
            # Closed here: a generator left alone keeps the file it reads open until it is collected.
            async with contextlib.aclosing(reply.pieces) as pieces:
                async for piece in pieces:
                    await asyncio.wait_for(response.write(piece), self._node.limits.stall_seconds)
        except asyncio.TimeoutError:
            if http.transport is not None:
                http.transport.abort()
            raise ClientGone from None
        await response.write_eof()
        return response


class _RequestBody:
    """The body of a request (see `call.Body`). `unasked` while its client waits to be told to send it."""

    def __init__(self, http: web.BaseRequest, stall_seconds: float) -> None:
        self._http = http
        self._content: StreamReader = http.content
        self._stall_seconds = stall_seconds
        self._waiting_since: float | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.unasked = http.version == HttpVersion11 and http.headers.get("expect", "").lower() == "100-continue"

    async def pieces(self) -> AsyncIterator[bytes]:
        await self._ask()
        while piece := await self._next():
            yield piece

    async def drain(self, most: int | None = None) -> bool:
        if self.unasked:
            return False
        drained = 0
        while (most is None or drained < most) and (piece := await self._next()):
            drained += len(piece)
        return self._content.at_eof()

    def close(self) -> None:
        """Stop watching for a stall."""
        if self._watch is not None:
            self._watch.cancel()

    async def _ask(self) -> None:
        if self.unasked:
            self.unasked = False
            await self._http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._http.writer.output_size = 0  # what counts is the reply proper, of which nothing is sent

    async def _next(self) -> bytes:
        """The next piece, without a copy; empty at the end."""
        if self._content.at_eof():
            return b""
        loop = asyncio.get_running_loop()
        if self._watch is None and not self._content.is_eof():
            self._watch = loop.call_later(self._stall_seconds, self._look)
        self._waiting_since = loop.time()
        try:
            while not self._content.at_eof():
                piece, _ = await self._content.readchunk()
                if piece:
                    return piece
            return b""
        except (ConnectionError, ClientPayloadError, RequestPayloadError) as error:
            raise ClientGone from error
        finally:
            self._waiting_since = None

    def _look(self) -> None:
        """Give up if nothing has come for the stall time. One timer per upload: one per piece would cost more."""
        loop = asyncio.get_running_loop()
        waited = 0.0 if self._waiting_since is None else loop.time() - self._waiting_since
        if waited >= self._stall_seconds:
            refusal = Refusal(f"No data for {self._stall_seconds:g} seconds, giving up", close=True)
            self._content.set_exception(refusal)
        else:
            self._watch = loop.call_later(self._stall_seconds - waited, self._look)


class _Connections(web.Server):
    """Makes the protocol object of each connection."""

    def __init__(self, handler: _Handler, node: Node, **options: Any) -> None:
        super().__init__(handler, **options)
        self._node = node

    def __call__(self) -> web.RequestHandler:
        return _Connection(self._node, self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    """Answers what is no HTTP with a status document too."""

    def __init__(self, node: Node, connections: web.Server, **options: Any) -> None:
        super().__init__(connections, **options)
        self._node = node

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The reply to a request that the parser refused. The only other errors that reach aiohttp are those of sending."""
        if isinstance(exc, ConnectionResetError):
            # There is nobody to answer: who reads a part of a file, or is told of an overload, ends like this every time.
            raise exc
        if request.writer.output_size:
            # A reply has begun: the client would take anything sent now for the bytes that are missing of it.
            logger.error("The reply to %s is broken off", request.path, exc_info=exc)
            raise ConnectionResetError
        # The lines after the first point into the request with a caret.
        fault = (message or "").strip().partition("\n")[0].rstrip(":")
        logger.info("A malformed request from %s: %s", request.remote, fault)
        refusal = failure(self._node, Request("", "/", "", {}), Refusal(f"Malformed request: {fault}", status))
        response = web.Response(body=refusal.body, status=status, headers={**_SERVER, **refusal.headers})
        response.force_close()
        return response


def _overloaded(http: web.BaseRequest) -> web.StreamResponse:
    if http.transport is not None:
        http.transport.write(_OVERLOADED)
        # With the request unread, as the real server does: the client may see a reset instead of these words.
        http.transport.close()
    raise ConnectionResetError
