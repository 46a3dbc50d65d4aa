"""When the server says no."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of a server.

    `minimum_free_bytes` of each disk are never filled (on a disk that is full to the last byte the catalogue could not
    even forget a file), and all files together never have more than `capacity_bytes`. An upload from which nothing
    comes for `stall_seconds` is given up; so is a download of which nothing is taken for as long. With `max_requests`, a
    request that comes while so many are being served is turned away as an overloaded NGAS does it. None is no limit.
    """

    minimum_free_bytes: int = 64 * 2**20
    capacity_bytes: int | None = None
    stall_seconds: float = 60.0
    max_requests: int | None = None
