"""Finds the command a request names, runs it, and turns a refusal into a status document."""

from __future__ import annotations

import logging

from .authorization import Authorization
from .call import Body, Call, Request, failure
from .commands import COMMANDS
from .node import Node
from .refusals import ClientGone, Refusal, ngams
from .replies import AnyReply

logger = logging.getLogger(__name__)

_METHODS = ("GET", "POST", "PUT")
# As much of a stranger's request is read so that an honest mistake gets its answer.
_STRANGERS_BYTES = 1024 * 1024


class Application:
    """Serves one node. With `trusted_hosts`, only requests addressed to one of these host names are answered, and with
    `authorization` only those of its users."""

    def __init__(
        self, node: Node, trusted_hosts: frozenset[str] | None, authorization: Authorization | None = None
    ) -> None:
        self._node = node
        self._trusted_hosts = trusted_hosts
        self._authorization = authorization

    async def answer(self, request: Request, body: Body) -> AnyReply:
        """The reply to any request, good or bad. Raises ClientGone if there is nobody left to hear it."""
        try:
            return await self._obey(request, body)
        except Refusal as refusal:
            return failure(self._node, request, await _drain(body, refusal))
        except ClientGone:
            raise
        except Exception as error:
            logger.exception("%s failed", request.path)
            return failure(self._node, request, Refusal(ngams("NGAMS_ER_REQ_HANDLING", error), 500, close=True))

    async def _obey(self, request: Request, body: Body) -> AnyReply:
        self._guard(request)
        if self._authorization is not None:
            # First of all: a stranger is told nothing, not even which commands there are.
            await self._authorization.check(request.headers.get("authorization"), request.command)
        if request.command not in COMMANDS:
            raise Refusal("Command not found", 404)
        return await COMMANDS[request.command](Call(self._node, request, body))

    def _guard(self, request: Request) -> None:
        if request.method not in _METHODS:
            raise Refusal(f"Method {request.method} is not supported, use one of {', '.join(_METHODS)}", 405)
        # No archive client is a web page. A page the user happens to visit must not reach a server on the user's own
        # machine, neither by a cross-site request nor through a host name that resolves to the loopback address.
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refusal("Requests made by web pages of other sites are refused", 403, most_drained=_STRANGERS_BYTES)
        if self._trusted_hosts is not None and _host_name(request) not in self._trusted_hosts:
            message = "This server answers only requests addressed to localhost or to its own address"
            raise Refusal(message, 403, most_drained=_STRANGERS_BYTES)


async def _drain(body: Body, refusal: Refusal) -> Refusal:
    """Read what the refused client is still sending; the refusal to answer with, which closes if something is left."""
    if refusal.close:
        return refusal
    try:
        whole = await body.drain(refusal.most_drained)
    except Refusal as stalled:
        return stalled
    return refusal if whole else refusal.closing()


def _host_name(request: Request) -> str:
    host = request.headers.get("host", "localhost")  # HTTP/1.0 has none
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
