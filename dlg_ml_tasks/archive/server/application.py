"""The ASGI application: finds the command a request names, runs it, and turns a refusal into a status document."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .call import Call, failure
from .commands import COMMANDS
from .node import Node
from .refusals import ClientGone, Refusal

logger = logging.getLogger(__name__)

_METHODS = ("GET", "POST", "PUT")


class Application:
    """Serves one node. With `trusted_hosts`, only requests addressed to one of these host names are answered."""

    def __init__(self, node: Node, trusted_hosts: frozenset[str] | None) -> None:
        self._node = node
        self._trusted_hosts = trusted_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientGone:
            logger.info("%s: the client closed the connection before its request was complete", scope["path"])
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        call: Call | None = None
        try:
            self._guard(request)
            # Before the command, so that even a refused upload is read to its end and the client can hear why.
            call = Call(self._node, request)
            return await _command(request)(call)
        except Refusal as refusal:
            if call is not None and not refusal.close:
                refusal = await _drain(call, refusal)
            return failure(self._node, request, refusal)

    def _guard(self, request: Request) -> None:
        if request.method not in _METHODS:
            raise Refusal(f"Method {request.method} is not supported, use one of {', '.join(_METHODS)}", 405)
        # No archive client is a web page. A page the user happens to visit must not reach a server on the user's own
        # machine, neither by a cross-site request nor through a host name that resolves to the loopback address.
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refusal("Requests made by web pages of other sites are refused", 403)
        if self._trusted_hosts is not None and _host_name(request) not in self._trusted_hosts:
            raise Refusal("This server answers only requests addressed to localhost or to its own address", 403)


async def _drain(call: Call, refusal: Refusal) -> Refusal:
    try:
        await call.body.drain()
    except Refusal as stalled:
        return stalled
    return refusal


def _command(request: Request) -> Callable[[Call], Awaitable[Response]]:
    name = request.scope["path"].strip("/")
    if name not in COMMANDS:
        raise Refusal("Command not found", 404)
    return COMMANDS[name]


def _host_name(request: Request) -> str:
    host = request.headers.get("host", "localhost")  # HTTP/1.0 has none
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
