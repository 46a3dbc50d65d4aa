"""One HTTP exchange with an NGAS server: credentials, redirects, retries, and failures as exceptions."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import ParamSpec, TypeVar
from urllib.parse import urlencode, urlsplit

import urllib3
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential, wait_random
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.response import BaseHTTPResponse

from dlg_ml_tasks.archive.address import Address, parse_address
from dlg_ml_tasks.archive.credentials import Credentials, credentials_for
from dlg_ml_tasks.archive.errors import ArchiveOverloaded, ArchiveUnreachable, NgasError, ProtocolError, error_for
from dlg_ml_tasks.archive.limit import Slot
from dlg_ml_tasks.archive.reply import FileStatus, MalformedReply, Row, StatusDocument, parse_query, parse_status
from dlg_ml_tasks.archive.shared import ConnectionWasStale, Shared, shared_by_clients_of

log = logging.getLogger(__name__)

MAX_STATUS_BYTES = 1 << 20
MAX_QUERY_BYTES = 1 << 29  # QUERY has no paging; a million rows take about this much
MAX_REDIRECTS = 3
STALE_TRIES = (
    2  # how many of the first tries may fail for free on a kept connection; a server that breaks them all is down
)

TRANSIENT = (ArchiveUnreachable, ArchiveOverloaded)

_OK = 200
_SUCCESS = frozenset({_OK, 201})  # 201: SUBSCRIBE, of a subscription that is there already
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BROKEN_OFF = (http.client.RemoteDisconnected, http.client.IncompleteRead)
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "dlg-ml-tasks"}

Params = Mapping[str, str | int]
Body = bytes | Iterable[bytes]
P = ParamSpec("P")
T = TypeVar("T")


class Connection:
    """Speaks HTTP with one server. Thread safe.

    Connections are kept and used again where the server allows it: a new one for each request costs half as much again
    as a small request itself. The real server closes each after its reply, so none of its threads waits for us.
    """

    def __init__(self, address: Address, *, timeout: float, auth: tuple[str, str] | None, patience: float) -> None:
        self.address = parse_address(str(address))
        self._timeout = urllib3.Timeout(connect=timeout, read=timeout)
        self._credentials = Credentials(*auth) if auth else credentials_for(self.address)
        self._retrying = Retrying(
            retry=retry_if_exception_type(TRANSIENT),
            wait=_wait,
            stop=lambda state: _out_of_patience(state, patience),
            before_sleep=_log_retry,
            reraise=True,
        )

    @property
    def shared(self) -> Shared:
        return shared_by_clients_of(self.address)

    def patiently(self, request: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls `request`, again after transient failures, waiting longer each time, until patience runs out.

        After a request that alone took longer than the patience (a timeout) there is still one more try.
        """
        # A copy, because the state of a Retrying does not survive a call within a call.
        return self._retrying.copy()(request, *args, **kwargs)

    def once(self, act: Callable[[], T], already_done: Callable[[], T | None]) -> T:
        """Does, patiently, what must not be done twice.

        After a try that may have succeeded, because only its reply was lost, the archive is asked before the next one:
        `already_done` gives the result, or None if nothing came of it.
        """
        tried = False

        def attempt() -> T:
            nonlocal tried
            if tried and (result := already_done()) is not None:
                return result
            tried = True
            return act()

        return self.patiently(attempt)

    @contextmanager
    def exchange(
        self,
        command: str,
        params: Params,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[BaseHTTPResponse]:
        """One request, one try. Yields a successful response whose body is still to be read.

        body: what to send; its length must stand in `headers`. Without a body the request is a GET.

        Raises an NgasError for any other answer, and ArchiveUnreachable if the connection breaks at any point, also
        while the caller reads the body.
        """
        file_id = str(params.get("file_id", ""))
        with self.shared.limit.slot() as slot:
            try:
                response = self._request(f"/{command}?{urlencode(params)}", body, {**_HEADERS, **(headers or {})})
                with _closing(response):
                    if response.status not in _SUCCESS:
                        raise self._refusal(response, file_id)
                    self._refuse_truncated_head(response, file_id)
                    yield response
            except HTTPError as error:
                raise self._failure(error, slot, file_id) from error
            except ArchiveOverloaded:
                slot.overloaded()
                raise
            slot.succeeded()

    def status(
        self,
        command: str,
        params: Params,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> StatusDocument:
        """One request, one try, whose answer is a status document that says SUCCESS; else raises an NgasError."""
        with self.exchange(command, params, body=body, headers=headers) as response:
            document = self._parse_status(response)
        # CHECKFILE calls a damaged file a SUCCESS, with an error's id in front of the message.
        if not document.success or document.message.startswith("NGAMS_ER_"):
            raise error_for(
                _OK,
                document.message,
                server=str(self.address),
                file_id=str(params.get("file_id", "")),
            )
        return document

    def query(self, name: str, read: Callable[[Row], T], **params: str) -> list[T]:
        """One QUERY, one try; its rows, in no order, as `read` understands them."""
        # json is the one format that survives a non-ASCII file id in the archive.
        with self.exchange("QUERY", {"query": name, "format": "json", **params}) as response:
            body = self._read(response, MAX_QUERY_BYTES)
        try:
            return [read(row) for row in parse_query(body)]
        except (KeyError, ValueError) as error:
            raise ProtocolError(f"the rows of {name} cannot be read: {error}", server=str(self.address)) from error

    def file_status(self, file_id: str) -> FileStatus:
        """One STATUS of a file, one try; raises FileNotInArchive."""
        return self.file_in(self.status("STATUS", {"file_id": file_id}), file_id)

    def file_in(self, document: StatusDocument, file_id: str) -> FileStatus:
        """What the document says of the file; raises ProtocolError if that is nothing."""
        for file in document.files:
            if file.file_id == file_id:
                return file
        raise ProtocolError(
            f"the reply {document.message!r} says nothing of the file", server=str(self.address), file_id=file_id
        )

    def _request(self, target: str, body: Body | None, headers: dict[str, str]) -> BaseHTTPResponse:
        """The server's response, or that of the node of its cluster to which it redirects."""
        address, credentials = self.address, self._credentials
        for _ in range(MAX_REDIRECTS):
            response = self._request_at(address, credentials, target, body, headers)
            # A node of an NGAS cluster answers RETRIEVE with 303 and the node that has the file.
            if response.status not in _REDIRECTS or body is not None:
                return response
            with _closing(response):
                address, target = self._redirection(response)
            credentials = self._credentials if address == self.address else credentials_for(address, redirected=True)
        raise ProtocolError(f"more than {MAX_REDIRECTS} redirects, the last to {address}", server=str(self.address))

    def _request_at(
        self,
        address: Address,
        credentials: Credentials | None,
        target: str,
        body: Body | None,
        headers: dict[str, str],
    ) -> BaseHTTPResponse:
        return shared_by_clients_of(address).pool.urlopen(
            "GET" if body is None else "POST",
            target,
            body=body,
            headers={**headers, "Authorization": credentials.header} if credentials else headers,
            timeout=self._timeout,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )

    def _redirection(self, response: BaseHTTPResponse) -> tuple[Address, str]:
        location = response.headers.get("Location", "")
        try:
            url = urlsplit(location)
            if url.scheme != "http":
                raise ValueError(f"{location!r} is not an http URL")
            return parse_address(url.netloc), f"{url.path or '/'}?{url.query}"
        except ValueError as error:
            raise ProtocolError(
                f"HTTP {response.status} redirects nowhere useful: {error}", server=str(self.address)
            ) from error

    def _refuse_truncated_head(self, response: BaseHTTPResponse, file_id: str) -> None:
        """Raises ArchiveUnreachable for a head without a length, which http.client takes for a whole one."""
        if response.length_remaining is None and not response.chunked:
            raise ArchiveUnreachable(
                "the connection ended in the head of the reply, or the reply is not from NGAS: it has no length",
                server=str(self.address),
                file_id=file_id,
            )

    def _parse_status(self, response: BaseHTTPResponse) -> StatusDocument:
        body = self._read(response, MAX_STATUS_BYTES)
        try:
            return parse_status(body)
        except MalformedReply as error:
            raise ProtocolError(str(error), server=str(self.address)) from error

    def _refusal(self, response: BaseHTTPResponse, file_id: str) -> NgasError:
        try:
            message = self._parse_status(response).message
        except (NgasError, HTTPError):
            # An overloaded server says 503 and nothing else; a foreign one says it in HTML.
            message = f"HTTP {response.status} {response.reason or ''}".rstrip()
        return error_for(response.status, message, server=str(self.address), file_id=file_id)

    def _read(self, response: BaseHTTPResponse, limit: int) -> bytes:
        body = bytearray()
        # To the end, which comes as an empty block: only there urllib3 sees that bytes are missing.
        while block := response.read(limit + 1 - len(body)):
            body += block
            if len(body) > limit:
                raise ProtocolError(f"the reply is longer than {limit} bytes", server=str(self.address))
        return bytes(body)

    def _failure(self, error: HTTPError, slot: Slot, file_id: str) -> NgasError:
        """What a failure below HTTP means, for the caller and for the number of requests at a time."""
        cause = _innermost(error)
        message = f"the connection failed: {cause or type(cause).__name__}"
        if isinstance(error, NewConnectionError):
            return ArchiveUnreachable(message, server=str(self.address), file_id=file_id)
        stale = _caused_by(error, ConnectionWasStale)
        if not stale and _caused_by(error, http.client.HTTPException) and not _caused_by(error, *_BROKEN_OFF):
            return ProtocolError(f"not an answer in HTTP: {cause!r}", server=str(self.address), file_id=file_id)
        if not stale:
            # An overloaded server resets connections, more often than it gets to say 503.
            slot.overloaded()
        unreachable = ArchiveUnreachable(message, server=str(self.address), file_id=file_id)
        unreachable.stale = stale
        return unreachable


@contextmanager
def _closing(response: BaseHTTPResponse) -> Iterator[None]:
    """Gives the connection back if the body was read to its end, and closes it otherwise."""
    try:
        yield
    finally:
        response.close()


_backing_off = wait_exponential(multiplier=0.1, max=5.0) + wait_random(0.0, 0.2)


def _wait(state: RetryCallState) -> float:
    return 0.0 if _was_stale(state) else _backing_off(state)


def _out_of_patience(state: RetryCallState, patience: float) -> bool:
    # A kept connection that the server had closed meanwhile is no failure of the server's.
    if _was_stale(state):
        return False
    if patience <= 0:
        return True
    return state.attempt_number > 1 and (state.seconds_since_start or 0.0) >= patience


def _was_stale(state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return isinstance(error, ArchiveUnreachable) and error.stale and state.attempt_number <= STALE_TRIES


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0.0
    reason = error.message if isinstance(error, NgasError) else error
    log.log(
        logging.DEBUG if _was_stale(state) else logging.WARNING,
        "NGAS server %s: %s; trying again in %.1f s",
        getattr(error, "server", "?"),
        reason,
        wait,
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, through the wrapping of urllib3, which keeps a cause in `__cause__` or in `args`."""
    current: object = error
    while isinstance(current, BaseException):
        yield current
        current = current.__cause__ or (current.args[-1] if current.args else None)


def _innermost(error: BaseException) -> BaseException:
    return list(_chain(error))[-1]


def _caused_by(error: BaseException, *kinds: type[BaseException]) -> bool:
    return any(isinstance(one, kinds) for one in _chain(error))
