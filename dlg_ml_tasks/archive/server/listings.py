"""The listings that clients are reading page by page: where each is, for a limited number and time."""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field

from .refusals import Refusal

_MOST_LISTS = 100
_LONGEST_PAUSE_SECONDS = 3600.0


@dataclass
class FileList:
    """A listing somebody is reading: of the files ingested from `from_date` on, `unique` for one row per version.

    `after` is the key (id, version, disk) of the last row given out, so that a page costs the same wherever it is, and
    nothing is kept of the archive. A file archived meanwhile may be in a later page or not. `remaining` counts rows.
    """

    from_date: str
    unique: bool
    remaining: int
    after: tuple[str, int, str] = ("", 0, "")
    list_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    last_read: float = field(default_factory=time.monotonic)


class FileLists:
    """The listings under way, in the order of their last use."""

    def __init__(self) -> None:
        self._lists: OrderedDict[str, FileList] = OrderedDict()

    def add(self, listing: FileList) -> None:
        """Keep a new listing; the one not read for the longest time gives way."""
        self._lists[listing.list_id] = listing
        while len(self._lists) > _MOST_LISTS:
            self._lists.popitem(last=False)

    def get(self, list_id: str) -> FileList:
        """A listing to go on with. Refuses one that is unknown, finished or too old."""
        listing = self._lists.get(list_id)
        if listing is None or time.monotonic() - listing.last_read > _LONGEST_PAUSE_SECONDS:
            raise Refusal(
                f"Referenced File List ID: {list_id} in connection with STATUS/file_list request, "
                "is not (or no longer) known"
            )
        listing.last_read = time.monotonic()
        self._lists.move_to_end(list_id)
        return listing

    def remove(self, listing: FileList) -> None:
        """Forget a listing that is finished."""
        self._lists.pop(listing.list_id, None)
