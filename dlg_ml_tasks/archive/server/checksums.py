"""The checksum variants of the NGAS protocol."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from crc32c import crc32c

from .refusals import Refusal

# ARCHIVE and CARCHIVE report the plug-ins that sum in the real server.
_NAMES_OF_CRC32 = ("ngamsGenCrc32", "StreamCrc32")


@dataclass(frozen=True)
class Checksum:
    """One way to sum a file: `update(block, so far) -> new sum`, starting from 0, an unsigned 32-bit number."""

    name: str
    update: Callable[[bytes, int], int]

    def expected(self, header: str | None) -> int | None:
        """The sum announced in an `NGAS-File-CRC` header, a decimal; None without one. Refuses anything else."""
        if not header:
            return None
        try:
            announced = int(header)
        except ValueError:
            raise Refusal(f"NGAS-File-CRC must be a decimal number, not {header!r}") from None
        # zlib.crc32 was signed in Python 2, and clients of that age still announce it so.
        return announced & 0xFFFFFFFF if self.update is zlib.crc32 else announced


def checksum_for(variant: str | None, crc32_name: str = "crc32") -> Checksum | None:
    """The checksum a `crc_variant` parameter asks for: a name or NGAS's number; crc32 by default, None for -1.

    ARCHIVE and QARCHIVE report the same crc32 under different names, hence `crc32_name`.
    """
    if variant in (None, "", "crc32", "0"):
        return Checksum(crc32_name, zlib.crc32)
    if variant in ("crc32c", "1"):
        return Checksum("crc32c", crc32c)
    if variant in ("crc32z", "2"):
        return Checksum("crc32z", zlib.crc32)
    if variant == "-1":
        return None
    raise Refusal(f"Unknown crc_variant {variant!r}: must be crc32 (0), crc32c (1), crc32z (2) or -1 for none")


def variant_of(plugin: str) -> str:
    """The `crc_variant` behind the name kept with a file."""
    return "crc32" if plugin in _NAMES_OF_CRC32 else plugin


def checksum_named(plugin: str | None) -> Checksum | None:
    """The checksum behind the name kept with a file."""
    return None if plugin is None else checksum_for(variant_of(plugin))
