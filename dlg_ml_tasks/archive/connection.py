"""One HTTP exchange with an NGAS server: addresses, credentials, retries, and failures as exceptions."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, ParamSpec, TypeVar

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential, wait_random

from dlg_ml_tasks.archive.address import Address, parse_address
from dlg_ml_tasks.archive.errors import ArchiveOverloaded, ArchiveUnreachable, NgasError, ProtocolError, error_for
from dlg_ml_tasks.archive.reply import MalformedReply, StatusDocument, parse_query, parse_status

log = logging.getLogger(__name__)

BLOCK = 1 << 20  # bytes moved at a time, in either direction
MAX_STATUS_BYTES = 1 << 20
MAX_QUERY_BYTES = 1 << 29  # QUERY has no paging; a million rows take about this much

TRANSIENT = (ArchiveUnreachable, ArchiveOverloaded)

Params = Mapping[str, str | int]
P = ParamSpec("P")
T = TypeVar("T")


def credentials_from_environment() -> tuple[str, str] | None:
    """User and password from DLG_ML_NGAS_USER and DLG_ML_NGAS_PASSWORD; None if no user is set."""
    user = os.environ.get("DLG_ML_NGAS_USER")
    return (user, os.environ.get("DLG_ML_NGAS_PASSWORD", "")) if user else None


class Connection:
    """Speaks HTTP with one server. Thread safe; holds no open socket between calls (NGAS is HTTP/1.0)."""

    def __init__(self, address: Address, *, timeout: float, auth: tuple[str, str] | None, patience: float) -> None:
        self.address = parse_address(str(address))
        self._timeout = timeout
        # As bytes, because requests would encode text as Latin-1.
        self._auth = HTTPBasicAuth(auth[0].encode(), auth[1].encode()) if auth else None
        self._retrying = Retrying(
            retry=retry_if_exception_type(TRANSIENT),
            wait=wait_exponential(multiplier=0.1, max=5.0) + wait_random(0.0, 0.2),
            stop=lambda state: _out_of_patience(state, patience),
            before_sleep=_log_retry,
            reraise=True,
        )
        self._threads = threading.local()

    def patiently(self, request: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls `request`, again after transient failures, waiting longer each time, until patience runs out.

        After a request that alone took longer than the patience (a timeout) there is still one more try.
        """
        # A copy, because the state of a Retrying does not survive a call within a call.
        return self._retrying.copy()(request, *args, **kwargs)

    @contextmanager
    def exchange(
        self,
        command: str,
        params: Params,
        *,
        body: IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[requests.Response]:
        """One request, one try. Yields a response with HTTP 200 whose body is still to be read.

        Raises an NgasError for any other answer, and ArchiveUnreachable if the connection breaks at any point, also
        while the caller reads the body.
        """
        file_id = str(params.get("file_id", ""))
        try:
            with self._session().request(
                "GET" if body is None else "POST",
                f"http://{self.address}/{command}",
                params=dict(params),
                data=body,
                headers=dict(headers or {}),
                auth=self._auth,
                timeout=self._timeout,
                stream=True,
                # A node of an NGAS cluster answers RETRIEVE with 303 and the node that has the file.
                allow_redirects=body is None,
            ) as response:
                if response.status_code != requests.codes.ok:
                    raise self._refusal(response, file_id)
                yield response
        except requests.RequestException as error:
            raise ArchiveUnreachable(_cause(error), server=str(self.address), file_id=file_id) from error

    def status(
        self,
        command: str,
        params: Params,
        *,
        body: IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> StatusDocument:
        """One request, one try, whose answer is a status document that says SUCCESS; else raises an NgasError."""
        with self.exchange(command, params, body=body, headers=headers) as response:
            document = self._parse_status(response)
        # CHECKFILE calls a damaged file a SUCCESS, with an error's id in front of the message.
        if not document.success or document.message.startswith("NGAMS_ER_"):
            raise error_for(
                requests.codes.ok,
                document.message,
                server=str(self.address),
                file_id=str(params.get("file_id", "")),
            )
        return document

    def query(self, name: str, **params: str) -> list[dict[str, object]]:
        """One QUERY, one try; the rows in no order."""
        # json is the one format that survives a non-ASCII file id in the archive.
        with self.exchange("QUERY", {"query": name, "format": "json", **params}) as response:
            body = self._read(response, MAX_QUERY_BYTES)
        try:
            return parse_query(body)
        except MalformedReply as error:
            raise ProtocolError(str(error), server=str(self.address)) from error

    def _parse_status(self, response: requests.Response) -> StatusDocument:
        body = self._read(response, MAX_STATUS_BYTES)
        try:
            return parse_status(body)
        except MalformedReply as error:
            raise ProtocolError(str(error), server=str(self.address)) from error

    def _refusal(self, response: requests.Response, file_id: str) -> NgasError:
        try:
            message = self._parse_status(response).message
        except (NgasError, requests.RequestException):
            # An overloaded server says 503 and nothing else; a foreign one says it in HTML.
            message = f"HTTP {response.status_code} {response.reason or ''}".rstrip()
        return error_for(response.status_code, message, server=str(self.address), file_id=file_id)

    def _read(self, response: requests.Response, limit: int) -> bytes:
        body = bytearray()
        for block in response.iter_content(BLOCK):
            body += block
            if len(body) > limit:
                raise ProtocolError(f"the reply is longer than {limit} bytes", server=str(self.address))
        return bytes(body)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = requests.Session()
            # No proxies and no .netrc: an archive is on the local network, and its password goes nowhere else.
            session.trust_env = False
            session.max_redirects = 3
            session.headers.update({"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "dlg-ml-tasks"})
            session.mount("http://", _LargeBlocks())
            self._threads.session = session
        return session


class _LargeBlocks(HTTPAdapter):
    """Sends uploads in blocks of 1 MiB; the default is 16 KiB."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, blocksize=BLOCK)


def _out_of_patience(state: RetryCallState, patience: float) -> bool:
    if patience <= 0:
        return True
    return state.attempt_number > 1 and (state.seconds_since_start or 0.0) >= patience


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0.0
    reason = error.message if isinstance(error, NgasError) else error
    log.warning("NGAS server %s: %s; trying again in %.1f s", getattr(error, "server", "?"), reason, wait)


def _cause(error: requests.RequestException) -> str:
    """What happened, without the layers of wrapping: the innermost message that requests and urllib3 carried up."""
    cause: BaseException = error
    while True:
        inner = cause.__cause__ or cause.__context__
        if inner is None:
            break
        cause = inner
    return f"the connection failed: {cause or type(cause).__name__}"
