"""Sending new files to the subscribers: at least once each, in the order of their arrival, whatever happens meanwhile.

What is to be sent is a table of the catalogue, so neither a restart nor a subscriber that is away for a week loses a file.
A subscriber whose answer got lost is sent the file again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from typing import TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from ..checksums import variant_of
from ..copies import open_file
from ..node import Node
from ..outgoing import outgoing_session
from ..records import StoredFile
from ..refusals import Refusal
from ..vault import Reader
from ..xml_reading import read_xml
from .rows import Delivery, Subscription, delivered, due, next_due, postpone, subscriptions

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 600.0
_LONGEST_ANSWER = 1024 * 1024


@asynccontextmanager
async def delivering(node: Node) -> AsyncIterator[None]:
    """The time in which the subscribers of a node are sent what there is for them."""
    task = asyncio.create_task(_deliver(node))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _deliver(node: Node) -> None:
    """Look after all subscribers, those that come and those that go, until cancelled."""
    tasks: dict[Subscription, asyncio.Task[None]] = {}
    async with outgoing_session(node.limits.stall_seconds) as session:
        try:
            with node.new_subscriptions.heard() as changed:
                while await changed.wait():
                    changed.clear()
                    try:
                        wanted = {_identity(each) for each in await node.run(_read, node, subscriptions)}
                    except sqlite3.Error:
                        logger.exception("Cannot read the subscriptions for the moment")
                        await asyncio.sleep(_FIRST_PAUSE_SECONDS)
                        changed.set()
                        continue
                    for gone in tasks.keys() - wanted:
                        tasks.pop(gone).cancel()
                    for new in wanted - tasks.keys():
                        tasks[new] = asyncio.create_task(_Subscriber(node, session, new).serve())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)


class _Refused(Exception):
    """The subscriber is there and does not take this file: the message says why."""


class _Subscriber:
    """Somebody to whom files go, some at a time."""

    def __init__(self, node: Node, session: aiohttp.ClientSession, subscription: Subscription) -> None:
        self._node = node
        self._session = session
        self._subscription = subscription
        self._fruitless = 0

    async def serve(self) -> None:
        """Deliver until cancelled."""
        with self._node.new_files.heard() as news:
            while True:
                news.clear()
                try:
                    pause = await self._deliver_due()
                except Exception:
                    # As when the disk is full. Whatever it is, it must not end the deliveries until the next start.
                    logger.exception("Cannot deliver to %s for the moment", self._subscription.subscr_id)
                    pause = self._longer_pause()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), pause)

    async def _deliver_due(self) -> float | None:
        """Try what is due; gives the seconds until more is, None if nothing waits."""
        subscr_id, at_once = self._subscription.subscr_id, self._subscription.concurrent_threads
        while batch := await self._read(lambda connection: due(connection, subscr_id, time.time(), at_once)):
            if all(await asyncio.gather(*(self._attempt(delivery) for delivery in batch))):
                self._fruitless = 0
            else:
                # It cannot be reached, so every other file would fail too.
                await asyncio.sleep(self._longer_pause())
        moment = await self._read(lambda connection: next_due(connection, subscr_id))
        return None if moment is None else max(0.0, moment - time.time())

    async def _attempt(self, delivery: Delivery) -> bool:
        """Send one file and note the outcome; False if the subscriber cannot be reached."""
        copies = self._node.catalogue.copies(delivery.file_id, delivery.file_version)
        if copies:
            try:
                await self._send(copies[0])
            except (_Refused, aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                await self._postpone(delivery, error)
                return isinstance(error, _Refused)
        # A file that has been discarded meanwhile is nobody's any more.
        ingestion_date = copies[0].ingestion_date if copies else None
        await self._change(lambda connection: delivered(connection, delivery, ingestion_date))
        return True

    async def _postpone(self, delivery: Delivery, error: Exception) -> None:
        again = time.time() + _pause(delivery.attempts)
        await self._change(lambda connection: postpone(connection, delivery, again))
        file, reason = f"{delivery.file_id} version {delivery.file_version}", str(error) or type(error).__name__
        logger.warning("%s is not delivered to %s yet: %s", file, delivery.subscr_id, reason)

    async def _send(self, stored: StoredFile) -> None:
        url, headers = self._addressed(stored)
        try:
            _, reader = await open_file(self._node, stored.file_id, stored.file_version)
        except Refusal as refusal:
            raise _Refused(refusal.message) from None
        with closing(reader):
            # A redirect could lead to a host that is not on the list.
            sending = self._session.post(url, data=self._blocks(reader), headers=headers, allow_redirects=False)
            async with sending as response:
                answer = await response.content.read(_LONGEST_ANSWER)
                if response.status >= 500:
                    raise aiohttp.ClientPayloadError(f"HTTP {response.status}")
                fault = f"HTTP {response.status}" if response.status != 200 else _fault(answer)
                if fault is not None:
                    raise _Refused(fault)

    def _addressed(self, stored: StoredFile) -> tuple[URL, dict[str, str]]:
        try:
            # Checked each time: the list may have become shorter since the subscription.
            url = self._node.subscriber_hosts.url(self._subscription.url, "url")
        except Refusal as refusal:
            raise _Refused(refusal.message) from None
        headers = {
            "Content-Type": stored.format,
            "Content-Length": str(stored.file_size),
            # NGAS unquotes what stands in this header.
            "Content-Disposition": (
                f'attachment; filename="{quote(stored.file_name.rpartition("/")[2])}"; file_id={quote(stored.file_id)}'
            ),
        }
        if stored.checksum is not None and stored.checksum_plugin is not None:
            url = url.update_query(crc_variant=variant_of(stored.checksum_plugin))
            headers["NGAS-File-CRC"] = stored.checksum
        return url, headers

    async def _blocks(self, reader: Reader) -> AsyncIterator[bytes]:
        while block := await self._node.run(reader.read):
            yield block

    async def _read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        return await self._node.run(_read, self._node, question)

    async def _change(self, change: Callable[[sqlite3.Connection], None]) -> None:
        await asyncio.wrap_future(self._node.catalogue.change(change))

    def _longer_pause(self) -> float:
        self._fruitless += 1
        return _pause(self._fruitless - 1)


def _read(node: Node, question: Callable[[sqlite3.Connection], T]) -> T:
    with node.catalogue.reading() as connection:
        return question(connection)


def _identity(subscription: Subscription) -> Subscription:
    """What stays the same while files are delivered."""
    return replace(subscription, last_file_ingestion_date=None)


def _pause(attempts: int) -> float:
    return float(min(_FIRST_PAUSE_SECONDS * 2 ** min(attempts, 20), _LONGEST_PAUSE_SECONDS))


def _fault(answer: bytes) -> str | None:
    """Why a subscriber that answered 200 has not taken the file; None if it has."""
    try:
        status = read_xml(answer).find("Status")
    except ValueError:
        return "the answer is no status document"
    if status is None:
        return "the answer is no status document"
    return None if status.get("Status") == "SUCCESS" else status.get("Message", "FAILURE")
