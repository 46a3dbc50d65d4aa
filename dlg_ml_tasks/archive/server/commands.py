"""STATUS, the commands that change the server's state, and the table of all commands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .archiving import archive, qarchive
from .call import Call
from .checking import checkfile, file_access
from .cloning import clone
from .containers.archiving import carchive
from .containers.commands import cappend, ccreate, cdestroy, clist, cremove, cretrieve
from .file_lists import file_list
from .querying import query
from .refusals import Refusal, missing, ngams
from .removing import discard, remfile
from .replies import AnyReply, Reply
from .retrieval import retrieve
from .subscriptions.commands import subscribe_command, unsubscribe_command

# Parameters that make the real STATUS do something else; ignoring one would answer another question than was asked.
_OTHER_STATUS = ("request_id", "configuration_file", "dump_object_info")


async def status(call: Call) -> AnyReply:
    """STATUS of the server, of a file (`file_id`, `file_version`), a disk (`disk_id`) or a host (`host_id`), whether
    a file can be had (`file_access`), or a page of the list of all files (`file_list`)."""
    for name in _OTHER_STATUS:
        if call.text(name) is not None:
            raise Refusal(ngams("NGAMS_ER_CMD_SYNTAX", "STATUS", f"{name} is not offered by the embedded server"))
    if call.integer("file_list") or call.text("file_list_id") is not None:
        return await file_list(call)
    message = "Successfully handled command STATUS"
    host_id, disk_id, file_id = call.text("host_id"), call.text("disk_id"), call.text("file_id")
    if host_id not in (None, call.node.host_id):
        raise Refusal(f"No NGAS host with host_id: {host_id}")
    if disk_id is not None and disk_id not in call.node.disk_ids:
        raise Refusal(ngams("NGAMS_ER_UNKNOWN_DISK", disk_id))
    accessed = call.text("file_access")
    if accessed is not None:
        return await file_access(call, accessed)
    if file_id is not None:
        version = call.version()
        copies = [c for c in call.node.catalogue.copies(file_id, version) if disk_id in (None, c.disk_id)]
        if not copies:
            raise missing(file_id, version)
        return call.success(message, call.node.disk_of(copies[0]), copies[0])
    if disk_id is not None:
        return call.success(message, next(disk for disk in call.node.disks() if disk.stored.disk_id == disk_id))
    return call.success(message)


async def online(call: Call) -> Reply:
    """ONLINE, allowed when OFFLINE."""
    call.node.require_state("Command ONLINE", "OFFLINE", ["IDLE"])
    call.node.online = True
    return call.success("Successfully handled command ONLINE")


async def offline(call: Call) -> Reply:
    """OFFLINE: refuse to archive and retrieve until ONLINE or a restart. What is under way is finished; with `force` it
    is not waited for."""
    sub_states = ["IDLE"] if call.text("force") is None else ["IDLE", "BUSY"]
    call.node.require_state("Command OFFLINE", "ONLINE", sub_states)
    call.node.online = False
    return call.success("Successfully handled command OFFLINE")


async def init(call: Call) -> Reply:
    """INIT: the real server reads its configuration again; there is nothing to read here."""
    call.node.require_state("Command INIT", "ONLINE", ["IDLE"])
    return call.success("Successfully handled command INIT")


async def exit_command(call: Call) -> Reply:
    """EXIT, allowed when OFFLINE: the server finishes what is under way and ends."""
    call.node.require_state("Command EXIT", "OFFLINE", ["IDLE"])
    call.node.stopping.set()
    return call.success("NG/AMS Server performing exit")


async def help_page(call: Call) -> Reply:
    """HELP: the way to the manual."""
    return Reply(b"", {"Location": "https://ngas.readthedocs.io"}, 308)


COMMANDS: dict[str, Callable[[Call], Awaitable[AnyReply]]] = {
    "ARCHIVE": archive,
    "QARCHIVE": qarchive,
    "RETRIEVE": retrieve,
    "STATUS": status,
    "QUERY": query,
    "DISCARD": discard,
    "REMFILE": remfile,
    "CLONE": clone,
    "CHECKFILE": checkfile,
    "ONLINE": online,
    "OFFLINE": offline,
    "INIT": init,
    "EXIT": exit_command,
    "HELP": help_page,
    "CCREATE": ccreate,
    "CAPPEND": cappend,
    "CREMOVE": cremove,
    "CLIST": clist,
    "CDESTROY": cdestroy,
    "CRETRIEVE": cretrieve,
    "CARCHIVE": carchive,
    "SUBSCRIBE": subscribe_command,
    "UNSUBSCRIBE": unsubscribe_command,
}
