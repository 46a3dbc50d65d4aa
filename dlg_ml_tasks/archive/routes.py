"""Says where to connect to reach an archive that its own name does not lead to: a tunnel's end, or a container's published port.

The name in a URL stays the archive's, as MLflow has recorded it, whoever reads it from wherever.
"""

from __future__ import annotations

import os

from dlg_ml_tasks.archive.address import Address, parse_address

ROUTES = "DLG_ML_NGAS_ROUTES"
"""Environment variable: ``host[:port]=host[:port],...``, the archive's address and the one to connect to in its place."""


def route_to(address: Address) -> Address:
    """Where to connect for `address`: what DLG_ML_NGAS_ROUTES says, else the address itself. Raises ValueError for no such list."""
    return _routes().get(address, address)


def _routes() -> dict[Address, Address]:
    routes = {}
    for entry in filter(None, (each.strip() for each in os.environ.get(ROUTES, "").split(","))):
        archive, equals, target = entry.partition("=")
        try:
            if not equals:
                raise ValueError(f"{entry!r} has no '='")
            routes[parse_address(archive.strip())] = parse_address(target.strip())
        except ValueError as error:
            raise ValueError(f"{ROUTES}: {error}; write for example ngas:7777=127.0.0.1:7777") from error
    return routes
