"""Finds the user and password for a server: in the environment or in a netrc file, never in a URL."""

from __future__ import annotations

import base64
import netrc
import os
from dataclasses import dataclass, field
from pathlib import Path

from dlg_ml_tasks.archive.address import Address, parse_address
from dlg_ml_tasks.archive.errors import AccessRefused

USER = "DLG_ML_NGAS_USER"
PASSWORD = "DLG_ML_NGAS_PASSWORD"  # noqa: S105  the name of a variable
HOSTS = "DLG_ML_NGAS_HOSTS"


@dataclass(frozen=True)
class Credentials:
    """A user and a password, which is never shown."""

    user: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        """The value of an `Authorization` header."""
        # NGAS compares the scheme with its case.
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def credentials_for(address: Address, *, redirected: bool = False) -> Credentials | None:
    """What to show the server at `address`; None for nothing.

    DLG_ML_NGAS_USER and DLG_ML_NGAS_PASSWORD come first. They go to any server, or, if DLG_ML_NGAS_HOSTS lists servers
    (`host[:port],...`), to those and nowhere else. Then the netrc file (NETRC, or ~/.netrc) is asked for a machine
    `host:port` or `host`; its `default` entry is not used.

    redirected: the address came from another server, not from the user: only credentials that were bound to it by
    name are given.

    Raises AccessRefused for a netrc file that cannot be read or that others can read, ValueError for DLG_ML_NGAS_HOSTS.
    """
    user = os.environ.get(USER)
    bound = bound_hosts()
    if user and (address in bound or not (bound or redirected)):
        return Credentials(user, os.environ.get(PASSWORD, ""))
    return _from_netrc(address)


def bound_hosts() -> frozenset[Address]:
    """The servers that DLG_ML_NGAS_HOSTS lists. Raises ValueError for what is no list of servers."""
    named = [host.strip() for host in os.environ.get(HOSTS, "").split(",")]
    try:
        return frozenset(parse_address(host) for host in named if host)
    except ValueError as error:
        raise ValueError(f"{HOSTS}: {error}") from error


def _from_netrc(address: Address) -> Credentials | None:
    path = Path(os.environ.get("NETRC") or os.path.expanduser("~/.netrc"))  # noqa: PTH111  without a home no error
    try:
        hosts = netrc.netrc(path).hosts
        others_can_read = path.stat().st_mode & 0o077
    except FileNotFoundError:
        return None
    except netrc.NetrcParseError as error:
        # The parser quotes what it stumbled over, which may be a password.
        raise _unusable(address, f"line {error.lineno} of {path} cannot be parsed", "Mend the file.") from None
    except (OSError, UnicodeError) as error:
        raise _unusable(address, f"{path} cannot be read: {error}", "Check its permissions.") from error
    entry = hosts.get(str(address)) or hosts.get(address.host)
    if entry is None:
        return None
    if others_can_read:
        raise _unusable(
            address, f"{path} holds a password for this server and can be read by others", f"Run: chmod 600 {path}"
        )
    login, _, password = entry
    return Credentials(login, password)


def _unusable(address: Address, message: str, remedy: str) -> AccessRefused:
    return AccessRefused(message, server=str(address), remedy=remedy)
