"""The commands that ask about files, check, discard them, or change the server's state; and the table of all commands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import RedirectResponse, Response

from .archiving import archive, qarchive
from .call import Call
from .catalogue import StoredFile
from .checksums import checksum_named
from .node import SLOT_ID, Node
from .querying import query
from .refusals import Refusal, missing, ngams
from .retrieval import retrieve
from .vault import checksum_of

# Parameters that make the real STATUS do something else; ignoring one would answer another question than was asked.
_OTHER_STATUS = ("file_list", "file_list_id", "file_access", "request_id", "configuration_file", "dump_object_info")


async def status(call: Call) -> Response:
    """STATUS of the server, or of a file (`file_id`, `file_version`), a disk (`disk_id`) or a host (`host_id`)."""
    for name in _OTHER_STATUS:
        if call.text(name) is not None:
            raise Refusal(ngams("NGAMS_ER_CMD_SYNTAX", "STATUS", f"{name} is not offered by the embedded server"))
    message = "Successfully handled command STATUS"
    host_id, disk_id, file_id = call.text("host_id"), call.text("disk_id"), call.text("file_id")
    if host_id not in (None, call.node.host_id):
        raise Refusal(f"No NGAS host with host_id: {host_id}")
    if disk_id not in (None, call.node.disk_id):
        raise Refusal(ngams("NGAMS_ER_UNKNOWN_DISK", disk_id))
    if file_id is not None:
        stored = await call.node.run(_find, call.node, file_id, call.version())
        return call.success(message, await call.node.run(call.disk), stored)
    if disk_id is not None:
        return call.success(message, await call.node.run(call.disk))
    return call.success(message)


async def discard(call: Call) -> Response:
    """DISCARD one file version, named by all of file_id, file_version and disk_id; a rehearsal without execute=1.

    The real command also deletes any path of the machine it is given; this one knows nothing but its own files.
    """
    if call.text("path") is not None:
        raise Refusal(ngams("NGAMS_ER_ILL_REQ", "Discard by path") + " Give disk_id, file_id and file_version.")
    file_id, disk_id, version = call.text("file_id"), call.text("disk_id"), call.integer("file_version")
    if not (file_id and disk_id and version):
        raise Refusal(ngams("NGAMS_ER_CMD_SYNTAX", "DISCARD", "disk_id=ID&file_id=ID&file_version=VER are needed"))
    execute = call.text("execute") or "0"
    if not execute.isdecimal():
        raise Refusal(ngams("NGAMS_ER_REQ_HANDLING", "Must provide proper value for parameter: execute (0|1)"))
    if disk_id != call.node.disk_id:
        found = None
    elif int(execute):
        found = await call.node.run(_discard, call.node, file_id, version)
    else:
        found = await call.node.run(call.node.catalogue.find, file_id, version)
    name = f"Disk ID: {disk_id}/File ID: {file_id}/File Version: {version}"
    if found is None:
        raise Refusal(ngams("NGAMS_ER_DISCARD_NOT_FOUND", name, call.node.host_id), 200)
    done = "NGAMS_INFO_DISCARD_OK" if int(execute) else "NGAMS_INFO_DISCARD_GRANTED"
    return call.success(ngams(done, name, call.node.host_id))


async def checkfile(call: Call) -> Response:
    """CHECKFILE: reads a file (version 1 by default) and compares size and checksum. A bad file is a SUCCESS too."""
    file_id = call.text("file_id")
    if file_id is None:
        raise Refusal("Must specify a File ID for the CHECKFILE command.")
    version = call.integer("file_version") or 1
    disk_id, host_id = call.text("disk_id"), call.text("host_id")
    if disk_id not in (None, call.node.disk_id) or host_id not in (None, call.node.host_id):
        raise missing(file_id, version)
    stored = await call.node.run(_find, call.node, file_id, version)
    fault = await call.node.run(_fault, call.node, stored)
    checked = (file_id, version, call.node.disk_id, SLOT_ID, call.node.host_id)
    if fault is None:
        return call.success(ngams("NGAMS_INFO_FILE_OK", *checked))
    # "Descrepancy" is the protocol's own spelling.
    return call.success(ngams("NGAMS_ER_FILE_NOK", *checked, f". Descrepancy: ERROR: {fault}"))


async def online(call: Call) -> Response:
    """ONLINE, allowed when OFFLINE."""
    return _change_state(call, "ONLINE", online=True)


async def offline(call: Call) -> Response:
    """OFFLINE: refuse to archive and retrieve until ONLINE (or a restart)."""
    return _change_state(call, "OFFLINE", online=False)


async def init(call: Call) -> Response:
    """INIT: the real server reads its configuration again; there is nothing to read here."""
    call.node.require_online("INIT command")
    return call.success("Successfully handled command INIT")


async def help_page(call: Call) -> Response:
    """HELP: the way to the manual."""
    return RedirectResponse("https://ngas.readthedocs.io", 308)


def _change_state(call: Call, command: str, *, online: bool) -> Response:
    if call.node.online == online:
        states = ("ONLINE", "OFFLINE") if online else ("OFFLINE", "ONLINE")
        raise Refusal(ngams("NGAMS_ER_IMPROPER_STATE", f"{command} command", states[0], "IDLE", [states[1]], ["IDLE"]))
    call.node.online = online
    return call.success(f"Successfully handled command {command}")


def _find(node: Node, file_id: str, version: int | None) -> StoredFile:
    stored = node.catalogue.find(file_id, version)
    if stored is None:
        raise missing(file_id, version)
    return stored


def _discard(node: Node, file_id: str, version: int) -> StoredFile | None:
    discarded = node.catalogue.discard(file_id, version).result()
    if discarded is not None:
        node.vault.remove(discarded.object)
    return discarded


def _fault(node: Node, stored: StoredFile) -> str | None:
    checksum = checksum_named(stored.checksum_plugin)
    path = node.vault.path(stored.object)
    try:
        if path.stat().st_size != stored.file_size:
            return "Inconsistent file size found"
        if checksum is None:
            return "Missing checksum"
        return None if str(checksum_of(path, checksum)) == stored.checksum else "Inconsistent checksum found"
    except FileNotFoundError:
        raise missing(stored.file_id, stored.file_version) from None


COMMANDS: dict[str, Callable[[Call], Awaitable[Response]]] = {
    "ARCHIVE": archive,
    "QARCHIVE": qarchive,
    "RETRIEVE": retrieve,
    "STATUS": status,
    "QUERY": query,
    "DISCARD": discard,
    "CHECKFILE": checkfile,
    "ONLINE": online,
    "OFFLINE": offline,
    "INIT": init,
    "HELP": help_page,
}
