"""An NGAS-compatible archive server for laptops and tests, to be replaced by a real NGAS in production.

It speaks the part of the NGAS protocol that archiving, retrieving, listing and deleting need. Where the real server is
dangerous or loses data it does better: a file is on disk when SUCCESS is answered, two ids never share bytes, concurrent
uploads of one id get distinct versions, XML is UTF-8, and no request can touch anything but the archive's own files.
"""

from __future__ import annotations

from .running import DEFAULT_PORT, EmbeddedNgas, Limits, ServerStartError, serve

__all__ = ["DEFAULT_PORT", "EmbeddedNgas", "Limits", "ServerStartError", "serve"]
