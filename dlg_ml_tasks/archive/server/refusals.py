"""The answers in which the server says no, and the numbered messages of the NGAS protocol."""

from __future__ import annotations

# Message id -> (number and severity, text). Clients recognise an answer by the id, so texts and numbers are NGAS's own.
_MESSAGES = {
    "NGAMS_AL_NO_STO_SETS": ("3014:ALERT", "No Storage Sets found for mime-type: {}"),
    "NGAMS_ER_REQ_HANDLING": ("4010:ERROR", "Error occurred handling request! Error/exception: {}"),
    "NGAMS_ER_MISSING_URI": ("4013:ERROR", "Must specify a URI for the data file to archive!"),
    "NGAMS_ER_UNKNOWN_MIME_TYPE1": (
        "4014:ERROR",
        "Could not determine mime-type for data file with URI: {}. Check NG/AMS Configuration.",
    ),
    "NGAMS_ER_IMPROPER_STATE": (
        "4015:ERROR",
        "{} not allowed when in State/Sub-State: {}/{}. Allowed State(s)/Sub-State(s) are: {}/{}.",
    ),
    "NGAMS_ER_ILL_REQ": (
        "4017:ERROR",
        "This NG/AMS is not configured for accepting {} Requests. Rejecting request!",
    ),
    "NGAMS_ER_RETRIEVE_CMD": ("4018:ERROR", "Incorrect parameter given for RETRIEVE command."),
    "NGAMS_ER_UNAVAIL_FILE": ("4019:ERROR", "File with ID: {} appears not to be available."),
    "NGAMS_ER_UNKNOWN_DISK": (
        "4020:ERROR",
        "Could not retrieve information about disk with Disk ID: {}. Disk is probably unknown to this NG/AMS! "
        "Rejecting request!",
    ),
    "NGAMS_INFO_FILE_AVAIL": (
        "4029:INFO",
        "File with File ID: {}, is available on NGAS Host with Host ID: {}.",
    ),
    "NGAMS_ER_CMD_SYNTAX": (
        "4035:ERROR",
        "The combination of parameters given together with the command: {} is illegal. Parameter(s): {}.",
    ),
    "NGAMS_ER_CMD_EXEC": ("4036:ERROR", "Problem(s) encountered executing command: {}. Error: {}"),
    "NGAMS_INFO_FILE_DEL_STAT": (
        "4040:INFO",
        "File deletion status. Files Selected: {}, Files Deleted: {}, Failed File Deletions: {}.",
    ),
    "NGAMS_WA_FILE_COPIES": (
        "4046:WARNING",
        "One or more files requested to be deleted are not available in at least 3 independent copies within this "
        "NGAS system.",
    ),
    "NGAMS_ER_UNKNOWN_MIME_TYPE2": (
        "4047:ERROR",
        "Illegal mime-type: {} issued in Archive Request for file with URI: {}. Rejecting request.",
    ),
    "NGAMS_ER_CLONE_REJECTED": ("4053:ERROR", "The clone command was rejected. Reason: {}"),
    "NGAMS_INFO_FILE_OK": (
        "4056:INFO",
        "Checked file with File ID: {}/File Version: {}/Disk ID: {}/Slot ID: {}/Host ID: {} - "
        "file found to be consistent.",
    ),
    "NGAMS_ER_FILE_NOK": (
        "4057:ERROR",
        "Checked file with File ID: {}/File Version: {}/Disk ID: {}/Slot ID: {}/Host ID: {} - "
        "file found to be inconsistent{}",
    ),
    "NGAMS_ER_DISCARD_NOT_FOUND": ("4063:ERROR", "File scheduled to be discarded not found: {}. NGAS Node: {}."),
    "NGAMS_INFO_DISCARD_GRANTED": ("4065:INFO", "File discard request granted. File: {}. NGAS Node {}."),
    "NGAMS_INFO_DISCARD_OK": ("4066:INFO", "File discarded: {}. NGAS Node: {}."),
    "NGAMS_INFO_ARCH_REQ_OK": (
        "4068:INFO",
        "Handling of Archive Request for mime-type: {} is possible on node: {}",
    ),
}


def ngams(message_id: str, *values: object) -> str:
    """The protocol's message `message_id` with `values` filled in: `ID:number:severity: text`."""
    number, text = _MESSAGES[message_id]
    return f"{message_id}:{number}: {text.format(*values)}"


class Refusal(Exception):
    """A request the server will not or cannot carry out; answered with a FAILURE status document.

    `http_status` is 400 for nearly everything, even for a file that does not exist, and 200 for a DISCARD that found
    nothing: that is the protocol. `close` asks for the connection to be closed with the request's body unread;
    otherwise the body is read to its end first, or for `most_drained` bytes, so that a client busy sending hears why.
    """

    def __init__(
        self, message: str, http_status: int = 400, *, close: bool = False, most_drained: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.http_status = http_status
        self.close = close
        self.most_drained = most_drained

    def closing(self) -> Refusal:
        """The same refusal, after which the connection is closed."""
        return Refusal(self.message, self.http_status, close=True)


class ClientGone(Exception):
    """The client closed its connection before the request was complete; there is nobody to answer."""


def missing(file_id: str, version: int | None = None) -> Refusal:
    """The refusal for a file that is not in the archive."""
    return Refusal(ngams("NGAMS_ER_UNAVAIL_FILE", file_id if version is None else f"{file_id}/Version: {version}"))
