"""SUBSCRIBE and UNSUBSCRIBE: who is sent every new file. The sending is in `delivery`."""

from __future__ import annotations

import asyncio

from yarl import URL

from ..call import Call, require_plain
from ..dates import read_date
from ..records import timestamp
from ..refusals import Refusal, ngams
from ..replies import Reply
from .rows import Subscription, subscribe, unsubscribe

_DEFAULT_PRIORITY = 10
_MOST_AT_ONCE = 16


async def subscribe_command(call: Call) -> Reply:
    """SUBSCRIBE `url`, from `start_date` on (default: now): 201 if it is there already, 409 if with other values."""
    new = _parse(call)
    existing = await asyncio.wrap_future(call.node.catalogue.change(lambda connection: subscribe(connection, new)))
    if existing is None:
        call.node.new_subscriptions.ring()
        return call.success("Handled SUBSCRIBE command")
    if _same(existing, new, any_start=call.text("start_date") is None):
        return call.success(f"Identical subscription with ID '{new.subscr_id}' existed", http_status=201)
    raise Refusal(f"Different subscription with ID '{new.subscr_id}' existed", 409)


async def unsubscribe_command(call: Call) -> Reply:
    """UNSUBSCRIBE by `subscr_id`, or by the `url` of a subscription that was made without one."""
    subscr_id = call.text("subscr_id") or _default_id(call.text("url"))
    if subscr_id is None:
        raise Refusal(ngams("NGAMS_ER_CMD_SYNTAX", "UNSUBSCRIBE", "Missing parameter: url"))
    existed = await asyncio.wrap_future(
        call.node.catalogue.change(lambda connection: unsubscribe(connection, subscr_id))
    )
    if not existed:
        raise Refusal(f"UNSUBSCRIBE command failed: there is no subscription with ID '{subscr_id}'", 200)
    call.node.new_subscriptions.ring()
    return call.success("Successfully handled UNSUBSCRIBE command")


def _parse(call: Call) -> Subscription:
    url = call.text("url")
    if url is None:
        raise Refusal(ngams("NGAMS_ER_CMD_SYNTAX", "SUBSCRIBE", "Missing parameter: url"))
    if call.text("filter_plug_in") is not None:
        raise Refusal(
            "filter_plug_in is not offered by the embedded server, which would deliver every file; leave it out"
        )
    start = call.text("start_date")
    priority, at_once = call.integer("priority"), call.integer("concurrent_threads") or 1
    if not 1 <= at_once <= _MOST_AT_ONCE:
        raise Refusal(f"concurrent_threads={at_once} must be between 1 and {_MOST_AT_ONCE}")
    checked = call.node.subscriber_hosts.url(url, "url")
    if _is_this_server(call, checked):
        raise Refusal(f"url={url!r} is this server: it would send itself every file again, for ever")
    return Subscription(
        subscr_id=require_plain("subscr_id", call.text("subscr_id") or url.partition("?")[0]),
        url=str(checked),
        priority=_DEFAULT_PRIORITY if priority is None else priority,
        start_date=timestamp() if start is None else read_date(start, "start_date"),
        concurrent_threads=at_once,
    )


def _is_this_server(call: Call, url: URL) -> bool:
    name, _, port = call.node.host_id.rpartition(":")
    return url.port == int(port) and (url.host or "").lower() in {"localhost", "127.0.0.1", "::1", name.lower()}


def _default_id(url: str | None) -> str | None:
    return None if url is None else url.partition("?")[0]


def _same(existing: Subscription, new: Subscription, *, any_start: bool) -> bool:
    # Who gives no start date means "from now on", which is another moment each time.
    return (existing.url, existing.priority, existing.concurrent_threads) == (
        new.url,
        new.priority,
        new.concurrent_threads,
    ) and (any_start or existing.start_date == new.start_date)
