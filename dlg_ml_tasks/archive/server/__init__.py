"""An NGAS-compatible archive server for laptops and tests, to be replaced by a real NGAS in production.

It speaks the NGAS protocol's commands for archiving, retrieving, listing, deleting, containers and subscriptions. Where
the real server is dangerous or loses data it does better: a file is on disk when SUCCESS is answered, two ids never
share bytes, concurrent uploads of one id get distinct versions, XML is UTF-8, and no request can touch anything but the
archive's own files.
"""

from __future__ import annotations

from .access import Access
from .hosts import AllowedHosts
from .limits import Limits
from .running import DEFAULT_PORT, EmbeddedNgas, ServerStartError, serve

__all__ = ["DEFAULT_PORT", "Access", "AllowedHosts", "EmbeddedNgas", "Limits", "ServerStartError", "serve"]
