"""Who may use the server, and whom it may call by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .hosts import LOOPBACK_HOSTS, NO_HOSTS, AllowedHosts


@dataclass(frozen=True)
class Access:
    """The safe choice by default: whoever reaches the server may use it, it can be reached from this machine only, it
    fetches nothing, and sends new files to this machine only.

    `users` is a users file; with it, each request needs a name and a password. Without it a server that listens to the
    network must be declared `open_to_network`. `subscriber_hosts` is None for the loopback addresses of a server that
    itself listens there only; one that the network reaches sends to nobody, as its subscribers choose the address.
    """

    users: Path | None = None
    open_to_network: bool = False
    pull_hosts: AllowedHosts = NO_HOSTS
    subscriber_hosts: AllowedHosts | None = None

    def subscribers(self, *, local: bool) -> AllowedHosts:
        """`subscriber_hosts`, or what stands for None in a server that is `local`: that listens on loopback only."""
        if self.subscriber_hosts is not None:
            return self.subscriber_hosts
        return LOOPBACK_HOSTS if local else NO_HOSTS
