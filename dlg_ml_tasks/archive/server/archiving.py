"""ARCHIVE and QARCHIVE: what a client asks to have stored, and the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.message import Message
from urllib.parse import unquote

from .call import Call, require_plain
from .checksums import checksum_for
from .mime import mime_type_of, stored_name
from .pulling import allowed_source, opened, source_name
from .records import Overwrite
from .refusals import Refusal, ngams
from .replies import Reply
from .space import NoRoom
from .storing import Incoming, store

# NGAS keeps the name in a varchar(255) and puts a prefix before it while staging.
LONGEST_NAME = 240


async def archive(call: Call) -> Reply:
    """ARCHIVE."""
    return await _archive(call, quick=False)


async def qarchive(call: Call) -> Reply:
    """QARCHIVE: the same with other words; the real server skips replication here."""
    return await _archive(call, quick=True)


async def _archive(call: Call, *, quick: bool) -> Reply:
    call.node.require_online("Archive Request")
    return await (_push(call, quick=quick) if call.is_push else _pull(call, quick=quick))


async def _push(call: Call, *, quick: bool) -> Reply:
    size = content_length(call)
    call.parameters = _disposition_parameters(call.request.headers.get("content-disposition")) | call.parameters
    # NGAS unquotes the file name once more than the query's own encoding; the file id it takes as it is.
    uri = require_plain("filename", unquote(call.text("filename") or "").strip().rstrip("/"))
    incoming = _incoming(call, uri, uri.rpartition("/")[2], size, quick=quick)
    if not quick and call.integer("probe"):
        await call.body.drain()
        return call.success(ngams("NGAMS_INFO_ARCH_REQ_OK", incoming.mime_type, call.node.host_id))
    return await _stored(call, incoming, call.body.pieces(), "Push", quick=quick)


async def _pull(call: Call, *, quick: bool) -> Reply:
    hosts = call.node.pull_hosts
    url = allowed_source(call.text("filename"), hosts)
    async with opened(url, hosts, call.node.limits.stall_seconds) as source:
        incoming = _incoming(call, str(url), source_name(url), source.size, quick=quick)
        return await _stored(call, incoming, source.pieces(), "Pull", quick=quick)


async def _stored(call: Call, incoming: Incoming, pieces: AsyncIterator[bytes], way: str, *, quick: bool) -> Reply:
    try:
        registered = await store(call.node, incoming, pieces)
    except NoRoom:
        raise no_room(incoming, quick=quick) from None
    message = f"Successfully handled Archive {way} Request for data file with URI: {incoming.uri}"
    return call.success(message, call.node.disk(registered.disk), registered.file)


def _incoming(call: Call, uri: str, base_name: str, size: int, *, quick: bool) -> Incoming:
    if not base_name:
        raise Refusal(ngams("NGAMS_ER_MISSING_URI"))
    headers = call.request.headers
    mime_type = mime_type_of(call.text("mime_type") or headers.get("content-type"), base_name, quick=quick)
    base_name_on_disk = stored_name(base_name, mime_type)
    if len(base_name_on_disk.encode()) > LONGEST_NAME:
        raise Refusal(f"filename={base_name!r} is longer than {LONGEST_NAME} bytes; choose a shorter one")
    checksum = checksum_for(call.text("crc_variant"), "crc32" if quick else "ngamsGenCrc32")
    return Incoming(
        uri=uri,
        file_id=require_plain("file_id", call.text("file_id") or base_name),
        base_name=base_name_on_disk,
        mime_type=mime_type,
        size=size,
        checksum=checksum,
        announced_sum=checksum.expected(headers.get("ngas-file-crc")) if checksum else None,
        overwrite=Overwrite(call.version()) if _overwrites(call) else None,
    )


def content_length(call: Call) -> int:
    """The bytes that a push announces. Refuses none and an unknown number."""
    headers = call.request.headers
    # The real server stores the framing of a chunked body as data if a length stands beside it.
    length = 0 if "transfer-encoding" in headers else int(headers.get("content-length", "0"))
    if length <= 0:
        raise Refusal("Content-Length is 0 or unknown", 411)
    return length


def _disposition_parameters(header: str | None) -> dict[str, str]:
    """`attachment; filename="x"; file_id=y`: another way to pass parameters."""
    if header is None:
        return {}
    message = Message()
    message["Content-Disposition"] = header
    pairs = message.get_params(header="content-disposition") or []
    return {name: unquote(value) for name, value in pairs[1:] if value}


def _overwrites(call: Call) -> bool:
    versioning, no_versioning = call.integer("versioning"), call.integer("no_versioning")
    return versioning == 0 if versioning is not None else bool(no_versioning)


def no_room(incoming: Incoming, *, quick: bool) -> Refusal:
    """The refusal of a file that does not fit."""
    # The real server drops the connection when its disk is full; these are its words for having no volume to use.
    return no_volume() if quick else Refusal(ngams("NGAMS_AL_NO_STO_SETS", incoming.mime_type))


def no_volume() -> Refusal:
    """The refusal of what fits nowhere."""
    return Refusal("No disk volumes are available for ingesting any files.")
