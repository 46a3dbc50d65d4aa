"""Fetching a file for ARCHIVE and QARCHIVE by GET: from the hosts that whoever runs the server has allowed, only.

The real server fetches any URL, and any file of its own machine, for whoever asks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import aiohttp
from yarl import URL

from .call import require_plain
from .hosts import AllowedHosts
from .outgoing import outgoing_session
from .refusals import Refusal, ngams

_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_BLOCK = 1024 * 1024


class Source:
    """A file on its way from another server: `size` in bytes, and its bytes once."""

    def __init__(self, response: aiohttp.ClientResponse, size: int) -> None:
        self.size = size
        self._response = response

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes as they arrive. Refuses a source that breaks off or stalls."""
        with _faults(self._response.url):
            async for piece in self._response.content.iter_chunked(_BLOCK):
                yield piece


def allowed_source(text: str | None, hosts: AllowedHosts) -> URL:
    """The URL to fetch. Refuses all of them if `hosts` is empty, and always anything but http and https."""
    if not hosts.entries:
        raise Refusal(ngams("NGAMS_ER_ILL_REQ", "Archive Pull") + " Send the bytes with POST instead.")
    if text is None:
        raise Refusal(ngams("NGAMS_ER_MISSING_URI"))
    return hosts.url(text, "filename")


def source_name(url: URL) -> str:
    """The name a file is archived under if the request gives none: as NGAS, `file_id` of a URL that has it."""
    name = url.query["file_id"].rpartition("/")[2] if "file_id" in url.query else url.name
    return require_plain("filename", name)


@contextlib.asynccontextmanager
async def opened(url: URL, hosts: AllowedHosts, stall_seconds: float) -> AsyncIterator[Source]:
    """Ask for a file, following redirects to allowed hosts only. Refuses an answer that is no file of known length."""
    async with contextlib.AsyncExitStack() as stack:
        with _faults(url):
            session = await stack.enter_async_context(outgoing_session(stall_seconds))
            response = await stack.enter_async_context(session.get(url, allow_redirects=False))
            for _ in range(_MOST_REDIRECTS):
                if response.status not in _REDIRECTS:
                    break
                target = response.url.join(URL(response.headers.get("Location", "")))
                response.release()
                response = await stack.enter_async_context(
                    session.get(hosts.url(str(target), "filename"), allow_redirects=False)
                )
        yield Source(response, _size(url, response))


def _size(url: URL, response: aiohttp.ClientResponse) -> int:
    if response.status != 200:
        raise _cannot(url, f"HTTP {response.status} {response.reason}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _cannot(url, f"it comes with Content-Encoding {response.headers['Content-Encoding']}")
    if response.content_length is None or "Transfer-Encoding" in response.headers:
        raise _cannot(url, "it comes without a Content-Length, so its end could not be told from a lost connection")
    if not response.content_length:
        raise _cannot(url, "it is empty")
    return response.content_length


@contextlib.contextmanager
def _faults(url: URL) -> Iterator[None]:
    try:
        yield
    except asyncio.TimeoutError:
        raise _cannot(url, "no answer in time") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _cannot(url, str(error) or type(error).__name__) from error


def _cannot(url: URL, reason: str) -> Refusal:
    return Refusal(ngams("NGAMS_ER_REQ_HANDLING", f"Cannot fetch {url}: {reason}"))
